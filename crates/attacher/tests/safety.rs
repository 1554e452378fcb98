//! Lives of a cluster at random: a volume for one node is never on two, a node that is well keeps what
//! it uses, and in the end nothing is left over. `ATTACHER_LIVES=10000` for more of them.

mod support;

use std::time::Duration;

use bitts_api::machine::Effect;
use bitts_api::{Kind, ObjectKey};
use bitts_attacher::Options;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Fate, Plant, World, attachment, node_key};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUMES: [&str; 3] = ["v", "w", "shared"];
const PODS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A pod comes, where none of its name is.
    Pod(usize, usize, usize),
    /// A pod's object goes, and whatever runs of it stays until its kubelet sees that.
    Gone(usize),
    Down(usize),
    Up(usize),
    Taint(usize, bool),
    NodeGone(usize),
    Force(usize, usize),
    Kubelet(usize),
    /// The driver does something; or it fails, or it fails and did it.
    Driver(Option<bool>),
    Tell,
    Execute(Fate),
    Time,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let (node, volume, pod) = (0..NODES.len(), 0..VOLUMES.len(), 0..PODS.len());
    let fate = prop_oneof![
        8 => Just(Fate::Done), 1 => Just(Fate::Lost),
        1 => Just(Fate::DeathAfter), 1 => Just(Fate::DeathBefore)
    ];
    let event = prop_oneof![
        4 => (pod.clone(), volume.clone(), node.clone()).prop_map(|(p, v, n)| Event::Pod(p, v, n)),
        3 => pod.prop_map(Event::Gone),
        1 => node.clone().prop_map(Event::Down),
        2 => node.clone().prop_map(Event::Up),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, on)| Event::Taint(n, on)),
        1 => node.clone().prop_map(Event::NodeGone),
        1 => (volume, node.clone()).prop_map(|(v, n)| Event::Force(v, n)),
        12 => node.prop_map(Event::Kubelet),
        12 => prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)].prop_map(Event::Driver),
        16 => Just(Event::Tell),
        16 => fate.prop_map(Event::Execute),
        3 => Just(Event::Time),
    ];
    prop::collection::vec(event, 0..250)
}

fn begin(plant: Plant) -> World {
    let mut world = World::new(Options::default());
    world.plant = plant;
    for node in NODES {
        world.add_node(node, true);
    }
    for volume in ["v", "w"] {
        world.add_volume(volume, &["ReadWriteOnce"]);
    }
    world.add_volume("shared", &["ReadWriteMany"]);
    world.restart();
    world
}

fn happen(world: &mut World, event: Event) {
    match event {
        Event::Pod(pod, volume, node) => {
            if world.get(&ObjectKey::pod("shop", PODS[pod])).is_none() {
                world.add_pod(PODS[pod], VOLUMES[volume], NODES[node]);
            }
        }
        Event::Gone(pod) => world.delete(&ObjectKey::pod("shop", PODS[pod])),
        Event::Down(node) => world.set_ready(NODES[node], false),
        Event::Up(node) => match world.get(&node_key(NODES[node])) {
            Some(_) => world.set_ready(NODES[node], true),
            None => world.add_node(NODES[node], true),
        },
        Event::Taint(node, on) => world.set_taint(NODES[node], on),
        Event::NodeGone(node) => world.delete(&node_key(NODES[node])),
        Event::Force(volume, node) => {
            world.change(&attachment(VOLUMES[volume], NODES[node]), |a| {
                a["metadata"]["annotations"] = serde_json::json!({"bitts.dev/force-detach": "yes"});
            });
        }
        Event::Kubelet(node) => drop(world.kubelet(NODES[node])),
        Event::Driver(fails) => {
            world.driver_fails = fails.map(|half| format!("failed, half: {half}"));
            world.driver(fails == Some(true));
        }
        Event::Tell => drop(world.deliver()),
        Event::Execute(fate) => drop(world.execute(fate)),
        Event::Time => {
            let until = world.now + Duration::from_secs(100);
            world.ring(until);
            world.now = until;
        }
    }
}

