//! Claims that ask for more: the disk is told, then the volume, then the claim.

use std::sync::Arc;

use bitts_api::Name;
use bitts_api::Volume;
use bitts_api::machine::Effect;

use super::{Provisioner, claim_uid};
use crate::reason;
use crate::resize::{Growth, Next, next};
use crate::task::{Task, Trouble};

impl Provisioner {
    /// Decides for a volume that stays.
    pub(super) fn decide_size(&mut self, name: &Name, volume: &Arc<Volume>) {
        let Some(claim) = self.claim(name).cloned() else {
            return;
        };
        let unit = self.units.entry(name.clone()).or_default();
        match next(&claim, volume, &unit.growth) {
            Next::Rest => {}
            Next::Write(write) => self.write(name, write),
            Next::Wait => self.fail(name),
            Next::Tell { held } => {
                unit.growth = Growth::Unknown;
                let event = reason::grown(&claim, held);
                self.out.push(Effect::Event(event));
            }
            Next::Grow(bytes) => {
                let site = self.options.site_of(volume);
                let (Some(site), Some(uid)) = (site, claim_uid(name)) else {
                    return;
                };
                let volume = name.clone();
                match self.reach(name, &site) {
                    Ok(()) => self.task(name, site, Task::Grow { volume, uid, bytes }),
                    Err(why) => why
                        .into_iter()
                        .for_each(|why| self.tell_not_grown(name, &why)),
                }
            }
        }
    }

    pub(super) fn grown(&mut self, volume: &Name, bytes: i64, held: bool) {
        let (unit, _) = self.landed(volume);
        unit.succeed();
        unit.growth = Growth::Done { bytes, held };
    }

    pub(super) fn not_grown(&mut self, volume: &Name, bytes: i64, trouble: Trouble) {
        self.tell_not_grown(volume, &trouble.message);
        let (unit, _) = self.landed(volume);
        // What the node lacks is not there a moment later: the claim says so meanwhile.
        if trouble.elsewhere {
            unit.growth = Growth::Refused(bytes, trouble.message);
        } else {
            self.fail(volume);
        }
    }

    pub(super) fn tell_not_grown(&mut self, name: &Name, why: &str) {
        let news = self.units.entry(name.clone()).or_default().tells(why);
        if let (true, Some(claim)) = (news, self.claim(name)) {
            let event = reason::not_grown(claim, why);
            self.out.push(Effect::Event(event));
        }
    }
}
