//! The agent on real mounts, each case in a private root of its own; see the harness.
#![expect(
    clippy::unwrap_used,
    reason = "tests, though without the usual harness"
)]

#[path = "../../mount/tests/harness/mod.rs"]
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bitts_agent::tree::{Step, Stopped, Tree};
use bitts_agent::{
    Agent, AgentConfig, How, Leftover, Mount, MountKey, Mounter, NodeWorker, Plugin, Report, Task,
};
use bitts_api::machine::{Effect, Input, Machine as _, Moment};
use bitts_api::{Kind, Source, VolumeMode};
use bitts_mount::bind::{self, Options};
use bitts_mount::dir::{Component, Dir};
use bitts_mount::sandbox;
use bitts_mount::table::MountTable;
use bitts_runtime::Worker as _;
use harness::Namespace;
use serde_json::{Value, json};

const CASES: &[harness::Case] = &[
    (
        "killed_anywhere_while_mounting",
        killed_anywhere_while_mounting,
    ),
    (
        "killed_anywhere_while_unmounting",
        killed_anywhere_while_unmounting,
    ),
    (
        "killed_while_mounting_and_the_pod_is_gone",
        killed_while_mounting_and_the_pod_is_gone,
    ),
    (
        "killed_before_a_mount_became_read_only",
        killed_before_a_mount_became_read_only,
    ),
    (
        "bad_paths_say_why_and_mount_when_mended",
        bad_paths_say_why_and_mount_when_mended,
    ),
    (
        "something_else_at_the_target_stays",
        something_else_at_the_target_stays,
    ),
    ("what_is_not_ours_stays", what_is_not_ours_stays),
    (
        "files_in_an_unmounted_directory_stay",
        files_in_an_unmounted_directory_stay,
    ),
    ("a_volume_in_use_is_kept", a_volume_in_use_is_kept),
    ("a_stack_of_mounts_comes_down", a_stack_of_mounts_comes_down),
    (
        "a_copy_elsewhere_keeps_the_directory",
        a_copy_elsewhere_keeps_the_directory,
    ),
    (
        "a_pod_whose_cgroup_is_not_empty_is_kept",
        a_pod_whose_cgroup_is_not_empty_is_kept,
    ),
    ("the_worker_mounts_and_tells", the_worker_mounts_and_tells),
    ("what_vanishes_is_noticed", what_vanishes_is_noticed),
];

fn main() -> ExitCode {
    harness::main(CASES)
}

/// The API's objects, a node, and the agents that come and go on it.
struct World {
    tree: Tree,
    pods: Vec<Value>,
    read_only: bool,
}

impl World {
    fn new() -> Self {
        sandbox::enter().unwrap();
        fs::write("/data/pv/precious", "data").unwrap();
        Self {
            tree: Tree {
                kubelet_dir: "/var/lib/kubelet".into(),
                local_root: "/".into(),
                devices: "/dev".into(),
                patience: Tree::PATIENCE,
            },
            pods: Vec::new(),
            read_only: false,
        }
    }

    fn add_pod(&mut self, uid: &str) -> MountKey {
        let source = json!({"claimName": "cqh", "readOnly": self.read_only});
        self.pods.push(json!({
            "metadata": {"name": uid, "namespace": "default", "uid": uid, "resourceVersion": "3"},
            "spec": {"nodeName": "n", "volumes": [{"name": "v", "persistentVolumeClaim": source}]},
        }));
        MountKey {
            pod: uid.into(),
            volume: "cqh".into(),
            plugin: Plugin::Local,
            mode: VolumeMode::Filesystem,
        }
    }

