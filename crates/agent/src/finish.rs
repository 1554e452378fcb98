//! Deleting the objects of pods that are over, for nodes whose pods nobody else runs.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Destroy, Destruction, Evidence, Outcome, Target};
use bitts_api::{Kind, ObjectKey, Pod};

use crate::retry::back_off;

/// The deletions that were decided on.
#[derive(Debug, Default)]
pub(crate) struct Finishing(BTreeMap<ObjectKey, State>);

#[derive(Debug, Default)]
struct State {
    /// At most one effect an object at a time, even when another pod took the name.
    in_flight: bool,
    /// The pod changed meanwhile, or another one has its place.
    changed: bool,
    /// The pod is no more: nothing is remembered once what is in flight has ended.
    gone: bool,
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
        if state.gone {
            self.0.remove(key);
            return Next::Again;
        }
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
        match self.0.get_mut(key) {
            Some(state) if state.in_flight => state.gone = true,
            _ => {
                self.0.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_remembered_of_a_pod_that_is_no_more() {
        let json = r#"{"metadata": {"name": "web", "namespace": "default", "uid": "u"}}"#;
        let Ok(bitts_api::Object::Pod(pod)) = Kind::Pod.read(json.as_bytes()) else {
            panic!("not a pod")
        };
        let key = ObjectKey::pod("default", "web");
        let mut finishing = Finishing::default();
        // The runner tells of the deletion before it says that its own one is done.
        assert!(finishing.start(&pod).is_some());
        finishing.forget(&key);
        finishing.wake(&key);
        assert!(finishing.start(&pod).is_none(), "one at a time");
        assert_eq!(finishing.ended(&key, Outcome::Done), Next::Again);
        assert!(finishing.0.is_empty());
        // And the other way round.
        assert!(finishing.start(&pod).is_some());
        assert_eq!(finishing.ended(&key, Outcome::Done), Next::Wait);
        finishing.forget(&key);
        assert!(finishing.0.is_empty());
    }
}
