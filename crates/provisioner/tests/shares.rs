//! The provisioner of NFS shares, row by row (P12, D10): where it differs from that of a node.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{Fate, World, exists, share_claim, share_class};

fn world_with(class: Value) -> World {
    let mut world = World::of_shares();
    world.put(Kind::StorageClass, class);
    world.put(Kind::Claim, share_claim("c", "u1", "nfs"));
    world.start();
    world
}

fn nfs(more: Value) -> Value {
    share_class("nfs", "nas", "/export", more)
}

fn c() -> ObjectKey {
    ObjectKey::claim("default", "c")
}

fn v() -> ObjectKey {
    ObjectKey::volume("pvc-u1")
}

fn bound(class: Value) -> World {
    let mut world = world_with(class);
    world.run();
    world.bind();
    world.run();
    world.clear();
    world
}

/// P12: all that the contract asks of the volume's object, and the options that it is mounted with.
#[test]
fn a_claim_gets_a_volume_on_the_share() {
    let mut world = world_with(nfs(json!({"mountOptions": ["vers=4.2", "hard"]})));
    world.run();
    let volume = &world.objects[&v()];
    let annotations = &volume["metadata"]["annotations"];
    assert_eq!(
        annotations["pv.kubernetes.io/provisioned-by"],
        "nfs.bitts.dev"
    );
    assert_eq!(annotations["bitts.dev/provisioned-on"], "nas:/export");
    assert_eq!(
        volume["metadata"]["finalizers"],
        json!(["external-provisioner.volume.kubernetes.io/finalizer"])
    );
    assert_eq!(
        volume["spec"],
        json!({
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "volumeMode": "Filesystem",
            "storageClassName": "nfs",
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": "default", "name": "c", "uid": "u1"},
            "nfs": {"server": "nas", "path": "/export/default-c-pvc-u1"},
            "mountOptions": ["vers=4.2", "hard"],
        })
    );
    assert!(world.share("nas", "/export/default-c-pvc-u1").is_dir());
    let steps = [
        "scan nas:/export",
        "make pvc-u1",
        "record-volume pvc-u1",
        "confirm pvc-u1",
    ];
    assert_eq!(world.steps, steps);
}

/// Mounted by a CSI driver, made and deleted as any other.
#[test]
fn a_claim_gets_a_volume_for_a_csi_driver() {
    let by = json!({"mountOptions": ["vers=4.2"], "parameters": {"csiDriver": "nfs.csi.k8s.io"}});
    let mut world = bound(nfs(by));
    let spec = &world.objects[&v()]["spec"];
    assert_eq!(
        spec["csi"],
        json!({"driver": "nfs.csi.k8s.io", "volumeHandle": "pvc-u1", "volumeAttributes":
            {"server": "nas", "share": "/export/default-c-pvc-u1"}})
    );
    assert_eq!(
        (&spec["nfs"], &spec["mountOptions"]),
        (&Value::Null, &json!(["vers=4.2"]))
    );
    let directory = world.share("nas", "/export/default-c-pvc-u1");
    assert!(directory.is_dir());
    world.delete(&c());
    world.bind();
    world.settle();
    assert!(!directory.exists() && !world.objects.contains_key(&v()));
    let wrong = nfs(json!({"parameters": {"csiDriver": "a/b"}}));
    let world = bound(wrong);
    assert!(!world.objects.contains_key(&v()));
}

/// P12: a class that waits for the first pod waits until that was placed; then the node is of no matter.
#[test]
fn a_claim_that_waits_for_its_pod() {
    let late = nfs(json!({"volumeBindingMode": "WaitForFirstConsumer"}));
    let mut world = world_with(late);
    world.settle();
    assert_eq!(world.steps, ["scan nas:/export"]);
    assert!(world.events.is_empty(), "{:?}", world.told());
    let placed = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n7"}}});
    world.edit(&c(), &placed);
    world.settle();
    assert!(world.objects.contains_key(&v()));
    assert!(world.objects[&v()]["spec"]["nodeAffinity"].is_null());
}

/// D10: also where the class is gone: the volume says which share it is on, and how that is mounted.
#[test]
fn a_released_volume_is_deleted() {
    let mut world = bound(nfs(json!({"mountOptions": ["vers=4.1"]})));
    let path = world.share("nas", "/export/default-c-pvc-u1");
    std::fs::write(path.join("data"), "x").unwrap();
    world.delete(&ObjectKey::storage_class(&"nfs".into()));
    world.run();
    world.start();
    world.delete(&c());
    world.bind();
    world.clear();
    world.run();
    let steps = [
        "scan nas:/export",
        "mark-deleting pvc-u1",
        "remove pvc-u1",
        "delete-volume pvc-u1",
        "let-volume-go pvc-u1",
    ];
    assert_eq!(world.steps, steps);
    assert!(!world.objects.contains_key(&v()) && !exists(&path));
    assert!(exists(
        &world.share("nas", "/export/.bitts/trash/pvc-u1/data/data")
    ));
}