    /// Starts an agent and lets it work until nothing is left to do or it is killed before its
    /// step number `kill`. Returns its reports and whether it lived.
    fn agent(&self, kill: Option<usize>) -> (Vec<Report>, bool) {
        let claim = json!({
            "metadata": {"name": "cqh", "namespace": "default", "uid": "c", "resourceVersion": "1"},
            "spec": {"volumeName": "cqh"}, "status": {"phase": "Bound"},
        });
        let volume = json!({
            "metadata": {"name": "cqh", "uid": "v", "resourceVersion": "2"},
            "spec": {"local": {"path": "/data/pv"},
                     "claimRef": {"namespace": "default", "name": "cqh", "uid": "c"}},
        });
        let node = json!({"metadata": {"name": "n", "uid": "n"}});
        let lists = [(Kind::Pod, self.pods.clone()), (Kind::Node, vec![node])];
        let read = |kind: Kind, value: &Value| kind.read(value.to_string().as_bytes()).unwrap();
        let mut agent = Agent::new("n".into(), false);
        let mut effects = Vec::new();
        for (kind, values) in lists {
            let objects = values.iter().map(|value| read(kind, value)).collect();
            let list = Input::Listed(kind, objects);
            effects.extend(agent.handle(Moment::default(), list));
        }
        let (mut reports, mut steps, mut killed) = (Vec::new(), 0, false);
        while !effects.is_empty() {
            let task = match effects.remove(0) {
                Effect::Task(task) => task,
                Effect::Follow(key) => {
                    let value = if key.kind == Kind::Claim {
                        &claim
                    } else {
                        &volume
                    };
                    let found = Input::Found(key.clone(), Some(read(key.kind, value)));
                    effects.extend(agent.handle(Moment::default(), found));
                    continue;
                }
                _ => continue,
            };
            let report = self.tree.perform(task, &mut |_: Step<'_>| {
                killed |= Some(steps) == kill;
                steps += 1;
                if killed { Err(Stopped) } else { Ok(()) }
            });
            if killed {
                return (reports, false);
            }
            reports.push(report.clone());
            effects.extend(agent.handle(Moment::default(), Input::Report(report)));
        }
        (reports, true)
    }

    fn target(&self, key: &MountKey) -> PathBuf {
        self.tree.kubelet_dir.join(key.target())
    }

    fn mounts(&self, key: &MountKey) -> usize {
        let target = self.target(key);
        MountTable::read()
            .unwrap()
            .iter()
            .filter(|m| m.point == target)
            .count()
    }

    fn assert_mounted(&self, key: &MountKey) {
        assert_eq!(self.mounts(key), 1);
        assert_eq!(
            fs::read_to_string(self.target(key).join("precious")).unwrap(),
            "data"
        );
        let table = MountTable::read().unwrap();
        assert_eq!(
            table.at(&self.target(key)).unwrap().read_only,
            self.read_only
        );
    }

    fn assert_nothing_left(&self, key: &MountKey) {
        assert_eq!(self.mounts(key), 0);
        assert!(
            !Path::new("/var/lib/kubelet/pods")
                .join(key.pod.to_string())
                .exists()
        );
        assert_eq!(fs::read_to_string("/data/pv/precious").unwrap(), "data");
    }
}

/// Runs a case once for each step that an agent takes, until one agent lives to its end.
fn for_each_step(at_least: usize, mut case: impl FnMut(usize) -> bool) {
    let steps = (0..100).take_while(|kill| !case(*kill)).count();
    assert!((at_least..100).contains(&steps), "{steps} steps");
}

fn killed_anywhere_while_mounting() {
    let mut world = World::new();
    for read_only in [false, true] {
        world.read_only = read_only;
        for_each_step(6, |kill| {
            let key = world.add_pod(&format!("pod-{read_only}-{kill}"));
            world.pods = world.pods.split_off(world.pods.len() - 1);
            let (_, lived) = world.agent(Some(kill));
            let (reports, _) = world.agent(None);
            assert!(
                matches!(reports.last(), Some(Report::Mounted { .. })),
                "{reports:?}"
            );
            world.assert_mounted(&key);
            // And once more, on what is there.
            world.agent(None);
            world.assert_mounted(&key);
            world.pods.clear();
            world.agent(None);
            world.assert_nothing_left(&key);
            lived
        });
    }
}

