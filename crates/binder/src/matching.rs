//! Which volumes are free, kept so that the best one for a claim is looked up, not searched for.
//!
//! Volumes that agree in class, volume mode and attributes class share a [`Shelf`]; on it they lie
//! in groups by access modes (B12), in each group by capacity, creation time and name. A claim
//! without a selector costs one seek. One with a selector costs a walk over the ranks that carry
//! all of its label pairs at once: label keys are indexed when the first selector asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, LazyLock};

use bitts_api::{
    AccessModes, Claim, ClassName, LabelSelector, Labels, Meta, Name, Quantity, Volume, VolumeMode,
    VolumePhase,
};

use crate::reason::Misfit;

/// What must be equal on both sides before size, modes and labels are looked at (B13.4, 5, 12).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shelf {
    class: Option<ClassName>,
    attributes_class: Option<ClassName>,
    volume_mode: VolumeMode,
}

impl Shelf {
    pub(crate) fn of_volume(volume: &Volume) -> Self {
        Self {
            class: volume.class.clone(),
            attributes_class: volume.attributes_class.clone(),
            volume_mode: volume.volume_mode,
        }
    }

    pub(crate) fn of_claim(claim: &Claim) -> Self {
        Self {
            class: claim.class.clone(),
            attributes_class: claim.attributes_class.clone(),
            volume_mode: claim.volume_mode,
        }
    }
}

/// Why a volume cannot be given to a claim that has no say in which one it gets; `None` when it
/// can. `delayed`: the claim waits for its first consumer, so only a volume reserved for it will do.
#[must_use]
pub fn misfit(volume: &Volume, claim: &Claim, delayed: bool) -> Option<Misfit> {
    misfits(volume, claim, delayed).next()
}

/// Every reason, the first being [`misfit`].
pub(crate) fn misfits(
    volume: &Volume,
    claim: &Claim,
    delayed: bool,
) -> impl Iterator<Item = Misfit> {
    let reserved = volume.is_for(claim);
    let free = !reserved; // B13.8: what is reserved has been chosen
    let sized = volume.capacity.is_some();
    // A request beyond what can be expressed is more than any volume holds.
    let small = claim.request.is_none() || volume.capacity < claim.request;
    let modes = volume.access_modes.contains_all(claim.access_modes);
    let available = volume.phase == VolumePhase::Available;
    held(&[
        (free && volume.claim_ref.is_some(), Misfit::Taken),
        // What no claim overlooks, not even one that the volume is reserved for (B12, B13.3 to 6).
        (volume.meta.is_deleting(), Misfit::Deleting),
        (volume.volume_mode != claim.volume_mode, Misfit::VolumeMode),
        (!modes, Misfit::AccessModes),
        (
            volume.attributes_class != claim.attributes_class,
            Misfit::AttributesClass,
        ),
        (!sized, Misfit::NoCapacity),
        (sized && small, Misfit::TooSmall),
        (free && delayed, Misfit::Delayed),
        (free && !available, Misfit::NotAvailable),
        (free && volume.class != claim.class, Misfit::Class),
        (
            free && !selects(claim.selector.as_deref(), &volume.meta.labels),
            Misfit::Selector,
        ),
    ])
}

/// Why a volume that the claim names, and that is nobody's, cannot be bound to it (B16): its
/// selector and the volume's phase do not count.
pub(crate) fn named_misfit(volume: &Volume, claim: &Claim) -> Option<Misfit> {
    named_misfits(volume, claim).next()
}

/// Every reason, the first being [`named_misfit`].
pub(crate) fn named_misfits(volume: &Volume, claim: &Claim) -> impl Iterator<Item = Misfit> {
    let size = |quantity: Option<Quantity>| quantity.map(Quantity::value);
    let sized = volume.capacity.is_some();
    let small = claim.request.is_none() || size(volume.capacity) < size(claim.request);
    let modes = volume.access_modes.contains_all(claim.access_modes);
    held(&[
        (volume.meta.is_deleting(), Misfit::Deleting),
        (!sized, Misfit::NoCapacity),
        (sized && small, Misfit::TooSmall),
        (volume.class != claim.class, Misfit::Class),
        (
            volume.attributes_class != claim.attributes_class,
            Misfit::AttributesClass,
        ),
        (volume.volume_mode != claim.volume_mode, Misfit::VolumeMode),
        (!modes, Misfit::AccessModes),
    ])
}

/// Those that are true, in order.
fn held<const N: usize>(all: &[(bool, Misfit); N]) -> impl Iterator<Item = Misfit> + use<N> {
    let all = *all;
    all.into_iter()
        .filter_map(|(holds, misfit)| holds.then_some(misfit))
}

