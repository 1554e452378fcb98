//! The agent's decisions: inputs and the effects that must follow.
#![expect(
    clippy::unwrap_used,
    reason = "also in what the tests share, where clippy sees no test"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use bitts_agent::{Agent, Alarm, How, Mount, MountKey, MountSource, Plugin, Report, Stage, Task};
use bitts_api::machine::{
    Destruction, Effect, Evidence, Input, Machine as _, Moment, Outcome, Scope,
};
use bitts_api::{Kind, Object, ObjectKey, Uid};
use serde_json::{Value, json};

type Effects = Vec<Effect<Task, Alarm>>;

fn object(kind: Kind, value: Value) -> Object {
    kind.read(value.to_string().as_bytes()).unwrap()
}

/// JSON with some members replaced, as a merge patch does.
fn with(mut value: Value, changes: Value) -> Value {
    match (&mut value, changes) {
        (Value::Object(members), Value::Object(changes)) => {
            for (name, change) in changes {
                let member = members.remove(&name).unwrap_or_default();
                members.insert(name, with(member, change));
            }
            value
        }
        (_, changes) => changes,
    }
}

/// The seed's volume, bound.
fn volume() -> Value {
    json!({
        "metadata": {"name": "cqh", "uid": "v-1", "resourceVersion": "5"},
        "spec": {
            "capacity": {"storage": "100Mi"}, "accessModes": ["ReadWriteMany"],
            "storageClassName": "local-storage", "local": {"path": "/data/pv"},
            "claimRef": {"namespace": "default", "name": "cqh", "uid": "c-1"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "cqh", "operator": "In", "values": ["chenqionghe"]}]}]}},
        },
        "status": {"phase": "Bound"},
    })
}

/// The seed's claim, bound.
fn claim() -> Value {
    json!({
        "metadata": {"name": "cqh", "namespace": "default", "uid": "c-1", "resourceVersion": "6",
                     "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "local-storage",
                 "resources": {"requests": {"storage": "100Mi"}}, "volumeName": "cqh"},
        "status": {"phase": "Bound"},
    })
}

fn node() -> Value {
    json!({"metadata": {"name": "node-1", "uid": "n-1", "resourceVersion": "1",
                        "labels": {"cqh": "chenqionghe"}}})
}

/// A pod on the node that uses these claims.
fn pod(name: &str, claims: &[&str]) -> Value {
    let volumes: Vec<_> = claims
        .iter()
        .enumerate()
        .map(|(i, claim)| {
            json!({"name": format!("data{i}"), "persistentVolumeClaim": {"claimName": claim}})
        })
        .collect();
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid"),
                     "resourceVersion": "10"},
        "spec": {"nodeName": "node-1", "volumes": volumes},
        "status": {"phase": "Pending"},
    })
}

fn version(value: Value, version: u32) -> Value {
    with(
        value,
        json!({"metadata": {"resourceVersion": version.to_string()}}),
    )
}

fn deleting(value: Value, at: u32) -> Value {
    let deletion = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    version(with(value, deletion), at)
}

/// A machine that is fed, with what it answers, beside an API that tells it of what it follows.
struct Run {
    agent: Agent,
    /// The API's claims and volumes.
    objects: BTreeMap<ObjectKey, Object>,
    followed: BTreeSet<ObjectKey>,
}

impl Run {
    fn new(agent: Agent) -> Self {
        Self {
            agent,
            objects: BTreeMap::new(),
            followed: BTreeSet::new(),
        }
    }

    /// Everything of the seed but the pod is listed, and the node is empty.
    fn ready() -> Self {
        Self::of(vec![volume()], vec![claim()], vec![], Vec::new())
    }

    fn of(volumes: Vec<Value>, claims: Vec<Value>, pods: Vec<Value>, found: Vec<MountKey>) -> Self {
        let mut run = Self::new(Agent::new("node-1".into(), true));
        run.list(Kind::Node, vec![node()]);
        run.list(Kind::Volume, volumes);
        run.list(Kind::Claim, claims);
        run.report(Report::Scanned {
            volumes: found,
            empty: Vec::new(),
        });
        run.list(Kind::Pod, pods);
        run
    }

    /// What the machine wants done, without what it follows: that is answered at once.
    fn feed(&mut self, input: Input<Report, Alarm>) -> Effects {
        let mut inputs = VecDeque::from([input]);
        let mut all = Vec::new();
        while let Some(input) = inputs.pop_front() {
            for effect in self.agent.handle(Moment::default(), input) {
                match effect {
                    Effect::Follow(key) => {
                        assert!(self.followed.insert(key.clone()), "{key} twice");
                        let found = self.objects.get(&key).cloned();
                        inputs.push_back(Input::Found(key, found));
                    }
                    Effect::Unfollow(key) => assert!(self.followed.remove(&key), "{key}"),
                    effect => all.push(effect),
                }
            }
        }
        all
    }

