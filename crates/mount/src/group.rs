//! Giving the files of a volume to a group, so that a pod's processes may use them (M35, M36).
//!
//! No link is followed and nothing that is mounted in the volume is entered, whatever a process in it
//! does meanwhile: each file is opened as a handle, and what was opened is changed.

use std::os::fd::AsRawFd as _;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::child::{self, ChildError};
use crate::dir::Dir;
use crate::work::{Failure, GROUP};

/// What a group member may do with a file: read and write,
const FILE: u32 = 0o660;
/// and enter a directory, in which new files are the group's as well.
const DIRECTORY: u32 = FILE | 0o2110;
/// Directories deeper than this are no tree that anybody made by hand; each costs a descriptor.
const DEEPEST: usize = 512;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// How many files and directories were changed.
    pub changed: u64,
    /// How many could not be.
    pub failed: u64,
    /// The first of these, and why.
    pub first: String,
}

/// Gives all that is in an open directory, and then itself, to a group, in a child process that is
/// killed at the deadline. As the directory comes last, a walk that was cut off, or in which a file
/// could not be changed, is told from a whole one by [`is_given`].
///
/// # Errors
/// When the child was ended, or the directory cannot be read.
pub fn give_in_child(dir: &Dir, gid: u32, deadline: Duration) -> Result<Given, ChildError> {
    let said = child::ask(child::own(&[GROUP, &gid.to_string()])?, dir, deadline)?;
    let mut words = said.splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok(Given {
        changed: number(),
        failed: number(),
        first: words.next().unwrap_or_default().to_owned(),
    })
}

/// Whether an open directory is the group's already, so that what is in it need not be looked at
/// (`OnRootMismatch`).
///
/// # Errors
/// When the kernel refuses.
pub fn is_given(dir: &Dir, gid: u32) -> Result<bool, crate::SystemError> {
    let stat = stat(dir.as_fd())
        .map_err(|e| crate::SystemError::new(format!("looking at {}", dir.path().display()), e))?;
    Ok(!needs_change(&stat, gid))
}

/// The group of an open directory.
///
/// # Errors
/// When the kernel refuses.
pub fn of(dir: &Dir) -> Result<u32, crate::SystemError> {
    let stat = stat(dir.as_fd())
        .map_err(|e| crate::SystemError::new(format!("looking at {}", dir.path().display()), e))?;
    Ok(stat.st_gid)
}

/// The child's part: for the directory that is its standard input.
pub(crate) fn give_here(gid: &str) -> Result<String, Failure> {
    let nonsense = |_| Failure::new("reading the group's number", Errno::INVAL);
    let gid = gid.parse().map_err(nonsense)?;
    let given = give(rustix::stdio::stdin(), gid)
        .map_err(|errno| Failure::new("reading the volume's directory", errno))?;
    Ok(format!(
        "{} {} {}",
        given.changed, given.failed, given.first
    ))
}

/// A directory on the way down.
struct Level {
    handle: OwnedFd,
    stat: Stat,
    entries: rustix::fs::Dir,
    path: Vec<u8>,
}

fn give(root: impl AsFd, gid: u32) -> Result<Given, Errno> {
    let mut given = Given::default();
    let top = root
        .as_fd()
        .try_clone_to_owned()
        .map_err(|_| Errno::MFILE)?;
    let mut levels = vec![Level::enter(top, Vec::new())?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.read() else {
            let Some(done) = levels.pop() else { break };
            // The root says that all is done, so it stays as it is where that is not so.
            if !levels.is_empty() || given.failed == 0 {
                given.change(done.handle.as_fd(), &done.stat, gid, &done.path);
            }
            continue;
        };
        let name = match &entry {
            Ok(entry) => entry.file_name().to_bytes(),
            Err(errno) => {
                given.fail(&level.path, *errno);
                continue;
            }
        };
        if matches!(name, b"." | b"..") {
            continue;
        }
        let path = [&level.path, b"/".as_slice(), name].concat();
        let looked = open(&level.handle, name).and_then(|handle| Ok((stat(&handle)?, handle)));
        let (stat, handle) = match looked {
            Ok(found) => found,
            // Gone meanwhile, or something is mounted there.
            Err(Errno::NOENT | Errno::XDEV) => continue,
            Err(errno) => {
                given.fail(&path, errno);
                continue;
            }
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            given.change(handle.as_fd(), &stat, gid, &path);
        } else if levels.len() >= DEEPEST {
            given.fail(&path, Errno::NAMETOOLONG);
        } else {
            match Level::enter(handle, path.clone()) {
                Ok(level) => levels.push(level),
                Err(errno) => given.fail(&path, errno),
            }
        }
    }
    Ok(given)
}

