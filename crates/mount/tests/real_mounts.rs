//! Real mounts, each case in a process of its own; see `harness`.
#![expect(
    clippy::unwrap_used,
    reason = "tests, though without the usual harness"
)]

mod harness;

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bitts_mount::bind::{self, Options};
use bitts_mount::census::Census;
use bitts_mount::dir::{Component, Dir, Removal};
use bitts_mount::holders::{Holder, Holding};
use bitts_mount::path::Root;
use bitts_mount::sandbox;
use bitts_mount::table::{MountTable, Watcher};
use harness::{Namespace, end, start_holder};
use rustix::fs::{CWD, RenameFlags};
use rustix::mount::MountPropagationFlags;

const CASES: &[(&str, fn())] = &[
    (
        "bound_directories_show_the_same_files",
        bound_directories_show_the_same_files,
    ),
    (
        "read_only_is_for_the_mount_alone",
        read_only_is_for_the_mount_alone,
    ),
    ("options_are_added_later", options_are_added_later),
    (
        "only_what_is_empty_and_unmounted_is_removed",
        only_what_is_empty_and_unmounted_is_removed,
    ),
    (
        "a_swapped_path_does_not_redirect_a_mount",
        a_swapped_path_does_not_redirect_a_mount,
    ),
    (
        "a_link_race_redirects_no_mount",
        a_link_race_redirects_no_mount,
    ),
    ("the_private_root_is_private", the_private_root_is_private),
    (
        "changes_of_the_table_are_noticed",
        changes_of_the_table_are_noticed,
    ),
    (
        "an_open_directory_is_a_holder",
        an_open_directory_is_a_holder,
    ),
    ("a_private_copy_is_a_holder", a_private_copy_is_a_holder),
    (
        "a_copy_that_goes_along_is_no_holder",
        a_copy_that_goes_along_is_no_holder,
    ),
];

fn main() -> ExitCode {
    harness::main(CASES)
}

fn name(text: &str) -> Component {
    Component::new(text).unwrap()
}

/// `/data/pv` bound to `/var/lib/kubelet/v` in a private root.
fn bound(options: Options) -> (Dir, Dir) {
    sandbox::enter().unwrap();
    let source = Root::open("/".as_ref())
        .unwrap()
        .resolve("/data/pv".as_ref())
        .unwrap()
        .dir;
    let parent = Dir::open("/var/lib/kubelet".as_ref()).unwrap();
    let target = parent.make_child(&name("v")).unwrap();
    bind::bind(&source, &target, options).unwrap();
    (source, parent)
}

fn bound_directories_show_the_same_files() {
    let (source, parent) = bound(Options::default());
    fs::write("/var/lib/kubelet/v/hello", "from the pod").unwrap();
    assert_eq!(
        fs::read_to_string("/data/pv/hello").unwrap(),
        "from the pod"
    );
    let mounted = parent
        .child(&name("v"))
        .unwrap()
        .unwrap()
        .identity()
        .unwrap();
    assert!(mounted.is_mount_point);
    assert!(mounted.is_same_file(&source.identity().unwrap()));
    let table = MountTable::read().unwrap();
    let mount = table.at("/var/lib/kubelet/v".as_ref()).unwrap();
    assert_eq!(
        (mount.id, mount.root.as_path()),
        (mounted.mount, Path::new("/data/pv"))
    );

    let open = fs::File::open("/var/lib/kubelet/v/hello").unwrap();
    let busy = parent.unmount(&name("v")).unwrap_err();
    assert_eq!(busy.kind(), std::io::ErrorKind::ResourceBusy, "{busy}");
    drop(open);
    parent.unmount(&name("v")).unwrap();
    assert!(
        parent.unmount(&name("v")).is_err(),
        "nothing is mounted any more"
    );
    assert_eq!(fs::read_dir("/var/lib/kubelet/v").unwrap().count(), 0);
    assert_eq!(
        fs::read_to_string("/data/pv/hello").unwrap(),
        "from the pod"
    );
}

