//! The oracle of the contract's section 11: each row of `oracle.yaml` is a test.
//!
//! The original's tests mostly call one sync function once. Here the whole machine runs until
//! nothing is left to do; where that goes further than the one call, the row says so.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use bitts_api::{Kind, ObjectKey};
use bitts_binder::{Differences, Recycle};
use serde::Deserialize;
use serde_json::{Value, json};
use support::{Fate, Store, World};

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
    #[serde(default)]
    pods: BTreeMap<String, PodIs>,
    /// `--strict-compat`.
    #[serde(default)]
    strict: bool,
    /// `--enable-recycle`.
    #[serde(default)]
    recycle: bool,
    /// Who else is there.
    #[serde(default)]
    with: Vec<Other>,
    /// What happens once all is at rest.
    #[serde(default)]
    later: Later,
    /// What happens unseen just before a step is executed.
    before: Option<Before>,
    then: Then,
}

/// Another program, which stands for a plugin of kube-controller-manager.
#[derive(Clone, Copy, PartialEq, PartialOrd, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Other {
    /// An agent that wipes what it is asked to.
    AgentWipes,
    /// An agent that cannot.
    AgentFails,
    /// An agent that can at its second attempt.
    AgentFailsOnce,
    /// `vendor.com/disk`: makes volumes for claims that ask it to.
    ProvisionerMakes,
    /// The same deletes those that were released.
    ProvisionerDeletes,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Later {
    #[serde(default)]
    volumes: BTreeMap<String, VolumeIs>,
    #[serde(default)]
    claims: BTreeMap<String, ClaimIs>,
    #[serde(default)]
    delete_volumes: Vec<String>,
    #[serde(default)]
    delete_claims: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    step: String,
    /// The volume is deleted.
    delete: Option<String>,
    /// The volume is offered to everybody.
    offer: Option<String>,
}

