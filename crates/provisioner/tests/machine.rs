//! The contract of an external provisioner, row by row (P12, D10).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::machine::{Effect, Input};
use bitts_api::{Kind, ObjectKey};
use bitts_provisioner::{Alarm, Errand, Task};
use serde_json::{Value, json};
use support::{Fate, Step, World, claim, class, exists};

fn world_with(claim: Value) -> World {
    let mut world = World::new();
    world.put(Kind::Claim, claim);
    world.start();
    world
}

fn c() -> ObjectKey {
    ObjectKey::claim("default", "c")
}

fn v() -> ObjectKey {
    ObjectKey::volume("pvc-u1")
}

/// A volume that is made, bound and used.
fn bound(class: &str) -> World {
    let mut world = world_with(claim("c", "u1", class));
    world.run();
    world.bind();
    world.run();
    world.clear();
    world
}

fn release(world: &mut World) {
    world.delete(&c());
    world.bind();
}

/// P12, P8: everything that the contract asks of the volume's object, and the stock words.
#[test]
fn a_claim_gets_a_volume() {
    let mut world = world_with(claim("c", "u1", "fast"));
    world.run();
    let volume = &world.objects[&v()];
    let path = world.root().join("default-c-pvc-u1");
    let annotations = &volume["metadata"]["annotations"];
    assert_eq!(
        annotations["pv.kubernetes.io/provisioned-by"],
        "local.bitts.dev"
    );
    assert_eq!(annotations["bitts.dev/provisioned-on"], "n1");
    assert_eq!(
        volume["metadata"]["finalizers"],
        json!(["external-provisioner.volume.kubernetes.io/finalizer"])
    );
    assert_eq!(
        volume["spec"],
        json!({
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "storageClassName": "fast",
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": "default", "name": "c", "uid": "u1"},
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["host-1"]}]}]}},
        })
    );
    assert!(path.is_dir());
    let steps = [
        "scan",
        "make pvc-u1",
        "record-volume pvc-u1",
        "confirm pvc-u1",
    ];
    assert_eq!(world.steps, steps);
    assert_eq!(
        world.told(),
        ["Normal ProvisioningSucceeded: Successfully provisioned volume pvc-u1"]
    );
}

/// What is there at once needs no word before; of what takes longer its user is told, once.
#[test]
fn a_volume_that_takes_long_is_announced() {
    let mut world = world_with(claim("c", "u1", "fast"));
    // The scan; then what makes the volume is under way.
    while world.steps.is_empty() || !world.queue.iter().any(is_making) {
        if world.queue.is_empty() {
            assert!(world.tell());
        } else {
            world.execute(0, Fate::Done);
        }
    }
    assert!(
        world
            .timers
            .iter()
            .any(|(_, alarm)| *alarm == Alarm::Announce)
    );
    world.feed(Input::Alarm(Alarm::Announce));
    assert!(world.told().is_empty(), "{:?}", world.told());
    world.feed(Input::Alarm(Alarm::Announce));
    world.feed(Input::Alarm(Alarm::Announce));
    let announced =
        "Normal Provisioning: External provisioner is provisioning volume for claim \"default/c\"";
    assert_eq!(world.told(), [announced]);
    world.run();
    assert_eq!(
        world.told(),
        [
            announced,
            "Normal ProvisioningSucceeded: Successfully provisioned volume pvc-u1"
        ]
    );
}

fn is_making(step: &Step) -> bool {
    matches!(
        step,
        Effect::Task(Errand {
            task: Task::Make(_),
            ..
        })
    )
}

/// P12: nothing is made for a claim that is not ours, not placed here, bound, or going.
#[test]
fn other_claims_are_left_alone() {
    let changes = [
        json!({"metadata": {"annotations": {"volume.kubernetes.io/storage-provisioner": "else.where"}}}),
        json!({"metadata": {"annotations": {"volume.kubernetes.io/storage-provisioner": null}}}),
        json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n2"}}}),
        json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": null}}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        json!({"spec": {"volumeName": "v"}}),
        json!({"spec": {"storageClassName": null}}),
    ];
    for change in changes {
        let mut claim = claim("c", "u1", "fast");
        merge(&mut claim, &change);
        let mut world = world_with(claim);
        world.run();
        assert_eq!(world.steps, ["scan"], "{change}");
        assert!(world.events.is_empty(), "{change}");
    }
}

