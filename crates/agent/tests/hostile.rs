//! What a user or a node can put in the agent's way: a clear error each, and nothing touched outside.
//! On real mounts, each case in a private root of its own; see the harness.
#![expect(
    clippy::unwrap_used,
    reason = "tests, though without the usual harness"
)]

#[expect(dead_code, reason = "holders are for other tests")]
#[path = "../../mount/tests/harness/mod.rs"]
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use bitts_agent::tree::{Step, Tree};
use bitts_agent::{Mount, MountKey, Plugin, Report, Task};
use bitts_api::{Source, VolumeMode};
use bitts_mount::bind::{self, Options};
use bitts_mount::dir::Dir;
use bitts_mount::sandbox;
use bitts_mount::table::MountTable;
use rustix::fs::{CWD, RenameFlags};

const CASES: &[harness::Case] = &[
    ("odd_names_lead_nowhere", odd_names_lead_nowhere),
    ("odd_paths_lead_nowhere", odd_paths_lead_nowhere),
    ("a_read_only_root_is_told", a_read_only_root_is_told),
    ("a_full_disk_is_told", a_full_disk_is_told),
    ("a_link_race_leads_nowhere", a_link_race_leads_nowhere),
    (
        "what_dead_pods_left_is_never_deleted",
        what_dead_pods_left_is_never_deleted,
    ),
];

fn main() -> ExitCode {
    harness::main(CASES)
}

const KUBELET: &str = "/var/lib/kubelet";

fn tree() -> Tree {
    sandbox::enter().unwrap();
    fs::write("/data/pv/precious", "data").unwrap();
    Tree {
        kubelet_dir: KUBELET.into(),
        local_root: "/".into(),
        devices: "/dev".into(),
        patience: Tree::PATIENCE,
    }
}

fn mount(pod: &str, volume: &str, path: &str) -> Mount {
    Mount {
        key: MountKey {
            pod: pod.into(),
            volume: volume.into(),
            plugin: Plugin::Local,
            mode: VolumeMode::Filesystem,
        },
        source: Source::Local {
            path: path.into(),
            fs_type: None,
        },
        options: [].into(),
        read_only: false,
        group: None,
        staging: None,
        csi: None,
    }
}