pub(crate) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_none_or(|s| s.matches(labels))
}

/// The order in which equally suitable volumes are taken: the smallest, then the oldest, then by
/// name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    capacity: Quantity,
    created: i64,
    name: Name,
}

impl Rank {
    fn of(volume: &Volume) -> Option<Self> {
        Some(Self {
            capacity: volume.capacity?,
            created: created(&volume.meta),
            name: volume.meta.name.clone(),
        })
    }

    /// Before every volume of this capacity.
    fn first(capacity: Quantity) -> Self {
        Self {
            capacity,
            created: i64::MIN,
            name: first_name(),
        }
    }
}

/// A creation time for ordering; an object without one counts as the oldest.
pub(crate) fn created(meta: &Meta) -> i64 {
    meta.creation_timestamp.map_or(i64::MIN, |t| t.as_second())
}

/// Volumes of one shelf with the same access modes.
#[derive(Clone, Debug, Default)]
struct Group {
    ranks: BTreeSet<Rank>,
    labelled: BTreeMap<Box<str>, BTreeSet<(Arc<str>, Rank)>>,
}

impl Group {
    fn insert_label(&mut self, key: &str, value: &str, rank: &Rank) {
        if !self.labelled.contains_key(key) {
            self.labelled.insert(key.into(), BTreeSet::new());
        }
        let Some(ranks) = self.labelled.get_mut(key) else {
            return;
        };
        // Equal values share their bytes: the neighbour in the order has the same one, if any has.
        let mut probe = (Arc::<str>::from(value), rank.clone());
        if let Some((known, _)) = ranks.range(&probe..).next()
            && **known == *value
        {
            probe.0 = known.clone();
        } else if let Some((known, _)) = ranks.range(..&probe).next_back()
            && **known == *value
        {
            probe.0 = known.clone();
        }
        ranks.insert(probe);
    }

    /// The ranks from `least` on that carry every one of `pairs`, in order. A walk over several
    /// ordered sets at once: each is asked for its first rank that is not before the others'.
    fn labelled<'a>(
        &'a self,
        pairs: &[(&str, &str)],
        least: Rank,
    ) -> impl Iterator<Item = Rank> + use<'a> {
        let sets: Option<Vec<_>> = pairs
            .iter()
            .map(|(key, value)| Some((self.labelled.get(*key)?, Arc::<str>::from(*value))))
            .collect();
        let mut from = Some(Bound::Included(least));
        std::iter::from_fn(move || {
            let sets = sets.as_ref()?;
            let mut bound = from.take()?;
            let mut agreed = 0;
            let mut turn = 0;
            loop {
                let (set, value) = &sets[turn];
                let low = match &bound {
                    Bound::Excluded(rank) => Bound::Excluded((value.clone(), rank.clone())),
                    Bound::Included(rank) => Bound::Included((value.clone(), rank.clone())),
                    Bound::Unbounded => Bound::Unbounded,
                };
                let (found, rank) = set.range((low, Bound::Unbounded)).next()?;
                if found != value {
                    return None;
                }
                agreed = match &bound {
                    Bound::Included(at) if at == rank => agreed + 1,
                    _ => 1,
                };
                if agreed == sets.len() {
                    from = Some(Bound::Excluded(rank.clone()));
                    return Some(rank.clone());
                }
                bound = Bound::Included(rank.clone());
                turn = (turn + 1) % sets.len();
            }
        })
    }
}

/// Groups of one shelf, those with fewer modes first.
type Groups = BTreeMap<(u32, AccessModes), Group>;

/// The volumes that a claim without a preference may be given.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreeVolumes {
    volumes: BTreeMap<Name, Arc<Volume>>,
    shelves: BTreeMap<Shelf, Groups>,
    /// How many free volumes carry a label key.
    carried: BTreeMap<Box<str>, usize>,
    /// The label keys that are indexed.
    indexed: BTreeSet<Box<str>>,
}

impl FreeVolumes {
    /// Whether the volume as such may be offered: nobody's, available, and staying.
    pub(crate) fn is_free(volume: &Volume) -> bool {
        volume.claim_ref.is_none()
            && volume.phase == VolumePhase::Available
            && !volume.meta.is_deleting()
            && volume.capacity.is_some()
    }

    pub(crate) fn get(&self, name: &Name) -> Option<&Arc<Volume>> {
        self.volumes.get(name)
    }

