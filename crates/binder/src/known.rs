//! What the binder knows of the cluster, and the indexes that lead from one object to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitts_api::machine::{Cache, Change, Inventory, Place};
use bitts_api::{
    AttributesClass, Claim, ClassName, Kind, Name, Namespace, Node, NodeName, Object, ObjectKey,
    Pod, Recent, ReclaimPolicy, StorageClass, Uid, Volume, VolumePhase, names,
};

use crate::census::Census;
use crate::looks::Versions;
use crate::matching::{FreeVolumes, created, first_name};
use crate::recycle;

/// Caches and indexes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    volumes: Cache<Volume>,
    claims: Cache<Claim>,
    classes: Cache<StorageClass>,
    attributes_classes: Cache<AttributesClass>,
    nodes: Cache<Node>,
    pub(crate) census: Census,
    pods: Cache<Pod>,
    /// The volumes on offer; which they are is up to the [`crate::Binder`].
    pub(crate) free: FreeVolumes,
    /// Volumes that are being marked Available.
    pub(crate) coming: FreeVolumes,
    /// Claims (by place) and the volumes whose claimRef names them.
    reserved: BTreeSet<(Namespace, Name, Name)>,
    /// Volumes and the claims that name them.
    naming: BTreeSet<(Name, Place)>,
    /// Claims (by place) and the pods that use them.
    users: BTreeSet<(Place, Name)>,
    /// Claims that were seen here and went before they were completely bound.
    went_unbound: Recent<Uid, 10_000>,
    /// Volumes that wait to be wiped.
    to_recycle: BTreeSet<Name>,
    /// How often volumes and claims name each VolumeAttributesClass.
    attributes_users: BTreeMap<ClassName, usize>,
    /// The newest versions that were known since the last lists.
    newest: Versions,
}

/// What has to be decided again after something changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) volumes: BTreeSet<Name>,
    pub(crate) claims: BTreeSet<Place>,
    /// Classes that appeared, changed or disappeared.
    pub(crate) classes: BTreeSet<ClassName>,
    pub(crate) attributes_classes: BTreeSet<ClassName>,
    /// Pods with volumes whose claims are made for them.
    pub(crate) pods: BTreeSet<Place>,
    /// Claims that pods began or ceased to refer to.
    pub(crate) uses: BTreeSet<Place>,
}

impl Known {
    /// The kinds that have to be known before anything is decided (B2).
    pub(crate) const KINDS: [Kind; 5] = [
        Kind::Volume,
        Kind::Claim,
        Kind::StorageClass,
        Kind::Pod,
        Kind::Node,
    ];

    pub(crate) fn all_listed(&self) -> bool {
        self.volumes.is_listed()
            && self.claims.is_listed()
            && self.classes.is_listed()
            && self.pods.is_listed()
            && self.nodes.is_listed()
    }

    pub(crate) fn volume(&self, name: &Name) -> Option<&Arc<Volume>> {
        self.volumes.get(&(None, name.clone()))
    }

    pub(crate) fn all_volumes(&self) -> impl Iterator<Item = &Arc<Volume>> {
        self.volumes.iter()
    }

    /// The volumes that are nobody's.
    pub(crate) fn offerable(&self) -> impl Iterator<Item = &Arc<Volume>> {
        self.all_volumes().filter(|v| self.is_offerable(v))
    }

    /// Whether the volume is nobody's.
    pub(crate) fn is_offerable(&self, volume: &Volume) -> bool {
        FreeVolumes::is_free(volume) && self.rightful(volume).is_none()
    }

    /// Whose the volume is though its claimRef was cleared: a claim that was completely bound to
    /// it, and binds it again (B18).
    pub(crate) fn rightful(&self, volume: &Volume) -> Option<&Arc<Claim>> {
        let cleared = volume.claim_ref.is_none();
        let naming = cleared.then(|| self.naming(&volume.meta.name));
        let mut claims = naming.into_iter().flatten().filter_map(|p| self.claim(p));
        claims.find(|claim| claim.bind_completed())
    }

    pub(crate) fn claim(&self, place: &Place) -> Option<&Arc<Claim>> {
        self.claims.get(place)
    }

    pub(crate) fn pod(&self, place: &Place) -> Option<&Arc<Pod>> {
        self.pods.get(place)
    }

