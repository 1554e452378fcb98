//! A volume's path, resolved once to a descriptor and never out of its root.

use std::io;
use std::path::{Component as Part, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::dir::{Dir, Names};

/// The directory in which volumes' paths start.
#[derive(Debug)]
pub struct Root {
    dir: Dir,
    resolve: ResolveFlags,
}

/// A path that was resolved.
#[derive(Debug)]
pub struct Resolved {
    /// What is there, open. A block device is open too, as a handle without access.
    pub dir: Dir,
    /// What it is.
    pub kind: PathKind,
}

/// What a local volume may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
}

/// What may be at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// Something else.
    Other,
}

/// Why a volume's path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The path is relative or has `..` in it.
    #[error("path {0:?} must be absolute and without \"..\"")]
    Invalid(PathBuf),
    /// Nothing is there.
    #[error("path {0:?} does not exist")]
    Missing(PathBuf),
    /// A file, a socket or another thing that no volume is made of.
    #[error("path {0:?} is a {1}: only directory and block device are supported")]
    Unsupported(PathBuf, &'static str),
    /// Something on the way that is no directory.
    #[error("path {0:?} leads through something that is not a directory")]
    NotADirectory(PathBuf),
    /// A link on the way leads out of the root.
    #[error(
        "path {path:?}: the symbolic link {link:?} leads to {target:?}, out of {root:?}; put the data below {root:?} or use a relative link that stays in it"
    )]
    LeavesRoot {
        /// The path that was asked for.
        path: PathBuf,
        /// The link.
        link: PathBuf,
        /// What it says.
        target: PathBuf,
        /// What it leaves.
        root: PathBuf,
    },
    /// Links that lead in circles.
    #[error("path {0:?} leads through too many symbolic links")]
    Circular(PathBuf),
    /// The kernel refused.
    #[error("path {path:?}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Root {
    /// Opens a root. In `/` links are followed as always; in any other directory a link must stay
    /// inside, so an absolute one is refused wherever it leads.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn open(path: &Path) -> Result<Self, PathError> {
        let dir = Dir::open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => PathError::Missing(path.to_owned()),
            kind => PathError::System {
                path: path.to_owned(),
                source: kind.into(),
            },
        })?;
        let inside = if path == Path::new("/") {
            ResolveFlags::IN_ROOT
        } else {
            ResolveFlags::BENEATH
        };
        Ok(Self {
            dir,
            resolve: inside | ResolveFlags::NO_MAGICLINKS,
        })
    }

    /// Opens what a volume's path names; the path starts at this root. Makes nothing (M40).
    ///
    /// # Errors
    /// When there is nothing a volume can be, with the texts that users know from the kubelet (E8).
    pub fn resolve(&self, path: &Path) -> Result<Resolved, PathError> {
        let inside = inside(path)?;
        let fd = self
            .open_handle(inside)
            .map_err(|e| self.explain(path, inside, e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| system(path, e))?;
        let unsupported = |what| Err(PathError::Unsupported(path.to_owned(), what));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => PathKind::Directory,
            FileType::BlockDevice => PathKind::BlockDevice,
            FileType::RegularFile => return unsupported("file"),
            FileType::Socket => return unsupported("socket"),
            FileType::Fifo => return unsupported("pipe"),
            FileType::CharacterDevice => return unsupported("character device"),
            _ => return unsupported("file of an unknown type"),
        };
        Ok(Resolved {
            dir: Dir::from_parts(fd, self.dir.path().join(inside), Names::Synced),
            kind,
        })
    }

    /// What is at a path, links followed as in [`Root::resolve`]; `None` when nothing is.
    ///
    /// # Errors
    /// When the path is no good, or leads out of the root.
    pub fn look(&self, path: &Path) -> Result<Option<FileKind>, PathError> {
        let inside = inside(path)?;
        let fd = match self.open_handle(inside) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.explain(path, inside, e)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| system(path, e))?;
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => FileKind::Directory,
            FileType::RegularFile => FileKind::File,
            FileType::Socket => FileKind::Socket,
            FileType::CharacterDevice => FileKind::CharacterDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            _ => FileKind::Other,
        }))
    }

    /// Makes a directory (mode 0755) and all that are missing above it.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn make_directory(&self, path: &Path) -> Result<(), PathError> {
        let missing: Vec<_> = path
            .ancestors()
            .take_while(|part| !matches!(self.look(part), Ok(Some(_))))
            .collect();
        for part in missing.into_iter().rev() {
            self.make(part, |parent, name| {
                rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
            })?;
        }
        Ok(())
    }

    /// Makes an empty file (mode 0644) in a directory that is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_file(&self, path: &Path) -> Result<(), PathError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        self.make(path, |parent, name| {
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        })
    }

    fn make(
        &self,
        path: &Path,
        make: impl FnOnce(&rustix::fd::OwnedFd, &std::ffi::OsStr) -> Result<(), Errno>,
    ) -> Result<(), PathError> {
        let inside = inside(path)?;
        let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else {
            return Err(PathError::Invalid(path.to_owned()));
        };
        let parent = self
            .open_handle(parent)
            .map_err(|e| self.explain(path, inside, e))?;
        match make(&parent, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(system(path, e)),
        }
    }

    fn explain(&self, path: &Path, inside: &Path, error: Errno) -> PathError {
        match error {
            Errno::NOENT => PathError::Missing(path.to_owned()),
            Errno::NOTDIR => PathError::NotADirectory(path.to_owned()),
            Errno::LOOP => PathError::Circular(path.to_owned()),
            Errno::XDEV => self.leaving_link(path, inside),
            e => system(path, e),
        }
    }

    fn open_handle(&self, inside: &Path) -> Result<rustix::fd::OwnedFd, Errno> {
        let inside = if inside.as_os_str().is_empty() {
            Path::new(".")
        } else {
            inside
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // The kernel gives up with AGAIN when something was renamed meanwhile.
        for _ in 0..64 {
            match rustix::fs::openat2(&self.dir, inside, flags, Mode::empty(), self.resolve) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The first link on the way that leads out.
    fn leaving_link(&self, path: &Path, inside: &Path) -> PathError {
        let mut so_far = PathBuf::new();
        for part in inside.components() {
            let parent = so_far.clone();
            so_far.push(part);
            if self.open_handle(&so_far).err() != Some(Errno::XDEV) {
                continue;
            }
            let target = self
                .open_handle(&parent)
                .and_then(|dir| rustix::fs::readlinkat(dir, part.as_os_str(), Vec::new()));
            return match target {
                Ok(target) => PathError::LeavesRoot {
                    path: path.to_owned(),
                    link: Path::new("/").join(&so_far),
                    target: PathBuf::from(String::from_utf8_lossy(target.as_bytes()).as_ref()),
                    root: self.dir.path().to_owned(),
                },
                Err(e) => system(path, e),
            };
        }
        system(path, Errno::XDEV)
    }
}

/// A volume's path as one that starts at the root.
fn inside(path: &Path) -> Result<&Path, PathError> {
    let inside = path
        .strip_prefix("/")
        .map_err(|_| PathError::Invalid(path.to_owned()))?;
    match inside.components().any(|part| part == Part::ParentDir) {
        true => Err(PathError::Invalid(path.to_owned())),
        false => Ok(inside),
    }
}

fn system(path: &Path, error: Errno) -> PathError {
    let source = if error == Errno::NOSYS {
        io::Error::other("the kernel cannot resolve paths safely: Linux 5.6 or newer is needed")
    } else {
        error.into()
    };
    PathError::System {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A root with a directory, a file, and links that stay, leave, turn in circles and lead
    /// nowhere.
    fn root() -> (tempfile::TempDir, Root) {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("data/pv")).unwrap();
        std::fs::write(at("data/file"), "x").unwrap();
        symlink("pv", at("data/stays")).unwrap();
        symlink("/etc", at("data/out")).unwrap();
        symlink("../../..", at("data/up")).unwrap();
        symlink("round", at("data/round")).unwrap();
        symlink("nowhere", at("data/dangling")).unwrap();
        let root = Root::open(temp.path()).unwrap();
        (temp, root)
    }

    #[test]
    fn each_bad_path_says_what_is_wrong() {
        let (temp, root) = root();
        let out = temp.path().display();
        let cases = [
            (
                "/data/gone",
                r#"path "/data/gone" does not exist"#.to_owned(),
            ),
            (
                "/data/dangling",
                r#"path "/data/dangling" does not exist"#.to_owned(),
            ),
            (
                "/data/file",
                r#"path "/data/file" is a file: only directory and block device are supported"#
                    .to_owned(),
            ),
            (
                "/data/file/x",
                r#"path "/data/file/x" leads through something that is not a directory"#.to_owned(),
            ),
            (
                "/data/out/ssl",
                format!(
                    r#"path "/data/out/ssl": the symbolic link "/data/out" leads to "/etc", out of "{out}"; put the data below "{out}" or use a relative link that stays in it"#
                ),
            ),
            (
                "/data/up",
                format!(
                    r#"path "/data/up": the symbolic link "/data/up" leads to "../../..", out of "{out}"; put the data below "{out}" or use a relative link that stays in it"#
                ),
            ),
            (
                "/data/round",
                r#"path "/data/round" leads through too many symbolic links"#.to_owned(),
            ),
            (
                "data/pv",
                r#"path "data/pv" must be absolute and without "..""#.to_owned(),
            ),
            (
                "/data/../pv",
                r#"path "/data/../pv" must be absolute and without "..""#.to_owned(),
            ),
        ];
        for (path, text) in cases {
            assert_eq!(root.resolve(path.as_ref()).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn good_paths_lead_to_the_directory() {
        let (_temp, root) = root();
        let direct = root.resolve("/data/pv".as_ref()).unwrap();
        let linked = root.resolve("/data/stays/".as_ref()).unwrap();
        assert_eq!(direct.kind, PathKind::Directory);
        let same = direct.dir.identity().unwrap();
        assert!(same.is_same_file(&linked.dir.identity().unwrap()));
    }

    #[test]
    fn in_the_host_root_links_are_followed() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("real")).unwrap();
        symlink(temp.path().join("real"), temp.path().join("link")).unwrap();
        let root = Root::open("/".as_ref()).unwrap();
        let linked = root.resolve(&temp.path().join("link")).unwrap();
        let real = root.resolve(&temp.path().join("real")).unwrap();
        let real = real.dir.identity().unwrap();
        assert!(real.is_same_file(&linked.dir.identity().unwrap()));
        assert!(matches!(
            root.resolve("/proc/self/root".as_ref()),
            Err(PathError::Circular(_))
        ));
        assert!(matches!(
            root.resolve("/dev/null".as_ref()),
            Err(PathError::Unsupported(_, "character device"))
        ));
        assert!(root.resolve("/".as_ref()).is_ok());
    }

    #[test]
    fn a_root_that_is_missing_is_an_error() {
        assert!(matches!(
            Root::open("/nowhere/at/all".as_ref()),
            Err(PathError::Missing(_))
        ));
    }
}
