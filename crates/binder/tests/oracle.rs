//! The oracle of the contract's section 11: each row of `oracle.yaml` is a test.
//!
//! The original's tests mostly call one sync function once. Here the whole machine runs until
//! nothing is left to do; where that goes further than the one call, the row says so.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use bitts_api::{Kind, ObjectKey};
use serde::Deserialize;
use serde_json::{Value, json};
use support::{Store, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    #[serde(default)]
    volumes: BTreeMap<String, VolumeIs>,
    #[serde(default)]
    claims: BTreeMap<String, ClaimIs>,
    /// Claims that the API has and that no watch told of.
    #[serde(default)]
    unseen: BTreeMap<String, ClaimIs>,
    #[serde(default)]
    classes: BTreeMap<String, ClassIs>,
    then: Then,
}

/// A volume as given. Default: 1Gi, RWO and ROX, Retain, no class, Available, nobody's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeIs {
    #[serde(default = "one")]
    size: String,
    #[serde(default = "available")]
    phase: String,
    /// `name` or `name@uid`.
    r#for: Option<String>,
    #[serde(default)]
    by_binder: bool,
    policy: Option<String>,
    class: Option<String>,
    mode: Option<String>,
    attributes: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    csi: Option<String>,
}

/// A claim as given. Default: 1Gi, RWO and ROX, class "", Pending.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimIs {
    #[serde(default = "one")]
    size: String,
    #[serde(default = "pending")]
    phase: String,
    volume: Option<String>,
    #[serde(default)]
    by_binder: bool,
    #[serde(default)]
    completed: bool,
    class: Option<String>,
    #[serde(default)]
    class_nil: bool,
    mode: Option<String>,
    modes: Option<Vec<String>>,
    attributes: Option<String>,
    selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassIs {
    provisioner: String,
    #[serde(default)]
    wait: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Then {
    #[serde(default)]
    volumes: BTreeMap<String, VolumeBecomes>,
    #[serde(default)]
    claims: BTreeMap<String, ClaimBecomes>,
    #[serde(default)]
    events: Vec<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeBecomes {
    phase: String,
    #[serde(default)]
    r#for: Option<String>,
    #[serde(default)]
    by_binder: bool,
    #[serde(default)]
    message: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimBecomes {
    phase: String,
    volume: Option<String>,
    #[serde(default)]
    by_binder: bool,
    #[serde(default)]
    completed: bool,
    capacity: Option<String>,
    attributes: Option<String>,
    /// `volume.kubernetes.io/selected-node`
    node: Option<String>,
}

fn one() -> String {
    "1Gi".into()
}

fn available() -> String {
    "Available".into()
}

fn pending() -> String {
    "Pending".into()
}

const BY_BINDER: &str = "pv.kubernetes.io/bound-by-controller";
const COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const NODE: &str = "volume.kubernetes.io/selected-node";

fn set<T: Into<Value>>(object: &mut Value, path: &str, value: Option<T>) {
    if let Some(value) = value {
        let mut at = object;
        for part in path.split('.') {
            at = &mut at[part];
        }
        *at = value.into();
    }
}

fn volume(name: &str, is: &VolumeIs) -> Value {
    let mut v = support::volume(name, &is.size);
    v["status"]["phase"] = is.phase.clone().into();
    v["metadata"]["labels"] = json!(is.labels);
    v["metadata"]["annotations"] = json!(is.annotations);
    if is.by_binder {
        v["metadata"]["annotations"][BY_BINDER] = "yes".into();
    }
    if let Some(owner) = &is.r#for {
        let (name, uid) = owner.split_once('@').unwrap_or((owner, ""));
        v["spec"]["claimRef"] = json!({"namespace": "default", "name": name, "uid": uid});
    }
    let spec = "spec.persistentVolumeReclaimPolicy";
    set(&mut v, spec, is.policy.clone());
    set(&mut v, "spec.storageClassName", is.class.clone());
    set(&mut v, "spec.volumeMode", is.mode.clone());
    set(
        &mut v,
        "spec.volumeAttributesClassName",
        is.attributes.clone(),
    );
    if let Some(driver) = &is.csi {
        v["spec"].as_object_mut().unwrap().remove("local");
        v["spec"]["csi"] = json!({"driver": driver, "volumeHandle": "h"});
    }
    v
}

fn claim(name: &str, is: &ClaimIs) -> Value {
    let mut c = support::claim(name, &is.size);
    c["status"]["phase"] = is.phase.clone().into();
    if is.phase == "Bound" {
        c["status"]["capacity"] = json!({"storage": is.size});
        c["status"]["accessModes"] = json!(["ReadWriteOnce", "ReadOnlyMany"]);
    }
    c["metadata"]["annotations"] = json!(is.annotations);
    if is.by_binder {
        c["metadata"]["annotations"][BY_BINDER] = "yes".into();
    }
    if is.completed {
        c["metadata"]["annotations"][COMPLETED] = "yes".into();
    }
    set(&mut c, "spec.volumeName", is.volume.clone());
    set(&mut c, "spec.storageClassName", is.class.clone());
    if is.class_nil {
        c["spec"]["storageClassName"] = Value::Null;
    }
    set(&mut c, "spec.volumeMode", is.mode.clone());
    set(&mut c, "spec.accessModes", is.modes.clone());
    set(
        &mut c,
        "spec.volumeAttributesClassName",
        is.attributes.clone(),
    );
    if let Some(labels) = &is.selector {
        c["spec"]["selector"] = json!({"matchLabels": labels});
    }
    c
}

fn text(object: &Value, path: &[&str]) -> Option<String> {
    let value = path.iter().fold(object, |at, part| &at[*part]);
    value.as_str().filter(|t| !t.is_empty()).map(Into::into)
}

fn volume_became(v: &Value) -> VolumeBecomes {
    let annotation = |name| text(v, &["metadata", "annotations", name]);
    let owner = text(v, &["spec", "claimRef", "name"]);
    let uid = text(v, &["spec", "claimRef", "uid"]);
    VolumeBecomes {
        phase: text(v, &["status", "phase"]).unwrap_or_default(),
        r#for: owner.map(|name| match uid {
            Some(uid) => format!("{name}@{uid}"),
            None => name,
        }),
        by_binder: annotation(BY_BINDER).is_some(),
        message: text(v, &["status", "message"]).unwrap_or_default(),
    }
}