    pub(crate) fn attributes_class(&self, name: &ClassName) -> Option<&Arc<AttributesClass>> {
        self.attributes_classes.get(&(None, name.as_str().into()))
    }

    /// Whether a volume or claim names the attributes class (X8).
    pub(crate) fn is_attributes_class_used(&self, name: &ClassName) -> bool {
        self.attributes_users.contains_key(name)
    }

    pub(crate) fn class(&self, name: &ClassName) -> Option<&Arc<StorageClass>> {
        self.classes.get(&(None, name.as_str().into()))
    }

    /// The newest versions of claims and volumes that are known.
    pub(crate) fn newest(&self) -> Versions {
        self.newest
    }

    /// The default class: the newest, then by name (B10.1).
    pub(crate) fn default_class(&self) -> Option<ClassName> {
        self.classes
            .iter()
            .filter(|class| class.is_default())
            .max_by_key(|class| {
                let age = created(&class.meta);
                (age, std::cmp::Reverse(class.meta.name.clone()))
            })
            .map(|class| class.meta.name.as_str().into())
    }

    /// The volumes whose claimRef names this place, whatever uid it has.
    pub(crate) fn reserved_for(&self, place: &Place) -> impl Iterator<Item = &Arc<Volume>> {
        let range = place.0.as_ref().map(|namespace| {
            self.reserved
                .range((namespace.clone(), place.1.clone(), first_name())..)
                .take_while(move |(n, c, _)| n == namespace && *c == place.1)
        });
        range
            .into_iter()
            .flatten()
            .filter_map(|(_, _, volume)| self.volume(volume))
    }

    /// The claims whose spec names this volume.
    pub(crate) fn naming(&self, volume: &Name) -> impl Iterator<Item = &Place> {
        self.naming
            .range((volume.clone(), (None, first_name()))..)
            .take_while(move |(name, _)| name == volume)
            .map(|(_, place)| place)
    }

    /// The pods that use the claim, still may run and have no node yet (B10.2).
    pub(crate) fn pods_without_node(&self, claim: &Place) -> Vec<Name> {
        self.users_of(claim)
            .filter(|pod| pod.node.is_none() && !pod.is_terminated())
            .map(|pod| pod.meta.name.clone())
            .collect()
    }

    /// Whether a scheduled pod refers to the claim, whatever its phase (X3).
    pub(crate) fn is_used(&self, claim: &Place) -> bool {
        self.users_of(claim).any(|pod| pod.holds(&claim.1))
    }

    /// Whether a pod refers to the claim whose containers may still run, or are to; scheduled or
    /// not (X5).
    pub(crate) fn is_referred_to(&self, claim: &Place) -> bool {
        self.users_of(claim).any(|pod| refers(pod))
    }

    /// The pods for which a claim of this place is made, if any.
    pub(crate) fn makers_of(&self, claim: &Place) -> Vec<Arc<Pod>> {
        self.users_of(claim)
            .filter(|pod| pod.claim_templates.iter().any(|t| t.claim == claim.1))
            .cloned()
            .collect()
    }

    /// Whether the claim that the volume belongs to names it in turn.
    pub(crate) fn is_named_by_its_claim(&self, volume: &Volume) -> bool {
        volume.claim_ref.as_ref().is_some_and(|r| {
            let claim = self.claim(&(Some(r.namespace.clone()), r.name.clone()));
            claim.is_some_and(|claim| {
                r.uid.as_ref() == Some(&claim.meta.uid)
                    && claim.volume_name.as_ref() == Some(&volume.meta.name)
            })
        })
    }

    /// Whether some node can reach the volume.
    pub(crate) fn is_reachable(&self, volume: &Volume) -> bool {
        let affinity = volume.node_affinity.as_ref();
        affinity.is_none() || self.nodes.iter().any(|node| node.fits(affinity))
    }

    /// Whether the claim was seen here and went before it was completely bound: the evidence that a
    /// new volume with its uid was made for it here, not restored from elsewhere.
    pub(crate) fn went_unbound(&self, claim: &Uid) -> bool {
        self.went_unbound.contains(claim)
    }

    /// The pods that use the claim and still may run (D8).
    pub(crate) fn pods_that_may_run(&self, claim: &Place) -> Vec<Name> {
        self.users_of(claim)
            .filter(|pod| !pod.is_terminated())
            .map(|pod| pod.meta.name.clone())
            .collect()
    }

