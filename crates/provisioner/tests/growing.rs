//! Claims that ask for more: the rules of resizing, by the external-resizer's steps (R4 to R7).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{Fate, World, claim, class, share_claim, share_class};

fn c() -> ObjectKey {
    ObjectKey::claim("default", "c")
}

fn v() -> ObjectKey {
    ObjectKey::volume("pvc-u1")
}

/// A bound claim of 1Mi that no pod uses, and nothing to tell of how it came to be.
fn bound() -> World {
    let mut world = World::new();
    let soft = json!({"parameters": {"quota": "soft"}, "allowVolumeExpansion": true});
    world.put(Kind::StorageClass, class("soft", soft));
    world.put(Kind::Claim, claim("c", "u1", "soft"));
    world.start();
    world.run();
    world.bind();
    world.edit(
        &c(),
        &json!({"status": {"conditions": [unused(), other()]}}),
    );
    world.run();
    world.clear();
    world
}

fn unused() -> Value {
    json!({"type": "Unused", "status": "True", "reason": "NoPodsUsingPVC",
        "message": "No pods are currently referencing this PVC",
        "lastTransitionTime": "2026-01-02T03:04:05Z"})
}

fn other() -> Value {
    json!({"type": "Else", "status": "True"})
}

fn ask(world: &mut World, size: &str) {
    world.edit(
        &c(),
        &json!({"spec": {"resources": {"requests": {"storage": size}}}}),
    );
}

/// What the claim has, and what is said of its growth.
fn has(world: &World) -> (String, String, String) {
    let status = &world.objects[&c()]["status"];
    let text = |v: &Value| v["storage"].as_str().unwrap_or_default().to_owned();
    (
        text(&status["capacity"]),
        text(&status["allocatedResources"]),
        text(&status["allocatedResourceStatuses"]),
    )
}

fn of(has: &str, allocated: &str, state: &str) -> (String, String, String) {
    (has.to_owned(), allocated.to_owned(), state.to_owned())
}

