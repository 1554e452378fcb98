//! Who waits for what, and what wakes whom: nothing here is repaired by a resync.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::machine::{Effect, Input, Outcome};
use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{Store, World, claim, step, volume};

fn started() -> World {
    let mut world = World::new(Store::default());
    world.start();
    world
}

fn in_class(mut object: Value, class: &str) -> Value {
    object["spec"]["storageClassName"] = class.into();
    object
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode})
}

fn phase(world: &World, claim: &str) -> String {
    let key = ObjectKey::claim("default", claim);
    let phase = &world.store.objects[&key]["status"]["phase"];
    phase.as_str().unwrap().into()
}

#[test]
fn nothing_is_decided_before_all_is_listed() {
    let mut store = Store::default();
    let (mut v, mut c) = (volume("v", "1Gi"), claim("c", "1Gi"));
    v["metadata"]["finalizers"] = json!(["kubernetes.io/pv-protection"]);
    c["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
    store.create(Kind::Volume, v);
    store.create(Kind::Claim, c);
    let mut world = World::new(store);
    for kind in [Kind::Volume, Kind::Claim, Kind::StorageClass, Kind::Pod] {
        let all = world.store.list(kind);
        world.feed(Input::Listed(kind, all));
        assert!(world.trace.is_empty());
    }
    world.feed(Input::Listed(Kind::Node, vec![]));
    assert_eq!(step(&world.queue[0]), "reserve-volume");
}

#[test]
fn a_new_volume_wakes_the_claim_that_fits_it_best() {
    let mut world = started();
    for (name, size) in [("small", "1Gi"), ("fits", "3Gi"), ("large", "9Gi")] {
        world.create(Kind::Claim, claim(name, size));
    }
    world.create(Kind::Claim, in_class(claim("elsewhere", "3Gi"), "gold"));
    world.run();
    let told = world.events.len();
    world.create(Kind::Volume, volume("v", "4Gi"));
    world.run();
    assert_eq!(phase(&world, "fits"), "Bound");
    assert_eq!(phase(&world, "small"), "Pending");
    assert_eq!(world.events.len(), told, "nobody is told twice");
}

#[test]
fn a_freed_volume_wakes_a_claim() {
    let mut world = started();
    world.create(Kind::Claim, claim("c", "1Gi"));
    let mut taken = volume("v", "1Gi");
    taken["spec"]["claimRef"] = json!({"namespace": "default", "name": "gone", "uid": "u"});
    taken["status"]["phase"] = "Released".into();
    let v = world.create(Kind::Volume, taken);
    world.run();
    assert_eq!(phase(&world, "c"), "Pending");
    world.edit(&v, &json!({"spec": {"claimRef": null}})); // B28: the operator offers it again
    world.run();
    assert_eq!(phase(&world, "c"), "Bound");
}

#[test]
fn one_volume_among_ten_thousand_waiting_claims_is_one_bind() {
    let mut world = started();
    for n in 0..10_000 {
        let mut waiting = claim(&format!("c-{n}"), "1Gi");
        waiting["spec"]["selector"] = json!({"matchLabels": {"app": "db", "n": n.to_string()}});
        world.create(Kind::Claim, waiting);
    }
    let before = world.trace.len();
    let mut v = volume("v", "1Gi");
    v["metadata"]["labels"] = json!({"app": "db", "n": "7000"});
    world.create(Kind::Volume, v);
    world.run();
    assert_eq!(phase(&world, "c-7000"), "Bound");
    assert_eq!(world.trace.len() - before, 4);
}

#[test]
fn a_named_volume_wakes_its_claim_when_it_appears() {
    let mut world = started();
    let mut named = claim("c", "1Gi");
    named["spec"]["volumeName"] = "v".into();
    world.create(Kind::Claim, named);
    // A claim that any volume would do for does not get in between.
    world.create(Kind::Claim, claim("greedy", "1Gi"));
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.run();
    assert_eq!(phase(&world, "c"), "Bound");
    assert_eq!(phase(&world, "greedy"), "Pending");
}

#[test]
fn a_class_that_appears_wakes_its_claims() {
    let mut world = started();
    world.create(Kind::Claim, in_class(claim("c", "1Gi"), "gold"));
    world.run();
    let missing = "storageclass.storage.k8s.io \"gold\" not found";
    assert_eq!(world.events[0].message, missing);
    world.create(
        Kind::StorageClass,
        class("gold", "vendor.com/disk", "Immediate"),
    );
    world.run();
    let c = &world.store.objects[&ObjectKey::claim("default", "c")];
    let annotations = &c["metadata"]["annotations"];
    assert_eq!(
        annotations["volume.kubernetes.io/storage-provisioner"],
        "vendor.com/disk"
    );
    assert_eq!(
        annotations["volume.beta.kubernetes.io/storage-provisioner"],
        "vendor.com/disk"
    );
    assert_eq!(
        world.told(),
        ["Warning ProvisioningFailed", "Normal ExternalProvisioning"]
    );
}

#[test]
fn provisioners_that_are_not_built_in_are_named() {
    let mut world = started();
    let name = "kubernetes.io/no-provisioner";
    world.create(Kind::StorageClass, class("local", name, "Immediate"));
    world.create(Kind::Claim, in_class(claim("c", "1Gi"), "local"));
    world.run();
    assert_eq!(
        world.events[0].message,
        format!("no volume plugin matched name: {name}")
    );
}

#[test]
fn a_default_class_is_given_to_claims_that_said_nothing() {
    let mut world = started();
    let mut silent = claim("silent", "1Gi");
    silent["spec"]
        .as_object_mut()
        .unwrap()
        .remove("storageClassName");
    world.create(Kind::Claim, silent);
    world.create(Kind::Claim, claim("none", "1Gi"));
    world.run();
    for (name, time) in [
        ("old", "2024-01-01T00:00:00Z"),
        ("new", "2025-01-01T00:00:00Z"),
    ] {
        let mut default = class(name, "vendor.com/disk", "Immediate");
        default["metadata"]["annotations"] =
            json!({"storageclass.kubernetes.io/is-default-class": "true"});
        default["metadata"]["creationTimestamp"] = time.into();
        world.store.create(Kind::StorageClass, default);
    }
    let all = world.store.list(Kind::StorageClass);
    world.feed(Input::Listed(Kind::StorageClass, all));
    world.run();
    let class = |name: &str| {
        let key = ObjectKey::claim("default", name);
        world.store.objects[&key]["spec"]["storageClassName"].clone()
    };
    assert_eq!(class("silent"), "new");
    assert_eq!(class("none"), "");
}

#[test]
fn delayed_binding_tells_what_it_waits_for() {
    let mut world = started();
    world.create(
        Kind::StorageClass,
        class("local", "vendor.com/disk", "WaitForFirstConsumer"),
    );
    world.create(Kind::Volume, in_class(volume("v", "1Gi"), "local"));
    let c = world.create(Kind::Claim, in_class(claim("c", "1Gi"), "local"));
    world.run();
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]}})
    };
    let q = world.create(Kind::Pod, pod("q"));
    world.create(Kind::Pod, pod("p"));
    world.delete(&q);
    let messages: Vec<_> = world.events.iter().map(|e| &*e.message).collect();
    assert_eq!(
        messages,
        [
            "waiting for first consumer to be created before binding",
            "waiting for pod q to be scheduled",
            "waiting for pods p,q to be scheduled",
            "waiting for pod p to be scheduled",
        ]
    );
    assert_eq!(phase(&world, "c"), "Pending");
    // The scheduler found no volume and chose a node: now one has to be made.
    let node = json!({"volume.kubernetes.io/selected-node": "n"});
    world.edit(&c, &json!({"metadata": {"annotations": node}}));
    world.run();
    assert_eq!(world.told().last().unwrap(), "Normal ExternalProvisioning");
}

