//! What becomes of a pair when the process dies, the API fails or somebody else writes at any of
//! the four writes (B20 to B23).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{Fate, Store, World, claim, step, volume};

const STEPS: [&str; 4] = [
    "reserve-volume",
    "mark-volume-bound",
    "bind-claim",
    "mark-claim-bound",
];

fn pair() -> World {
    let mut store = Store::default();
    store.create(Kind::Volume, volume("v", "1Gi"));
    store.create(Kind::Claim, claim("c", "1Gi"));
    // Something to go astray to.
    store.create(Kind::Volume, volume("w", "2Gi"));
    let mut world = World::new(store);
    world.start();
    world
}

fn v() -> ObjectKey {
    ObjectKey::volume("v")
}

fn c() -> ObjectKey {
    ObjectKey::claim("default", "c")
}

fn assert_bound(world: &World, volume: &str) {
    let key = ObjectKey::volume(volume);
    let (volume, claim) = (&world.store.objects[&key], &world.store.objects[&c()]);
    assert_eq!(volume["spec"]["claimRef"]["uid"], "uid-c");
    assert_eq!(volume["status"]["phase"], "Bound");
    assert_eq!(claim["spec"]["volumeName"], key.name.as_str());
    assert_eq!(claim["status"]["phase"], "Bound");
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
}

/// The fate befalls the first effect of this step.
fn once(at: &'static str, fate: Fate) -> impl FnMut(&support::BinderEffect) -> Fate {
    let mut done = false;
    move |effect| {
        if step(effect) == at && !done {
            done = true;
            return fate;
        }
        Fate::Done
    }
}

fn recovers(fate: Fate) {
    for at in STEPS {
        let mut world = pair();
        world.run_with(once(at, fate));
        // What a watch would tell by now.
        for key in [v(), c()] {
            world.see(&key);
        }
        world.settle();
        let chosen = world.store.objects[&c()]["spec"]["volumeName"].clone();
        assert_bound(&world, chosen.as_str().unwrap());
        let other = if chosen == "v" { "w" } else { "v" };
        let other = &world.store.objects[&ObjectKey::volume(other)];
        assert_eq!(other["status"]["phase"], "Available", "{fate:?} at {at}");
        assert_eq!(other["spec"]["claimRef"], Value::Null, "{fate:?} at {at}");
        if fate != Fate::Touched {
            assert_eq!(chosen, "v", "{fate:?} at {at}");
        }
    }
}

#[test]
fn the_four_writes_in_their_order() {
    let mut world = pair();
    world.run();
    assert_bound(&world, "v");
    let steps: Vec<_> = world.steps.iter().map(|s| s.split(' ').next()).collect();
    assert_eq!(steps, STEPS.map(Some));
    assert!(world.events.is_empty());
}

#[test]
fn death_after_a_write() {
    recovers(Fate::DeathAfter);
}

#[test]
fn death_before_a_write() {
    recovers(Fate::DeathBefore);
}

#[test]
fn conflict_at_a_write() {
    recovers(Fate::Touched);
}

#[test]
fn api_gone_at_a_write() {
    recovers(Fate::Lost);
}

#[test]
fn answer_lost_at_a_write() {
    recovers(Fate::AnswerLost);
}

#[test]
fn failures_back_off_ever_longer_and_success_resets() {
    let mut world = pair();
    let mut delays = Vec::new();
    for _ in 0..10 {
        world.run_with(|_| Fate::Lost);
        // The volume and the claim wait equally long.
        delays.push(world.timers[0].0.as_millis());
        world.wake();
    }
    let doubling: Vec<_> = (0..10).map(|n| (500 << n).min(120_000)).collect();
    assert_eq!(delays, doubling);
    world.settle();
    assert_bound(&world, "v");
}

/// N11b, B4: an edit may be what makes the write pass; the delay goes on growing if it was not.
#[test]
fn an_edited_object_is_tried_again_at_once() {
    let mut world = World::new(Store::default());
    world.start();
    let mut lost = claim("c", "1Gi");
    lost["status"]["phase"] = "Lost".into();
    let c = world.create(Kind::Claim, lost);
    let edit = |n: u32| json!({"metadata": {"labels": {"edited": n.to_string()}}});
    let mut delays = Vec::new();
    for n in 0..4 {
        world.run_with(|_| Fate::Lost);
        delays.extend(world.timers.last().map(|(after, _)| *after));
        world.edit(&c, &edit(n));
        world.see(&c); // no news
    }
    world.run_with(|_| Fate::Lost);
    assert_eq!(delays.len(), 4);
    // Timers that were overtaken do not go round for ever.
    world.wake();
    assert_eq!((world.queue.len(), world.timers.len()), (1, 0));
    world.run_with(|_| Fate::Lost);
    assert_eq!(world.timers.len(), 1);
    world.wake();
    assert!(delays.is_sorted_by(|a, b| a < b), "{delays:?}");
    world.run();
    assert_eq!(world.steps, ["mark-claim-pending default/c"]);
}

