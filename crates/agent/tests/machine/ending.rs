//! What is taken down, and when.

use std::time::Duration;

use bitts_agent::{Agent, Alarm, MountStep, Report, Task};
use bitts_api::machine::{Destruction, Effect, Evidence, Input, Outcome};
use bitts_api::{Kind, ObjectKey, Uid};
use serde_json::json;

use crate::run::*;

#[test]
fn nothing_is_taken_down_on_a_node_that_the_api_does_not_know() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    assert_eq!(run.mounted(mount("web")), []);
    run.list(Kind::Node, vec![]);
    // A mistyped name of the node would make every pod look gone.
    assert_eq!(run.gone(ObjectKey::pod("default", "web"), "web-uid"), []);
    assert_eq!(run.list(Kind::Node, vec![node()]), unmounts("web"));
}

#[test]
fn a_pod_that_ends_while_its_node_is_unknown_is_not_mounted_for() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    let failed = Report::MountFailed {
        mount: mount("web"),
        step: MountStep::SetUp,
        message: "busy".into(),
    };
    let (_, alarm) = timer(&run.report(failed));
    run.list(Kind::Node, vec![]);
    run.gone(ObjectKey::pod("default", "web"), "web-uid");
    assert_eq!(run.feed(Input::Alarm(alarm)), []);
    assert_eq!(run.list(Kind::Node, vec![node()]), unmounts("web"));
}

#[test]
fn directories_stay_until_the_node_is_known() {
    let mut run = Run::new(Agent::new("mistyped".into(), true));
    run.list(Kind::Volume, vec![volume()]);
    run.list(Kind::Claim, vec![claim()]);
    run.list(Kind::Pod, vec![]);
    run.list(Kind::Node, vec![]);
    let found = Report::Scanned {
        volumes: vec![bare(key("web"))],
        stages: Vec::new(),
        empty: vec!["old".into()],
    };
    assert_eq!(run.report(found), []);
    let known = with(node(), json!({"metadata": {"name": "mistyped"}}));
    let mut expected = unmounts("web");
    expected.push(Effect::Task(Task::RemovePodDirectory("old".into())));
    assert_eq!(run.see(Kind::Node, known), expected);
}

#[test]
fn a_pod_that_ends_does_not_wait_for_the_retry_of_its_mount() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    let (_, alarm) = timer(&run.fails(mount("web")));
    // It may have come halfway, so it is taken down.
    assert_eq!(
        run.gone(ObjectKey::pod("default", "web"), "web-uid"),
        unmounts("web")
    );
    assert_eq!(run.feed(Input::Alarm(alarm)), []);
    assert_eq!(run.unmounted(key("web")), []);
}

#[test]
fn a_mount_under_way_is_waited_for() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    assert_eq!(run.gone(ObjectKey::pod("default", "web"), "web-uid"), []);
    assert_eq!(run.mounted(mount("web")), unmounts("web"));
}

/// M3: only the end of the pod takes its volumes away.
#[test]
fn a_running_pod_keeps_its_volume_whatever_happens() {
    let running = |value| {
        let container = json!([{"name": "c", "state": {"running": {}}}]);
        with(
            value,
            json!({"status": {"phase": "Running", "containerStatuses": container}}),
        )
    };
    let mut run = Run::ready();
    run.see(Kind::Pod, running(pod("web", &["cqh"])));
    run.mounted(mount("web"));
    let lost = with(claim(), json!({"status": {"phase": "Lost"}}));
    assert_eq!(run.see(Kind::Claim, version(lost, 30)), []);
    run.gone(ObjectKey::claim("default", "cqh"), "c-1");
    run.gone(ObjectKey::volume("cqh"), "v-1");
    let relabelled = with(node(), json!({"metadata": {"labels": {"cqh": "other"}}}));
    run.see(Kind::Node, version(relabelled, 31));
    assert_eq!(
        run.see(Kind::Pod, running(deleting(pod("web", &["cqh"]), 32))),
        []
    );
    // The last container ended.
    assert_eq!(
        run.see(Kind::Pod, deleting(pod("web", &["cqh"]), 33)),
        unmounts("web")
    );
}

#[test]
fn a_pod_that_ended_well_is_unmounted_but_not_deleted() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("job", &["cqh"]));
    run.mounted(mount("job"));
    let done = with(
        pod("job", &["cqh"]),
        json!({"status": {"phase": "Succeeded"}}),
    );
    assert_eq!(run.see(Kind::Pod, version(done, 40)), unmounts("job"));
    assert_eq!(run.unmounted(key("job")), []);
}