/// N4: the annotation of before is as good.
#[test]
fn the_beta_annotation_counts() {
    let mut claim = claim("c", "u1", "fast");
    merge(
        &mut claim,
        &json!({"metadata": {"annotations": {
            "volume.kubernetes.io/storage-provisioner": null,
            "volume.beta.kubernetes.io/storage-provisioner": "local.bitts.dev"}}}),
    );
    let mut world = world_with(claim);
    world.run();
    assert!(world.objects.contains_key(&v()));
}

/// D10: data, finalizer and object go once the claim is gone, and in that order.
#[test]
fn a_released_volume_is_deleted() {
    let mut world = bound("fast");
    let path = world.root().join("default-c-pvc-u1");
    std::fs::write(path.join("data"), "x").unwrap();
    release(&mut world);
    world.run();
    let steps = [
        "mark-deleting pvc-u1",
        "remove pvc-u1",
        "delete-volume pvc-u1",
        "let-volume-go pvc-u1",
    ];
    assert_eq!(world.steps, steps);
    assert!(!world.objects.contains_key(&v()));
    assert!(!exists(&path) && world.records().is_empty());
    assert_eq!(world.trash(), ["pvc-u1"]);
    world.sweep();
    assert!(world.trash().is_empty());
    assert!(world.events.is_empty(), "{:?}", world.told());
}

/// D10, design 3.6: a claim that lives is seen live, whatever the phase says.
#[test]
fn a_volume_whose_claim_lives_is_spared() {
    let mut world = bound("fast");
    world.edit(&v(), &json!({"status": {"phase": "Released"}}));
    world.settle();
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    assert_eq!(world.directories(), ["default-c-pvc-u1"]);
}

/// D10: the policy decides at the time, and Retain keeps everything; the finalizer follows it.
#[test]
fn retain_keeps_the_data() {
    let mut world = bound("keep");
    assert!(world.objects[&v()]["metadata"]["finalizers"].is_null());
    release(&mut world);
    world.settle();
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    world.edit(
        &v(),
        &json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
    );
    world.settle();
    assert!(!world.objects.contains_key(&v()));
    assert!(world.directories().is_empty());

    let mut world = bound("fast");
    world.edit(
        &v(),
        &json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
    );
    world.settle();
    assert_eq!(world.steps, ["let-volume-go pvc-u1"]);
    world.edit(
        &v(),
        &json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
    );
    world.settle();
    assert_eq!(world.steps, ["let-volume-go pvc-u1", "hold-volume pvc-u1"]);
}

/// D11: a volume that is deleted first keeps its data until its claim is gone.
#[test]
fn a_volume_deleted_before_its_claim() {
    let mut world = bound("fast");
    world.delete(&v());
    world.settle();
    assert_eq!(world.directories().len(), 1);
    release(&mut world);
    world.settle();
    assert!(!world.objects.contains_key(&v()));
    assert!(world.directories().is_empty());
}

/// P12: a claim that goes while its volume is made leaves nothing behind.
#[test]
fn a_claim_deleted_while_its_volume_is_made() {
    for made in [false, true] {
        let mut world = world_with(claim("c", "u1", "fast"));
        world.execute(0, Fate::Done);
        if made {
            world.execute(0, Fate::Done);
            assert_eq!(world.directories().len(), 1);
            // What is on its way to the API is dropped by a death.
            world.delete(&c());
            world.start();
        } else {
            world.delete(&c());
            while world.tell() {}
        }
        world.settle();
        assert!(world.directories().is_empty() && world.records().is_empty());
        assert!(!world.objects.contains_key(&v()));
    }
}

