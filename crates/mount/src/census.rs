//! One look at all processes, shared by everybody who asked for it before it began.
//!
//! A look takes milliseconds, be it for one mount or for a hundred that are taken down at once. What
//! was seen before a question came up never answers it: the process that matters may have come since.
//!
//! All of it is read from `/proc`, so this process must see the processes of the whole node: in a
//! container it needs the host's pid namespace (`hostPID: true`). Nothing here notices when it is
//! missing: a process that is not listed counts as none.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags};

use crate::SystemError;
use crate::namespace::{self, Namespace};
use crate::table::{self, Identity, MountId, MountTable};

/// What all other processes have in use at one time.
#[derive(Debug)]
pub struct Census {
    /// The mount namespace of whoever looked, and its table, read before anything else.
    namespace: Namespace,
    pub(crate) own: MountTable,
    pub(crate) processes: Vec<Process>,
}

/// What one process has in use.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// As `/proc` lists them.
    pub(crate) cgroups: io::Result<String>,
    /// Its mount table; `None` for a process in the namespace of whoever looked.
    pub(crate) table: Option<Result<Arc<MountTable>, SystemError>>,
    pub(crate) open: Opened,
}

/// What a process has open, works or is rooted in.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) files: Vec<(MountId, Link)>,
    /// Why there may be more.
    pub(crate) unread: Option<io::Error>,
}

/// The name of something open in a process's part of `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    WorkingDirectory,
    Root,
    File(i32),
}

impl Link {
    /// What it leads to, or else its own path.
    pub(crate) fn path(self, pid: i32) -> PathBuf {
        let link: PathBuf = match self {
            Self::WorkingDirectory => format!("/proc/{pid}/cwd").into(),
            Self::Root => format!("/proc/{pid}/root").into(),
            Self::File(number) => format!("/proc/{pid}/fd/{number}").into(),
        };
        std::fs::read_link(&link).unwrap_or(link)
    }
}

static LOOKS: Shared<Census> = Shared::new();

impl Census {
    /// A look that begins after this call, maybe somebody else's.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn take() -> Result<Arc<Self>, SystemError> {
        let namespace = namespace::own()?;
        let look = LOOKS.get(Self::look)?;
        if look.namespace == namespace {
            return Ok(look);
        }
        // By a thread that sees other mounts than this one.
        Self::look().map(Arc::new)
    }

    fn look() -> Result<Self, SystemError> {
        let namespace = namespace::own()?;
        let own = MountTable::read()?;
        let mut reader = Reader::default();
        let processes = processes()?
            .into_iter()
            .map(|pid| reader.process(pid, namespace))
            .collect();
        Ok(Self {
            namespace,
            own,
            processes,
        })
    }
}

/// Those who ask while a look is under way share the next one.
struct Shared<T> {
    looks: Mutex<Looks<T>>,
    changed: Condvar,
}

/// Looks are numbered as they begin.
struct Looks<T> {
    begun: u64,
    under_way: bool,
    /// The last that succeeded, kept while somebody waits.
    last: Option<(u64, Arc<T>)>,
    waiting: usize,
}