#[test]
fn what_is_still_in_use_is_kept_and_looked_at_again() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    run.mounted(mount("web"));
    run.gone(ObjectKey::pod("default", "web"), "web-uid");
    let kept = |holders: &str| Report::Kept {
        key: key("web"),
        target: key("web").target(),
        holders: holders.into(),
    };
    let effects = run.report(kept("process 7 (writer) uses /x"));
    let text = r#"volume "cqh" stays mounted although the pod is over: process 7 (writer) uses /x. End what uses it"#;
    assert_eq!(events(&effects), [text]);
    let (_, alarm) = timer(&effects);
    assert_eq!(run.feed(Input::Alarm(alarm)), unmounts("web"));
    let effects = run.report(kept("process 7 (writer) uses /x"));
    assert!(events(&effects).is_empty(), "told before");
    let (delay, alarm) = timer(&effects);
    assert_eq!(delay, 1000);
    assert_eq!(run.feed(Input::Alarm(alarm)), unmounts("web"));
    assert_eq!(run.unmounted(key("web")), []);
}

#[test]
fn what_an_earlier_agent_left_is_taken_over() {
    let found = vec![key("gone"), key("web")];
    let mut run = Run::of(vec![volume()], vec![claim()], vec![], found.clone());
    // With both pods gone, both are taken down; failing that is told on the node, as no pod is left.
    let failed = Report::UnmountFailed {
        key: key("gone"),
        message: "busy".into(),
    };
    let effects = run.report(failed);
    let Effect::Event(event) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!(event.about.kind, Kind::Node);
    assert_eq!(event.uid, "n-1");
    assert!(event.message.contains("pod gone-uid"), "{}", event.message);

    let mut run = Run::new(Agent::new("node-1".into(), false));
    run.list(Kind::Node, vec![node()]);
    run.list(Kind::Volume, vec![volume()]);
    run.list(Kind::Claim, vec![claim()]);
    run.list(Kind::Pod, vec![pod("web", &["cqh"])]);
    let effects = run.report(Report::Scanned {
        volumes: found.into_iter().map(bare).collect(),
        stages: Vec::new(),
        empty: vec!["old".into(), "web-uid".into()],
    });
    let removed = Effect::Task(Task::RemovePodDirectory("old".into()));
    assert_eq!(
        effects,
        [unmounts("gone"), vec![removed], mounts("web")].concat()
    );
}

#[test]
fn a_scan_that_fails_is_told_once_and_tried_again() {
    let mut run = Run::new(Agent::new("node-1".into(), false));
    run.list(Kind::Node, vec![node()]);
    let effects = run.report(Report::ScanFailed("no such directory".into()));
    assert_eq!(events(&effects), ["no such directory"]);
    let (delay, alarm) = timer(&effects);
    assert_eq!((delay, &alarm), (500, &Alarm::Scan));
    assert_eq!(run.feed(Input::Alarm(alarm)), [Effect::Task(Task::Scan)]);
    let effects = run.report(Report::ScanFailed("no such directory".into()));
    assert!(events(&effects).is_empty());
    assert_eq!(timer(&effects).0, 1000);
}

/// M29: not at the start only.
#[test]
fn what_is_left_later_is_found_and_what_is_known_is_not_doubted() {
    let agent = Agent::new("node-1".into(), false).scanning(Some(Duration::from_secs(300)));
    let mut run = Run::new(agent);
    run.list(Kind::Node, vec![node()]);
    run.list(Kind::Volume, vec![volume()]);
    run.list(Kind::Claim, vec![claim()]);
    run.list(Kind::Pod, vec![pod("web", &["cqh"])]);
    let found = |pods: &[&str]| Report::Scanned {
        volumes: pods.iter().map(|pod| bare(key(pod))).collect(),
        stages: Vec::new(),
        empty: vec!["left-uid".into(), "web-uid".into()],
    };
    let effects = run.report(Report::Scanned {
        volumes: Vec::new(),
        stages: Vec::new(),
        empty: Vec::new(),
    });
    let (delay, alarm) = timer(&effects);
    assert_eq!((delay, &alarm), (300_000, &Alarm::Scan));
    run.mounted(mount("web"));
    assert_eq!(
        run.feed(Input::Alarm(alarm.clone())),
        [Effect::Task(Task::Scan)]
    );
    // The pod's own volume stays as it is, that of a pod that is no more goes, and so does what is empty.
    let effects = run.report(found(&["web", "gone"]));
    let again = Effect::Wake(Duration::from_secs(300), alarm);
    let removed = Effect::Task(Task::RemovePodDirectory("left-uid".into()));
    let expected = [vec![again], unmounts("gone"), vec![removed]].concat();
    assert_eq!(effects, expected);
    // Found again while it is taken down, it is not taken down twice.
    let effects = run.report(found(&["web", "gone"]));
    let tasks = effects
        .iter()
        .filter(|e| matches!(e, Effect::Task(Task::Unmount(_))));
    assert_eq!(tasks.count(), 0, "{effects:?}");
}