fn killed_anywhere_while_unmounting() {
    let mut world = World::new();
    for_each_step(5, |kill| {
        let key = world.add_pod(&format!("pod-{kill}"));
        world.agent(None);
        world.assert_mounted(&key);
        world.pods.clear();
        let (_, lived) = world.agent(Some(kill));
        world.agent(None);
        world.assert_nothing_left(&key);
        lived
    });
}

fn killed_while_mounting_and_the_pod_is_gone() {
    let mut world = World::new();
    for_each_step(6, |kill| {
        let key = world.add_pod(&format!("pod-{kill}"));
        let (_, lived) = world.agent(Some(kill));
        world.pods.clear();
        world.agent(None);
        world.assert_nothing_left(&key);
        lived
    });
}

/// The one place where a kill falls between two calls that have no step between them.
fn killed_before_a_mount_became_read_only() {
    let mut world = World::new();
    let key = world.add_pod("pod");
    world.agent(None);
    world.pods.clear();
    world.read_only = true;
    world.add_pod("pod");
    world.agent(None);
    world.assert_mounted(&key);
    assert!(fs::write(world.target(&key).join("x"), "x").is_err());
    fs::write("/data/pv/x", "x").unwrap();
}

fn bad_paths_say_why_and_mount_when_mended() {
    let mut world = World::new();
    world.tree.local_root = "/tmp".into();
    fs::create_dir("/tmp/data").unwrap();
    let key = world.add_pod("pod");
    let failure = |world: &World| {
        let (reports, _) = world.agent(None);
        match reports.last() {
            Some(Report::MountFailed { step, message, .. }) => {
                format!("{}: {message}", step.failed(VolumeMode::Filesystem))
            }
            other => panic!("{other:?}"),
        }
    };
    let start = "MountVolume.NewMounter initialization failed: path \"/data/pv\"";
    assert_eq!(failure(&world), format!("{start} does not exist"));
    fs::write("/tmp/data/pv", "a file").unwrap();
    let only = "only directory and block device are supported";
    assert_eq!(failure(&world), format!("{start} is a file: {only}"));
    fs::remove_file("/tmp/data/pv").unwrap();
    symlink("/data/pv", "/tmp/data/pv").unwrap();
    let link = r#": the symbolic link "/data/pv" leads to "/data/pv", out of "/tmp""#;
    let text = failure(&world);
    assert!(text.starts_with(&format!("{start}{link}")), "{text}");
    assert!(
        !Path::new("/var/lib/kubelet/pods").exists(),
        "nothing was made"
    );
    fs::remove_file("/tmp/data/pv").unwrap();
    fs::create_dir("/tmp/data/pv").unwrap();
    fs::write("/tmp/data/pv/precious", "data").unwrap();
    world.agent(None);
    world.assert_mounted(&key);
}

fn something_else_at_the_target_stays() {
    let mut world = World::new();
    let key = world.add_pod("pod");
    world.agent(None);
    // The directory is replaced while it is mounted: the pod sees the old one.
    fs::rename("/data/pv", "/data/old").unwrap();
    fs::create_dir("/data/pv").unwrap();
    let (reports, _) = world.agent(None);
    let Some(Report::MountFailed { message, .. }) = reports.last() else {
        panic!("{reports:?}")
    };
    assert!(
        message.starts_with("something else than \"/data/pv\" is mounted at"),
        "{message}"
    );
    assert_eq!(world.mounts(&key), 1);
    assert!(world.target(&key).join("precious").exists());
    world.pods.clear();
    world.agent(None);
    assert_eq!(world.mounts(&key), 0);
    assert!(Path::new("/data/old/precious").exists());
}