fn recorded(world: &World) -> i64 {
    let record = world.root().join(".bitts/volumes/pvc-u1.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    record["bytes"].as_i64().unwrap()
}

const STEPS: [&str; 4] = [
    "begin-resize default/c",
    "grow pvc-u1 to 2097152",
    "grow-volume pvc-u1",
    "finish-resize default/c",
];

/// R5: the claim says it, the disk has it, the volume has it, the claim has it.
#[test]
fn r5_a_claim_that_asks_for_more_gets_it() {
    let mut world = bound();
    ask(&mut world, "2Mi");
    assert!(world.tell());
    world.execute(0, Fate::Done);
    let claim = &world.objects[&c()];
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(
        annotations["volume.kubernetes.io/storage-resizer"],
        "local.bitts.dev"
    );
    let resizing = json!({"type": "Resizing", "status": "True", "lastTransitionTime": "(now)"});
    assert_eq!(
        claim["status"]["conditions"],
        json!([other(), unused(), resizing])
    );
    assert_eq!(has(&world), of("1Mi", "2Mi", "ControllerResizeInProgress"));
    world.run();
    assert_eq!(world.steps, STEPS);
    assert_eq!(has(&world), of("2Mi", "2Mi", ""));
    let claim = &world.objects[&c()];
    assert_eq!(claim["status"]["conditions"], json!([other(), unused()]));
    assert_eq!(world.objects[&v()]["spec"]["capacity"]["storage"], "2Mi");
    assert_eq!(recorded(&world), 2 << 20);
    assert_eq!(
        world.told(),
        [
            "Normal VolumeResizeSuccessful: Resize volume succeeded: the size is recorded, and nothing \
          holds a writer to it"
        ]
    );
    // Nothing more comes of it.
    world.clear();
    world.edit(&c(), &json!({"metadata": {"labels": {"a": "b"}}}));
    world.start();
    world.settle();
    assert_eq!(world.steps, ["scan"]);
}

/// R6: killed after any step, or with any of them lost, it comes to the same.
#[test]
fn r6_a_death_at_any_step_is_gone_on_after() {
    for fate in [
        Fate::DeathAfter,
        Fate::DeathBefore,
        Fate::Lost,
        Fate::Touched,
    ] {
        for step in 0..STEPS.len() {
            let mut world = bound();
            ask(&mut world, "2Mi");
            assert!(world.tell());
            for _ in 0..step {
                world.execute(0, Fate::Done);
            }
            world.execute(0, fate);
            world.settle();
            assert_eq!(has(&world), of("2Mi", "2Mi", ""), "{fate:?} at {step}");
            assert_eq!(world.objects[&v()]["spec"]["capacity"]["storage"], "2Mi");
            assert_eq!(recorded(&world), 2 << 20);
        }
    }
}

/// R4, R6: what was asked of the disk is finished before anything else is, so that the disk is never
/// out of step with what the claim says.
#[test]
fn r4_what_was_begun_is_finished_first() {
    let mut world = bound();
    ask(&mut world, "2Mi");
    assert!(world.tell());
    world.execute(0, Fate::Done);
    // Whether the disk was asked before the process died, nobody knows.
    ask(&mut world, "3Mi");
    world.start();
    world.run();
    assert_eq!(has(&world), of("3Mi", "3Mi", ""));
    assert!(
        world.steps.contains(&"grow pvc-u1 to 2097152".to_owned()),
        "{:?}",
        world.steps
    );
    assert_eq!(recorded(&world), 3 << 20);
}

/// R7: what is not there is said once, in the claim too; less is asked for then, and had.
#[test]
fn r7_more_than_there_is_can_be_taken_back() {
    let mut world = bound();
    ask(&mut world, "4Ei");
    world.run();
    assert_eq!(has(&world), of("1Mi", "4Ei", "ControllerResizeInfeasible"));
    let conditions = world.objects[&c()]["status"]["conditions"].clone();
    assert_eq!(
        conditions[2]["type"], "ControllerResizeError",
        "{conditions}"
    );
    assert!(
        conditions[2]["message"]
            .as_str()
            .unwrap()
            .contains("bytes free"),
        "{conditions}"
    );
    let told = world.told();
    assert!(
        told.len() == 1 && told[0].starts_with("Warning VolumeResizeFailed"),
        "{told:?}"
    );
    assert_eq!(recorded(&world), 1 << 20);
    // It is asked again now and then, and nothing is written for that.
    let steps = world.steps.clone();
    world.settle();
    world.run();
    assert!(!world.timers.is_empty());
    assert_eq!(world.steps, steps);
    ask(&mut world, "2Mi");
    world.settle();
    assert_eq!(has(&world), of("2Mi", "2Mi", ""));
    assert_eq!(
        world.objects[&c()]["status"]["conditions"],
        json!([other(), unused()])
    );
}

/// R2: nothing is grown for a claim that is not bound, or that has another's volume, or that goes.
#[test]
fn r2_other_claims_are_left_alone() {
    let changes = [
        json!({"status": {"phase": "Lost"}}),
        json!({"spec": {"volumeName": "another"}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}),
    ];
    for change in changes {
        let mut world = bound();
        world.edit(&c(), &json!({"metadata": {"finalizers": ["held"]}}));
        world.edit(&c(), &change);
        ask(&mut world, "2Mi");
        world.settle();
        let grew = world.steps.iter().any(|step| step.contains("resize"));
        assert!(!grew, "{change}: {:?}", world.steps);
        assert_eq!(recorded(&world), 1 << 20, "{change}");
    }
}

/// R5 on a share: the record says it, and the user is told that this is all.
#[test]
fn r5_on_a_share_the_size_is_recorded() {
    let mut world = World::of_shares();
    world.put(
        Kind::StorageClass,
        share_class("nfs", "nas", "/export", json!({})),
    );
    world.put(Kind::Claim, share_claim("c", "u1", "nfs"));
    world.run();
    world.bind();
    world.run();
    world.clear();
    ask(&mut world, "2Ti");
    world.run();
    assert_eq!(has(&world), of("2Ti", "2Ti", ""));
    let told = world.told();
    assert!(
        told.len() == 1 && told[0].contains("nothing holds a writer"),
        "{told:?}"
    );
    let record = world.share("nas", "/export/.bitts/volumes/pvc-u1.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(record["bytes"], 2_i64 << 40);
    // A server that does not answer is told, and asked again.
    world.clear();
    world.down.insert("nas".to_owned());
    ask(&mut world, "3Ti");
    world.run();
    assert_eq!(has(&world).0, "2Ti");
    world.down.clear();
    world.settle();
    assert_eq!(has(&world), of("3Ti", "3Ti", ""));
}