    fn list(&mut self, kind: Kind, values: Vec<Value>) -> Effects {
        let objects: Vec<_> = values
            .into_iter()
            .map(|value| object(kind, value))
            .collect();
        if !matches!(kind, Kind::Claim | Kind::Volume) {
            return self.feed(Input::Listed(kind, objects));
        }
        self.objects.retain(|key, _| key.kind != kind);
        self.objects
            .extend(objects.into_iter().map(|object| (object.key(), object)));
        let followed: Vec<_> = self
            .followed
            .iter()
            .filter(|key| key.kind == kind)
            .collect();
        let found: Vec<_> = followed
            .into_iter()
            .map(|key| Input::Found(key.clone(), self.objects.get(key).cloned()))
            .collect();
        found
            .into_iter()
            .flat_map(|input| self.feed(input))
            .collect()
    }

    fn see(&mut self, kind: Kind, value: Value) -> Effects {
        let object = object(kind, value);
        if matches!(kind, Kind::Claim | Kind::Volume) {
            self.objects.insert(object.key(), object.clone());
            if !self.followed.contains(&object.key()) {
                return Vec::new();
            }
        }
        self.feed(Input::Seen(object))
    }

    fn gone(&mut self, key: ObjectKey, uid: &str) -> Effects {
        if matches!(key.kind, Kind::Claim | Kind::Volume) {
            self.objects.remove(&key);
            if !self.followed.contains(&key) {
                return Vec::new();
            }
        }
        self.feed(Input::Deleted(key, uid.into()))
    }

    fn report(&mut self, report: Report) -> Effects {
        self.feed(Input::Report(report))
    }

    fn mounted(&mut self, mount: Mount) -> Effects {
        let target = mount.key.target();
        self.report(Report::Mounted {
            mount,
            target,
            how: How::Now,
        })
    }

    fn unmounted(&mut self, key: MountKey) -> Effects {
        self.report(Report::Unmounted {
            target: key.target(),
            key,
            was_mounted: true,
        })
    }

    fn fails(&mut self, mount: Mount) -> Effects {
        let message = r#"path "/data/pv" does not exist"#.to_owned();
        self.report(Report::MountFailed {
            mount,
            stage: Stage::NewMounter,
            message,
        })
    }
}

fn key(pod: &str) -> MountKey {
    MountKey {
        pod: format!("{pod}-uid").into(),
        volume: "cqh".into(),
        plugin: Plugin::Local,
    }
}

fn mount(pod: &str) -> Mount {
    Mount {
        key: key(pod),
        source: MountSource::Local("/data/pv".into()),
        options: [].into(),
        read_only: false,
    }
}

fn mounts(pod: &str) -> Effects {
    vec![Effect::Task(Task::Mount(mount(pod)))]
}

fn unmounts(pod: &str) -> Effects {
    vec![Effect::Task(Task::Unmount(key(pod)))]
}

/// The texts of the events among effects.
fn events(effects: &Effects) -> Vec<&str> {
    fn text(effect: &Effect<Task, Alarm>) -> Option<&str> {
        match effect {
            Effect::Event(event) => Some(&event.message),
            _ => None,
        }
    }
    effects.iter().filter_map(text).collect()
}

/// The delay of the timer among effects, and the timer.
fn timer(effects: &Effects) -> (u128, Alarm) {
    let timer = |effect: &Effect<Task, Alarm>| match effect {
        Effect::Wake(delay, alarm) => Some((delay.as_millis(), alarm.clone())),
        _ => None,
    };
    effects.iter().find_map(timer).unwrap()
}

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
        volumes: vec![key("gone")],
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
    let table: [(&str, Kind, Value, Value, &str); 10] = [
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
            "error processing PVC default/cqh: volumeMode Block is not supported by this agent yet: use Filesystem",
        ),
        (
            "another type",
            Kind::Volume,
            json!({"spec": {"local": null, "rbd": {"image": "i"}}}),
            volume(),
            r#"MountVolume.NewMounter initialization failed for volume "cqh" : volume type "rbd" is not supported by this agent yet, only local directories and NFS are"#,
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
        texts[0].contains("generic ephemeral volumes are not supported"),
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
    let wanted = Mount {
        options: [Box::from("noexec")].into(),
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
    assert_eq!(again.source, MountSource::Local("/data/new".into()));
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
        stage: Stage::SetUp,
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
        volumes: vec![key("web")],
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
        volumes: found,
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
