//! Deleting the objects of pods that are over, for nodes whose pods nobody else runs.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Destroy, Destruction, Evidence, Outcome, Target};
use bitts_api::{Kind, ObjectKey, Pod};

use crate::task::back_off;

/// The deletions that were decided on.
#[derive(Debug, Default)]
pub(crate) struct Finishing(BTreeMap<ObjectKey, State>);

#[derive(Debug, Default)]
struct State {
    /// At most one effect an object at a time, even when another pod took the name.
    in_flight: bool,
    /// The pod changed meanwhile, or another one has its place.
    changed: bool,
    /// Nothing more is done until the pod changes or a timer goes off.
    paused: bool,
    failures: u32,
}

/// What follows from the end of a deletion.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Decide anew: the pod changed, or another one has its place.
    Again,
    /// Nothing until the pod changes.
    Wait,
    /// Decide anew after this long.
    Later(Duration),
    /// Nothing until the pod changes, and the user has to know.
    Tell(String),
}

impl Finishing {
    /// The deletion of a pod's object (M13), unless it has to wait.
    pub(crate) fn start(&mut self, pod: &Pod) -> Option<Destroy> {
        let target = Target::of(Kind::Pod, &pod.meta);
        let state = self.0.entry(target.key.clone()).or_default();
        if state.paused || state.in_flight {
            return None;
        }
        state.in_flight = true;
        Some(Destroy {
            step: "finish-pod",
            action: Destruction::Delete,
            evidence: vec![Evidence::PodEnded(target.key.clone(), target.uid.clone())],
            target,
        })
    }

    /// A deletion ended.
    pub(crate) fn ended(&mut self, key: &ObjectKey, outcome: Outcome) -> Next {
        let Some(state) = self.0.get_mut(key) else {
            return Next::Wait;
        };
        state.in_flight = false;
        if std::mem::take(&mut state.changed) || outcome == Outcome::Conflict {
            return Next::Again;
        }
        state.paused = true;
        match outcome {
            Outcome::Failed(_) => {
                state.failures += 1;
                Next::Later(back_off(state.failures))
            }
            Outcome::Refused(message) => Next::Tell(message),
            Outcome::Done | Outcome::Gone | Outcome::Spared | Outcome::Conflict => Next::Wait,
        }
    }

    /// The pod changed, or the time for another try has come.
    pub(crate) fn wake(&mut self, key: &ObjectKey) {
        if let Some(state) = self.0.get_mut(key) {
            state.paused = false;
            state.changed = state.in_flight;
        }
    }

    /// The pod is no more.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.wake(key);
        self.0
            .retain(|known, state| known != key || state.in_flight);
    }
}