/// A server that does not answer is told on the claims that wait, and holds up no other; when it is
/// back all is made.
#[test]
fn a_dead_server_is_told_and_holds_up_no_other() {
    let mut world = World::of_shares();
    world.put(
        Kind::StorageClass,
        share_class("dead", "dead", "/a", json!({})),
    );
    world.put(
        Kind::StorageClass,
        share_class("nfs", "nas", "/a", json!({})),
    );
    for (name, uid, class) in [("c", "u1", "dead"), ("d", "u2", "nfs"), ("e", "u3", "dead")] {
        world.put(Kind::Claim, share_claim(name, uid, class));
    }
    world.down.insert("dead".into());
    world.start();
    world.settle();
    assert_eq!(world.of_kind(Kind::Volume), [ObjectKey::volume("pvc-u2")]);
    let told = world.told();
    let warned: Vec<_> = told.iter().filter(|t| t.starts_with("Warning")).collect();
    assert_eq!(warned.len(), 2, "once for each that waits: {told:?}");
    let words = "Warning ProvisioningFailed: failed to provision volume with StorageClass \"dead\": \
                 dead:/a: it does not answer";
    assert!(warned.iter().all(|told| *told == words), "{told:?}");
    // A claim that comes now is told at once.
    world.put(Kind::Claim, share_claim("f", "u4", "dead"));
    world.run();
    assert_eq!(world.told().last().unwrap(), words);
    let of_class = "dead BittsServerUnreachable: no volumes are made for it while this is so: dead:/a: it \
                    does not answer";
    assert_eq!(world.told_of_classes(), [of_class]);
    world.down.clear();
    world.settle();
    assert_eq!(world.of_kind(Kind::Volume).len(), 4);
    world.down.insert("dead".into());
    world.put(Kind::Claim, share_claim("g", "u5", "dead"));
    world.settle();
    assert_eq!(world.told_of_classes().len(), 2, "it was well meanwhile");
}

/// A server that dies in the middle: the volume waits for it, and so does the deletion of another.
#[test]
fn a_server_that_dies_while_it_is_worked_on() {
    let mut world = bound(nfs(json!({})));
    world.down.insert("nas".into());
    world.put(Kind::Claim, share_claim("d", "u2", "nfs"));
    world.delete(&c());
    world.bind();
    world.settle();
    let told = world.told();
    let about = |start: &str| told.iter().filter(|t| t.starts_with(start)).count();
    assert_eq!(about("Warning ProvisioningFailed"), 1, "{told:?}");
    assert_eq!(about("Warning VolumeFailedDelete"), 1, "{told:?}");
    assert!(world.objects.contains_key(&v()));
    world.down.clear();
    world.settle();
    assert_eq!(world.of_kind(Kind::Volume), [ObjectKey::volume("pvc-u2")]);
    assert!(!exists(&world.share("nas", "/export/default-c-pvc-u1")));
}

/// What a process that died began is found on the share of every class, and undone where no claim is.
#[test]
fn what_was_begun_is_found_again() {
    let mut world = world_with(nfs(json!({})));
    world.execute(0, Fate::Done);
    world.execute(0, Fate::DeathAfter);
    let path = world.share("nas", "/export/default-c-pvc-u1");
    assert!(path.is_dir());
    world.delete(&c());
    world.start();
    world.settle();
    assert!(!exists(&path) && !world.objects.contains_key(&v()));
    assert!(!exists(
        &world.share("nas", "/export/.bitts/volumes/pvc-u1.json")
    ));
}

/// The class was made anew with another share while its volume was made: one volume, one directory.
#[test]
fn a_class_that_moved() {
    let mut world = world_with(nfs(json!({})));
    world.execute(0, Fate::Done);
    world.execute(0, Fate::DeathAfter);
    world.put(
        Kind::StorageClass,
        share_class("old", "nas", "/export", json!({})),
    );
    world.put(
        Kind::StorageClass,
        share_class("nfs", "other", "/b", json!({})),
    );
    world.start();
    world.settle();
    assert_eq!(
        world.objects[&v()]["spec"]["nfs"],
        json!({"server": "other", "path": "/b/default-c-pvc-u1"})
    );
    assert!(!exists(&world.share("nas", "/export/default-c-pvc-u1")));
    assert!(world.share("other", "/b/default-c-pvc-u1").is_dir());
}

