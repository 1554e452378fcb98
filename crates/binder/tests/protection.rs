//! What is in use stays: a claim while a scheduled pod refers to it, a volume while it is bound
//! (X1 to X7).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::machine::{Effect, Input, Machine as _, Moment};
use bitts_api::{Kind, ObjectKey, names};
use bitts_binder::{Binder, Options};
use serde_json::{Value, json};
use support::{Fate, Store, World, claim, volume};

fn started() -> World {
    let mut world = World::new(Store::default());
    world.options.protection = true;
    world.start();
    world
}

fn pod(name: &str, node: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
        },
        "status": {"phase": "Running"},
    })
}

fn deleting() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
}

fn bound_pair(world: &mut World) -> (ObjectKey, ObjectKey) {
    bound_pair_of(world, "v", "c")
}

fn bound_pair_of(world: &mut World, v: &str, c: &str) -> (ObjectKey, ObjectKey) {
    let v = world.create(Kind::Volume, volume(v, "1Gi"));
    let c = world.create(Kind::Claim, claim(c, "1Gi"));
    world.run();
    assert_eq!(world.store.objects[&c]["status"]["phase"], "Bound");
    (v, c)
}

/// X2, X7
#[test]
fn new_objects_are_protected() {
    let mut world = started();
    let (v, c) = bound_pair(&mut world);
    let finalizers = |key| world.store.objects[key]["metadata"]["finalizers"].clone();
    assert_eq!(finalizers(&v), json!([names::VOLUME_PROTECTION]));
    assert_eq!(finalizers(&c), json!([names::CLAIM_PROTECTION]));
}

/// X3
#[test]
fn a_claim_stays_until_the_last_scheduled_pod_is_gone() {
    let mut world = started();
    let (_, c) = bound_pair(&mut world);
    let first = world.create(Kind::Pod, pod("first", Some("n")));
    let second = world.create(Kind::Pod, pod("second", Some("n")));
    world.create(Kind::Pod, pod("unscheduled", None));
    world.edit(&c, &deleting());
    world.run();
    world.delete(&first);
    world.run();
    // It ended, but its volume may still be mounted.
    world.edit(&second, &json!({"status": {"phase": "Succeeded"}}));
    world.run();
    assert!(world.store.objects.contains_key(&c));
    world.delete(&second);
    world.run();
    assert!(!world.store.objects.contains_key(&c));
}

/// X4
#[test]
fn a_pod_that_no_watch_told_of_yet_counts() {
    let mut world = started();
    let (_, c) = bound_pair(&mut world);
    let unseen = world.store.create(Kind::Pod, pod("unseen", Some("n")));
    world.edit(&c, &deleting());
    world.run();
    assert!(
        world.store.objects.contains_key(&c),
        "read live before it is let go"
    );
    world.delete(&unseen);
    world.settle();
    assert!(!world.store.objects.contains_key(&c));
}

/// D11, X7
#[test]
fn a_bound_volume_outlives_its_deletion_until_the_claim_is_gone() {
    let mut world = started();
    let (v, c) = bound_pair(&mut world);
    world.edit(&v, &deleting());
    world.run();
    assert!(world.store.objects.contains_key(&v));
    world.edit(&c, &deleting());
    world.run();
    assert!(!world.store.objects.contains_key(&c));
    assert!(!world.store.objects.contains_key(&v));
}