    /// Adds a volume, or replaces what was known of it.
    pub(crate) fn insert(&mut self, volume: Arc<Volume>) {
        self.remove(&volume.meta.name);
        let Some(rank) = Rank::of(&volume) else {
            return;
        };
        let modes = volume.access_modes;
        let group = self
            .shelves
            .entry(Shelf::of_volume(&volume))
            .or_default()
            .entry((modes.len(), modes))
            .or_default();
        for (key, value) in volume.meta.labels.iter() {
            match self.carried.get_mut(key) {
                Some(count) => *count += 1,
                None => {
                    self.carried.insert(key.into(), 1);
                }
            }
            if self.indexed.contains(key) {
                group.insert_label(key, value, &rank);
            }
        }
        group.ranks.insert(rank);
        self.volumes.insert(volume.meta.name.clone(), volume);
    }

    /// Takes a volume away; returns whether it was free.
    pub(crate) fn remove(&mut self, name: &Name) -> bool {
        let Some(volume) = self.volumes.remove(name) else {
            return false;
        };
        let Some(rank) = Rank::of(&volume) else {
            return false;
        };
        let (shelf, modes) = (Shelf::of_volume(&volume), volume.access_modes);
        let place = (modes.len(), modes);
        let Some(groups) = self.shelves.get_mut(&shelf) else {
            return false;
        };
        let Some(group) = groups.get_mut(&place) else {
            return false;
        };
        group.ranks.remove(&rank);
        for (key, value) in volume.meta.labels.iter() {
            if let Some(count) = self.carried.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.carried.remove(key);
                }
            }
            if let Some(ranks) = group.labelled.get_mut(key) {
                ranks.remove(&(value.into(), rank.clone()));
                if ranks.is_empty() {
                    group.labelled.remove(key);
                }
            }
        }
        if group.ranks.is_empty() {
            groups.remove(&place);
            if groups.is_empty() {
                self.shelves.remove(&shelf);
            }
        }
        true
    }

    /// Indexes the label keys that the selector asks for, so that [`Self::best`] can use them. A
    /// key costs one pass over the free volumes, once, and only if a volume carries it.
    pub(crate) fn index_labels(&mut self, selector: &LabelSelector) {
        for (key, _) in selector.required_pairs() {
            if self.indexed.contains(key) || !self.carried.contains_key(key) {
                continue;
            }
            self.indexed.insert(key.into());
            for volume in self.volumes.values() {
                let (Some(value), Some(rank)) = (volume.meta.labels.get(key), Rank::of(volume))
                else {
                    continue;
                };
                if let Some(group) =
                    self.shelves
                        .get_mut(&Shelf::of_volume(volume))
                        .and_then(|groups| {
                            groups.get_mut(&(volume.access_modes.len(), volume.access_modes))
                        })
                {
                    group.insert_label(key, value, &rank);
                }
            }
        }
    }

    /// The volume that the claim gets: in the group with the fewest modes that has any, the
    /// smallest that is large enough (B12, B13).
    ///
    /// [`Self::index_labels`] must have been called for the claim's selector.
    pub(crate) fn best(&self, claim: &Claim) -> Option<&Arc<Volume>> {
        let least = Rank::first(claim.request?);
        let groups = self.shelves.get(&Shelf::of_claim(claim))?;
        groups
            .iter()
            .filter(|((_, modes), _)| modes.contains_all(claim.access_modes))
            .find_map(|(_, group)| self.best_in(group, claim.selector.as_deref(), &least))
    }

    fn best_in(
        &self,
        group: &Group,
        selector: Option<&LabelSelector>,
        least: &Rank,
    ) -> Option<&Arc<Volume>> {
        let Some(selector) = selector else {
            return self.volumes.get(&group.ranks.range(least..).next()?.name);
        };
        let fits = |name: &Name| {
            self.volumes
                .get(name)
                .filter(|volume| selector.matches(&volume.meta.labels))
        };
        let pairs: Vec<_> = selector.required_pairs().collect();
        if pairs.is_empty() {
            group.ranks.range(least..).find_map(|rank| fits(&rank.name))
        } else {
            group
                .labelled(&pairs, least.clone())
                .find_map(|rank| fits(&rank.name))
        }
    }
}