/// N11b: what failed for one object is not held against the next of its name.
#[test]
fn a_new_object_of_the_name_does_not_wait_for_the_failures_of_the_last() {
    let status = |mut object: Value, status: Value| {
        object["status"] = status;
        object
    };
    for (kind, object) in [
        (
            Kind::Volume,
            status(volume("v", "1Gi"), json!({"phase": "Pending"})),
        ),
        (
            Kind::Claim,
            status(claim("c", "1Gi"), json!({"phase": "Lost"})),
        ),
    ] {
        let mut world = World::new(Store::default());
        world.start();
        let key = world.create(kind, object.clone());
        for _ in 0..5 {
            world.run_with(|_| Fate::Lost);
            world.wake();
        }
        world.run_with(|_| Fate::Lost);
        world.delete(&key);
        let mut again = object;
        again["metadata"]["uid"] = "again".into();
        world.create(kind, again);
        world.run();
        assert_eq!(world.steps.len(), 1, "{key} waits for {:?}", world.timers);
    }
}

#[test]
fn a_refusal_is_told_once() {
    use bitts_api::machine::{Input, Outcome};
    let mut world = pair();
    for _ in 0..3 {
        let effect = world.queue.pop_front().unwrap();
        let refused = Outcome::Refused("denied by policy".into());
        world.feed(Input::Finished(
            support::target(&effect).key.clone(),
            refused,
        ));
        world.wake();
    }
    assert_eq!(world.told(), ["Warning FailedBinding"]);
    assert!(world.events[0].message.contains("denied by policy"));
}

/// Nothing newer came with the conflict: repeating at once would turn in circles.
#[test]
fn an_unexplained_conflict_waits() {
    use bitts_api::machine::{Input, Outcome};
    let mut world = pair();
    let effect = world.queue.pop_front().unwrap();
    assert_eq!(step(&effect), "reserve-volume");
    world.feed(Input::Finished(v(), Outcome::Conflict));
    // The claim takes the other volume instead.
    world.run();
    assert_bound(&world, "w");
    assert_eq!(world.timers.len(), 1);
}

/// The claim is deleted after so many writes, with the process dead or the next write on its way.
fn deleted_after(writes: u32, policy: &str, process_dies: bool) -> Value {
    let mut world = pair();
    let policy = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
    world.store.edit(&v(), &policy);
    world.start();
    for _ in 0..writes {
        world.execute(0, Fate::Done);
    }
    if process_dies {
        world.store.delete(&c());
        world.start();
    } else {
        world.delete(&c());
    }
    world.settle();
    world.store.objects[&v()].clone()
}

#[test]
fn claim_deleted_between_writes() {
    for (writes, policy, phase) in [
        (2, "Retain", "Released"),
        (3, "Retain", "Released"),
        (3, "Delete", "Failed"),
        (4, "Retain", "Released"),
    ] {
        for process_dies in [false, true] {
            let volume = deleted_after(writes, policy, process_dies);
            assert_eq!(volume["status"]["phase"], phase, "after write {writes}");
            assert_eq!(volume["spec"]["claimRef"]["uid"], "uid-c");
        }
    }
}

/// Before the second write nothing can have used the volume: it is offered again, whatever its
/// policy. Once that write is on its way it takes effect, and B22 holds.
#[test]
fn a_volume_that_was_only_reserved_is_given_back() {
    for policy in ["Retain", "Delete", "Recycle"] {
        let volume = deleted_after(1, policy, true);
        assert_eq!(volume["status"]["phase"], "Available");
        assert!(volume["spec"]["claimRef"].is_null());
        assert!(
            volume["metadata"]["annotations"]
                .as_object()
                .unwrap()
                .is_empty()
        );
    }
    assert_eq!(
        deleted_after(1, "Retain", false)["status"]["phase"],
        "Released"
    );
}

#[test]
fn a_claim_of_the_same_name_does_not_inherit() {
    let mut world = pair();
    world.run();
    world.delete(&c());
    let mut again = claim("c", "1Gi");
    again["metadata"]["uid"] = "uid-second".into();
    world.create(Kind::Claim, again);
    world.settle();
    let volume = &world.store.objects[&v()];
    assert_eq!(volume["status"]["phase"], "Released");
    assert_eq!(world.store.objects[&c()]["spec"]["volumeName"], "w");
}

#[test]
fn two_binders_do_not_share_a_volume() {
    // A second binder writes while the first one's reservation is on its way (B31).
    let mut world = pair();
    assert_eq!(step(&world.queue[0]), "reserve-volume");
    let theirs = json!({"spec": {"claimRef": {
        "namespace": "default", "name": "other", "uid": "uid-other"}}});
    world.store.create(Kind::Claim, claim("other", "1Gi"));
    world.store.edit(&v(), &theirs);
    world.run();
    world.see(&ObjectKey::claim("default", "other"));
    world.settle();
    assert_bound(&world, "w");
    let other = &world.store.objects[&ObjectKey::claim("default", "other")];
    assert_eq!(other["spec"]["volumeName"], "v");
}

#[test]
fn a_volume_with_a_living_claim_is_never_released_on_a_stale_cache() {
    for policy in ["Retain", "Delete", "Recycle"] {
        let mut world = pair();
        world.store.edit(
            &v(),
            &json!({"spec": {"persistentVolumeReclaimPolicy": policy}}),
        );
        world.see(&v());
        world.settle();
        world.start_without(&[c()]); // the claim's watch is behind
        world.settle();
        assert_bound(&world, "v");
        assert!(!world.steps.iter().any(|s| s.starts_with("release")));
    }
}