fn read_only_is_for_the_mount_alone() {
    bound(Options::parse(["noexec", "ro"]).unwrap());
    let error = fs::write("/var/lib/kubelet/v/x", "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::write("/data/pv/x", "x").unwrap();
    let table = MountTable::read().unwrap();
    assert!(table.at("/var/lib/kubelet/v".as_ref()).unwrap().read_only);
    assert!(!table.at("/".as_ref()).unwrap().read_only);
}

/// As after a process that died between the two steps of a read-only mount.
fn options_are_added_later() {
    let (source, parent) = bound(Options::default());
    let mounted = parent.child(&name("v")).unwrap().unwrap();
    fs::write("/var/lib/kubelet/v/x", "x").unwrap();
    for _ in 0..2 {
        bind::configure(&source, &mounted, Options::default().read_only()).unwrap();
        assert!(fs::write("/var/lib/kubelet/v/x", "x").is_err());
    }
    bind::configure(&source, &mounted, Options::default()).unwrap();
    fs::write("/var/lib/kubelet/v/x", "x").unwrap();
}

fn only_what_is_empty_and_unmounted_is_removed() {
    let (source, parent) = bound(Options::default());
    fs::write("/data/pv/precious", "data").unwrap();
    assert_eq!(parent.remove(&name("v")).unwrap(), Removal::MountPoint);
    // A second mount on top: each unmount takes one away.
    let top = parent.child(&name("v")).unwrap().unwrap();
    bind::bind(&source, &top, Options::default()).unwrap();
    drop(top);
    parent.unmount(&name("v")).unwrap();
    assert_eq!(parent.remove(&name("v")).unwrap(), Removal::MountPoint);
    parent.unmount(&name("v")).unwrap();
    assert_eq!(parent.remove(&name("v")).unwrap(), Removal::Removed);
    assert_eq!(fs::read_to_string("/data/pv/precious").unwrap(), "data");
    // A link is never followed to a mount.
    symlink("/proc", "/var/lib/kubelet/link").unwrap();
    assert!(parent.unmount(&name("link")).is_err());
    assert!(Path::new("/proc/self").exists());
}

fn a_swapped_path_does_not_redirect_a_mount() {
    sandbox::enter().unwrap();
    fs::write("/data/pv/right", "").unwrap();
    fs::create_dir("/data/secret").unwrap();
    let source = Root::open("/".as_ref())
        .unwrap()
        .resolve("/data/pv".as_ref())
        .unwrap()
        .dir;
    let kubelet = Dir::open("/var/lib/kubelet".as_ref()).unwrap();
    let target = kubelet.make_child(&name("v")).unwrap();
    fs::rename("/data/pv", "/data/moved").unwrap();
    symlink("/data/secret", "/data/pv").unwrap();
    fs::rename("/var/lib/kubelet/v", "/var/lib/kubelet/w").unwrap();
    symlink("/data/secret", "/var/lib/kubelet/v").unwrap();
    bind::bind(&source, &target, Options::default()).unwrap();
    assert!(Path::new("/var/lib/kubelet/w/right").exists());
    assert!(!Path::new("/data/secret/right").exists());
}

/// Issue 5: a thread swaps the pod's directory for a link while volumes are set up and cleaned up.
fn a_link_race_redirects_no_mount() {
    sandbox::enter().unwrap();
    fs::create_dir_all("/data/secret/v").unwrap();
    fs::create_dir("/var/lib/kubelet/pod").unwrap();
    symlink("/data/secret", "/var/lib/kubelet/link").unwrap();
    let source = Root::open("/".as_ref())
        .unwrap()
        .resolve("/data/pv".as_ref())
        .unwrap()
        .dir;
    let kubelet = Dir::open("/var/lib/kubelet".as_ref()).unwrap();
    let over = AtomicBool::new(false);
    let (mut mounted, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let (pod, link) = ("/var/lib/kubelet/pod", "/var/lib/kubelet/link");
                // Refused while something is mounted below: that is no failure of the test.
                let _ = rustix::fs::renameat_with(CWD, pod, CWD, link, RenameFlags::EXCHANGE);
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut tries = 0;
            while (mounted < 100 || refused < 100) && tries < 1_000_000 {
                tries += 1;
                let Ok(pod) = kubelet.make_child(&name("pod")) else {
                    refused += 1;
                    continue;
                };
                let target = pod.make_child(&name("v")).unwrap();
                bind::bind(&source, &target, Options::default()).unwrap();
                drop(target);
                pod.unmount(&name("v")).unwrap();
                assert_eq!(pod.remove(&name("v")).unwrap(), Removal::Removed);
                mounted += 1;
            }
        }));
        over.store(true, Ordering::Relaxed);
        done.unwrap();
    });
    assert!(
        mounted >= 100 && refused >= 100,
        "{mounted} and {refused}: no race"
    );
    // Neither mounted upon nor removed.
    assert!(Path::new("/data/secret/v").exists());
    let table = MountTable::read().unwrap();
    assert!(table.iter().all(|mount| !mount.point.starts_with("/data")));
}

fn the_private_root_is_private() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("file");
    let mut file = fs::File::create(&path).unwrap();
    let folder = fs::File::open(outside.path()).unwrap();
    let before = fs::read_link("/proc/self/ns/mnt").unwrap();

    let sandbox = sandbox::enter().unwrap();
    assert!(
        sandbox.to_string().contains("namespace of its own"),
        "{sandbox}"
    );
    assert_ne!(fs::read_link("/proc/self/ns/mnt").unwrap(), before);
    let mut names: Vec<_> = fs::read_dir("/")
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["data", "dev", "proc", "tmp", "var"]);
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("/var/lib/kubelet"), mode("/tmp"), mode("/data/pv")),
        (0o750, 0o1777, 0o755)
    );
    assert!(!path.exists(), "the host's tree cannot be reached by path");
    assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
    fs::write("/dev/null", "x").unwrap();

    // What was open before stays usable: a file, and a folder to put one in by renaming.
    file.write_all(b"from inside").unwrap();
    let through = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    fs::write(through.join("draft"), "whole").unwrap();
    fs::rename(through.join("draft"), through.join("final")).unwrap();
    assert_eq!(
        fs::read_to_string(through.join("file")).unwrap(),
        "from inside"
    );
    assert_eq!(fs::read_to_string(through.join("final")).unwrap(), "whole");
    for name in ["file", "final"] {
        fs::remove_file(through.join(name)).unwrap();
    }
    let up = through.join("..").join(outside.path().file_name().unwrap());
    fs::remove_dir(up).unwrap();
}