fn what_is_not_ours_stays() {
    let mut world = World::new();
    let pods = Path::new("/var/lib/kubelet/pods");
    let key = world.add_pod("pod");
    world.agent(None);
    let volumes = pods.join("pod/volumes");
    fs::create_dir_all(volumes.join("kubernetes.io~glusterfs/share")).unwrap();
    fs::create_dir_all(pods.join("other/volumes/kubernetes.io~azure-disk/v")).unwrap();
    fs::create_dir_all(pods.join("other/plugins")).unwrap();
    fs::create_dir_all(pods.join("empty/volumes/kubernetes.io~local-volume")).unwrap();
    symlink("/data", pods.join("link")).unwrap();
    world.pods.clear();
    world.agent(None);
    assert_eq!(world.mounts(&key), 0);
    assert!(!volumes.join("kubernetes.io~local-volume").exists());
    assert!(volumes.join("kubernetes.io~glusterfs/share").exists());
    assert!(
        pods.join("other/volumes/kubernetes.io~azure-disk/v")
            .exists()
    );
    assert!(pods.join("other/plugins").exists());
    assert!(pods.join("link").is_symlink());
    assert!(!pods.join("empty").exists());
    assert!(Path::new("/data/pv/precious").exists());
}

fn files_in_an_unmounted_directory_stay() {
    let world = World::new();
    let key = MountKey {
        pod: "pod".into(),
        volume: "cqh".into(),
        plugin: Plugin::Local,
        mode: VolumeMode::Filesystem,
    };
    fs::create_dir_all(world.target(&key)).unwrap();
    fs::write(world.target(&key).join("stray"), "data").unwrap();
    let (reports, _) = world.agent(None);
    let Some(Report::UnmountFailed { message, .. }) = reports.last() else {
        panic!("{reports:?}")
    };
    assert!(
        message.contains("written while nothing was mounted there"),
        "{message}"
    );
    assert_eq!(
        fs::read_to_string(world.target(&key).join("stray")).unwrap(),
        "data"
    );
}

/// A world on the host's tree, where other programs can be started, in a folder of its own.
/// One pod a case: cgroups are seen by all cases, which run side by side.
fn pod_on_the_host() -> String {
    format!("0b1d-22-{}", std::process::id())
}

fn on_the_host(temp: &Path) -> (Tree, Mount) {
    sandbox::separate().unwrap();
    for dir in ["pv", "kubelet"] {
        fs::create_dir(temp.join(dir)).unwrap();
    }
    let key = MountKey {
        pod: pod_on_the_host().into(),
        volume: "cqh".into(),
        plugin: Plugin::Local,
        mode: VolumeMode::Filesystem,
    };
    let mount = Mount {
        key,
        source: Source::Local {
            path: "/pv".into(),
            fs_type: None,
        },
        options: [].into(),
        read_only: false,
        group: None,
        staging: None,
        csi: None,
    };
    (
        Tree {
            kubelet_dir: temp.join("kubelet"),
            local_root: temp.into(),
            devices: "/dev".into(),
            patience: Tree::PATIENCE,
        },
        mount,
    )
}

fn perform(tree: &Tree, task: Task) -> Report {
    tree.perform(task, &mut |_: Step<'_>| Ok(()))
}

fn a_volume_in_use_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let (tree, mount) = on_the_host(temp.path());
    let Report::Mounted { target, .. } = perform(&tree, Task::Mount(mount.clone())) else {
        panic!()
    };
    // Mounts are private here, so a copy has nothing that it could follow.
    let host = Path::new("/");
    for (dir, namespace) in [
        (&*target, Namespace::Shared),
        (host, Namespace::Private),
        (host, Namespace::Following),
    ] {
        let holder = harness::start_holder(dir, namespace);
        let report = perform(&tree, Task::Unmount(mount.key.clone()));
        let Report::Kept { holders, .. } = report else {
            panic!("{report:?}")
        };
        assert!(
            holders.starts_with(&format!("process {} (", holder.id())),
            "{holders}"
        );
        assert!(MountTable::read().unwrap().at(&target).is_some());
        harness::end(holder);
    }
    let report = perform(&tree, Task::Unmount(mount.key));
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
    assert_eq!(
        fs::read_dir(temp.path().join("kubelet/pods"))
            .unwrap()
            .count(),
        0
    );
}

