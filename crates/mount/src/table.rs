//! The mount table: what is mounted where, as the kernel tells it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::process::{MountInfo, MountOptFields};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxAttributes, StatxFlags};

use crate::SystemError;

/// The kernel's number for a mount; no two mounts have the same at one time, in any namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountId(pub u64);

/// The device number of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount.
    pub id: MountId,
    /// The mount that its mount point lies on.
    pub parent: MountId,
    /// The file system.
    pub device: Device,
    /// The directory of the file system that is seen at the mount point.
    pub root: PathBuf,
    /// Where it is mounted, as seen by the process whose table this is.
    pub point: PathBuf,
    /// What is mounted, e.g. `/dev/vda` or `server:/export`; its meaning is the file system's own.
    pub source: String,
    /// The file system's type, e.g. `ext4`.
    pub fs_type: String,
    /// Whether writing through this mount is refused.
    pub read_only: bool,
    /// The group of mounts that mount and unmount together with this one (`shared:N`).
    pub peers: Option<u32>,
    /// The group that this mount follows (`master:N`).
    pub follows: Option<u32>,
}

/// All mounts of a mount namespace, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTable(Vec<Mount>);

impl MountTable {
    /// Reads this process's table.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn read() -> Result<Self, SystemError> {
        Self::from_file("/proc/self/mountinfo".as_ref())
    }

    /// Reads another process's table.
    ///
    /// # Errors
    /// When the process ended, or may not be looked at.
    pub fn of_process(pid: i32) -> Result<Self, SystemError> {
        Self::from_file(format!("/proc/{pid}/mountinfo").as_ref())
    }

    fn from_file(file: &Path) -> Result<Self, SystemError> {
        let doing = || format!("reading {}", file.display());
        let text = std::fs::read(file).map_err(|e| SystemError::new(doing(), e))?;
        Self::parse(&text).map_err(|e| SystemError::new(doing(), e))
    }

    #[cfg(test)]
    pub(crate) fn from_mounts(mounts: Vec<Mount>) -> Self {
        Self(mounts)
    }

    /// Reads what a `mountinfo` file says.
    ///
    /// Names are bytes and need not be UTF-8; a name that is not is read with marks in its place,
    /// rather than that one odd mount hides all others.
    ///
    /// # Errors
    /// On a line that Linux does not write.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        String::from_utf8_lossy(text)
            .lines()
            .map(|line| MountInfo::from_line(line).ok().and_then(mount))
            .collect::<Option<Vec<_>>>()
            .map(Self)
            .ok_or_else(|| io::Error::other("a line is not as Linux writes it"))
    }

    /// The mount seen at this path: the last one made there. The path must be as the table has it:
    /// absolute and without links. [`identity`] answers for a directory that is open.
    #[must_use]
    pub fn at(&self, point: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|m| m.point == point)
    }

    /// The mount of this number.
    #[must_use]
    pub fn get(&self, id: MountId) -> Option<&Mount> {
        self.0.iter().find(|m| m.id == id)
    }

    /// All mounts, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }
}

fn mount(line: MountInfo) -> Option<Mount> {
    let (major, minor) = line.majmin.split_once(':')?;
    let mut mount = Mount {
        id: MountId(line.mnt_id.try_into().ok()?),
        parent: MountId(line.pid.try_into().ok()?),
        device: Device {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        },
        root: unescape(&line.root),
        point: unescape(line.mount_point.to_str()?),
        source: unescape(line.mount_source.as_deref().unwrap_or_default())
            .to_string_lossy()
            .into_owned(),
        fs_type: line.fs_type,
        read_only: line.mount_options.contains_key("ro"),
        peers: None,
        follows: None,
    };
    for field in line.opt_fields {
        match field {
            MountOptFields::Shared(group) => mount.peers = Some(group),
            MountOptFields::Master(group) => mount.follows = Some(group),
            MountOptFields::PropagateFrom(_) | MountOptFields::Unbindable => {}
        }
    }
    Some(mount)
}

/// The kernel writes space, tab, newline and backslash in a path as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        (rest, _) = match code {
            Some(byte) => (&after[3..], bytes.push(byte)),
            None => (after, bytes.push(first)),
        };
    }
    OsString::from_vec(bytes).into()
}

/// What tells a directory or file from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file system.
    pub device: Device,
    /// The number within the file system.
    pub inode: u64,
    /// The mount through which it is seen.
    pub mount: MountId,
    /// Whether it is the top of that mount: something is mounted just there.
    pub is_mount_point: bool,
}

