//! What users get wrong, and clusters in which nothing fits: one clear event each, no storm, no busy
//! loop, nothing lost.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::machine::Input;
use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{Store, World, claim, volume};

fn started() -> World {
    let mut world = World::new(Store::default());
    world.start();
    world
}

fn in_class(mut object: Value, class: &str) -> Value {
    object["spec"]["storageClassName"] = class.into();
    object
}

fn class(provisioner: &str) -> Value {
    json!({"metadata": {"name": "gold"}, "provisioner": provisioner, "volumeBindingMode": "Immediate"})
}

/// §13.48: one event a claim and change of reason, whatever goes on around it.
#[test]
fn thousands_of_claims_that_nothing_satisfies_are_told_once_each() {
    const CLAIMS: usize = 5_000;
    let mut store = Store::default();
    for n in 0..CLAIMS {
        store.create(
            Kind::Claim,
            in_class(claim(&format!("c-{n:04}"), "10Gi"), "gold"),
        );
    }
    let mut world = World::new(store);
    world.start();
    world.settle();
    assert_eq!(world.told(), vec!["Warning ProvisioningFailed"; CLAIMS]);
    // Volumes and nodes that help nobody, labels, a list that says what is known.
    for n in 0..50 {
        world.create(
            Kind::Volume,
            in_class(volume(&format!("v-{n}"), "1Gi"), "gold"),
        );
        world.create(Kind::Node, json!({"metadata": {"name": format!("n-{n}")}}));
        let c = ObjectKey::claim("default", format!("c-{n:04}"));
        world.edit(&c, &json!({"metadata": {"labels": {"a": "b"}}}));
    }
    let all = world.store.list(Kind::Claim);
    world.feed(Input::Listed(Kind::Claim, all));
    world.settle();
    assert_eq!(world.events.len(), CLAIMS);
    // Now the reason is another, for all of them, and stays the same while the class is edited.
    let gold = world.create(Kind::StorageClass, class("kubernetes.io/no-provisioner"));
    world.settle();
    world.edit(&gold, &json!({"metadata": {"labels": {"a": "b"}}}));
    world.settle();
    assert_eq!(world.events.len(), 2 * CLAIMS);
    assert!(world.timers.is_empty() && world.queue.is_empty());
}

/// B20.4
#[test]
fn a_capacity_that_is_no_quantity_is_told_and_the_claim_bound() {
    let mut world = started();
    let mut v = volume("v", "2Gi");
    v["metadata"]["annotations"] =
        json!({"volume.alpha.kubernetes.io/pre-resize-capacity": "lots"});
    world.create(Kind::Volume, v);
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    world.settle();
    let status = &world.store.objects[&c]["status"];
    assert_eq!(status["phase"], "Bound");
    assert_eq!(status["capacity"]["storage"], "2Gi");
    assert_eq!(world.told(), ["Warning BittsBadAnnotation"]);
    assert!(
        world.events[0].message.contains("\"lots\""),
        "{}",
        world.events[0].message
    );
}

/// B15, B16
#[test]
fn a_volume_that_is_for_a_claim_of_another_namespace_is_told_to_whoever_names_it() {
    let mut world = started();
    let mut v = volume("v", "1Gi");
    v["spec"]["claimRef"] = json!({"namespace": "elsewhere", "name": "c"});
    let v = world.create(Kind::Volume, v);
    let mut c = claim("c", "1Gi");
    c["spec"]["volumeName"] = "v".into();
    world.create(Kind::Claim, c);
    world.settle();
    assert_eq!(world.told(), ["Warning FailedBinding"]);
    assert_eq!(
        world.events[0].message,
        "volume \"v\" already bound to a different claim. It is for elsewhere/c."
    );
    assert_eq!(world.store.objects[&v]["status"]["phase"], "Available");
    assert_eq!(
        world.store.objects[&v]["spec"]["claimRef"]["uid"],
        Value::Null
    );
}

