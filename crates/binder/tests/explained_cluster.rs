//! What is said of objects as they are, reason by reason, and that what is advised helps.
#![allow(clippy::unwrap_used, reason = "tests")]

use bitts_api::{Kind, Object};
use bitts_binder::{Cluster, Obstacle, Report, State};
use proptest::prelude::*;
use serde_json::{Value, json};

fn claim() -> Value {
    json!({
        "metadata": {"name": "c", "namespace": "default", "uid": "c", "resourceVersion": "2"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "a",
                 "resources": {"requests": {"storage": "2Gi"}},
                 "selector": {"matchLabels": {"disk": "ssd"}}},
    })
}

fn volume() -> Value {
    json!({
        "metadata": {"name": "v", "uid": "v", "resourceVersion": "1", "labels": {"disk": "ssd"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "a",
                 "capacity": {"storage": "2Gi"}, "local": {"path": "/d"},
                 "persistentVolumeReclaimPolicy": "Retain"},
        "status": {"phase": "Available"},
    })
}

fn read(kind: Kind, object: &Value) -> Object {
    kind.read(object.to_string().as_bytes()).unwrap()
}

fn report(volume: &Value, claim: &Value) -> Report {
    let objects = [read(Kind::Volume, volume), read(Kind::Claim, claim)];
    let mut cluster = Cluster::new(objects);
    cluster.claim(&"default".into(), &"c".into()).unwrap()
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

/// The volume after the advice was followed and the binder saw it.
fn followed(volume: &Value, report: &Report) -> Value {
    let command = report.next.as_ref().unwrap().command.as_ref().unwrap();
    let [verb, object, kind, merging, flag, patch] = command.arguments() else {
        panic!("{command}");
    };
    let line = [verb, object, kind, merging, flag].map(String::as_str);
    assert_eq!(line, ["patch", "pv/v", "--type", "merge", "--patch"]);
    let mut volume = volume.clone();
    merge(&mut volume, &serde_json::from_str(patch).unwrap());
    if volume["spec"]["claimRef"].is_null() {
        volume["status"]["phase"] = "Available".into();
    }
    volume
}

#[test]
fn each_reason_is_told_and_most_are_cured() {
    let theirs = json!({"namespace": "x", "name": "y", "uid": "z"});
    let before = json!({"namespace": "default", "name": "c", "uid": "z"});
    let released =
        |owner: &Value| json!({"spec": {"claimRef": owner}, "status": {"phase": "Released"}});
    let cases = [
        (
            json!({"spec": {"claimRef": theirs}}),
            Obstacle::Taken,
            "belongs to claim x/y",
            false,
        ),
        (
            json!({"spec": {"claimRef": {"namespace": "x", "name": "y"}}}),
            Obstacle::Taken,
            "is reserved for claim x/y",
            false,
        ),
        (
            released(&theirs),
            Obstacle::Released,
            "holds data of claim x/y",
            true,
        ),
        (
            released(&before),
            Obstacle::Released,
            "holds data of an earlier claim of this name",
            true,
        ),
        (
            json!({"spec": {"claimRef": theirs}, "status": {"phase": "Failed"}}),
            Obstacle::Failed,
            "holds data of claim x/y",
            true,
        ),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            Obstacle::Deleting,
            "is being deleted",
            false,
        ),
        (
            json!({"spec": {"volumeMode": "Block"}}),
            Obstacle::VolumeMode,
            "is Block, Filesystem is asked for",
            false,
        ),
        (
            json!({"spec": {"accessModes": ["ReadOnlyMany"]}}),
            Obstacle::AccessModes,
            "has ROX, lacks RWO",
            true,
        ),
        (
            json!({"spec": {"volumeAttributesClassName": "fast"}}),
            Obstacle::AttributesClass,
            "has attributes class fast, no attributes class is asked for",
            false,
        ),
        (
            json!({"spec": {"capacity": null}}),
            Obstacle::NoCapacity,
            "says no capacity that can be read",
            true,
        ),
        (
            json!({"spec": {"capacity": {"storage": "500M"}}}),
            Obstacle::TooSmall,
            "holds 500M, 1647483648 too little",
            true,
        ),
        (
            json!({"spec": {"storageClassName": ""}}),
            Obstacle::Class,
            "has no class",
            true,
        ),
        (
            json!({"metadata": {"labels": {"disk": "tape"}}}),
            Obstacle::Selector,
            "does not satisfy disk=ssd",
            true,
        ),
        (
            json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "b"}}}),
            Obstacle::Class,
            "has class b",
            true,
        ),
    ];
    for (change, reason, detail, cured) in cases {
        let mut volume = volume();
        merge(&mut volume, &change);
        let told = report(&volume, &claim());
        assert_eq!(told.state, State::Waiting, "{change}");
        let [group] = &told.candidates[..] else {
            panic!("{:?}", told.candidates);
        };
        assert_eq!((group.reason, group.count), (reason, 1), "{change}");
        assert_eq!(group.only_reason, 1, "{change}");
        assert_eq!(group.details()[0].0, detail, "{change}");
        let command = told.next.as_ref().unwrap().command.as_ref();
        assert_eq!(command.is_some(), cured, "{change}");
        if cured {
            let after = report(&followed(&volume, &told), &claim());
            assert_eq!(after.state, State::Binding, "{change}");
        }
    }
}

