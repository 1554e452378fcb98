//! Who still uses a mount: the evidence that is asked for before one is taken away, judged from a
//! [`Census`] of the node's processes.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use crate::SystemError;
use crate::census::{Census, Opened, Process, has_ended};
use crate::dir::Dir;
use crate::table::{Device, Mount, MountId, MountTable};

/// A process that keeps a mount, or a pod, in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: i32,
    /// Its name.
    pub command: String,
    /// How it does.
    pub how: Holding,
}

/// How a process keeps something in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It runs in this cgroup, whose path names the pod.
    Cgroup(String),
    /// Its mount namespace has a copy of the mount that stays when this one goes.
    Copy(PathBuf),
    /// It has something open on the mount, or works or is rooted in it.
    Open(PathBuf),
    /// What it does cannot be seen.
    Hidden,
    /// It was killed or has returned, and waits in the kernel for what it had open to be closed: for a
    /// server that does not answer, say. None of its own code runs any more.
    Ending,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, command, how } = self;
        write!(f, "process {pid} ({command}) ")?;
        match how {
            Holding::Cgroup(path) => write!(f, "runs in cgroup {path}"),
            Holding::Copy(point) => write!(f, "has a copy of the mount at {}", point.display()),
            Holding::Open(file) => write!(f, "uses {}", file.display()),
            Holding::Hidden => f.write_str("may use it, and this process may not look"),
            Holding::Ending => f.write_str("has ended but for closing its files"),
        }
    }
}

impl Census {
    /// The processes that run in a cgroup named after this uid, which the kubelet and all container
    /// runtimes put into the path of a pod's cgroups: as it is, or with `_` for `-` (systemd). Both
    /// cgroup versions. Those that only wait for their end are not among them.
    #[must_use]
    pub fn in_cgroup_of(&self, uid: &str) -> Vec<Holder> {
        let escaped = uid.replace('-', "_");
        self.holders(|process| match &process.cgroups {
            Ok(cgroups) => {
                cgroup_named(cgroups, uid, &escaped).map(|path| Holding::Cgroup(path.to_owned()))
            }
            Err(e) => unless_ended(e),
        })
    }

    /// The processes in such a cgroup that only wait for their end ([`Holding::Ending`]): what they had
    /// open may be so still, and nothing shows what it is.
    #[must_use]
    pub fn ending_in_cgroup_of(&self, uid: &str) -> Vec<Holder> {
        let escaped = uid.replace('-', "_");
        let of_pod = self.processes.iter().filter(|process| {
            let cgroups = process.cgroups.as_ref();
            cgroups.is_ok_and(|cgroups| cgroup_named(cgroups, uid, &escaped).is_some())
        });
        let ending = of_pod.filter(|process| stage(process.pid) == Some(Stage::Ending));
        ending
            .map(|process| Holder {
                pid: process.pid,
                command: command(process.pid),
                how: Holding::Ending,
            })
            .collect()
    }

    /// The other processes that use what is mounted at this open directory: that have it open, work
    /// or are rooted in it, or have a copy of the mount at its path in a mount namespace of their
    /// own that would outlive it.
    ///
    /// # Errors
    /// When nothing was mounted at the directory.
    pub fn of_mount(&self, mounted: &Dir) -> Result<Vec<Holder>, SystemError> {
        let id = mounted.identity()?.mount;
        let ours = self.own.get(id).ok_or_else(|| {
            let absent = io::Error::from(io::ErrorKind::NotFound);
            SystemError::new(
                format!("finding the mount at {}", mounted.path().display()),
                absent,
            )
        })?;
        Ok(self.holders(|process| match &process.table {
            None => {
                let open = open_file(process, &[id]);
                open.map_or_else(unless_ended, |file| file.map(Holding::Open))
            }
            Some(Ok(theirs)) => holding(process, &self.own, ours, theirs),
            Some(Err(e)) => unless_ended(e.io_error()),
        }))
    }