/// B24: a claimRef that denotes nothing proves nothing either.
#[test]
fn a_claim_ref_without_a_name_is_told_once_and_left_alone() {
    for claim_ref in [
        json!({"uid": "u"}),
        json!({"uid": "u", "name": "c"}),
        json!({"uid": "u", "namespace": "default"}),
    ] {
        let mut world = started();
        let mut v = volume("v", "1Gi");
        v["spec"]["claimRef"] = claim_ref;
        v["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
        v["status"]["phase"] = "Bound".into();
        let v = world.create(Kind::Volume, v);
        world.create(Kind::Claim, claim("c", "1Gi"));
        world.settle();
        world.edit(&v, &json!({"metadata": {"labels": {"a": "b"}}}));
        world.settle();
        assert!(world.steps.is_empty(), "{:?}", world.steps);
        let about_it = world.events.iter().filter(|e| e.about == v).count();
        assert_eq!(about_it, 1, "{:?}", world.told());
    }
}

/// B15, B24: the volume is Available as there, and says why no claim gets it. Each mistake is told
/// once, with what to do; when it is mended there is nothing left to tell.
#[test]
fn a_reservation_for_no_claim_is_told_and_the_volume_offered_in_vain() {
    for (claim_ref, lacks) in [
        (json!({}), "neither namespace nor name"),
        (json!({"name": "c"}), "no namespace"),
        (json!({"namespace": "default"}), "no name"),
    ] {
        let mut world = started();
        let mut v = volume("v", "1Gi");
        v["spec"]["claimRef"] = claim_ref;
        v["status"]["phase"] = "Pending".into();
        let v = world.create(Kind::Volume, v);
        let c = world.create(Kind::Claim, claim("c", "1Gi"));
        world.settle();
        world.edit(&v, &json!({"metadata": {"labels": {"a": "b"}}}));
        world.settle();
        assert_eq!(world.store.objects[&v]["status"]["phase"], "Available");
        assert_eq!(world.store.objects[&c]["status"]["phase"], "Pending");
        let about_it: Vec<_> = world.events.iter().filter(|e| e.about == v).collect();
        let [told] = &about_it[..] else {
            panic!("{:?}", world.told());
        };
        assert_eq!(told.reason, "BittsBadClaimRef");
        assert!(told.message.contains(lacks), "{}", told.message);
        assert!(
            told.message.contains("kubectl patch pv v"),
            "{}",
            told.message
        );

        let whole = json!({"namespace": "default", "name": "c"});
        world.edit(&v, &json!({"spec": {"claimRef": whole}}));
        world.settle();
        assert_eq!(world.store.objects[&c]["status"]["phase"], "Bound");
        let about_it = world.events.iter().filter(|e| e.about == v).count();
        assert_eq!(about_it, 1, "{:?}", world.told());
    }
}

/// Capacities, modes and annotations that no API server admits, or that mean nothing: no crash, and
/// nothing is bound to them.
#[test]
fn what_cannot_be_read_fits_nothing() {
    let mut world = started();
    for (name, spec) in [
        ("no-size", json!({"capacity": {"storage": "lots"}})),
        ("no-capacity", json!({"capacity": null})),
        ("no-modes", json!({"accessModes": ["Sometimes"]})),
    ] {
        let mut v = volume(name, "1Gi");
        for (field, value) in spec.as_object().unwrap() {
            v["spec"][field] = value.clone();
        }
        v["metadata"]["annotations"] = json!({
            "pv.kubernetes.io/provisioned-by": "", "pv.kubernetes.io/migrated-to": "",
            "pv.kubernetes.io/bound-by-controller": "maybe", "bitts.dev/recycle-on": "nowhere",
            "volume.beta.kubernetes.io/storage-class": "",
        });
        world.create(Kind::Volume, v);
    }
    let mut named = claim("named", "1Gi");
    named["spec"]["volumeName"] = "no-size".into();
    world.create(Kind::Claim, named);
    world.create(Kind::Claim, claim("any", "1Gi"));
    let mut huge = claim("huge", "9999999Ei");
    huge["metadata"]["annotations"] = json!({
        "volume.kubernetes.io/selected-node": "", "volume.kubernetes.io/storage-provisioner": "",
        "pv.kubernetes.io/migrated-to": "",
    });
    world.create(Kind::Claim, huge);
    world.settle();
    for name in ["named", "any", "huge"] {
        let c = &world.store.objects[&ObjectKey::claim("default", name)];
        assert_eq!(c["status"]["phase"], "Pending", "{name}");
    }
    let told = world.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told.contains(&"Warning VolumeMismatch".to_owned()),
        "{told:?}"
    );
}

/// B10.2: a message of thousands of names would be refused, and another with each pod.
#[test]
fn a_claim_that_many_pods_wait_for_is_told_of_the_first_few() {
    let mut world = started();
    let mut wait = class("vendor.com/disk");
    wait["volumeBindingMode"] = "WaitForFirstConsumer".into();
    world.create(Kind::StorageClass, wait);
    world.create(Kind::Claim, in_class(claim("c", "1Gi"), "gold"));
    for n in 0..2_000 {
        let pod = json!({"metadata": {"name": format!("p-{n:04}")}, "spec": {"volumes": [
            {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}});
        world.create(Kind::Pod, pod);
    }
    assert!(world.events.len() < 12, "{}", world.events.len());
    assert!(
        world
            .events
            .last()
            .unwrap()
            .message
            .ends_with("p-0007 and others to be scheduled")
    );
}