fn claim_became(c: &Value) -> ClaimBecomes {
    let annotation = |name| text(c, &["metadata", "annotations", name]);
    ClaimBecomes {
        phase: text(c, &["status", "phase"]).unwrap_or_default(),
        volume: text(c, &["spec", "volumeName"]),
        by_binder: annotation(BY_BINDER).is_some(),
        completed: annotation(COMPLETED).is_some(),
        capacity: text(c, &["status", "capacity", "storage"]),
        attributes: text(c, &["status", "currentVolumeAttributesClassName"]),
        node: annotation(NODE),
    }
}

fn rows() -> Vec<Row> {
    serde_yaml_ng::from_str(include_str!("oracle.yaml")).unwrap()
}

fn check(id: &str) {
    let all = rows();
    let row = all.iter().find(|row| row.id == id);
    let row = row.unwrap_or_else(|| panic!("oracle.yaml has no row {id}"));
    let mut store = Store::default();
    for (name, is) in &row.classes {
        let mode = if is.wait {
            "WaitForFirstConsumer"
        } else {
            "Immediate"
        };
        let class = json!({
            "metadata": {"name": name},
            "provisioner": is.provisioner,
            "volumeBindingMode": mode,
        });
        store.create(Kind::StorageClass, class);
    }
    for (name, is) in &row.volumes {
        store.create(Kind::Volume, volume(name, is));
    }
    for (name, is) in &row.claims {
        store.create(Kind::Claim, claim(name, is));
    }
    let unseen: Vec<_> = row
        .unseen
        .iter()
        .map(|(name, is)| store.create(Kind::Claim, claim(name, is)))
        .collect();

    let mut world = World::new(store);
    world.start_without(&unseen);
    world.run();

    for (name, expected) in &row.then.volumes {
        let v = &world.store.objects[&ObjectKey::volume(name.as_str())];
        assert_eq!(volume_became(v), *expected, "row {id}, volume {name}");
    }
    for (name, expected) in &row.then.claims {
        let c = &world.store.objects[&ObjectKey::claim("default", name.as_str())];
        assert_eq!(claim_became(c), *expected, "row {id}, claim {name}");
    }
    assert_eq!(world.told(), row.then.events, "row {id}, events");
    assert!(world.timers.is_empty(), "row {id} backs off");
}