#[test]
fn the_scheduler_reserves_and_the_binder_completes() {
    let mut world = started(); // E6
    world.create(
        Kind::StorageClass,
        class("local", "x", "WaitForFirstConsumer"),
    );
    let v = world.create(Kind::Volume, in_class(volume("v", "1Gi"), "local"));
    world.create(Kind::Claim, in_class(claim("c", "1Gi"), "local"));
    world.run();
    world.edit(
        &v,
        &json!({"spec": {"claimRef": {
        "namespace": "default", "name": "c", "uid": "uid-c"}}}),
    );
    world.run();
    assert_eq!(phase(&world, "c"), "Bound");
}

#[test]
fn a_lost_claim_heals_when_its_volume_returns() {
    let mut world = started(); // B19
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.create(Kind::Claim, claim("c", "1Gi"));
    world.run();
    world.delete(&ObjectKey::volume("v"));
    world.run();
    assert_eq!(phase(&world, "c"), "Lost");
    assert_eq!(world.told(), ["Warning ClaimLost"]);
    let mut again = volume("v", "1Gi");
    again["metadata"]["uid"] = "uid-again".into();
    world.create(Kind::Volume, again);
    world.run();
    assert_eq!(phase(&world, "c"), "Bound");
}

#[test]
fn a_restored_volume_is_held() {
    let mut world = started(); // section 13, weakness 13
    let mut restored = volume("v", "1Gi");
    restored["spec"]["claimRef"] = json!({"namespace": "default", "name": "c", "uid": "lost"});
    restored["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    restored["status"]["phase"] = "Pending".into();
    let v = world.create(Kind::Volume, restored);
    world.run();
    assert_eq!(world.steps, ["hold-volume v"]);
    assert_eq!(world.told(), ["Warning BittsVolumeHeld"]);
    let status = &world.store.objects[&v]["status"];
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["message"], *world.events[0].message);
    world.start();
    world.run();
    assert_eq!(
        world.events.len(),
        1,
        "a new process does not tell it again"
    );
    // The command that the event names.
    world.edit(&v, &json!({"spec": {"claimRef": null}}));
    world.run();
    assert_eq!(world.store.objects[&v]["status"]["phase"], "Available");
    assert_eq!(world.store.objects[&v]["status"]["message"], Value::Null);
}

