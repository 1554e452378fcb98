//! Directories on the way down a tree: no link is followed, nothing that is mounted in it is entered.

use std::io;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories deeper than this are no tree that anybody made by hand; each costs a descriptor.
pub(crate) const DEEPEST: usize = 512;

/// A name, in whatever encoding.
pub(crate) type OsName = Vec<u8>;
/// Where in the tree something failed, and why.
pub(crate) type Failure = (Vec<u8>, io::Error);

/// A directory on the way down, and what is left to be looked at in it.
pub(crate) struct Level {
    pub(crate) fd: OwnedFd,
    pub(crate) name: OsName,
    pub(crate) entries: Vec<(OsName, FileType)>,
}

/// How a tree is walked: never out of it.
pub(crate) const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens a directory and lists it; none where it went meanwhile.
pub(crate) fn enter(parent: impl AsFd, name: &[u8]) -> Result<Option<Level>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = match rustix::fs::openat2(parent, name, flags, Mode::empty(), WITHIN) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(&fd, name)?,
                kind => kind,
            };
            entries.push((name.to_vec(), kind));
        }
    }
    Ok(Some(Level {
        fd,
        name: name.to_vec(),
        entries,
    }))
}

/// Some file systems do not tell the type in a listing.
fn kind_of(fd: impl AsFd, name: &[u8]) -> Result<FileType, Errno> {
    match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
        Err(Errno::NOENT) => Ok(FileType::RegularFile),
        Err(e) => Err(e),
    }
}

/// What failed below these directories, for the user.
pub(crate) fn failure(levels: &[Level], name: OsName, error: Errno) -> Failure {
    let names = levels.iter().map(|level| &level.name).chain([&name]);
    let path: Vec<&[u8]> = names.map(Vec::as_slice).collect();
    let error = match error {
        Errno::XDEV | Errno::BUSY => io::Error::new(
            io::Error::from(error).kind(),
            "something is mounted there: unmount it first",
        ),
        error => error.into(),
    };
    (path.join(&b'/'), error)
}