    /// The processes that have something mounted on this open directory in a mount namespace of
    /// their own: removing the directory would take that mount from them, since the kernel minds
    /// only mounts of one's own.
    ///
    /// # Errors
    /// When nothing is known of the mount that the directory lies on.
    pub fn of_foreign_mount_on(&self, dir: &Dir) -> Result<Vec<Holder>, SystemError> {
        let doing = || format!("finding where {} lies", dir.path().display());
        // It may have been opened through links.
        let path = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()))
            .map_err(|e| SystemError::new(doing(), e))?;
        let absent = || SystemError::new(doing(), io::Error::from(io::ErrorKind::NotFound));
        let below = self.own.get(dir.identity()?.mount).ok_or_else(absent)?;
        let place = place_on(below, &path).ok_or_else(absent)?;
        Ok(self.holders(|process| match process.table.as_ref()? {
            Ok(theirs) => theirs
                .iter()
                .filter(|m| self.own.get(m.id).is_none())
                .find(|m| {
                    let below = theirs.get(m.parent);
                    below.and_then(|below| place_on(below, &m.point)) == Some(place.clone())
                })
                .map(|m| Holding::Copy(m.point.clone())),
            Err(e) => unless_ended(e.io_error()),
        }))
    }

    fn holders(&self, how: impl Fn(&Process) -> Option<Holding>) -> Vec<Holder> {
        let holder = |process: &Process| {
            how(process).map(|how| Holder {
                pid: process.pid,
                command: command(process.pid),
                how,
            })
        };
        let holders = self.processes.iter().filter_map(holder);
        // Asked late: who has begun to end does not run again.
        let runs =
            |holder: &Holder| !matches!(stage(holder.pid), Some(Stage::Ending | Stage::Over));
        holders.filter(runs).collect()
    }
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Some of its threads may run its code.
    Runs,
    /// None does, and the kernel closes what it had open.
    Ending,
    /// All is closed; it is only waited for.
    Over,
}

/// How far a process is, as far as that can be told: it is as far as the thread that is least so.
fn stage(pid: i32) -> Option<Stage> {
    let of_thread = |path: PathBuf| stage_in_stat(&std::fs::read_to_string(path).ok()?);
    // Its first thread may end long before the others; where it has not, one look is enough.
    let first = of_thread(format!("/proc/{pid}/stat").into())?;
    if first == Stage::Runs {
        return Some(first);
    }
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let paths = threads.map(|thread| Some(thread.ok()?.path().join("stat")));
    // One that is gone meanwhile is over.
    let stages = paths.map(|path| of_thread(path?).or(Some(Stage::Over)));
    stages.chain([Some(first)]).min().flatten()
}

/// The kernel's flag of a thread that does not come back from the kernel (`PF_EXITING`).
const EXITING: u64 = 0x4;

/// How far a thread is by its line in `/proc`: the name is in brackets and may be anything.
fn stage_in_stat(line: &str) -> Option<Stage> {
    let mut rest = line.rsplit_once(") ")?.1.split(' ');
    let state = rest.next()?;
    let flags: u64 = rest.nth(5)?.parse().ok()?;
    Some(match state {
        "Z" | "X" => Stage::Over,
        _ if flags & EXITING != 0 => Stage::Ending,
        _ => Stage::Runs,
    })
}

/// The first path among `ID:CONTROLLERS:PATH` lines that has one of the names in it.
fn cgroup_named<'a>(lines: &'a str, uid: &str, escaped: &str) -> Option<&'a str> {
    lines
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .find(|path| path.contains(uid) || path.contains(escaped))
}

