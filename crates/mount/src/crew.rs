//! Children that stay: starting a process takes longer than most calls on a server that answers.
//!
//! A hand waits for calls on a socket and does one at a time. Who calls takes a hand that is free,
//! or waits for one; another is started only when that takes long. A hand whose call has not ended
//! after [`SLOW`] no longer counts, so that a server that does not answer takes hands from nobody.
//! Past its deadline it is killed, and another one takes its place.
//!
//! **When the caller is killed**, its hands end as well, with a call that waits for a server: a thread
//! of theirs waits for just that (the kernel's signal for it, `PR_SET_PDEATHSIG`, comes when the
//! *thread* ends that started a child). Until they did, they take nothing new up, and a mount that
//! they have made is [put](Detached::put) nowhere.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::SystemError;
use crate::child::{self, ChildError};
use crate::detached::Detached;
use crate::dir::Dir;
use crate::namespace::{self, Namespace};
use crate::work::Done;

/// The word that makes a child one that stays.
pub(crate) const STAY: &str = "stay";
/// Hands that work at a time, slow ones aside; and how many are kept when there is no work.
const HANDS: usize = 4;
/// A call that takes longer waits for a server that does not answer, or not soon. So long, too, a
/// caller waits for a free hand before it starts one.
const SLOW: Duration = Duration::from_millis(250);
/// The most that a call or an answer can say, in bytes.
const LONGEST: usize = 64 * 1024;
/// The stack of a thread that only waits, in bytes.
const LITTLE: usize = 64 * 1024;

/// A child that waits for calls.
struct Hand {
    process: Child,
    socket: OwnedFd,
    /// The mount namespace that it is in.
    namespace: Namespace,
}

struct Crew {
    idle: Vec<Hand>,
    /// When each call that is under way began.
    busy: Vec<Instant>,
}

static CREW: Mutex<Crew> = Mutex::new(Crew {
    idle: Vec::new(),
    busy: Vec::new(),
});
static CHANGED: Condvar = Condvar::new();

/// Has the work done in `directory` by a hand, within the deadline; returns what it answered.
pub(crate) fn call(
    words: &[&str],
    directory: impl AsFd,
    deadline: Duration,
) -> Result<String, ChildError> {
    ask(words, directory, deadline).map(|made| made.text)
}

/// Has a mount made of what is `open`, and puts it at the target.
pub(crate) fn mount(
    words: &[&str],
    open: impl AsFd,
    target: &Dir,
    deadline: Duration,
) -> Result<(), ChildError> {
    Ok(make(words, open, deadline)?.put(target)?)
}

/// Has a mount made of what is `open`.
pub(crate) fn make(
    words: &[&str],
    open: impl AsFd,
    deadline: Duration,
) -> Result<Detached, ChildError> {
    ask(words, open, deadline)?.mounted.ok_or_else(|| {
        let cause = io::Error::other("the child made none");
        SystemError::new("taking over a mount", cause).into()
    })
}

fn ask(words: &[&str], directory: impl AsFd, deadline: Duration) -> Result<Made, ChildError> {
    child::reap();
    // A hand from another one would mount elsewhere.
    let namespace = namespace::own()?;
    let (turn, mut free) = Turn::take(namespace);
    let said = words.join("\0");
    let hand = loop {
        let (hand, is_new) = match free.take() {
            Some(hand) => (hand, false),
            None => (Hand::start(namespace)?, true),
        };
        match hand.tell(said.as_bytes(), &directory) {
            Ok(()) => break hand,
            // It was killed while nobody looked.
            Err(_) if !is_new => hand.dismiss(),
            Err(error) => {
                hand.dismiss();
                return Err(SystemError::new("telling a child what to do", error).into());
            }
        }
    };
    match hand.answer(deadline) {
        Ok(Some(answer)) => {
            turn.give_back(hand);
            answer
        }
        Ok(None) => {
            child::kill(hand.process)?;
            // Now, when nobody waits for it.
            if let Ok(next) = Hand::start(namespace) {
                turn.give_back(next);
            }
            Err(ChildError::Deadline(deadline))
        }
        Err(Errno::CONNRESET) => {
            let mut process = hand.process;
            let ended = process.wait();
            Err(ended.map_or_else(
                |e| SystemError::new("waiting for a child", e).into(),
                ChildError::Ended,
            ))
        }
        Err(error) => {
            child::kill(hand.process)?;
            Err(SystemError::new("hearing a child", error).into())
        }
    }
}

/// The right to have a hand work; given back at its end.
struct Turn {
    began: Instant,
}

