//! Copying what is in one directory into another: files with their holes, owners, modes, times, extended
//! attributes and hard links. Blocks are shared where the file system can do that (XFS, Btrfs), or copied
//! by the server (NFS 4.2). No link is followed, nothing that is mounted in the tree is entered.
//!
//! It is a copy file by file: what somebody writes meanwhile is in it or is not.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::SystemError;
use crate::dir::Dir;
use crate::tree::{DEEPEST, Failure, Level, WITHIN, enter, failure};

/// Bytes between two looks at whether to go on.
const STRETCH: u64 = 8 << 20;
/// Bytes at a time where the kernel does not copy by itself.
const BUFFER: usize = 256 << 10;
/// The kernel's limit for the list of extended attributes, and for the value of one.
const ATTRIBUTES: usize = 64 << 10;

/// How far a copy is, and whether it is still wanted; shared with another thread.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// How many bytes are copied.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many bytes there were when it began; 0 before that is known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Ends the copy at the next occasion, with an error.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) -> Result<(), Errno> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.is_wanted()
    }

    fn is_wanted(&self) -> Result<(), Errno> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Errno::CANCELED),
            false => Ok(()),
        }
    }
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, links and directories, without the top one.
    pub entries: u64,
    /// Sockets and device nodes: there are no copies of them.
    pub left_out: u64,
}

/// Copies what is in `from` into `to`, which has to be empty and nobody else's; at the end `to` has mode,
/// owner and times of `from`.
///
/// # Errors
/// When something cannot be read or written, or the copy is not wanted any more; what was copied by
/// then stays.
pub fn contents(from: &Dir, to: &Dir, progress: &Progress) -> Result<Copied, SystemError> {
    let told = |(path, error): Failure| {
        let path = String::from_utf8_lossy(&path).into_owned();
        let path = path.trim_start_matches("./");
        SystemError::new(
            format!("copying {path} of {}", from.path().display()),
            error,
        )
    };
    let total = size(from, progress).map_err(told)?;
    progress.total.store(total, Ordering::Relaxed);
    let mut tree = Tree {
        top: to.as_fd(),
        progress,
        named: HashMap::new(),
        attributes: Attributes::new(),
        copied: Copied::default(),
    };
    tree.copy(from).map_err(told)?;
    Ok(tree.copied)
}

/// What tells a file from every other.
type Inode = (u64, u64);

fn inode(stat: &Stat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

/// What a file takes, its holes left out.
fn taken(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

/// How many bytes the files of a tree take.
fn size(from: &Dir, progress: &Progress) -> Result<u64, Failure> {
    let mut seen: HashSet<Inode> = HashSet::new();
    let mut sum = 0;
    let mut levels: Vec<Level> = begin(from)?;
    while let Some(level) = levels.last_mut() {
        let Some((name, kind)) = level.entries.pop() else {
            levels.pop();
            continue;
        };
        let level = &*level;
        let done = match kind {
            FileType::Directory => descend(&levels, &name).map(|next| levels.extend(next)),
            FileType::RegularFile => stat(level.fd.as_fd(), &name).map(|stat| {
                let new = stat.filter(|stat| stat.st_nlink == 1 || seen.insert(inode(stat)));
                sum += new.as_ref().map_or(0, taken);
            }),
            _ => Ok(()),
        };
        let done = done.and_then(|()| progress.is_wanted());
        done.map_err(|errno| failure(&levels, name, errno))?;
    }
    Ok(sum)
}

fn begin(from: &Dir) -> Result<Vec<Level>, Failure> {
    let top = enter(from, b".").map_err(|errno| failure(&[], b".".to_vec(), errno))?;
    Ok(top.into_iter().collect())
}

/// The next level; none where the directory went meanwhile.
fn descend(levels: &[Level], name: &[u8]) -> Result<Option<Level>, Errno> {
    match levels.last() {
        Some(_) if levels.len() >= DEEPEST => Err(Errno::NAMETOOLONG),
        Some(level) => enter(&level.fd, name),
        None => Ok(None),
    }
}

/// What has the name; none where it went meanwhile.
fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    there(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))
}