fn holding(
    process: &Process,
    own: &MountTable,
    ours: &Mount,
    theirs: &MountTable,
) -> Option<Holding> {
    let parent = own.get(ours.parent);
    let copies: Vec<_> = copies(own, ours, theirs).collect();
    let staying = copies
        .iter()
        .find(|copy| !goes_along(parent, theirs.get(copy.parent)))
        .map(|copy| Holding::Copy(copy.point.clone()));
    if staying.is_some() {
        return staying;
    }
    let mut mounts = vec![ours.id];
    mounts.extend(copies.iter().map(|copy| copy.id));
    match open_file(process, &mounts) {
        Ok(file) => file.map(Holding::Open),
        // The table of mounts may be read of every process, its open files may not. One that does
        // not see the mount at all has no way to it either.
        Err(e) => {
            let sees = mounts.iter().any(|id| theirs.get(*id).is_some());
            unless_ended(e).filter(|_| sees)
        }
    }
}

/// What a process does of which this cannot be read: nothing when it ended meanwhile; otherwise
/// nobody knows, and so it counts.
fn unless_ended(error: &io::Error) -> Option<Holding> {
    (!has_ended(error)).then_some(Holding::Hidden)
}

/// Where a path below a mount's point lies, however the file system is mounted: on which one, and
/// where in it.
fn place_on(below: &Mount, path: &Path) -> Option<(Device, PathBuf)> {
    let inside = path.strip_prefix(&below.point).ok()?;
    Some((below.device, below.root.join(inside)))
}

/// The same directory of the same file system, mounted at the same path (maybe below another
/// root). A container sees the volume at another path, and so does a second pod that shares it:
/// who of these runs for the pod in question is what its cgroup tells. What is in our own table
/// too is no copy but, say, what ours is stacked upon: who shares our namespace shares it all.
fn copies<'a>(
    own: &'a MountTable,
    ours: &'a Mount,
    theirs: &'a MountTable,
) -> impl Iterator<Item = &'a Mount> {
    theirs
        .iter()
        .filter(|m| (m.device, &m.root) == (ours.device, &ours.root))
        .filter(|m| own.get(m.id).is_none())
        .filter(|m| {
            m.point
                .ends_with(ours.point.strip_prefix("/").unwrap_or(&ours.point))
        })
}

/// Whether the kernel takes a copy away together with ours: it does when what the copy is mounted
/// on is a peer of what ours is mounted on, or follows it.
fn goes_along(our_parent: Option<&Mount>, their_parent: Option<&Mount>) -> bool {
    let Some(group) = our_parent.and_then(|m| m.peers) else {
        return false;
    };
    their_parent.is_some_and(|m| m.peers == Some(group) || m.follows == Some(group))
}

/// The first thing that a process has open on one of these mounts.
fn open_file<'a>(
    process: &'a Process,
    mounts: &[MountId],
) -> Result<Option<PathBuf>, &'a io::Error> {
    let Opened { files, unread } = &process.open;
    match files.iter().find(|(mount, _)| mounts.contains(mount)) {
        Some((_, link)) => Ok(Some(link.path(process.pid))),
        None => unread.as_ref().map_or(Ok(None), Err),
    }
}