/// A pod that uses the claim of its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PodIs {
    phase: String,
    claim: String,
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
    host_path: Option<String>,
    #[serde(default)]
    nfs: bool,
    #[serde(default)]
    finalizers: Vec<String>,
    #[serde(default)]
    deleting: bool,
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
    #[serde(default)]
    default: bool,
    created: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Then {
    /// These are no more.
    #[serde(default)]
    gone: Vec<String>,
    /// The classes of claims.
    #[serde(default)]
    classes: BTreeMap<String, Value>,
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
    #[serde(default)]
    finalizers: Vec<String>,
    migrated: Option<String>,
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
    /// Both annotations that name the provisioner.
    asked: Option<String>,
    migrated: Option<String>,
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
const ASKED: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_ASKED: &str = "volume.beta.kubernetes.io/storage-provisioner";
const MADE_BY: &str = "pv.kubernetes.io/provisioned-by";
const MIGRATED: &str = "pv.kubernetes.io/migrated-to";
const VENDOR: &str = "vendor.com/disk";

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
    let source = [
        is.csi
            .as_ref()
            .map(|driver| ("csi", json!({"driver": driver, "volumeHandle": "h"}))),
        is.host_path
            .as_ref()
            .map(|path| ("hostPath", json!({"path": path}))),
        is.nfs
            .then(|| ("nfs", json!({"server": "files", "path": "/"}))),
    ];
    if let Some((kind, source)) = source.into_iter().flatten().next() {
        v["spec"].as_object_mut().unwrap().remove("local");
        v["spec"][kind] = source;
    }
    if !is.finalizers.is_empty() {
        v["metadata"]["finalizers"] = json!(is.finalizers);
    }
    if is.deleting {
        v["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
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
        finalizers: serde_json::from_value(v["metadata"]["finalizers"].clone()).unwrap_or_default(),
        migrated: annotation(MIGRATED),
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
        asked: {
            assert_eq!(annotation(ASKED), annotation(BETA_ASKED));
            annotation(ASKED)
        },
        migrated: annotation(MIGRATED),
    }
}

/// Runs until neither the binder nor anybody else has anything to do.
fn settle(world: &mut World, others: &[Other]) {
    for _ in 0..20 {
        world.run();
        let objects: Vec<_> = world.store.objects.clone().into_iter().collect();
        let acted = objects
            .iter()
            .any(|(key, object)| others.iter().any(|other| other.acts(world, key, object)));
        if !acted {
            return;
        }
    }
    panic!("does not come to rest");
}

impl Other {
    /// Does what is to be done about an object; returns whether there was something.
    fn acts(self, world: &mut World, key: &ObjectKey, object: &Value) -> bool {
        let annotation = |name| text(object, &["metadata", "annotations", name]);
        let phase = text(object, &["status", "phase"]).unwrap_or_default();
        let answer = |annotations| Some(json!({"metadata": {"annotations": annotations}}));
        let asked = annotation("bitts.dev/recycle-on").is_some();
        let failed = annotation("bitts.dev/recycle-failed").is_some();
        let wiped = json!({
            "bitts.dev/recycled": text(object, &["spec", "claimRef", "uid"]),
            "bitts.dev/recycle-failed": null,
        });
        let patch = match self {
            Self::AgentWipes if asked => answer(wiped),
            Self::AgentFailsOnce if asked && failed => answer(wiped),
            Self::AgentFails | Self::AgentFailsOnce if asked && !failed => {
                answer(json!({"bitts.dev/recycle-failed": "disk on fire"}))
            }
            Self::ProvisionerMakes if key.kind == Kind::Claim => {
                let unbound = text(object, &["spec", "volumeName"]).is_none();
                let name = format!("pvc-{}", text(object, &["metadata", "uid"]).unwrap());
                let there = world
                    .store
                    .objects
                    .contains_key(&ObjectKey::volume(name.as_str()));
                let wanted = annotation(ASKED).as_deref() == Some(VENDOR) && unbound && !there;
                if wanted {
                    world.create(Kind::Volume, made(&name, key, object));
                }
                return wanted;
            }
            Self::ProvisionerDeletes if key.kind == Kind::Volume => {
                let policy = text(object, &["spec", "persistentVolumeReclaimPolicy"]);
                let own = annotation(MADE_BY).as_deref() == Some(VENDOR);
                let released = own && phase == "Released" && policy.as_deref() == Some("Delete");
                if released {
                    world.delete(key);
                }
                return released;
            }
            _ => None,
        };
        if let Some(patch) = &patch {
            world.edit(key, patch);
        }
        patch.is_some()
    }
}

/// A volume as an external provisioner makes it (P12).
fn made(name: &str, key: &ObjectKey, claim: &Value) -> Value {
    let mut v = support::volume(name, "1Gi");
    v["status"]["phase"] = "Pending".into();
    v["metadata"]["annotations"] = json!({MADE_BY: VENDOR});
    v["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    v["spec"]["storageClassName"] = claim["spec"]["storageClassName"].clone();
    v["spec"]["claimRef"] = json!({
        "namespace": key.namespace, "name": key.name, "uid": claim["metadata"]["uid"],
    });
    v
}

/// Runs up to a step, and changes something that the binder does not hear of.
fn happens_before(world: &mut World, before: &Before) {
    while support::step(world.queue.front().unwrap()) != before.step {
        world.execute(0, Fate::Done);
    }
    if let Some(name) = &before.delete {
        world.store.delete(&ObjectKey::volume(name.as_str()));
    }
    if let Some(name) = &before.offer {
        let offered = json!({
            "metadata": {"annotations": {BY_BINDER: null}},
            "spec": {"claimRef": null},
            "status": {"phase": "Available"},
        });
        world
            .store
            .edit(&ObjectKey::volume(name.as_str()), &offered);
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
            "metadata": {
                "name": name,
                "creationTimestamp": is.created,
                "annotations": {"storageclass.kubernetes.io/is-default-class": is.default.to_string()},
            },
            "provisioner": is.provisioner,
            "volumeBindingMode": mode,
        });
        store.create(Kind::StorageClass, class);
    }
    for (name, is) in &row.pods {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": is.claim}}]},
            "status": {"phase": is.phase},
        });
        store.create(Kind::Pod, pod);
    }
    if row
        .with
        .iter()
        .any(|other| *other < Other::ProvisionerMakes)
    {
        let offers =
            json!({"metadata": {"name": "n", "annotations": {"bitts.dev/recycler": "yes"}}});
        store.create(Kind::Node, offers);
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
    if row.strict {
        world.options.differences = Differences::NONE;
    }
    if row.recycle {
        world.options.recycle = Recycle::Guarded;
    }
    world.start_without(&unseen);
    if let Some(before) = &row.before {
        happens_before(&mut world, before);
    }
    settle(&mut world, &row.with);
    for (name, is) in &row.later.volumes {
        world.create(Kind::Volume, volume(name, is));
    }
    for (name, is) in &row.later.claims {
        world.create(Kind::Claim, claim(name, is));
    }
    for name in &row.later.delete_volumes {
        world.delete(&ObjectKey::volume(name.as_str()));
        settle(&mut world, &row.with);
    }
    for name in &row.later.delete_claims {
        world.delete(&ObjectKey::claim("default", name.as_str()));
    }
    settle(&mut world, &row.with);

    for name in &row.then.gone {
        let (v, c) = (
            ObjectKey::volume(name.as_str()),
            ObjectKey::claim("default", name.as_str()),
        );
        let there = world.store.objects.contains_key(&v) || world.store.objects.contains_key(&c);
        assert!(!there, "row {id}, {name}");
    }
    for (name, class) in &row.then.classes {
        let c = &world.store.objects[&ObjectKey::claim("default", name.as_str())];
        assert_eq!(
            c["spec"]["storageClassName"], *class,
            "row {id}, claim {name}"
        );
    }

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
    row_5_2 "5-2",
    row_5_2_2 "5-2-2",
    row_5_2_3 "5-2-3",
    row_5_3 "5-3",
    row_5_4 "5-4",
    row_5_5 "5-5",
    row_5_6 "5-6",
    row_5_7 "5-7",
    row_5_8 "5-8",
    row_5_9 "5-9",
    row_6_1 "6-1",
    row_6_2 "6-2",
    row_6_3 "6-3",
    row_6_4 "6-4",
    row_6_5 "6-5",
    row_6_6 "6-6",
    row_6_7 "6-7",
    row_6_8 "6-8",
    row_6_9 "6-9",
    row_6_10 "6-10",
    row_6_11 "6-11",
    row_6_12 "6-12",
    row_6_13 "6-13",
    row_6_14 "6-14",
    row_7_1 "7-1",
    row_8_1 "8-1",
    row_8_2 "8-2",
    row_8_3 "8-3",
    row_8_4 "8-4",
    row_8_5 "8-5",
    row_8_6 "8-6",
    row_8_7 "8-7",
    row_8_9 "8-9",
    row_8_10_1 "8-10-1",
    row_8_10_2 "8-10-2",
    row_8_10_3 "8-10-3",
    row_8_11 "8-11",
    row_8_12 "8-12",
    row_8_13 "8-13",
    row_9_1 "9-1",
    row_10_1 "10-1",
    row_10_2 "10-2",
    row_11_1 "11-1",
    row_11_2 "11-2",
    row_11_3 "11-3",
    row_11_4 "11-4",
    row_11_6 "11-6",
    row_11_13 "11-13",
    row_11_14 "11-14",
    row_11_15 "11-15",
    row_11_16 "11-16",
    row_11_17 "11-17",
    row_11_18 "11-18",
    row_11_21 "11-21",
    row_11_22 "11-22",
    row_11_23 "11-23",
    row_11_24 "11-24",
    row_11_26 "11-26",
    row_12_1 "12-1",
    row_12_2 "12-2",
    row_12_3 "12-3",
    row_12_4 "12-4",
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
    row_finalizers_13_1 "finalizers-13-1",
    row_finalizers_13_2 "finalizers-13-2",
    row_finalizers_13_3 "finalizers-13-3",
    row_finalizers_13_4 "finalizers-13-4",
    row_finalizers_13_5 "finalizers-13-5",
    row_finalizers_13_6 "finalizers-13-6",
    row_finalizers_13_7 "finalizers-13-7",
    row_finalizers_13_8 "finalizers-13-8",
    row_finalizers_13_9 "finalizers-13-9",
    row_finalizers_13_10 "finalizers-13-10",
    row_finalizers_13_11 "finalizers-13-11",
    row_finalizers_13_12 "finalizers-13-12",
    row_finalizers_13_13 "finalizers-13-13",
    row_finalizers_13_14 "finalizers-13-14",
    row_finalizers_13_15 "finalizers-13-15",
    row_15_1 "15-1",
    row_15_2 "15-2",
    row_15_3 "15-3",
    row_15_4 "15-4",
    row_15_5 "15-5",
    row_15_6 "15-6",
    row_15_7 "15-7",
}
