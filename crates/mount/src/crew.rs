//! Children that stay: starting a process takes longer than most calls on a server that answers.
//!
//! A hand waits for calls on a socket and does one at a time. Who calls takes a hand that is free,
//! or waits for one; another is started only when that takes long. A hand whose call has not ended
//! after [`SLOW`] no longer counts, so that a server that does not answer takes hands from nobody.
//! Past its deadline it is killed, and another one takes its place.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::SystemError;
use crate::child::{self, ChildError};
use crate::namespace::{self, Namespace};

/// The word that makes a child one that stays.
pub(crate) const STAY: &str = "stay";
/// Hands that work at a time, slow ones aside; and how many are kept when there is no work.
const HANDS: usize = 4;
/// A call that takes longer waits for a server that does not answer, or not soon. So long, too, a
/// caller waits for a free hand before it starts one.
const SLOW: Duration = Duration::from_millis(250);
/// The most that a call or an answer can say, in bytes.
const LONGEST: usize = 64 * 1024;

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

/// Has the work done in `directory` by a hand, within the deadline.
pub(crate) fn call(
    words: &[&str],
    directory: impl AsFd,
    deadline: Duration,
) -> Result<String, ChildError> {
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
        let directory = [directory.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut passed = SendAncillaryBuffer::new(&mut space);
        passed.push(SendAncillaryMessage::ScmRights(&directory));
        let words = [IoSlice::new(words)];
        rustix::net::sendmsg(&self.socket, &words, &mut passed, SendFlags::NOSIGNAL).map(drop)
    }

    /// What it answers, if it does in time.
    fn answer(&self, deadline: Duration) -> Result<Option<Result<String, ChildError>>, Errno> {
        if !child::wait_for(&self.socket, deadline)? {
            return Ok(None);
        }
        let mut bytes = vec![0; LONGEST];
        let (_, length) =
            rustix::net::recv(&self.socket, bytes.as_mut_slice(), RecvFlags::empty())?;
        let Some((code, text)) = bytes[..length].split_first_chunk() else {
            return Err(Errno::CONNRESET);
        };
        let text = String::from_utf8_lossy(text).trim().to_owned();
        Ok(Some(match i32::from_le_bytes(*code) {
            0 => Ok(text),
            code => Err(ChildError::Failed {
                code,
                message: text,
            }),
        }))
    }

    /// It ends when nobody can call any more.
    fn dismiss(self) {
        drop(self.socket);
        child::forget(self.process);
    }
}

/// Does what is called for, until nobody can call any more.
pub(crate) fn stay() -> io::Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    let mut bytes = vec![0; LONGEST];
    loop {
        let Some((words, directory)) = hear(&socket, &mut bytes)? else {
            return Ok(());
        };
        rustix::stdio::dup2_stdin(&directory)?;
        drop(directory);
        let (code, text) = match crate::work::perform(&words) {
            Ok(answer) => (0, answer),
            Err(failure) => (failure.code(), failure.message),
        };
        // Open, the directory would keep its mount busy.
        rustix::stdio::dup2_stdin(&nothing)?;
        let text = &text.as_bytes()[..text.len().min(LONGEST - size_of_val(&code))];
        let answer = [&code.to_le_bytes(), text].concat();
        rustix::net::send(&socket, &answer, SendFlags::NOSIGNAL)?;
    }
}

fn hear(socket: &OwnedFd, bytes: &mut [u8]) -> io::Result<Option<(Vec<String>, OwnedFd)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let length = rustix::net::recvmsg(socket, &mut buffers, &mut passed, flags)?.bytes;
    let directory = passed.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let Some(directory) = directory else {
        return Ok(None);
    };
    let words = String::from_utf8_lossy(&bytes[..length]);
    Ok(Some((
        words.split('\0').map(str::to_owned).collect(),
        directory,
    )))
}