    /// The nodes that can reach the volume and have an agent that recycles, in order.
    pub(crate) fn recyclers_for(&self, volume: &Volume) -> Vec<NodeName> {
        self.nodes
            .iter()
            .filter(|node| node.meta.annotations.has(names::RECYCLER))
            .filter(|node| node.fits(volume.node_affinity.as_ref()))
            .map(|node| node.meta.name.as_str().into())
            .collect()
    }

    fn users_of(&self, claim: &Place) -> impl Iterator<Item = &Arc<Pod>> {
        self.users
            .range((claim.clone(), first_name())..)
            .take_while(move |(place, _)| place == claim)
            .filter_map(|(place, pod)| self.pods.get(&(place.0.clone(), pod.clone())))
    }

    /// Indexes the labels that the claim's selector asks for.
    pub(crate) fn prepare(&mut self, claim: &Claim) {
        if let Some(selector) = &claim.selector {
            self.free.index_labels(selector);
            self.coming.index_labels(selector);
        }
    }

    /// Takes in all objects of a kind.
    pub(crate) fn list(&mut self, kind: Kind, objects: Vec<Object>, dirty: &mut Dirty) {
        let newest = objects.iter().map(Object::resource_version).max();
        match kind {
            Kind::Volume => self.newest.volume = newest.unwrap_or_default(),
            Kind::Claim => self.newest.claim = newest.unwrap_or_default(),
            _ => {}
        }
        macro_rules! replace {
            ($variant:ident, $cache:ident, $changed:ident) => {{
                let all = objects.into_iter().filter_map(|object| match object {
                    Object::$variant(object) => Some(object),
                    _ => None,
                });
                for change in self.$cache.replace(all) {
                    self.$changed(change, dirty);
                }
            }};
        }
        match kind {
            Kind::Volume => replace!(Volume, volumes, volume_changed),
            Kind::Claim => replace!(Claim, claims, claim_changed),
            Kind::StorageClass => replace!(StorageClass, classes, class_changed),
            Kind::AttributesClass => {
                replace!(
                    AttributesClass,
                    attributes_classes,
                    attributes_class_changed
                )
            }
            Kind::Pod => replace!(Pod, pods, pod_changed),
            Kind::Node => replace!(Node, nodes, node_changed),
            Kind::Attachment | Kind::CsiDriver | Kind::CsiNode | Kind::StorageCapacity => {}
        }
    }

    /// Which objects of a kind are known, in which versions.
    pub(crate) fn inventory(&self, kind: Kind) -> Option<Inventory> {
        match kind {
            Kind::Volume => self.volumes.inventory(),
            Kind::Claim => self.claims.inventory(),
            Kind::StorageClass => self.classes.inventory(),
            Kind::AttributesClass => self.attributes_classes.inventory(),
            Kind::Pod => self.pods.inventory(),
            Kind::Node => self.nodes.inventory(),
            Kind::Attachment | Kind::CsiDriver | Kind::CsiNode | Kind::StorageCapacity => None,
        }
    }

    /// Takes in an object as it is now.
    pub(crate) fn see(&mut self, object: Object, dirty: &mut Dirty) {
        macro_rules! see {
            ($cache:ident, $object:ident, $changed:ident) => {
                for change in self.$cache.see($object) {
                    self.$changed(change, dirty);
                }
            };
        }
        match object {
            Object::Volume(volume) => see!(volumes, volume, volume_changed),
            Object::Claim(claim) => see!(claims, claim, claim_changed),
            Object::StorageClass(class) => see!(classes, class, class_changed),
            Object::AttributesClass(class) => {
                see!(attributes_classes, class, attributes_class_changed);
            }
            Object::Pod(pod) => see!(pods, pod, pod_changed),
            Object::Node(node) => see!(nodes, node, node_changed),
            Object::Attachment(_)
            | Object::CsiDriver(_)
            | Object::CsiNode(_)
            | Object::StorageCapacity(_) => {}
        }
    }