fn perform(tree: &Tree, task: Task) -> Report {
    tree.perform(task, &mut |_: Step<'_>| Ok(()))
}

/// The text of a mount that failed.
fn refused(tree: &Tree, mount: &Mount) -> String {
    match perform(tree, Task::Mount(mount.clone())) {
        Report::MountFailed { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

/// Mounts, sees what is there, and takes it down.
fn lives(tree: &Tree, mount: &Mount) {
    let report = perform(tree, Task::Mount(mount.clone()));
    let Report::Mounted { target, .. } = report else {
        panic!("{report:?}")
    };
    assert_eq!(fs::read_to_string(target.join("precious")).unwrap(), "data");
    let found = perform(tree, Task::Scan);
    let Report::Scanned { volumes, .. } = &found else {
        panic!("{found:?}")
    };
    assert!(
        volumes.iter().any(|found| found.key == mount.key),
        "{found:?}"
    );
    let report = perform(tree, Task::Unmount(mount.key.clone()));
    let done = matches!(
        report,
        Report::Unmounted {
            was_mounted: true,
            ..
        }
    );
    assert!(done, "{report:?}");
    assert!(!target.exists());
}

fn odd_names_lead_nowhere() {
    let tree = tree();
    let long = "n".repeat(255);
    for name in [
        &*long,
        "new\nline",
        "sp ace",
        "ta\tb",
        "back\\slash",
        "...",
        "a\\040b",
    ] {
        lives(&tree, &mount("pod", name, "/data/pv"));
        lives(&tree, &mount(name, "volume", "/data/pv"));
    }
    let too_long = "n".repeat(256);
    for name in [
        "",
        ".",
        "..",
        "../../../data",
        "a/b",
        "/data",
        "nu\0l",
        &too_long,
    ] {
        for mount in [
            mount("pod", name, "/data/pv"),
            mount(name, "volume", "/data/pv"),
        ] {
            let text = refused(&tree, &mount);
            assert!(text.contains("cannot be the name of a directory"), "{text}");
            let report = perform(&tree, Task::Unmount(mount.key));
            assert!(matches!(report, Report::UnmountFailed { .. }), "{report:?}");
        }
    }
    assert_eq!(fs::read_to_string("/data/pv/precious").unwrap(), "data");
    assert_eq!(names("/data"), ["pv"]);
}

fn odd_paths_lead_nowhere() {
    let mut tree = tree();
    tree.local_root = "/data".into();
    fs::create_dir_all("/data/in/side").unwrap();
    fs::write("/data/in/side/precious", "data").unwrap();
    for (target, link) in [
        ("/etc", "absolute"),
        ("../..", "up"),
        ("nowhere", "dangling"),
        ("round", "round"),
        ("in/side", "stays"),
    ] {
        symlink(target, Path::new("/data").join(link)).unwrap();
    }
    lives(&tree, &mount("pod", "volume", "/stays"));
    lives(&tree, &mount("pod", "volume", "/in/side"));
    for (path, says) in [
        ("/absolute/ssl", "out of"),
        ("/up/etc", "out of"),
        ("/dangling", "does not exist"),
        ("/round", "too many symbolic links"),
        ("/../etc", "without \"..\""),
        ("/in/../../etc", "without \"..\""),
        ("in/side", "must be absolute"),
        ("", "must be absolute"),
        ("/in/side/precious", "is a file"),
    ] {
        let text = refused(&tree, &mount("pod", "volume", path));
        assert!(text.contains(says), "{path}: {text}");
    }
    assert!(
        !Path::new(KUBELET).join("pods/pod").exists(),
        "something was made"
    );
}

fn a_read_only_root_is_told() {
    let tree = tree();
    let dir = Dir::open(KUBELET.as_ref()).unwrap();
    let read_only = Options::default().read_only();
    bind::bind(&dir, &dir, read_only).unwrap();
    let volume = mount("pod", "volume", "/data/pv");
    let text = refused(&tree, &volume);
    assert!(
        text.contains("making /var/lib/kubelet/pods: Read-only file system"),
        "{text}"
    );
    rustix::mount::unmount(KUBELET, rustix::mount::UnmountFlags::DETACH).unwrap();
    lives(&tree, &volume);
}

/// A disk without room for one more directory.
fn a_full_disk_is_told() {
    let tree = tree();
    let none = rustix::mount::MountFlags::empty();
    // The root of it is the one file that it may have.
    let options = c"nr_inodes=1";
    rustix::mount::mount("none", KUBELET, "tmpfs", none, options).unwrap();
    let volume = mount("pod", "volume", "/data/pv");
    let text = refused(&tree, &volume);
    assert!(text.contains("No space left on device"), "{text}");
    rustix::mount::unmount(KUBELET, rustix::mount::UnmountFlags::empty()).unwrap();
    lives(&tree, &volume);
}

/// Somebody swaps a directory of the pod's for a link while its volume is mounted and taken down.
fn a_link_race_leads_nowhere() {
    const ENOUGH: usize = 40;
    const MOST_ROUNDS: usize = 20_000;
    let tree = tree();
    fs::create_dir_all("/tmp/outside/kubernetes.io~local-volume/volume").unwrap();
    fs::write("/tmp/outside/kubernetes.io~local-volume/volume/file", "x").unwrap();
    fs::create_dir_all("/tmp/outside/kubernetes.io~local-volume/empty").unwrap();
    let pod = Path::new(KUBELET).join("pods/pod");
    fs::create_dir_all(pod.join("volumes")).unwrap();
    symlink("/tmp/outside", pod.join("link")).unwrap();
    let swap = || {
        let (a, b) = (pod.join("volumes"), pod.join("link"));
        // Fails while the agent has removed one of them.
        let _ = rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
    };
    let over = AtomicBool::new(false);
    let volume = mount("pod", "volume", "/data/pv");
    let (mut mounted, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                swap();
            }
        });
        for _ in 0..MOST_ROUNDS {
            if mounted >= ENOUGH && failed >= ENOUGH {
                break;
            }
            match perform(&tree, Task::Mount(volume.clone())) {
                Report::Mounted { .. } => mounted += 1,
                _ => failed += 1,
            }
            let _ = perform(&tree, Task::Unmount(volume.key.clone()));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(
        mounted >= ENOUGH && failed >= ENOUGH,
        "no race: {mounted} and {failed}"
    );
    let table = MountTable::read().unwrap();
    let outside = table.iter().find(|m| m.point.starts_with("/tmp/outside"));
    assert!(outside.is_none(), "{outside:?}");
    let below = "/tmp/outside/kubernetes.io~local-volume";
    assert_eq!(names("/tmp/outside"), ["kubernetes.io~local-volume"]);
    assert_eq!(names(below), ["empty", "volume"]);
    assert_eq!(
        fs::read_to_string(Path::new(below).join("volume/file")).unwrap(),
        "x"
    );
    assert_eq!(fs::read_to_string("/data/pv/precious").unwrap(), "data");
    // Left alone, it is put in order.
    if pod.join("volumes").is_symlink() {
        swap();
    }
    let report = perform(&tree, Task::Unmount(volume.key.clone()));
    assert!(matches!(report, Report::Unmounted { .. }), "{report:?}");
    lives(&tree, &volume);
}

fn names(dir: &str) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Directories of pods that are gone, with what somebody put there: only empty ones are removed, and
/// the reason names the path (M33, M34).
fn what_dead_pods_left_is_never_deleted() {
    const OURS: &str = "volumes/kubernetes.io~local-volume/volume";
    let tree = tree();
    let pods = Path::new(KUBELET).join("pods");
    let make = |path: &str| {
        let path = pods.join(path);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let written = make(&format!("written/{OURS}")).join("file");
    fs::write(&written, "mine").unwrap();
    let foreign = make(&format!("foreign/{OURS}/inside"));
    let source = Dir::open(Path::new("/data/pv")).unwrap();
    bind::bind(&source, Dir::open(&foreign).unwrap(), Options::default()).unwrap();
    let unknown = make("unknown/volumes/example.com~odd/volume");
    let beside = make("beside/volumes");
    let note = pods.join("beside/etc-hosts");
    fs::write(&note, "x").unwrap();
    let odd = ["new\nline".to_owned(), "x".repeat(255)];
    for name in &odd {
        make(&format!("{name}/volumes/kubernetes.io~local-volume"));
    }

    let found = perform(&tree, Task::Scan);
    let Report::Scanned { volumes, empty, .. } = found else {
        panic!("{found:?}")
    };
    let mut owners: Vec<_> = volumes
        .iter()
        .map(|found| found.key.pod.to_string())
        .collect();
    owners.sort_unstable();
    assert_eq!(owners, ["foreign", "written"]);
    let mut empty: Vec<_> = empty.iter().map(ToString::to_string).collect();
    empty.sort_unstable();
    // The scan looks at directories only; that there is a file beside them the removal finds out.
    assert_eq!(empty, ["beside", &odd[0], &odd[1]]);

    for found in volumes {
        let target = pods.join(found.key.pod.to_string()).join(OURS);
        let report = perform(&tree, Task::Unmount(found.key));
        let Report::UnmountFailed { message, .. } = &report else {
            panic!("{report:?}")
        };
        assert!(message.contains(target.to_str().unwrap()), "{message}");
    }
    // Even for those that no scan would name.
    for pod in ["written", "foreign", "unknown", "beside"]
        .into_iter()
        .chain(odd.iter().map(|name| &**name))
    {
        let report = perform(&tree, Task::RemovePodDirectory(pod.into()));
        assert!(
            matches!(report, Report::PodDirectoryRemoved(_)),
            "{report:?}"
        );
    }
    assert_eq!(fs::read_to_string(written).unwrap(), "mine");
    assert_eq!(
        fs::read_to_string(foreign.join("precious")).unwrap(),
        "data"
    );
    assert_eq!(fs::read_to_string("/data/pv/precious").unwrap(), "data");
    assert!(unknown.is_dir());
    // Its empty part may go, what is not the agent's stays.
    assert!(!beside.exists() && note.exists());
    for name in &odd {
        assert!(!pods.join(name).exists(), "{name:?} stays");
    }
}
