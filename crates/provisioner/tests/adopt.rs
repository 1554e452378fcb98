//! Volumes of other provisioners, taken over: as those make them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, Node, Object, ObjectKey, StorageClass, Volume};
use bitts_provisioner::{
    AdoptError, Adoption, Ground, Home, OnDelete, Share, Template, adopt, equivalent,
};
use serde_json::{Value, json};
use support::{World, merge};

fn volume(change: &Value) -> Volume {
    let mut object = json!({
        "metadata": {"name": "pvc-u1", "uid": "v", "resourceVersion": "7", "annotations": {
            "pv.kubernetes.io/provisioned-by": "k8s-sigs.io/nfs-subdir-external-provisioner"}},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
            "storageClassName": "old",
            "nfs": {"server": "nas", "path": "/export/default-data-pvc-u1"},
            "claimRef": {"namespace": "default", "name": "data", "uid": "u1"}},
        "status": {"phase": "Bound"},
    });
    merge(&mut object, change);
    match Kind::Volume.read(object.to_string().as_bytes()).unwrap() {
        Object::Volume(volume) => (*volume).clone(),
        other => panic!("{other:?}"),
    }
}

/// As local-path-provisioner makes them.
fn local_path(change: &Value) -> Volume {
    let mut local = json!({
        "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "rancher.io/local-path"}},
        "spec": {"nfs": null, "hostPath": {"path": "/opt/local/pvc-u1_default_data",
                "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["host-1"]}]}]}}},
    });
    merge(&mut local, change);
    volume(&local)
}

fn class(parameters: Value) -> StorageClass {
    let class = json!({"metadata": {"name": "old", "uid": "c"}, "provisioner": "old",
        "mountOptions": ["vers=4.1"], "parameters": parameters});
    match Kind::StorageClass
        .read(class.to_string().as_bytes())
        .unwrap()
    {
        Object::StorageClass(class) => (*class).clone(),
        other => panic!("{other:?}"),
    }
}

fn node() -> Node {
    let node = json!({"metadata": {"name": "n1", "uid": "n",
        "labels": {"kubernetes.io/hostname": "host-1"}}});
    match Kind::Node.read(node.to_string().as_bytes()).unwrap() {
        Object::Node(node) => (*node).clone(),
        other => panic!("{other:?}"),
    }
}

fn on_share(volume: &Volume, class: Option<&StorageClass>) -> Option<Result<Adoption, AdoptError>> {
    let home = Home::Share(Share::parse("nas:/export").unwrap());
    adopt(volume, class, &home, &["/export"], None)
}

fn on_node(volume: &Volume) -> Option<Result<Adoption, AdoptError>> {
    let old = class(json!({}));
    let home = Home::Node("n1".into());
    adopt(
        volume,
        Some(&old),
        &home,
        &["/data", "/opt/local"],
        Some(&node()),
    )
}

#[test]
fn a_directory_on_a_share_is_recorded_as_its_class_says() {
    for (parameters, expected) in [
        (json!({}), OnDelete::Trash),
        (json!({"archiveOnDelete": "true"}), OnDelete::Trash),
        (json!({"archiveOnDelete": "false"}), OnDelete::Delete),
        (json!({"onDelete": "delete"}), OnDelete::Delete),
        (
            json!({"onDelete": "retain", "archiveOnDelete": "false"}),
            OnDelete::Retain,
        ),
        (
            json!({"onDelete": "other", "archiveOnDelete": "false"}),
            OnDelete::Delete,
        ),
    ] {
        let old = class(parameters.clone());
        let adoption = on_share(&volume(&json!({})), Some(&old)).unwrap().unwrap();
        assert_eq!(adoption.record.on_delete, expected, "{parameters}");
        assert_eq!(adoption.record.path.as_str(), "default-data-pvc-u1");
        assert_eq!(adoption.record.claim.uid, *"u1");
        assert!(adoption.record.confirmed, "it was used");
        let annotations = &adoption.patch["metadata"]["annotations"];
        assert_eq!(annotations["bitts.dev/provisioned-on"], "nas:/export");
        assert_eq!(
            annotations["pv.kubernetes.io/provisioned-by"],
            "nfs.bitts.dev"
        );
    }
    let orphaned = on_share(&volume(&json!({})), None).unwrap().unwrap();
    assert_eq!(
        orphaned.record.on_delete,
        OnDelete::Retain,
        "its class is gone"
    );
}

#[test]
fn what_is_not_here_is_left_out_and_what_cannot_be_is_said() {
    let old = class(json!({}));
    let here = |change: Value| on_share(&volume(&change), Some(&old));
    for elsewhere in [
        json!({"spec": {"nfs": {"server": "other"}}}),
        json!({"spec": {"nfs": {"path": "/exports/a"}}}),
        json!({"spec": {"nfs": {"path": "/export"}}}),
        json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": null}}}),
        json!({"metadata": {"annotations": {"bitts.dev/provisioned-on": "nas:/export"}}}),
    ] {
        assert_eq!(here(elsewhere.clone()), None, "{elsewhere}");
    }
    for (change, expected) in [
        (json!({"status": {"phase": "Released"}}), "not Bound"),
        (
            json!({"spec": {"claimRef": {"uid": null}}}),
            "no claim of a uid",
        ),
        (
            json!({"spec": {"claimRef": {"uid": "other"}}}),
            "not named pvc-UID",
        ),
        (
            json!({"spec": {"nfs": {"path": "/export/../etc"}}}),
            "cannot be part",
        ),
        (
            json!({"spec": {"nfs": {"path": "/export/.bitts/trash"}}}),
            "cannot be part",
        ),
    ] {
        let error = here(change.clone()).unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{change}: {error}");
    }
}

/// The same path is on every node: only what is tied to this one is this one's.
#[test]
fn directories_on_a_node_are_told_by_their_affinity() {
    let adoption = on_node(&local_path(&json!({}))).unwrap().unwrap();
    assert_eq!(adoption.root, 1);
    assert_eq!(adoption.record.path.as_str(), "pvc-u1_default_data");
    assert_eq!(adoption.record.on_delete, OnDelete::Delete);
    assert!(
        adoption.notes[0].contains("hostPath"),
        "{:?}",
        adoption.notes
    );
    let other = json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["host-2"]}]}]}}}});
    assert_eq!(on_node(&local_path(&other)), None);
    assert_eq!(
        on_node(&local_path(&json!({"spec": {"nodeAffinity": null}}))),
        None
    );
}

