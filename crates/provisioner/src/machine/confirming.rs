//! Noting in the record of a volume that the API has it.
//!
//! Nobody waits for that, and it takes its part of the disk or the server: while volumes are made for claims
//! that wait, it is put off. A process that dies before leaves it to the next, which finds the record and the
//! volume.

use std::collections::BTreeSet;
use std::time::Duration;

use bitts_api::machine::Effect;
use bitts_api::{Name, Volume};

use super::{Provisioner, claim_uid};
use crate::task::{Alarm, Task};
use crate::unit::{Confirm, Disk};
use crate::volume;

/// How much later,
const LATER: Duration = Duration::from_secs(2);
/// and how often it is put off by as much while others are made.
const MOST: u8 = 15;
/// So many at a time then: a claim that comes waits for no more than these.
const AT_ONCE: usize = 64;
/// How long until the next of them.
const NEXT: Duration = Duration::from_millis(250);

/// The volumes of which it is yet to be noted, put off together.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    volumes: BTreeSet<Name>,
    /// How many had been made when it was put off last,
    made: u64,
    /// and how often it may be again.
    more: u8,
}

impl Provisioner {
    /// Whether something has to be recorded before anything else comes of a volume that the API has. `rests` says
    /// that nothing is to come of it.
    pub(super) fn is_recorded_first(&mut self, name: &Name, volume: &Volume, rests: bool) -> bool {
        let site = self.options.site_of(volume);
        let unit = self.units.entry(name.clone()).or_default();
        if !unit.disk.is_unconfirmed() {
            return false;
        }
        let (Some(uid), Some(begun)) = (claim_uid(name), unit.site.clone()) else {
            return false;
        };
        // One of the same name made it on a disk of its own, or it was made on another share in the end.
        let elsewhere = volume::path(volume).is_some_and(|at| unit.is_made_elsewhere(at))
            || site.is_some_and(|site| !site.holds_the_same(&begun));
        if elsewhere {
            self.send(name, begun, Task::Discard(name.clone(), uid));
            return true;
        }
        match unit.confirm {
            Confirm::NotYet if rests && matches!(unit.disk, Disk::Made { .. }) => {
                unit.confirm = Confirm::Soon;
                self.confirm_later(name);
            }
            Confirm::Soon if rests => {}
            Confirm::NotYet | Confirm::Soon | Confirm::Now => {
                self.send(name, begun, Task::Confirm(name.clone(), uid));
            }
        }
        true
    }

    fn confirm_later(&mut self, name: &Name) {
        if self.unconfirmed.volumes.is_empty() {
            self.unconfirmed.more = MOST;
            self.put_off();
        }
        self.unconfirmed.volumes.insert(name.clone());
    }

    fn put_off(&mut self) {
        self.unconfirmed.made = self.made;
        self.out.push(Effect::Wake(LATER, Alarm::Confirm));
    }

    /// It is time to, unless others were made meanwhile.
    pub(super) fn confirm_now(&mut self) {
        let left = self.unconfirmed.more.checked_sub(1);
        if let Some(left) = left.filter(|_| self.unconfirmed.made != self.made) {
            self.unconfirmed.more = left;
            return self.put_off();
        }
        for _ in 0..AT_ONCE {
            let Some(name) = self.unconfirmed.volumes.pop_first() else {
                return;
            };
            if let Some(unit) = self.units.get_mut(&name) {
                unit.confirm = Confirm::Now;
                self.dirty.insert(name);
            }
        }
        if !self.unconfirmed.volumes.is_empty() {
            self.unconfirmed.more = 0;
            self.out.push(Effect::Wake(NEXT, Alarm::Confirm));
        }
    }
}
