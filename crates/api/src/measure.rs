//! What machines count and measure for whoever watches over them.

use std::time::Duration;

/// A number under a name that users know (N14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// The whole name.
    pub name: &'static str,
    /// What it means, without a full stop.
    pub help: &'static str,
    /// What it is counted by.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub reading: Reading,
}

/// What kind of number a [`Measure`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Goes up and down.
    Gauge(u64),
    /// Only grows. OpenMetrics calls it a counter if its name ends in `_total`.
    Counter(u64),
    /// How long things took.
    Durations(Durations),
}

/// How many things took up to how long.
///
/// ```
/// use std::time::Duration;
///
/// use bitts_api::machine::Durations;
///
/// const BOUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// let mut took = Durations::new(&BOUNDS);
/// took.add(Duration::from_secs(2));
/// took.add(Duration::from_secs(60));
/// let below: Vec<u64> = took.below().map(|(_, n)| n).collect();
/// assert_eq!(below, [0, 1]);
/// assert_eq!((took.count(), took.sum()), (2, Duration::from_secs(62)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    bounds: &'static [Duration],
    /// Those within each bound and not within the one before.
    within: Vec<u64>,
    count: u64,
    sum: Duration,
}

impl Durations {
    /// None yet; they will be counted by these bounds, which ascend.
    #[must_use]
    pub fn new(bounds: &'static [Duration]) -> Self {
        Self {
            bounds,
            within: vec![0; bounds.len()],
            count: 0,
            sum: Duration::ZERO,
        }
    }

    /// Something took so long.
    pub fn add(&mut self, took: Duration) {
        let place = self.bounds.iter().position(|bound| took <= *bound);
        if let Some(n) = place.and_then(|place| self.within.get_mut(place)) {
            *n += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// How many took no longer than each bound.
    pub fn below(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut below = 0;
        self.bounds.iter().zip(&self.within).map(move |(bound, n)| {
            below += n;
            (*bound, below)
        })
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long all of them took.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}
