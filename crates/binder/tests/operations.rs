//! How long it takes to make and to delete volumes, as the stock metrics have it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use bitts_api::machine::{Moment, Reading};
use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{Store, World, claim, volume};

const TOOK: &str = "volume_operation_total_seconds";
const ERRORS: &str = "volume_operation_errors_total";

fn at(world: &mut World, seconds: u64) {
    world.now = Moment(Duration::from_secs(seconds));
}

/// Each measure of this name as `plugin operation number`, with the seconds of those that took some.
fn told(world: &World, name: &str) -> Vec<String> {
    let line = |measure: &bitts_api::machine::Measure| {
        assert_eq!(measure.labels[0].0, "plugin_name");
        assert_eq!(measure.labels[1].0, "operation_name");
        let number = match &measure.reading {
            Reading::Durations(took) => format!("{} {}s", took.count(), took.sum().as_secs()),
            Reading::Counter(n) | Reading::Gauge(n) => n.to_string(),
        };
        format!("{} {} {number}", measure.labels[0].1, measure.labels[1].1)
    };
    world.measures(name).iter().map(line).collect()
}

fn of_gold(mut object: Value) -> Value {
    object["spec"]["storageClassName"] = "gold".into();
    object
}

fn world_with_a_class() -> World {
    let mut store = Store::default();
    let class = json!({"metadata": {"name": "gold"}, "provisioner": "vendor.com/disk"});
    store.create(Kind::StorageClass, class);
    let mut world = World::new(store);
    world.start();
    world
}

/// N14, D14: from the first asking to Bound, and from Released to gone.
#[test]
fn making_and_deleting_are_measured_from_end_to_end() {
    let mut world = world_with_a_class();
    at(&mut world, 100);
    let c = world.create(Kind::Claim, of_gold(claim("c", "1Gi")));
    world.settle();
    at(&mut world, 130);
    world.edit(&c, &json!({"metadata": {"labels": {"a": "b"}}}));
    world.settle();
    assert!(told(&world, TOOK).is_empty());
    let mut made = of_gold(volume("v", "1Gi"));
    made["metadata"]["annotations"] = json!({"pv.kubernetes.io/provisioned-by": "vendor.com/disk"});
    made["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    made["spec"]["claimRef"] = json!({"namespace": "default", "name": "c", "uid": "uid-c"});
    let v = world.create(Kind::Volume, made);
    world.settle();
    assert_eq!(told(&world, TOOK), ["vendor.com/disk provision 1 30s"]);

    at(&mut world, 1_000);
    world.delete(&c);
    world.settle();
    assert_eq!(world.store.objects[&v]["status"]["phase"], "Released");
    at(&mut world, 1_005);
    world.delete(&v);
    world.settle();
    assert_eq!(
        told(&world, TOOK),
        [
            "vendor.com/disk delete 1 5s",
            "vendor.com/disk provision 1 30s"
        ]
    );
    assert!(told(&world, ERRORS).is_empty());
}

/// N14: a volume that was there is none that was made, and a claim that goes was not provisioned.
#[test]
fn what_nobody_makes_is_not_measured() {
    let mut world = world_with_a_class();
    let c = world.create(Kind::Claim, of_gold(claim("c", "1Gi")));
    world.settle();
    at(&mut world, 10);
    world.delete(&c);
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.create(Kind::Claim, claim("d", "1Gi"));
    world.settle();
    let d = &world.store.objects[&ObjectKey::claim("default", "d")];
    assert_eq!(d["status"]["phase"], "Bound");
    assert!(told(&world, TOOK).is_empty());
}

/// D14: what cannot be deleted is counted, under both names.
#[test]
fn a_deletion_that_fails_is_an_error_each_time() {
    let mut world = world_with_a_class();
    let mut made = volume("v", "1Gi");
    made["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    let v = world.create(Kind::Volume, made);
    let c = world.create(Kind::Claim, claim("c", "1Gi"));
    world.settle();
    world.delete(&c);
    world.settle();
    world.edit(&v, &json!({"metadata": {"labels": {"a": "b"}}}));
    world.settle();
    assert_eq!(world.store.objects[&v]["status"]["phase"], "Failed");
    for name in [ERRORS, "volume_operation_total_errors"] {
        assert_eq!(told(&world, name), ["N/A delete 1"]);
    }
    assert!(told(&world, TOOK).is_empty());
}