impl Turn {
    /// Waits until a hand is free, or one more may be started.
    fn take(namespace: Namespace) -> (Self, Option<Hand>) {
        let mut crew = lock();
        let came = Instant::now();
        loop {
            let now = Instant::now();
            let is_free = |hand: &Hand| hand.namespace == namespace;
            let free = crew.idle.iter().rposition(is_free);
            let ages = crew.busy.iter().map(|began| now - *began);
            let brisk: Vec<_> = ages.filter(|age| *age < SLOW).collect();
            let may_start = match brisk.len() {
                0 => true,
                working => working < HANDS && now - came >= SLOW,
            };
            if free.is_some() || may_start {
                crew.busy.push(now);
                let free = free.map(|found| crew.idle.remove(found));
                return (Self { began: now }, free);
            }
            let oldest = brisk.into_iter().max().unwrap_or_default();
            let patience = SLOW.saturating_sub(now - came);
            let until = if patience.is_zero() {
                SLOW - oldest
            } else {
                patience.min(SLOW - oldest)
            };
            let waited = CHANGED.wait_timeout(crew, until);
            crew = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    fn give_back(&self, hand: Hand) {
        let mut crew = lock();
        if crew.idle.len() < HANDS {
            crew.idle.push(hand);
        } else {
            drop(crew);
            hand.dismiss();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut crew = lock();
        if let Some(found) = crew.busy.iter().position(|began| *began == self.began) {
            crew.busy.swap_remove(found);
        }
        drop(crew);
        CHANGED.notify_one();
    }
}

fn lock() -> MutexGuard<'static, Crew> {
    CREW.lock().unwrap_or_else(|e| e.into_inner())
}

impl Hand {
    fn start(namespace: Namespace) -> Result<Self, SystemError> {
        let failed = |e: Errno| SystemError::new("starting a child", e);
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(failed)?;
        let mut command: Command = child::own(&[STAY])?;
        let process = child::start(command.stdin(Stdio::from(theirs)).stderr(Stdio::null()))?;
        Ok(Self {
            process,
            socket,
            namespace,
        })
    }

    fn tell(&self, words: &[u8], directory: &impl AsFd) -> Result<(), Errno> {
        send(&self.socket, words, Some(directory.as_fd()))
    }

    /// What it answers, if it does in time.
    fn answer(&self, deadline: Duration) -> Result<Option<Answer>, Errno> {
        let start = Instant::now();
        let mut bytes = vec![0; LONGEST];
        let mut mounted = None;
        loop {
            if !child::wait_for(&self.socket, deadline.saturating_sub(start.elapsed()))? {
                return Ok(None);
            }
            let (length, open) = receive(&self.socket, &mut bytes)?;
            if let Some(open) = open {
                mounted = Some(Detached::received(open));
                continue;
            }
            let Some((code, text)) = bytes[..length].split_first_chunk() else {
                return Err(Errno::CONNRESET);
            };
            let text = String::from_utf8_lossy(text).trim().to_owned();
            return Ok(Some(match i32::from_le_bytes(*code) {
                0 => Ok(Made { text, mounted }),
                code => Err(ChildError::Failed {
                    code,
                    message: text,
                }),
            }));
        }
    }

    /// It ends when nobody can call any more.
    fn dismiss(self) {
        drop(self.socket);
        child::forget(self.process);
    }
}

/// What a hand answers: the mount that it made, if it was to make one.
type Answer = Result<Made, ChildError>;

/// What a hand made.
#[derive(Debug)]
struct Made {
    /// What it answered, which may be empty.
    text: String,
    mounted: Option<Detached>,
}

/// Does what is called for, until nobody can call any more.
pub(crate) fn stay() -> io::Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    end_with_caller(socket.try_clone()?)?;
    let mut bytes = vec![0; LONGEST];
    loop {
        let (length, Some(directory)) = receive(&socket, &mut bytes)? else {
            return Ok(());
        };
        let words = String::from_utf8_lossy(&bytes[..length]);
        let words: Vec<_> = words.split('\0').map(str::to_owned).collect();
        rustix::stdio::dup2_stdin(&directory)?;
        drop(directory);
        // What a killed agent asked for may not be what the next one wants.
        if is_alone(&socket, Some(&Timespec::default()))? {
            return Ok(());
        }
        let (code, text) = match crate::work::perform(&words) {
            Ok(Done::Said(text)) => (0, text),
            Ok(Done::Mounted(mounted)) => {
                // Ahead of the answer: once that has come, nothing here keeps the mount busy.
                send(&socket, b"mounted", Some(mounted.as_fd()))?;
                (0, String::new())
            }
            Err(failure) => (failure.code(), failure.message),
        };
        // Open, the directory would keep its mount busy.
        rustix::stdio::dup2_stdin(&nothing)?;
        let text = &text.as_bytes()[..text.len().min(LONGEST - size_of_val(&code))];
        let answer = [&code.to_le_bytes(), text].concat();
        send(&socket, &answer, None)?;
    }
}

/// Ends this process, whatever it waits for, when its caller has ended.
pub(crate) fn end_with_caller(socket: OwnedFd) -> io::Result<()> {
    let wait = move || {
        while !is_alone(&socket, None).unwrap_or(true) {}
        std::process::exit(0)
    };
    let thread = std::thread::Builder::new().stack_size(LITTLE);
    thread.spawn(wait).map(drop)
}

/// Whether nobody is at the other end, or will not be within this time.
fn is_alone(socket: &OwnedFd, at_most: Option<&Timespec>) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    match poll(&mut fds, at_most) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a message, and something open with it.
fn send(socket: &OwnedFd, message: &[u8], open: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let open: Vec<_> = open.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = SendAncillaryBuffer::new(&mut space);
    if !open.is_empty() {
        passed.push(SendAncillaryMessage::ScmRights(&open));
    }
    let message = [IoSlice::new(message)];
    rustix::net::sendmsg(socket, &message, &mut passed, SendFlags::NOSIGNAL).map(drop)
}

/// Waits for a message: its length, and what came open with it.
fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let length = rustix::net::recvmsg(socket, &mut buffers, &mut passed, flags)?.bytes;
    let open = passed.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((length, open))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hand and its other end, played by the test.
    fn hand() -> (Hand, OwnedFd) {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let process = Command::new("true").spawn().unwrap();
        let namespace = namespace::own().unwrap();
        let hand = Hand {
            process,
            socket,
            namespace,
        };
        (hand, theirs)
    }

