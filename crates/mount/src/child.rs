//! Calls that may hang, each in a child process with a deadline.
//!
//! A call on a network file system waits in the kernel as long as the server does not answer, and a
//! thread that waits so cannot be ended; a process can. The child is the same program once more: its
//! `main` begins with [`serve`]. For calls that are many and short there is the `crew`.
//!
//! A child ends when its caller is killed: it would hold what the next agent wants to unmount. Only
//! work on a device goes on, which that agent waits for ([`crate::device`]).

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getppid, set_parent_process_death_signal};

use crate::attendant::{self, Service};
use crate::device::work::DEVICE;
use crate::work::Done;
use crate::{SystemError, crew};

/// The name that a child is started under.
const NAME: &str = "bitts-mount-child";
/// How long a killed child may take to be gone.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// Set by [`serve`]: this program knows how to be a child.
static PREPARED: OnceLock<()> = OnceLock::new();
/// Children that did not end when they were killed: the kernel has them until the server answers.
static STUCK: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Does the work of a child and ends, where this process was started as one; else only notes that
/// this program can be one. To be called first in `main`.
pub fn serve() {
    serve_with(&[]);
}

/// The same for a program that has [attendants](crate::attendant) of its own.
pub fn serve_with(services: &[Service]) {
    let mut arguments = std::env::args();
    if arguments.next().as_deref() != Some(NAME) {
        let _ = PREPARED.set(());
        return;
    }
    let caller = arguments.next();
    let words: Vec<String> = arguments.collect();
    if words == [crew::STAY] {
        let ended = crew::stay();
        std::process::exit(ended.is_err().into())
    }
    if let [attend, name] = &*words
        && attend == attendant::ATTEND
    {
        let ended = attendant::attend(services, name);
        std::process::exit(ended.is_err().into())
    }
    let goes_on = words.first().is_some_and(|word| word == DEVICE);
    if !goes_on && !ends_with(caller) {
        std::process::exit(1);
    }
    let code = match crate::work::perform(&words) {
        Ok(Done::Said(answer)) => say(&answer, 0),
        // Only a hand of the crew has somebody to hand a mount to.
        Ok(Done::Mounted(_)) => say("a mount that nobody takes", 1),
        Err(failure) => say(&failure.message, failure.code()),
    };
    std::process::exit(code)
}

/// Has this process killed when its caller ends; whether the caller is still there.
fn ends_with(caller: Option<String>) -> bool {
    // The kernel goes by the thread that started this process, and that one waits for its end.
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    let caller = caller.and_then(|id| Pid::from_raw(id.parse().ok()?));
    bound.is_ok() && caller.is_some() && getppid() == caller
}

fn say(what: &str, code: i32) -> i32 {
    // Nobody is left to tell when this cannot be told.
    let _ = io::Write::write_all(&mut io::stderr(), what.as_bytes());
    code
}

/// Why a child did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It did not end in time, and was killed. What it was about may have happened.
    #[error("no end after {} s: the server does not answer", .0.as_secs_f32())]
    Deadline(Duration),
    /// It said why; the number is its exit code.
    #[error("{message}")]
    Failed {
        /// Its exit code: an error number of the kernel, if below 200.
        code: i32,
        /// What it said.
        message: String,
    },
    /// It was ended by something else than its deadline.
    #[error("the child process was ended: {0}")]
    Ended(ExitStatus),
    /// It could not be started or waited for.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// The program itself as a child, with this work.
pub(crate) fn own(words: &[&str]) -> Result<Command, SystemError> {
    if PREPARED.get().is_none() {
        let cause = "the program's main must begin with bitts_mount::child::serve()";
        return Err(SystemError::new(
            "starting a child",
            io::Error::other(cause),
        ));
    }
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(NAME)
        .arg(std::process::id().to_string())
        .args(words);
    Ok(command)
}

/// Runs a child in `directory` (its standard input, which may be open with `O_PATH`) and waits for
/// it, at most until the deadline.
pub(crate) fn run(
    command: Command,
    directory: impl AsFd,
    deadline: Duration,
) -> Result<(), ChildError> {
    ask(command, directory, deadline).map(drop)
}

/// The same with what the child answered.
pub(crate) fn ask(
    mut command: Command,
    directory: impl AsFd,
    deadline: Duration,
) -> Result<String, ChildError> {
    reap();
    let failed = |e: io::Error| SystemError::new("starting a child", e);
    // Not a pipe: nobody has to read it, and no daemon that the child starts can keep it open.
    let said =
        rustix::fs::memfd_create("said", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut said = File::from(said);
    let directory: OwnedFd = directory.as_fd().try_clone_to_owned().map_err(failed)?;
    command
        .stdin(Stdio::from(directory))
        .stderr(Stdio::from(said.try_clone().map_err(failed)?));
    let mut child = start(&mut command)?;
    let Some(status) = wait(&mut child, deadline)? else {
        kill(child)?;
        return Err(ChildError::Deadline(deadline));
    };
    let mut message = String::new();
    let read = said
        .rewind()
        .and_then(|()| said.read_to_string(&mut message));
    match (status.code(), read) {
        (Some(0), Ok(_)) => Ok(message.trim().to_owned()),
        (Some(code), Ok(_)) => Err(ChildError::Failed {
            code,
            message: message.trim().to_owned(),
        }),
        _ => Err(ChildError::Ended(status)),
    }
}

/// Starts a child with a process group of its own, so that all that it starts can be killed with it.
pub(crate) fn start(command: &mut Command) -> Result<Child, SystemError> {
    command
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|e| SystemError::new("starting a child", e))
}

/// Kills a child with all that it started, as mount.nfs does.
pub(crate) fn kill(mut child: Child) -> Result<(), SystemError> {
    signal(&child);
    if wait(&mut child, LAST_BREATH)?.is_none() {
        forget(child);
    }
    Ok(())
}

/// Kills a child and waits for nothing.
pub(crate) fn kill_at_once(child: Child) {
    signal(&child);
    forget(child);
}

fn signal(child: &Child) {
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Leaves a child to end by itself; what is left of it then goes with a later call.
pub(crate) fn forget(child: Child) {
    STUCK.lock().unwrap_or_else(|e| e.into_inner()).push(child);
}

/// Waits without a thread or a signal handler of its own.
fn wait(child: &mut Child, at_most: Duration) -> Result<Option<ExitStatus>, SystemError> {
    let failed = |e: io::Error| SystemError::new("waiting for a child", e);
    let pid = Pid::from_raw(child.id().cast_signed())
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let handle =
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
    let ended = wait_for(&handle, at_most).map_err(|e| failed(e.into()))?;
    if !ended {
        return Ok(None);
    }
    child.wait().map(Some).map_err(failed)
}

/// Waits until there is something to read, or no longer.
pub(crate) fn wait_for(what: &OwnedFd, at_most: Duration) -> Result<bool, Errno> {
    let start = Instant::now();
    loop {
        let left = at_most.saturating_sub(start.elapsed());
        let limit = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(what, PollFlags::IN)], limit.as_ref()) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Forgets the children that the kernel has let go meanwhile.
pub(crate) fn reap() {
    let mut stuck = STUCK.lock().unwrap_or_else(|e| e.into_inner());
    stuck.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}
