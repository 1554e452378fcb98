//! What the runtime counts and measures, in a registry of its own.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::health::Health;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfRole {
    pub(crate) role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfWatch {
    pub(crate) role: &'static str,
    pub(crate) resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfKind {
    pub(crate) role: &'static str,
    pub(crate) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfInput {
    pub(crate) role: &'static str,
    pub(crate) input: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfStep {
    pub(crate) role: &'static str,
    pub(crate) step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfOutcome {
    pub(crate) role: &'static str,
    pub(crate) step: &'static str,
    pub(crate) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfReason {
    pub(crate) role: &'static str,
    pub(crate) reason: &'static str,
}

/// Seconds on a scale from 1 ms to about 16 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// Seconds on a scale from 10 us to about 5 s.
fn fine_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 2.0, 20))
}

/// All metrics of a process; each carries its role.
pub(crate) struct Metrics {
    registry: Registry,
    watch_age: Family<OfWatch, Gauge<f64, AtomicU64>>,
    pub(crate) watch_failures: Family<OfWatch, Counter>,
    pub(crate) lists: Family<OfWatch, Counter>,
    pub(crate) unreadable: Family<OfWatch, Counter>,
    pub(crate) repairs: Family<OfKind, Counter>,
    pub(crate) inputs: Family<OfInput, Counter>,
    pub(crate) queue_depth: Family<OfRole, Gauge>,
    pub(crate) in_flight: Family<OfRole, Gauge>,
    pub(crate) effects: Family<OfOutcome, Counter>,
    pub(crate) effect_seconds: Family<OfStep, Histogram, fn() -> Histogram>,
    pub(crate) watch_to_decision: Family<OfRole, Histogram, fn() -> Histogram>,
    pub(crate) decision_to_written: Family<OfRole, Histogram, fn() -> Histogram>,
    pub(crate) claim_bound: Family<OfRole, Histogram, fn() -> Histogram>,
    pub(crate) retries: Family<OfReason, Counter>,
    pub(crate) events: Family<OfReason, Counter>,
    pub(crate) leading: Family<OfRole, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("bitts"),
            watch_age: Family::default(),
            watch_failures: Family::default(),
            lists: Family::default(),
            unreadable: Family::default(),
            repairs: Family::default(),
            inputs: Family::default(),
            queue_depth: Family::default(),
            in_flight: Family::default(),
            effects: Family::default(),
            effect_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            watch_to_decision: Family::new_with_constructor(fine_seconds as fn() -> Histogram),
            decision_to_written: Family::new_with_constructor(seconds as fn() -> Histogram),
            claim_bound: Family::new_with_constructor(seconds as fn() -> Histogram),
            retries: Family::default(),
            events: Family::default(),
            leading: Family::default(),
        };
        let registry = &mut all.registry;
        registry.register(
            "watch_age_seconds",
            "Time since a watch last heard from the API: an event, a bookmark or a list",
            all.watch_age.clone(),
        );
        registry.register(
            "watch_failures",
            "Lists and watches that failed or broke off with an error",
            all.watch_failures.clone(),
        );
        registry.register(
            "lists",
            "Complete lists taken, the first of each watch included",
            all.lists.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects that this version of bitts cannot read",
            all.unreadable.clone(),
        );
        registry.register(
            "resync_repairs",
            "Objects that a watch had not told of as they are, read again",
            all.repairs.clone(),
        );
        registry.register("inputs", "What the machine was told", all.inputs.clone());
        registry.register(
            "queue_depth",
            "Inputs that wait for the machine",
            all.queue_depth.clone(),
        );
        registry.register(
            "effects_in_flight",
            "Writes, destructions and tasks under way",
            all.in_flight.clone(),
        );
        registry.register(
            "effects",
            "Writes and destructions by how they ended; conflict, spared and refused included",
            all.effects.clone(),
        );
        registry.register(
            "effect_seconds",
            "Time from the decision to the end of a write or destruction, retries included",
            all.effect_seconds.clone(),
        );
        registry.register(
            "watch_to_decision_seconds",
            "Time from when a watch heard of something to when all that follows from it was decided",
            all.watch_to_decision.clone(),
        );
        registry.register(
            "decision_to_written_seconds",
            "Time from a decision to when the API had taken its write, retries included",
            all.decision_to_written.clone(),
        );
        registry.register(
            "claim_to_bound_seconds",
            "Time from when a watch first told of a new claim to the write that made it Bound; \
             claims that were there when the process started are left out",
            all.claim_bound.clone(),
        );
        registry.register(
            "request_retries",
            "Requests sent again, by why",
            all.retries.clone(),
        );
        registry.register(
            "events",
            "Events for users, by what became of them",
            all.events.clone(),
        );
        registry.register(
            "leading",
            "1 while this process executes the role's effects",
            all.leading.clone(),
        );
        all
    }

    /// All metrics as text; ages are as of now.
    pub(crate) fn text(&self, health: &Health) -> String {
        for (role, resource, age) in health.watch_ages() {
            self.watch_age
                .get_or_create(&OfWatch { role, resource })
                .set(age.as_secs_f64());
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}