/// Before every other name, for looking up in sets of pairs. The hot path: one allocation for all.
pub(crate) fn first_name() -> Name {
    static FIRST: LazyLock<Name> = LazyLock::new(|| Name::from(""));
    FIRST.clone()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn a_volume() -> impl Strategy<Value = Volume> {
        let labels = prop::collection::btree_map("[ab]", "[xy]", 0..3);
        let all = (0..40u8, 1..6u8, 1..8u8, any::<bool>(), 0..8u8, labels);
        all.prop_map(|(name, size, modes, gold, rare, labels)| {
            let modes: Vec<_> = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| modes & (1 << bit) != 0)
                .map(|(_, mode)| mode)
                .collect();
            serde_json::from_value(json!({
                "metadata": {"name": format!("v{name}"), "labels": labels},
                "spec": {
                    "capacity": {"storage": format!("{size}Gi")},
                    "accessModes": modes,
                    "volumeMode": if rare == 0 { "Block" } else { "Filesystem" },
                    "storageClassName": if gold { "gold" } else { "" },
                    "volumeAttributesClassName": if rare == 1 { "fast" } else { "" },
                    "local": {"path": "/"},
                },
                "status": {"phase": "Available"},
            }))
            .unwrap()
        })
    }

    /// A claim asks for what some volume has, or a little less.
    fn a_claim() -> impl Strategy<Value = Claim> {
        let selector = prop::option::of(prop::collection::btree_map("[abc]", "[xy]", 0..3));
        let all = (a_volume(), selector, any::<bool>());
        all.prop_map(|(like, labels, not_x)| {
            let selector = labels.map(|labels| {
                let expression = json!({"key": "a", "operator": "NotIn", "values": ["x"]});
                let expressions = if not_x {
                    json!([expression])
                } else {
                    json!([])
                };
                json!({"matchLabels": labels, "matchExpressions": expressions})
            });
            serde_json::from_value(json!({
                "metadata": {"name": "c", "namespace": "default"},
                "spec": {
                    "resources": {"requests": {"storage": like.capacity}},
                    "accessModes": like.access_modes,
                    "volumeMode": like.volume_mode.as_str(),
                    "storageClassName": like.class,
                    "volumeAttributesClassName": like.attributes_class,
                    "selector": selector,
                },
            }))
            .unwrap()
        })
    }

    /// B12 and B13 word for word: every volume is looked at.
    fn by_scan<'a>(volumes: &'a BTreeMap<Name, Arc<Volume>>, claim: &Claim) -> Option<&'a Name> {
        let fitting = volumes
            .values()
            .filter(|v| misfit(v, claim, false).is_none());
        fitting
            .min_by_key(|v| (v.access_modes.len(), v.access_modes, Rank::of(v)))
            .map(|v| &v.meta.name)
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(
            volumes in prop::collection::vec((a_volume(), any::<bool>()), 0..60),
            claims in prop::collection::vec(a_claim(), 1..12),
        ) {
            let mut free = FreeVolumes::default();
            let mut all = BTreeMap::new();
            let mut claims = claims.iter().cycle();
            for (volume, stays) in volumes {
                let (name, volume) = (volume.meta.name.clone(), Arc::new(volume));
                if stays {
                    free.insert(volume.clone());
                    all.insert(name, volume);
                } else {
                    prop_assert_eq!(free.remove(&name), all.remove(&name).is_some());
                }
                // Label keys are indexed at whatever moment they are first asked for.
                let claim = claims.next().unwrap();
                if let Some(selector) = &claim.selector {
                    free.index_labels(selector);
                }
                let found = free.best(claim).map(|v| &v.meta.name);
                prop_assert_eq!(found, by_scan(&all, claim));
            }
            for name in all.keys() {
                prop_assert!(free.remove(name));
            }
            prop_assert!(free.shelves.is_empty() && free.carried.is_empty());
        }

        #[test]
        fn a_volume_finds_a_claim_exactly_when_one_fits(
            claims in prop::collection::vec(a_claim(), 0..40),
            volumes in prop::collection::vec(a_volume(), 1..12),
        ) {
            let mut waiting = crate::waiting::WaitingClaims::default();
            let mut all = BTreeMap::new();
            for (n, mut claim) in claims.into_iter().enumerate() {
                claim.meta.name = format!("c{n}").into();
                waiting.insert(&claim, true);
                all.insert(claim.meta.name.clone(), claim);
            }
            for volume in &volumes {
                loop {
                    let fitting = all.values().filter(|c| misfit(volume, c, false).is_none());
                    let largest = fitting.map(|c| c.request).max();
                    let first = waiting.first_for(volume);
                    prop_assert_eq!(first.as_ref().map(|p| all[&p.1].request), largest);
                    let Some(place) = first else { break };
                    prop_assert!(misfit(volume, &all[&place.1], false).is_none());
                    waiting.remove(&place);
                    all.remove(&place.1);
                }
            }
        }
    }
}