/// P12: what this node cannot have is scheduled again, and nothing stays of it.
#[test]
fn no_room_here_is_room_elsewhere() {
    let mut big = claim("c", "u1", "fast");
    big["spec"]["resources"]["requests"]["storage"] = json!("4Ei");
    let mut world = world_with(big);
    world.run();
    let annotations = &world.objects[&c()]["metadata"]["annotations"];
    assert!(annotations["volume.kubernetes.io/selected-node"].is_null());
    assert!(world.directories().is_empty() && world.records().is_empty());
    let told = world.told().join("\n");
    assert!(
        told.contains("Warning ProvisioningFailed") && told.contains("bytes free"),
        "{told}"
    );
}

/// P12: allowedTopologies that leave the node out.
#[test]
fn a_node_that_the_class_leaves_out() {
    let topologies = |zone: &str| json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": [zone]}]}]});
    let mut world = World::new();
    world.put(Kind::StorageClass, class("there", topologies("b")));
    world.put(Kind::StorageClass, class("here", topologies("a")));
    world.put(Kind::Claim, claim("c", "u1", "there"));
    world.put(Kind::Claim, claim("d", "u2", "here"));
    world.start();
    world.run();
    let annotations = &world.objects[&c()]["metadata"]["annotations"];
    assert!(annotations["volume.kubernetes.io/selected-node"].is_null());
    assert_eq!(world.directories(), ["default-d-pvc-u2"]);
}

/// P12: the other node was faster. What was made here goes, and one volume is there.
#[test]
fn another_node_took_the_claim() {
    let mut world = world_with(claim("c", "u1", "fast"));
    world.execute(0, Fate::Done);
    world.execute(0, Fate::Done);
    let mut theirs = world.queue.front().cloned().unwrap();
    let bitts_api::machine::Effect::Create(create) = &mut theirs else {
        panic!("{theirs:?}");
    };
    let mut body = create.body.clone();
    body["metadata"]["name"] = json!("pvc-u1");
    body["metadata"]["uid"] = json!("theirs");
    body["metadata"]["annotations"]["bitts.dev/provisioned-on"] = json!("n2");
    world.put(Kind::Volume, body);
    world.run();
    assert!(world.directories().is_empty() && world.records().is_empty());
    assert_eq!(world.objects[&v()]["metadata"]["uid"], "theirs");
}

/// Every way in which a class or claim can be wrong is told, once, and is over when it is put right.
#[test]
fn what_is_wrong_is_told_once() {
    let with = |parameters: Value| json!({ "parameters": parameters });
    let cases = [
        (
            with(json!({"onDelet": "trash"})),
            json!({}),
            "did you mean \"onDelete\"?",
        ),
        (
            with(json!({"patternPath": "x"})),
            json!({}),
            "unknown parameter \"patternPath\"",
        ),
        (
            with(json!({"server": "nas"})),
            json!({}),
            "there are gid, mode, onDelete",
        ),
        (with(json!({"mode": "0999"})), json!({}), "octal digits"),
        (with(json!({"mode": "0070"})), json!({}), "lets anybody in"),
        (with(json!({"uid": "-1"})), json!({}), "no number of a user"),
        (
            with(json!({"onDelete": "burn"})),
            json!({}),
            "none of delete, retain and trash",
        ),
        (
            with(json!({"quota": "hard"})),
            json!({}),
            "none of none, soft and required",
        ),
        (
            with(json!({"onDelete": "trash", "trashFor": "soon"})),
            json!({}),
            "no time of a minute or more",
        ),
        (
            with(json!({"trashFor": "30d"})),
            json!({}),
            "only with onDelete: trash",
        ),
        (
            with(json!({"pathPattern": "${pvc.name}"})),
            json!({}),
            "no two claims may share",
        ),
        (
            with(json!({"pathPattern": "../${pv.name}"})),
            json!({}),
            "cannot be part of the path",
        ),
        (
            with(json!({"pathPattern": "${pvc.labels.team}-${pv.name}"})),
            json!({}),
            "no label team",
        ),
        (
            json!({"mountOptions": ["rw"]}),
            json!({}),
            "not mounted with options",
        ),
        (
            json!({"mountOptions": ["ro"]}),
            json!({}),
            "not mounted with options",
        ),
        (json!({"provisioner": "other"}), json!({}), "by now"),
        (
            json!({}),
            json!({"spec": {"storageClassName": "gone"}}),
            "does not exist",
        ),
        (
            json!({}),
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
            "selector",
        ),
        (
            json!({}),
            json!({"spec": {"dataSource": {"kind": "VolumeSnapshot", "name": "s"}}}),
            "dataSource",
        ),
        (json!({}), json!({"spec": {"volumeMode": "Block"}}), "Block"),
        (
            json!({}),
            json!({"spec": {"resources": {"requests": {"storage": "0"}}}}),
            "no size",
        ),
        (
            json!({}),
            json!({"spec": {"accessModes": ["Sometimes"]}}),
            "access mode",
        ),
    ];
    for (of_class, of_claim, expected) in cases {
        let mut world = World::new();
        let wrong = world.put(Kind::StorageClass, class("fast", of_class));
        let mut asked = claim("c", "u1", "fast");
        merge(&mut asked, &of_claim);
        world.put(Kind::Claim, asked);
        world.start();
        world.settle();
        world.edit(&c(), &json!({"metadata": {"labels": {"edit": "1"}}}));
        world.settle();
        let told = world.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("Warning ProvisioningFailed: failed to provision volume"),
            "{told:?}"
        );
        assert!(told[0].contains(expected), "{expected}: {told:?}");
        assert!(world.directories().is_empty() && world.records().is_empty());
        world.put(wrong.kind, class("fast", json!({})));
        let mut right = claim("c", "u1", "fast");
        right["metadata"]["labels"] = json!({"team": "a"});
        world.put(Kind::Claim, right);
        world.settle();
        assert!(world.objects.contains_key(&v()), "{expected}");
    }
}