    /// Takes in that an object is no more.
    pub(crate) fn remove(&mut self, key: &ObjectKey, uid: &Uid, dirty: &mut Dirty) {
        let place = (key.namespace.clone(), key.name.clone());
        macro_rules! remove {
            ($cache:ident, $changed:ident) => {
                if let Some(change) = self.$cache.remove(&place, uid) {
                    self.$changed(change, dirty);
                }
            };
        }
        match key.kind {
            Kind::Volume => remove!(volumes, volume_changed),
            Kind::Claim => remove!(claims, claim_changed),
            Kind::StorageClass => remove!(classes, class_changed),
            Kind::AttributesClass => remove!(attributes_classes, attributes_class_changed),
            Kind::Pod => remove!(pods, pod_changed),
            Kind::Node => remove!(nodes, node_changed),
            Kind::Attachment | Kind::CsiDriver | Kind::CsiNode | Kind::StorageCapacity => {}
        }
    }

    fn volume_changed(&mut self, change: Change<Volume>, dirty: &mut Dirty) {
        let (old, new) = sides(change);
        self.census.volume(old.as_deref(), new.as_deref());
        let version = new.as_ref().map(|v| v.meta.resource_version);
        self.newest.volume = self.newest.volume.max(version.unwrap_or_default());
        let reservation = |volume: &Volume| {
            let r = volume.claim_ref.as_ref()?;
            Some((
                r.namespace.clone(),
                r.name.clone(),
                volume.meta.name.clone(),
            ))
        };
        self.attributes_named(
            old.iter().flat_map(|v| &v.attributes_class),
            new.iter().flat_map(|v| &v.attributes_class),
            dirty,
        );
        let before = old.as_deref().and_then(reservation);
        let after = new.as_deref().and_then(reservation);
        for (namespace, claim, _) in before.iter().chain(&after) {
            dirty
                .claims
                .insert((Some(namespace.clone()), claim.clone()));
        }
        if before != after {
            before.map(|r| self.reserved.remove(&r));
            after.map(|r| self.reserved.insert(r));
        }
        if let Some(volume) = new.as_ref().or(old.as_ref()) {
            let name = &volume.meta.name;
            dirty.claims.extend(self.naming(name).cloned());
            dirty.volumes.insert(name.clone());
            if new.is_none() {
                self.free.remove(name);
            }
            if new.as_deref().is_some_and(is_to_be_recycled) {
                self.to_recycle.insert(name.clone());
            } else {
                self.to_recycle.remove(name);
            }
            // A wipe is only right while it touches no other volume's data.
            if old.is_none() || new.is_none() {
                let others = self.to_recycle.iter().filter_map(|name| self.volume(name));
                let touched = others.filter(|other| recycle::overlap(other, volume));
                let touched: Vec<_> = touched.map(|v| v.meta.name.clone()).collect();
                dirty.volumes.extend(touched);
            }
        }
    }

    fn claim_changed(&mut self, change: Change<Claim>, dirty: &mut Dirty) {
        let (old, new) = sides(change);
        self.census.claim(old.as_deref(), new.as_deref());
        let version = new.as_ref().map(|c| c.meta.resource_version);
        self.newest.claim = self.newest.claim.max(version.unwrap_or_default());
        self.attributes_named(
            old.iter().flat_map(|c| c.attributes_classes()),
            new.iter().flat_map(|c| c.attributes_classes()),
            dirty,
        );
        let named = |claim: &Option<Arc<Claim>>| claim.as_ref()?.volume_name.clone();
        let (before, after) = (named(&old), named(&new));
        let Some(claim) = new.as_ref().or(old.as_ref()) else {
            return;
        };
        let place = claim.meta.place();
        if old.is_none() || new.is_none() {
            let makers = self.makers_of(&place);
            dirty.pods.extend(makers.iter().map(|p| p.meta.place()));
        }
        let reserved = self.reserved_for(&place).map(|v| v.meta.name.clone());
        dirty.volumes.extend(reserved);
        dirty.volumes.extend(before.iter().chain(&after).cloned());
        if before != after {
            before.map(|name| self.naming.remove(&(name, place.clone())));
            after.map(|name| self.naming.insert((name, place.clone())));
        }
        dirty.claims.insert(place);
        let completed =
            |claim: &Option<Arc<Claim>>| claim.as_ref().is_some_and(|c| c.bind_completed());
        if completed(&old) && !completed(&new) {
            // Others that name the volume may have waited behind it.
            let name = old.as_ref().and_then(|c| c.volume_name.clone());
            let others = name.iter().flat_map(|name| self.naming(name));
            dirty.claims.extend(others.cloned());
        }
        if let (Some(old), None) = (old, new)
            && !old.bind_completed()
        {
            self.went_unbound.insert(old.meta.uid.clone());
        }
    }