impl Identity {
    /// Whether both are one file or directory, maybe seen through different mounts.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The identity of what is open, without waiting for a server where the file system has one.
///
/// # Errors
/// When the kernel is older than Linux 5.8.
pub fn identity(file: impl AsFd) -> Result<Identity, SystemError> {
    identity_at(file, "").map_err(|e| SystemError::new("looking at an open file", e))
}

pub(crate) fn identity_at(dir: impl AsFd, name: &str) -> io::Result<Identity> {
    let flags = AtFlags::EMPTY_PATH
        | AtFlags::SYMLINK_NOFOLLOW
        | AtFlags::NO_AUTOMOUNT
        | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(dir, name, flags, StatxFlags::INO | StatxFlags::MNT_ID)?;
    from_statx(&stat)
}

pub(crate) fn from_statx(stat: &Statx) -> io::Result<Identity> {
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID)
        && stat
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT);
    if !known {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel does not tell mounts apart: Linux 5.8 or newer is needed",
        ));
    }
    Ok(Identity {
        device: Device {
            major: stat.stx_dev_major,
            minor: stat.stx_dev_minor,
        },
        inode: stat.stx_ino,
        mount: MountId(stat.stx_mnt_id),
        is_mount_point: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

/// Tells when the mount table changed.
///
/// A reactor can wait for it instead of a thread: the file has *priority* readiness (`EPOLLPRI`) once
/// for each time that the table changed since it was last waited for.
#[derive(Debug)]
pub struct Watcher(OwnedFd);

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Watcher {
    /// Watches from now on.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn new() -> Result<Self, SystemError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/mountinfo", flags, Mode::empty())
            .map(Self)
            .map_err(|e| SystemError::new("opening the mount table", e))
    }

    /// Waits until the table changed since the last call; `false` when the time was up first.
    /// Blocks its thread.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn wait(&self, at_most: Duration) -> Result<bool, SystemError> {
        let limit = Timespec::try_from(at_most).map_err(|_| {
            SystemError::new("waiting for mounts", io::Error::other("too long a time"))
        })?;
        // The file can be read at any time; only PRI says that something changed.
        let mut fds = [PollFd::new(&self.0, PollFlags::PRI)];
        match poll(&mut fds, Some(&limit)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(SystemError::new("waiting for mounts", e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        let table = MountTable::parse(
            b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
              30 22 254:0 /data/my\\040pv /pods/a\\134b ro,noatime master:7 - ext4 /dev/vda rw\n\
              31 30 0:44 / /pods/a\\134b rw - tmpfs none rw\n\
              32 22 0:45 / /mnt/\xff rw - tmpfs  rw\n",
        )
        .unwrap();
        let points: Vec<_> = table.iter().map(|m| m.point.to_str().unwrap()).collect();
        assert_eq!(points, ["/", r"/pods/a\b", r"/pods/a\b", "/mnt/\u{fffd}"]);
        let bound = table.get(MountId(30)).unwrap();
        assert_eq!(bound.root, Path::new("/data/my pv"));
        assert_eq!(
            bound.device,
            Device {
                major: 254,
                minor: 0
            }
        );
        assert!(bound.read_only);
        assert_eq!((bound.peers, bound.follows), (None, Some(7)));
        assert_eq!(table.at(r"/pods/a\b".as_ref()).unwrap().id, MountId(31));
        assert_eq!(table.at("/pods".as_ref()), None);
    }

    #[test]
    fn a_line_cut_short_is_an_error() {
        assert!(MountTable::parse(b"22 1 254:0 / /").is_err());
        assert!(MountTable::parse(b"22 1 here / / rw - ext4 a rw").is_err());
    }

    #[test]
    fn a_backslash_without_digits_stays() {
        assert_eq!(unescape(r"a\04"), Path::new(r"a\04"));
        assert_eq!(unescape(r"\999\"), Path::new(r"\999\"));
    }

    #[test]
    fn open_directories_say_where_they_are() {
        let root = identity(std::fs::File::open("/").unwrap()).unwrap();
        let proc = identity(std::fs::File::open("/proc").unwrap()).unwrap();
        assert!(root.is_mount_point && proc.is_mount_point);
        assert!(!root.is_same_file(&proc));
        let table = MountTable::read().unwrap();
        assert_eq!(table.get(proc.mount).unwrap().point, Path::new("/proc"));
        let inside = identity(std::fs::File::open("/proc/sys").unwrap()).unwrap();
        assert_eq!(inside.mount, proc.mount);
        assert!(!inside.is_mount_point);
    }
}