impl<T> Shared<T> {
    const fn new() -> Self {
        Self {
            looks: Mutex::new(Looks {
                begun: 0,
                under_way: false,
                last: None,
                waiting: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Looks<T>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a look gives that begins after this call.
    fn get<E>(&self, look: impl Fn() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut looks = self.lock();
        // The one that is under way may have passed by already.
        let earliest = looks.begun + 1;
        loop {
            if let Some((number, seen)) = &looks.last
                && *number >= earliest
            {
                let seen = seen.clone();
                looks.forget();
                return Ok(seen);
            }
            if !looks.under_way {
                break;
            }
            looks.waiting += 1;
            let waited = self.changed.wait(looks);
            looks = waited.unwrap_or_else(PoisonError::into_inner);
            looks.waiting -= 1;
        }
        looks.begun += 1;
        looks.under_way = true;
        let number = looks.begun;
        drop(looks);
        let under_way = UnderWay(self);
        // Where it fails, the next of those who wait looks for itself.
        let seen = Arc::new(look()?);
        let mut looks = self.lock();
        looks.last = Some((number, seen.clone()));
        looks.forget();
        drop(looks);
        drop(under_way);
        Ok(seen)
    }
}

impl<T> Looks<T> {
    /// Keeps nothing that nobody waits for.
    fn forget(&mut self) {
        if self.waiting == 0 {
            self.last = None;
        }
    }
}

/// A look that is under way until this is dropped, however it ends.
struct UnderWay<'a, T>(&'a Shared<T>);

impl<T> Drop for UnderWay<'_, T> {
    fn drop(&mut self) {
        self.0.lock().under_way = false;
        self.0.changed.notify_all();
    }
}

/// Reads what `/proc` tells of processes, with few calls.
struct Reader {
    buffer: Vec<u8>,
    /// The tables that were read. Processes have the same when namespace and root are.
    tables: BTreeMap<(Namespace, MountId, u64), Arc<MountTable>>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            // What the kernel writes at a time.
            buffer: vec![0; 4096],
            tables: BTreeMap::new(),
        }
    }
}

impl Reader {
    fn process(&mut self, pid: i32, own: Namespace) -> Process {
        let directory = match open(rustix::fs::CWD, &format!("/proc/{pid}"), OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(error) => return Process::unread(pid, &error),
        };
        let cgroups = self.text(&directory, "cgroup");
        let namespace = namespace::of_process(pid).ok();
        let root = identity(&directory, "root");
        let table = (namespace != Some(own)).then(|| self.table(pid, namespace, &root));
        Process {
            pid,
            cgroups,
            table,
            open: self.opened(&directory, root),
        }
    }

    fn table(
        &mut self,
        pid: i32,
        namespace: Option<Namespace>,
        root: &io::Result<Identity>,
    ) -> Result<Arc<MountTable>, SystemError> {
        let root = root.as_ref().ok();
        let which = namespace.zip(root).map(|(n, r)| (n, r.mount, r.inode));
        if let Some(read) = which.and_then(|which| self.tables.get(&which)) {
            return Ok(read.clone());
        }
        let table = Arc::new(MountTable::of_process(pid)?);
        if let Some(which) = which {
            self.tables.insert(which, table.clone());
        }
        Ok(table)
    }

    fn opened(&mut self, directory: &OwnedFd, root: io::Result<Identity>) -> Opened {
        let mut opened = Opened::default();
        opened.unread = self.open_files(directory, root, &mut opened.files).err();
        opened
    }

