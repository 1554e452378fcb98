//! The agent's decisions: inputs and the effects that must follow.
#![expect(
    clippy::unwrap_used,
    reason = "also in what the tests share, where clippy sees no test"
)]

mod beside;
mod csi;
mod devices;
mod ending;
mod healing;
mod run;

use std::fmt::Write as _;

use bitts_agent::{Agent, Alarm, How, Mount, Report, Staging, Task};
use bitts_api::machine::{Effect, Input, Machine as _, Moment, Outcome, Scope};
use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};

use crate::run::*;

/// The seed's pod from its creation to the end of its object.
#[test]
fn the_life_of_the_seeds_pod() {
    let mut trace = String::new();
    let mut note = |what: &str, effects: &Effects| {
        writeln!(trace, "{what}").unwrap();
        for effect in effects {
            match effect {
                Effect::Task(task) => writeln!(trace, "  task {task:?}"),
                Effect::Event(e) => {
                    writeln!(trace, "  event {} {}: {}", e.about, e.reason, e.message)
                }
                Effect::Wake(delay, alarm) => writeln!(trace, "  wake {delay:?} {alarm:?}"),
                Effect::Destroy(d) => writeln!(
                    trace,
                    "  {} {} {:?} {:?}",
                    d.step, d.target, d.action, d.evidence
                ),
                Effect::Write(write) => writeln!(trace, "  write {}", write.step),
                Effect::Create(create) => writeln!(trace, "  create {}", create.step),
                Effect::Follow(key) | Effect::Unfollow(key) => {
                    unreachable!("{key} is answered by the run")
                }
            }
            .unwrap();
        }
    };
    let mut run = Run::new(Agent::new("node-1".into(), true));
    note(
        "volumes are listed",
        &run.list(Kind::Volume, vec![volume()]),
    );
    note("claims are listed", &run.list(Kind::Claim, vec![claim()]));
    note("the node is listed", &run.list(Kind::Node, vec![node()]));
    note(
        "pods are listed",
        &run.list(Kind::Pod, vec![pod("web", &["cqh"])]),
    );
    let nothing = Report::Scanned {
        volumes: Vec::new(),
        stages: Vec::new(),
        empty: Vec::new(),
    };
    note("the scan found nothing", &run.report(nothing));
    note("the directory is missing", &run.fails(mount("web")));
    note(
        "half a second later",
        &run.feed(Input::Alarm(Alarm::Retry(key("web"), 1))),
    );
    note("it is mounted", &run.mounted(mount("web")));
    note(
        "deletion is asked for",
        &run.see(Kind::Pod, deleting(pod("web", &["cqh"]), 11)),
    );
    note("it is unmounted", &run.unmounted(key("web")));
    note(
        "the pod is gone",
        &run.gone(ObjectKey::pod("default", "web"), "web-uid"),
    );
    let done = Input::Finished(ObjectKey::pod("default", "web"), Outcome::Done);
    note("the deletion ended", &run.feed(done));
    insta::assert_snapshot!(trace);
}

#[test]
fn nothing_is_decided_before_everything_is_known() {
    let scanned = || Report::Scanned {
        volumes: vec![bare(key("gone"))],
        stages: Vec::new(),
        empty: Vec::new(),
    };
    let listings: [(Kind, Vec<Value>); 2] = [
        (Kind::Pod, vec![pod("web", &["cqh"])]),
        (Kind::Node, vec![node()]),
    ];
    for last in 0..listings.len() {
        let mut run = Run::new(Agent::new("node-1".into(), false));
        run.list(Kind::Claim, vec![claim()]);
        run.list(Kind::Volume, vec![volume()]);
        for (i, (kind, values)) in listings.iter().enumerate() {
            if i != last {
                let effects = run.list(*kind, values.clone());
                assert!(
                    effects.iter().all(|e| *e == Effect::Task(Task::Scan)),
                    "{effects:?}"
                );
            }
        }
        assert_eq!(
            run.report(scanned()),
            [],
            "{:?} are not listed",
            listings[last].0
        );
        let (kind, values) = &listings[last];
        assert_eq!(
            run.list(*kind, values.clone()),
            [unmounts("gone"), mounts("web")].concat()
        );
    }
}

