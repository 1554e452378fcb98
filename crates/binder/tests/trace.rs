//! The effects of the seed's example, in full: E2 to E3 and E10.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fmt::Write as _;

use bitts_api::Kind;
use bitts_api::machine::{Destruction, Effect};
use serde_json::json;
use support::{BinderEffect, Store, World};

fn render(trace: &[BinderEffect]) -> String {
    let mut text = String::new();
    for effect in trace {
        match effect {
            Effect::Write(w) => {
                let (target, patch) = (&w.target, &w.patch);
                writeln!(
                    text,
                    "{}: {target} {} at {}",
                    w.step, target.uid, target.version
                )
                .unwrap();
                writeln!(text, "  {:?} {patch}", w.part).unwrap();
            }
            Effect::Destroy(d) => {
                let target = &d.target;
                writeln!(
                    text,
                    "{}: {target} {} at {}",
                    d.step, target.uid, target.version
                )
                .unwrap();
                writeln!(text, "  while {:?}", d.evidence).unwrap();
                match &d.action {
                    Destruction::Patch(part, patch) => writeln!(text, "  {part:?} {patch}"),
                    Destruction::Delete => writeln!(text, "  delete"),
                }
                .unwrap();
            }
            Effect::Create(c) => {
                writeln!(text, "{}: {} {}", c.step, c.key.kind.name(), c.key).unwrap();
                writeln!(text, "  {}", c.body).unwrap();
            }
            Effect::Event(e) => {
                writeln!(text, "event on {}: {:?} {}", e.about, e.severity, e.reason).unwrap();
                writeln!(text, "  {}", e.message).unwrap();
            }
            other => writeln!(text, "{other:?}").unwrap(),
        }
    }
    text
}

#[test]
fn the_seed() {
    let mut world = World::new(Store::default());
    world.start();
    let labels = json!({"cqh": "chenqionghe"});
    world.create(
        Kind::Node,
        json!({"metadata": {"name": "n", "labels": labels}}),
    );
    world.create(
        Kind::Volume,
        json!({
            "metadata": {"name": "cqh", "uid": "v-1", "labels": labels},
            "spec": {
                "capacity": {"storage": "100Mi"},
                "volumeMode": "Filesystem",
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": "local-storage",
                "local": {"path": "/data/pv"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "cqh", "operator": "In", "values": ["chenqionghe"]}]}]}},
            },
            "status": {"phase": "Pending"},
        }),
    );
    let claim = world.create(
        Kind::Claim,
        json!({
            "metadata": {"name": "cqh", "namespace": "default", "uid": "c-1"},
            "spec": {
                "storageClassName": "local-storage",
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "100Mi"}},
                "selector": {"matchLabels": labels},
            },
            "status": {"phase": "Pending"},
        }),
    );
    world.run();
    world.delete(&claim);
    world.run();
    insta::assert_snapshot!(render(&world.trace));
}