/// Data of a volume that its maker is about to delete is not given to anybody.
#[test]
fn what_is_being_deleted_by_its_maker_is_not_given_away() {
    let mut volume = volume();
    let owner = json!({"namespace": "x", "name": "y", "uid": "z"});
    merge(
        &mut volume,
        &json!({
            "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "csi.example.com"}},
            "spec": {"claimRef": owner, "persistentVolumeReclaimPolicy": "Delete"},
            "status": {"phase": "Released"},
        }),
    );
    let told = report(&volume, &claim());
    assert_eq!(told.candidates[0].reason, Obstacle::Released);
    assert_eq!(told.next.unwrap().command, None);
}

fn a_change() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"spec": {"accessModes": ["ReadOnlyMany"]}})),
        Just(json!({"spec": {"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]}})),
        Just(json!({"spec": {"volumeMode": "Block"}})),
        Just(json!({"spec": {"capacity": null}})),
        (1..4u8).prop_map(|n| json!({"spec": {"capacity": {"storage": format!("{n}Gi")}}})),
        "[ab]?".prop_map(|class| json!({"spec": {"storageClassName": class}})),
        "[ab]".prop_map(|c| json!(
            {"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": c}}}
        )),
        ("[de]", "[xy]?").prop_map(|(k, v)| json!({"metadata": {"labels": {k: v}}})),
        (
            prop_oneof![Just("c"), Just("other")],
            prop_oneof![Just("Released"), Just("Failed")]
        )
            .prop_map(|(name, phase)| json!({
                "spec": {"claimRef": {"namespace": "default", "name": name, "uid": "old"}},
                "status": {"phase": phase},
            })),
    ]
}

fn a_term() -> impl Strategy<Value = Value> {
    let operator = prop_oneof![
        Just("In"),
        Just("NotIn"),
        Just("Exists"),
        Just("DoesNotExist")
    ];
    ("[de]", operator, "[xy]").prop_map(|(key, operator, value)| {
        let valued = operator.ends_with("In");
        let values = if valued { json!([value]) } else { json!([]) };
        json!({"key": key, "operator": operator, "values": values})
    })
}

proptest! {
    /// Whatever is advised as an edit of the volume makes the claim bind, also where terms of the
    /// selector contradict each other.
    #[test]
    fn an_advised_edit_always_helps(
        changes in prop::collection::vec(a_change(), 0..4),
        terms in prop::collection::vec(a_term(), 0..3),
        asked in 1..4u8,
    ) {
        let mut volume = volume();
        changes.iter().for_each(|change| merge(&mut volume, change));
        let mut claim = claim();
        claim["spec"]["selector"]["matchExpressions"] = json!(terms);
        claim["spec"]["resources"]["requests"]["storage"] = format!("{asked}Gi").into();
        let told = report(&volume, &claim);
        let code = told.next.as_ref().map(|next| next.code);
        if matches!(code, Some("edit-volume" | "release-volume")) {
            let after = report(&followed(&volume, &told), &claim);
            prop_assert_eq!(after.state, State::Binding, "{}\n{:?}", volume, told.next);
        }
        let count: usize = told.candidates.iter().map(|group| group.count).sum();
        prop_assert_eq!(count, usize::from(told.state == State::Waiting));
    }
}