#[test]
fn watches_only_its_own_pods_and_node() {
    let watches = Agent::new("node-1".into(), false).watches();
    let scope = |kind| &watches.iter().find(|w| w.kind == kind).unwrap().scope;
    assert_eq!(*scope(Kind::Pod), Scope::OnNode("node-1".into()));
    assert_eq!(*scope(Kind::Node), Scope::Named("node-1".into()));
    let mut run = Run::ready();
    let elsewhere = with(
        pod("web", &["cqh"]),
        json!({"spec": {"nodeName": "node-2"}}),
    );
    assert_eq!(run.see(Kind::Pod, elsewhere), []);
}

/// Of claims and volumes it knows those that its pods wait for, from when they do until they are
/// mounted.
#[test]
fn follows_what_its_pods_wait_for_until_it_is_mounted() {
    let mut agent = Agent::new("node-1".into(), false);
    let mut feed = |input| agent.handle(Moment::default(), input);
    feed(Input::Listed(Kind::Node, vec![object(Kind::Node, node())]));
    feed(Input::Report(Report::Scanned {
        volumes: Vec::new(),
        stages: Vec::new(),
        empty: Vec::new(),
    }));
    let pods = vec![
        object(Kind::Pod, pod("web", &["cqh"])),
        object(Kind::Pod, pod("api", &["cqh"])),
    ];
    let (the_claim, the_volume) = (ObjectKey::claim("default", "cqh"), ObjectKey::volume("cqh"));
    let follow = |key: &ObjectKey| vec![Effect::Follow(key.clone())];
    let unfollow = |key: &ObjectKey| Effect::Unfollow(key.clone());
    assert_eq!(feed(Input::Listed(Kind::Pod, pods)), follow(&the_claim));
    // Nobody is told that it is not there before it was read.
    assert_eq!(
        feed(Input::Listed(
            Kind::Node,
            vec![object(Kind::Node, version(node(), 2))]
        )),
        []
    );
    let found = |kind, value| Some(object(kind, value));
    assert_eq!(
        feed(Input::Found(the_claim.clone(), found(Kind::Claim, claim()))),
        follow(&the_volume)
    );
    assert_eq!(
        feed(Input::Found(
            the_volume.clone(),
            found(Kind::Volume, volume())
        )),
        [mounts("api"), mounts("web")].concat()
    );
    let mounted = |pod| {
        Input::Report(Report::Mounted {
            mount: mount(pod),
            target: key(pod).target(),
            how: How::Now,
            warning: None,
        })
    };
    assert_eq!(feed(mounted("web")), [], "the other pod still waits");
    assert_eq!(
        feed(mounted("api")),
        [unfollow(&the_volume), unfollow(&the_claim)]
    );
    // What was on its way is nobody's business any more.
    assert_eq!(feed(Input::Found(the_claim.clone(), None)), []);
    assert_eq!(
        feed(Input::Seen(object(Kind::Volume, version(volume(), 9)))),
        []
    );
    // A further pod reads what there is by then.
    let third = object(Kind::Pod, pod("third", &["cqh"]));
    assert_eq!(feed(Input::Seen(third)), follow(&the_claim));
    let gone = feed(Input::Found(the_claim.clone(), None));
    assert!(events(&gone)[0].contains("not found"), "{gone:?}");
    // The pod gives up: nobody waits any more.
    let end = Input::Deleted(ObjectKey::pod("default", "third"), "third-uid".into());
    assert_eq!(feed(end), [unfollow(&the_claim)]);
}

