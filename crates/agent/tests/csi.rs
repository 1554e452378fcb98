//! Volumes of a CSI driver that really mounts: what the agent makes around it, what a death at each
//! step leaves, and what an odd driver or file comes to. Each case in a process and a mount
//! namespace of its own.
#![expect(
    clippy::unwrap_used,
    reason = "tests, though without the usual harness"
)]

#[expect(dead_code, reason = "some is for other tests")]
#[path = "../../mount/tests/harness/mod.rs"]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bitts_agent::tree::{Step, Stopped, Tree};
use bitts_agent::{
    Attached, ForDriver, Give, Group, Leftover, Mount, MountKey, OnNode, Plugin, Report, StageKey,
    Staging, Task,
};
use bitts_api::{AccessMode, CsiVolume, Source, VolumeMode};
use bitts_csi::Code;
use bitts_csi::testing::{FakeDriver, Fate};
use bitts_csi::v1::node_service_capability::rpc::Type as Rpc;
use bitts_mount::sandbox;
use bitts_mount::table::MountTable;
use rustix::mount::{MountFlags, UnmountFlags};

const CASES: &[harness::Case] = &[
    ("the_life_of_a_volume", the_life_of_a_volume),
    ("a_driver_that_stages_nothing", a_driver_that_stages_nothing),
    ("every_death_on_the_way_up", every_death_on_the_way_up),
    ("every_death_on_the_way_down", every_death_on_the_way_down),
    (
        "what_failed_for_sure_leaves_nothing",
        what_failed_for_sure_leaves_nothing,
    ),
    (
        "what_may_have_happened_is_taken_down",
        what_may_have_happened_is_taken_down,
    ),
    ("a_volume_in_use_is_kept", a_volume_in_use_is_kept),
    ("a_driver_that_lies_is_told", a_driver_that_lies_is_told),
    ("an_absent_driver_is_told", an_absent_driver_is_told),
    (
        "odd_names_and_files_lead_nowhere",
        odd_names_and_files_lead_nowhere,
    ),
    ("files_are_given_to_a_group", files_are_given_to_a_group),
    (
        "a_driver_gives_files_to_a_group_itself",
        a_driver_gives_files_to_a_group_itself,
    ),
];

fn main() -> ExitCode {
    bitts_mount::child::serve();
    harness::main(CASES)
}

const DRIVER: &str = "disk.example.com";
const ALL: &[Rpc] = &[Rpc::StageUnstageVolume];

struct World {
    tree: Tree,
    driver: FakeDriver,
    kubelet: tempfile::TempDir,
}

/// What drivers do: a file system for all pods, and for each pod the same one in its directory.
fn mounts(call: &str, path: &str) {
    let path = Path::new(path);
    let mounted = MountTable::read().unwrap().at(path).is_some();
    match call {
        "NodeStageVolume" if !mounted => {
            rustix::mount::mount("disk", path, "tmpfs", MountFlags::empty(), None).unwrap();
            fs::write(path.join("precious"), "data").unwrap();
        }
        "NodePublishVolume" if !mounted => {
            fs::create_dir_all(path).unwrap();
            match staged() {
                Some(staged) => rustix::mount::mount_bind(staged, path).unwrap(),
                None => {
                    rustix::mount::mount("disk", path, "tmpfs", MountFlags::empty(), None).unwrap();
                }
            }
        }
        "NodeUnstageVolume" | "NodeUnpublishVolume" if mounted => {
            rustix::mount::unmount(path, UnmountFlags::empty()).unwrap();
        }
        _ => {}
    }
}

fn staged() -> Option<PathBuf> {
    let table = MountTable::read().unwrap();
    let mut points = table.iter().map(|mount| mount.point.clone());
    points.find(|point| point.ends_with("globalmount"))
}

