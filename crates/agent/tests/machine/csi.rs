//! Volumes of CSI drivers: what is waited for, and what the driver is told (A35, M14, M18 to M20, M37).

use bitts_agent::{
    Attached, ForDriver, Give, How, Leftover, Mount, OnNode, Report, StageKey, Task,
};
use bitts_api::machine::{Effect, Outcome};
use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};

use crate::run::*;

const NAME: &str = "kubernetes.io/csi/disk.example.com^vol-1";
/// Of the volume on the node (A23); the stock controller gives the same name.
const ATTACHMENT: &str = "csi-19c42f43d69fa1f381555c6802be2757a07267e9705a867fd59297bc87dd0694";

fn disk() -> Value {
    with(
        volume(),
        json!({"spec": {"local": null, "nodeAffinity": null, "accessModes": ["ReadWriteOnce"],
                        "csi": {"driver": "disk.example.com", "volumeHandle": "vol-1", "fsType": "ext4",
                                "volumeAttributes": {"pool": "fast"}}}}),
    )
}

fn driver(spec: Value) -> Value {
    json!({"metadata": {"name": "disk.example.com", "uid": "d-1", "resourceVersion": "2"}, "spec": spec})
}

fn attachment(status: Value) -> Value {
    json!({"metadata": {"name": ATTACHMENT, "uid": "a-1", "resourceVersion": "20"},
           "spec": {"attacher": "disk.example.com", "nodeName": "node-1",
                    "source": {"persistentVolumeName": "cqh"}},
           "status": status})
}

fn attached() -> Value {
    attachment(json!({"attached": true, "attachmentMetadata": {"devicePath": "/dev/xvdb"}}))
}

/// The node, whose disks the attach controller attaches.
fn node_with(at: u32, in_use: &[&str], attached: &[&str]) -> Value {
    let attached: Vec<_> = attached.iter().map(|name| json!({"name": name})).collect();
    let controlled = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true",
        "bitts.dev/mounted-by": "bitts-agent"});
    version(
        with(
            node(),
            json!({"metadata": {"annotations": controlled},
                   "status": {"volumesInUse": in_use, "volumesAttached": attached}}),
        ),
        at,
    )
}

fn run() -> Run {
    let claim = with(claim(), json!({"spec": {"accessModes": ["ReadWriteOnce"]}}));
    let mut run = Run::of(vec![disk()], vec![claim], vec![], Vec::new());
    run.see(Kind::Node, node_with(2, &[], &[]));
    run
}

fn write_of(effects: &Effects) -> Option<Value> {
    effects.iter().find_map(|effect| match effect {
        Effect::Write(write) => Some(write.patch["status"]["volumesInUse"].clone()),
        _ => None,
    })
}

fn tasks(effects: Effects) -> Vec<Task> {
    let task = |effect| match effect {
        Effect::Task(task) => Some(task),
        _ => None,
    };
    effects.into_iter().filter_map(task).collect()
}

fn staging_of(effects: Effects) -> bitts_agent::Staging {
    match &tasks(effects)[..] {
        [Task::Stage(staging)] => staging.clone(),
        other => panic!("{other:?}"),
    }
}

fn mount_of(effects: Effects) -> Mount {
    match &tasks(effects)[..] {
        [Task::Mount(mount)] => mount.clone(),
        other => panic!("{other:?}"),
    }
}

fn staged(staging: bitts_agent::Staging) -> Report {
    Report::Staged {
        staging,
        on_node: OnNode::Device {
            how: How::Now,
            warning: None,
        },
    }
}

