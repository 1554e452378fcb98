//! Mounts that vanish, hang or go stale: what is told of them, and what is done.

use std::time::Duration;

use bitts_agent::{Agent, Ailment, Alarm, How, Mount, MountKey, Plugin, Report, Task};
use bitts_api::machine::{Effect, Machine as _, Reading};
use bitts_api::{Kind, ObjectKey, Source};
use serde_json::{Value, json};

use crate::run::*;

const INTERVAL: Duration = Duration::from_secs(30);

pub(crate) fn nfs_volume() -> Value {
    with(
        volume(),
        json!({"spec": {"local": null, "nodeAffinity": null,
                        "nfs": {"server": "nas", "path": "/a"}}}),
    )
}

pub(crate) fn nfs_key(pod: &str) -> MountKey {
    MountKey {
        plugin: Plugin::Nfs,
        ..key(pod)
    }
}

pub(crate) fn nfs_mount(pod: &str) -> Mount {
    Mount {
        key: nfs_key(pod),
        source: Source::Nfs {
            server: "nas".into(),
            path: "/a".into(),
            read_only: false,
        },
        staging: None,
        csi: None,
        ..mount(pod)
    }
}

/// The volume of these pods is mounted; returns what followed from that, too.
fn mounted(volume: Value, pods: &[&str], mount: fn(&str) -> Mount) -> (Run, Effects) {
    let mut run = Run::new(Agent::new("node-1".into(), false).healing(Some(INTERVAL)));
    run.list(Kind::Node, vec![node()]);
    run.list(Kind::Volume, vec![volume]);
    run.list(Kind::Claim, vec![claim()]);
    run.report(Report::Scanned {
        volumes: Vec::new(),
        stages: Vec::new(),
        empty: Vec::new(),
    });
    let objects = pods.iter().map(|name| pod(name, &["cqh"])).collect();
    let begun = run.list(Kind::Pod, objects);
    assert!(begun.contains(&Effect::Task(Task::Watch)), "{begun:?}");
    let mut all = Vec::new();
    for pod in pods {
        all.extend(run.mounted(mount(pod)));
    }
    (run, all)
}

fn nfs(pods: &[&str]) -> Run {
    let (mut run, effects) = mounted(nfs_volume(), pods, nfs_mount);
    assert_eq!(effects, [Effect::Wake(INTERVAL, Alarm::Probe)]);
    let asked = run.feed_alarm(Alarm::Probe);
    let mounts = pods.iter().map(|pod| nfs_key(pod)).collect();
    let server = "nas".into();
    assert_eq!(
        asked,
        [
            Effect::Wake(INTERVAL, Alarm::Probe),
            Effect::Task(Task::Probe { server, mounts })
        ]
    );
    run
}