/// The record says how long, whatever becomes of the class.
#[test]
fn a_class_says_how_long_data_stays_in_the_trash() {
    for (told, seconds) in [("90m", 5_400), ("30d", 2_592_000), ("1d 12h", 129_600)] {
        let mut world = World::new();
        let parameters = json!({"onDelete": "trash", "trashFor": told});
        world.put(
            Kind::StorageClass,
            class("fast", json!({"parameters": parameters})),
        );
        world.put(Kind::Claim, claim("c", "u1", "fast"));
        world.start();
        world.run();
        let record = world.root().join(".bitts/volumes/pvc-u1.json");
        let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        assert_eq!(record["trashFor"], seconds, "{record}");
        assert_eq!(record["class"], "fast");
    }
}

/// What is wrong with a class is told on it when it is seen, claims or not; again only when it changes.
#[test]
fn a_wrong_class_is_told_on_the_class() {
    let mut world = World::new();
    let wrong = |name: &str| class("wrong", json!({"parameters": {name: "x"}}));
    let key = world.put(Kind::StorageClass, wrong("onDelet"));
    world.put(
        Kind::StorageClass,
        class(
            "foreign",
            json!({"provisioner": "other",
        "parameters": {"any": "thing"}}),
        ),
    );
    world.start();
    world.settle();
    world.edit(&key, &json!({"metadata": {"labels": {"edit": "1"}}}));
    world.settle();
    let told = world.told_of_classes();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("wrong BittsClassInvalid: no volumes are made for it"));
    assert!(told[0].contains("did you mean \"onDelete\"?"), "{told:?}");
    world.put(Kind::StorageClass, wrong("colour"));
    world.settle();
    assert_eq!(world.told_of_classes().len(), 2);
    world.put(Kind::StorageClass, class("wrong", json!({})));
    world.settle();
    world.put(Kind::StorageClass, wrong("colour"));
    world.settle();
    assert_eq!(world.told_of_classes().len(), 3, "it was right meanwhile");
}

