//! What a stock scheduler relies on (S10 to S12, S14, S15): the writes of its PreBind come as events
//! here, in every order that watches may bring them in.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, ObjectKey, names};
use serde_json::{Value, json};
use support::{Store, World, claim, volume};

fn class() -> Value {
    json!({"metadata": {"name": "wait"}, "provisioner": "vendor.com/disk",
           "volumeBindingMode": "WaitForFirstConsumer"})
}

fn waiting(mut object: Value) -> Value {
    object["spec"]["storageClassName"] = "wait".into();
    object
}

fn pod(name: &str, claims: &[&str]) -> Value {
    let volumes: Vec<_> = claims
        .iter()
        .map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}}))
        .collect();
    json!({"metadata": {"name": name}, "spec": {"volumes": volumes}})
}

/// A class that waits, the volumes, the claims, and a pod that uses all of them.
fn cluster(volumes: &[&str], claims: &[&str]) -> World {
    let mut store = Store::default();
    store.create(Kind::StorageClass, class());
    for name in volumes {
        store.create(Kind::Volume, waiting(volume(name, "1Gi")));
    }
    for name in claims {
        store.create(Kind::Claim, waiting(claim(name, "1Gi")));
    }
    store.create(Kind::Pod, pod("p", claims));
    let mut world = World::new(store);
    world.start();
    world.settle();
    world
}

fn v(name: &str) -> ObjectKey {
    ObjectKey::volume(name)
}

fn c(name: &str) -> ObjectKey {
    ObjectKey::claim("default", name)
}

/// What PreBind writes to a volume (S10).
fn reserve(claim: &str) -> Value {
    json!({
        "metadata": {"annotations": {names::BOUND_BY_CONTROLLER: "yes"}},
        "spec": {"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": "default", "name": claim, "uid": format!("uid-{claim}")}},
    })
}

/// What PreBind writes to a claim for which a volume has to be made (S10).
fn select(node: &str) -> Value {
    json!({"metadata": {"annotations": {names::SELECTED_NODE: node}}})
}

/// The scheduler polls for this (S10): volumeName, bind-completed, and a claimRef with a uid.
fn is_fully_bound(world: &World, claim: &str, volume: &str) -> bool {
    let (c, v) = (
        &world.store.objects[&c(claim)],
        &world.store.objects[&v(volume)],
    );
    c["spec"]["volumeName"] == volume
        && c["metadata"]["annotations"][names::BIND_COMPLETED] == "yes"
        && c["status"]["phase"] == "Bound"
        && v["spec"]["claimRef"]["uid"] == format!("uid-{claim}")
        && v["status"]["phase"] == "Bound"
}

/// S12: never bind an unbound volume for a claim that waits, scheduled or not.
#[test]
fn a_free_volume_is_the_schedulers_to_give() {
    let mut world = cluster(&["v"], &["c"]);
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    world.edit(&c("c"), &select("n"));
    world.settle();
    assert_eq!(
        world.store.objects[&v("v")]["spec"]["claimRef"],
        Value::Null
    );
    assert_eq!(world.steps, ["ask-provisioner default/c"]);
}

/// S11: the volume's event alone is enough, and the claim keeps what the scheduler said.
#[test]
fn a_reservation_of_the_scheduler_is_completed() {
    for selected in [false, true] {
        let mut world = cluster(&["v", "w"], &["c"]);
        if selected {
            world.store.edit(&c("c"), &select("n"));
            world.see(&c("c"));
            world.settle();
        }
        world.edit(&v("v"), &reserve("c"));
        world.settle();
        assert!(is_fully_bound(&world, "c", "v"));
        let annotations = &world.store.objects[&c("c")]["metadata"]["annotations"];
        assert_eq!(annotations[names::SELECTED_NODE].is_string(), selected);
        assert_eq!(
            world.store.objects[&v("w")]["spec"]["claimRef"],
            Value::Null
        );
    }
}

/// S11: a binder that was away while the scheduler wrote, at any moment of it.
#[test]
fn a_reservation_is_completed_by_a_binder_that_comes_later() {
    let mut world = cluster(&["v"], &["c"]);
    world.store.edit(&v("v"), &reserve("c"));
    world.start();
    world.settle();
    assert!(is_fully_bound(&world, "c", "v"));
}

