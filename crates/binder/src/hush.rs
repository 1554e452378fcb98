//! Claims for which a volume on its way to Available may do: nothing is said or asked for until the
//! volumes that were on their way have come. Volumes that set out later hold up nobody again, or a
//! stream of them would hold up claims for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bitts_api::Name;
use bitts_api::machine::Place;

/// Who waits, and for which volumes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hush {
    /// Volumes on their way, and the how manieth each is of all that ever were.
    coming: BTreeMap<Name, u64>,
    order: BTreeSet<u64>,
    last: u64,
    /// Claims that wait, and the last volume that each waits for.
    claims: BTreeMap<Place, u64>,
    /// The same in their order, and some who wait no more.
    queue: VecDeque<(u64, Place)>,
    /// Claims that waited until all came, and have to be decided now.
    over: BTreeSet<Place>,
}

impl Hush {
    /// A volume is on its way.
    pub(crate) fn set_out(&mut self, volume: Name) {
        self.last += 1;
        if let Some(before) = self.coming.insert(volume, self.last) {
            self.order.remove(&before);
        }
        self.order.insert(self.last);
    }

    /// A volume came, or will not; returns the claims that wait no longer.
    pub(crate) fn came(&mut self, volume: &Name) -> Vec<Place> {
        if let Some(number) = self.coming.remove(volume) {
            self.order.remove(&number);
        }
        let oldest = self.order.first().copied().unwrap_or(u64::MAX);
        let mut over = Vec::new();
        while let Some((last, _)) = self.queue.front()
            && *last < oldest
        {
            let Some((last, place)) = self.queue.pop_front() else {
                break;
            };
            if self.claims.get(&place) == Some(&last) {
                self.claims.remove(&place);
                self.over.insert(place.clone());
                over.push(place);
            }
        }
        over
    }

    /// Whether the claim, for which a volume that is coming may do, has to wait.
    pub(crate) fn holds(&mut self, place: &Place) -> bool {
        if self.over.remove(place) {
            return false;
        }
        if !self.claims.contains_key(place) {
            self.claims.insert(place.clone(), self.last);
            self.queue.push_back((self.last, place.clone()));
        }
        true
    }

    /// The claim does not depend on what is coming, or is gone.
    pub(crate) fn forget(&mut self, place: &Place) {
        self.claims.remove(place);
        self.over.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Place {
        (Some("default".into()), name.into())
    }

    #[test]
    fn a_claim_waits_for_the_volumes_that_were_on_their_way_and_no_others() {
        let mut hush = Hush::default();
        hush.set_out("a".into());
        hush.set_out("b".into());
        assert!(hush.holds(&place("c")));
        hush.set_out("later".into());
        assert!(
            hush.holds(&place("c")),
            "asked again, it waits no longer than before"
        );
        assert!(hush.came(&"b".into()).is_empty());
        assert_eq!(hush.came(&"a".into()), [place("c")]);
        assert!(!hush.holds(&place("c")), "though one is on its way");
        assert!(hush.holds(&place("c")), "it was decided in between");
    }

    #[test]
    fn who_is_forgotten_is_not_woken() {
        let mut hush = Hush::default();
        hush.set_out("a".into());
        assert!(hush.holds(&place("c")));
        hush.forget(&place("c"));
        assert!(hush.came(&"a".into()).is_empty());
    }
}