/// Amendment 37: nobody places a claim that is bound at once on a node, so every node says why it waits.
#[test]
fn an_immediate_class_of_nodes_is_told_on_its_claims() {
    let mut world = World::new();
    let at_once = json!({"volumeBindingMode": "Immediate"});
    let wrong = world.put(Kind::StorageClass, class("fast", at_once));
    let mut unplaced = claim("c", "u1", "fast");
    let annotations = unplaced["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.remove("volume.kubernetes.io/selected-node");
    world.put(Kind::Claim, unplaced);
    let mut elsewhere = claim("d", "u2", "fast");
    elsewhere["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!("n2");
    world.put(Kind::Claim, elsewhere);
    world.start();
    world.settle();
    world.edit(&c(), &json!({"metadata": {"labels": {"edit": "1"}}}));
    world.settle();
    let of_claims = world.events.iter().filter(|e| e.about.kind == Kind::Claim);
    let told: Vec<_> = of_claims
        .map(|e| (e.about.name.as_str(), e.reason))
        .collect();
    assert_eq!(
        told,
        [("c", "BittsClassInvalid"), ("d", "BittsClassInvalid")]
    );
    assert!(world.directories().is_empty());
    world.put(wrong.kind, class("fast", json!({})));
    world.put(Kind::Claim, claim("c", "u1", "fast"));
    world.settle();
    assert_eq!(world.directories(), ["default-c-pvc-u1"]);
}

/// Hazard of the peers: the class may be gone when its volumes go.
#[test]
fn a_class_deleted_while_its_volumes_live_holds_up_nothing() {
    let mut world = bound("fast");
    world.delete(&ObjectKey::storage_class(&"fast".into()));
    release(&mut world);
    world.settle();
    assert!(world.directories().is_empty());
    assert!(!world.objects.contains_key(&v()));
}

/// Failures back off, each time longer, and are told once; an edit is looked at at once.
#[test]
fn failures_back_off() {
    let mut world = world_with(claim("c", "u1", "fast"));
    world.execute(0, Fate::Done);
    let mut delays = Vec::new();
    for _ in 0..12 {
        world.execute(0, Fate::Lost);
        let (after, alarm) = world.timers.pop().unwrap();
        delays.push(after.as_secs());
        assert!(world.queue.is_empty());
        world.feed(bitts_api::machine::Input::Alarm(alarm));
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    // Who knows why it is not there yet is not told that it takes long.
    for _ in 0..2 {
        world.feed(Input::Alarm(Alarm::Announce));
    }
    assert_eq!(world.told().len(), 1, "{:?}", world.told());
    world.execute(0, Fate::Lost);
    world.edit(&c(), &json!({"metadata": {"labels": {"edit": "1"}}}));
    world.run();
    assert!(world.objects.contains_key(&v()));
}

/// D10: what says that the data shall stay, or that it is another's, is told on the volume.
#[test]
fn data_that_must_stay_stays() {
    let mut world = bound("fast");
    let path = world.root().join("default-c-pvc-u1");
    std::fs::write(path.join(".bitts-protected"), "").unwrap();
    release(&mut world);
    world.settle();
    assert!(path.is_dir());
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("Warning VolumeFailedDelete"),
        "{told:?}"
    );
    assert!(told[0].contains(".bitts-protected"), "{told:?}");
    std::fs::remove_file(path.join(".bitts-protected")).unwrap();
    world.edit(&v(), &json!({"metadata": {"labels": {"edit": "1"}}}));
    world.settle();
    assert!(!exists(&path));
}

/// Somebody edits a volume's object so that it leads to another's data, or to the whole disk.
#[test]
fn an_edited_volume_takes_nothing_of_others() {
    let edits = [
        json!({"spec": {"local": {"path": "/"}}}),
        json!({"spec": {"local": {"path": "OTHER"}}}),
        json!({"spec": {"local": {"path": "ROOT/../disk/default-d-pvc-u2"}}}),
        json!({"spec": {"local": null, "hostPath": {"path": "OTHER"}}}),
        json!({"spec": {"claimRef": {"name": "d2", "uid": "u9"}}}),
        json!({"spec": {"nodeAffinity": null}, "metadata": {"annotations": {"bitts.dev/provisioned-on": "n2"}}}),
    ];
    for edit in edits {
        let mut world = World::new();
        world.put(Kind::Claim, claim("c", "u1", "fast"));
        world.put(Kind::Claim, claim("d", "u2", "fast"));
        world.start();
        world.run();
        world.bind();
        world.run();
        let root = world.root();
        let other = root.join("default-d-pvc-u2");
        std::fs::write(other.join("data"), "x").unwrap();
        let text = edit.to_string();
        let text = text.replace("OTHER", other.to_str().unwrap());
        let text = text.replace("ROOT", root.to_str().unwrap());
        world.edit(&v(), &serde_json::from_str(&text).unwrap());
        release(&mut world);
        world.settle();
        assert!(other.join("data").is_file(), "{edit}");
        assert!(root.join("default-c-pvc-u1").is_dir(), "{edit}");
    }
}

/// B2: nothing is decided before everything was listed and the disks were scanned.
#[test]
fn nothing_is_decided_early() {
    let mut world = world_with(claim("c", "u1", "fast"));
    assert_eq!(world.queue.len(), 1, "{:?}", world.queue);
    world.execute(0, Fate::Done);
    assert_eq!(world.queue.len(), 1);
}

fn merge(into: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().unwrap() {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(key)),
            Value::Object(_) if into[key].is_object() => merge(&mut into[key], value),
            _ => into[key] = value.clone(),
        }
    }
}