/// A35, M14, M18: in use is told first, then the driver has to attach, then the controller to say so.
#[test]
fn a_disk_is_used_after_it_is_told_attached_and_listed() {
    let mut run = run();
    let effects = run.see(Kind::Pod, pod("a", &["cqh"]));
    assert_eq!(write_of(&effects), Some(json!([NAME])));
    assert!(run.followed.contains(&ObjectKey::attachment(ATTACHMENT)));
    assert_eq!(tasks(effects), []);
    run.feed(bitts_api::machine::Input::Finished(
        ObjectKey::node(&"node-1".into()),
        Outcome::Done,
    ));
    assert_eq!(run.see(Kind::Node, node_with(3, &[NAME], &[])), []);
    assert_eq!(run.see(Kind::Attachment, attached()), [], "not listed yet");
    let staging = staging_of(run.see(Kind::Node, node_with(4, &[NAME], &[NAME])));
    assert_eq!(staging.key.name.as_str(), "disk.example.com^vol-1");
    let told = staging.csi.clone().unwrap();
    assert_eq!(
        told.attached,
        Attached::Yes([("devicePath".into(), "/dev/xvdb".into())].into())
    );
    let mount = mount_of(run.report(staged(staging.clone())));
    assert_eq!(mount.csi.clone().unwrap().pod, None, "not asked for");
    run.mounted(mount.clone());
    assert!(run.followed.is_empty(), "nothing of it changes any more");
    // What becomes of the attachment takes nothing from the pod.
    assert_eq!(run.see(Kind::Attachment, attachment(json!({}))), []);
    let effects = run.gone(ObjectKey::pod("default", "a"), "a-uid");
    assert_eq!(tasks(effects), [Task::Unmount(mount.key.clone())]);
    let effects = run.unmounted(mount.key);
    assert_eq!(tasks(effects), [Task::Unstage(staging.key.clone())]);
    // It is in use until it is known to be down (M15).
    let effects = run.report(Report::Unstaged {
        key: staging.key,
        was_mounted: true,
    });
    assert_eq!(write_of(&effects), Some(json!([])));
}

/// A pod hears from the node why its volume is not attached, once.
#[test]
fn what_keeps_a_disk_from_being_attached_is_told() {
    let mut run = run();
    run.see(Kind::Pod, pod("a", &["cqh"]));
    run.see(Kind::Node, node_with(3, &[NAME], &[NAME]));
    let failing =
        attachment(json!({"attached": false, "attachError": {"message": "no slot left"}}));
    let effects = run.see(Kind::Attachment, failing.clone());
    let text = "AttachVolume.Attach failed for volume \"cqh\" : no slot left";
    assert_eq!(events(&effects), [text]);
    let effects = run.see(Kind::Attachment, version(failing, 21));
    assert_eq!(events(&effects), [""; 0], "known");
    let effects = run.see(Kind::Attachment, deleting(attached(), 22));
    assert!(
        events(&effects)[0].contains("is being deleted"),
        "{effects:?}"
    );
    assert_eq!(tasks(effects), []);
    // Made anew under the same name.
    run.gone(ObjectKey::attachment(ATTACHMENT), "a-1");
    let anew = with(attached(), json!({"metadata": {"uid": "a-2"}}));
    staging_of(run.see(Kind::Attachment, version(anew, 23)));
}

/// A1: what a driver does not attach waits for nobody, and is never told to be in use.
#[test]
fn a_driver_that_attaches_nothing_is_not_waited_for() {
    let mut run = run();
    run.list(
        Kind::CsiDriver,
        vec![driver(json!({"attachRequired": false}))],
    );
    let staging = staging_of(run.see(Kind::Pod, pod("a", &["cqh"])));
    assert_eq!(staging.csi.unwrap().attached, Attached::NotNeeded);
    assert!(!run.followed.contains(&ObjectKey::attachment(ATTACHMENT)));
}

/// M20: the pod is told of where the driver asks for it.
#[test]
fn a_driver_is_told_of_the_pod_if_it_asks() {
    let mut run = run();
    let spec = json!({"attachRequired": false, "podInfoOnMount": true});
    run.list(Kind::CsiDriver, vec![driver(spec)]);
    let pod = with(
        pod("a", &["cqh"]),
        json!({"spec": {"serviceAccountName": "web"}}),
    );
    let staging = staging_of(run.see(Kind::Pod, pod));
    assert_eq!(staging.csi.clone().unwrap().pod, None, "it is for all pods");
    let told = mount_of(run.report(staged(staging)))
        .csi
        .unwrap()
        .pod
        .unwrap();
    assert_eq!((told.name.as_str(), &*told.namespace), ("a", "default"));
    assert_eq!(
        (&*told.uid.to_string(), &*told.service_account),
        ("a-uid", "web")
    );
}