#[test]
fn a_volume_for_one_pod_goes_to_the_next_when_it_is_free() {
    let one = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    let mut run = Run::of(
        vec![with(volume(), one)],
        vec![claim()],
        Vec::new(),
        Vec::new(),
    );
    assert_eq!(run.see(Kind::Pod, pod("a", &["cqh"])), mounts("a"));
    run.mounted(mount("a"));
    let effects = run.see(Kind::Pod, pod("b", &["cqh"]));
    let text = r#"MountVolume.SetUp failed for volume "cqh" : volume uses the ReadWriteOncePod access mode and is already in use by another pod"#;
    assert_eq!(events(&effects), [text]);
    assert_eq!(effects.len(), 1);
    assert_eq!(
        run.gone(ObjectKey::pod("default", "a"), "a-uid"),
        unmounts("a")
    );
    assert_eq!(run.unmounted(key("a")), mounts("b"));
}

#[test]
fn many_pods_share_other_volumes() {
    let mut run = Run::ready();
    assert_eq!(run.see(Kind::Pod, pod("a", &["cqh"])), mounts("a"));
    assert_eq!(run.see(Kind::Pod, pod("b", &["cqh"])), mounts("b"));
}

#[test]
fn a_new_pod_of_the_same_name_is_another_pod() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    run.mounted(mount("web"));
    let new = with(
        pod("web", &["cqh"]),
        json!({"metadata": {"uid": "new-uid"}}),
    );
    let effects = run.see(Kind::Pod, version(new, 90));
    let mut expected = mounts("new");
    expected.extend(unmounts("web"));
    assert_eq!(effects.len(), 2);
    assert!(expected.iter().all(|e| effects.contains(e)), "{effects:?}");
}

/// A pod that is over, deleted, and has nothing mounted: how the deletion of its object ends, and
/// what follows.
#[test]
fn the_object_of_an_ended_pod_is_deleted() {
    let place = || ObjectKey::pod("default", "web");
    let over = |at| deleting(pod("web", &[]), at);
    let deletes = |effects: &Effects| {
        matches!(&effects[..], [Effect::Destroy(destroy)]
            if destroy.action == Destruction::Delete
                && destroy.evidence == [Evidence::PodEnded(place(), Uid::from("web-uid"))])
    };
    let started = || {
        let mut run = Run::ready();
        assert!(deletes(&run.see(Kind::Pod, over(11))));
        assert_eq!(run.see(Kind::Pod, over(12)), [], "one at a time");
        run
    };
    // The pod changed meanwhile, so it is looked at again, once.
    for outcome in [
        Outcome::Conflict,
        Outcome::Done,
        Outcome::Spared,
        Outcome::Gone,
    ] {
        let mut run = started();
        assert!(deletes(&run.feed(Input::Finished(place(), outcome))));
        assert_eq!(run.feed(Input::Finished(place(), Outcome::Done)), []);
        assert!(deletes(&run.see(Kind::Pod, over(13))));
    }
    let mut run = started();
    run.feed(Input::Finished(place(), Outcome::Conflict));
    let effects = run.feed(Input::Finished(place(), Outcome::Failed("no route".into())));
    let (delay, alarm) = timer(&effects);
    assert_eq!(delay, 500);
    assert!(deletes(&run.feed(Input::Alarm(alarm))));
    let effects = run.feed(Input::Finished(
        place(),
        Outcome::Refused("forbidden".into()),
    ));
    assert_eq!(
        events(&effects),
        ["the object of the ended pod cannot be deleted: forbidden"]
    );
    assert!(deletes(&run.see(Kind::Pod, over(14))));
    // Another pod takes the name while the deletion is under way.
    run.gone(place(), "web-uid");
    let new = with(over(20), json!({"metadata": {"uid": "new-uid"}}));
    assert_eq!(run.see(Kind::Pod, new), []);
    let effects = run.feed(Input::Finished(place(), Outcome::Gone));
    let [Effect::Destroy(destroy)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(destroy.target.uid, "new-uid");
}

#[test]
fn objects_are_left_to_the_kubelet_unless_told_otherwise() {
    let mut run = Run::new(Agent::new("node-1".into(), false));
    run.list(Kind::Node, vec![node()]);
    run.list(Kind::Volume, vec![volume()]);
    run.list(Kind::Claim, vec![claim()]);
    run.report(Report::Scanned {
        volumes: Vec::new(),
        stages: Vec::new(),
        empty: Vec::new(),
    });
    assert_eq!(
        run.list(Kind::Pod, vec![deleting(pod("web", &["cqh"]), 11)]),
        []
    );
}

#[test]
fn a_pod_missing_from_a_new_list_is_gone() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    run.mounted(mount("web"));
    assert_eq!(run.list(Kind::Pod, Vec::new()), unmounts("web"));
}