impl Level {
    fn enter(handle: OwnedFd, path: Vec<u8>) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = rustix::fs::openat(&handle, ".", flags, Mode::empty())?;
        Ok(Self {
            stat: stat(&handle)?,
            entries: rustix::fs::Dir::new(readable)?,
            handle,
            path,
        })
    }
}

impl Given {
    fn change(&mut self, handle: BorrowedFd<'_>, stat: &Stat, gid: u32, path: &[u8]) {
        match change(handle, stat, gid) {
            Ok(changed) => self.changed += u64::from(changed),
            Err(errno) => self.fail(path, errno),
        }
    }

    fn fail(&mut self, path: &[u8], errno: Errno) {
        self.failed += 1;
        if self.first.is_empty() {
            let path = String::from_utf8_lossy(path);
            self.first = format!("{:?}: {errno}", path.trim_start_matches('/'));
        }
    }
}

fn open(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

fn stat(handle: impl AsFd) -> Result<Stat, Errno> {
    rustix::fs::fstat(handle)
}

fn wanted(stat: &Stat) -> u32 {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => stat.st_mode | DIRECTORY,
        // A link has no mode of its own.
        FileType::Symlink => stat.st_mode,
        _ => stat.st_mode | FILE,
    }
}

fn needs_change(stat: &Stat, gid: u32) -> bool {
    stat.st_gid != gid || wanted(stat) != stat.st_mode
}

fn change(handle: BorrowedFd<'_>, stat: &Stat, gid: u32) -> Result<bool, Errno> {
    if !needs_change(stat, gid) {
        return Ok(false);
    }
    let empty = AtFlags::EMPTY_PATH;
    rustix::fs::chownat(handle, "", None, Some(Gid::from_raw(gid)), empty)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // A handle has no fchmod.
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        rustix::fs::chmod(path, Mode::from_raw_mode(wanted(stat) & 0o7777))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    /// The group of the one who tests: others may be given only by root.
    fn own() -> u32 {
        rustix::process::getgid().as_raw()
    }

    fn tree() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("volume/a/b")).unwrap();
        fs::write(at("volume/a/file"), "x").unwrap();
        fs::write(at("outside"), "x").unwrap();
        symlink("../outside", at("volume/link")).unwrap();
        for (name, mode) in [
            ("volume/a/file", 0o600),
            ("outside", 0o600),
            ("volume", 0o700),
        ] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        temp
    }

    #[test]
    fn a_group_may_use_all_and_nothing_outside() {
        let temp = tree();
        let root = Dir::open(&temp.path().join("volume")).unwrap();
        assert!(!is_given(&root, own()).unwrap());
        let given = give(&root, own()).unwrap();
        assert_eq!((given.changed, given.failed), (4, 0), "{given:?}");
        let mode = |name: &str| fs::metadata(temp.path().join(name)).unwrap().mode() & 0o7777;
        assert_eq!(mode("volume/a/file"), 0o660);
        assert_eq!(mode("volume") & 0o2770, 0o2770);
        assert_eq!(mode("volume/a/b") & 0o2770, 0o2770);
        assert_eq!(mode("outside"), 0o600);
        assert!(is_given(&root, own()).unwrap());
        assert_eq!(of(&root).unwrap(), own());
        assert_eq!(give(&root, own()).unwrap(), Given::default());
    }

    #[test]
    fn what_cannot_be_changed_is_told_and_leaves_the_root_as_it_is() {
        let temp = tree();
        let root = Dir::open(&temp.path().join("volume")).unwrap();
        fs::create_dir_all(temp.path().join("volume").join("d/".repeat(DEEPEST + 8))).unwrap();
        let given = give(&root, own()).unwrap();
        assert_eq!(given.failed, 1, "{given:?}");
        assert!(given.first.contains("d/d/d"), "{given:?}");
        assert!(!is_given(&root, own()).unwrap());
    }
}
