//! Volumes on devices: staged before the first pod, taken down after the last (M6, M7, M14, M23).

use bitts_agent::{
    Alarm, Give, Group, How, Leftover, MountKey, MountStep, OnNode, Plugin, Report, Task, Warning,
};
use bitts_api::machine::{Effect, Input, Outcome};
use bitts_api::{Kind, ObjectKey, VolumeMode};
use serde_json::json;

use crate::run::*;

fn stages() -> Effects {
    vec![Effect::Task(Task::Stage(staging()))]
}

fn unstages() -> Effects {
    vec![Effect::Task(Task::Unstage(staging().key))]
}

fn staged() -> Report {
    Report::Staged {
        staging: staging(),
        on_node: OnNode::Device {
            how: How::Now,
            warning: None,
        },
    }
}

fn stage_failed() -> Report {
    Report::StageFailed {
        staging: staging(),
        step: MountStep::MountDevice,
        message: "it carries an LVM signature".to_owned(),
    }
}

fn unstaged() -> Report {
    Report::Unstaged {
        key: staging().key,
        was_mounted: true,
    }
}

/// A pod whose volume turned out to be a device, which is being staged.
fn waiting() -> Run {
    let mut run = Run::ready();
    assert_eq!(run.see(Kind::Pod, pod("a", &["cqh"])), mounts("a"));
    assert_eq!(run.report(Report::NeedsDevice(mount("a"))), stages());
    run
}

fn delete(run: &mut Run, name: &str) -> Effects {
    let uid = format!("{name}-uid");
    run.gone(ObjectKey::pod("default", name), &uid)
}

/// M16, M23: MountDevice goes before the first SetUp, UnmountDevice after the last TearDown.
#[test]
fn a_device_is_staged_once_for_all_pods() {
    let mut run = waiting();
    // Another pod comes while it is staged, and waits for that too.
    assert_eq!(run.see(Kind::Pod, pod("b", &["cqh"])), []);
    let both = [mounts("a"), mounts("b")].concat();
    assert_eq!(run.report(staged()), both);
    run.mounted(mount("a"));
    run.mounted(mount("b"));
    // A third finds it ready.
    assert_eq!(run.see(Kind::Pod, pod("c", &["cqh"])), mounts("c"));
    run.mounted(mount("c"));
    for name in ["a", "b"] {
        assert_eq!(delete(&mut run, name), unmounts(name));
        assert_eq!(run.unmounted(key(name)), [], "c still uses it");
    }
    assert_eq!(delete(&mut run, "c"), unmounts("c"));
    assert_eq!(run.unmounted(key("c")), unstages());
    assert_eq!(run.report(unstaged()), []);
    // From the beginning for the next one.
    assert_eq!(run.see(Kind::Pod, pod("d", &["cqh"])), mounts("d"));
}

/// M17: each pod that waits is told once; the next try comes later, and a new pod does not hasten it.
#[test]
fn what_cannot_be_staged_is_told_and_tried_again() {
    let mut run = waiting();
    assert_eq!(run.see(Kind::Pod, pod("b", &["cqh"])), []);
    let effects = run.report(stage_failed());
    let text = "MountVolume.MountDevice failed for volume \"cqh\" : it carries an LVM signature";
    assert_eq!(events(&effects), [text, text]);
    let (delay, alarm) = timer(&effects);
    assert_eq!(delay, 500);
    assert_eq!(run.see(Kind::Pod, pod("c", &["cqh"])), []);
    assert_eq!(run.feed(Input::Alarm(alarm)), stages());
    let effects = run.report(stage_failed());
    assert_eq!(events(&effects), [""; 0], "known");
    assert_eq!(timer(&effects).0, 1000);
}

/// The pod goes while its device is staged: nothing stays.
#[test]
fn a_pod_that_goes_meanwhile_leaves_nothing() {
    let mut run = waiting();
    assert_eq!(delete(&mut run, "a"), []);
    assert_eq!(run.report(staged()), unstages());

    let mut run = waiting();
    assert_eq!(delete(&mut run, "a"), []);
    // It may have come halfway (M9).
    let effects = run.report(stage_failed());
    assert!(effects.contains(&unstages()[0]), "{effects:?}");
}

