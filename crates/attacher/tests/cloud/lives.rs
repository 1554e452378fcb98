//! Lives of a cluster on a cloud at random. `ATTACHER_LIVES=10000` for more of them.

use std::time::Duration;

use bitts_api::{Kind, ObjectKey};
use bitts_attacher::CloudOptions;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::world::{Fate, Plant, World, node_key};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUMES: [&str; 3] = ["v", "w", "read"];
const PODS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A pod comes, where none of its name is.
    Pod(usize, usize, usize),
    /// A pod's object goes, and whatever runs of it stays until its agent sees that.
    Gone(usize),
    Down(usize),
    Up(usize),
    /// The machine stops.
    Off(usize),
    Taint(usize, bool),
    NodeGone(usize),
    Agent(usize),
    Cloud(usize, Fate),
    /// The cloud ends what nobody may wait for any more.
    Operation,
    Tell,
    Execute(bool),
    Death,
    Time,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let (node, volume, pod) = (0..NODES.len(), 0..VOLUMES.len(), 0..PODS.len());
    let fate = prop_oneof![
        8 => Just(Fate::Well), 1 => Just(Fate::Refused),
        1 => Just(Fate::Lost), 1 => Just(Fate::FailsLate)
    ];
    let event = prop_oneof![
        4 => (pod.clone(), volume, node.clone()).prop_map(|(p, v, n)| Event::Pod(p, v, n)),
        3 => pod.prop_map(Event::Gone),
        1 => node.clone().prop_map(Event::Down),
        2 => node.clone().prop_map(Event::Up),
        1 => node.clone().prop_map(Event::Off),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, on)| Event::Taint(n, on)),
        1 => node.clone().prop_map(Event::NodeGone),
        12 => node.prop_map(Event::Agent),
        16 => (0..4_usize, fate).prop_map(|(which, fate)| Event::Cloud(which, fate)),
        2 => Just(Event::Operation),
        16 => Just(Event::Tell),
        16 => prop_oneof![9 => Just(false), 1 => Just(true)].prop_map(Event::Execute),
        1 => Just(Event::Death),
        3 => Just(Event::Time),
    ];
    prop::collection::vec(event, 0..250)
}

fn begin(plant: Plant) -> World {
    let mut world = World::new(CloudOptions::default());
    world.plant = plant;
    NODES.iter().for_each(|node| world.add_node(node));
    for volume in ["v", "w"] {
        world.add_volume(volume, &["ReadWriteOnce"]);
    }
    world.add_volume("read", &["ReadOnlyMany"]);
    world.restart();
    world
}

fn happen(world: &mut World, event: Event) {
    match event {
        Event::Pod(pod, volume, node) => {
            if !world
                .objects
                .contains_key(&ObjectKey::pod("shop", PODS[pod]))
            {
                world.add_pod(PODS[pod], VOLUMES[volume], NODES[node]);
            }
        }
        Event::Gone(pod) => world.delete(&ObjectKey::pod("shop", PODS[pod])),
        Event::Down(node) => world.set_ready(NODES[node], false),
        Event::Up(node) => world.start(NODES[node]),
        Event::Off(node) => world.stop(NODES[node]),
        Event::Taint(node, on) => world.set_taint(NODES[node], on),
        Event::NodeGone(node) => world.delete(&node_key(NODES[node])),
        Event::Agent(node) => drop(world.agent(NODES[node])),
        Event::Cloud(which, fate) => drop(world.cloud(which, fate)),
        Event::Operation => drop(world.end_operation()),
        Event::Tell => drop(world.deliver()),
        Event::Execute(lost) => drop(world.execute(lost)),
        Event::Death => world.restart(),
        Event::Time => {
            let until = world.now + Duration::from_secs(100);
            world.ring(until);
            world.now = until;
        }
    }
}

/// Everything is well again, and every pod goes.
fn end(world: &mut World) {
    for node in NODES {
        world.start(node);
        world.set_taint(node, false);
    }
    world.wait(Duration::from_secs(1200));
    let pods = world.objects.keys().filter(|key| key.kind == Kind::Pod);
    let pods: Vec<ObjectKey> = pods.cloned().collect();
    // All that can be mounted is: a disk for one node where it is wanted on one node only.
    for node in NODES {
        for disk in world.wanted_on(node) {
            let rivals = NODES.iter().filter(|n| world.wanted_on(n).contains(&disk));
            let waits = rivals.count() > 1 && world.single.contains(&disk);
            if !waits && !world.mounted.contains(&(disk.clone(), node.to_owned())) {
                world
                    .broken
                    .push(format!("{disk} is never mounted on {node}"));
            }
        }
    }
    pods.iter().for_each(|pod| world.delete(pod));
    world.wait(Duration::from_secs(1200));
    if !world.attached.is_empty() || !world.operations.is_empty() {
        world
            .broken
            .push(format!("left over: {:?}", world.attached));
    }
    for node in NODES {
        for volume in VOLUMES {
            if world.lists(volume, node) {
                world.broken.push(format!("{node} still lists {volume}"));
            }
        }
    }
}

fn live(plant: Plant, events: &[Event]) -> Vec<String> {
    let mut world = begin(plant);
    events.iter().for_each(|event| happen(&mut world, *event));
    if plant == Plant::Nothing {
        end(&mut world);
    }
    world.broken
}

fn lives(plant: Plant, cases: u32) -> Result<(), String> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if plant == Plant::Nothing { 2000 } else { 0 },
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let run = runner.run(&events(), |events| {
        let broken = live(plant, &events);
        prop_assert!(broken.is_empty(), "{broken:?}");
        Ok(())
    });
    run.map_err(|error| error.to_string())
}

#[test]
fn a35_no_disk_is_asked_for_twice_or_taken_from_its_user() {
    let cases = std::env::var("ATTACHER_LIVES").ok();
    let cases = cases.and_then(|n| n.parse().ok());
    lives(Plant::Nothing, cases.unwrap_or(300)).unwrap();
}

/// Each kind of breach is found where its bug is planted.
fn is_found(plant: Plant, breach: &str) {
    let found = lives(plant, 3000).expect_err("nothing was found");
    assert!(found.contains(breach), "{found}");
}

#[test]
fn a_cloud_that_hides_who_has_a_disk_is_found() {
    is_found(Plant::HidesUsers, "is elsewhere, and asked for on");
}

#[test]
fn what_is_under_way_and_not_waited_for_is_found() {
    is_found(Plant::NoWait, "");
}

#[test]
fn a13_a_list_that_is_not_cleared_first_is_found() {
    is_found(Plant::HidesLists, "which lists it");
}

#[test]
fn a30_a_node_that_is_robbed_is_found() {
    is_found(Plant::HidesUse, "which is well and uses it");
}

#[test]
fn a13_evidence_that_is_not_read_again_is_found() {
    is_found(Plant::NoEvidence, "is taken from");
}
