//! At most one change of an object at a time.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};

use bitts_api::ObjectKey;

/// The objects that a change is under way for. Machines emit no second one; should one do so, it
/// waits here until the first has ended.
#[derive(Debug)]
pub(crate) struct InFlight<C>(BTreeMap<ObjectKey, VecDeque<C>>);

impl<C> Default for InFlight<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C> InFlight<C> {
    /// The change, if it may begin now.
    pub(crate) fn begin(&mut self, key: &ObjectKey, change: C) -> Option<C> {
        match self.0.entry(key.clone()) {
            Entry::Vacant(place) => {
                place.insert(VecDeque::new());
                Some(change)
            }
            Entry::Occupied(mut place) => {
                place.get_mut().push_back(change);
                None
            }
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next change of the object, now that one has ended.
    pub(crate) fn end(&mut self, key: &ObjectKey) -> Option<C> {
        let waiting = self.0.get_mut(key)?;
        let next = waiting.pop_front();
        if next.is_none() {
            self.0.remove(key);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_change_of_an_object_waits_for_the_first() {
        let (a, b) = (ObjectKey::volume("a"), ObjectKey::volume("b"));
        let mut flight = InFlight::default();
        assert_eq!(flight.begin(&a, 1), Some(1));
        assert_eq!(flight.begin(&a, 2), None);
        assert_eq!(flight.begin(&b, 3), Some(3));
        assert_eq!(flight.end(&a), Some(2));
        assert_eq!(flight.end(&a), None);
        assert_eq!(flight.begin(&a, 4), Some(4));
    }
}