/// What a new pod needs is not taken down, and what is being taken down is staged anew after it.
#[test]
fn a_pod_that_comes_while_it_is_taken_down_waits() {
    let mut run = waiting();
    run.report(staged());
    run.mounted(mount("a"));
    delete(&mut run, "a");
    assert_eq!(run.unmounted(key("a")), unstages());
    assert_eq!(run.see(Kind::Pod, pod("b", &["cqh"])), []);
    assert_eq!(run.report(unstaged()), stages());
    assert_eq!(run.report(staged()), mounts("b"));
}

/// A device that cannot be taken down is told on the node, and tried again.
#[test]
fn what_is_in_use_is_told_and_tried_again() {
    let mut run = waiting();
    run.report(staged());
    run.mounted(mount("a"));
    delete(&mut run, "a");
    run.unmounted(key("a"));
    let failed = || Report::UnstageFailed {
        key: staging().key,
        message: "process 7 (tar) uses it".to_owned(),
    };
    let effects = run.report(failed());
    assert_eq!(
        events(&effects),
        [
            "UnmountDevice failed for plugins/kubernetes.io/local-volume/mounts/cqh : process 7 (tar) uses it"
        ]
    );
    let (_, alarm) = timer(&effects);
    assert!(matches!(alarm, Alarm::RetryStage(..)));
    assert_eq!(run.feed(Input::Alarm(alarm)), unstages());
    assert!(events(&run.report(failed())).is_empty(), "known");
}

/// M29, M31: what an earlier agent left is used by those that are there, and taken down when nobody
/// is; all of it only once pods and node are known.
#[test]
fn what_an_earlier_agent_left_is_taken_over() {
    let found = |stage: bool| Leftover {
        key: key("a"),
        stage: stage.then(|| staging().key),
    };
    let scanned = |volumes| Report::Scanned {
        volumes,
        stages: vec![staging().key],
        empty: Vec::new(),
    };
    // Its pod runs: staged again, which finds it mounted.
    let mut run = Run::new(bitts_agent::Agent::new("node-1".into(), true));
    run.list(Kind::Volume, vec![volume()]);
    run.list(Kind::Claim, vec![claim()]);
    run.report(scanned(vec![found(true)]));
    run.list(Kind::Node, vec![node()]);
    assert_eq!(run.list(Kind::Pod, vec![pod("a", &["cqh"])]), stages());
    assert_eq!(run.report(staged()), mounts("a"));

    // Its pod is gone: first the pod's mount, then the device.
    let mut run = Run::new(bitts_agent::Agent::new("node-1".into(), true));
    assert_eq!(run.report(scanned(vec![found(true)])).len(), 1, "the scan");
    run.list(Kind::Node, vec![node()]);
    assert_eq!(run.list(Kind::Pod, vec![]), unmounts("a"));
    assert_eq!(run.unmounted(key("a")), unstages());

    // Only the device is left.
    let mut run = Run::new(bitts_agent::Agent::new("node-1".into(), true));
    run.report(scanned(vec![]));
    assert_eq!(run.list(Kind::Pod, vec![]), [], "no node, no pods");
    assert_eq!(run.list(Kind::Node, vec![node()]), unstages());
}

/// A mount from a device that is gone, say by hand, has it looked at before the next try.
#[test]
fn a_failed_mount_puts_the_device_in_doubt() {
    let mut run = waiting();
    assert_eq!(run.report(staged()), mounts("a"));
    let effects = run.fails(mount("a"));
    let (_, alarm) = timer(&effects);
    let tasks = |effects: &Effects| {
        let tasks = effects.iter().filter(|e| matches!(e, Effect::Task(_)));
        tasks.cloned().collect::<Vec<_>>()
    };
    assert_eq!(tasks(&effects), stages());
    assert_eq!(run.report(staged()), [], "the mount waits for its time");
    assert_eq!(run.feed(Input::Alarm(alarm)), mounts("a"));
}

