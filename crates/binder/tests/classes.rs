//! Classes that claims name and no watch told of: B9 binds such a claim to any volume that fits, so
//! it has to be certain that there is no class.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::machine::{Effect, Evidence, Input};
use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{BinderEffect, Fate, Store, World, claim, step, volume};

fn of_class(mut object: Value, class: &str) -> Value {
    object["spec"]["storageClassName"] = class.into();
    object
}

fn class(name: &str, mode: &str) -> Value {
    json!({"metadata": {"name": name}, "provisioner": "vendor.com/disk", "volumeBindingMode": mode})
}

fn started() -> World {
    let mut world = World::new(Store::default());
    world.start();
    world
}

/// Makes a volume and a claim of a class.
fn pair(world: &mut World, n: usize, class: &str) {
    world.create(
        Kind::Volume,
        of_class(volume(&format!("v-{n}"), "1Gi"), class),
    );
    world.create(
        Kind::Claim,
        of_class(claim(&format!("c-{n}"), "1Gi"), class),
    );
}

fn is_bound(world: &World, claim: &str) -> bool {
    let key = ObjectKey::claim("default", claim);
    world.store.objects[&key]["status"]["phase"] == "Bound"
}

fn looks_for_a_class(effect: &BinderEffect) -> bool {
    matches!(effect, Effect::Destroy(d) if matches!(d.evidence[..], [Evidence::ClassAbsent(_)]))
}

fn looks(world: &World) -> usize {
    world.trace.iter().filter(|e| looks_for_a_class(e)).count()
}

/// B9, S12: the claim comes in before its class does, though the class was made first.
#[test]
fn a_claim_of_a_delayed_class_that_is_not_told_of_yet_waits() {
    let mut world = started();
    let late = world
        .store
        .create(Kind::StorageClass, class("late", "WaitForFirstConsumer"));
    pair(&mut world, 1, "late");
    world.settle();
    assert!(!is_bound(&world, "c-1"));
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    assert_eq!(world.told(), ["Normal WaitForFirstConsumer"]);
    // Its watch has nothing to add.
    world.see(&late);
    pair(&mut world, 2, "late");
    world.settle();
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    assert_eq!(looks(&world), 1, "a class that is known is not looked for");
}

/// B9: one that does not wait is told of by the look, and its claim is served at once.
#[test]
fn a_claim_of_an_immediate_class_that_is_not_told_of_yet_is_bound() {
    let mut world = started();
    world
        .store
        .create(Kind::StorageClass, class("fast", "Immediate"));
    pair(&mut world, 1, "fast");
    world.run();
    assert!(is_bound(&world, "c-1"));
    assert!(world.timers.is_empty() && world.events.is_empty());
}

/// B9: many use a class name for which there is no object: that costs a look, not one for each.
#[test]
fn claims_that_are_known_share_one_look_for_their_class() {
    let mut store = Store::default();
    for n in 0..2_000 {
        store.create(
            Kind::Volume,
            of_class(volume(&format!("v-{n}"), "1Gi"), "manual"),
        );
        store.create(
            Kind::Claim,
            of_class(claim(&format!("c-{n}"), "1Gi"), "manual"),
        );
    }
    let mut world = World::new(store);
    world.start();
    world.run();
    assert!((0..2_000).all(|n| is_bound(&world, &format!("c-{n}"))));
    assert_eq!(looks(&world), 1);
}

/// B9: claims that come while others are bound share looks too, a round of requests each.
#[test]
fn claims_that_come_one_by_one_share_looks_for_their_class() {
    let mut world = started();
    for n in 0..1_000 {
        pair(&mut world, n, "manual");
        if n % 10 == 0 {
            world.execute(0, Fate::Done);
        }
    }
    world.run();
    assert!((0..1_000).all(|n| is_bound(&world, &format!("c-{n}"))));
    assert!(looks(&world) <= 101, "{} looks", looks(&world));
}