fn command(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_thread_is_as_far_as_its_flags_say() {
        let line = |name: &str, state: &str, flags: u64| {
            format!("7 ({name}) {state} 1 7 7 0 -1 {flags} 0 0 0 0")
        };
        assert_eq!(
            stage_in_stat(&line("sh", "S", 0x40_0100)),
            Some(Stage::Runs)
        );
        assert_eq!(
            stage_in_stat(&line("sh", "D", 0x40_0104)),
            Some(Stage::Ending)
        );
        assert_eq!(
            stage_in_stat(&line("sh", "Z", 0x40_0104)),
            Some(Stage::Over)
        );
        // A name that looks like the end of one.
        assert_eq!(stage_in_stat(&line("a) Z 4", "R", 0)), Some(Stage::Runs));
        assert_eq!(stage_in_stat("7 (sh"), None);
        assert_eq!(stage_in_stat(""), None);
        assert_eq!(stage(std::process::id().cast_signed()), Some(Stage::Runs));
        assert_eq!(stage(i32::MAX), None);
    }

    #[test]
    fn finds_a_pod_in_cgroup_paths_of_every_kind() {
        let uid = "0f3b-11-22";
        let named = |lines| cgroup_named(lines, uid, "0f3b_11_22");
        let v1 = "4:memory:/kubepods/burstable/pod0f3b-11-22/abc\n1:cpu:/";
        assert_eq!(named(v1), Some("/kubepods/burstable/pod0f3b-11-22/abc"));
        let v2 = "0::/../../kubepods.slice/kubepods-pod0f3b_11_22.slice/cri-abc.scope";
        assert!(named(v2).is_some());
        assert_eq!(named("0::/kubepods/pod0f3b-11-23\n"), None);
    }

    #[test]
    fn a_copy_counts_unless_it_goes_along() {
        let mount = |id, parent, point: &str, root: &str| Mount {
            id: MountId(id),
            parent: MountId(parent),
            device: Device { major: 8, minor: 1 },
            root: root.into(),
            point: point.into(),
            source: String::new(),
            fs_type: "ext4".into(),
            read_only: false,
            peers: None,
            follows: None,
        };
        let ours = mount(2, 1, "/pods/u/v", "/data/pv");
        let table = MountTable::from_mounts(vec![
            mount(10, 1, "/pods/u/v", "/data/pv"),
            mount(12, 11, "/pods/u/v", "/data/pv"),
            mount(13, 11, "/host/pods/u/v", "/data/pv"),
            mount(14, 11, "/data/pv", "/data/pv"),
            mount(15, 11, "/pods/u/v", "/data/other"),
        ]);
        let own =
            MountTable::from_mounts(vec![mount(10, 1, "/pods/u/v", "/data/pv"), ours.clone()]);
        let ids: Vec<_> = copies(&own, &ours, &table).map(|m| m.id.0).collect();
        assert_eq!(ids, [12, 13]);

        let shared = |peers, follows| Mount {
            peers,
            follows,
            ..mount(1, 0, "/", "/")
        };
        let parent = shared(Some(7), None);
        assert!(goes_along(Some(&parent), Some(&shared(Some(7), None))));
        assert!(goes_along(Some(&parent), Some(&shared(None, Some(7)))));
        assert!(!goes_along(Some(&parent), Some(&shared(Some(8), None))));
        assert!(!goes_along(
            Some(&shared(None, None)),
            Some(&shared(None, None))
        ));
        assert!(!goes_along(Some(&parent), None));
    }

    #[test]
    fn a_place_is_the_same_through_every_mount() {
        let mount = |point: &str, root: &str, minor| Mount {
            id: MountId(1),
            parent: MountId(0),
            device: Device { major: 8, minor },
            root: root.into(),
            point: point.into(),
            source: String::new(),
            fs_type: "ext4".into(),
            read_only: false,
            peers: None,
            follows: None,
        };
        let place = place_on(&mount("/", "/", 1), Path::new("/var/lib/kubelet/pods/u"));
        assert!(place.is_some());
        let below = mount("/host", "/var/lib", 1);
        assert_eq!(place_on(&below, Path::new("/host/kubelet/pods/u")), place);
        // Another file system's directory at the very same path is none of ours.
        let other = mount("/", "/", 2);
        let elsewhere = place_on(&other, Path::new("/var/lib/kubelet/pods/u"));
        assert_ne!(elsewhere, place);
        assert_eq!(place_on(&below, Path::new("/etc")), None);
    }

    #[test]
    fn only_a_process_that_ended_holds_nothing_when_it_cannot_be_read() {
        for ended in [Errno::NOENT, Errno::SRCH, Errno::INVAL] {
            assert_eq!(unless_ended(&ended.into()), None);
        }
        let unread = [
            Errno::ACCESS,
            Errno::PERM,
            Errno::NOMEM,
            Errno::MFILE,
            Errno::IO,
        ];
        for error in unread.map(io::Error::from) {
            assert_eq!(unless_ended(&error), Some(Holding::Hidden), "{error}");
        }
        // What cannot be parsed has no number.
        let odd = io::Error::other("a line is not as Linux writes it");
        assert_eq!(unless_ended(&odd), Some(Holding::Hidden));
    }
}