/// S12: a claimRef is never cleared while its claim may still become bound. The scheduler reads a
/// cleared one as "reset" and starts over.
#[test]
fn a_reservation_that_cannot_be_completed_yet_stays() {
    let mut world = cluster(&[], &["c"]);
    // The volume's event overtakes the claim's: the binder does not know this claim yet.
    let unseen = world.store.create(Kind::Claim, waiting(claim("d", "1Gi")));
    let mut reserved = waiting(volume("v", "1Gi"));
    reserved["spec"]["claimRef"] = reserve("d")["spec"]["claimRef"].clone();
    world.create(Kind::Volume, reserved);
    world.settle();
    world.see(&unseen);
    world.settle();
    assert!(is_fully_bound(&world, "d", "v"));
    assert!(
        !world
            .steps
            .iter()
            .any(|s| s.starts_with("unbind") || s.starts_with("release"))
    );
}

/// S14: PreBind failed at its second claim. The first is bound all the same, the second waits.
#[test]
fn half_a_pre_bind_is_half_bound() {
    let mut world = cluster(&["v", "w"], &["c", "d"]);
    world.edit(&v("v"), &reserve("c"));
    world.settle();
    assert!(is_fully_bound(&world, "c", "v"));
    assert_eq!(world.store.objects[&c("d")]["status"]["phase"], "Pending");
    assert_eq!(
        world.store.objects[&v("w")]["spec"]["claimRef"],
        Value::Null
    );
    world.edit(&v("w"), &reserve("d")); // the next cycle
    world.settle();
    assert!(is_fully_bound(&world, "d", "w"));
}

/// S10, P12: a volume is made on the chosen node, and its claim is bound to just that one.
#[test]
fn a_volume_made_for_the_chosen_node_is_bound() {
    let mut world = cluster(&["free"], &["c"]);
    world.edit(&c("c"), &select("n"));
    world.settle();
    let mut made = waiting(volume("pvc-uid-c", "1Gi"));
    made["status"]["phase"] = "Pending".into();
    made["metadata"]["annotations"] = json!({names::PROVISIONED_BY: "vendor.com/disk"});
    made["spec"]["claimRef"] = reserve("c")["spec"]["claimRef"].clone();
    world.create(Kind::Volume, made);
    world.settle();
    assert!(is_fully_bound(&world, "c", "pvc-uid-c"));
    let annotations = &world.store.objects[&c("c")]["metadata"]["annotations"];
    assert_eq!(
        annotations[names::SELECTED_NODE],
        "n",
        "kept until provisioning fails"
    );
}

/// P7, P12: the provisioner gives up by removing the annotation; the claim waits for the scheduler
/// again, and is not asked for on any other node meanwhile.
#[test]
fn a_node_that_was_given_up_is_not_chosen_again_by_the_binder() {
    let mut world = cluster(&[], &["c"]);
    world.edit(&c("c"), &select("n"));
    world.settle();
    let before = world.steps.len();
    world.edit(
        &c("c"),
        &json!({"metadata": {"annotations": {names::SELECTED_NODE: null}}}),
    );
    world.settle();
    assert_eq!(world.steps.len(), before);
    assert_eq!(world.told().last().unwrap(), "Normal WaitForPodScheduled");
}

/// S15: a pod that never met the scheduler chooses no node for its claim.
#[test]
fn a_pod_placed_by_hand_leaves_its_claim_waiting() {
    let mut world = cluster(&["v"], &["c"]);
    let p = ObjectKey::pod("default", "p");
    world.edit(&p, &json!({"spec": {"nodeName": "n"}}));
    world.settle();
    assert_eq!(world.store.objects[&c("c")]["status"]["phase"], "Pending");
    assert!(world.steps.is_empty(), "{:?}", world.steps);
}

/// B26: two volumes for one claim, as when the scheduler's write and a provisioner's crossed. The one
/// that lost is given back, or goes to its maker.
#[test]
fn of_two_reservations_one_is_kept() {
    let mut world = cluster(&["v", "w"], &["c"]);
    world.store.edit(&v("v"), &reserve("c"));
    world.store.edit(&v("w"), &reserve("c"));
    world.see(&v("w"));
    world.see(&v("v"));
    world.settle();
    let (kept, other) = if is_fully_bound(&world, "c", "v") {
        ("v", "w")
    } else {
        ("w", "v")
    };
    assert!(is_fully_bound(&world, "c", kept));
    let other = &world.store.objects[&v(other)];
    assert_eq!(other["spec"]["claimRef"], Value::Null);
    assert_eq!(other["status"]["phase"], "Available");
}