#[test]
fn a_volume_made_for_a_claim_deleted_meanwhile_is_not_held() {
    let mut world = started();
    let mut asked = claim("c", "1Gi");
    asked["metadata"]["annotations"] = json!({"volume.kubernetes.io/storage-provisioner": "x.io"});
    let c = world.create(Kind::Claim, asked);
    world.delete(&c);
    let mut made = volume("v", "1Gi");
    made["metadata"]["annotations"] = json!({"pv.kubernetes.io/provisioned-by": "x.io"});
    made["spec"]["claimRef"] = json!({"namespace": "default", "name": "c", "uid": "uid-c"});
    made["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    made["status"]["phase"] = "Pending".into();
    let v = world.create(Kind::Volume, made);
    world.run();
    assert_eq!(world.store.objects[&v]["status"]["phase"], "Released");
}

#[test]
fn a_reserved_volume_wins_and_one_that_does_not_fit_is_explained() {
    let mut world = started(); // weakness 7
    let mut wide = volume("wide", "1Gi");
    wide["spec"]["accessModes"] = json!(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]);
    wide["spec"]["claimRef"] = json!({"namespace": "default", "name": "c"});
    world.create(Kind::Volume, wide);
    world.create(Kind::Volume, volume("narrow", "1Gi"));
    world.create(Kind::Claim, claim("c", "1Gi"));
    let mut small = volume("small", "1Gi");
    small["spec"]["claimRef"] = json!({"namespace": "default", "name": "d"});
    world.create(Kind::Volume, small);
    world.create(Kind::Claim, claim("d", "2Gi"));
    world.run();
    let c = &world.store.objects[&ObjectKey::claim("default", "c")];
    assert_eq!(c["spec"]["volumeName"], "wide");
    let last = &world.events.last().unwrap().message;
    assert!(
        last.ends_with("volume \"small\" is reserved for this claim, but it is too small"),
        "{last}"
    );
}