/// A directory needs no device, and nothing is remembered of one.
#[test]
fn a_directory_is_not_staged() {
    let mut run = Run::ready();
    assert_eq!(run.see(Kind::Pod, pod("a", &["cqh"])), mounts("a"));
    run.mounted(mount("a"));
    delete(&mut run, "a");
    assert_eq!(run.unmounted(key("a")), []);
}

/// M6: a disk is always staged, by its own name, and only once for all volumes on it.
#[test]
fn a_disk_of_a_cloud_is_staged_by_its_name() {
    let source = json!({"local": null, "gcePersistentDisk": {"pdName": "data", "readOnly": true}});
    let volume = with(volume(), json!({"spec": source}));
    let mut run = Run::of(vec![volume], vec![claim()], vec![], Vec::new());
    // First the node says that it uses the disk (M14).
    let effects = run.see(Kind::Pod, pod("a", &["cqh"]));
    let [Effect::Write(write)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(write.step, "report-volumes-in-use");
    let list = json!({"volumesInUse": ["kubernetes.io/gce-pd/data"]});
    assert_eq!(write.patch, json!({"status": list}));
    let told = version(with(node(), json!({"status": list})), 20);
    assert_eq!(
        run.feed(Input::Finished(write.target.key.clone(), Outcome::Done)),
        []
    );
    let effects = run.see(Kind::Node, told.clone());
    let [Effect::Task(Task::Stage(staging))] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        staging.key.to_string(),
        "plugins/kubernetes.io/gce-pd/mounts/data"
    );
    assert!(staging.read_only);
    let staged = Report::Staged {
        staging: staging.clone(),
        on_node: OnNode::Device {
            how: How::Now,
            warning: Some("resize2fs failed".to_owned()),
        },
    };
    let effects = run.report(staged);
    assert_eq!(
        events(&effects),
        ["MountVolume.NodeExpandVolume failed for volume \"cqh\" : resize2fs failed"]
    );
    let mount = effects.iter().find_map(|effect| match effect {
        Effect::Task(Task::Mount(mount)) => Some(mount),
        _ => None,
    });
    let key = MountKey {
        plugin: Plugin::GcePersistentDisk,
        ..key("a")
    };
    let mount = mount.unwrap();
    assert_eq!((&mount.key, mount.read_only), (&key, true));

    // And says so until the disk is known to be unmounted (M15).
    run.mounted(mount.clone());
    let staging = staging.clone();
    assert_eq!(
        delete(&mut run, "a"),
        [Effect::Task(Task::Unmount(key.clone()))]
    );
    assert_eq!(
        run.unmounted(key),
        [Effect::Task(Task::Unstage(staging.key.clone()))]
    );
    let effects = run.report(Report::Unstaged {
        key: staging.key,
        was_mounted: true,
    });
    let [Effect::Write(write)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(write.patch, json!({"status": {"volumesInUse": []}}));
}

/// M27: a raw block volume is given as it is; nothing is staged for it, and it has words of its own.
#[test]
fn a_raw_block_volume_is_not_staged() {
    let raw = json!({"spec": {"volumeMode": "Block"}});
    let volume = with(volume(), raw.clone());
    let mut run = Run::of(vec![volume], vec![with(claim(), raw)], vec![], Vec::new());
    let effects = run.see(Kind::Pod, pod("a", &["cqh"]));
    let [Effect::Task(Task::Mount(mount))] = &effects[..] else {
        panic!("{effects:?}")
    };
    let mode = VolumeMode::Block;
    assert_eq!(mount.key, MountKey { mode, ..key("a") });
    assert_eq!(mount.staging, None);
    let mount = mount.clone();
    let effects = run.fails(mount.clone());
    assert_eq!(
        events(&effects),
        [
            "MapVolume.NewBlockVolumeMapper initialization failed for volume \"cqh\" : path \"/data/pv\" does not exist"
        ]
    );
    let (_, alarm) = timer(&effects);
    run.feed(Input::Alarm(alarm));
    run.mounted(mount.clone());
    let unmount = Effect::Task(Task::Unmount(mount.key));
    assert_eq!(delete(&mut run, "a"), [unmount]);
}

/// M27: what has no device is told.
#[test]
fn an_export_has_no_device() {
    let raw = json!({"spec": {"volumeMode": "Block"}});
    let nfs = json!({"spec": {"local": null, "nfs": {"server": "nas", "path": "/"}}});
    let volume = with(with(volume(), raw.clone()), nfs);
    let mut run = Run::of(vec![volume], vec![with(claim(), raw)], vec![], Vec::new());
    let effects = run.see(Kind::Pod, pod("a", &["cqh"]));
    let text = "MapVolume.FindMapperPluginBySpec failed for volume \"cqh\" : volume type \"nfs\" has no block devices: use volumeMode Filesystem";
    assert_eq!(events(&effects), [text]);
}

/// M35 to M38: files are given to a pod's group where it writes, and a local volume only by the first
/// pod that has it.
#[test]
fn files_are_given_to_the_pods_group() {
    let group = |run: &mut Run, name: &str, context: serde_json::Value, read_only: bool| {
        let of_pod = json!({"spec": {"securityContext": context, "volumes": [
            {"name": "data0", "persistentVolumeClaim": {"claimName": "cqh", "readOnly": read_only}}]}});
        let effects = run.see(Kind::Pod, with(pod(name, &["cqh"]), of_pod));
        let [Effect::Task(Task::Mount(mount))] = &effects[..] else {
            panic!("{effects:?}")
        };
        mount.group
    };
    let gives = |give| Some(Group { gid: 2000, give });
    let mut run = Run::ready();
    assert_eq!(group(&mut run, "a", json!({}), false), None);
    let always = json!({"fsGroup": 2000});
    assert_eq!(group(&mut run, "b", always.clone(), true), None);
    assert_eq!(
        group(&mut run, "c", always.clone(), false),
        gives(Give::Always)
    );
    let rarely = json!({"fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch"});
    assert_eq!(
        group(&mut run, "d", rarely, false),
        gives(Give::OnRootMismatch)
    );
    run.mounted(mount("a"));
    assert_eq!(group(&mut run, "e", always, false), gives(Give::Never));
    let effects = run.report(Report::Mounted {
        mount: mount("e"),
        target: key("e").target(),
        how: How::Now,
        warning: Some(Warning {
            reason: "AlreadyMountedVolume",
            message: "it has GID 3000".to_owned(),
        }),
    });
    assert_eq!(events(&effects), ["it has GID 3000"]);
}

/// M2: the claim of an ephemeral volume must be the pod's own.
#[test]
fn an_ephemeral_volume_is_the_pods_own() {
    let ephemeral =
        json!({"spec": {"volumes": [{"name": "c", "ephemeral": {"volumeClaimTemplate": {}}}]}});
    let owned_by = |uid: &str| {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid,
            "controller": true});
        json!({"metadata": {"name": "web-c", "uid": "c-1", "ownerReferences": [owner]}})
    };
    let volume = || with(volume(), json!({"spec": {"claimRef": {"name": "web-c"}}}));
    for (uid, text) in [
        ("web-uid", None),
        (
            "other",
            Some(
                "error processing PVC default/web-c: PVC default/web-c was not created for pod default/web (pod is not owner)",
            ),
        ),
    ] {
        let claim = with(claim(), owned_by(uid));
        let mut run = Run::of(vec![volume()], vec![claim], vec![], Vec::new());
        let effects = run.see(Kind::Pod, with(pod("web", &[]), ephemeral.clone()));
        assert_eq!(events(&effects).first().copied(), text);
        assert_eq!(effects == mounts("web"), text.is_none(), "{effects:?}");
    }
}
