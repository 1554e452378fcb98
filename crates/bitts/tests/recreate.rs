//! A claim whose data lies on a node that is gone: told, and made anew as an operator says.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(all(feature = "binder", feature = "provisioner", feature = "demo"))]

mod support;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::Cluster;

const LONG: Duration = Duration::from_secs(30);

/// A claim with a volume on a node that may or may not be there.
fn claim_on_a_node(cluster: &Cluster, node_gone: &str) {
    apply(
        cluster,
        &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "default", "labels": {"app": "db"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "volumeName": "v",
            "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    let uid = cluster.kubectl("get pvc c -o jsonpath={.metadata.uid}");
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]});
    apply(
        cluster,
        &json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "v", "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
            "annotations": {"pv.kubernetes.io/provisioned-by": "local.bitts.dev",
                "bitts.dev/provisioned-on": "n1", "bitts.dev/node-gone": node_gone}},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local", "persistentVolumeReclaimPolicy": "Delete",
            "local": {"path": "/d/v"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": "default", "name": "c", "uid": uid}}}),
    );
    until(cluster, "get pvc c -o jsonpath={.status.phase}", "Bound");
}

fn apply(cluster: &Cluster, object: &Value) {
    let file = cluster.folder.path().join("object.json");
    std::fs::write(&file, object.to_string()).unwrap();
    cluster.kubectl(&format!("create -f {}", file.display()));
}

fn until(cluster: &Cluster, question: &str, answer: &str) {
    let start = Instant::now();
    loop {
        let told = cluster.kubectl(question);
        if told == answer {
            return;
        }
        assert!(start.elapsed() < LONG, "{question}: {told}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn recreate(cluster: &Cluster, flags: &[&str], code: i32) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_bitts"))
        .args(["recreate", "default/c"])
        .args(flags)
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let text = text.concat();
    assert_eq!(status.code(), Some(code), "{text}");
    text
}

#[test]
fn a_claim_on_a_node_that_is_gone_is_made_anew() {
    let roles = ["--roles=binder,lost-nodes", "--node-gone-after=1s"];
    let Some(cluster) = Cluster::with(&roles) else {
        return;
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1",
        "labels": {"kubernetes.io/hostname": "n1"}}});
    apply(&cluster, &node);
    claim_on_a_node(&cluster, "recreate");
    let told = recreate(&cluster, &["--apply"], 1);
    assert!(told.contains("merely not ready is not gone"), "{told}");
    let uid = cluster.kubectl("get pvc c -o jsonpath={.metadata.uid}");
    cluster.kubectl("delete node n1");
    let about = "get events --field-selector=reason=BittsNodeGone -o \
        jsonpath={.items[*].involvedObject.name}";
    until(&cluster, about, "c");
    let told = recreate(&cluster, &[], 0);
    assert!(told.contains("Nothing was changed"), "{told}");
    assert_eq!(
        cluster.kubectl("get pvc c -o jsonpath={.metadata.uid}"),
        uid
    );
    let told = recreate(&cluster, &["--apply"], 0);
    assert!(told.contains("made anew"), "{told}");
    assert_ne!(
        cluster.kubectl("get pvc c -o jsonpath={.metadata.uid}"),
        uid
    );
    let new = cluster.kubectl("get pvc c -o jsonpath={.metadata.labels.app},{.spec.volumeName}");
    assert_eq!(new, "db,");
    until(&cluster, "get pv -o name", "");
}

/// What there is where it was cut off right after the claim went.
fn begin(cluster: &Cluster) {
    let manifest = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "default"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}});
    let noted = json!({"metadata": {"annotations": {"bitts.dev/recreates": manifest.to_string()}}});
    let file = cluster.folder.path().join("patch.json");
    std::fs::write(&file, noted.to_string()).unwrap();
    cluster.kubectl(&format!(
        "patch pv v --type=merge --patch-file={}",
        file.display()
    ));
    cluster.kubectl("delete pvc c");
}

/// Whatever was done by then, the claim comes to be.
#[test]
fn what_was_cut_off_goes_on() {
    let roles = ["--roles=binder,lost-nodes", "--node-gone-after=1s"];
    let Some(cluster) = Cluster::with(&roles) else {
        return;
    };
    claim_on_a_node(&cluster, "recreate");
    begin(&cluster);
    until(&cluster, "get pv v -o jsonpath={.status.phase}", "Released");
    std::thread::sleep(Duration::from_secs(2)); // the node counts as gone by now
    until(&cluster, "get pv -o name", "persistentvolume/v\n");
    recreate(&cluster, &["--apply"], 0);
    assert_eq!(
        cluster.kubectl("get pvc c -o jsonpath={.spec.volumeName}"),
        ""
    );
    until(&cluster, "get pv -o name", "");
}

/// The claim that somebody made anew meanwhile, and its volume, are left alone; what was begun ends.
#[test]
fn a_claim_that_is_there_again_is_left() {
    let roles = ["--roles=binder,lost-nodes", "--node-gone-after=1s"];
    let Some(cluster) = Cluster::with(&roles) else {
        return;
    };
    claim_on_a_node(&cluster, "recreate");
    begin(&cluster);
    until(&cluster, "get pv v -o jsonpath={.status.phase}", "Released");
    for (kind, name, spec) in [
        (
            "PersistentVolume",
            "other",
            json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local", "hostPath": {"path": "/other"},
                "claimRef": {"namespace": "default", "name": "c"}}),
        ),
        (
            "PersistentVolumeClaim",
            "c",
            json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "volumeName": "other", "resources": {"requests": {"storage": "1Gi"}}}),
        ),
    ] {
        let object =
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        apply(&cluster, &object);
    }
    until(&cluster, "get pvc c -o jsonpath={.status.phase}", "Bound");
    let uid = cluster.kubectl("get pvc c -o jsonpath={.metadata.uid}");
    let told = recreate(&cluster, &["--apply"], 0);
    assert!(told.contains("somebody made it anew already"), "{told}");
    until(&cluster, "get pv -o name", "persistentvolume/other\n");
    let now = cluster.kubectl("get pvc c -o jsonpath={.metadata.uid}");
    assert_eq!(now, uid);
}

#[test]
fn a_claim_whose_class_does_not_say_so_stays() {
    let Some(cluster) = Cluster::with_binder() else {
        return;
    };
    claim_on_a_node(&cluster, "release");
    let uid = cluster.kubectl("get pvc c -o jsonpath={.metadata.uid}");
    let told = recreate(&cluster, &["--apply"], 1);
    assert!(told.contains("nodeGone: release"), "{told}");
    assert_eq!(
        cluster.kubectl("get pvc c -o jsonpath={.metadata.uid}"),
        uid
    );
}
