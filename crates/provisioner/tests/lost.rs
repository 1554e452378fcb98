//! Volumes whose nodes are gone.
#![allow(clippy::unwrap_used, reason = "tests")]

use bitts_api::machine::{
    Destruction, Effect, Evidence, Input, Machine as _, Moment, Outcome, Part,
};
use bitts_api::{Kind, Object, ObjectKey, Uid};
use bitts_provisioner::{LostAlarm, LostNodes, LostOptions};
use serde_json::{Value, json};

type Effects = Vec<Effect<std::convert::Infallible, LostAlarm>>;

struct World(LostNodes);

fn object(kind: Kind, value: Value) -> Object {
    kind.read(value.to_string().as_bytes()).unwrap()
}

fn node(name: &str) -> Object {
    object(
        Kind::Node,
        json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}}),
    )
}

fn volume(policy: &str, phase: &str) -> Value {
    json!({"metadata": {"name": "pvc-u", "uid": "v", "resourceVersion": "5",
            "finalizers": ["kubernetes.io/pv-protection",
                "external-provisioner.volume.kubernetes.io/finalizer"],
            "annotations": {"pv.kubernetes.io/provisioned-by": "local.bitts.dev",
                "bitts.dev/provisioned-on": "n1", "bitts.dev/node-gone": policy}},
        "spec": {"local": {"path": "/d/pvc-u"}, "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": "default", "name": "c", "uid": "u"}},
        "status": {"phase": phase}})
}

impl World {
    /// One with these nodes and this volume.
    fn new(nodes: &[&str], volume: Value) -> (Self, Effects) {
        let mut world = Self(LostNodes::new(LostOptions::default()));
        let nodes = nodes.iter().map(|name| node(name)).collect();
        let none = world.hear(Input::Listed(Kind::Node, nodes));
        assert!(none.is_empty(), "before the volumes are known");
        let volumes = vec![object(Kind::Volume, volume)];
        let effects = world.hear(Input::Listed(Kind::Volume, volumes));
        (world, effects)
    }

    fn hear(&mut self, input: Input<std::convert::Infallible, LostAlarm>) -> Effects {
        self.0.handle(Moment::default(), input)
    }

    /// The node has been gone for long enough.
    fn wait(&mut self, waits: Effects) -> Effects {
        let [Effect::Wake(after, alarm)] = &waits[..] else {
            panic!("{waits:?}");
        };
        assert_eq!(after.as_secs(), 600);
        self.hear(Input::Alarm(alarm.clone()))
    }
}

