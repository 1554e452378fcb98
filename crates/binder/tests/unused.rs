//! The condition that tells since when no pod refers to a claim (X5).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{Fate, Store, World, claim, volume};

fn started() -> World {
    let mut world = World::new(Store::default());
    world.options.unused_condition = true;
    world.start();
    world
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]},
        "status": {"phase": "Pending"},
    })
}

fn conditions(world: &World, claim: &ObjectKey) -> Value {
    world.store.objects[claim]["status"]["conditions"].clone()
}

/// What the condition says, and in which turn of the store it was written.
fn says(world: &World, claim: &ObjectKey) -> (String, String, String) {
    let all = conditions(world, claim);
    let unused: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["type"] == "Unused")
        .collect();
    let [one] = unused[..] else { panic!("{all}") };
    let text = |key: &str| one[key].as_str().unwrap().to_owned();
    (text("status"), text("reason"), text("lastTransitionTime"))
}

fn bound(world: &mut World) -> ObjectKey {
    world.create(Kind::Volume, volume("v", "1Gi"));
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    world.run();
    c
}

/// X5, section 13, weakness 25: the original writes a fifth time.
#[test]
fn a_bind_tells_it_in_the_last_of_its_four_writes() {
    let mut world = started();
    let c = bound(&mut world);
    assert_eq!(world.steps.len(), 4, "{:?}", world.steps);
    let all = conditions(&world, &c);
    let [unused] = &all.as_array().unwrap()[..] else {
        panic!("{all}");
    };
    assert_eq!(unused["type"], "Unused");
    assert_eq!(unused["status"], "True");
    assert_eq!(unused["reason"], "NoPodsUsingPVC");
    assert_eq!(
        unused["message"],
        "No pods are currently referencing this PVC"
    );
    assert!(
        unused["lastTransitionTime"]
            .as_str()
            .unwrap()
            .starts_with("at ")
    );
}

/// X5: pods without a node count, pods that ended do not.
#[test]
fn it_follows_the_pods() {
    let mut world = started();
    let c = bound(&mut world);
    let first = world.create(Kind::Pod, pod("first"));
    world.run();
    let (status, reason, since) = says(&world, &c);
    assert_eq!((&*status, &*reason), ("False", "PodUsingPVC"));
    let second = world.create(Kind::Pod, pod("second"));
    world.edit(
        &first,
        &json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}}),
    );
    world.edit(&second, &json!({"status": {"phase": "Failed"}}));
    world.run();
    assert_eq!(says(&world, &c).2, since, "nothing changed");
    world.edit(&first, &json!({"status": {"phase": "Succeeded"}}));
    world.run();
    let (status, reason, until) = says(&world, &c);
    assert_eq!((&*status, &*reason), ("True", "NoPodsUsingPVC"));
    assert_ne!(since, until);
    let writes = world.steps.len();
    world.delete(&first);
    world.delete(&second);
    world.run();
    assert_eq!(world.steps.len(), writes);
}

/// X5, A9: as kube-controller-manager does it.
#[test]
fn a_pod_that_is_deleted_counts_while_a_container_runs() {
    let mut world = started();
    let c = bound(&mut world);
    let mut running = pod("p");
    running["status"]["containerStatuses"] = json!([{"state": {"running": {}}}]);
    running["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let p = world.create(Kind::Pod, running);
    world.run();
    assert_eq!(says(&world, &c).0, "False");
    let ended = json!({"status": {"containerStatuses": [{"state": {"terminated": {}}}]}});
    world.edit(&p, &ended);
    world.run();
    assert_eq!(says(&world, &c).0, "True");
}

/// X5: what others say of the claim stays as it is.
#[test]
fn other_conditions_are_kept() {
    let resizing = json!({"type": "Resizing", "status": "True", "probably": {"new": 1}});
    let mut world = started();
    let c = bound(&mut world);
    world.edit(&c, &json!({"status": {"conditions": [resizing]}}));
    world.run();
    assert_eq!(conditions(&world, &c)[0], resizing);
    world.create(Kind::Pod, pod("p"));
    world.run();
    assert_eq!(conditions(&world, &c)[0], resizing);
    assert_eq!(says(&world, &c).0, "False");
}

/// X5: somebody writes the conditions at the same time.
#[test]
fn a_condition_that_came_in_between_is_not_lost() {
    let mut world = started();
    let c = bound(&mut world);
    world.create(Kind::Pod, pod("p"));
    let resizing = json!({"type": "Resizing", "status": "True"});
    world
        .store
        .edit(&c, &json!({"status": {"conditions": [resizing]}}));
    world.settle();
    assert_eq!(conditions(&world, &c)[0], resizing);
    assert_eq!(says(&world, &c).0, "False");
}

/// X5: only Bound claims that are not being deleted.
#[test]
fn claims_that_wait_or_go_are_told_nothing() {
    let mut world = started();
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    let p = world.create(Kind::Pod, pod("p"));
    world.run();
    assert!(conditions(&world, &c).is_null());
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.run();
    assert_eq!(says(&world, &c).0, "False");
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                                       "finalizers": ["somebody's"]}});
    world.edit(&c, &deleting);
    world.delete(&p);
    world.run();
    assert_eq!(says(&world, &c).0, "False");
}

/// X5, section 13, weakness 25: an upgrade costs a write for each claim, after all else.
#[test]
fn claims_from_before_are_told_once() {
    let mut world = started();
    world.options.unused_condition = false;
    world.start();
    let c = bound(&mut world);
    assert!(conditions(&world, &c).is_null());
    world.options.unused_condition = true;
    for _ in 0..2 {
        world.start();
        world.run();
        assert_eq!(says(&world, &c).0, "True");
    }
    let noted = world
        .steps
        .iter()
        .filter(|s| s.starts_with("mark-claim-unused"));
    assert_eq!(noted.count(), 1);
}

/// X5: a pod that comes while the claim is being bound.
#[test]
fn it_is_right_in_the_end_whenever_the_pod_comes() {
    for before in 0..4 {
        for fate in [Fate::Done, Fate::DeathAfter, Fate::AnswerLost] {
            let mut world = started();
            world.create(Kind::Volume, volume("v", "1Gi"));
            let c = world.create(Kind::Claim, claim("c", "1Gi"));
            for _ in 0..before {
                world.execute(0, Fate::Done);
            }
            world.create(Kind::Pod, pod("p"));
            if !world.queue.is_empty() {
                world.execute(0, fate);
            }
            world.settle();
            assert_eq!(says(&world, &c).0, "False", "{before} {fate:?}");
        }
    }
}
