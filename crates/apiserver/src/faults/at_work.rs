//! The rules at work: each counts, and rolls its own dice.

use std::sync::{Mutex, PoisonError};

use super::{Fault, Faults, Rule};
use crate::entropy::Random;

/// What rules look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requested<'a> {
    pub(crate) verb: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// The rules at work.
#[derive(Debug)]
pub(crate) struct FaultState {
    /// The API's own seed.
    seed: u64,
    rules: Mutex<Vec<Active>>,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    seen: u64,
    struck: u64,
    dice: Random,
}

impl Active {
    fn strikes(&mut self) -> bool {
        self.seen += 1;
        let due = self.rule.nth.is_none_or(|nth| nth == self.seen)
            && self.rule.times.is_none_or(|times| self.struck < times);
        // The dice roll for every match, so that what was struck before does not shift them.
        let rolled = self
            .rule
            .chance
            .is_none_or(|chance| self.dice.chance(chance));
        let strikes = due && rolled;
        self.struck += u64::from(strikes);
        strikes
    }
}

impl FaultState {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        Self {
            seed,
            rules: Mutex::new(activate(faults, seed)),
        }
    }

    pub(crate) fn set(&self, faults: Faults) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = activate(faults, self.seed);
    }

    /// What happens to this request.
    pub(crate) fn on_request(&self, request: Requested<'_>) -> Option<Fault> {
        self.strike(request, false)
    }

    /// What happens to this event of a watch. Its rules may leave the verb out, or say `watch`.
    pub(crate) fn on_event(&self, event: Requested<'_>) -> Option<Fault> {
        self.strike(event, true)
    }

    fn strike(&self, request: Requested<'_>, event: bool) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fault = None;
        for active in rules.iter_mut() {
            let concerned =
                active.rule.fault.strikes_events() == event && active.rule.matches(&request);
            // Every rule counts every match, also behind one that has struck.
            if concerned && active.strikes() && fault.is_none() {
                fault = Some(active.rule.fault);
            }
        }
        fault
    }
}

fn activate(faults: Faults, seed: u64) -> Vec<Active> {
    let seed = faults.seed ^ seed;
    let activate = |(index, rule): (u64, Rule)| Active {
        rule,
        seen: 0,
        struck: 0,
        dice: Random::new(seed ^ index.wrapping_mul(0xd134_2543_de82_ef95)),
    };
    (1..).zip(faults.rules).map(activate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: Requested<'static> = Requested {
        verb: "patch",
        resource: "persistentvolumes/status",
        namespace: "",
        name: "cqh",
    };

    fn struck(faults: &Faults, requests: usize) -> Vec<usize> {
        let state = FaultState::new(faults.clone(), 0);
        (1..=requests)
            .filter(|_| state.on_request(PATCH).is_some())
            .collect()
    }

    #[test]
    fn nth_strikes_once_and_times_limits() {
        let rule = || Rule::on("patch", "persistentvolumes/status");
        let nth = Faults::scripted([rule().nth(3).then(Fault::Conflict)]);
        assert_eq!(struck(&nth, 6), [3]);
        let times = Faults::scripted([rule().times(2).then(Fault::Conflict)]);
        assert_eq!(struck(&times, 6), [1, 2]);
        let other =
            Faults::scripted([Rule::on("patch", "persistentvolumes").then(Fault::Conflict)]);
        assert_eq!(struck(&other, 6), [0usize; 0]);
    }

    #[test]
    fn a_seed_repeats_and_another_seed_differs() {
        let faults = |seed| Faults {
            seed,
            rules: vec![Rule::on_all().chance(0.3).then(Fault::Conflict)],
        };
        let first = struck(&faults(1), 100);
        assert_eq!(first, struck(&faults(1), 100));
        assert_ne!(first, struck(&faults(2), 100));
        assert!((15..45).contains(&first.len()), "{first:?}");
    }

    #[test]
    fn events_and_requests_have_rules_of_their_own() {
        let faults = Faults::scripted([
            Rule::on("watch", "pods").nth(1).then(Fault::DropEvent),
            Rule::on("watch", "pods").nth(1).then(Fault::Expired),
        ]);
        let state = FaultState::new(faults, 0);
        let pods = Requested {
            verb: "watch",
            resource: "pods",
            namespace: "",
            name: "",
        };
        assert_eq!(state.on_request(pods), Some(Fault::Expired));
        assert_eq!(state.on_event(pods), Some(Fault::DropEvent));
        assert_eq!(state.on_event(pods), None);
    }

    #[test]
    fn a_storm_has_everything() {
        let state = FaultState::new(Faults::storm(3, 0.05), 0);
        let mut met = std::collections::BTreeSet::new();
        for _ in 0..2_000 {
            met.extend(state.on_request(PATCH).map(Fault::name));
            met.extend(state.on_event(PATCH).map(Fault::name));
            let list = Requested {
                verb: "list",
                ..PATCH
            };
            met.extend(state.on_request(list).map(Fault::name));
        }
        assert_eq!(met.len(), 15, "{met:?}");
    }
}
