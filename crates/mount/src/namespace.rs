//! Which mount namespace a process is in.

use crate::SystemError;

/// A mount namespace, by what the kernel tells it apart with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Namespace(u64, u64);

/// The mount namespace that the calling thread is in.
pub(crate) fn own() -> Result<Namespace, SystemError> {
    at("/proc/thread-self/ns/mnt")
}

/// The mount namespace that a process is in.
pub(crate) fn of_process(pid: i32) -> Result<Namespace, SystemError> {
    at(&format!("/proc/{pid}/ns/mnt"))
}

/// The mount namespace that this file of `/proc` stands for.
fn at(path: &str) -> Result<Namespace, SystemError> {
    let stat = rustix::fs::stat(path).map_err(|e| SystemError::new(path, e))?;
    Ok(Namespace(stat.st_dev, stat.st_ino))
}