#[test]
fn a_volume_that_no_node_can_reach_is_bound_with_a_warning() {
    let mut world = started(); // E7
    let mut v = volume("v", "1Gi");
    v["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "cqh", "operator": "In", "values": ["chenqionghe"]}]}]}});
    world.create(Kind::Volume, v);
    world.create(Kind::Claim, claim("c", "1Gi"));
    world.run();
    assert_eq!(phase(&world, "c"), "Bound");
    assert_eq!(world.told(), ["Warning BittsNoNodeForVolume"]);
}

#[test]
fn a_list_is_taken_as_a_difference() {
    let mut world = started();
    world.create(Kind::Volume, volume("v", "1Gi"));
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    world.run();
    // The claim's deletion was missed by the watch.
    world.store.delete(&c);
    world.feed(Input::Listed(Kind::Claim, vec![]));
    world.run();
    let v = &world.store.objects[&ObjectKey::volume("v")];
    assert_eq!(v["status"]["phase"], "Released");
    let before = world.trace.len();
    for kind in support::KINDS {
        let all = world.store.list(kind);
        world.feed(Input::Listed(kind, all));
    }
    assert_eq!(
        world.trace.len(),
        before,
        "nothing changed, nothing is done"
    );
}

#[test]
fn nothing_repeats_at_rest() {
    let mut world = started();
    let mut keys = vec![
        world.create(Kind::Volume, volume("v", "1Gi")),
        world.create(Kind::Claim, claim("c", "1Gi")),
        world.create(Kind::Claim, claim("waits", "1Gi")),
    ];
    world.run();
    let before = world.trace.len();
    keys.extend(keys.clone());
    for key in keys {
        // A write that means nothing to the binder, e.g. a label.
        world.edit(&key, &json!({"metadata": {"labels": {"a": "b"}}}));
    }
    let new: Vec<_> = world.trace[before..]
        .iter()
        .filter(|e| !matches!(e, Effect::Wake(..)))
        .collect();
    assert!(new.is_empty(), "{new:?}");
}

#[test]
fn a_claim_whose_reservation_is_on_its_way_takes_no_second_volume() {
    let mut world = started();
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.create(Kind::Volume, volume("w", "1Gi"));
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    world.edit(&c, &json!({"metadata": {"labels": {"a": "b"}}}));
    let steps: Vec<_> = world.queue.iter().map(step).collect();
    assert_eq!(steps, ["reserve-volume"]);
}

#[test]
fn a_volume_that_is_being_reserved_is_not_offered_to_another_claim() {
    let mut world = started();
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.create(Kind::Volume, volume("w", "1Gi"));
    world.create(Kind::Claim, claim("c", "1Gi"));
    world.create(Kind::Claim, claim("d", "1Gi"));
    let both: Vec<_> = world
        .queue
        .iter()
        .map(|e| support::target(e).key.to_string())
        .collect();
    assert_eq!(both, ["v", "w"]);
}

/// B18
#[test]
fn a_claim_is_not_lost_on_the_word_of_a_list() {
    let mut world = started();
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.create(Kind::Claim, claim("c", "1Gi"));
    world.run();
    // A list from before the volume was made, as after an API server restarted.
    world.feed(Input::Listed(Kind::Volume, vec![]));
    world.run();
    assert_eq!(phase(&world, "c"), "Bound");
    assert_eq!(world.told(), [""; 0]);
    assert!(
        !world
            .steps
            .contains(&"mark-claim-lost default/c".to_owned())
    );
}

#[test]
fn a_write_that_changes_nothing_is_not_repeated_at_once() {
    let mut world = started();
    let v = world.create(Kind::Volume, volume("v", "1Gi"));
    world.edit(&v, &json!({"status": {"phase": "Pending"}}));
    let write = world.queue.pop_front().unwrap();
    assert_eq!(step(&write), "mark-volume-available");
    // Somebody puts it back on the way: the answer is the object as it was.
    for round in 1..=3 {
        world.see(&v);
        world.feed(Input::Finished(v.clone(), Outcome::Done));
        assert!(world.queue.is_empty());
        assert_eq!(world.timers.len(), round, "waits");
        let (_, retry) = world.timers[round - 1].clone();
        world.feed(Input::Alarm(retry));
        assert_eq!(
            world.queue.pop_front().as_ref().map(step),
            Some("mark-volume-available")
        );
    }
    assert!(world.timers[2].0 > world.timers[0].0, "ever later");
}

/// B13.3
#[test]
fn a_request_beyond_all_sizes_gets_nothing() {
    let mut world = started();
    let mut kept = volume("v", "1Gi");
    kept["spec"]["claimRef"] = json!({"namespace": "default", "name": "c"});
    world.create(Kind::Volume, kept);
    world.create(Kind::Claim, claim("c", "20E"));
    world.run();
    assert_eq!(phase(&world, "c"), "Pending");
}

/// B18, B19: a claim whose volume somebody cleared gets it back, whoever else it would fit.
#[test]
fn a_volume_that_was_cleared_by_hand_goes_back_to_its_claim() {
    let mut world = started();
    let v = world.create(Kind::Volume, volume("v", "1Gi"));
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    world.run();
    // Both come before it in every order.
    world.create(Kind::Claim, claim("a", "1Gi"));
    let mut named = claim("b", "1Gi");
    named["spec"]["volumeName"] = "v".into();
    world.create(Kind::Claim, named);
    world.run();
    let cleared = json!({"metadata": {"annotations": null}, "spec": {"claimRef": null}});
    world.edit(&v, &cleared);
    world.run();
    let owner = |world: &World| world.store.objects[&v]["spec"]["claimRef"]["uid"].clone();
    assert_eq!(owner(&world), "uid-c");
    assert_eq!(phase(&world, "c"), "Bound");
    // Once its claim is gone it is anybody's.
    world.edit(&v, &cleared);
    world.queue.clear();
    world.delete(&c);
    let unsent = Outcome::Failed("the API was away".into());
    world.feed(Input::Finished(v.clone(), unsent));
    world.settle();
    assert_eq!(owner(&world), "uid-b", "which named it");
}

/// B9: a claim waits for the volumes that are on their way, not for all that set out meanwhile.
#[test]
fn a_stream_of_volumes_keeps_no_claim_from_being_told() {
    let mut world = started();
    let unmarked = |name: &str| {
        let mut volume = volume(name, "2Gi");
        volume["status"]["phase"] = "Pending".into();
        volume
    };
    world.create(Kind::Volume, unmarked("v-0"));
    world.create(Kind::Claim, claim("large", "2Gi"));
    world.create(Kind::Claim, claim("small", "1Gi"));
    world.create(Kind::Volume, unmarked("v-1"));
    assert!(world.events.is_empty(), "one of both may do");
    world.execute(0, support::Fate::Done);
    let told: Vec<_> = world.events.iter().map(|e| e.about.name.as_str()).collect();
    assert_eq!(told, ["small"], "{:?}", world.queue);
    world.run();
    assert_eq!(phase(&world, "large"), "Bound");
    assert_eq!(phase(&world, "small"), "Bound");
}
