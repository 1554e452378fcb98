//! Beside a kubelet nothing that changes the node or its objects ever comes out, whatever comes in
//! (A35, M49).

use std::time::Duration;

use bitts_agent::{Agent, Ailment, Alarm, How, Mode, OnNode, Report, Task};
use bitts_api::machine::{Effect, Input, Outcome};
use bitts_api::{Kind, ObjectKey};
use proptest::prelude::*;
use serde_json::json;

use crate::run::*;

/// How many different inputs there are.
const INPUTS: u8 = 24;

/// Gives the machine one of them.
fn give(run: &mut Run, input: u8) -> Effects {
    let node_key = || ObjectKey {
        kind: Kind::Node,
        namespace: None,
        name: "node-1".into(),
    };
    match input {
        0 => run.list(Kind::Node, vec![node()]),
        1 => run.list(Kind::Volume, vec![volume()]),
        2 => run.list(Kind::Claim, vec![claim()]),
        3 => run.list(Kind::Pod, vec![pod("a", &["cqh"])]),
        4 => run.report(Report::Scanned {
            volumes: vec![bare(key("left"))],
            stages: vec![staging().key],
            empty: vec!["empty-uid".into()],
        }),
        5 => run.mounted(mount("a")),
        6 => run.see(Kind::Pod, pod("b", &["cqh"])),
        7 => run.report(Report::NeedsDevice(mount("b"))),
        8 => run.report(Report::Staged {
            staging: staging(),
            on_node: OnNode::Device {
                how: How::Now,
                warning: None,
            },
        }),
        9 => run.fails(mount("b")),
        10 => run.feed(Input::Alarm(Alarm::Retry(key("b"), 1))),
        11 => run.gone(ObjectKey::pod("default", "a"), "a-uid"),
        12 => run.see(
            Kind::Pod,
            with(
                deleting(pod("b", &["cqh"]), 11),
                json!({"status": {"phase": "Succeeded"}}),
            ),
        ),
        13 => run.unmounted(key("a")),
        14 => run.unmounted(key("b")),
        15 => run.unmounted(key("left")),
        16 => run.feed(Input::Alarm(Alarm::RetryStage(staging().key, 1))),
        17 => run.gone(node_key(), "n-1"),
        18 => run.report(Report::Missing(vec![key("a"), key("b")])),
        19 => run.feed(Input::Alarm(Alarm::Heal(key("b")))),
        20 => run.feed(Input::Alarm(Alarm::Probe)),
        21 => run.report(Report::Probed {
            server: "nfs".into(),
            mounts: vec![(key("a"), Some(Ailment::Stale))],
        }),
        22 => run.feed(Input::Finished(node_key(), Outcome::Conflict)),
        _ => run.report(Report::ScanFailed("no such directory".to_owned())),
    }
}

fn changes_something(effect: &Effect<Task, Alarm>) -> bool {
    match effect {
        Effect::Task(task) => !matches!(task, Task::Scan | Task::Watch | Task::Probe { .. }),
        Effect::Write(_) | Effect::Create(_) | Effect::Destroy(_) => true,
        Effect::Event(_) | Effect::Wake(..) | Effect::Follow(_) | Effect::Unfollow(_) => false,
    }
}

fn changes(run: &mut Run, inputs: impl IntoIterator<Item = u8>) -> Effects {
    let effects = inputs.into_iter().flat_map(|input| give(run, input));
    effects.filter(changes_something).collect()
}

/// The owner of the volumes does all there is to do for these inputs: they mean something.
#[test]
fn the_owner_does_what_these_inputs_ask_for() {
    let mut run = Run::new(Agent::new("node-1".into(), true));
    let done = format!("{:?}", changes(&mut run, 0..INPUTS));
    for word in [
        "Mount(",
        "Unmount(",
        "Stage(",
        "Unstage(",
        "RemovePodDirectory(",
        "Destroy(",
    ] {
        assert!(done.contains(word), "no {word} in {done}");
    }
}

proptest! {
    #[test]
    fn nothing_is_changed_beside_a_kubelet(
        first in Just((0..5).collect::<Vec<u8>>()).prop_shuffle(),
        then in prop::collection::vec(0..INPUTS, 0..60),
        finish_pods: bool,
    ) {
        let agent = Agent::new("node-1".into(), finish_pods)
            .healing(Some(Duration::from_secs(30)))
            .in_mode(Mode::BesideKubelet);
        let mut run = Run::new(agent);
        prop_assert_eq!(changes(&mut run, first.into_iter().chain(then)), []);
        // Nor are claims and volumes read.
        prop_assert!(run.followed.is_empty());
    }
}