fn told(effects: &Effects) -> Vec<String> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::Event(event) => Some(format!("{}: {}", event.about, event.message)),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_node_that_is_there_is_not_gone_ready_or_not() {
    for phase in ["Bound", "Released"] {
        let (mut world, effects) = World::new(&["n1"], volume("release", phase));
        assert!(effects.is_empty(), "{effects:?}");
        let unready = json!({"metadata": {"name": "n1", "uid": "n1", "resourceVersion": "2"},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        assert!(
            world
                .hear(Input::Seen(object(Kind::Node, unready)))
                .is_empty()
        );
    }
}

#[test]
fn the_claim_is_told_once_and_nothing_is_done_while_it_lives() {
    for (policy, says) in [
        ("keep", "delete the claim and make it anew"),
        ("release", "delete the claim and make it anew"),
        ("recreate", "`bitts recreate default/c` gives it up"),
    ] {
        let (mut world, waits) = World::new(&["n2"], volume(policy, "Bound"));
        let effects = world.wait(waits);
        let all = told(&effects);
        assert_eq!((effects.len(), all.len()), (1, 1), "{effects:?}");
        assert!(
            all[0].contains("default/c") && all[0].contains(says),
            "{all:?}"
        );
        let again = world.hear(Input::Seen(object(Kind::Volume, volume(policy, "Bound"))));
        assert!(again.is_empty(), "{again:?}");
    }
}

/// Whatever is heard of its volumes meanwhile.
#[test]
fn a_node_is_not_gone_before_its_time() {
    let (mut world, waits) = World::new(&["n2"], volume("release", "Bound"));
    for (at, phase) in [("6", "Bound"), ("7", "Released")] {
        let mut now = volume("release", phase);
        now["metadata"]["resourceVersion"] = json!(at);
        let early = world.hear(Input::Seen(object(Kind::Volume, now)));
        assert!(early.is_empty(), "{phase}: {early:?}");
    }
    assert!(matches!(world.wait(waits)[..], [Effect::Destroy(_)]));
}

#[test]
fn a_node_that_came_back_is_not_gone() {
    let (mut world, waits) = World::new(&[], volume("release", "Released"));
    assert!(world.hear(Input::Seen(node("n1"))).is_empty());
    assert!(world.wait(waits.clone()).is_empty(), "it is there");
    // It goes again: that is another absence, with a time of its own.
    let key = ObjectKey::node(&"n1".into());
    let again = world.hear(Input::Deleted(key, Uid::from("n1")));
    assert!(world.wait(waits).is_empty(), "an alarm of the first");
    assert_eq!(world.wait(again).len(), 1);
}

/// Not without a live look at the node and the claim.
#[test]
fn a_volume_goes_after_its_claim_where_its_class_says_so() {
    for policy in ["release", "recreate"] {
        let (mut world, waits) = World::new(&["n2"], volume(policy, "Released"));
        let effects = world.wait(waits);
        let [Effect::Destroy(first)] = &effects[..] else {
            panic!("{effects:?}");
        };
        let claim = ObjectKey::claim("default", "c");
        let evidence = [
            Evidence::NodeAbsent("n1".into()),
            Evidence::ClaimGone(claim, Uid::from("u")),
        ];
        assert_eq!(first.evidence, evidence);
        assert_eq!(first.action, Destruction::Delete);
        let mut deleting = volume(policy, "Released");
        deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        deleting["metadata"]["resourceVersion"] = json!("6");
        world.hear(Input::Seen(object(Kind::Volume, deleting)));
        let key = ObjectKey::volume("pvc-u");
        let effects = world.hear(Input::Finished(key.clone(), Outcome::Done));
        let [Effect::Destroy(second)] = &effects[..] else {
            panic!("{effects:?}");
        };
        let rest = json!({"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}});
        assert_eq!(second.action, Destruction::Patch(Part::Main, rest));
        assert_eq!(second.evidence, evidence);
        let spared = world.hear(Input::Finished(key, Outcome::Spared));
        assert!(
            matches!(spared[..], [Effect::Wake(..)]),
            "later, and not told: {spared:?}"
        );
    }
}

#[test]
fn what_is_to_stay_stays() {
    let mut retained = volume("release", "Released");
    retained["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    let mut journal = volume("recreate", "Released");
    journal["metadata"]["annotations"]["bitts.dev/recreates"] = json!("{}");
    for (what, volume) in [
        ("its class says so", volume("keep", "Released")),
        ("nobody knows what this means", volume("burn", "Released")),
        ("its reclaim policy says so", retained),
        ("its claim is to be made from it", journal),
    ] {
        let (mut world, waits) = World::new(&["n2"], volume);
        let effects = world.wait(waits);
        let all = told(&effects);
        assert_eq!((effects.len(), all.len()), (1, 1), "{what}: {effects:?}");
    }
}

#[test]
fn volumes_of_others_are_none_of_its_business() {
    let mut theirs = volume("release", "Released");
    theirs["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"] = json!("other");
    let mut share = volume("release", "Released");
    share["spec"]["nfs"] = json!({"server": "nas", "path": "/x"});
    share["spec"]["local"].take();
    for volume in [theirs, share] {
        let (_, effects) = World::new(&[], volume);
        assert!(effects.is_empty(), "{effects:?}");
    }
}
