//! Findings of the lives that are lived under kube-controller-manager too (e2e/tests/lives): what ends
//! the same there and here, in every mode.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, ObjectKey};
use serde_json::json;
use support::{Store, World, volume};

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