/// A volume that was taken over is deleted as any other, a hostPath too.
#[test]
fn what_was_taken_over_is_deleted_after_its_claim() {
    for source in ["hostPath", "local"] {
        let mut world = World::new();
        let root = world.root();
        let path = root.join("pvc-u1_default_data");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
        let change = json!({"spec": {"hostPath": null, (source): {"path": path}}});
        let old = local_path(&change);
        let home = Home::Node("n1".into());
        let class = class(json!({}));
        let roots = [root.to_str().unwrap()];
        let adoption = adopt(&old, Some(&class), &home, &roots, Some(&node()));
        let adoption = adoption.unwrap().unwrap();
        let disk = bitts_provisioner::disk::Disk::open(&root).unwrap();
        disk.adopt(&adoption.record).unwrap();
        let mut object = json!({
            "metadata": {"name": "pvc-u1", "uid": "v"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                (source): {"path": path}, "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "default", "name": "data", "uid": "u1"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["host-1"]}]}]}}},
            "status": {"phase": "Released"},
        });
        merge(&mut object, &adoption.patch);
        let key = world.put(Kind::Volume, object);
        world.start();
        world.settle();
        assert!(!path.exists(), "{source}: {:?}", world.told());
        assert!(!world.objects.contains_key(&key), "{source}");
        assert_eq!(key, ObjectKey::volume("pvc-u1"));
    }
}

/// Their parameters are understood, and what they mean here is a class that is taken.
#[test]
fn a_class_of_theirs_has_an_equivalent() {
    let share = Home::Share(Share::parse("nas:/export").unwrap());
    let old = class(json!({"archiveOnDelete": "false",
        "pathPattern": "${.PVC.namespace}/${.PVC.name}"}));
    let (new, notes) = equivalent(&old, &share);
    assert_eq!(new["parameters"]["server"], "nas");
    assert_eq!(new["parameters"]["onDelete"], "delete");
    let pattern = "${.PVC.namespace}/${.PVC.name}-${pv.name}";
    assert_eq!(new["parameters"]["pathPattern"], pattern);
    assert_eq!(new["mountOptions"], json!(["vers=4.1"]));
    assert!(notes[0].contains("each has its own"), "{notes:?}");
    let node = Home::Node("n1".into());
    let rancher = class(json!({"nodePath": "/opt", "pathPattern": "{{ .PVC.Name }}"}));
    let (local, notes) = equivalent(&rancher, &node);
    assert!(
        notes.iter().any(|note| note.contains("nodePath")),
        "{notes:?}"
    );
    let of_node = Ground::Node("n1".into());
    for (text, ground) in [(new, Ground::Shares), (local, of_node)] {
        let read = Kind::StorageClass
            .read(text.to_string().as_bytes())
            .unwrap();
        let Object::StorageClass(class) = read else {
            panic!("{read:?}");
        };
        assert!(Template::read(&class, &ground).is_ok(), "{text}");
    }
}

/// Classes cannot be changed: those that were written for others are served as they are (P12).
#[test]
fn a_class_of_theirs_is_served_as_it_is() {
    let theirs = "cluster.local/nfs-subdir";
    let mut world = World::of_shares();
    let share = Share::parse("nas:/export").unwrap();
    world.options.legacy = [(theirs.into(), Some(share))].into();
    let class = json!({"metadata": {"name": "nfs-client", "uid": "class"}, "provisioner": theirs,
        "volumeBindingMode": "Immediate", "reclaimPolicy": "Delete", "parameters":
            {"archiveOnDelete": "true", "pathPattern": "${.PVC.namespace}/${.PVC.name}"}});
    world.put(Kind::StorageClass, class);
    let mut claim = support::share_claim("c", "u1", "nfs-client");
    claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] = json!(theirs);
    let claim = world.put(Kind::Claim, claim);
    world.start();
    world.run();
    world.bind();
    world.run();
    let volume = ObjectKey::volume("pvc-u1");
    let object = &world.objects[&volume];
    assert_eq!(object["spec"]["nfs"]["path"], "/export/default/c-pvc-u1");
    let by = &object["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"];
    assert_eq!(by, theirs);
    let directory = world.share("nas", "/export/default/c-pvc-u1");
    std::fs::write(directory.join("file"), "x").unwrap();
    world.delete(&claim);
    world.bind();
    world.settle();
    assert!(!directory.exists() && !world.objects.contains_key(&volume));
    let kept = world.share("nas", "/export/.bitts/trash/pvc-u1/data/file");
    assert!(kept.exists(), "archived, as they say");
}
