//! Open directories, entered one checked name at a time and never through a link.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::SystemError;
use crate::table::{self, Identity};

/// One name of a path: not empty, not `.` or `..`, without `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component(String);

/// A name that cannot be part of a path.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of a directory: it must not be empty, `.` or `..` or contain `/`"
)]
pub struct NameError(String);

impl Component {
    /// Checks a name.
    ///
    /// # Errors
    /// When the name would lead elsewhere than one directory down.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let bad = name.is_empty()
            || name == "."
            || name == ".."
            || name.len() > 255
            || name.contains(['/', '\0']);
        if bad {
            return Err(NameError(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of a directory that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// There was none.
    Absent,
    /// Something is in it: left as it is.
    NotEmpty,
    /// Something is mounted there: left as it is.
    MountPoint,
}

/// An open directory. It stays the same directory whatever is renamed or mounted over its path. A clone is the
/// same handle, and costs no call to the kernel.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    names: Names,
}

/// What has to be done for a name that came or went to survive a power failure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names {
    /// The directory is synced.
    Synced,
    /// Nothing: it is a server's, which keeps names before it answers (RFC 1813 section 4.8, RFC 8881
    /// section 18), and to open the directory for it would cost two calls.
    KeptByServer,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory that the operator named; links on the way are followed.
    ///
    /// # Errors
    /// When it does not exist or is no directory.
    pub fn open(path: &Path) -> Result<Self, SystemError> {
        let fd = rustix::fs::openat(CWD, path, HANDLE, Mode::empty())
            .map_err(|e| SystemError::new(format!("opening {}", path.display()), e))?;
        Ok(Self::from_parts(fd, path.to_owned(), Names::Synced))
    }

    pub(crate) fn from_parts(fd: OwnedFd, path: PathBuf, names: Names) -> Self {
        let fd = Arc::new(fd);
        Self { fd, path, names }
    }

    fn below(&self, fd: OwnedFd, name: &Component) -> Self {
        Self::from_parts(fd, self.path.join(name.as_str()), self.names)
    }

    /// Waits until all names that came into this directory or went would survive a power failure.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sync(&self) -> Result<(), SystemError> {
        match self.names {
            Names::KeptByServer => Ok(()),
            Names::Synced => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
                    .and_then(rustix::fs::fsync)
                    .map_err(|e| self.failed("syncing", e))
            }
        }
    }

    /// The path it was opened by, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells this directory from every other.
    ///
    /// # Errors
    /// As [`table::identity`].
    pub fn identity(&self) -> Result<Identity, SystemError> {
        table::identity_at(&self.fd, "").map_err(|e| self.failed("looking at", e))
    }

    /// Opens the directory of this name within this one, or what is mounted there; `None` when
    /// there is none.
    ///
    /// # Errors
    /// When it is a link or no directory.
    pub fn child(&self, name: &Component) -> Result<Option<Self>, SystemError> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.fd, name.as_str(), HANDLE, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(self.below(fd, name))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => {
                let link = io::Error::other("it is a symbolic link where a directory must be");
                Err(self.failed_at("opening", name, link))
            }
            Err(e) => Err(self.failed_at("opening", name, e)),
        }
    }

    /// Opens the directory of this name, making it (mode 0750) where there is none.
    ///
    /// # Errors
    /// When it cannot be made, or something else has the name.
    pub fn make_child(&self, name: &Component) -> Result<Self, SystemError> {
        // To ask a server to make what is there costs a call; to see that it is there, mostly none.
        if let Some(there) = self.child(name)? {
            return Ok(there);
        }
        match rustix::fs::mkdirat(&self.fd, name.as_str(), Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(self.failed_at("making", name, e)),
        }
        self.child(name)?
            .ok_or_else(|| self.failed_at("opening", name, Errno::NOENT))
    }

    /// Opens whatever has this name, or what is mounted there, as a handle without access. A link is
    /// opened itself.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn entry(&self, name: &Component) -> Result<Option<Self>, SystemError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(&self.fd, name.as_str(), flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(self.below(fd, name))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed_at("opening", name, e)),
        }
    }

    /// Opens the file of this name, making an empty one (mode 0640) where there is none: a place at
    /// which another file can be mounted.
    ///
    /// # Errors
    /// When it cannot be made, or a link or a directory has the name.
    pub fn make_file(&self, name: &Component) -> Result<Self, SystemError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name.as_str(), flags, Mode::from_raw_mode(0o640)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(e) => return Err(self.failed_at("making", name, e)),
        }
        let file = self
            .entry(name)?
            .ok_or_else(|| self.failed_at("opening", name, Errno::NOENT))?;
        match file.kind()? {
            FileType::Symlink | FileType::Directory => {
                let wrong = io::Error::other("it is a link or a directory where a file must be");
                Err(self.failed_at("opening", name, wrong))
            }
            _ => Ok(file),
        }
    }

    /// Removes the file of this name when it is an empty regular one and nothing is mounted there.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that.
    pub fn remove_file(&self, name: &Component) -> Result<Removal, SystemError> {
        if self.is_mount_point(name)? {
            return Ok(Removal::MountPoint);
        }
        let Some(file) = self.entry(name)? else {
            return Ok(Removal::Absent);
        };
        let stat = rustix::fs::fstat(&file).map_err(|e| self.failed_at("looking at", name, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size != 0 {
            return Ok(Removal::NotEmpty);
        }
        self.unlink(name)
    }

    /// Makes a link of this name, unless it is there.
    ///
    /// # Errors
    /// When something else has the name.
    pub fn make_link(&self, name: &Component, target: &Path) -> Result<(), SystemError> {
        match rustix::fs::symlinkat(target, &self.fd, name.as_str()) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if self.link(name).is_some_and(|there| there == target) => Ok(()),
            Err(e) => Err(self.failed_at("making the link", name, e)),
        }
    }

    /// Where the link of this name leads; none when it is no link.
    #[must_use]
    pub fn link(&self, name: &Component) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt as _;
        let target = rustix::fs::readlinkat(&self.fd, name.as_str(), Vec::new()).ok()?;
        Some(std::ffi::OsString::from_vec(target.into_bytes()).into())
    }

    /// Removes the link of this name; another file stays ([`Removal::NotEmpty`]).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_link(&self, name: &Component) -> Result<Removal, SystemError> {
        match self.entry(name)? {
            None => Ok(Removal::Absent),
            Some(file) if file.kind()? != FileType::Symlink => Ok(Removal::NotEmpty),
            Some(_) => self.unlink(name),
        }
    }

    pub(crate) fn unlink(&self, name: &Component) -> Result<Removal, SystemError> {
        match rustix::fs::unlinkat(&self.fd, name.as_str(), AtFlags::empty()) {
            Ok(()) => Ok(Removal::Removed),
            Err(Errno::NOENT) => Ok(Removal::Absent),
            Err(Errno::BUSY) => Ok(Removal::MountPoint),
            Err(e) => Err(self.failed_at("removing", name, e)),
        }
    }

    pub(crate) fn kind(&self) -> Result<FileType, SystemError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| self.failed("looking at", e))?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Whether something is mounted at this name; `false` when nothing has the name.
    ///
    /// # Errors
    /// As [`table::identity`].
    pub fn is_mount_point(&self, name: &Component) -> Result<bool, SystemError> {
        match table::identity_at(&self.fd, name.as_str()) {
            Ok(identity) => Ok(identity.is_mount_point),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(self.failed_at("looking at", name, e)),
        }
    }

    /// The names of the directories in this one, sorted; other files are left out, and so are
    /// names that are not UTF-8.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn children(&self) -> Result<Vec<Component>, SystemError> {
        let mut names = Vec::new();
        for (name, kind) in self.read()? {
            if self.is_directory(&name, kind)? {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// All names in this one, sorted, without those that are not UTF-8.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<Component>, SystemError> {
        Ok(self.read()?.into_iter().map(|(name, _)| name).collect())
    }

    fn read(&self) -> Result<Vec<(Component, FileType)>, SystemError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let read = rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
            .and_then(rustix::fs::Dir::new)
            .map_err(|e| self.failed("reading", e))?;
        let mut names = Vec::new();
        for entry in read {
            let entry = entry.map_err(|e| self.failed("reading", e))?;
            if let Ok(Ok(name)) = entry.file_name().to_str().map(Component::new) {
                names.push((name, entry.file_type()));
            }
        }
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(names)
    }

    /// Some file systems do not tell the type in a listing.
    fn is_directory(&self, name: &Component, told: FileType) -> Result<bool, SystemError> {
        if told != FileType::Unknown {
            return Ok(told == FileType::Directory);
        }
        match rustix::fs::statat(&self.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.failed_at("looking at", name, e)),
        }
    }

    /// Unmounts what is mounted at this name: only the topmost mount, only when nothing uses it,
    /// and never what a link of that name leads to.
    ///
    /// # Errors
    /// When nothing is mounted there, or it is in use ([`io::ErrorKind::ResourceBusy`]).
    pub fn unmount(&self, name: &Component) -> Result<(), SystemError> {
        // umount(2) takes no descriptor, but a path that starts at one.
        let path = format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd());
        rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)
            .map_err(|e| self.failed_at("unmounting", name, e))
    }

    /// Removes the directory of this name when it is empty and nothing is mounted there.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that.
    pub fn remove(&self, name: &Component) -> Result<Removal, SystemError> {
        if self.is_mount_point(name)? {
            return Ok(Removal::MountPoint);
        }
        match rustix::fs::unlinkat(&self.fd, name.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(Removal::Removed),
            Err(Errno::NOENT) => Ok(Removal::Absent),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removal::NotEmpty),
            Err(Errno::BUSY) => Ok(Removal::MountPoint),
            Err(e) => Err(self.failed_at("removing", name, e)),
        }
    }

    fn failed(&self, verb: &str, error: impl Into<io::Error>) -> SystemError {
        SystemError::new(format!("{verb} {}", self.path.display()), error)
    }

    pub(crate) fn failed_at(
        &self,
        verb: &str,
        name: &Component,
        error: impl Into<io::Error>,
    ) -> SystemError {
        let path = self.path.join(name.as_str());
        SystemError::new(format!("{verb} {}", path.display()), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn name(text: &str) -> Component {
        Component::new(text).unwrap()
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
            assert!(Component::new(bad).is_err(), "{bad:?}");
        }
        for good in ["cqh", "...", "a b", "0f3b-11", "kubernetes.io~local-volume"] {
            assert_eq!(Component::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn makes_and_removes_only_what_is_empty() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let made = dir.make_child(&name("a")).unwrap();
        let mode = temp
            .path()
            .join("a")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(
            mode & 0o027,
            0o020 & mode,
            "nobody else may look in: {mode:o}"
        );
        std::fs::write(temp.path().join("a/file"), "x").unwrap();
        assert_eq!(made.path(), temp.path().join("a"));
        assert_eq!(dir.remove(&name("a")).unwrap(), Removal::NotEmpty);
        std::fs::remove_file(temp.path().join("a/file")).unwrap();
        assert_eq!(dir.remove(&name("a")).unwrap(), Removal::Removed);
        assert_eq!(dir.remove(&name("a")).unwrap(), Removal::Absent);
        assert!(dir.child(&name("a")).unwrap().is_none());
    }

    #[test]
    fn links_and_files_are_not_entered() {
        let temp = tempfile::tempdir().unwrap();
        symlink("/etc", temp.path().join("link")).unwrap();
        std::fs::write(temp.path().join("file"), "x").unwrap();
        std::fs::create_dir(temp.path().join("sub")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let error = dir.child(&name("link")).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert!(dir.make_child(&name("link")).is_err());
        assert!(dir.child(&name("file")).is_err());
        assert!(dir.remove(&name("link")).is_err());
        assert!(temp.path().join("link").is_symlink());
        assert_eq!(dir.children().unwrap(), [name("sub")]);
    }

    #[test]
    fn files_and_links_are_told_from_what_they_are_not() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.make_file(&name("a")).unwrap();
        dir.make_file(&name("a")).unwrap();
        std::fs::write(temp.path().join("full"), "x").unwrap();
        dir.make_link(&name("link"), "a".as_ref()).unwrap();
        dir.make_link(&name("link"), "a".as_ref()).unwrap();
        assert!(dir.make_link(&name("link"), "b".as_ref()).is_err());
        assert!(dir.make_file(&name("link")).is_err());
        assert_eq!(dir.names().unwrap(), ["a", "full", "link"].map(name));
        assert_eq!(dir.remove_file(&name("full")).unwrap(), Removal::NotEmpty);
        assert_eq!(dir.remove_file(&name("link")).unwrap(), Removal::NotEmpty);
        assert_eq!(dir.remove_link(&name("a")).unwrap(), Removal::NotEmpty);
        assert_eq!(dir.remove_link(&name("link")).unwrap(), Removal::Removed);
        assert_eq!(dir.remove_file(&name("a")).unwrap(), Removal::Removed);
        assert_eq!(dir.remove_file(&name("a")).unwrap(), Removal::Absent);
        assert_eq!(dir.names().unwrap(), [name("full")]);
    }

    #[test]
    fn a_mount_point_is_not_removed() {
        let root = Dir::open("/".as_ref()).unwrap();
        assert!(root.is_mount_point(&name("proc")).unwrap());
        assert_eq!(root.remove(&name("proc")).unwrap(), Removal::MountPoint);
    }
}
