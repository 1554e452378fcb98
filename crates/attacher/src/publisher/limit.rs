//! How many calls a driver is given at a time: more while it keeps up, fewer when it does not.

use std::time::Duration;

use bitts_api::machine::Moment;

/// So many at first, as the stock sidecar has workers.
const FIRST: f64 = 10.0;
/// So many times its best a call may take before the driver counts as crowded.
const SLOW: u32 = 4;
/// What is no matter of crowding.
const NOISE: Duration = Duration::from_millis(50);

/// The limit of one driver. It begins with ten, doubles each round until the first trouble, and grows by
/// one a round after that; it is halved when the driver says that it has too much to do, and shrinks by
/// a tenth when answers take much longer than the quickest.
#[derive(Debug)]
pub(crate) struct Limit {
    allowed: f64,
    most: f64,
    best: Option<Duration>,
    /// The first trouble was met.
    careful: bool,
    /// Calls that began before the last cut say nothing about the limit after it.
    cut_at: Moment,
}

impl Limit {
    pub(crate) fn new(most: usize) -> Self {
        let most = u32::try_from(most.max(1)).map_or(f64::from(u32::MAX), f64::from);
        Self {
            allowed: FIRST.min(most),
            most,
            best: None,
            careful: false,
            cut_at: Moment::default(),
        }
    }

    /// How many calls may be under way.
    pub(crate) fn allowed(&self) -> usize {
        // At least 1 and at most what a usize was made into.
        self.allowed as usize
    }

    /// A call that began then ended now. `full`: as many were under way as may be.
    pub(crate) fn ended(&mut self, began: Moment, now: Moment, overload: bool, full: bool) {
        let took = now.0.saturating_sub(began.0);
        if overload {
            self.cut(began, now, 0.5);
            return;
        }
        let best = self.best.map_or(took, |best| best.min(took));
        // What was quick once is not the measure for ever.
        self.best = Some(best + best / 1000);
        if took > best * SLOW + NOISE {
            self.cut(began, now, 0.9);
        } else if full {
            let more = if self.careful {
                1.0 / self.allowed
            } else {
                1.0
            };
            self.allowed = (self.allowed + more).min(self.most);
        }
    }

    fn cut(&mut self, began: Moment, now: Moment, to: f64) {
        if began < self.cut_at {
            return;
        }
        self.careful = true;
        self.cut_at = now;
        self.allowed = (self.allowed * to).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    fn quick(limit: &mut Limit, calls: usize) {
        for _ in 0..calls {
            limit.ended(at(1000), at(1010), false, true);
        }
    }

    #[test]
    fn a_driver_that_keeps_up_is_given_more_and_no_more_than_the_most() {
        let mut limit = Limit::new(100);
        assert_eq!(limit.allowed(), 10);
        quick(&mut limit, 10);
        assert_eq!(limit.allowed(), 20);
        quick(&mut limit, 500);
        assert_eq!(limit.allowed(), 100);
        assert_eq!(Limit::new(3).allowed(), 3);
        assert_eq!(Limit::new(0).allowed(), 1);
    }

    #[test]
    fn nothing_grows_while_nothing_waits() {
        let mut limit = Limit::new(100);
        for _ in 0..100 {
            limit.ended(at(0), at(10), false, false);
        }
        assert_eq!(limit.allowed(), 10);
    }

    #[test]
    fn too_much_is_halved_once_a_round_and_grows_slowly_after_that() {
        let mut limit = Limit::new(100);
        quick(&mut limit, 30);
        assert_eq!(limit.allowed(), 40);
        // Forty answers of one round: one cut.
        for _ in 0..40 {
            limit.ended(at(1010), at(2000), true, true);
        }
        assert_eq!(limit.allowed(), 20);
        for _ in 0..20 {
            limit.ended(at(2000), at(2010), false, true);
        }
        assert!((20..=21).contains(&limit.allowed()), "{}", limit.allowed());
        for round in 0..20 {
            limit.ended(at(3000 + round), at(3000 + round), true, true);
        }
        assert_eq!(limit.allowed(), 1);
    }

    #[test]
    fn answers_that_take_longer_and_longer_are_a_sign() {
        let mut limit = Limit::new(100);
        quick(&mut limit, 30);
        limit.ended(at(1010), at(3000), false, true);
        assert_eq!(limit.allowed(), 36);
    }
}
