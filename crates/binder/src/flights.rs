//! Which writes are in flight, and which objects rest after one that failed.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Event, Outcome, Place};
use bitts_api::{ClassName, ObjectKey, ResourceVersion};

use crate::rests::{Rests, Timer};

/// Writes in flight, at most one for each object, and the back-off of each object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights {
    sent: BTreeMap<ObjectKey, Sent>,
    rests: Rests<ObjectKey>,
    /// What did not get through for other reasons than a failure: repeating just that would turn
    /// in circles.
    rejected: BTreeMap<ObjectKey, (&'static str, ResourceVersion)>,
}

/// A write in flight.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) step: &'static str,
    pub(crate) version: ResourceVersion,
    /// The claim for which the object is written, where that is another object.
    pub(crate) claim: Option<Place>,
    /// The class that is looked for first.
    pub(crate) class: Option<ClassName>,
    /// What the user is told when it took effect.
    pub(crate) then: Vec<Event>,
}

impl Flights {
    /// Whether nothing may be decided for the object now: a write is in flight or a timer runs.
    pub(crate) fn is_blocked(&self, key: &ObjectKey) -> bool {
        self.sent.contains_key(key) || self.is_waiting(key)
    }

    /// Whether the very same write came back already, with nothing learned from it.
    pub(crate) fn was_rejected(
        &self,
        key: &ObjectKey,
        step: &'static str,
        version: ResourceVersion,
    ) -> bool {
        self.rejected.get(key) == Some(&(step, version))
    }

    /// How many writes are in flight.
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn start(&mut self, key: ObjectKey, sent: Sent) {
        self.sent.insert(key, sent);
    }

    /// A write ended, and the object has this version `now`.
    pub(crate) fn land(
        &mut self,
        key: &ObjectKey,
        outcome: &Outcome,
        now: Option<ResourceVersion>,
    ) -> Option<Sent> {
        let sent = self.sent.remove(key)?;
        match outcome {
            // It changed nothing: the back-off goes on growing.
            Outcome::Done if now == Some(sent.version) => {}
            Outcome::Done => self.forget(key),
            // The class was there: the same write is right or wrong for another reason now.
            Outcome::Spared if sent.class.is_some() => {}
            Outcome::Gone | Outcome::Conflict | Outcome::Spared => {
                let rejected = (sent.step, sent.version);
                self.rejected.insert(key.clone(), rejected);
            }
            Outcome::Refused(_) | Outcome::Failed(_) => {}
        }
        Some(sent)
    }

    /// Leaves the object alone for a while that grows with each failure (N11b).
    pub(crate) fn back_off(&mut self, key: &ObjectKey) -> (Duration, Timer) {
        self.rejected.remove(key);
        self.rests.begin(key.clone())
    }

    /// A timer went off; returns whether the object waited for it.
    pub(crate) fn ring(&mut self, key: &ObjectKey, timer: Timer) -> bool {
        self.rests.ring(key, timer)
    }

    /// The object was changed while it waited: it need not wait on.
    pub(crate) fn resume(&mut self, key: &ObjectKey) {
        self.rests.cut_short(key);
    }

    /// The object is gone: a new one at its place starts afresh, as soon as no write is in flight.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.rests.forget(key);
        self.rejected.remove(key);
    }

    pub(crate) fn is_waiting(&self, key: &ObjectKey) -> bool {
        self.rests.is_resting(key)
    }
}