fn changes_of_the_table_are_noticed() {
    let (source, parent) = bound(Options::default());
    let watcher = Watcher::new().unwrap();
    let moment = Duration::from_millis(20);
    assert!(!watcher.wait(moment).unwrap());
    let other = parent.make_child(&name("w")).unwrap();
    bind::bind(&source, &other, Options::default()).unwrap();
    assert!(watcher.wait(Duration::from_secs(10)).unwrap());
    assert!(!watcher.wait(moment).unwrap(), "a change is told once");
}

/// Host programs cannot be started in a private root, so holders get a namespace with the host's
/// tree in it.
fn bound_on_the_host(temp: &Path) -> Dir {
    sandbox::separate().unwrap();
    for dir in ["pv", "mount"] {
        fs::create_dir(temp.join(dir)).unwrap();
    }
    let dir = Dir::open(temp).unwrap();
    let source = dir.child(&name("pv")).unwrap().unwrap();
    let target = dir.child(&name("mount")).unwrap().unwrap();
    bind::bind(&source, &target, Options::default()).unwrap();
    dir.child(&name("mount")).unwrap().unwrap()
}

fn users(mounted: &Dir) -> Vec<Holder> {
    Census::take().unwrap().of_mount(mounted).unwrap()
}

fn an_open_directory_is_a_holder() {
    let temp = tempfile::tempdir().unwrap();
    let mounted = bound_on_the_host(temp.path());
    assert_eq!(users(&mounted), []);
    let other = start_holder(&temp.path().join("pv"), Namespace::Shared);
    assert_eq!(users(&mounted), [], "the source is another mount");
    end(other);
    let holder = start_holder(mounted.path(), Namespace::Shared);
    let found = users(&mounted);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].pid.cast_unsigned(), holder.id());
    assert!(
        matches!(&found[0].how, Holding::Open(path) if path.ends_with("mount")),
        "{found:?}"
    );
    end(holder);
    assert_eq!(users(&mounted), []);
    let ours = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(
        ours.lines().count() > 0
            && Census::take()
                .unwrap()
                .in_cgroup_of("no-such-pod")
                .is_empty()
    );
    Dir::open(temp.path())
        .unwrap()
        .unmount(&name("mount"))
        .unwrap_err();
    drop(mounted);
    Dir::open(temp.path())
        .unwrap()
        .unmount(&name("mount"))
        .unwrap();
}

fn a_private_copy_is_a_holder() {
    let temp = tempfile::tempdir().unwrap();
    let mounted = bound_on_the_host(temp.path());
    let holder = start_holder(Path::new("/"), Namespace::Private);
    let found = users(&mounted);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        matches!(&found[0].how, Holding::Copy(point) if point == mounted.path()),
        "{found:?}"
    );
    assert!(
        found[0].to_string().contains("has a copy of the mount at"),
        "{}",
        found[0]
    );
    end(holder);
    assert_eq!(users(&mounted), []);
    drop(mounted);
    Dir::open(temp.path())
        .unwrap()
        .unmount(&name("mount"))
        .unwrap();
}

/// As on a host whose system services live in namespaces that follow the host's: they must not keep
/// a volume from being unmounted.
fn a_copy_that_goes_along_is_no_holder() {
    let temp = tempfile::tempdir().unwrap();
    sandbox::separate().unwrap();
    rustix::mount::mount_bind(temp.path(), temp.path()).unwrap();
    rustix::mount::mount_change(temp.path(), MountPropagationFlags::SHARED).unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let source = dir.make_child(&name("pv")).unwrap();
    let target = dir.make_child(&name("mount")).unwrap();
    bind::bind(&source, &target, Options::default()).unwrap();
    let mounted = dir.child(&name("mount")).unwrap().unwrap();
    let holder = start_holder(Path::new("/"), Namespace::Following);
    let theirs = || MountTable::of_process(holder.id().cast_signed()).unwrap();
    assert!(theirs().at(mounted.path()).is_some(), "it has a copy");
    assert_eq!(users(&mounted), []);
    let path = mounted.path().to_owned();
    drop(mounted);
    dir.unmount(&name("mount")).unwrap();
    assert_eq!(theirs().at(&path), None, "the copy went along");
    end(holder);
    drop((source, target, dir));
    rustix::mount::unmount(temp.path(), rustix::mount::UnmountFlags::empty()).unwrap();
}