/// M37: whose files are given to the pod's group is the driver's to say.
#[test]
fn the_group_is_given_files_as_the_driver_says() {
    let group = |policy: Option<&str>, change: Value| {
        let mut run = run();
        run.see(Kind::Volume, version(with(disk(), change), 9));
        let spec = json!({"attachRequired": false, "fsGroupPolicy": policy});
        run.list(Kind::CsiDriver, vec![driver(spec)]);
        let group = json!({"spec": {"securityContext": {"fsGroup": 7}}});
        let staging = staging_of(run.see(Kind::Pod, with(pod("a", &["cqh"]), group)));
        let mount = mount_of(run.report(staged(staging)));
        // The driver is told in any case; one that can do it needs no more.
        let told: ForDriver = *mount.csi.unwrap();
        assert_eq!(told.gid, Some(7));
        mount.group.map(|group| (group.gid, group.give))
    };
    let given = Some((7, Give::Always));
    let no_type = json!({"spec": {"csi": {"fsType": null}}});
    let shared = json!({"spec": {"accessModes": ["ReadWriteMany"]}});
    assert_eq!(group(None, json!({})), given);
    assert_eq!(group(None, no_type.clone()), None);
    assert_eq!(group(None, shared.clone()), None);
    assert_eq!(group(Some("File"), no_type), given);
    assert_eq!(group(Some("File"), shared), given);
    assert_eq!(group(Some("None"), json!({})), None);
}

/// What the agent cannot do for a driver is told, not tried.
#[test]
fn what_is_not_supported_is_told() {
    let told = |change: Value, spec: Value| {
        let mut run = run();
        run.see(Kind::Volume, version(with(disk(), change.clone()), 9));
        let mode = change["spec"]
            .get("volumeMode")
            .cloned()
            .unwrap_or_default();
        let claim = with(claim(), json!({"spec": {"volumeMode": mode}}));
        run.see(Kind::Claim, version(claim, 10));
        run.list(Kind::CsiDriver, vec![driver(spec)]);
        let effects = run.see(Kind::Pod, pod("a", &["cqh"]));
        assert_eq!(tasks(effects.clone()), []);
        events(&effects).join("; ")
    };
    let secret = json!({"spec": {"csi": {"nodeStageSecretRef": {"name": "s", "namespace": "n"}}}});
    assert!(told(secret, json!({})).contains("nodeStageSecretRef"));
    let raw = json!({"spec": {"volumeMode": "Block"}});
    assert!(told(raw, json!({})).contains("has no block devices"));
    let ephemeral = json!({"volumeLifecycleModes": ["Ephemeral"]});
    assert!(told(json!({}), ephemeral).contains("not supported by driver disk.example.com"));
}

/// M31: of a volume that an earlier agent left, the node says whether it is attached.
#[test]
fn what_was_left_stays_in_use_while_the_node_says_so() {
    for listed in [true, false] {
        let mut run = Run::new(bitts_agent::Agent::new("node-1".into(), false));
        let names: &[&str] = if listed { &[NAME] } else { &[] };
        run.list(Kind::Node, vec![node_with(2, names, names)]);
        run.list(Kind::Pod, vec![pod("a", &["cqh"])]);
        let stage = StageKey {
            plugin: bitts_agent::Plugin::Csi,
            name: "disk.example.com^vol-1".into(),
        };
        let key = bitts_agent::MountKey {
            plugin: bitts_agent::Plugin::Csi,
            ..key("a")
        };
        let effects = run.report(Report::Scanned {
            volumes: vec![Leftover {
                key,
                stage: Some(stage.clone()),
            }],
            stages: vec![stage],
            empty: Vec::new(),
        });
        // Neither is it taken from the list, nor put there: the pod still has it.
        assert_eq!(write_of(&effects), None, "{listed}");
        assert_eq!(tasks(effects), [], "the claim is not known yet");
    }
}
