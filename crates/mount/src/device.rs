//! Block devices: what is on them, file systems made, checked, mounted and grown; loop devices.
//!
//! A device is only ever formatted when it is proven to be blank: a low-level probe knew nothing on
//! it, and its first and last MiB were read and are zero ([`identify`]). An unread, ambivalent
//! or unknown device is left as it is, with an error that says why.
//!
//! **A format that was cut off** leaves data that no probe knows. So that it can be taken up again,
//! and only our own can, a mark is put on the device before `mkfs` begins, in a place that this
//! `mkfs` does not write to, and taken away when it is done. The mark holds the UUID that the file
//! system will have:
//!
//! | cut off | found on the device | what [`format()`] does then |
//! | --- | --- | --- |
//! | before the mark is written | zeros | begins |
//! | while `mkfs` runs | the mark, and nothing known, or a file system of that UUID that is unfinished or was never mounted | zeros the ends and begins again |
//! | before the mark is taken away | the mark, and a file system of that UUID: of XFS finished, of ext mounted once | takes the mark away, nothing else |
//! | later | a file system, no mark | refuses |
//!
//! A file system with another UUID, or any other signature beside a mark, is somebody else's. That
//! `mkfs` does not touch the mark is only needed to get on: where it did, the device is refused.
//! To keep the mark, nothing is discarded (`-E nodiscard`, `-K`).
//!
//! All that touches a device is done in a [`child`] with a deadline. A child holds
//! `flock(2)` on the device while it writes, and so do the programs it started: who comes after a
//! killed agent is told [`Kind::Busy`] until they ended.
//!
//! ```no_run
//! use std::time::Duration;
//! use bitts_mount::device::{self, Device, FsType, Options};
//! use bitts_mount::dir::Dir;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! bitts_mount::child::serve();
//! let device = Device::open("/dev/disk/by-id/google-data".as_ref())?;
//! let target = Dir::open("/mnt/data".as_ref())?;
//! let options = Options::parse(["noatime"])?;
//! // Formats what is blank, checks what is not, mounts it and grows it to the device's size.
//! let staged =
//!     device::stage(&device, &target, FsType::Ext4, &options, Duration::from_secs(600))?;
//! staged.grown?;
//! # Ok(())
//! # }
//! ```

mod check;
mod contents;
mod error;
mod format;
mod grow;
mod held;
pub mod loops;
mod mark;
mod mount;
mod probe;
mod program;
mod superblock;
pub(crate) mod work;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};

pub use contents::{Contents, Filesystem};
pub use error::{DeviceError, Kind};
pub use mount::{OptionError, Options};

use crate::SystemError;
use crate::dir::Dir;
use crate::{child, crew, table};

/// A block device, open as a handle without access: opening it so waits for nothing.
#[derive(Debug)]
pub struct Device {
    handle: OwnedFd,
    path: PathBuf,
    number: table::Device,
}

