//! Which writes are in flight, and when those that failed are tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Event, Outcome, Place};
use bitts_api::{ClassName, ObjectKey, ResourceVersion};

/// Writes in flight, at most one for each object, and the back-off of each object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights {
    sent: BTreeMap<ObjectKey, Sent>,
    retries: BTreeMap<ObjectKey, Retry>,
    last: Timer,
}

/// Which of the timers that were ever started: one that was overtaken means nothing when it goes off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timer(u64);

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

#[derive(Clone, Debug, Default)]
struct Retry {
    failures: u32,
    /// The timer that runs.
    timer: Option<Timer>,
    /// What did not get through for other reasons than a failure: repeating just that would turn
    /// in circles.
    rejected: Option<(&'static str, ResourceVersion)>,
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
        self.retries
            .get(key)
            .is_some_and(|r| r.rejected == Some((step, version)))
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
            Outcome::Done => {
                self.retries.remove(key);
            }
            // The class was there: the same write is right or wrong for another reason now.
            Outcome::Spared if sent.class.is_some() => {}
            Outcome::Gone | Outcome::Conflict | Outcome::Spared => {
                let retry = self.retries.entry(key.clone()).or_default();
                retry.rejected = Some((sent.step, sent.version));
            }
            Outcome::Refused(_) | Outcome::Failed(_) => {}
        }
        Some(sent)
    }

    /// Leaves the object alone for a while that grows with each failure (N11b).
    pub(crate) fn back_off(&mut self, key: &ObjectKey) -> (Duration, Timer) {
        const FIRST: Duration = Duration::from_millis(500);
        const LONGEST: Duration = Duration::from_secs(120);
        let retry = self.retries.entry(key.clone()).or_default();
        let delay = FIRST
            .saturating_mul(1 << retry.failures.min(10))
            .min(LONGEST);
        retry.failures += 1;
        retry.rejected = None;
        self.last.0 += 1;
        retry.timer = Some(self.last);
        (delay, self.last)
    }

    /// A timer went off; returns whether the object waited for it.
    pub(crate) fn ring(&mut self, key: &ObjectKey, timer: Timer) -> bool {
        let retry = self.retries.get_mut(key);
        let waited = retry.filter(|r| r.timer == Some(timer));
        waited.is_some_and(|retry| retry.timer.take().is_some())
    }

    /// The object was changed while it waited: it need not wait on.
    pub(crate) fn resume(&mut self, key: &ObjectKey) {
        if let Some(retry) = self.retries.get_mut(key) {
            retry.timer = None;
        }
    }

    /// The object is gone: a new one at its place starts afresh, as soon as no write is in flight.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.retries.remove(key);
    }

    pub(crate) fn is_waiting(&self, key: &ObjectKey) -> bool {
        self.retries.get(key).is_some_and(|r| r.timer.is_some())
    }
}