/// Somebody edits a volume's object so that it leads to another's data, or out of its share.
#[test]
fn an_edited_volume_takes_nothing_of_others() {
    let on = |on: &str| json!({"metadata": {"annotations": {"bitts.dev/provisioned-on": on}}});
    let at = |server: &str, path: &str| json!({"spec": {"nfs": {"server": server, "path": path}}});
    let edits = [
        at("nas", "/export/default-d-pvc-u2"),
        at("nas", "/export"),
        at("nas", "/export/"),
        at("nas", "/export/../export/default-d-pvc-u2"),
        at("nas", "/exported/default-d-pvc-u2"),
        at("nas", "/"),
        at("other", "/export/default-c-pvc-u1"),
        on("nas:/"),
        on("nas:/export/default-c-pvc-u1"),
        on("other:/export"),
        on(""),
        json!({"spec": {"nfs": null, "hostPath": {"path": "/"}}}),
        json!({"spec": {"claimRef": {"name": "d2", "uid": "u9"}}}),
        json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "else.where"}}}),
    ];
    for edit in edits {
        let mut world = World::of_shares();
        world.put(Kind::StorageClass, nfs(json!({})));
        world.put(Kind::Claim, share_claim("c", "u1", "nfs"));
        world.put(Kind::Claim, share_claim("d", "u2", "nfs"));
        world.start();
        world.run();
        world.bind();
        world.run();
        let other = world.share("nas", "/export/default-d-pvc-u2");
        std::fs::write(other.join("data"), "x").unwrap();
        world.edit(&v(), &edit);
        world.delete(&c());
        world.bind();
        world.settle();
        assert!(other.join("data").is_file(), "{edit}");
        let own = world.share("nas", "/export/default-c-pvc-u1");
        assert!(own.is_dir(), "{edit}");
        assert!(world.objects.contains_key(&v()), "{edit}");
    }
}

/// Every way in which a class can be wrong is told, once, and over when it is put right.
#[test]
fn what_is_wrong_is_told_once() {
    let with = |parameters: Value| json!({ "parameters": parameters });
    let cases = [
        (with(json!({"server": null})), "parameter server is missing"),
        (with(json!({"share": null})), "parameter share is missing"),
        (
            with(json!({"shares": "/a", "share": null})),
            "did you mean \"share\"?",
        ),
        (
            with(json!({"nothing": ""})),
            "there are gid, mode, onDelete",
        ),
        (with(json!({"server": "nas:/a"})), "no name or address"),
        (with(json!({"server": "-o"})), "no name or address"),
        (with(json!({"share": "export"})), "no absolute path"),
        (with(json!({"share": "/a/../b"})), "no absolute path"),
        (with(json!({"mode": "8"})), "octal digits"),
        (
            with(json!({"pathPattern": "${pvc.name}"})),
            "no two claims may share",
        ),
        (
            json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "z", "values": ["a"]}]}]}),
            "a share is where its server is",
        ),
        (json!({"provisioner": "other"}), "by now"),
    ];
    for (wrong, expected) in cases {
        let mut world = world_with(nfs(wrong));
        world.settle();
        world.edit(&c(), &json!({"metadata": {"labels": {"edit": "1"}}}));
        world.settle();
        let told = world.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(expected), "{expected}: {told:?}");
        assert!(!world.objects.contains_key(&v()));
        world.put(Kind::StorageClass, nfs(json!({})));
        world.settle();
        assert!(world.objects.contains_key(&v()), "{expected}");
    }
}

/// Two spellings of one share are one, and an IPv6 address finds its volume again.
#[test]
fn addresses_with_colons() {
    let mut world = World::of_shares();
    world.put(
        Kind::StorageClass,
        share_class("nfs", "[fd00::1]", "/a//b/", json!({})),
    );
    world.put(Kind::Claim, share_claim("c", "u1", "nfs"));
    world.start();
    world.run();
    let volume = &world.objects[&v()];
    assert_eq!(
        volume["spec"]["nfs"],
        json!({"server": "fd00::1", "path": "/a/b/default-c-pvc-u1"})
    );
    world.bind();
    world.run();
    world.delete(&c());
    world.bind();
    world.settle();
    assert!(!world.objects.contains_key(&v()));
    assert!(!exists(&world.share("fd00::1", "/a/b/default-c-pvc-u1")));
}

/// What nobody needs any more is not asked for ever.
#[test]
fn a_dead_server_of_a_class_that_went_is_let_be() {
    let mut world = world_with(nfs(json!({})));
    world.down.insert("nas".into());
    world.run();
    assert!(!world.timers.is_empty());
    world.delete(&c());
    world.delete(&ObjectKey::storage_class(&"nfs".into()));
    for _ in 0..2 {
        world.run();
        for (_, alarm) in std::mem::take(&mut world.timers) {
            world.feed(bitts_api::machine::Input::Alarm(alarm));
        }
        world.run();
    }
    assert!(world.timers.is_empty(), "{:?}", world.timers);
}
