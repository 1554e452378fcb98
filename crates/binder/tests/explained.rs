//! What `explain` says of manifests.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Claim, Volume};
use bitts_binder::{Misfit, Outlook, Waiting, explain};
use serde_json::{Value, json};
use support::{claim, volume};

fn volumes(all: Vec<Value>) -> Vec<Volume> {
    let read = |v| serde_json::from_value(v).unwrap();
    all.into_iter().map(read).collect()
}

fn claims(all: Vec<Value>) -> Vec<Claim> {
    let read = |v| serde_json::from_value(v).unwrap();
    all.into_iter().map(read).collect()
}

#[test]
fn each_volume_is_accounted_for() {
    let mut gold = volume("gold", "9Gi");
    gold["spec"]["storageClassName"] = "gold".into();
    let mut block = volume("block", "9Gi");
    block["spec"]["volumeMode"] = "Block".into();
    let mut taken = volume("taken", "9Gi");
    taken["spec"]["claimRef"] = json!({"namespace": "x", "name": "y", "uid": "z"});
    let mut fits = volume("fits", "2Gi");
    fits.as_object_mut().unwrap().remove("status"); // as in a manifest
    let all = vec![
        gold,
        block,
        taken,
        fits,
        volume("big", "5Gi"),
        volume("small", "1Gi"),
        volume("vast", "9999999Ei"),
    ];
    let told = explain(&volumes(all), &claims(vec![claim("c", "2Gi")]), &[]);
    let [told] = &told[..] else { panic!() };
    assert_eq!(told.outlook, Outlook::Gets("fits".into()));
    let others: Vec<_> = told
        .candidates
        .iter()
        .map(|c| (c.reason, c.count, c.names[0].as_str()))
        .collect();
    assert_eq!(
        others,
        [
            (Misfit::Taken, 1, "taken"),
            (Misfit::VolumeMode, 1, "block"),
            (Misfit::NoCapacity, 1, "vast"),
            (Misfit::TooSmall, 1, "small"),
            (Misfit::Class, 1, "gold"),
            (Misfit::NotChosen, 1, "big"),
        ]
    );
}

#[test]
fn the_oldest_claim_is_served_first_and_none_twice() {
    let aged = |name: &str, time: &str| {
        let mut c = claim(name, "1Gi");
        c["metadata"]["creationTimestamp"] = time.into();
        c
    };
    let all = vec![
        aged("late", "2026-02-01T00:00:00Z"),
        aged("early", "2026-01-01T00:00:00Z"),
    ];
    let told = explain(&volumes(vec![volume("v", "1Gi")]), &claims(all), &[]);
    assert_eq!(told[0].claim.1, "early");
    assert_eq!(told[0].outlook, Outlook::Gets("v".into()));
    assert_eq!(told[1].outlook, Outlook::Waits(Waiting::NoVolume));
    assert_eq!(told[1].candidates[0].reason, Misfit::Taken);
}

#[test]
fn a_volume_named_for_a_claim_is_explained_by_the_rules_for_named_ones() {
    let mut named = claim("c", "9Gi");
    named["spec"]["volumeName"] = "v".into();
    let told = explain(
        &volumes(vec![volume("v", "1Gi")]),
        &claims(vec![named]),
        &[],
    );
    let why = Waiting::NamedMisfit("v".into(), Misfit::TooSmall);
    assert_eq!(told[0].outlook, Outlook::Waits(why));
    assert_eq!(told[0].candidates[0].reason.code(), "too-small");
}
