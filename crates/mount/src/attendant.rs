//! A child that stays for one thing and does the program's own work on it.
//!
//! Whoever works on a network file system waits for its server, now and then for ever. What a program
//! has to do there by code of its own, it has done by an attendant: the same program once more, which
//! holds what it needs between calls (a mount that is nowhere in the tree, an index) and is killed when
//! it takes too long. The two talk over a socket, in words that are theirs.
//!
//! It ends when its caller does, and whatever it waits for then.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use crate::{SystemError, child, crew};

/// The word that makes a child an attendant.
pub(crate) const ATTEND: &str = "attend";

/// What attendants of a program do.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The name by which one is [started](Attendant::start).
    pub name: &'static str,
    /// What it does, from its start until nobody calls any more: the end of the stream.
    pub serve: fn(UnixStream) -> io::Result<()>,
}

/// A child that stays. It is killed when this is dropped, without waiting for its end.
#[derive(Debug)]
pub struct Attendant(Option<Child>);

impl Attendant {
    /// Starts one; what is said to it goes over the stream. The program's `main` must begin with
    /// [`child::serve_with`] and a service of this name.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start(name: &str) -> Result<(Self, UnixStream), SystemError> {
        let failed = |e: io::Error| SystemError::new("starting a child", e);
        child::reap();
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = child::own(&[ATTEND, name])?;
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::null());
        let process = child::start(&mut command)?;
        Ok((Self(Some(process)), ours))
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        if let Some(process) = self.0.take() {
            child::kill_at_once(process);
        }
    }
}

/// The child's part.
pub(crate) fn attend(services: &[Service], name: &str) -> io::Result<()> {
    let service = services.iter().find(|service| service.name == name);
    let service = service.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    crew::end_with_caller(socket.try_clone()?)?;
    (service.serve)(UnixStream::from(socket))
}
