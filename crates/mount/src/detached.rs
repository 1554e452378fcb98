//! Mounts that are nowhere in the tree yet.
//!
//! A child that mounts may take long, and may live on for a while when its caller is killed. If it
//! put mounts into the tree, one could come on top of what the next agent mounted meanwhile. So it
//! only makes them, and hands them to its caller, who alone knows that the place is free. One that
//! nobody takes is dissolved by the kernel.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, MountAttrFlags, MoveMountFlags, fsmount, move_mount};

use crate::SystemError;

/// A mount that goes with its descriptor until it has a place.
#[derive(Debug)]
pub(crate) struct Detached(OwnedFd);

impl Detached {
    /// Of a file system that was configured, as the last step.
    pub(crate) fn of(config: &OwnedFd, flags: MountAttrFlags) -> Result<Self, Errno> {
        fsmount(config, FsMountFlags::FSMOUNT_CLOEXEC, flags).map(Self)
    }

    /// Handed over by a child.
    pub(crate) fn received(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Has it seen at an open directory.
    pub(crate) fn put(self, target: impl AsFd) -> Result<(), SystemError> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.0, "", target, "", flags)
            .map_err(|e| SystemError::new("putting the mount in its place", e))
    }
}

impl From<Detached> for OwnedFd {
    /// The directory that is mounted, which can be worked in as it is.
    fn from(mounted: Detached) -> Self {
        mounted.0
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
