//! Beside a kubelet its NFS mounts are watched over and mended; nothing else that changes the node or
//! its objects ever comes out, whatever comes in (A35, M49).

use std::time::Duration;

use bitts_agent::{Agent, Ailment, Alarm, How, Mode, OnNode, Report, Task};
use bitts_api::machine::{Effect, Input, Outcome};
use bitts_api::{Kind, ObjectKey};
use proptest::prelude::*;
use serde_json::json;

use crate::healing::{nfs_key, nfs_mount, nfs_volume, reasons, tasks};
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
        Effect::Task(task) => !matches!(
            task,
            Task::Scan | Task::Watch | Task::Probe { .. } | Task::Await(_) | Task::Leave(_)
        ),
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
    }

    /// What a kubelet has not mounted is not mounted, and nothing of a kubelet's is taken away.
    #[test]
    fn only_what_a_kubelet_mounted_is_mended(
        inputs in prop::collection::vec(0..FOR_NFS, 0..80),
    ) {
        let (mut run, _) = nfs(&[]);
        let mut appeared = false;
        for input in inputs {
            appeared |= input == 0;
            let effects = give_nfs(&mut run, input);
            for effect in effects.iter().filter(|effect| changes_something(effect)) {
                let mends = matches!(
                    effect,
                    Effect::Task(Task::Mount(mount) | Task::Renew(mount)) if *mount == nfs_mount("a")
                );
                prop_assert!(mends && appeared, "{:?}", effect);
            }
        }
    }
}

/// How many different inputs there are for a volume on NFS.
const FOR_NFS: u8 = 14;

fn give_nfs(run: &mut Run, input: u8) -> Effects {
    let probed = |run: &mut Run, ailment| {
        let server = "nas".into();
        let mounts = vec![(nfs_key("a"), ailment)];
        run.report(Report::Probed { server, mounts })
    };
    match input {
        0 => run.report(Report::Appeared(vec![nfs_key("a")])),
        1 => run.see(Kind::Pod, pod("a", &["cqh"])),
        2 => run.see(Kind::Pod, deleting(pod("a", &["cqh"]), 11)),
        3 => run.gone(ObjectKey::pod("default", "a"), "a-uid"),
        4 => run.report(Report::Missing(vec![nfs_key("a")])),
        5 => run.mounted(nfs_mount("a")),
        6 => run.fails(nfs_mount("a")),
        7 => run.report(Report::Left(nfs_key("a"))),
        8 => run.feed(Input::Alarm(Alarm::Retry(nfs_key("a"), 1))),
        9 => run.feed(Input::Alarm(Alarm::Heal(nfs_key("a")))),
        10 => run.feed(Input::Alarm(Alarm::Probe)),
        11 => probed(run, Some(Ailment::Stale)),
        12 => probed(run, Some(Ailment::Lost)),
        _ => probed(run, None),
    }
}

/// An agent beside a kubelet, with these pods on the node; and what it wants done for them.
fn nfs(pods: &[&str]) -> (Run, Effects) {
    let agent = Agent::new("node-1".into(), false)
        .healing(Some(Duration::from_secs(30)))
        .in_mode(Mode::BesideKubelet);
    let mut run = Run::new(agent);
    run.list(Kind::Node, vec![node()]);
    run.list(Kind::Volume, vec![nfs_volume()]);
    run.list(Kind::Claim, vec![claim()]);
    run.report(Report::Scanned {
        volumes: Vec::new(),
        stages: Vec::new(),
        empty: Vec::new(),
    });
    let objects = pods.iter().map(|name| pod(name, &["cqh"])).collect();
    let effects = run.list(Kind::Pod, objects);
    (run, effects)
}

#[test]
fn a_kubelets_mount_is_watched_over_from_when_it_is_there() {
    let (mut run, effects) = nfs(&["a"]);
    assert_eq!(tasks(&effects), [Task::Watch, Task::Await(nfs_key("a"))]);
    assert!(!run.followed.is_empty());
    let effects = run.report(Report::Appeared(vec![nfs_key("a")]));
    let asks = Effect::Wake(Duration::from_secs(30), Alarm::Probe);
    assert!(effects.contains(&asks), "{effects:?}");
    assert_eq!(tasks(&effects), [Task::Watch]);
    // The API has no more to say of it.
    assert!(run.followed.is_empty());
}

#[test]
fn what_is_stale_or_vanished_beside_a_kubelet_is_told_and_mended() {
    let (mut run, _) = nfs(&["a"]);
    run.report(Report::Appeared(vec![nfs_key("a")]));
    let effects = run.report(Report::Probed {
        server: "nas".into(),
        mounts: vec![(nfs_key("a"), Some(Ailment::Stale))],
    });
    assert_eq!(reasons(&effects), ["BittsMountStale"]);
    assert_eq!(tasks(&effects), [Task::Renew(nfs_mount("a"))]);
    assert_eq!(reasons(&run.mounted(nfs_mount("a"))), ["BittsMountHealed"]);
    let effects = run.report(Report::Missing(vec![nfs_key("a")]));
    assert_eq!(reasons(&effects), ["BittsMountLost"]);
    assert_eq!(tasks(&effects), [Task::Mount(nfs_mount("a")), Task::Watch]);
    // Meanwhile the pod ended, so the worker left it to the kubelet: that is not tried again.
    let effects = run.report(Report::Left(nfs_key("a")));
    assert_eq!(effects, []);
}

#[test]
fn a_kubelet_takes_its_volumes_down_undisturbed() {
    let (mut run, _) = nfs(&["a"]);
    run.report(Report::Appeared(vec![nfs_key("a")]));
    let effects = run.see(Kind::Pod, deleting(pod("a", &["cqh"]), 11));
    assert_eq!(effects, [Effect::Task(Task::Leave(nfs_key("a")))]);
    let effects = run.report(Report::Missing(vec![nfs_key("a")]));
    assert_eq!(effects, [Effect::Task(Task::Watch)]);
}

/// Volumes that nobody answers for are not even noted, and refusals are the kubelet's to tell.
#[test]
fn other_volumes_are_the_kubelets_alone() {
    let agent = Agent::new("node-1".into(), false).in_mode(Mode::BesideKubelet);
    let mut run = Run::new(agent);
    run.list(Kind::Node, vec![node()]);
    run.list(Kind::Volume, vec![volume()]);
    run.list(Kind::Claim, vec![claim()]);
    run.report(Report::Scanned {
        volumes: Vec::new(),
        stages: Vec::new(),
        empty: Vec::new(),
    });
    let pods = vec![pod("a", &["cqh"]), pod("b", &["missing"])];
    assert_eq!(run.list(Kind::Pod, pods), []);
    // One waits for its claim; of the other one there is nothing to know.
    assert_eq!(run.followed.len(), 1, "{:?}", run.followed);
}