macro_rules! oracle {
    ($($test:ident $id:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            check($id);
        })*

        #[test]
        fn every_row_is_a_test() {
            let rows: Vec<_> = rows().into_iter().map(|row| row.id).collect();
            assert_eq!(rows, [$($id),*]);
        }
    };
}

oracle! {
    row_1_1 "1-1",
    row_1_2 "1-2",
    row_1_3 "1-3",
    row_1_4 "1-4",
    row_1_5 "1-5",
    row_1_6 "1-6",
    row_1_7 "1-7",
    row_1_8 "1-8",
    row_1_9 "1-9",
    row_1_10 "1-10",
    row_1_11 "1-11",
    row_1_12 "1-12",
    row_1_13 "1-13",
    row_1_14 "1-14",
    row_1_15 "1-15",
    row_1_16 "1-16",
    row_1_17 "1-17",
    row_1_18 "1-18",
    row_2_1 "2-1",
    row_2_2 "2-2",
    row_2_3 "2-3",
    row_2_4 "2-4",
    row_2_5 "2-5",
    row_2_6 "2-6",
    row_2_7 "2-7",
    row_2_8 "2-8",
    row_2_9 "2-9",
    row_2_10 "2-10",
    row_2_11 "2-11",
    row_2_12 "2-12",
    row_3_1 "3-1",
    row_3_2 "3-2",
    row_3_3 "3-3",
    row_3_4 "3-4",
    row_3_5 "3-5",
    row_3_6 "3-6",
    row_3_7 "3-7",
    row_4_1 "4-1",
    row_4_2 "4-2",
    row_4_3 "4-3",
    row_4_4 "4-4",
    row_4_5 "4-5",
    row_4_5_2 "4-5-2",
    row_4_6 "4-6",
    row_4_7 "4-7",
    row_4_8 "4-8",
    row_4_9 "4-9",
    row_4_10 "4-10",
    row_4_11 "4-11",
    row_4_12 "4-12",
    row_6_3 "6-3",
    row_6_10 "6-10",
    row_8_10_1 "8-10-1",
    row_8_10_2 "8-10-2",
    row_8_10_3 "8-10-3",
    row_10_1 "10-1",
    row_10_2 "10-2",
    row_13_1 "13-1",
    row_13_2 "13-2",
    row_13_3 "13-3",
    row_13_4 "13-4",
    row_13_5 "13-5",
    row_14_1 "14-1",
    row_14_2 "14-2",
    row_14_3 "14-3",
    row_14_4 "14-4",
    row_14_5 "14-5",
    row_14_5_1 "14-5-1",
    row_14_5_2 "14-5-2",
    row_14_7 "14-7",
    row_14_8 "14-8",
    row_14_8_1 "14-8-1",
    row_14_9 "14-9",
    row_14_10 "14-10",
    row_14_11 "14-11",
    row_14_12 "14-12",
    row_14_13 "14-13",
    row_14_13_1 "14-13-1",
    row_14_14 "14-14",
    row_14_14_1 "14-14-1",
}
