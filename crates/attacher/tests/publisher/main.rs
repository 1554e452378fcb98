//! The part that has a driver attach: the rules one by one, and lives at random in which a volume for
//! one node is never on two, nothing is attached that nobody knows of, and in the end nothing is left
//! over. `ATTACHER_LIVES=10000` for more of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set itself up shall panic"
)]

mod scenes;
mod world;

use std::time::Duration;

use bitts_api::{Kind, ObjectKey};
use bitts_attacher::PublisherOptions;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use world::{End, Fate, Plant, World, attachment};

const NODES: [&str; 2] = ["n1", "n2"];
const VOLUMES: [&str; 2] = ["v", "shared"];

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    Asks(usize, usize),
    Goes(usize, usize),
    /// The driver calls a node otherwise.
    Renames(usize, usize),
    Deletes(usize),
    /// The API forgets that an attachment or volume is to be deleted, as one restored from a backup.
    Restores(usize, usize),
    Ends(usize, End),
    Tells,
    Executes(Fate),
    Dies,
    Time,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let (node, volume) = (0..NODES.len(), 0..VOLUMES.len());
    let fate = prop_oneof![
        8 => Just(Fate::Done), 1 => Just(Fate::Lost),
        1 => Just(Fate::DeathAfter), 1 => Just(Fate::DeathBefore)
    ];
    let end = prop_oneof![
        6 => Just(End::Well), 1 => Just(End::Fails(8)), 1 => Just(End::Fails(5)),
        2 => Just(End::DoesAndFails(4)), 1 => any::<bool>().prop_map(End::Breaks)
    ];
    let event = prop_oneof![
        4 => (volume.clone(), node.clone()).prop_map(|(v, n)| Event::Asks(v, n)),
        4 => (volume.clone(), node.clone()).prop_map(|(v, n)| Event::Goes(v, n)),
        1 => (node.clone(), 0..2_usize).prop_map(|(n, id)| Event::Renames(n, id)),
        1 => volume.clone().prop_map(Event::Deletes),
        1 => (volume, node).prop_map(|(v, n)| Event::Restores(v, n)),
        10 => (any::<usize>(), end).prop_map(|(which, end)| Event::Ends(which, end)),
        16 => Just(Event::Tells),
        16 => fate.prop_map(Event::Executes),
        1 => Just(Event::Dies),
        4 => Just(Event::Time),
    ];
    prop::collection::vec(event, 0..250)
}

fn name(volume: usize, node: usize) -> String {
    format!("a-{}-{}", VOLUMES[volume], NODES[node])
}

fn happen(world: &mut World, event: Event) {
    match event {
        Event::Asks(volume, node) => {
            let name = name(volume, node);
            if world.get(&attachment(&name)).is_none() {
                world.ask_for(&name, VOLUMES[volume], NODES[node]);
            }
        }
        Event::Goes(volume, node) => world.delete(&attachment(&name(volume, node))),
        Event::Renames(node, id) => {
            let id = format!("id-{}{}", NODES[node], ["", "-new"][id]);
            world.add_node(NODES[node], &id);
        }
        Event::Deletes(volume) => {
            let key = ObjectKey::volume(VOLUMES[volume]);
            world.delete(&key);
            if world.get(&key).is_none() {
                add_volume(world, volume);
            }
        }
        Event::Restores(volume, node) => {
            for key in [
                ObjectKey::volume(VOLUMES[volume]),
                attachment(&name(volume, node)),
            ] {
                world.change(&key, |object| {
                    object["metadata"]["deletionTimestamp"] = serde_json::Value::Null;
                });
            }
        }
        Event::Ends(which, end) => drop(world.end_call(which, end)),
        Event::Tells => drop(world.deliver()),
        Event::Executes(fate) => drop(world.execute(fate)),
        Event::Dies => world.restart(),
        Event::Time => {
            let until = world.now + Duration::from_secs(20);
            world.ring(until);
            world.now = until;
        }
    }
}

fn add_volume(world: &mut World, volume: usize) {
    world.add_volume(
        VOLUMES[volume],
        &[["ReadWriteOnce", "ReadWriteMany"][volume]],
    );
}

fn begin(plant: Plant) -> World {
    let mut world = World::new(PublisherOptions::default());
    world.plant = plant;
    for node in NODES {
        world.add_node(node, &format!("id-{node}"));
    }
    for volume in 0..VOLUMES.len() {
        add_volume(&mut world, volume);
    }
    world.restart();
    world
}

fn live(plant: Plant, events: &[Event]) -> Vec<String> {
    let mut world = begin(plant);
    for event in events {
        happen(&mut world, *event);
    }
    if plant == Plant::Nothing {
        end(&mut world);
    }
    world.broken
}

/// Everything that can be attached is, in the end; then everything goes.
fn end(world: &mut World) {
    world.wait(Duration::from_secs(600));
    let attachments: Vec<(ObjectKey, serde_json::Value)> = (world.objects.iter())
        .filter(|(key, _)| key.kind == Kind::Attachment)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (key, value) in &attachments {
        let volume = &value["spec"]["source"]["persistentVolumeName"];
        let of_volume = world.get(&ObjectKey::volume(volume.as_str().unwrap_or_default()));
        let goes = of_volume.is_none_or(|v| !v["metadata"]["deletionTimestamp"].is_null());
        let rival = attachments.iter().any(|(other, it)| {
            other != key && it["spec"]["source"]["persistentVolumeName"] == *volume
        });
        let waits = goes || (volume == "v" && rival);
        if !waits && value["status"]["attached"] != true {
            world.broken.push(format!("never attached: {value}"));
        }
    }
    let attachments: Vec<ObjectKey> = world.objects.keys().cloned().collect();
    for key in attachments
        .iter()
        .filter(|key| key.kind == Kind::Attachment)
    {
        world.delete(key);
    }
    world.wait(Duration::from_secs(600));
    for (key, value) in &world.objects {
        let held = value["metadata"]["finalizers"].as_array();
        if key.kind == Kind::Attachment || held.is_some_and(|held| !held.is_empty()) {
            world.broken.push(format!("left over: {key} {value}"));
        }
    }
    if !world.attached.is_empty() {
        world
            .broken
            .push(format!("still attached: {:?}", world.attached));
    }
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

/// Each kind of breach is found where its bug is planted.
fn is_found(plant: Plant, breach: &str) {
    let found = lives(plant, 3000).expect_err("nothing was found");
    assert!(found.contains(breach), "{found}");
}

#[test]
fn a26_no_volume_is_on_two_nodes_and_nothing_is_left_over() {
    let cases = std::env::var("ATTACHER_LIVES")
        .ok()
        .and_then(|n| n.parse().ok());
    lives(Plant::Nothing, cases.unwrap_or(200)).unwrap();
}

#[test]
fn a_call_for_what_is_not_held_is_found() {
    is_found(Plant::ImaginesHolds, "is published and not held");
}

#[test]
fn a_detach_that_was_only_believed_is_found() {
    is_found(Plant::BelievesFailedDetach, "is gone, and");
}

#[test]
fn a21_a_second_node_is_found() {
    is_found(Plant::HidesHolds, "and now on");
}

#[test]
fn a_detach_without_reason_is_found() {
    is_found(Plant::NoEvidence, "detached without reason");
}

#[test]
fn a_second_call_for_a_volume_is_found() {
    is_found(Plant::ForgetsCalls, "two calls for");
}
