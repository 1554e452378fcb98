//! A stock kubectl against `bitts apiserver`, without `--validate=false`.
//!
//! Needs a kubectl of 1.32 or newer, from KUBEBUILDER_ASSETS or PATH; without one each test is
//! skipped and says so, and fails where CI is set.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::Cluster;

/// The cells of the row that starts with `name`.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let found = table
        .lines()
        .find(|l| l.split_whitespace().next() == Some(name));
    found
        .unwrap_or_else(|| panic!("no row {name} in\n{table}"))
        .split_whitespace()
        .collect()
}

#[test]
fn the_seed_from_apply_to_delete() {
    let Some(cluster) = Cluster::with_binder() else {
        return;
    };
    cluster.kubectl("apply -f examples/seed/volume.yaml -f examples/seed/claim.yaml");
    cluster.kubectl("wait --for=jsonpath={.status.phase}=Bound pvc/cqh --timeout=20s");

    let volumes = cluster.kubectl("get pv -o wide");
    let bound = [
        "cqh",
        "100Mi",
        "RWX",
        "Delete",
        "Bound",
        "default/cqh",
        "local-storage",
    ];
    assert_eq!(row(&volumes, "cqh")[..7], bound, "{volumes}");
    assert!(
        volumes.contains("VOLUMEMODE") && volumes.contains("Filesystem"),
        "{volumes}"
    );
    let claims = cluster.kubectl("get pvc -o wide");
    assert_eq!(
        row(&claims, "cqh")[..6],
        ["cqh", "Bound", "cqh", "100Mi", "RWX", "local-storage"]
    );
    let both = cluster.kubectl("get pv,pvc");
    assert!(both.contains("persistentvolume/cqh"), "{both}");
    assert!(both.contains("persistentvolumeclaim/cqh"), "{both}");

    let described = cluster.kubectl("describe pvc cqh");
    for line in [
        "Status:        Bound",
        "Volume:        cqh",
        "StorageClass:  local-storage",
    ] {
        assert!(described.contains(line), "{line:?} is not in\n{described}");
    }
    cluster.kubectl("describe pv cqh");

    cluster.kubectl(r#"patch pv cqh -p {"metadata":{"labels":{"tier":"gold"}}}"#);
    cluster.kubectl(r#"patch pv cqh --type=merge -p {"metadata":{"labels":{"tier":"tin"}}}"#);
    cluster
        .kubectl(r#"patch pv cqh --type=json -p [{"op":"remove","path":"/metadata/labels/tier"}]"#);
    let labels = cluster.kubectl("get pv cqh -o jsonpath={.metadata.labels}");
    assert_eq!(
        serde_json::from_str::<Value>(&labels).unwrap(),
        serde_json::json!({"cqh": "chenqionghe"})
    );
    // Applied again: nothing changes.
    let again = cluster.kubectl("apply -f examples/seed/volume.yaml");
    assert!(again.contains("unchanged"), "{again}");

    cluster.kubectl("delete pvc cqh --wait --timeout=20s");
    cluster.kubectl("wait --for=jsonpath={.status.phase}=Failed pv/cqh --timeout=20s");
    let events = cluster.kubectl("get events --all-namespaces");
    assert!(events.contains("VolumeFailedDelete"), "{events}");
    cluster.kubectl("delete pv cqh --wait --timeout=20s");
    assert!(cluster.refused("get pv cqh").contains("NotFound"));
}

#[test]
fn a_claim_that_waits_says_why() {
    let Some(cluster) = Cluster::with_binder() else {
        return;
    };
    cluster.kubectl("apply -f examples/seed/claim.yaml");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let described = cluster.kubectl("describe pvc cqh");
        if described.contains(r#"storageclass.storage.k8s.io "local-storage" not found"#) {
            assert!(described.contains("ProvisioningFailed"), "{described}");
            break;
        }
        assert!(Instant::now() < deadline, "no event in\n{described}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let events = cluster.kubectl("events --for pvc/cqh");
    assert!(events.contains("ProvisioningFailed"), "{events}");
}

#[test]
fn every_example_applies() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.kubectl("apply -R -f examples");
    // The second time kubectl computes patches from its own annotation.
    let again = cluster.kubectl("apply -R -f examples");
    assert!(again.lines().all(|l| l.ends_with("unchanged")), "{again}");
    cluster.kubectl("delete -R -f examples --wait=false");
}

#[test]
fn what_is_there() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let resources = cluster.kubectl("api-resources");
    for line in [
        "persistentvolumeclaims pvc v1 true PersistentVolumeClaim",
        "persistentvolumes pv v1 false PersistentVolume",
        "storageclasses sc storage.k8s.io/v1 false StorageClass",
        "leases coordination.k8s.io/v1 true Lease",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let found = resources
            .lines()
            .any(|l| l.split_whitespace().eq(words.iter().copied()));
        assert!(found, "{line} is not in\n{resources}");
    }
    cluster.kubectl("get namespaces,nodes,storageclasses,leases -A");
    cluster.kubectl("version");
}

#[test]
fn a_typo_in_a_manifest_is_refused() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let file = cluster.folder.path().join("typo.yaml");
    let text = include_str!("../../../examples/seed/claim.yaml");
    std::fs::write(&file, text.replace("storageClassName", "storageClasName")).unwrap();
    let error = cluster.refused(&format!("apply -f {}", file.display()));
    assert!(
        error.contains(r#"unknown field "spec.storageClasName""#),
        "{error}"
    );
    std::fs::write(&file, text.replace("100Mi", "a lot")).unwrap();
    let error = cluster.refused(&format!("apply -f {}", file.display()));
    assert!(
        error.contains("quantities must match the regular expression"),
        "{error}"
    );
    std::fs::write(&file, "kind: [").unwrap();
    assert!(
        cluster
            .refused(&format!("apply -f {}", file.display()))
            .contains("yaml")
    );
}

#[test]
fn get_w_follows_a_volume() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.kubectl("apply -f examples/seed/volume.yaml");
    let mut watch = cluster
        .command("get pv -w --no-headers")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("Pending"));
    cluster.kubectl(r#"patch pv cqh --subresource=status -p {"status":{"phase":"Available"}}"#);
    assert!(lines.next().unwrap().unwrap().contains("Available"));
    cluster.kubectl(r#"patch pv cqh --type=merge -p {"metadata":{"finalizers":null}}"#);
    cluster.kubectl("delete pv cqh");
    watch.kill().unwrap();
    watch.wait().unwrap();
}
