//! Which claims wait, so that a volume or a class wakes those that it can help, and no others.
//!
//! The mirror image of [`crate::matching`]: claims without a volume lie on the shelf of the volumes
//! they need, ordered by size. Claims with a selector are found through one of the label pairs it
//! requires, the least crowded one; claims with equal selectors share a queue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bitts_api::machine::Place;
use bitts_api::{AccessModes, Claim, ClassName, LabelSelector, Quantity, Volume};

use crate::matching::{Shelf, created, first_name};

/// A label key and its value.
type Pair = (Box<str>, Box<str>);

/// Claims that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitingClaims {
    entries: BTreeMap<Place, Entry>,
    by_class: BTreeSet<(Option<ClassName>, Place)>,
    shelves: BTreeMap<Shelf, Waiters>,
}

#[derive(Clone, Debug)]
struct Entry {
    class: Option<ClassName>,
    seat: Option<Seat>,
}

/// Where on a shelf a claim waits.
#[derive(Clone, Debug)]
struct Seat {
    shelf: Shelf,
    selector: Option<(Option<Pair>, LabelSelector)>,
    modes: AccessModes,
    turn: Turn,
}

/// The order in which claims are served: the one that wastes least of a volume, then the oldest,
/// then by place. The last is served first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    request: Quantity,
    older: Reverse<(i64, Place)>,
}

#[derive(Clone, Debug, Default)]
struct Waiters {
    plain: Queue,
    /// By a label pair that the selector requires.
    by_pair: BTreeMap<Pair, BTreeMap<LabelSelector, Queue>>,
    /// Selectors that require no pair.
    loose: BTreeMap<LabelSelector, Queue>,
}

#[derive(Clone, Debug, Default)]
struct Queue(BTreeMap<AccessModes, BTreeSet<Turn>>);

impl Queue {
    fn insert(&mut self, modes: AccessModes, turn: Turn) {
        self.0.entry(modes).or_default().insert(turn);
    }

    /// Takes a claim out; returns whether nobody is left.
    fn remove(&mut self, modes: AccessModes, turn: &Turn) -> bool {
        if let Some(turns) = self.0.get_mut(&modes) {
            turns.remove(turn);
            if turns.is_empty() {
                self.0.remove(&modes);
            }
        }
        self.0.is_empty()
    }

    /// The claim that a volume of these modes and this capacity serves first.
    fn first(&self, modes: AccessModes, capacity: Quantity) -> Option<&Turn> {
        let most = Turn {
            request: capacity,
            older: Reverse((i64::MIN, (None, first_name()))),
        };
        self.0
            .iter()
            .filter(|(asked, _)| modes.contains_all(**asked))
            .filter_map(|(_, turns)| turns.range(..=&most).next_back())
            .max()
    }
}

impl WaitingClaims {
    pub(crate) fn contains(&self, place: &Place) -> bool {
        self.entries.contains_key(place)
    }

    /// Adds a claim. `any_volume`: a free volume that matches is for it; otherwise it waits for
    /// something else, and only a change of its class wakes it here.
    pub(crate) fn insert(&mut self, claim: &Claim, any_volume: bool) {
        let place = claim.meta.place();
        self.remove(&place);
        let seat = claim
            .request
            .filter(|_| any_volume)
            .map(|request| self.seat(claim, request));
        self.by_class.insert((claim.class.clone(), place.clone()));
        let class = claim.class.clone();
        self.entries.insert(place, Entry { class, seat });
    }

    fn seat(&mut self, claim: &Claim, request: Quantity) -> Seat {
        let shelf = Shelf::of_claim(claim);
        let turn = Turn {
            request,
            older: Reverse((created(&claim.meta), claim.meta.place())),
        };
        let waiters = self.shelves.entry(shelf.clone()).or_default();
        let mut chosen = None;
        let queue = match claim.selector.as_deref() {
            None => &mut waiters.plain,
            Some(selector) => {
                let pair = selector
                    .required_pairs()
                    .map(|(key, value)| Pair::from((key.into(), value.into())))
                    .min_by_key(|pair| waiters.by_pair.get(pair).map_or(0, BTreeMap::len));
                chosen = Some((pair.clone(), selector.clone()));
                let queues = match pair {
                    Some(pair) => waiters.by_pair.entry(pair).or_default(),
                    None => &mut waiters.loose,
                };
                queues.entry(selector.clone()).or_default()
            }
        };
        queue.insert(claim.access_modes, turn.clone());
        Seat {
            shelf,
            selector: chosen,
            modes: claim.access_modes,
            turn,
        }
    }

    pub(crate) fn remove(&mut self, place: &Place) {
        let Some(entry) = self.entries.remove(place) else {
            return;
        };
        self.by_class.remove(&(entry.class, place.clone()));
        if let Some(seat) = entry.seat {
            self.leave(&seat);
        }
    }

    fn leave(&mut self, seat: &Seat) {
        let Some(waiters) = self.shelves.get_mut(&seat.shelf) else {
            return;
        };
        match &seat.selector {
            None => {
                waiters.plain.remove(seat.modes, &seat.turn);
            }
            Some((None, selector)) => leave(&mut waiters.loose, selector, seat),
            Some((Some(pair), selector)) => {
                if let Some(queues) = waiters.by_pair.get_mut(pair) {
                    leave(queues, selector, seat);
                    if queues.is_empty() {
                        waiters.by_pair.remove(pair);
                    }
                }
            }
        }
        if waiters.plain.0.is_empty() && waiters.by_pair.is_empty() && waiters.loose.is_empty() {
            self.shelves.remove(&seat.shelf);
        }
    }

    /// The claim that a free volume serves first.
    pub(crate) fn first_for(&self, volume: &Volume) -> Option<Place> {
        let capacity = volume.capacity?;
        let labels = &volume.meta.labels;
        let waiters = self.shelves.get(&Shelf::of_volume(volume))?;
        let by_pair = (!waiters.by_pair.is_empty())
            .then(|| labels.iter())
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| waiters.by_pair.get(&(key.into(), value.into())))
            .flatten();
        by_pair
            .chain(&waiters.loose)
            .filter(|(selector, _)| selector.matches(labels))
            .map(|(_, queue)| queue)
            .chain([&waiters.plain])
            .filter_map(|queue| queue.first(volume.access_modes, capacity))
            .max()
            .map(|turn| turn.older.0.1.clone())
    }

    /// The claims of a class, or of none.
    pub(crate) fn of_class(&self, class: Option<&ClassName>) -> impl Iterator<Item = &Place> {
        self.by_class
            .range((class.cloned(), (None, first_name()))..)
            .take_while(move |(c, _)| c.as_ref() == class)
            .map(|(_, place)| place)
    }
}

fn leave(queues: &mut BTreeMap<LabelSelector, Queue>, selector: &LabelSelector, seat: &Seat) {
    if let Some(queue) = queues.get_mut(selector)
        && queue.remove(seat.modes, &seat.turn)
    {
        queues.remove(selector);
    }
}
