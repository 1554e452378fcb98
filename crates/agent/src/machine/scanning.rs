//! The agent's part of scanning: what an earlier agent left is found before anything is done, and what
//! came to be left later is found now and then (M29).

use std::time::Duration;

use bitts_api::Uid;
use bitts_api::machine::Effect;

use super::{Agent, Effects};
use crate::ledger::Actual;
use crate::mode::Mode;
use crate::retry::back_off;
use crate::task::{Alarm, Leftover, StageKey, Task};

/// Where the agent is with looking for what is left.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// How often it is done again.
    interval: Option<Duration>,
    was_begun: bool,
    was_done: bool,
    /// How often in a row it failed.
    failures: u32,
}

impl Scans {
    /// Whether what was left before this agent is known.
    pub(super) fn was_done(&self) -> bool {
        self.was_done
    }

    /// The first one, once.
    pub(super) fn begin(&mut self) -> Option<Effect<Task, Alarm>> {
        (!std::mem::replace(&mut self.was_begun, true)).then_some(Effect::Task(Task::Scan))
    }
}

impl Agent {
    /// Has it look again at this interval for what pods left that are no more: volumes that were
    /// mounted by somebody else, or too late.
    #[must_use]
    pub fn scanning(mut self, interval: Option<Duration>) -> Self {
        self.scans.interval = interval;
        self
    }

    pub(super) fn scanned(
        &mut self,
        volumes: Vec<Leftover>,
        stages: Vec<StageKey>,
        empty: Vec<Uid>,
        out: &mut Effects,
    ) {
        self.scans.was_done = true;
        self.scans.failures = 0;
        if self.mode == Mode::BesideKubelet {
            return;
        }
        // What is known is known better than a look at directories can tell.
        for found in volumes {
            if self.ledger.get(&found.key).is_some() {
                continue;
            }
            let record = self.ledger.open(found.key.clone());
            record.actual = Actual::Unsure;
            record.found_on = found.stage;
            self.volumes_to_look_at.insert(found.key);
        }
        for key in stages {
            if self.stages.found(key.clone()) {
                self.stages_to_look_at.insert(key);
            }
        }
        self.empty_to_remove.extend(empty);
        let again = self.scans.interval;
        out.extend(again.map(|interval| Effect::Wake(interval, Alarm::Scan)));
    }

    pub(super) fn scan_failed(&mut self, message: String, out: &mut Effects) {
        self.scans.failures += 1;
        let failures = self.scans.failures;
        out.push(Effect::Wake(back_off(failures), Alarm::Scan));
        if failures == 1 {
            out.extend(self.about_node("BittsFailedScan", message));
        }
    }
}
