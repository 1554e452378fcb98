//! Telling who waits for a volume that it is being made.
//!
//! Most volumes are there at once, and that is told then: an event more for each is one that the API keeps for
//! an hour and nobody reads. What is told here is that a volume takes a while.

use std::mem;
use std::time::Duration;

use bitts_api::Name;
use bitts_api::machine::Effect;

use super::Provisioner;
use crate::reason;
use crate::task::Alarm;

/// How often it is looked whether something takes long: after once to twice as much it is told.
const OFTEN: Duration = Duration::from_secs(2);

/// What may come to take long.
#[derive(Debug, Default)]
pub(super) struct Slow {
    /// Begun since it was looked last,
    begun: Vec<Name>,
    /// and before that.
    before: Vec<Name>,
}

impl Provisioner {
    /// The making of a volume begins.
    pub(super) fn announce_later(&mut self, name: &Name) {
        if self.slow.begun.is_empty() && self.slow.before.is_empty() {
            self.out.push(Effect::Wake(OFTEN, Alarm::Announce));
        }
        self.slow.begun.push(name.clone());
    }

    /// Tells those who wait for what was begun a while ago.
    pub(super) fn announce(&mut self) {
        let mut begun = mem::take(&mut self.slow.begun);
        begun.retain(|name| self.waits_in_silence(name));
        if !begun.is_empty() {
            self.out.push(Effect::Wake(OFTEN, Alarm::Announce));
        }
        for name in mem::replace(&mut self.slow.before, begun) {
            if let (true, Some(claim)) = (self.waits_in_silence(&name), self.claim(&name)) {
                let event = reason::provisioning(claim);
                self.out.push(Effect::Event(event));
            }
        }
    }

    /// Whether a volume is being made whose user was told of nothing else.
    fn waits_in_silence(&self, name: &Name) -> bool {
        let unit = self.units.get(name);
        let silent = unit.is_some_and(|unit| unit.flight.is_some() && !unit.has_told());
        silent && self.volume(name).is_none()
    }
}