pub(crate) fn reasons(effects: &Effects) -> Vec<&'static str> {
    let reason = |effect: &Effect<_, _>| match effect {
        Effect::Event(event) => Some(event.reason),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

pub(crate) fn tasks(effects: &Effects) -> Vec<Task> {
    let task = |effect: &Effect<Task, Alarm>| match effect {
        Effect::Task(task) => Some(task.clone()),
        _ => None,
    };
    effects.iter().filter_map(task).collect()
}

impl Run {
    fn feed_alarm(&mut self, alarm: Alarm) -> Effects {
        self.feed(bitts_api::machine::Input::Alarm(alarm))
    }

    /// The server's answer; nothing where all is well.
    fn probed(&mut self, found: &[(&str, Option<Ailment>)]) -> Effects {
        let mounts = found.iter().cloned();
        self.report(Report::Probed {
            server: "nas".into(),
            mounts: mounts.map(|(pod, ill)| (nfs_key(pod), ill)).collect(),
        })
    }

    fn ill(&self, word: &str) -> u64 {
        let measures = self.agent.measures().into_iter();
        let mut of_word = measures.filter(|m| {
            m.name == "bitts_agent_unhealthy_mounts"
                && m.labels.iter().any(|(_, value)| value == word)
        });
        match of_word.next().map(|measure| measure.reading) {
            Some(Reading::Gauge(count)) => count,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_vanished_is_mounted_again() {
    let (mut run, _) = mounted(nfs_volume(), &["web"], nfs_mount);
    let lost = run.report(Report::Missing(vec![nfs_key("web")]));
    assert_eq!(reasons(&lost), ["BittsMountLost"]);
    assert_eq!(
        tasks(&lost),
        [Task::Mount(nfs_mount("web")), Task::Watch],
        "and it goes on watching"
    );
    assert_eq!(run.ill("lost"), 1);
    let back = run.mounted(nfs_mount("web"));
    assert_eq!(reasons(&back), ["BittsMountHealed"]);
    assert_eq!(run.ill("lost"), 0);
    // Whoever keeps unmounting it does not keep the agent busy.
    let again = run.report(Report::Missing(vec![nfs_key("web")]));
    assert_eq!(reasons(&again), ["BittsMountLost"]);
    assert_eq!(tasks(&again), [Task::Watch]);
    let alarm = Alarm::Heal(nfs_key("web"));
    assert_eq!(timer(&again), (500, alarm.clone()));
    assert_eq!(
        tasks(&run.feed_alarm(alarm)),
        [Task::Mount(nfs_mount("web"))]
    );
}

/// Of types without a server nobody is asked, but what vanishes is noticed.
#[test]
fn directories_of_the_node_are_watched_only() {
    let (mut run, effects) = mounted(volume(), &["web"], mount);
    assert_eq!(effects, []);
    let lost = run.report(Report::Missing(vec![key("web")]));
    assert_eq!(tasks(&lost), [Task::Mount(mount("web")), Task::Watch]);
}

#[test]
fn what_is_taken_down_is_not_missed() {
    let (mut run, _) = mounted(nfs_volume(), &["web"], nfs_mount);
    let gone = run.gone(ObjectKey::pod("default", "web"), "web-uid");
    assert_eq!(tasks(&gone), [Task::Unmount(nfs_key("web"))]);
    let missing = run.report(Report::Missing(vec![nfs_key("web"), nfs_key("other")]));
    assert_eq!(missing, [Effect::Task(Task::Watch)]);
    run.unmounted(nfs_key("web"));
    assert_eq!(run.feed_alarm(Alarm::Probe), [], "nobody is left to ask");
}

#[test]
fn a_hung_server_is_told_once_and_asked_until_it_answers() {
    let mut run = nfs(&["web"]);
    let asked_again = |run: &mut Run| tasks(&run.feed_alarm(Alarm::Probe)).len();
    assert_eq!(asked_again(&mut run), 0, "it has yet to answer");
    let hung = run.probed(&[("web", Some(Ailment::Hung))]);
    assert_eq!(reasons(&hung), ["BittsMountHung"]);
    assert_eq!(tasks(&hung), [], "nothing helps but the server");
    assert_eq!((run.ill("hung"), run.ill("stale")), (1, 0));
    assert_eq!(asked_again(&mut run), 1);
    assert_eq!(run.probed(&[("web", Some(Ailment::Hung))]), []);
    assert_eq!(asked_again(&mut run), 1);
    let well = run.probed(&[("web", None)]);
    assert_eq!(reasons(&well), ["BittsMountHealed"]);
    assert_eq!(tasks(&well), []);
    assert_eq!(run.ill("hung"), 0);
    assert_eq!(asked_again(&mut run), 1);
    assert_eq!(run.probed(&[("web", None)]), []);
}

#[test]
fn a_stale_mount_is_mounted_anew() {
    let mut run = nfs(&["web", "well"]);
    let stale = run.probed(&[("web", Some(Ailment::Stale)), ("well", None)]);
    assert_eq!(reasons(&stale), ["BittsMountStale"]);
    assert_eq!(tasks(&stale), [Task::Renew(nfs_mount("web"))]);
    // What was asked for before is no answer of the new mount.
    let late = run.probed(&[("web", None), ("well", None)]);
    assert_eq!(late, []);
    let anew = run.report(Report::Mounted {
        mount: nfs_mount("web"),
        target: nfs_key("web").target(),
        how: How::Anew,
        warning: None,
    });
    assert_eq!(reasons(&anew), ["BittsMountHealed"]);
    assert!(events(&anew)[0].contains("restarted"), "{anew:?}");
    assert_eq!(run.ill("stale"), 0);
}

#[test]
fn mounting_anew_is_tried_again_until_it_works_or_is_not_needed() {
    let mut run = nfs(&["web"]);
    run.probed(&[("web", Some(Ailment::Moved("10.0.0.2".into())))]);
    let failed = run.fails(nfs_mount("web"));
    assert_eq!(reasons(&failed), ["FailedMount"]);
    let (after, alarm) = timer(&failed);
    assert_eq!(after, 500);
    assert_eq!(
        tasks(&run.feed_alarm(alarm)),
        [Task::Renew(nfs_mount("web"))]
    );
    run.fails(nfs_mount("web"));
    // Meanwhile the server is back where it was.
    let well = run.probed(&[("web", None)]);
    assert_eq!(reasons(&well), ["BittsMountHealed"]);
    let retry = run.feed_alarm(Alarm::Retry(nfs_key("web"), 2));
    assert_eq!(retry, []);
}

/// A pod that is over has its volume taken down, whatever is wrong with it.
#[test]
fn the_end_of_a_pod_comes_before_its_healing() {
    let mut run = nfs(&["web"]);
    run.probed(&[("web", Some(Ailment::Stale))]);
    run.fails(nfs_mount("web"));
    let gone = run.gone(ObjectKey::pod("default", "web"), "web-uid");
    assert_eq!(tasks(&gone), [Task::Unmount(nfs_key("web"))]);
    run.unmounted(nfs_key("web"));
    assert_eq!(run.ill("stale"), 0);
}

#[test]
fn a_mount_that_the_probe_misses_is_lost() {
    let mut run = nfs(&["web"]);
    let lost = run.probed(&[("web", Some(Ailment::Lost))]);
    assert_eq!(reasons(&lost), ["BittsMountLost"]);
    assert!(
        tasks(&lost).contains(&Task::Mount(nfs_mount("web"))),
        "{lost:?}"
    );
}

#[test]
fn without_an_interval_no_server_is_asked() {
    let mut run = Run::new(Agent::new("node-1".into(), false).healing(None));
    run.list(Kind::Node, vec![node()]);
    run.list(Kind::Volume, vec![nfs_volume()]);
    run.list(Kind::Claim, vec![claim()]);
    run.report(Report::Scanned {
        volumes: Vec::new(),
        stages: Vec::new(),
        empty: Vec::new(),
    });
    run.list(Kind::Pod, vec![pod("web", &["cqh"])]);
    assert_eq!(run.mounted(nfs_mount("web")), []);
}
