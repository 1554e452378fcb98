//! When what failed is tried again (N11).

use std::time::Duration;

/// The trouble with one thing that the agent does: how often it failed, and what the user knows.
#[derive(Debug)]
pub(crate) struct Retry<Job> {
    /// What failed and is tried again when its time has come.
    waiting: Option<Job>,
    failures: u32,
    /// Counts the timers, so that one that no longer counts is known.
    attempt: u32,
    /// The trouble that the user was told of last.
    told: Option<String>,
}

impl<Job> Default for Retry<Job> {
    fn default() -> Self {
        Self {
            waiting: None,
            failures: 0,
            attempt: 0,
            told: None,
        }
    }
}

impl<Job: Copy + PartialEq> Retry<Job> {
    /// Whether it may be done now. Other work than what failed begins anew.
    pub(crate) fn allows(&mut self, job: Job) -> bool {
        if self.waiting == Some(job) {
            return false;
        }
        if self.waiting.is_some() {
            self.reset();
        }
        true
    }

    /// It failed. Returns when to try again and the number of that try.
    pub(crate) fn fail(&mut self, job: Option<Job>) -> (Duration, u32) {
        self.waiting = job;
        self.failures += 1;
        self.attempt += 1;
        (back_off(self.failures), self.attempt)
    }

    /// The time for a try has come.
    pub(crate) fn wake(&mut self, attempt: u32) {
        if attempt == self.attempt {
            self.waiting = None;
        }
    }

    /// Whether the user has yet to be told of this.
    pub(crate) fn tells(&mut self, message: &str) -> bool {
        let new = self.told.as_deref() != Some(message);
        self.told = Some(message.to_owned());
        new
    }

    /// It went well, or something else is to be done.
    pub(crate) fn reset(&mut self) {
        self.waiting = None;
        self.failures = 0;
        self.told = None;
    }
}

/// How long to wait after this many failures in a row: 500 ms, doubling to 2 m 2 s (N11).
pub(crate) fn back_off(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(122);
    let doublings = failures.saturating_sub(1).min(8);
    (FIRST * 2_u32.pow(doublings)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_as_the_kubelet_does() {
        let millis = [1, 2, 3, 8, 9, 40].map(|n| back_off(n).as_millis());
        assert_eq!(millis, [500, 1000, 2000, 64_000, 122_000, 122_000]);
    }

    #[test]
    fn only_the_latest_timer_counts() {
        let mut retry = Retry::default();
        let (_, first) = retry.fail(Some('a'));
        let (_, second) = retry.fail(Some('a'));
        retry.wake(first);
        assert!(!retry.allows('a'));
        retry.wake(second);
        assert!(retry.allows('a'));
    }

    #[test]
    fn other_work_begins_anew() {
        let mut retry = Retry::default();
        retry.fail(Some('a'));
        assert!(retry.tells("it broke") && !retry.tells("it broke"));
        assert!(retry.allows('b') && retry.tells("it broke"));
        assert_eq!(retry.fail(Some('b')).0, Duration::from_millis(500));
    }
}