    fn answered(theirs: &OwnedFd, code: i32, text: &str) {
        let answer = [&code.to_le_bytes(), text.as_bytes()].concat();
        send(theirs, &answer, None).unwrap();
    }

    const SOON: Duration = Duration::from_millis(10);

    #[test]
    fn words_and_a_directory_go_to_a_hand() {
        let (mut hand, theirs) = hand();
        let root = std::fs::File::open("/").unwrap();
        hand.tell(b"probe\0a", &root).unwrap();
        let mut bytes = [0; 100];
        let (length, open) = receive(&theirs, &mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"probe\0a");
        let (sent, came) = (rustix::fs::fstat(&root), rustix::fs::fstat(open.unwrap()));
        assert_eq!(sent.unwrap().st_ino, came.unwrap().st_ino);
        hand.process.wait().unwrap();
    }

    #[test]
    fn answers_are_success_or_failure_or_late() {
        let (mut hand, theirs) = hand();
        assert!(hand.answer(SOON).unwrap().is_none());
        answered(&theirs, 0, "70");
        let made = hand.answer(SOON).unwrap().unwrap().unwrap();
        assert!(made.mounted.is_none() && made.text == "70");
        answered(&theirs, 2, "no such path\n");
        let error = hand.answer(SOON).unwrap().unwrap().unwrap_err();
        assert!(
            matches!(&error, ChildError::Failed { code: 2, message } if message == "no such path"),
            "{error:?}"
        );
        drop(theirs);
        assert_eq!(hand.answer(SOON).unwrap_err(), Errno::CONNRESET);
        hand.process.wait().unwrap();
    }

    #[test]
    fn a_mount_counts_once_the_hand_has_let_it_go() {
        let (mut hand, theirs) = hand();
        let open = std::fs::File::open("/").unwrap();
        send(&theirs, b"mounted", Some(open.as_fd())).unwrap();
        assert!(hand.answer(SOON).unwrap().is_none());
        send(&theirs, b"mounted", Some(open.as_fd())).unwrap();
        answered(&theirs, 0, "");
        let made = hand.answer(SOON).unwrap().unwrap().unwrap();
        assert!(made.mounted.is_some());
        hand.process.wait().unwrap();
    }

    #[test]
    fn a_hand_notices_that_nobody_calls_any_more() {
        let (mut hand, theirs) = hand();
        let now = Timespec::default();
        assert!(!is_alone(&theirs, Some(&now)).unwrap());
        // A call that waits is no reason to end.
        hand.tell(b"probe", &std::fs::File::open("/").unwrap())
            .unwrap();
        assert!(!is_alone(&theirs, Some(&now)).unwrap());
        hand.process.wait().unwrap();
        drop(hand.socket);
        assert!(is_alone(&theirs, Some(&now)).unwrap());
    }
}