/// Each gate of M2 and M16: what is wrong, the text the user gets once, and the change that opens
/// the gate at once.
#[test]
fn gates_refuse_once_and_open_at_once() {
    let table: [(&str, Kind, Value, Value, &str); 11] = [
        (
            "no claim",
            Kind::Claim,
            json!({"metadata": {"name": "other"}}),
            claim(),
            r#"error processing PVC default/cqh: failed to fetch PVC from API server: persistentvolumeclaims "cqh" not found"#,
        ),
        (
            "claim deleting, nothing holds it",
            Kind::Claim,
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": []}}),
            claim(),
            "error processing PVC default/cqh: PVC is being deleted",
        ),
        (
            "claim pending",
            Kind::Claim,
            json!({"status": {"phase": "Pending"}}),
            claim(),
            "error processing PVC default/cqh: PVC is not bound",
        ),
        (
            "claim lost",
            Kind::Claim,
            json!({"status": {"phase": "Lost"}}),
            claim(),
            "error processing PVC default/cqh: PVC is not bound",
        ),
        (
            "claim without volume",
            Kind::Claim,
            json!({"spec": {"volumeName": ""}}),
            claim(),
            "error processing PVC default/cqh: PVC is not bound",
        ),
        (
            "no volume",
            Kind::Volume,
            json!({"metadata": {"name": "other"}}),
            volume(),
            r#"error processing PVC default/cqh: failed to fetch PV "cqh" from API server: persistentvolumes "cqh" not found"#,
        ),
        (
            "volume of an earlier claim",
            Kind::Volume,
            json!({"spec": {"claimRef": {"uid": "c-0"}}}),
            volume(),
            r#"error processing PVC default/cqh: PV "cqh" is bound to default/cqh, not to this PVC: it was created anew, or the PV given away"#,
        ),
        (
            "block",
            Kind::Volume,
            json!({"spec": {"volumeMode": "Block"}}),
            volume(),
            "error processing PVC default/cqh: its volumeMode is Filesystem, that of PV \"cqh\" is Block",
        ),
        (
            "another type",
            Kind::Volume,
            json!({"spec": {"local": null, "rbd": {"image": "i"}}}),
            volume(),
            r#"MountVolume.NewMounter initialization failed for volume "cqh" : volume type "rbd" is not supported by this agent"#,
        ),
        (
            "mount options where nothing is mounted",
            Kind::Volume,
            json!({"spec": {"local": null, "hostPath": {"path": "/x"}, "mountOptions": ["ro"]}}),
            volume(),
            r#"MountVolume.MountOptionSupport check failed for volume "cqh" : mount options are not supported for this volume type"#,
        ),
        (
            "another node",
            Kind::Node,
            json!({"metadata": {"labels": {"cqh": "someone-else"}}}),
            node(),
            r#"MountVolume.NodeAffinity check failed for volume "cqh" : no matching NodeSelectorTerms"#,
        ),
    ];
    for (name, kind, wrong, right, text) in table {
        let mut run = Run::ready();
        let base = right.clone();
        let bad = with(base, wrong);
        run.list(kind, vec![bad.clone()]);
        let is_final = ["block", "another type"].contains(&name);
        assert_eq!(
            events(&run.see(Kind::Pod, pod("web", &["cqh"]))),
            [text],
            "{name}"
        );
        // The same trouble is not told again.
        assert_eq!(
            run.see(Kind::Pod, version(pod("web", &["cqh"]), 11)),
            [],
            "{name}"
        );
        assert_eq!(run.see(kind, version(bad, 50)), [], "{name}");
        let opened = run.see(kind, version(right, 60));
        // What the API lets nobody change is not waited for.
        assert_eq!(
            opened,
            if is_final { Vec::new() } else { mounts("web") },
            "{name}"
        );
        assert_eq!(run.followed.is_empty(), is_final, "{name}");
    }
}

#[test]
fn a_node_that_the_api_does_not_know_mounts_nothing() {
    let mut run = Run::ready();
    run.list(Kind::Node, Vec::new());
    let effects = run.see(Kind::Pod, pod("web", &["cqh"]));
    assert!(
        events(&effects)[0].contains("this node has no Node object"),
        "{effects:?}"
    );
    assert_eq!(run.see(Kind::Node, node()), mounts("web"));
}

#[test]
fn a_deleted_claim_that_is_protected_still_mounts() {
    let mut run = Run::ready();
    run.see(Kind::Claim, deleting(claim(), 20));
    assert_eq!(run.see(Kind::Pod, pod("web", &["cqh"])), mounts("web"));
}

