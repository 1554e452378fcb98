//! Classes that claims name and no watch told of.
//!
//! For a claim whose class does not exist any volume will do (B9). But the class may be there and not
//! be told of yet, and wait for its first consumer. So the API is asked: a volume is reserved for such
//! a claim on the evidence that there is no class.
//!
//! One look serves many. Versions of one kind grow with time, so whoever has a version that was known
//! when the look began was there before it; and a class that was made before the claim, or before
//! the volume, was there too, and would have been found. What comes later takes another look. Only
//! one is under way for a class: whoever needs one waits for it to end, and the first of them has
//! the next one made, which serves all others.

use std::collections::{BTreeMap, BTreeSet};

use bitts_api::machine::{Outcome, Place};
use bitts_api::{Claim, ClassName, Name, ResourceVersion, Volume};

/// Versions of claims and volumes, either the newest that are known or those of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) claim: ResourceVersion,
    pub(crate) volume: ResourceVersion,
}

impl Versions {
    fn of(claim: &Claim, volume: &Volume) -> Self {
        Self {
            claim: claim.meta.resource_version,
            volume: volume.meta.resource_version,
        }
    }

    fn within(self, newest: Self) -> bool {
        self.claim <= newest.claim && self.volume <= newest.volume
    }
}

/// What a claim has to do whose class is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is no such class, or it came after the pair.
    Absent,
    /// Somebody is looking: the claim waits for that.
    Asked,
    /// It has to look.
    Unknown,
}

/// The looks for classes, past and under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looks(BTreeMap<ClassName, Look>);

#[derive(Clone, Debug, Default)]
struct Look {
    /// What was known when the last look began that found nothing.
    absent: Versions,
    /// What was known when the look began that is under way.
    asked: Option<Versions>,
    /// Claims that wait for it.
    claims: BTreeSet<Place>,
    /// Volumes that were offered to them.
    offers: BTreeSet<Name>,
}

impl Looks {
    /// What the claim has to do before the volume is reserved for it; when that is to wait, it is
    /// given back at the end of the look that is under way.
    pub(crate) fn standing(
        &mut self,
        class: &ClassName,
        claim: &Claim,
        volume: &Volume,
    ) -> Standing {
        let Some(look) = self.0.get_mut(class) else {
            return Standing::Unknown;
        };
        if Versions::of(claim, volume).within(look.absent) {
            Standing::Absent
        } else if look.asked.is_some() {
            look.claims.insert(claim.meta.place());
            Standing::Asked
        } else {
            Standing::Unknown
        }
    }

    /// A look begins, and this is known.
    pub(crate) fn begin(&mut self, class: ClassName, newest: Versions) {
        self.0.entry(class).or_default().asked = Some(newest);
    }

    /// A volume was offered to a claim that waits for a look: it is offered again afterwards.
    pub(crate) fn postpone(&mut self, class: &ClassName, volume: &Name) {
        if let Some(look) = self.0.get_mut(class).filter(|l| l.asked.is_some()) {
            look.offers.insert(volume.clone());
        }
    }

    /// A look ended; returns the claims and the volumes that waited for that.
    pub(crate) fn end(
        &mut self,
        class: &ClassName,
        outcome: &Outcome,
    ) -> (BTreeSet<Place>, BTreeSet<Name>) {
        let Some(look) = self.0.get_mut(class) else {
            return Default::default();
        };
        let asked = look.asked.take();
        let held = match outcome {
            // The evidence is read first.
            Outcome::Done | Outcome::Gone | Outcome::Conflict | Outcome::Refused(_) => true,
            Outcome::Spared | Outcome::Failed(_) => false,
        };
        if let Some(asked) = asked.filter(|_| held) {
            look.absent = asked;
        }
        let waited = (
            std::mem::take(&mut look.claims),
            std::mem::take(&mut look.offers),
        );
        if look.absent == Versions::default() {
            self.0.remove(class);
        }
        waited
    }

    /// Versions begin anew, as in an API that was restored from a backup: looks that were begun
    /// before prove nothing.
    pub(crate) fn disprove(&mut self) {
        for look in self.0.values_mut() {
            look.absent = Versions::default();
            look.asked = look.asked.map(|_| Versions::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(claim: u64, volume: u64) -> Versions {
        Versions {
            claim: ResourceVersion(claim),
            volume: ResourceVersion(volume),
        }
    }

    #[test]
    fn a_look_serves_pairs_of_which_both_were_known() {
        let newest = versions(7, 9);
        assert!(versions(7, 9).within(newest) && versions(1, 2).within(newest));
        assert!(!versions(8, 2).within(newest) && !versions(2, 10).within(newest));
    }
}