/// An operator unmounts on the host what another namespace still has: removing the directory would
/// take it from there.
fn a_copy_elsewhere_keeps_the_directory() {
    let temp = tempfile::tempdir().unwrap();
    let (tree, mount) = on_the_host(temp.path());
    let Report::Mounted { target, .. } = perform(&tree, Task::Mount(mount.clone())) else {
        panic!()
    };
    let holder = harness::start_holder(Path::new("/"), Namespace::Private);
    let parent = Dir::open(target.parent().unwrap()).unwrap();
    parent.unmount(&Component::new("cqh").unwrap()).unwrap();
    let report = perform(&tree, Task::Unmount(mount.key.clone()));
    assert!(matches!(report, Report::Kept { .. }), "{report:?}");
    assert!(target.exists());
    harness::end(holder);
    let report = perform(&tree, Task::Unmount(mount.key));
    assert!(matches!(report, Report::Unmounted { .. }), "{report:?}");
    assert!(!target.exists());
}

/// Mounted twice over: a process that merely shares the namespace holds neither.
fn a_stack_of_mounts_comes_down() {
    let temp = tempfile::tempdir().unwrap();
    let (tree, mount) = on_the_host(temp.path());
    let Report::Mounted { target, .. } = perform(&tree, Task::Mount(mount.clone())) else {
        panic!()
    };
    let source = Dir::open(&temp.path().join("pv")).unwrap();
    bind::bind(&source, Dir::open(&target).unwrap(), Options::default()).unwrap();
    let holder = harness::start_holder(Path::new("/"), Namespace::Shared);
    let report = perform(&tree, Task::Unmount(mount.key));
    harness::end(holder);
    assert!(matches!(report, Report::Unmounted { .. }), "{report:?}");
    assert!(!target.exists());
}

/// Needs a cgroup hierarchy that may be written to; says so where there is none.
fn a_pod_whose_cgroup_is_not_empty_is_kept() {
    let slice = format!("kubepods-pod{}.slice", pod_on_the_host().replace('-', "_"));
    let group = [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/pids",
    ]
    .map(|hierarchy| Path::new(hierarchy).join(&slice))
    .into_iter()
    .find(|group| fs::create_dir(group).is_ok() && group.join("cgroup.procs").exists());
    let Some(group) = group else {
        harness::skip("no cgroup hierarchy may be written to");
    };
    let temp = tempfile::tempdir().unwrap();
    let (tree, mount) = on_the_host(temp.path());
    perform(&tree, Task::Mount(mount.clone()));
    let holder = harness::start_holder(Path::new("/"), Namespace::Shared);
    fs::write(group.join("cgroup.procs"), holder.id().to_string()).unwrap();
    let report = perform(&tree, Task::Unmount(mount.key.clone()));
    harness::end(holder);
    fs::remove_dir(&group).unwrap();
    let Report::Kept { holders, .. } = report else {
        panic!("{report:?}")
    };
    assert!(holders.contains("runs in cgroup"), "{holders}");
    let report = perform(&tree, Task::Unmount(mount.key));
    assert!(matches!(report, Report::Unmounted { .. }), "{report:?}");
}

/// The mount of a directory for this pod.
fn mount_for(pod: &str) -> Mount {
    Mount {
        key: MountKey {
            pod: pod.into(),
            volume: "cqh".into(),
            plugin: Plugin::Local,
            mode: VolumeMode::Filesystem,
        },
        source: Source::Local {
            path: "/data/pv".into(),
            fs_type: None,
        },
        options: [].into(),
        read_only: false,
        group: None,
        staging: None,
        csi: None,
    }
}