/// Section 13, weakness 27: the original trusts the phase alone.
#[test]
fn a_volume_that_its_claim_names_counts_as_bound() {
    let mut store = Store::default();
    let mut taken = volume("v", "1Gi");
    taken["spec"]["claimRef"] = json!({"namespace": "default", "name": "c", "uid": "uid-c"});
    taken["metadata"]["finalizers"] = json!([names::VOLUME_PROTECTION]);
    taken["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let v = store.create(Kind::Volume, taken);
    let mut bound = claim("c", "1Gi");
    bound["spec"]["volumeName"] = "v".into();
    bound["metadata"]["annotations"] = json!({names::BIND_COMPLETED: "yes"});
    store.create(Kind::Claim, bound);
    let mut world = World::new(store);
    world.options.protection = true;
    world.start();
    world.run();
    assert_eq!(world.store.objects[&v]["status"]["phase"], "Bound");
}

/// X7, B13.6
#[test]
fn a_volume_that_is_only_reserved_goes_and_its_claim_finds_another() {
    let mut world = started();
    let v = world.create(Kind::Volume, volume("v", "1Gi"));
    world.create(Kind::Volume, volume("w", "2Gi"));
    world.run();
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    while !world.steps.contains(&"reserve-volume v".to_owned()) {
        world.execute(0, Fate::Done);
    }
    world.edit(&v, &deleting());
    world.settle();
    assert!(!world.store.objects.contains_key(&v));
    assert_eq!(world.store.objects[&c]["spec"]["volumeName"], "w");
}

/// E11
#[test]
fn a_free_volume_goes_at_once() {
    let mut world = started();
    let v = world.create(Kind::Volume, volume("v", "1Gi"));
    world.run();
    world.edit(&v, &deleting());
    world.run();
    assert!(!world.store.objects.contains_key(&v));
}

/// X3: a pod that is deleted after its claims waits for them, and they must not wait for it.
#[test]
fn a_pod_that_was_shut_down_lets_its_own_claim_go() {
    let mut world = started();
    world.create(Kind::Volume, volume("v", "1Gi"));
    let mut own = pod("p", Some("n"));
    own["spec"]["volumes"] = json!([{"name": "d", "ephemeral": {"volumeClaimTemplate": {
        "spec": claim("", "1Gi")["spec"],
    }}}]);
    own["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    let p = world.create(Kind::Pod, own);
    world.run();
    let c = ObjectKey::claim("default", "p-d");
    assert_eq!(world.store.objects[&c]["status"]["phase"], "Bound");
    let mut going = deleting();
    going["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    world.edit(&p, &going);
    world.edit(&c, &deleting());
    world.run();
    assert!(world.store.objects.contains_key(&c), "it may still run");
    world.edit(&p, &json!({"metadata": {"deletionGracePeriodSeconds": 0}}));
    world.run();
    assert!(!world.store.objects.contains_key(&c));
}

fn attributes_class() -> Value {
    json!({"metadata": {"name": "gold"}, "driverName": "d"})
}

/// X8
#[test]
fn an_attributes_class_stays_until_nothing_names_it() {
    let mut world = started();
    let gold = world.create(Kind::AttributesClass, attributes_class());
    let mut named = volume("v", "1Gi");
    named["spec"]["volumeAttributesClassName"] = "gold".into();
    let v = world.create(Kind::Volume, named);
    let mut wants = claim("wants", "2Gi");
    wants["spec"]["volumeAttributesClassName"] = "gold".into();
    let wants = world.create(Kind::Claim, wants);
    world.run();
    let finalizers = &world.store.objects[&gold]["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!([names::ATTRIBUTES_CLASS_PROTECTION]));
    // One that was changed away from it, which its driver has not yet done.
    let (_, has) = bound_pair_of(&mut world, "w", "has");
    world.edit(
        &has,
        &json!({"status": {"currentVolumeAttributesClassName": "gold"}}),
    );
    // One that was changed to it, and is no longer to be: its driver may be at it still.
    let (_, gets) = bound_pair_of(&mut world, "x", "gets");
    let target = json!({"status": "InProgress", "targetVolumeAttributesClassName": "gold"});
    world.edit(&gets, &json!({"status": {"modifyVolumeStatus": target}}));
    world.edit(&gold, &deleting());
    for (user, half, name) in [
        (&v, "spec", "volumeAttributesClassName"),
        (&wants, "spec", "volumeAttributesClassName"),
        (&has, "status", "currentVolumeAttributesClassName"),
        (&gets, "status", "modifyVolumeStatus"),
    ] {
        world.run();
        assert!(world.store.objects.contains_key(&gold), "{user} names it");
        world.edit(user, &json!({half: {name: null}}));
    }
    world.run();
    assert!(!world.store.objects.contains_key(&gold));
}

/// X8, section 13, weakness 26: the original believes its caches.
#[test]
fn a_claim_that_no_watch_told_of_yet_holds_its_attributes_class() {
    let mut world = started();
    let gold = world.create(Kind::AttributesClass, attributes_class());
    world.run();
    let mut unheard = claim("c", "1Gi");
    unheard["spec"]["volumeAttributesClassName"] = "gold".into();
    let c = world.store.create(Kind::Claim, unheard);
    world.edit(&gold, &deleting());
    world.run();
    assert!(world.store.objects.contains_key(&gold));
    world.delete(&c);
    world.settle();
    assert!(!world.store.objects.contains_key(&gold));
}

/// An API server of before 1.34 has none: nothing waits for them.
#[test]
fn attributes_classes_are_not_waited_for() {
    let mut binder = Binder::new(Options::default());
    assert!(
        binder
            .watches()
            .iter()
            .any(|w| w.kind == Kind::AttributesClass)
    );
    let mut effects = Vec::new();
    for kind in support::KINDS {
        if kind != Kind::AttributesClass {
            let mut store = Store::default();
            if kind == Kind::Volume {
                store.create(kind, volume("v", "1Gi"));
            }
            let all = Input::Listed(kind, store.list(kind));
            effects.extend(binder.handle(Moment::default(), all));
        }
    }
    assert!(matches!(&effects[..], [Effect::Write(_)]), "{effects:?}");
}

/// B20, X2: a webhook that minds finalizers keeps nobody from being bound; they come when they may.
#[test]
fn finalizers_that_are_refused_do_not_hold_up_binding() {
    const FINALIZERS: [&str; 2] = ["protect-claim", "protect-volume"];
    let mut world = started();
    let v = world.create(Kind::Volume, volume("v", "1Gi"));
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    world.run_refusing(&FINALIZERS);
    assert_eq!(world.store.objects[&c]["status"]["phase"], "Bound");
    assert_eq!(world.told(), ["Warning FailedBinding"; 2]);
    for _ in 0..4 {
        assert_eq!(world.timers.len(), 2, "{:?}", world.timers);
        world.wake();
        world.run_refusing(&FINALIZERS);
    }
    let longest = world.timers.iter().map(|(after, _)| *after).min();
    assert!(
        longest > Some(std::time::Duration::from_secs(5)),
        "{longest:?}"
    );
    assert_eq!(world.events.len(), 2, "{:?}", world.events);
    world.settle();
    for key in [v, c] {
        let finalizers = &world.store.objects[&key]["metadata"]["finalizers"];
        assert_eq!(finalizers.as_array().unwrap().len(), 1, "{key}");
    }
    assert!(world.timers.is_empty());
}

/// B10, X2: nor does the rest after a refusal, however long it has become; nor is anybody told in
/// turns of the finalizer and of the volume that is missing.
#[test]
fn a_claim_whose_finalizer_is_refused_takes_a_volume_that_comes() {
    let mut world = started();
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    for _ in 0..6 {
        world.run_refusing(&["protect-claim"]);
        world.wake();
    }
    world.run_refusing(&["protect-claim"]);
    assert_eq!(world.events.len(), 2, "{:?}", world.events);
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.run_refusing(&["protect-claim"]);
    assert_eq!(world.store.objects[&c]["status"]["phase"], "Bound");
}

/// X2: where nothing is refused, the finalizer comes first, as before.
#[test]
fn a_claim_is_protected_before_it_is_bound() {
    let mut world = started();
    bound_pair(&mut world);
    let first = |step: &str| world.steps.iter().position(|s| s.starts_with(step));
    assert!(
        first("protect-claim") < first("bind-claim"),
        "{:?}",
        world.steps
    );
    assert!(
        first("protect-volume") < first("reserve-volume"),
        "{:?}",
        world.steps
    );
}