impl World {
    fn new(capabilities: &[Rpc]) -> Self {
        sandbox::separate().unwrap();
        let kubelet = tempfile::tempdir().unwrap();
        let folder = kubelet.path().join("plugins").join(DRIVER);
        fs::create_dir_all(&folder).unwrap();
        let driver = FakeDriver::start(&folder.join("csi.sock"), DRIVER, capabilities).unwrap();
        driver.acts(mounts);
        let tree = Tree {
            kubelet_dir: kubelet.path().into(),
            local_root: "/".into(),
            devices: "/dev".into(),
            patience: Tree::PATIENCE,
        };
        Self {
            tree,
            driver,
            kubelet,
        }
    }

    fn perform(&self, task: Task) -> Report {
        self.tree.perform(task, &mut |_: Step<'_>| Ok(()))
    }

    /// Has the volume in a pod.
    fn up(&self, pod: &str) -> Mount {
        let mount = mount(pod);
        let staging = *mount.staging.clone().unwrap();
        let report = self.perform(Task::Stage(staging));
        assert!(matches!(report, Report::Staged { .. }), "{report:?}");
        let report = self.perform(Task::Mount(mount.clone()));
        assert!(matches!(report, Report::Mounted { .. }), "{report:?}");
        mount
    }

    /// Takes down what a scan finds, as a new agent does; tells what it found.
    fn clear(&self) -> usize {
        let report = self.perform(Task::Scan);
        let Report::Scanned {
            volumes,
            stages,
            empty,
        } = report
        else {
            panic!("{report:?}")
        };
        let found = volumes.len() + stages.len();
        for Leftover { key, .. } in volumes {
            let report = self.perform(Task::Unmount(key));
            assert!(matches!(report, Report::Unmounted { .. }), "{report:?}");
        }
        for key in stages {
            let report = self.perform(Task::Unstage(key));
            assert!(matches!(report, Report::Unstaged { .. }), "{report:?}");
        }
        for pod in empty {
            self.perform(Task::RemovePodDirectory(pod));
        }
        found
    }

    /// Nothing is left: no mount, no directory, nothing that the driver still has.
    fn assert_clean(&self) {
        assert_eq!(self.driver.staged(), []);
        assert_eq!(self.driver.published(), []);
        let table = MountTable::read().unwrap();
        let left = table
            .iter()
            .find(|mount| mount.point.starts_with(self.kubelet()));
        assert_eq!(left.map(|mount| &mount.point), None);
        let pods = fs::read_dir(self.kubelet().join("pods"));
        let pods: Vec<_> = pods
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(pods.is_empty(), "{pods:?}");
        let stages = fs::read_dir(self.stages());
        let stages: Vec<_> = stages
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path())
            .collect();
        assert!(stages.is_empty(), "{stages:?}");
    }

    fn kubelet(&self) -> &Path {
        self.kubelet.path()
    }

    fn stages(&self) -> PathBuf {
        self.kubelet()
            .join("plugins/kubernetes.io/csi")
            .join(DRIVER)
    }

    /// Where a pod has it.
    fn target(&self, mount: &Mount) -> PathBuf {
        self.kubelet().join(mount.key.target())
    }
}

fn source(driver: &str, handle: &str) -> Source {
    Source::Csi(Box::new(CsiVolume {
        driver: driver.into(),
        handle: handle.into(),
        fs_type: Some("ext4".into()),
        attributes: [("pool".into(), "fast".into())].into(),
        ..CsiVolume::default()
    }))
}

fn mount_of(pod: &str, driver: &str, handle: &str) -> Mount {
    let told = ForDriver {
        modes: [AccessMode::ReadWriteOnce].into_iter().collect(),
        attached: Attached::Yes([("devicePath".into(), "/dev/xvdb".into())].into()),
        gid: None,
        pod: None,
    };
    let staging = Staging {
        key: StageKey {
            plugin: Plugin::Csi,
            name: format!("{driver}^{handle}").as_str().into(),
        },
        volume: "cqh".into(),
        source: source(driver, handle),
        options: [].into(),
        read_only: false,
        csi: Some(Box::new(told.clone())),
    };
    Mount {
        key: MountKey {
            pod: pod.into(),
            volume: "cqh".into(),
            plugin: Plugin::Csi,
            mode: VolumeMode::Filesystem,
        },
        source: source(driver, handle),
        options: [].into(),
        read_only: false,
        group: None,
        staging: Some(Box::new(staging)),
        csi: Some(Box::new(told)),
    }
}