    fn open_files(
        &mut self,
        directory: &OwnedFd,
        root: io::Result<Identity>,
        files: &mut Vec<(MountId, Link)>,
    ) -> io::Result<()> {
        let working = identity(directory, "cwd")?;
        files.push((working.mount, Link::WorkingDirectory));
        files.push((root?.mount, Link::Root));
        // The mount of an open file is told without asking its file system, which may hang.
        let infos = open(directory, "fdinfo", OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&infos)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().ok().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match self.mount_of_file(&infos, number) {
                Ok(mount) => files.push((mount, Link::File(number))),
                // It was closed meanwhile, and the others count no less.
                Err(error) if has_ended(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn mount_of_file(&mut self, infos: &OwnedFd, number: i32) -> io::Result<MountId> {
        let file = open(infos, &number.to_string(), OFlags::empty())?;
        // The mount is among the first lines.
        let length = rustix::io::read(&file, &mut self.buffer)?;
        mount_in_fdinfo(&String::from_utf8_lossy(&self.buffer[..length]))
            .ok_or_else(|| io::Error::other("the mount of an open file is not told"))
    }

    fn text(&mut self, directory: &OwnedFd, name: &str) -> io::Result<String> {
        let file = open(directory, name, OFlags::empty())?;
        let mut text = Vec::new();
        loop {
            match rustix::io::read(&file, &mut self.buffer)? {
                0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
                length => text.extend_from_slice(&self.buffer[..length]),
            }
        }
    }
}

impl Process {
    /// One of which nothing can be read.
    fn unread(pid: i32, error: &io::Error) -> Self {
        let again = || match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::from(error.kind()),
        };
        Self {
            pid,
            cgroups: Err(again()),
            table: Some(Err(SystemError::new("looking at a process", again()))),
            open: Opened {
                files: Vec::new(),
                unread: Some(again()),
            },
        }
    }
}

/// Whether a process, or an open file, is not there any more: the last is what the tables of a
/// process give that is only waited for.
pub(crate) fn has_ended(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::SRCH, Errno::INVAL]
        .iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

fn open(at: impl AsFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn identity(directory: &OwnedFd, link: &str) -> io::Result<Identity> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(directory, link, flags, wanted)?;
    table::from_statx(&stat)
}

fn mount_in_fdinfo(info: &str) -> Option<MountId> {
    let number = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    number.trim().parse().ok().map(MountId)
}

/// The numbers of all other processes.
fn processes() -> Result<Vec<i32>, SystemError> {
    let own = std::process::id();
    let entries =
        std::fs::read_dir("/proc").map_err(|e| SystemError::new("listing processes", e))?;
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(entries
        .flatten()
        .filter_map(number)
        .filter(|pid: &i32| pid.cast_unsigned() != own)
        .collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn reads_the_mount_of_an_open_file() {
        let info = "pos:\t0\nflags:\t02100000\nmnt_id:\t27\nino:\t12\n";
        assert_eq!(mount_in_fdinfo(info), Some(MountId(27)));
        assert_eq!(mount_in_fdinfo("pos:\t0\n"), None);
    }

    /// Waits until so many wait for a look.
    fn until_waiting(looks: &Shared<u32>, count: usize) {
        while looks.lock().waiting < count {
            thread::yield_now();
        }
    }

    #[test]
    fn who_asks_during_a_look_gets_one_that_begins_later_and_shares_it() {
        let looks = Shared::new();
        let count = AtomicU32::new(0);
        let (begin, begun) = channel();
        let (end, ended) = channel();
        let first = Mutex::new(Some((begin, ended)));
        let look = || {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            if let Some((begin, ended)) = first.lock().unwrap().take() {
                begin.send(()).unwrap();
                ended.recv().unwrap();
            }
            Ok::<_, ()>(number)
        };
        thread::scope(|scope| {
            let one = scope.spawn(|| looks.get(look));
            begun.recv().unwrap();
            let others = [(); 8].map(|()| scope.spawn(|| looks.get(look)));
            until_waiting(&looks, 8);
            end.send(()).unwrap();
            assert_eq!(*one.join().unwrap().unwrap(), 1);
            for other in others {
                assert_eq!(*other.join().unwrap().unwrap(), 2);
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert!(looks.lock().last.is_none(), "nobody waits any more");
        assert_eq!(*looks.get(look).unwrap(), 3, "an old look answers nothing");
    }

    #[test]
    fn those_who_wait_outlive_a_look_that_fails_or_panics() {
        let looks = Shared::<u32>::new();
        for panics in [false, true] {
            thread::scope(|scope| {
                let (begin, begun) = channel();
                let looks = &looks;
                let failing = scope.spawn(move || {
                    looks.get(|| {
                        begin.send(()).unwrap();
                        until_waiting(looks, 3);
                        assert!(!panics, "as planned");
                        Err(())
                    })
                });
                begun.recv().unwrap();
                let others = [(); 3].map(|()| scope.spawn(|| looks.get(|| Ok::<_, ()>(7))));
                assert!(!matches!(failing.join(), Ok(Ok(_))));
                for other in others {
                    assert_eq!(*other.join().unwrap().unwrap(), 7);
                }
            });
        }
    }
}
