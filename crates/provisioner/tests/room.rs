//! What the scheduler is told of a node's room (S7).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::machine::{Input, Machine as _, Reading};
use bitts_api::{Kind, ObjectKey, Quantity};
use bitts_provisioner::{Alarm, Options, Reply, Report, Site, Survey};
use serde_json::json;
use support::{NODE, World, class};

const GIB: u64 = 1 << 30;

/// A node whose room is told in the namespace `bitts`, with one class.
fn world() -> World {
    let mut world = World::new();
    world.options = Options {
        capacity: Some("bitts".into()),
        ..world.options.clone()
    };
    world.objects.retain(|key, _| key.kind == Kind::Node);
    world.put(
        Kind::StorageClass,
        class("soft", json!({"parameters": {"quota": "soft"}})),
    );
    world.start();
    world.run();
    world
}

/// What is told, by class.
fn told(world: &World) -> Vec<(String, u64)> {
    let all = world.of_kind(Kind::StorageCapacity).into_iter().map(|key| {
        let object = &world.objects[&key];
        let bytes: Quantity = object["capacity"].as_str().unwrap().parse().unwrap();
        let class = object["storageClassName"].as_str().unwrap().to_owned();
        (class, u64::try_from(bytes.value()).unwrap())
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

/// What the disks say, whatever they have.
fn survey(world: &mut World, free: u64, held: Result<u64, String>) {
    let used = vec![("pvc-a".into(), 7)];
    let report = Report::Surveyed(Survey { free, held, used });
    let site = Site::Disks;
    world.feed(Input::Report(Reply { site, report }));
    world.run();
}

fn of(class: &str, bytes: u64) -> (String, u64) {
    (class.to_owned(), bytes)
}

/// S7: an object for each class, which says the class, the node and the room, and is the node's.
#[test]
fn s7_a_node_says_what_it_has_room_for() {
    let world = world();
    let keys = world.of_kind(Kind::StorageCapacity);
    let object = &world.objects[&keys[0]];
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].namespace, Some("bitts".into()));
    assert_eq!(object["storageClassName"], "soft");
    assert_eq!(
        object["nodeTopology"],
        json!({"matchLabels": {"kubernetes.io/hostname": "host-1"}})
    );
    assert_eq!(
        object["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "node"}])
    );
    assert!(told(&world)[0].1 > 0);
}

/// S7: it is told anew where it changed by more than a little, and found again after a restart.
#[test]
fn s7_what_changed_is_told() {
    let mut world = world();
    for (free, expected) in [
        (64 * GIB, 64 * GIB),
        (64 * GIB - 1, 64 * GIB),
        (60 * GIB, 60 * GIB),
        (0, 0),
        (1, 1),
    ] {
        survey(&mut world, free, Ok(0));
        assert_eq!(told(&world), [of("soft", expected)], "{free}");
    }
    survey(&mut world, 8 * GIB, Ok(0));
    world.clear();
    world.start();
    world.run();
    assert_eq!(world.of_kind(Kind::StorageCapacity).len(), 1);
    let made = |step: &&String| step.starts_with("tell-room");
    assert_eq!(
        world.steps.iter().filter(made).count(),
        1,
        "{:?}",
        world.steps
    );
    // The disks are asked again each minute.
    assert!(
        world
            .timers
            .iter()
            .any(|(_, alarm)| *alarm == Alarm::Survey)
    );
    world.clear();
    world.feed(Input::Alarm(Alarm::Survey));
    world.run();
    assert_eq!(world.steps, ["survey"]);
}

/// S7: what a class's volumes need counts; where nothing holds them, the class is told why, once, as no
/// claim ever comes to be. A class that is wrong keeps nobody away: its claims are told.
#[test]
fn s7_each_class_has_its_own() {
    let mut world = world();
    world.put(
        Kind::StorageClass,
        class("held", json!({"parameters": {"quota": "required"}})),
    );
    world.put(
        Kind::StorageClass,
        class("wrong", json!({"parameters": {"quotas": "x"}})),
    );
    world.put(
        Kind::StorageClass,
        class("other", json!({"provisioner": "else.where"})),
    );
    world.run();
    world.clear();
    for _again in 0..2 {
        survey(&mut world, 9 * GIB, Err("no prjquota".into()));
        let expected = [of("held", 0), of("soft", 9 * GIB), of("wrong", 9 * GIB)];
        assert_eq!(told(&world), expected);
    }
    let events = world.told_of_classes();
    let about = events.iter().filter(|t| t.contains("no prjquota"));
    assert_eq!(about.count(), 1, "{events:?}");
    assert_eq!(
        world.events.last().unwrap().about,
        ObjectKey::storage_class(&"held".into())
    );
    survey(&mut world, 9 * GIB, Ok(5 * GIB));
    assert_eq!(told(&world)[0], of("held", 5 * GIB));
}

/// What is told goes with its class, and only then; somebody else's deletion is made good.
#[test]
fn what_is_told_goes_with_its_class() {
    let mut world = world();
    let key = world.of_kind(Kind::StorageCapacity)[0].clone();
    world.delete(&key);
    world.run();
    assert_eq!(told(&world).len(), 1, "made again");
    world.delete(&ObjectKey::storage_class(&"soft".into()));
    world.run();
    assert!(told(&world).is_empty(), "{:?}", world.steps);
    assert!(world.followed.is_empty());
    let anew = json!({"metadata": {"uid": "another"}});
    world.put(Kind::StorageClass, class("soft", anew));
    world.run();
    assert_eq!(told(&world).len(), 1);
}

/// Without a namespace for it nothing is asked and nothing told.
#[test]
fn without_a_namespace_nothing_is_told() {
    let mut world = World::new();
    world.start();
    world.settle();
    assert_eq!(world.steps, ["scan"]);
    assert!(world.followed.is_empty());
}

#[test]
fn what_volumes_take_is_measured() {
    let mut world = world();
    survey(&mut world, 9 * GIB, Ok(0));
    let measures = world.machine.measures();
    let used = measures
        .iter()
        .find(|m| m.name == "bitts_provisioner_volume_used_bytes");
    let used = used.unwrap();
    assert_eq!(used.labels, [("volume", "pvc-a".to_owned())]);
    assert_eq!(used.reading, Reading::Gauge(7));
    let free = measures
        .iter()
        .find(|m| m.name == "bitts_provisioner_free_bytes");
    assert_eq!(free.unwrap().reading, Reading::Gauge(9 * GIB));
}
