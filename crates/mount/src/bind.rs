//! Bind mounts between two open directories.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::SystemError;

/// How a bind mount differs from what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options(MountFlags);

impl Default for Options {
    /// No difference.
    fn default() -> Self {
        Self(MountFlags::empty())
    }
}

/// An option that means nothing for a bind mount.
#[derive(Debug, thiserror::Error)]
#[error(
    "mount option {0:?} cannot be used for a directory: use ro, rw, nosuid, nodev, noexec, noatime, nodiratime or relatime"
)]
pub struct OptionError(String);

impl Options {
    /// Reads options as `mount -o` does; a comma separates several in one text.
    ///
    /// # Errors
    /// On an option that belongs to a file system rather than to a mount.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, OptionError> {
        let mut flags = MountFlags::empty();
        for option in texts.into_iter().flat_map(|text| text.split(',')) {
            flags |= match option.trim() {
                "ro" => MountFlags::RDONLY,
                "nosuid" => MountFlags::NOSUID,
                "nodev" => MountFlags::NODEV,
                "noexec" => MountFlags::NOEXEC,
                "noatime" => MountFlags::NOATIME,
                "nodiratime" => MountFlags::NODIRATIME,
                "relatime" => MountFlags::RELATIME,
                "" | "rw" | "bind" | "defaults" => MountFlags::empty(),
                other => return Err(OptionError(other.to_owned())),
            };
        }
        Ok(Self(flags))
    }

    /// The same, and nothing may be written.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self(self.0 | MountFlags::RDONLY)
    }
}

/// Shows the directory `source` at the directory `target` too; mounts below the source are not
/// shown. Returns once the options hold; a mount whose options were refused is taken back.
///
/// A process that dies in here may leave the mount without its options: [`configure`] finishes it.
///
/// # Errors
/// When the kernel refuses, for instance because the process may not mount.
pub fn bind(source: impl AsFd, target: impl AsFd, options: Options) -> Result<(), SystemError> {
    // There is no way back to mount(2) for kernels without these calls: they lack openat2, on
    // which all paths here depend, as well.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(&source, "", flags).map_err(refused)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", target, "", flags).map_err(refused)?;
    configure(&source, &tree, options).inspect_err(|_| {
        // Best effort: the first error is the one to tell, and the mount shows up in the next scan.
        let _ = rustix::mount::unmount(path_of(tree.as_fd()), UnmountFlags::DETACH);
    })
}

/// Gives a bind mount, open at its top, these options on top of those of its source.
///
/// # Errors
/// When the kernel refuses.
pub fn configure(
    source: impl AsFd,
    mounted: impl AsFd,
    options: Options,
) -> Result<(), SystemError> {
    let has = flags_of(mounted.as_fd())?;
    let mut wanted = flags_of(source.as_fd())? | options.0;
    if options.0.contains(MountFlags::NOATIME) {
        wanted.remove(MountFlags::RELATIME);
    }
    if has == wanted {
        return Ok(());
    }
    let flags = MountFlags::BIND | wanted;
    rustix::mount::mount_remount(path_of(mounted.as_fd()), flags, "")
        .map_err(|e| SystemError::new("setting the options of a bind mount", e))
}

/// mount(2) takes no descriptor, but the path of one.
fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The options a mount has. All are named again on a change, because the kernel takes those that
/// are not named away, or refuses to in a user namespace.
fn flags_of(fd: BorrowedFd<'_>) -> Result<MountFlags, SystemError> {
    let stat = rustix::fs::fstatvfs(fd)
        .map_err(|e| SystemError::new("reading the options of a mount", e))?;
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let has = |(told, flag)| {
        if stat.f_flag.contains(told) {
            flag
        } else {
            MountFlags::empty()
        }
    };
    Ok(pairs.into_iter().map(has).collect())
}

fn refused(error: Errno) -> SystemError {
    let source = match error {
        Errno::PERM => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the process may not mount: it needs the capability SYS_ADMIN in its mount namespace",
        ),
        Errno::NOSYS => io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel cannot mount by descriptor: Linux 5.8 or newer is needed",
        ),
        e => e.into(),
    };
    SystemError::new("bind mount", source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_in_manifests() {
        let options = Options::parse(["noexec,ro", "nodev"]).unwrap();
        assert_eq!(
            options.0,
            MountFlags::NOEXEC | MountFlags::RDONLY | MountFlags::NODEV
        );
        assert_eq!(Options::parse(["rw", ""]).unwrap(), Options::default());
        let error = Options::parse(["hard"]).unwrap_err().to_string();
        assert!(
            error.contains("\"hard\"") && error.contains("noatime"),
            "{error}"
        );
    }
}