    fn class_changed(&mut self, change: Change<StorageClass>, dirty: &mut Dirty) {
        let (old, new) = sides(change);
        let facts = |class: &StorageClass| {
            (
                class.provisioner.clone(),
                class.binding_mode,
                class.is_default(),
            )
        };
        if old.as_deref().map(facts) != new.as_deref().map(facts) {
            let class = new.as_ref().or(old.as_ref());
            dirty
                .classes
                .extend(class.map(|c| c.meta.name.as_str().into()));
        }
    }

    fn node_changed(&mut self, change: Change<Node>, dirty: &mut Dirty) {
        let (old, new) = sides(change);
        // What it can reach comes from its labels.
        let offers = |node: &Option<Arc<Node>>| {
            let node = node.as_ref()?;
            let recycles = node.meta.annotations.has(names::RECYCLER);
            recycles.then(|| node.meta.labels.clone())
        };
        if offers(&old) != offers(&new) {
            dirty.volumes.extend(self.to_recycle.iter().cloned());
        }
    }

    fn attributes_class_changed(&mut self, change: Change<AttributesClass>, dirty: &mut Dirty) {
        let (old, new) = sides(change);
        let class = new.as_ref().or(old.as_ref());
        dirty
            .attributes_classes
            .extend(class.map(|c| c.meta.name.as_str().into()));
    }

    /// Counts who names attributes classes; a class that nobody names any more may go (X8).
    fn attributes_named<'a>(
        &mut self,
        before: impl Iterator<Item = &'a ClassName>,
        after: impl Iterator<Item = &'a ClassName>,
        dirty: &mut Dirty,
    ) {
        for class in after {
            *self.attributes_users.entry(class.clone()).or_default() += 1;
        }
        for class in before {
            let users = self.attributes_users.get_mut(class);
            let left = users.map_or(0, |users| {
                *users = users.saturating_sub(1);
                *users
            });
            if left == 0 {
                self.attributes_users.remove(class);
                dirty.attributes_classes.insert(class.clone());
            }
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>, dirty: &mut Dirty) {
        let (old, new) = sides(change);
        if let Some(pod) = new.as_ref().or(old.as_ref())
            && !pod.claim_templates.is_empty()
        {
            dirty.pods.insert(pod.meta.place());
        }
        // A pod's claims never change.
        if old.as_deref().is_some_and(refers) != new.as_deref().is_some_and(refers) {
            let pod = old.iter().chain(&new).next();
            let claims = pod.into_iter().flat_map(|pod| {
                pod.claims()
                    .map(|claim| (pod.meta.namespace.clone(), claim.clone()))
            });
            dirty.uses.extend(claims);
        }
        for (pod, is_now) in [(old, false), (new, true)] {
            let Some(pod) = pod else { continue };
            for claim in pod.claims() {
                let place = (pod.meta.namespace.clone(), claim.clone());
                let user = (place.clone(), pod.meta.name.clone());
                if is_now {
                    self.users.insert(user);
                } else {
                    self.users.remove(&user);
                }
                let waits =
                    |claim: &Arc<Claim>| !claim.bind_completed() || claim.meta.is_deleting();
                let released = self.reserved_for(&place).filter(|v| is_to_be_recycled(v));
                let released: Vec<_> = released.map(|v| v.meta.name.clone()).collect();
                dirty.volumes.extend(released);
                if self.claim(&place).is_some_and(waits) {
                    dirty.claims.insert(place);
                }
            }
        }
    }
}

/// Whether the volume waits until pods end or an agent comes (D8).
pub(crate) fn is_to_be_recycled(volume: &Volume) -> bool {
    volume.reclaim_policy == ReclaimPolicy::Recycle
        && matches!(volume.phase, VolumePhase::Released | VolumePhase::Failed)
}

/// Whether the pod may still use what it refers to, or is to begin to.
fn refers(pod: &Pod) -> bool {
    !pod.is_terminated()
}

/// What was known before and what is known now.
fn sides<T>(change: Change<T>) -> (Option<Arc<T>>, Option<Arc<T>>) {
    match change {
        Change::Set { old, new } => (old, Some(new)),
        Change::Removed(old) => (Some(old), None),
    }
}
