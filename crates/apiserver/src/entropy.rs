//! Time, uids and random names: the things that a test wants under control.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

/// The letters and digits of generated names: none that make words or look alike.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Where time comes from.
#[derive(Debug, Clone, Copy, Default)]
pub enum Clock {
    /// The computer's clock.
    #[default]
    System,
    /// Starts at this time and runs as tokio's clock does, which a test can pause.
    Simulated(Timestamp),
}

/// A clock that has started.
#[derive(Debug)]
pub(crate) struct RunningClock {
    kind: Clock,
    started: Instant,
}

impl RunningClock {
    pub(crate) fn new(kind: Clock) -> Self {
        Self {
            kind,
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        match self.kind {
            Clock::System => Timestamp::now(),
            Clock::Simulated(start) => {
                let run = SignedDuration::try_from(self.started.elapsed()).unwrap_or_default();
                start.saturating_add(run).unwrap_or(start)
            }
        }
    }

    /// The time as `metadata.creationTimestamp` has it.
    pub(crate) fn stamp(&self) -> String {
        seconds(self.now())
    }
}

/// RFC 3339 with whole seconds, as the API prints times.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// SplitMix64: small, fast, and the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True with the given probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: as many as a double holds exactly.
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        unit < probability
    }
}

/// Makes uids and name suffixes.
#[derive(Debug)]
pub(crate) struct Entropy(Mutex<Random>);

impl Entropy {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
        Self(Mutex::new(Random::new(seed)))
    }

    pub(crate) fn uid(&self) -> String {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bits = (u128::from(random.next()) << 64) | u128::from(random.next());
        uuid::Builder::from_random_bytes(bits.to_be_bytes())
            .into_uuid()
            .to_string()
    }

    /// The five characters behind a `generateName`.
    pub(crate) fn suffix(&self) -> String {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (0..5)
            .map(|_| char::from(ALPHABET[(random.next() % ALPHABET.len() as u64) as usize]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_uids_and_names() {
        let (a, b) = (Entropy::new(Some(7)), Entropy::new(Some(7)));
        assert_eq!((a.uid(), a.suffix()), (b.uid(), b.suffix()));
        assert_ne!(a.uid(), a.uid());
        assert_ne!(Entropy::new(None).uid(), Entropy::new(None).uid());
        assert_eq!(Uuid::parse_str(&a.uid()).unwrap().get_version_num(), 4);
    }

    #[test]
    fn chance_is_as_often_as_it_says() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!random.chance(0.0));
        assert!(random.chance(1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_runs_with_tokio() {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = RunningClock::new(Clock::Simulated(start));
        assert_eq!(clock.stamp(), "2026-01-02T03:04:05Z");
        tokio::time::advance(std::time::Duration::from_secs(3600)).await;
        assert_eq!(clock.stamp(), "2026-01-02T04:04:05Z");
    }
}
