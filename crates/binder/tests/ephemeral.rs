//! The claims of generic ephemeral volumes (X9, X10).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::machine::{Effect, Outcome};
use bitts_api::{Kind, ObjectKey, names};
use serde_json::{Value, json};
use support::{Fate, Store, World, claim, volume};

fn started() -> World {
    let mut world = World::new(Store::default());
    world.start();
    world
}

/// A pod with one ephemeral volume: its claim is `p-data`.
fn pod() -> Value {
    json!({
        "metadata": {"name": "p"},
        "spec": {"volumes": [
            {"name": "none", "emptyDir": {}},
            {"name": "data", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"name": "ignored", "labels": {"a": "b"}, "annotations": {"note": "x"},
                             "finalizers": ["ignored"]},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }}},
        ]},
    })
}

fn own() -> ObjectKey {
    ObjectKey::claim("default", "p-data")
}

/// X9
#[test]
fn the_claim_is_made_from_its_template_and_owned_by_its_pod() {
    let mut world = started();
    world.create(Kind::Pod, pod());
    world.run();
    let claim = &world.store.objects[&own()];
    assert_eq!(
        claim["spec"],
        pod()["spec"]["volumes"][1]["ephemeral"]["volumeClaimTemplate"]["spec"]
    );
    let mut metadata = claim["metadata"].clone();
    for of_the_api in ["uid", "resourceVersion"] {
        metadata.as_object_mut().unwrap().remove(of_the_api);
    }
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p",
                       "controller": true, "blockOwnerDeletion": true});
    assert_eq!(
        metadata,
        json!({"name": "p-data", "namespace": "default", "labels": {"a": "b"},
               "annotations": {"note": "x"}, "ownerReferences": [owner]})
    );
    assert_eq!(
        world.told(),
        ["Normal FailedBinding"],
        "no volume fits it yet"
    );
}

/// X9: from the pod to a bound claim in one go.
#[test]
fn the_claim_is_bound_like_any_other() {
    let mut world = started();
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.create(Kind::Pod, pod());
    world.run();
    assert_eq!(world.store.objects[&own()]["status"]["phase"], "Bound");
    assert_eq!(world.steps[0], "create-ephemeral-claim default/p-data");
}

/// X9
#[test]
fn a_claim_of_somebody_else_is_left_alone_and_told_of_once() {
    let mut world = started();
    world.create(Kind::Claim, claim("p-data", "1Gi"));
    world.run();
    world.events.clear();
    let p = world.create(Kind::Pod, pod());
    world.run();
    world.edit(&p, &json!({"metadata": {"labels": {"touched": "yes"}}}));
    world.run();
    let [event] = &world.events[..] else {
        panic!("{:?}", world.events);
    };
    assert_eq!((&event.about, event.reason), (&p, "FailedBinding"));
    assert_eq!(
        event.message,
        "ephemeral volume data: PVC default/p-data was not created for pod default/p (pod is not \
         owner)"
    );
    assert_eq!(event.source, Some(names::source::EPHEMERAL)); // N9
    assert!(world.store.objects[&own()]["metadata"]["ownerReferences"].is_null());
    // It goes: the pod's own takes its place at once.
    world.delete(&own());
    world.run();
    let owner = &world.store.objects[&own()]["metadata"]["ownerReferences"][0]["uid"];
    assert_eq!(owner, "uid-p");
}

/// X9
#[test]
fn a_claim_that_was_deleted_is_made_again_while_its_pod_stays() {
    let mut world = started();
    let p = world.create(Kind::Pod, pod());
    world.run();
    world.delete(&own());
    world.run();
    assert!(world.store.objects.contains_key(&own()));
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    world.edit(&p, &deleting);
    world.delete(&own());
    world.run();
    assert!(!world.store.objects.contains_key(&own()), "the pod goes");
}

/// X10: whatever becomes of the request, one claim is there in the end, and nobody is told off.
#[test]
fn a_creation_may_be_lost_repeated_or_cut_short() {
    for fate in [
        Fate::Lost,
        Fate::AnswerLost,
        Fate::DeathBefore,
        Fate::DeathAfter,
    ] {
        let mut world = started();
        world.create(Kind::Volume, volume("v", "1Gi"));
        world.create(Kind::Pod, pod());
        assert!(matches!(world.queue[0], Effect::Create(_)));
        world.execute(0, fate);
        world.settle();
        let claim = &world.store.objects[&own()];
        assert_eq!(claim["status"]["phase"], "Bound", "{fate:?}");
        assert!(world.events.is_empty(), "{fate:?}: {:?}", world.events);
    }
}

/// X9: the claim is there, but no watch told of it yet.
#[test]
fn a_claim_that_was_unheard_of_is_found_by_its_creation() {
    for (owners, events) in [
        (json!([{"uid": "uid-p", "controller": true}]), 0),
        (json!([{"uid": "uid-p"}]), 1),
    ] {
        let mut world = started();
        let mut unheard = claim("p-data", "1Gi");
        unheard["metadata"]["ownerReferences"] = owners;
        world.store.create(Kind::Claim, unheard);
        let p = world.create(Kind::Pod, pod());
        world.settle();
        let told = world.events.iter().filter(|e| e.about == p).count();
        assert_eq!(told, events);
        let creations = world
            .trace
            .iter()
            .filter(|e| matches!(e, Effect::Create(_)));
        assert_eq!(creations.count(), 1);
    }
}

/// A claim that is gone and cannot be made again stands in nobody's way.
#[test]
fn a_claim_that_is_gone_is_offered_no_volume() {
    let mut world = started();
    world.create(Kind::Pod, pod());
    world.run();
    let other = world.create(Kind::Claim, claim("younger", "1Gi"));
    world.run();
    world.delete(&own());
    world.queue.clear();
    let refused = Outcome::Refused("exceeded quota".to_owned());
    world.feed(bitts_api::machine::Input::Finished(own(), refused));
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.run();
    assert_eq!(world.store.objects[&other]["status"]["phase"], "Bound");
}

/// The original keeps a quota that is used up to its own log; here the pod tells, once.
#[test]
fn a_refused_creation_is_told_of_the_pod_and_tried_again_ever_later() {
    let mut world = started();
    let p = world.create(Kind::Pod, pod());
    let mut waits = Vec::new();
    for _ in 0..3 {
        world.queue.clear();
        let refused = Outcome::Refused("exceeded quota".to_owned());
        world.feed(bitts_api::machine::Input::Finished(own(), refused));
        assert!(world.queue.is_empty(), "{:?}", world.queue);
        waits.push(world.timers[0].0);
        world.wake();
    }
    assert!(waits.is_sorted_by(|a, b| a < b), "{waits:?}");
    let [event] = &world.events[..] else {
        panic!("{:?}", world.events);
    };
    assert_eq!((&event.about, event.reason), (&p, "FailedBinding"));
    assert_eq!(
        event.message,
        "ephemeral volume data: create PVC p-data: exceeded quota"
    );
    world.run();
    assert!(world.store.objects.contains_key(&own()));
}

/// X9: what is said of one volume of a pod says nothing of the other.
#[test]
fn refusals_of_two_volumes_of_a_pod_are_told_once_each() {
    let mut world = started();
    let mut two = pod();
    let mut second = two["spec"]["volumes"][1].clone();
    second["name"] = "more".into();
    two["spec"]["volumes"].as_array_mut().unwrap().push(second);
    world.create(Kind::Pod, two);
    for _ in 0..5 {
        world.run_refusing(&["create-ephemeral-claim"]);
        world.wake();
    }
    assert_eq!(world.events.len(), 2, "{:?}", world.events);
}