/// Everything is well again, and every pod goes.
fn end(world: &mut World) {
    world.driver_fails = None;
    for (number, node) in NODES.into_iter().enumerate() {
        happen(world, Event::Up(number));
        world.set_taint(node, false);
    }
    world.wait(Duration::from_secs(600));
    let mut pods: Vec<ObjectKey> = world.objects.keys().cloned().collect();
    pods.retain(|key| key.kind == Kind::Pod);
    // All that can be mounted is: a volume for one node where it is wanted on one node only.
    for key in &pods {
        let pod = world.objects[key].clone();
        let claim = &pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
        let volume = claim.as_str().unwrap_or_default();
        let volume = volume.trim_start_matches("c-").to_owned();
        let node = pod["spec"]["nodeName"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let rival = pods.iter().any(|other| {
            let other = &world.objects[other];
            other["spec"]["volumes"] == pod["spec"]["volumes"]
                && other["spec"]["nodeName"] != pod["spec"]["nodeName"]
        });
        let waits = rival && world.single.contains(&volume);
        if !waits && !world.mounted.contains(&(volume.clone(), node.clone())) {
            world
                .broken
                .push(format!("{volume} is never mounted on {node}"));
        }
    }
    for pod in &pods {
        world.delete(pod);
    }
    world.wait(Duration::from_secs(600));
    let left: Vec<String> = world
        .objects
        .keys()
        .filter(|key| key.kind == Kind::Attachment)
        .map(ToString::to_string)
        .collect();
    if !(left.is_empty() && world.attached.is_empty()) {
        world
            .broken
            .push(format!("left over: {left:?} {:?}", world.attached));
    }
    for node in NODES {
        for volume in VOLUMES {
            if world.is_listed(volume, node) {
                world.broken.push(format!("{node} still lists {volume}"));
            }
        }
    }
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

fn lives(plant: Plant, cases: u32) -> Result<(), String> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if plant == Plant::Nothing { 2000 } else { 0 },
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
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
fn a35_no_volume_is_on_two_nodes_or_taken_from_its_user() {
    let cases = std::env::var("ATTACHER_LIVES")
        .ok()
        .and_then(|n| n.parse().ok());
    lives(Plant::Nothing, cases.unwrap_or(300)).unwrap();
}

#[test]
fn a_driver_that_is_asked_twice_is_found() {
    is_found(Plant::HidesPending, "and now on");
}

#[test]
fn a30_a_node_that_is_robbed_is_found() {
    is_found(Plant::HidesUse, "which is well and uses it");
}

/// A node is well again between the decision to force a detach and the detach.
fn well_again(plant: Plant) -> World {
    let mut world = begin(plant);
    world.add_pod("a", "v", "n1");
    world.rest();
    assert!(world.mounted.contains(&("v".to_owned(), "n1".to_owned())));
    world.set_ready("n1", false);
    world.set_taint("n1", true);
    world.delete(&ObjectKey::pod("shop", "a"));
    while !matches!(world.queue.front(), Some(Effect::Destroy(_))) {
        assert!(world.deliver() || world.execute(Fate::Done), "no detach");
    }
    world.set_ready("n1", true);
    world.execute(Fate::Done);
    world
}

#[test]
fn a13_evidence_is_read_again_and_where_it_is_not_that_is_found() {
    let world = well_again(Plant::Nothing);
    assert_eq!(world.broken, Vec::<String>::new());
    assert_eq!(world.steps.last().unwrap(), "detach-volume Spared");
    let world = well_again(Plant::NoEvidence);
    assert!(
        world.broken[0].contains("which is well and uses it"),
        "{:?}",
        world.broken
    );
}

#[test]
fn a13_a_list_that_is_not_cleared_first_is_found() {
    is_found(Plant::HidesLists, "which lists it");
}

#[test]
fn a35_what_is_being_detached_is_not_listed_though_a_pod_asks_for_it_again() {
    let mut world = begin(Plant::Nothing);
    world.add_pod("a", "v", "n1");
    world.rest();
    world.delete(&ObjectKey::pod("shop", "a"));
    while !matches!(world.queue.front(), Some(Effect::Destroy(_))) {
        let busy = world.deliver() || world.kubelet("n1") || world.execute(Fate::Done);
        assert!(busy, "no detach");
    }
    world.add_pod("b", "v", "n1");
    while world.deliver() {}
    let lists = |effect: &support::Step| matches!(effect, Effect::Write(_));
    assert!(!world.queue.iter().any(lists), "{:?}", world.queue);
    world.rest();
    assert!(world.mounted.contains(&("v".to_owned(), "n1".to_owned())));
    assert_eq!(world.broken, Vec::<String>::new());
}
