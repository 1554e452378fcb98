//! What counts as orphaned, and what only looks so for a moment.
#![allow(clippy::unwrap_used, reason = "tests")]

use bitts_api::{Claim, Kind, Object, Volume};
use bitts_provisioner::disk::{Census, Found, Stray};
use bitts_provisioner::{Home, OrphanKind, Record, Share, orphans};
use serde_json::{Value, json};

fn record(uid: &str) -> Record {
    let text = json!({"volume": format!("pvc-{uid}"), "path": format!("d-{uid}"),
        "claim": {"namespace": "default", "name": "c", "uid": uid},
        "access": {"mode": 504, "uid": null, "gid": null}, "onDelete": "delete", "bytes": 1});
    serde_json::from_value(text).unwrap()
}

fn found(uid: &str, is_there: bool) -> Found {
    Found {
        record: record(uid),
        written: 100,
        is_there,
    }
}

fn merged(mut object: Value, change: Value) -> Value {
    for (member, value) in change.as_object().unwrap() {
        match value {
            Value::Object(_) if object[member].is_object() => {
                object[member] = merged(object[member].clone(), value.clone());
            }
            _ => object[member] = value.clone(),
        }
    }
    object
}

fn volume(uid: &str, change: Value) -> Volume {
    let object = json!({
        "metadata": {"name": format!("pvc-{uid}"), "uid": format!("v-{uid}"),
            "annotations": {"bitts.dev/provisioned-on": "n1"}},
        "spec": {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"],
            "local": {"path": format!("/data/d-{uid}")},
            "claimRef": {"namespace": "default", "name": "c", "uid": uid}},
    });
    let text = merged(object, change).to_string();
    match Kind::Volume.read(text.as_bytes()).unwrap() {
        Object::Volume(volume) => (*volume).clone(),
        other => panic!("{other:?}"),
    }
}

fn claim(uid: &str, volume: Option<&str>) -> Claim {
    let text = json!({"metadata": {"namespace": "default", "name": "c", "uid": uid},
        "spec": {"volumeName": volume}});
    match Kind::Claim.read(text.to_string().as_bytes()).unwrap() {
        Object::Claim(claim) => (*claim).clone(),
        other => panic!("{other:?}"),
    }
}

fn kinds(census: Census, volumes: &[Volume], claims: &[Claim]) -> Vec<OrphanKind> {
    let home = Home::Node("n1".into());
    let found = orphans(&home, &[("/data".to_owned(), census)], volumes, claims);
    found.into_iter().map(|orphan| orphan.kind).collect()
}

fn of(volumes: Vec<Found>) -> Census {
    Census {
        volumes,
        ..Census::default()
    }
}

#[test]
fn each_half_without_the_other_is_told() {
    let none = json!({});
    let both = [volume("u", none.clone())];
    assert!(kinds(of(vec![found("u", true)]), &both, &[]).is_empty());
    assert_eq!(
        kinds(of(vec![found("u", true)]), &[], &[]),
        [OrphanKind::RecordWithoutVolume]
    );
    assert_eq!(
        kinds(of(vec![found("u", false)]), &[], &[]),
        [OrphanKind::RecordWithoutVolume]
    );
    assert_eq!(
        kinds(of(vec![found("u", false)]), &both, &[]),
        [OrphanKind::VolumeWithoutDirectory]
    );
    assert_eq!(
        kinds(Census::default(), &both, &[]),
        [OrphanKind::VolumeWithoutDirectory]
    );
    let stray = |path: &str| Census {
        strays: vec![Stray {
            path: path.into(),
            changed: 1,
            is_empty: false,
        }],
        ..Census::default()
    };
    assert_eq!(
        kinds(stray("d-u"), &both, &[]),
        [OrphanKind::VolumeWithoutRecord],
        "told once"
    );
    assert_eq!(
        kinds(stray("other"), &[], &[]),
        [OrphanKind::DirectoryWithoutRecord]
    );
    let unreadable = Census {
        unreadable: vec![("pvc-z".into(), "{".to_owned())],
        ..Census::default()
    };
    assert_eq!(kinds(unreadable, &[], &[]), [OrphanKind::UnreadableRecord]);
    let retained = |is_there| Census {
        retained: vec![found("u", is_there)],
        ..Census::default()
    };
    assert!(kinds(retained(true), &[], &[]).is_empty());
    assert_eq!(
        kinds(retained(false), &[], &[]),
        [OrphanKind::RetainedWithoutDirectory]
    );
}

#[test]
fn what_is_under_way_is_no_orphan() {
    // Being made: the claim waits.
    let making = of(vec![found("u", true)]);
    assert!(kinds(making.clone(), &[], &[claim("u", None)]).is_empty());
    // Another claim of that name waits, or it had its volume: that is lost.
    for other in [claim("w", None), claim("u", Some("pvc-u"))] {
        assert_eq!(
            kinds(making.clone(), &[], &[other]),
            [OrphanKind::RecordWithoutVolume]
        );
    }
    // Being deleted.
    for change in [
        json!({"metadata": {"annotations": {"bitts.dev/deleting": "u"}}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ] {
        let going = [volume("u", change)];
        assert!(kinds(Census::default(), &going, &[]).is_empty());
        assert!(kinds(of(vec![found("u", false)]), &going, &[]).is_empty());
    }
}

#[test]
fn a_volume_of_the_name_for_another_claim_is_not_its_volume() {
    let change = json!({"spec": {"claimRef": {"uid": "w"}}});
    let theirs = [volume("u", change)];
    assert_eq!(
        kinds(of(vec![found("u", true)]), &theirs, &[]),
        [OrphanKind::RecordWithoutVolume]
    );
}

/// Two provisioners of one name: the volume lies where the other one made it.
#[test]
fn a_volume_that_lies_elsewhere_is_not_its_volume() {
    let change = json!({"spec": {"local": {"path": "/other/d-u"}}});
    assert_eq!(
        kinds(of(vec![found("u", true)]), &[volume("u", change)], &[]),
        [OrphanKind::RecordWithoutVolume]
    );
    let spelt = json!({"spec": {"local": {"path": "/data//d-u/"}}});
    assert!(kinds(of(vec![found("u", true)]), &[volume("u", spelt)], &[]).is_empty());
}

#[test]
fn volumes_of_other_nodes_and_shares_are_not_missed_here() {
    let elsewhere = json!({"metadata": {"annotations": {"bitts.dev/provisioned-on": "n2"}}});
    assert!(kinds(Census::default(), &[volume("u", elsewhere)], &[]).is_empty());
    let on = |share: &str| {
        let server = share.split_once(":/").unwrap().0;
        let path = format!("{}/d-u", &share[server.len() + 1..]);
        volume(
            "u",
            json!({"metadata": {"annotations": {"bitts.dev/provisioned-on": share}},
                "spec": {"local": null, "nfs": {"server": server, "path": path}}}),
        )
    };
    let share = Share::parse("nas:/export").unwrap();
    let home = Home::Share(share);
    let root = |census| [("nas:/export".to_owned(), census)];
    let found = orphans(&home, &root(Census::default()), &[on("nas:/export")], &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path.as_deref(), Some("d-u"));
    for other in ["nas:/other", "nas2:/export"] {
        assert!(orphans(&home, &root(Census::default()), &[on(other)], &[]).is_empty());
    }
}