fn there<T>(found: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A tree that is copied to.
struct Tree<'a> {
    top: BorrowedFd<'a>,
    progress: &'a Progress,
    /// Where each file that has several names came to lie first, below the top.
    named: HashMap<Inode, Vec<u8>>,
    attributes: Attributes,
    copied: Copied,
}

impl Tree<'_> {
    fn copy(&mut self, from: &Dir) -> Result<(), Failure> {
        let mut levels = begin(from)?;
        let top = rustix::fs::openat(self.top, ".", DIRECTORY, Mode::empty());
        let top = top.map_err(|errno| failure(&[], b".".to_vec(), errno))?;
        let mut copies: Vec<OwnedFd> = vec![top];
        while let (Some(level), Some(copy)) = (levels.last_mut(), copies.last()) {
            let Some((name, kind)) = level.entries.pop() else {
                let done = self.attributes.give(&level.fd, copy);
                done.map_err(|errno| failure(&levels, b".".to_vec(), errno))?;
                levels.pop();
                copies.pop();
                continue;
            };
            let done = self.entry(&mut levels, &mut copies, &name, kind);
            let done = done.and_then(|()| self.progress.is_wanted());
            done.map_err(|errno| failure(&levels, name, errno))?;
        }
        Ok(())
    }

    /// Copies what has the name in the last level; a directory becomes the last level itself.
    fn entry(
        &mut self,
        levels: &mut Vec<Level>,
        copies: &mut Vec<OwnedFd>,
        name: &[u8],
        kind: FileType,
    ) -> Result<(), Errno> {
        let (Some(level), Some(copy)) = (levels.last(), copies.last()) else {
            return Ok(());
        };
        let (from, to) = (level.fd.as_fd(), copy.as_fd());
        match kind {
            FileType::Directory => {
                if let Some(next) = descend(levels, name)? {
                    let copy = make_directory(to, name)?;
                    self.copied.entries += 1;
                    levels.push(next);
                    copies.push(copy);
                }
                Ok(())
            }
            FileType::RegularFile => self.file(levels, from, to, name),
            FileType::Symlink => self.link(from, to, name),
            FileType::Fifo => self.pipe(from, to, name),
            _ => {
                self.copied.left_out += 1;
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        levels: &[Level],
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Errno> {
        // Not blocking: it may have become a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(from, name, flags, Mode::empty(), WITHIN);
        let Some(source) = there(opened)? else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.copied.left_out += 1;
            return Ok(());
        }
        self.copied.entries += 1;
        if stat.st_nlink > 1 {
            if let Some(first) = self.named.get(&inode(&stat)) {
                return rustix::fs::linkat(self.top, &**first, to, name, AtFlags::empty());
            }
            self.named.insert(inode(&stat), below(levels, name));
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        let (source, copy) = (File::from(source), File::from(copy));
        self.data(&source, &copy, &stat)?;
        self.attributes.give(&source, &copy)
    }

    fn data(&self, source: &File, copy: &File, stat: &Stat) -> Result<(), Errno> {
        match rustix::fs::ioctl_ficlone(copy, source) {
            Ok(()) => return self.progress.add(taken(stat)),
            Err(errno) if cannot(errno) => {}
            Err(errno) => return Err(errno),
        }
        let mut at = 0;
        loop {
            let data = match rustix::fs::seek(source, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break, // a hole to the end
                Err(errno) => return Err(errno),
            };
            at = rustix::fs::seek(source, SeekFrom::Hole(data))?;
            self.stretch(source, copy, data, at)?;
        }
        let size = rustix::fs::fstat(source)?.st_size;
        rustix::fs::ftruncate(copy, u64::try_from(size).unwrap_or(0))
    }

    fn stretch(&self, source: &File, copy: &File, at: u64, end: u64) -> Result<(), Errno> {
        let (mut read, mut written) = (at, at);
        while read < end {
            let most = usize::try_from((end - read).min(STRETCH)).unwrap_or(BUFFER);
            let copied = rustix::fs::copy_file_range(
                source,
                Some(&mut read),
                copy,
                Some(&mut written),
                most,
            );
            match copied {
                // Some file systems say so of what they do not copy.
                Ok(0) => return self.by_hand(source, copy, read, end),
                Ok(bytes) => self.progress.add(bytes as u64)?,
                Err(Errno::INTR) => {}
                Err(errno) if cannot(errno) => return self.by_hand(source, copy, read, end),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn by_hand(&self, source: &File, copy: &File, mut at: u64, end: u64) -> Result<(), Errno> {
        let of = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let mut buffer = vec![0; BUFFER];
        while at < end {
            let most = usize::try_from(end - at).map_or(BUFFER, |left| left.min(BUFFER));
            let read = source.read_at(&mut buffer[..most], at).map_err(of)?;
            if read == 0 {
                break; // it was cut meanwhile
            }
            copy.write_all_at(&buffer[..read], at).map_err(of)?;
            at += read as u64;
            self.progress.add(read as u64)?;
        }
        Ok(())
    }

    fn link(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let target = there(rustix::fs::readlinkat(from, name, Vec::new()))?;
        let (Some(target), Some(stat)) = (target, stat(from, name)?) else {
            return Ok(());
        };
        rustix::fs::symlinkat(&target, to, name)?;
        self.copied.entries += 1;
        give_to_name(to, name, &stat)
    }

    fn pipe(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let Some(stat) = stat(from, name)? else {
            return Ok(());
        };
        rustix::fs::mknodat(to, name, FileType::Fifo, Mode::RUSR, 0)?;
        self.copied.entries += 1;
        // The name is of what was just made, in a directory that is nobody else's.
        rustix::fs::chmodat(
            to,
            name,
            Mode::from_raw_mode(stat.st_mode),
            AtFlags::empty(),
        )?;
        give_to_name(to, name, &stat)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The kernel or the file system lacks the call for these two files.
fn cannot(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM
    )
}

fn make_directory(to: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(to, name, Mode::RWXU)?;
    rustix::fs::openat(to, name, DIRECTORY, Mode::empty())
}

/// Where a name lies below the top.
fn below(levels: &[Level], name: &[u8]) -> Vec<u8> {
    let names = levels.iter().skip(1).map(|level| &*level.name);
    names.chain([name]).collect::<Vec<_>>().join(&b'/')
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}

fn times(stat: &Stat) -> Timestamps {
    let at = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn give_to_name(to: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Hands on what a file or a directory has besides its data.
struct Attributes {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Attributes {
    fn new() -> Self {
        Self {
            names: vec![0; ATTRIBUTES],
            value: vec![0; ATTRIBUTES],
        }
    }

    /// Owner first: a change of it takes bits of the mode and capabilities away. Times last.
    fn give(&mut self, source: impl AsFd, copy: impl AsFd) -> Result<(), Errno> {
        let (source, copy) = (source.as_fd(), copy.as_fd());
        let stat = rustix::fs::fstat(source)?;
        let (uid, gid) = owner(&stat);
        rustix::fs::fchown(copy, uid, gid)?;
        rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode))?;
        self.extended(source, copy)?;
        rustix::fs::futimens(copy, &times(&stat))
    }

    fn extended(&mut self, source: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Result<(), Errno> {
        let length = match rustix::fs::flistxattr(source, &mut *self.names) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let names = self.names[..length].split(|byte| *byte == 0);
        for name in names.filter(|name| is_data(name)) {
            match rustix::fs::fgetxattr(source, name, &mut *self.value) {
                Ok(length) => {
                    let value = &self.value[..length];
                    rustix::fs::fsetxattr(copy, name, value, XattrFlags::empty())?;
                }
                Err(Errno::NODATA) => {} // it went meanwhile
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Whether an extended attribute belongs to the data; others, as labels, are given by the system that the
/// copy lies on.
fn is_data(name: &[u8]) -> bool {
    let of: [&[u8]; 4] = [
        b"user.",
        b"trusted.",
        b"system.posix_acl_",
        b"security.capability",
    ];
    of.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    fn copied(from: &Path, to: &Path) -> Copied {
        fs::create_dir(to).unwrap();
        let (from, to) = (Dir::open(from).unwrap(), Dir::open(to).unwrap());
        contents(&from, &to, &Progress::default()).unwrap()
    }

    #[test]
    fn everything_that_a_tree_is_is_in_the_copy() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        fs::create_dir_all(at("from/a/b")).unwrap();
        fs::create_dir(at("outside")).unwrap();
        fs::write(at("outside/secret"), "s").unwrap();
        fs::write(at("from/a/file"), vec![7; 3 * BUFFER + 5]).unwrap();
        fs::write(at("from/empty"), "").unwrap();
        fs::hard_link(at("from/a/file"), at("from/a/b/other-name")).unwrap();
        symlink(at("outside"), at("from/a/out")).unwrap();
        symlink("nowhere", at("from/dangling")).unwrap();
        fs::set_permissions(at("from/a/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(at("from/a"), fs::Permissions::from_mode(0o2750)).unwrap();
        let sparse = File::create(at("from/sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(b"end", (32 << 20) + 1).unwrap();
        rustix::fs::mknodat(
            Dir::open(&at("from")).unwrap(),
            "pipe",
            FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("from/socket")).unwrap();
        let told = copied(&at("from"), &at("to"));
        assert_eq!((told.entries, told.left_out), (9, 1));
        assert_eq!(fs::read(at("to/a/file")).unwrap(), vec![7; 3 * BUFFER + 5]);
        assert_eq!(fs::read(at("to/empty")).unwrap(), b"");
        let of = |path: &str| fs::symlink_metadata(at(path)).unwrap();
        assert_eq!(of("to/a/file").ino(), of("to/a/b/other-name").ino());
        assert_ne!(of("to/a/file").ino(), of("from/a/file").ino());
        for same in ["a", "a/file", "a/out", "pipe", "sparse", ""] {
            let (from, to) = (of(&format!("from/{same}")), of(&format!("to/{same}")));
            assert_eq!(from.mode(), to.mode(), "{same}");
            let times = |m: &fs::Metadata| (m.mtime(), m.mtime_nsec());
            assert_eq!(times(&from), times(&to), "{same}");
        }
        assert_eq!(fs::read_link(at("to/a/out")).unwrap(), at("outside"));
        assert_eq!(
            fs::read_link(at("to/dangling")).unwrap(),
            Path::new("nowhere")
        );
        let (from, to) = (of("from/sparse"), of("to/sparse"));
        assert_eq!(from.len(), to.len());
        assert!(to.blocks() <= from.blocks() + 16, "{} blocks", to.blocks());
        let mut end = [0; 3];
        let sparse = File::open(at("to/sparse")).unwrap();
        sparse.read_exact_at(&mut end, (32 << 20) + 1).unwrap();
        assert_eq!(&end, b"end");
    }

    #[test]
    fn extended_attributes_come_along() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir(&from).unwrap();
        let file = File::create(from.join("file")).unwrap();
        match rustix::fs::fsetxattr(&file, "user.colour", b"red", XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => return, // a temporary directory on a file system without
            set => set.unwrap(),
        }
        copied(&from, &to);
        let mut value = [0; 16];
        let file = File::open(to.join("file")).unwrap();
        let length = rustix::fs::fgetxattr(&file, "user.colour", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"red");
    }

    #[test]
    fn progress_is_told_and_a_copy_is_stopped() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        for dir in ["from", "to", "never"] {
            fs::create_dir(at(dir)).unwrap();
        }
        fs::write(at("from/file"), vec![1; 1 << 20]).unwrap();
        File::open(at("from/file")).unwrap().sync_all().unwrap(); // its blocks are counted then
        let dir = |path: &str| Dir::open(&at(path)).unwrap();
        let progress = Progress::default();
        contents(&dir("from"), &dir("to"), &progress).unwrap();
        assert_eq!(progress.bytes(), 1 << 20);
        assert!(progress.total() >= 1 << 20, "{}", progress.total());
        let stopped = Progress::default();
        stopped.stop();
        let error = contents(&dir("from"), &dir("never"), &stopped).unwrap_err();
        assert!(error.to_string().contains("copying file of"), "{error}");
        assert_eq!(fs::read_dir(at("never")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_mounted_in_the_tree_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let to = Dir::open(temp.path()).unwrap();
        let root = Dir::open("/".as_ref()).unwrap();
        let error = contents(&root, &to, &Progress::default()).unwrap_err();
        assert!(error.to_string().contains("mounted"), "{error}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
