//! Binds many claims to as many volumes, in memory, and says what the machine took for it.
//!
//! ```text
//! cargo run --release -p bitts-binder --no-default-features --example bind_many -- 100000
//! ```
#![allow(clippy::unwrap_used, reason = "an example that measures")]
#![expect(
    clippy::disallowed_methods,
    reason = "the machine has no clock, its measurement needs one"
)]

#[path = "../benches/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitts_api::machine::{Effect, Input, Machine, Moment, Outcome, Write};
use bitts_api::{
    Annotations, Claim, ClaimPhase, ClaimRef, Kind, Object, ObjectKey, ResourceVersion, Unused,
    Volume, VolumePhase, names,
};
use support::{Templates, binder, peak_memory};

/// What the API server would hold, with the effect of each of the four writes.
#[derive(Default)]
struct Store {
    volumes: BTreeMap<ObjectKey, Arc<Volume>>,
    claims: BTreeMap<ObjectKey, Arc<Claim>>,
    version: u64,
}

impl Store {
    fn execute(&mut self, write: &Write) -> Object {
        self.version += 1;
        let version = ResourceVersion(self.version);
        let patch = &write.patch;
        if write.target.key.kind == Kind::Volume {
            let known = self.volumes.get_mut(&write.target.key).unwrap();
            assert_eq!(known.meta.resource_version, write.target.version);
            let volume = Arc::make_mut(known);
            volume.meta.resource_version = version;
            if write.step == "reserve-volume" {
                let to = &patch["spec"]["claimRef"];
                volume.claim_ref = Some(ClaimRef {
                    namespace: to["namespace"].as_str().unwrap().into(),
                    name: to["name"].as_str().unwrap().into(),
                    uid: to["uid"].as_str().map(Into::into),
                });
                volume.meta.annotations =
                    Annotations::from_iter([(names::BOUND_BY_CONTROLLER, "yes")]);
            } else {
                assert_eq!(write.step, "mark-volume-bound");
                volume.phase = VolumePhase::Bound;
            }
            Object::Volume(known.clone())
        } else {
            let known = self.claims.get_mut(&write.target.key).unwrap();
            assert_eq!(known.meta.resource_version, write.target.version);
            let claim = Arc::make_mut(known);
            claim.meta.resource_version = version;
            if write.step == "bind-claim" {
                claim.volume_name = patch["spec"]["volumeName"].as_str().map(Into::into);
                let both = [names::BOUND_BY_CONTROLLER, names::BIND_COMPLETED];
                claim.meta.annotations = both.map(|name| (name, "yes")).into_iter().collect();
            } else {
                assert_eq!(write.step, "mark-claim-bound");
                assert!(patch["status"]["conditions"].is_array());
                claim.phase = ClaimPhase::Bound;
                claim.unused = Unused::True;
                claim.status_access_modes = claim.access_modes;
            }
            Object::Claim(known.clone())
        }
    }
}

fn main() {
    let count = std::env::args()
        .nth(1)
        .map_or(100_000, |n| n.parse().unwrap());
    let templates = Templates::new();
    let mut store = Store {
        version: 10_000_000,
        ..Store::default()
    };
    // One scatter of sizes on both sides, so that every claim finds its volume.
    for n in 0..count {
        let (volume, claim) = (Arc::new(templates.volume(n)), Arc::new(templates.claim(n)));
        store
            .volumes
            .insert(Object::Volume(volume.clone()).key(), volume);
        store
            .claims
            .insert(Object::Claim(claim.clone()).key(), claim);
    }
    let volumes = store
        .volumes
        .values()
        .cloned()
        .map(Object::Volume)
        .collect();
    let claims = store.claims.values().cloned().map(Object::Claim).collect();
    let before = peak_memory();

    let mut in_machine = Duration::ZERO;
    let start = Instant::now();
    let (mut machine, effects) = binder(volumes, claims);
    in_machine += start.elapsed();
    let mut queue = VecDeque::from(effects);
    let mut writes = 0_usize;
    let mut slowest = Duration::ZERO;
    while let Some(effect) = queue.pop_front() {
        let Effect::Write(write) = effect else {
            continue;
        };
        writes += 1;
        let object = store.execute(&write);
        let inputs = [
            Input::Seen(object),
            Input::Finished(write.target.key, Outcome::Done),
        ];
        for input in inputs {
            let begun = Instant::now();
            let more = machine.handle(Moment::default(), input);
            let took = begun.elapsed();
            slowest = slowest.max(took);
            in_machine += took;
            queue.extend(more);
        }
    }
    let bound = store
        .claims
        .values()
        .filter(|c| c.phase == ClaimPhase::Bound);
    println!(
        "{} of {count} claims bound in {writes} writes",
        bound.count()
    );
    println!("{in_machine:.2?} in the machine, slowest input {slowest:.2?}");
    println!(
        "{:.2?} with the store that stands in for the API",
        start.elapsed()
    );
    println!(
        "peak memory {}, {before} of it before the machine began",
        peak_memory()
    );
}
