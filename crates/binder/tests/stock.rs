//! Findings of the lives that are lived under kube-controller-manager too (e2e/tests/lives): what ends
//! the same there and here, in every mode.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, ObjectKey};
use serde_json::json;
use support::{Store, World, claim, volume};

/// B27: a phase is written with its message; a reason that somebody wrote stays.
#[test]
fn a_reason_written_by_hand_outlives_a_change_of_phase() {
    let mut store = Store::default();
    let mut made = volume("v", "1Gi");
    made["status"] = json!({"phase": "Pending", "message": "by hand", "reason": "ByHand"});
    store.create(Kind::Volume, made);
    let mut world = World::new(store);
    world.start();
    world.settle();
    let status = &world.store.objects[&ObjectKey::volume("v")]["status"];
    assert_eq!(status["phase"], "Available");
    assert_eq!(status["reason"], "ByHand");
    assert!(status["message"].is_null(), "{status}");
}

/// X5: the phase alone says whether a claim tells who uses it, also where somebody wrote it by hand.
#[test]
fn a_claim_called_bound_by_hand_tells_that_no_pod_uses_it() {
    let mut store = Store::default();
    let mut made = claim("c", "1Gi");
    made["spec"]["storageClassName"] = json!("slow");
    made["status"] = json!({"phase": "Bound"});
    store.create(Kind::Claim, made);
    store.create(
        Kind::StorageClass,
        json!({"metadata": {"name": "slow"}, "provisioner": "example.com/disk"}),
    );
    let mut world = World::new(store);
    world.options.unused_condition = true;
    world.start();
    world.settle();
    let status = &world.store.objects[&ObjectKey::claim("default", "c")]["status"];
    assert_eq!(status["phase"], "Bound");
    assert_eq!(
        status["conditions"][0]["reason"], "NoPodsUsingPVC",
        "{status}"
    );
}