/// No class, or one that is known: nobody has to be asked.
#[test]
fn a_class_that_is_known_is_not_looked_for() {
    let mut world = started();
    world.create(Kind::StorageClass, class("fast", "Immediate"));
    pair(&mut world, 1, "fast");
    pair(&mut world, 2, "");
    let mut named = of_class(claim("named", "1Gi"), "manual");
    named["spec"]["volumeName"] = "v-3".into();
    world.create(Kind::Claim, named);
    world.create(Kind::Volume, of_class(volume("v-3", "1Gi"), "manual"));
    world.run();
    assert!(["c-1", "c-2", "named"].iter().all(|c| is_bound(&world, c)));
    assert_eq!(looks(&world), 0);
}

/// B9: what an earlier look found says nothing about a claim or a volume that came after it, for the
/// class may have come in between.
#[test]
fn a_look_serves_no_pair_that_came_after_it() {
    for later in [Kind::Claim, Kind::Volume] {
        let mut world = started();
        pair(&mut world, 1, "late");
        let (v, c) = (volume("v-2", "1Gi"), claim("c-2", "1Gi"));
        let both = [(Kind::Volume, v), (Kind::Claim, c)];
        for (kind, object) in both.clone().into_iter().filter(|(kind, _)| *kind != later) {
            world.create(kind, of_class(object, "late"));
        }
        world.run();
        assert_eq!(looks(&world), 1);
        world
            .store
            .create(Kind::StorageClass, class("late", "WaitForFirstConsumer"));
        for (kind, object) in both.into_iter().filter(|(kind, _)| *kind == later) {
            world.create(kind, of_class(object, "late"));
        }
        world.run();
        assert!(
            is_bound(&world, "c-1") && !is_bound(&world, "c-2"),
            "{later:?}"
        );
    }
}

/// An API that was restored gives its versions out again.
#[test]
fn a_look_proves_nothing_after_everything_was_listed_anew() {
    for under_way in [false, true] {
        let mut world = started();
        pair(&mut world, 1, "late");
        if !under_way {
            world.run();
        }
        for kind in [Kind::Claim, Kind::Volume] {
            let all = world.store.list(kind);
            world.feed(Input::Listed(kind, all));
        }
        world.run();
        assert!(is_bound(&world, "c-1"));
        world
            .store
            .create(Kind::StorageClass, class("late", "WaitForFirstConsumer"));
        pair(&mut world, 2, "late");
        world.run();
        assert!(!is_bound(&world, "c-2"));
    }
}

/// B9: who waited for a look that came to nothing makes one of its own.
#[test]
fn a_look_that_fails_holds_up_its_own_claim_only() {
    let mut world = started();
    for n in 0..3 {
        pair(&mut world, n, "manual");
    }
    assert!(looks_for_a_class(&world.queue[0]), "{:?}", world.queue);
    world.execute(0, Fate::Lost);
    world.run();
    assert_eq!(
        (0..3)
            .filter(|n| is_bound(&world, &format!("c-{n}")))
            .count(),
        2
    );
    assert_eq!(looks(&world), 2);
    world.settle();
    assert!((0..3).all(|n| is_bound(&world, &format!("c-{n}"))));
}

/// B10: volumes that come while a look is under way are not forgotten.
#[test]
fn volumes_offered_during_a_look_serve_those_who_wait() {
    let mut world = started();
    for n in 0..4 {
        world.create(
            Kind::Claim,
            of_class(claim(&format!("c-{n}"), "1Gi"), "manual"),
        );
    }
    world.run();
    for n in 0..4 {
        world.create(
            Kind::Volume,
            of_class(volume(&format!("v-{n}"), "1Gi"), "manual"),
        );
    }
    assert_eq!(world.queue.len(), 1, "{:?}", world.queue);
    assert_eq!(step(&world.queue[0]), "reserve-volume");
    world.run();
    assert!((0..4).all(|n| is_bound(&world, &format!("c-{n}"))));
    assert!(world.timers.is_empty());
}

/// B22: a process that dies while it looks leaves nothing behind.
#[test]
fn a_death_during_a_look_changes_nothing() {
    for fate in [
        Fate::DeathBefore,
        Fate::DeathAfter,
        Fate::AnswerLost,
        Fate::Touched,
    ] {
        let mut world = started();
        pair(&mut world, 1, "manual");
        world.execute(0, fate);
        world.settle();
        assert!(is_bound(&world, "c-1"), "{fate:?}");
    }
}