fn mount(pod: &str) -> Mount {
    mount_of(pod, DRIVER, "vol-1")
}

fn message(report: Report) -> String {
    match report {
        Report::StageFailed { message, .. }
        | Report::MountFailed { message, .. }
        | Report::UnmountFailed { message, .. }
        | Report::UnstageFailed { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

/// M19 to M23, with a scan between, as after a restart.
fn the_life_of_a_volume() {
    let world = World::new(ALL);
    let [one, two] = ["one", "two"].map(|pod| world.up(pod));
    for mount in [&one, &two] {
        let target = world.target(mount);
        assert!(target.ends_with("volumes/kubernetes.io~csi/cqh/mount"));
        assert_eq!(fs::read_to_string(target.join("precious")).unwrap(), "data");
        let record = fs::read_to_string(target.parent().unwrap().join("vol_data.json")).unwrap();
        for part in [
            r#""driverName":"disk.example.com""#,
            r#""volumeHandle":"vol-1""#,
            r#""specVolID":"cqh""#,
        ] {
            assert!(record.contains(part), "{record}");
        }
    }
    let global = world.driver.staged()[0].1.clone();
    assert!(Path::new(&global).starts_with(world.stages()) && global.ends_with("/globalmount"));
    // A new agent finds both with their device, and what is staged is not taken from them.
    let stage = one.staging.clone().unwrap().key;
    let leftover = |mount: &Mount| Leftover {
        key: mount.key.clone(),
        stage: Some(stage.clone()),
    };
    let found = Report::Scanned {
        volumes: vec![leftover(&one), leftover(&two)],
        stages: vec![stage.clone()],
        empty: Vec::new(),
    };
    assert_eq!(world.perform(Task::Scan), found);
    assert!(message(world.perform(Task::Unstage(stage.clone()))).contains("still mounted at"));
    for mount in [one, two] {
        let report = world.perform(Task::Unmount(mount.key));
        assert!(
            matches!(
                report,
                Report::Unmounted {
                    was_mounted: true,
                    ..
                }
            ),
            "{report:?}"
        );
    }
    let report = world.perform(Task::Unstage(stage));
    assert!(
        matches!(
            report,
            Report::Unstaged {
                was_mounted: true,
                ..
            }
        ),
        "{report:?}"
    );
    world.assert_clean();
}

fn a_driver_that_stages_nothing() {
    let world = World::new(&[]);
    let staging = *mount("pod").staging.unwrap();
    let report = world.perform(Task::Stage(staging));
    assert!(
        matches!(
            report,
            Report::Staged {
                on_node: OnNode::Nothing,
                ..
            }
        ),
        "{report:?}"
    );
    assert!(!world.stages().exists());
    world.up("pod");
    assert!(
        world
            .driver
            .calls()
            .iter()
            .all(|call| !call.starts_with("NodeStage"))
    );
    assert_eq!(world.clear(), 1);
    world.assert_clean();
}

fn stops_at(cut: usize) -> impl FnMut(Step<'_>) -> Result<(), Stopped> {
    let mut left = cut;
    move |_: Step<'_>| {
        left = left.checked_sub(1).ok_or(Stopped)?;
        Ok(())
    }
}

/// Whatever of staging and publishing was done, a new agent takes it down or goes on with it.
fn every_death_on_the_way_up() {
    let world = World::new(ALL);
    for goes_on in [false, true] {
        let mut cut = 0;
        loop {
            let mount = mount("pod");
            let mut watcher = stops_at(cut);
            let staging = *mount.staging.clone().unwrap();
            let _ = world.tree.perform(Task::Stage(staging), &mut watcher);
            let last = world.tree.perform(Task::Mount(mount), &mut watcher);
            if goes_on {
                let mount = world.up("pod");
                let target = world.target(&mount);
                assert!(target.join("precious").exists(), "cut {cut}");
            }
            world.clear();
            world.clear();
            let cluttered = fs::read_dir(world.stages()).into_iter().flatten().count();
            // A directory without a file in it was never used: it is used again by the next try.
            assert!(cluttered <= 1, "cut {cut}");
            if cluttered == 1 {
                world.up("pod");
                world.clear();
            }
            world.assert_clean();
            if matches!(last, Report::Mounted { .. }) {
                break;
            }
            cut += 1;
        }
        assert!(cut > 8, "{cut} steps");
    }
}

fn every_death_on_the_way_down() {
    let world = World::new(ALL);
    let mut cut = 0;
    loop {
        let mount = world.up("pod");
        let mut watcher = stops_at(cut);
        let stage = mount.staging.clone().unwrap().key;
        let _ = world.tree.perform(Task::Unmount(mount.key), &mut watcher);
        let last = world.tree.perform(Task::Unstage(stage), &mut watcher);
        world.clear();
        world.clear();
        world.assert_clean();
        if matches!(last, Report::Unstaged { .. }) {
            break;
        }
        cut += 1;
    }
    assert!(cut > 5, "{cut} steps");
}

/// M9: a final error.
fn what_failed_for_sure_leaves_nothing() {
    let world = World::new(ALL);
    world
        .driver
        .next("NodeStageVolume", Fate::Refuses(Code::InvalidArgument));
    let staging = *mount("pod").staging.unwrap();
    let text = message(world.perform(Task::Stage(staging)));
    assert!(
        text.contains("NodeStageVolume") && text.contains("told to refuse"),
        "{text}"
    );
    assert_eq!(fs::read_dir(world.stages()).unwrap().count(), 0);

    world.perform(Task::Stage(*mount("pod").staging.unwrap()));
    world
        .driver
        .next("NodePublishVolume", Fate::Refuses(Code::NotFound));
    let text = message(world.perform(Task::Mount(mount("pod"))));
    assert!(text.contains("NotFound"), "{text}");
    world.clear();
    world.assert_clean();
}

/// M9: an uncertain one.
fn what_may_have_happened_is_taken_down() {
    let world = World::new(ALL);
    world
        .driver
        .next("NodeStageVolume", Fate::DoesAndFails(Code::Unavailable));
    message(world.perform(Task::Stage(*mount("pod").staging.unwrap())));
    assert_eq!(world.driver.staged().len(), 1);
    assert_eq!(world.clear(), 1);
    world.assert_clean();

    world.perform(Task::Stage(*mount("pod").staging.unwrap()));
    world.driver.next(
        "NodePublishVolume",
        Fate::DoesAndFails(Code::DeadlineExceeded),
    );
    message(world.perform(Task::Mount(mount("pod"))));
    assert_eq!(world.driver.published().len(), 1);
    assert_eq!(world.clear(), 2);
    world.assert_clean();
}

/// Amendment 1: a process outside the agent holds it.
fn a_volume_in_use_is_kept() {
    let world = World::new(ALL);
    let mount = world.up("pod");
    let target = world.target(&mount);
    let holder = harness::start_holder(&target, harness::Namespace::Shared);
    let report = world.perform(Task::Unmount(mount.key));
    let held = matches!(&report, Report::Kept { holders, .. } if holders.contains("process"));
    assert!(held, "{report:?}");
    let calls = world.driver.calls();
    assert!(calls.iter().all(|call| !call.starts_with("NodeUnpublish")));
    harness::end(holder);
    assert_eq!(world.clear(), 2);
    world.assert_clean();
}

/// It says that it is done, and is not: nothing is removed.
fn a_driver_that_lies_is_told() {
    let world = World::new(ALL);
    let mount = world.up("pod");
    world.driver.acts(|_, _| {});
    let text = message(world.perform(Task::Unmount(mount.key.clone())));
    assert!(text.contains("is still mounted"), "{text}");
    let target = world.target(&mount);
    assert!(target.join("precious").exists() && target.with_file_name("vol_data.json").exists());
    world.driver.acts(mounts);
    assert_eq!(world.clear(), 2);
    world.assert_clean();
}

fn an_absent_driver_is_told() {
    let world = World::new(ALL);
    let staging = *mount_of("pod", "nobody.example.com", "v").staging.unwrap();
    let text = message(world.perform(Task::Stage(staging)));
    assert!(
        text.contains("plugins/nobody.example.com/csi.sock"),
        "{text}"
    );
    assert!(text.contains("Is the driver running"), "{text}");
    assert!(!world.kubelet().join("plugins/kubernetes.io/csi").exists());
}

fn odd_names_and_files_lead_nowhere() {
    let world = World::new(ALL);
    for driver in ["../../etc", "..", ".", "", "a/b", &"x".repeat(256)] {
        let staging = *mount_of("pod", driver, "v").staging.unwrap();
        let text = message(world.perform(Task::Stage(staging)));
        assert!(
            text.contains("cannot be the name of a directory"),
            "{driver}: {text}"
        );
    }
    // A handle is never part of a path.
    for handle in ["../../x", "a/b", "v^w", "\n", &"h".repeat(500)] {
        let mount = mount_of("pod", DRIVER, handle);
        let staging = *mount.staging.clone().unwrap();
        let report = world.perform(Task::Stage(staging));
        assert!(matches!(report, Report::Staged { .. }), "{report:?}");
        let report = world.perform(Task::Mount(mount));
        assert!(matches!(report, Report::Mounted { .. }), "{report:?}");
        assert_eq!(world.clear(), 2, "{handle:?}");
        world.assert_clean();
    }
    // A file that says nothing keeps what is mounted, and one that leads elsewhere is not followed.
    let mount = world.up("pod");
    let target = world.target(&mount);
    let file = target.with_file_name("vol_data.json");
    let good = fs::read_to_string(&file).unwrap();
    for torn in ["", "{", r#"{"driverName":"../x","volumeHandle":"v"}"#] {
        fs::write(&file, torn).unwrap();
        message(world.perform(Task::Unmount(mount.key.clone())));
        assert!(target.join("precious").exists(), "{torn}");
    }
    fs::remove_file(&file).unwrap();
    let text = message(world.perform(Task::Unmount(mount.key.clone())));
    assert!(text.contains("unmount it by hand"), "{text}");
    let elsewhere = world.kubelet().join("elsewhere");
    fs::write(&elsewhere, &good).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    message(world.perform(Task::Unmount(mount.key.clone())));
    fs::remove_file(&file).unwrap();
    fs::write(&file, good).unwrap();
    assert_eq!(world.clear(), 2);
    world.assert_clean();
}

/// M37: the agent's work, except for a driver that can do it.
fn files_are_given_to_a_group() {
    assert_eq!(mode_in_group(ALL), 0o664);
}

fn a_driver_gives_files_to_a_group_itself() {
    assert_eq!(
        mode_in_group(&[Rpc::StageUnstageVolume, Rpc::VolumeMountGroup]),
        0o644
    );
}

/// The mode of a file of the volume that a pod with a group has.
fn mode_in_group(capabilities: &[Rpc]) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new(capabilities);
    world.perform(Task::Stage(*mount("pod").staging.unwrap()));
    let group = Group {
        gid: rustix::process::getgid().as_raw(),
        give: Give::Always,
    };
    let mount = Mount {
        group: Some(group),
        ..mount("pod")
    };
    let report = world.perform(Task::Mount(mount.clone()));
    assert!(matches!(report, Report::Mounted { .. }), "{report:?}");
    let file = world.target(&mount).join("precious");
    fs::metadata(file).unwrap().mode() & 0o777
}
