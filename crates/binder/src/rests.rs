//! When what failed is tried again: each time later.

use std::collections::BTreeMap;
use std::time::Duration;

/// What rests after a failure, by `K`, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Rests<K> {
    rests: BTreeMap<K, Rest>,
    last: Timer,
}

impl<K> Default for Rests<K> {
    fn default() -> Self {
        Self {
            rests: BTreeMap::new(),
            last: Timer::default(),
        }
    }
}

/// Which of the timers that were ever started: one that was overtaken means nothing when it goes off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timer(u64);

#[derive(Clone, Debug, Default)]
struct Rest {
    failures: u32,
    /// The timer that runs.
    timer: Option<Timer>,
}

impl<K: Ord> Rests<K> {
    /// Begins a rest, which is longer with each failure (N11b).
    pub(crate) fn begin(&mut self, key: K) -> (Duration, Timer) {
        const FIRST: Duration = Duration::from_millis(500);
        const LONGEST: Duration = Duration::from_secs(120);
        let rest = self.rests.entry(key).or_default();
        let delay = FIRST
            .saturating_mul(1 << rest.failures.min(10))
            .min(LONGEST);
        rest.failures += 1;
        self.last.0 += 1;
        rest.timer = Some(self.last);
        (delay, self.last)
    }

    /// A timer went off; returns whether it ends a rest.
    pub(crate) fn ring(&mut self, key: &K, timer: Timer) -> bool {
        let rest = self.rests.get_mut(key);
        let waited = rest.filter(|r| r.timer == Some(timer));
        waited.is_some_and(|rest| rest.timer.take().is_some())
    }

    /// It need not rest on, but its next rest is longer still.
    pub(crate) fn cut_short(&mut self, key: &K) {
        if let Some(rest) = self.rests.get_mut(key) {
            rest.timer = None;
        }
    }

    /// All is well again.
    pub(crate) fn forget(&mut self, key: &K) {
        self.rests.remove(key);
    }

    pub(crate) fn is_resting(&self, key: &K) -> bool {
        self.rests.get(key).is_some_and(|r| r.timer.is_some())
    }

    /// Whether it failed, and did not succeed since.
    pub(crate) fn has_failed(&self, key: &K) -> bool {
        self.rests.contains_key(key)
    }
}