impl Device {
    /// Opens a device that the operator or the system named; links are followed.
    ///
    /// # Errors
    /// When there is none, or it is something else.
    pub fn open(path: &Path) -> Result<Self, SystemError> {
        let handle = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| SystemError::new(format!("opening {}", path.display()), e))?;
        Self::from_handle(handle, path)
    }

    /// The device that a volume's path was resolved to ([`crate::path::PathKind::BlockDevice`]).
    ///
    /// # Errors
    /// When it is something else.
    pub fn resolved(at: &Dir) -> Result<Self, SystemError> {
        let handle = at
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| SystemError::new("keeping a device open", e))?;
        Self::from_handle(handle, at.path())
    }

    fn from_handle(handle: OwnedFd, path: &Path) -> Result<Self, SystemError> {
        let doing = || format!("looking at {}", path.display());
        let stat = rustix::fs::fstat(&handle).map_err(|e| SystemError::new(doing(), e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
            let cause = io::Error::other("it is not a block device");
            return Err(SystemError::new(doing(), cause));
        }
        Ok(Self {
            handle,
            path: path.to_owned(),
            number: table::Device {
                major: rustix::fs::major(stat.st_rdev),
                minor: rustix::fs::minor(stat.st_rdev),
            },
        })
    }

    /// The path it was opened by, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number; a file system on it has the same.
    #[must_use]
    pub fn number(&self) -> table::Device {
        self.number
    }

    fn ask(&self, doing: &str, words: &[&str], deadline: Duration) -> Result<String, DeviceError> {
        let words = [&[work::DEVICE], words].concat();
        child::own(&words)
            .map_err(child::ChildError::from)
            .and_then(|command| child::ask(command, self, deadline))
            .map_err(|e| error::explain(doing, &self.path, e))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// A file system that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsType {
    /// ext2.
    Ext2,
    /// ext3.
    Ext3,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FsType {
    const ALL: [Self; 4] = [Self::Ext2, Self::Ext3, Self::Ext4, Self::Xfs];

    /// The type of this name; the empty name is ext4 (M40).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name.is_empty() {
            return Some(Self::Ext4);
        }
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// The name, as in `mount -t`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// Whether a device with `found` on it can be mounted as this: the driver of ext4 knows its
    /// predecessors.
    fn mounts(self, found: &str) -> bool {
        self.as_str() == found || (self == Self::Ext4 && matches!(found, "ext2" | "ext3"))
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is on the device; reads it past all caches and writes nothing.
///
/// # Errors
/// When it cannot be read, or carries several things at once.
pub fn identify(device: &Device, deadline: Duration) -> Result<Contents, DeviceError> {
    let doing = "finding out what is on";
    let said = device.ask(doing, &[work::IDENTIFY], deadline)?;
    Contents::from_words(&said).ok_or_else(|| {
        let cause = io::Error::other(format!("an answer that makes no sense: {said:?}"));
        let cause = SystemError::new("asking a child", cause);
        error::explain(doing, &device.path, cause.into())
    })
}

/// Makes a file system on a device that is proven to be blank, or goes on where it was cut off.
///
/// # Errors
/// When anything is on the device, it is in use, too small or read-only, or `mkfs` failed.
pub fn format(device: &Device, fs: FsType, deadline: Duration) -> Result<(), DeviceError> {
    let doing = format!("making {fs} on");
    let words = [work::FORMAT, fs.as_str()];
    device.ask(&doing, &words, deadline).map(drop)
}

/// Checks a file system that is not mounted and repairs what can be without asking, as `fsck -a`
/// does. XFS has nothing to check: its log is read when it is mounted.
///
/// # Errors
/// When something is left that only a person can repair; the error has the command.
pub fn check(device: &Device, found: &str, deadline: Duration) -> Result<(), DeviceError> {
    let words = [work::CHECK, found];
    device.ask("checking", &words, deadline).map(drop)
}

/// Mounts the file system of this type at an open directory.
///
/// # Errors
/// When the kernel refuses.
pub fn mount(
    device: &Device,
    fs: &str,
    target: &Dir,
    options: &Options,
    deadline: Duration,
) -> Result<(), DeviceError> {
    let mut words = vec![work::DEVICE, work::MOUNT, fs];
    words.extend(options.words());
    crew::mount(&words, device, target, deadline)
        .map_err(|e| error::explain("mounting", &device.path, e))
}

/// Lets a mounted file system fill its device; whether there was anything to do.
///
/// # Errors
/// When it is not mounted, or its program failed.
pub fn grow(device: &Device, deadline: Duration) -> Result<bool, DeviceError> {
    let said = device.ask("growing the file system on", &[work::GROW], deadline)?;
    Ok(said == work::GROWN)
}

/// What [`stage`] did.
#[derive(Debug)]
#[must_use]
pub struct Staged {
    /// A file system was made, or the making of one was finished.
    pub formatted: bool,
    /// Whether it was grown. That it could not be is no reason to unmount what can be used.
    pub grown: Result<bool, DeviceError>,
}

/// All of it in order, as the kubelet does: a blank device is formatted, another one checked, and
/// then it is mounted and grown. Read-only, nothing is written to the device (M40).
///
/// # Errors
/// When it is not mounted in the end; [`Kind::Mismatch`] when another file system than `fs` is on the device, and
/// [`Kind::Unformatted`] when it is blank and must not be written.
pub fn stage(
    device: &Device,
    target: &Dir,
    fs: FsType,
    options: &Options,
    deadline: Duration,
) -> Result<Staged, DeviceError> {
    let start = Instant::now();
    let left = || deadline.saturating_sub(start.elapsed());
    let refused = |kind, message: String| DeviceError::new("mounting", &device.path, kind, message);
    let mut formatted = false;
    match identify(device, left())? {
        Contents::Blank | Contents::Interrupted if options.is_read_only() => {
            let message = "it has no file system yet, and read-only none is made: mount the volume \
                           for writing once";
            return Err(refused(Kind::Unformatted, message.to_owned()));
        }
        Contents::Blank | Contents::Interrupted => {
            format(device, fs, left())?;
            formatted = true;
        }
        Contents::Foreign(what) => {
            let message = format!(
                "it carries {what} and is not formatted; if nobody needs that any more: wipefs -a, \
                 and zeros on the first and last MiB"
            );
            return Err(refused(Kind::NotBlank, message));
        }
        Contents::Filesystem(found) if !fs.mounts(&found.kind) => {
            let message = format!(
                "it has the file system {} and the volume says {fs}: correct the volume's fsType",
                found.kind
            );
            return Err(refused(Kind::Mismatch, message));
        }
        Contents::Filesystem(_) if options.is_read_only() => {}
        Contents::Filesystem(found) => check(device, &found.kind, left())?,
    }
    mount(device, fs.as_str(), target, options, left())?;
    let grown = if options.is_read_only() {
        Ok(false)
    } else {
        grow(device, left())
    };
    Ok(Staged { formatted, grown })
}