#[test]
fn an_unsupported_volume_does_not_keep_the_others_down() {
    let nfs = with(
        volume(),
        json!({"metadata": {"name": "far", "uid": "v-2"}, "spec": {"local": null,
               "rbd": {"image": "i"}, "claimRef": {"name": "far", "uid": "c-2"}}}),
    );
    let far = with(
        claim(),
        json!({"metadata": {"name": "far", "uid": "c-2"}, "spec": {"volumeName": "far"}}),
    );
    let mut run = Run::of(
        vec![nfs, volume()],
        vec![far, claim()],
        Vec::new(),
        Vec::new(),
    );
    let with_more = with(
        pod("web", &[]),
        json!({"spec": {"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "far"}},
            {"name": "b", "emptyDir": {}},
            {"name": "c", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "d", "persistentVolumeClaim": {"claimName": "cqh"}},
        ]}}),
    );
    let effects = run.see(Kind::Pod, with_more);
    let texts = events(&effects);
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[1].contains(r#"volume type "rbd" is not supported"#),
        "{texts:?}"
    );
    assert!(
        texts[0].contains(r#"persistentvolumeclaims "web-c" not found"#),
        "{texts:?}"
    );
    assert!(effects.contains(&mounts("web")[0]), "{effects:?}");
}

#[test]
fn volumes_that_name_one_claim_are_mounted_once() {
    let volumes = |read_only: [bool; 2]| {
        let volume = |(i, read_only): (usize, &bool)| {
            let source = json!({"claimName": "cqh", "readOnly": read_only});
            json!({"name": format!("data{i}"), "persistentVolumeClaim": source})
        };
        let all: Vec<_> = read_only.iter().enumerate().map(volume).collect();
        with(pod("web", &[]), json!({"spec": {"volumes": all}}))
    };
    for (given, read_only) in [
        ([true, true], true),
        ([true, false], false),
        ([false, true], false),
    ] {
        let effects = Run::ready().see(Kind::Pod, volumes(given));
        assert_eq!(
            effects,
            [Effect::Task(Task::Mount(Mount {
                read_only,
                ..mount("web")
            }))]
        );
    }
}

#[test]
fn the_volumes_options_are_passed_on() {
    let mut run = Run::ready();
    run.see(
        Kind::Volume,
        version(
            with(volume(), json!({"spec": {"mountOptions": ["noexec"]}})),
            9,
        ),
    );
    let options: Box<[Box<str>]> = [Box::from("noexec")].into();
    let wanted = Mount {
        options: options.clone(),
        staging: Some(Box::new(Staging {
            options,
            ..staging()
        })),
        ..mount("web")
    };
    assert_eq!(
        run.see(Kind::Pod, pod("web", &["cqh"])),
        [Effect::Task(Task::Mount(wanted))]
    );
}

#[test]
fn failures_are_told_once_and_tried_again_ever_later() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    let effects = run.fails(mount("web"));
    let text = r#"MountVolume.NewMounter initialization failed for volume "cqh" : path "/data/pv" does not exist"#;
    assert_eq!(events(&effects), [text]);
    let (delay, first) = timer(&effects);
    assert_eq!(delay, 500);
    // What changes meanwhile does not cut the wait short.
    assert_eq!(run.see(Kind::Pod, version(pod("web", &["cqh"]), 12)), []);
    assert_eq!(run.feed(Input::Alarm(first.clone())), mounts("web"));
    let effects = run.fails(mount("web"));
    assert_eq!(events(&effects), [""; 0], "told before");
    let (delay, second) = timer(&effects);
    assert_eq!(delay, 1000);
    assert_eq!(
        run.feed(Input::Alarm(first)),
        [],
        "a timer of an earlier try"
    );
    // A new path is a new try.
    let moved = with(volume(), json!({"spec": {"local": {"path": "/data/new"}}}));
    let effects = run.see(Kind::Volume, version(moved, 70));
    let Effect::Task(Task::Mount(again)) = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!(again.source, local("/data/new"));
    assert_eq!(run.feed(Input::Alarm(second)), [], "a try is under way");
}

#[test]
fn a_mounted_volume_stays_as_it_is_when_its_options_change() {
    let mut run = Run::ready();
    run.see(Kind::Pod, pod("web", &["cqh"]));
    assert_eq!(run.mounted(mount("web")), []);
    let changed = with(volume(), json!({"spec": {"mountOptions": ["ro"]}}));
    assert_eq!(run.see(Kind::Volume, version(changed, 70)), []);
    assert_eq!(
        run.gone(ObjectKey::pod("default", "web"), "web-uid"),
        unmounts("web")
    );
}