/// A claim that no file system of the node holds to its size is told what would help, and another node
/// may have one that does. What the class says is in the record.
#[test]
fn a_size_that_nothing_holds_is_refused() {
    let mut world = World::new();
    let held = json!({"parameters": {"quota": "required"}});
    let soft = json!({"parameters": {"quota": "soft"}});
    world.put(Kind::StorageClass, class("held", held));
    world.put(Kind::StorageClass, class("soft", soft));
    world.start();
    world.run();
    if bitts_mount::quota::check(&bitts_mount::dir::Dir::open(&world.root()).unwrap()).is_ok() {
        return; // The tests in user-mode Linux show the rest.
    }
    world.put(Kind::Claim, claim("c", "u1", "held"));
    world.run();
    let told = world.told().join("\n");
    assert!(
        told.contains("Warning ProvisioningFailed") && told.contains("prjquota"),
        "{told}"
    );
    let steps = ["scan", "reschedule-claim default/c", "discard pvc-u1"];
    assert_eq!(world.steps, steps);
    assert!(world.directories().is_empty() && world.records().is_empty());
    world.put(Kind::Claim, claim("s", "u2", "soft"));
    world.settle();
    assert_eq!(world.directories(), ["default-s-pvc-u2"]);
    let record = world.root().join(".bitts/volumes/pvc-u2.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(record["quota"], "soft");
}

/// A claim that comes waits for no more of what nobody waits for than that.
#[test]
fn confirmations_come_some_at_a_time() {
    let mut world = world_with(claim("c", "u1", "fast"));
    for n in 2..=100 {
        world.put(
            Kind::Claim,
            claim(&format!("c{n}"), &format!("u{n}"), "fast"),
        );
    }
    world.advance();
    assert!(world.confirm(), "put off: others were made meanwhile");
    for confirmed in [64, 100] {
        assert!(world.confirm());
        world.advance();
        let steps = world.steps.iter();
        assert_eq!(
            steps.filter(|step| step.starts_with("confirm ")).count(),
            confirmed
        );
    }
    assert!(!world.confirm());
}

/// That the API has a volume is noted once no others are made any more, but in the end it is.
#[test]
fn what_nobody_waits_for_is_put_off_while_volumes_are_made() {
    let mut world = world_with(claim("c", "u1", "fast"));
    world.advance();
    for n in 2..30 {
        let noted = world.steps.iter().any(|step| step == "confirm pvc-u1");
        assert_eq!(noted, n > 17, "{n}");
        let next = claim(&format!("c{n}"), &format!("u{n}"), "fast");
        world.put(Kind::Claim, next);
        world.advance();
        assert!(world.confirm());
        world.advance();
    }
    world.run();
    let confirmed = |step: &&String| step.starts_with("confirm ");
    assert_eq!(world.steps.iter().filter(confirmed).count(), 29);
}