/// What others unmount is told, whenever it happens; what the agent takes down itself is not.
fn what_vanishes_is_noticed() {
    let world = World::new();
    // The mount table knows the place by another path.
    fs::rename("/var/lib/kubelet", "/var/lib/there").unwrap();
    std::os::unix::fs::symlink("there", "/var/lib/kubelet").unwrap();
    let worker = NodeWorker::new(AgentConfig::new("n".into()));
    let mounts = ["one", "two", "three"].map(mount_for);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().build().unwrap().block_on(async {
        let mount = async |mount: &Mount| {
            let report = worker.perform(Task::Mount(mount.clone())).await;
            assert!(matches!(report, Report::Mounted { .. }), "{report:?}");
        };
        let vanish = |mount: &Mount| {
            let target = world.target(&mount.key);
            rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty()).unwrap();
        };
        let watch = || worker.perform(Task::Watch);
        let missing = |mount: &Mount| Report::Missing(vec![mount.key.clone()]);
        let [one, two, three] = &mounts;
        // Before it is watched for,
        mount(one).await;
        vanish(one);
        assert_eq!(watch().await, missing(one));
        // while it is,
        mount(two).await;
        let (seen, ()) = tokio::join!(watch(), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            mount(three).await;
            let taken = worker.perform(Task::Unmount(three.key.clone())).await;
            assert!(matches!(taken, Report::Unmounted { .. }), "{taken:?}");
            vanish(two);
        });
        assert_eq!(seen, missing(two));
        // and after it was mounted again.
        mount(two).await;
        let (seen, ()) = tokio::join!(watch(), async { vanish(two) });
        assert_eq!(seen, missing(two));
    });
}

fn the_worker_mounts_and_tells() {
    let world = World::new();
    let mount = mount_for("pod");
    let key = mount.key.clone();
    let (observer, mut observed) = tokio::sync::mpsc::unbounded_channel();
    let config = AgentConfig {
        observer: Some(observer),
        ..AgentConfig::new("n".into())
    };
    let shown = NodeWorker::new(AgentConfig {
        mounter: Mounter::DryRun,
        ..config.clone()
    });
    let real = NodeWorker::new(config);
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let report = shown.perform(Task::Mount(mount.clone())).await;
        let target = world.target(&key);
        let would_be = Report::Mounted {
            mount: mount.clone(),
            target: target.clone(),
            how: How::Shown,
            warning: None,
        };
        assert_eq!(report, would_be);
        assert!(!target.exists());

        // Several at a time, as the runtime does.
        let other = Mount {
            key: MountKey {
                pod: "other".into(),
                ..key.clone()
            },
            ..mount.clone()
        };
        let (one, two) = tokio::join!(
            real.perform(Task::Mount(mount.clone())),
            real.perform(Task::Mount(other.clone())),
        );
        assert_eq!(
            one,
            Report::Mounted {
                mount: mount.clone(),
                target,
                how: How::Now,
                warning: None,
            }
        );
        assert!(
            matches!(two, Report::Mounted { how: How::Now, .. }),
            "{two:?}"
        );
        world.assert_mounted(&key);
        world.assert_mounted(&other.key);
        let again = real.perform(Task::Mount(mount.clone())).await;
        assert!(
            matches!(
                again,
                Report::Mounted {
                    how: How::Before,
                    ..
                }
            ),
            "{again:?}"
        );
        let report = real.perform(Task::Scan).await;
        let volumes = vec![other.key, key.clone()];
        assert_eq!(
            report,
            Report::Scanned {
                volumes: volumes
                    .into_iter()
                    .map(|key| Leftover { key, stage: None })
                    .collect(),
                stages: Vec::new(),
                empty: Vec::new()
            }
        );
    });
    drop((shown, real));
    let mut told = 0;
    while observed.blocking_recv().is_some() {
        told += 1;
    }
    assert_eq!(told, 5);
}
