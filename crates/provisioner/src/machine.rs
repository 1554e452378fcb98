//! Inputs in, effects out.

mod announcing;
mod capacity;
mod classes;
mod confirming;
mod copying;
mod growing;
mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitts_api::machine::{
    Cache, Change, Create, Destroy, Effect, Input, Machine, Measure, Moment, Outcome, Place,
    Reading, Scope, Target, Watch, Write,
};
use bitts_api::{
    Claim, Kind, Name, Node, Object, ObjectKey, Recent, ResourceVersion, Source, StorageClass, Uid,
    Volume, VolumePhase,
};

use crate::claim::{is_served, plan, waits_for_its_pod, wants};
use crate::options::{Ground, Options};
use crate::reason;
use crate::site::{Site, on_server};
use crate::task::{Alarm, Errand, Owner, Record, Reply, Report, Task};
use crate::unit::{Disk, Flight, Unit};
use crate::volume::{self, Wish, name_for};
use announcing::Slow;
use capacity::Room;
use confirming::Unconfirmed;
use copying::{Beginning, Copies};
use sites::Sites;

/// What is watched: of nodes, the own one only, if there is one.
const KINDS: [Kind; 4] = [Kind::Claim, Kind::Volume, Kind::StorageClass, Kind::Node];

/// How long until a scan that failed is tried again.
const SCAN_AGAIN: Duration = Duration::from_secs(10);

type Effects = Vec<Effect<Errand, Alarm>>;

/// The kinds that a provisioner watches.
pub(crate) fn kinds(options: &Options) -> impl Iterator<Item = Kind> {
    KINDS.into_iter().filter(|kind| options.watches(*kind))
}

/// The provisioner of a node, or of shares.
///
/// Everything is kept by the volume's name, which follows from the claim's uid: one unit has at
/// most one thing under way, and what comes next follows from its claim, its volume's object and what
/// the disk holds.
#[derive(Debug)]
pub struct Provisioner {
    options: Options,
    /// The claims that were handed to a provisioner of this kind, on whichever node.
    claims: Cache<Claim>,
    /// The volumes that were made here, and whatever has the name of one.
    volumes: Cache<Volume>,
    classes: Cache<StorageClass>,
    nodes: Cache<Node>,
    /// Where each claim is that asks for a volume from here, by the volume's name.
    places: BTreeMap<Name, Place>,
    copies: Copies,
    /// All claims there are: a volume's claim may have been replaced by one of its name.
    present: BTreeMap<Place, Uid>,
    units: BTreeMap<Name, Unit>,
    sites: Sites,
    room: Room,
    unconfirmed: Unconfirmed,
    slow: Slow,
    /// What was told of classes last, by their uids.
    told: BTreeMap<Uid, String>,
    /// For whom there is something on the disk.
    owners: BTreeMap<Name, Owner>,
    /// Volumes that were taken away: their claims were seen to be gone, whatever the watch still says.
    gone: Recent<Name, 4096>,
    dirty: BTreeSet<Name>,
    made: u64,
    removed: u64,
    out: Effects,
}

impl Provisioner {
    /// A provisioner that knows nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            claims: Cache::default(),
            volumes: Cache::default(),
            classes: Cache::default(),
            nodes: Cache::default(),
            places: BTreeMap::new(),
            copies: Copies::default(),
            present: BTreeMap::new(),
            units: BTreeMap::new(),
            sites: Sites::default(),
            room: Room::default(),
            unconfirmed: Unconfirmed::default(),
            slow: Slow::default(),
            told: BTreeMap::new(),
            owners: BTreeMap::new(),
            gone: Recent::default(),
            dirty: BTreeSet::new(),
            made: 0,
            removed: 0,
            out: Vec::new(),
        }
    }

    /// Nothing is decided before everything was seen (B2). So it is with each site: what was made for a
    /// claim must be known before anything is made for it.
    fn is_ready(&self) -> bool {
        self.claims.is_listed()
            && self.volumes.is_listed()
            && self.classes.is_listed()
            && (self.nodes.is_listed() || !self.options.watches(Kind::Node))
    }

    fn node(&self) -> Option<&Arc<Node>> {
        match &self.options.ground {
            Ground::Node(node) => self.nodes.get(&(None, node.as_str().into())),
            Ground::Shares => None,
        }
    }

    fn volume(&self, name: &Name) -> Option<&Arc<Volume>> {
        self.volumes.get(&(None, name.clone()))
    }

    fn claim(&self, name: &Name) -> Option<&Arc<Claim>> {
        self.claims.get(self.places.get(name)?)
    }

    fn class_of(&self, claim: &Claim) -> Option<&Arc<StorageClass>> {
        let class = claim.class.as_ref()?;
        self.classes.get(&(None, class.as_str().into()))
    }

    fn keeps(&self, object: &Object) -> bool {
        match object {
            Object::Claim(claim) => {
                is_served(claim, &self.options) || self.claims.get(&claim.meta.place()).is_some()
            }
            Object::Volume(volume) => {
                self.options.made(volume)
                    || self.units.contains_key(&volume.meta.name)
                    || self.volume(&volume.meta.name).is_some()
            }
            Object::StorageClass(_) | Object::StorageCapacity(_) => true,
            Object::Node(node) => {
                matches!(&self.options.ground, Ground::Node(own) if node.meta.name == *own.as_str())
            }
            Object::Pod(_)
            | Object::AttributesClass(_)
            | Object::Attachment(_)
            | Object::CsiDriver(_)
            | Object::CsiNode(_) => false,
        }
    }

    fn list(&mut self, kind: Kind, objects: Vec<Object>) {
        if kind == Kind::Claim {
            let all = objects.iter().map(|o| (o.meta().place(), o.uid().clone()));
            self.present = all.collect();
        }
        let kept: Vec<Object> = objects.into_iter().filter(|o| self.keeps(o)).collect();
        match kind {
            Kind::Claim => {
                let list = kept.into_iter().filter_map(claim_in).collect::<Vec<_>>();
                let changes = self.claims.replace(list);
                changes.into_iter().for_each(|c| self.claim_changed(c));
            }
            Kind::Volume => {
                let list = kept.into_iter().filter_map(volume_in).collect::<Vec<_>>();
                let changes = self.volumes.replace(list);
                changes.into_iter().for_each(|c| self.volume_changed(&c));
            }
            Kind::StorageClass => {
                let list = kept.into_iter().filter_map(class_in).collect::<Vec<_>>();
                if !self.classes.replace(list).is_empty() {
                    self.look_at_classes();
                }
            }
            Kind::Node => {
                let list = kept.into_iter().filter_map(node_in).collect::<Vec<_>>();
                let changes = self.nodes.replace(list);
                changes.into_iter().for_each(|c| self.node_changed(c));
            }
            Kind::Pod
            | Kind::AttributesClass
            | Kind::Attachment
            | Kind::CsiDriver
            | Kind::CsiNode
            | Kind::StorageCapacity => {}
        }
    }

    fn see(&mut self, object: Object) {
        if let Object::Claim(claim) = &object {
            self.present
                .insert(claim.meta.place(), claim.meta.uid.clone());
        }
        if !self.keeps(&object) {
            return;
        }
        match object {
            Object::Claim(claim) => {
                let changes = self.claims.see(claim);
                changes.into_iter().for_each(|c| self.claim_changed(c));
            }
            Object::Volume(volume) => {
                let changes = self.volumes.see(volume);
                changes.into_iter().for_each(|c| self.volume_changed(&c));
            }
            Object::StorageClass(class) => {
                if !self.classes.see(class).is_empty() {
                    self.look_at_classes();
                }
            }
            Object::Node(node) => {
                let changes = self.nodes.see(node);
                changes.into_iter().for_each(|c| self.node_changed(c));
            }
            Object::StorageCapacity(told) => {
                self.capacity_is(&told.meta.name.clone(), Some(told));
            }
            Object::Pod(_)
            | Object::AttributesClass(_)
            | Object::Attachment(_)
            | Object::CsiDriver(_)
            | Object::CsiNode(_) => {}
        }
    }

    fn delete(&mut self, key: ObjectKey, uid: &Uid) {
        let kind = key.kind;
        let place = (key.namespace, key.name);
        match kind {
            Kind::Claim => {
                if self.present.get(&place) == Some(uid) {
                    self.present.remove(&place);
                }
                let change = self.claims.remove(&place, uid);
                change.into_iter().for_each(|c| self.claim_changed(c));
            }
            Kind::Volume => {
                let change = self.volumes.remove(&place, uid);
                change.into_iter().for_each(|c| self.volume_changed(&c));
            }
            Kind::StorageClass => {
                if self.classes.remove(&place, uid).is_some() {
                    self.look_at_classes();
                }
            }
            Kind::Node => {
                let change = self.nodes.remove(&place, uid);
                change.into_iter().for_each(|c| self.node_changed(c));
            }
            Kind::StorageCapacity => self.capacity_is(&place.1, None),
            Kind::Pod
            | Kind::AttributesClass
            | Kind::Attachment
            | Kind::CsiDriver
            | Kind::CsiNode => {}
        }
    }

    fn claim_changed(&mut self, change: Change<Claim>) {
        let (claim, there) = match change {
            Change::Set { new, .. } => (new, true),
            Change::Removed(old) => (old, false),
        };
        let name = name_for(&claim.meta.uid);
        if there {
            self.places.insert(name.clone(), claim.meta.place());
        } else {
            self.places.remove(&name);
        }
        let concerns = self.units.contains_key(&name) || self.concerns(&claim);
        if concerns {
            self.resume(name);
        }
        self.copies_follow(&claim, there);
    }

    fn volume_changed(&mut self, change: &Change<Volume>) {
        let (Change::Set { new: volume, .. } | Change::Removed(volume)) = change;
        // Something may be there that no class leads to any more.
        if self.options.made(volume)
            && let Some(site) = self.options.site_of(volume)
        {
            self.ask(&site);
        }
        self.resume(volume.meta.name.clone());
        self.copies_follow_volume(volume);
    }

    fn node_changed(&mut self, change: Change<Node>) {
        // A node's status changes all the time.
        let same = matches!(&change, Change::Set { old: Some(old), new }
            if old.meta.labels == new.meta.labels);
        if !same {
            self.look_at_all();
        }
    }

    fn look_at_all(&mut self) {
        let waiting = self.claims.iter().filter(|c| self.concerns(c));
        let mut names: BTreeSet<Name> = waiting.map(|c| name_for(&c.meta.uid)).collect();
        names.extend(self.units.keys().cloned());
        names.into_iter().for_each(|name| self.resume(name));
    }

    /// Whether something may be made here for a claim, or it is to be told why never.
    fn concerns(&self, claim: &Claim) -> bool {
        wants(claim, &self.options) || self.is_refused_everywhere(claim).is_some()
    }

    /// What it depends on changed: it is looked at again, however often it failed before.
    fn resume(&mut self, name: Name) {
        if let Some(unit) = self.units.get_mut(&name) {
            unit.retry(None);
        }
        self.dirty.insert(name);
    }

    fn report(&mut self, Reply { site, report }: Reply) {
        if changes_room(&report) {
            self.survey();
        }
        match report {
            Report::Surveyed(survey) => self.surveyed(survey),
            Report::Scanned(records) => {
                self.sites.found(&site);
                self.is_well(&site);
                for record in records {
                    self.owners
                        .insert(record.volume.clone(), record.claim.clone());
                    let unit = self.units.entry(record.volume.clone()).or_default();
                    unit.disk = Disk::of(&record);
                    unit.copy_of = record.copy_of;
                    unit.site = Some(site.clone());
                    self.dirty.insert(record.volume);
                }
                self.seen(&site);
            }
            Report::ScanFailed(why) => {
                self.tell_classes_of(&site, &why);
                self.sites.lost(&site, why);
                self.seen(&site);
                self.out.push(Effect::Wake(SCAN_AGAIN, Alarm::Scan(site)));
            }
            Report::Unreachable(volume, why) => {
                self.landed(&volume);
                self.tell_classes_of(&site, &why);
                if self.sites.lost(&site, why) {
                    self.out.push(Effect::Wake(SCAN_AGAIN, Alarm::Scan(site)));
                }
            }
            Report::Made(volume, path) => {
                let (unit, _) = self.landed(&volume);
                unit.succeed();
                let confirmed = matches!(unit.disk, Disk::Recorded { confirmed: true });
                unit.disk = Disk::Made { path, confirmed };
            }
            Report::Copying {
                volume,
                bytes,
                total,
            } => self.is_copied(&volume, bytes, total),
            Report::NotMade(volume, trouble) => {
                let (unit, _) = self.landed(&volume);
                unit.misplaced = trouble.elsewhere.then(|| trouble.message.clone());
                if !trouble.elsewhere {
                    self.fail(&volume);
                    self.tell_claim(&volume, &trouble.message);
                }
            }
            Report::Confirmed(volume) => {
                let (unit, _) = self.landed(&volume);
                unit.succeed();
                unit.disk.confirm();
            }
            Report::Discarded(volume) => {
                let (unit, _) = self.landed(&volume);
                unit.succeed();
                unit.disk = Disk::Absent;
                self.owners.remove(&volume);
            }
            Report::Removed(volume) => {
                let (unit, _) = self.landed(&volume);
                unit.succeed();
                unit.disk = Disk::Removed;
                self.gone.insert(volume.clone());
                self.owners.remove(&volume);
                self.removed += 1;
            }
            Report::Grown {
                volume,
                bytes,
                held,
            } => self.grown(&volume, bytes, held),
            Report::NotGrown(volume, bytes, trouble) => self.not_grown(&volume, bytes, trouble),
            Report::Failed(volume, message) => {
                self.landed(&volume);
                self.fail(&volume);
                let news = self
                    .units
                    .get_mut(&volume)
                    .is_some_and(|u| u.tells(&message));
                let event = match (self.volume(&volume), self.owners.get(&volume)) {
                    (Some(object), _) => Some(reason::not_deleted(object, &message)),
                    (None, Some(owner)) => Some(reason::not_cleaned(owner, &message)),
                    (None, None) => None,
                };
                if news {
                    self.out.extend(event.map(Effect::Event));
                }
            }
        }
    }

    /// What was under way for a volume is over: what comes next is decided anew.
    fn landed(&mut self, volume: &Name) -> (&mut Unit, Option<Flight>) {
        self.dirty.insert(volume.clone());
        let unit = self.units.entry(volume.clone()).or_default();
        let flight = unit.flight.take();
        (unit, flight)
    }

    fn fail(&mut self, volume: &Name) {
        let unit = self.units.entry(volume.clone()).or_default();
        let (after, alarm) = unit.fail(volume);
        self.out.push(Effect::Wake(after, alarm));
    }

    fn finished(&mut self, key: &ObjectKey, outcome: Outcome) {
        if key.kind == Kind::StorageCapacity {
            return self.capacity_finished(&key.name, &outcome);
        }
        let name = match key.kind {
            Kind::Volume => Some(key.name.clone()),
            _ => {
                let of_this =
                    |unit: &Unit| matches!(&unit.flight, Some(Flight::Write(of, _)) if of == key);
                let found = self.units.iter().find(|(_, unit)| of_this(unit));
                found.map(|(name, _)| name.clone())
            }
        };
        let Some(name) = name.filter(|name| self.units.contains_key(name)) else {
            return;
        };
        let Some(flight) = self.landed(&name).1 else {
            return;
        };
        let Flight::Write(_, version) = flight else {
            return self.created(&name, outcome);
        };
        match outcome {
            Outcome::Done | Outcome::Gone => self.landed(&name).0.succeed(),
            // What was found was fed: where it is news, it counts at once.
            Outcome::Conflict if self.version(key) != Some(version) => {}
            Outcome::Conflict | Outcome::Spared => self.fail(&name),
            Outcome::Refused(message) | Outcome::Failed(message) => {
                self.fail(&name);
                self.tell_either(&name, &message);
            }
        }
    }

    fn version(&self, key: &ObjectKey) -> Option<ResourceVersion> {
        let place = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Volume => Some(self.volumes.get(&place)?.meta.resource_version),
            _ => Some(self.claims.get(&place)?.meta.resource_version),
        }
    }

    /// The object of a volume was made, or was not.
    fn created(&mut self, name: &Name, outcome: Outcome) {
        let ours = self.volume(name).is_some_and(|v| self.options.made(v));
        match outcome {
            Outcome::Done | Outcome::Conflict if ours => {
                // The API is known to have it, though its record does not say so yet.
                self.made += 1;
                let event = self
                    .claim(name)
                    .map(|c| reason::succeeded(c, name.as_str()));
                self.out.extend(event.map(Effect::Event));
                self.landed(name).0.succeed();
            }
            // Another object has the name: that is decided on from what was fed.
            Outcome::Conflict if self.volume(name).is_some() => {}
            // Somebody deleted it at once.
            Outcome::Done | Outcome::Gone | Outcome::Spared | Outcome::Conflict => self.fail(name),
            Outcome::Refused(message) | Outcome::Failed(message) => {
                self.fail(name);
                self.tell_claim(
                    name,
                    &format!("the volume's object cannot be made: {message}"),
                );
            }
        }
    }

    fn tell_claim(&mut self, volume: &Name, message: &str) {
        let news = self.units.entry(volume.clone()).or_default().tells(message);
        if let (true, Some(claim)) = (news, self.claim(volume)) {
            let event = reason::failed(claim, message);
            self.out.push(Effect::Event(event));
        }
    }

    fn tell_either(&mut self, name: &Name, message: &str) {
        match self.volume(name).cloned() {
            None => self.tell_claim(name, message),
            Some(volume) if volume.phase == VolumePhase::Bound => {
                self.tell_not_grown(name, message)
            }
            Some(volume) => {
                let news = self.units.entry(name.clone()).or_default().tells(message);
                if news {
                    let event = reason::not_deleted(&volume, message);
                    self.out.push(Effect::Event(event));
                }
            }
        }
    }

    fn settle(&mut self) {
        while let Some(name) = self.dirty.pop_first() {
            self.decide(&name);
            let over = self.units.get(&name).is_some_and(Unit::is_over);
            let needed =
                self.volume(&name).is_some() || self.claim(&name).is_some_and(|c| self.concerns(c));
            if over && !needed {
                self.units.remove(&name);
            }
        }
    }

    /// Decides what comes next for a volume.
    fn decide(&mut self, name: &Name) {
        if self.units.get(name).is_some_and(Unit::is_blocked) {
            return;
        }
        let claim = self.claim(name).cloned();
        if self.volume(name).is_none()
            && let Some(claim) = &claim
            && let Some(why) = self.is_refused_everywhere(claim)
        {
            let event = reason::refused_everywhere(claim, &why.to_string());
            if self
                .units
                .entry(name.clone())
                .or_default()
                .tells(&event.message)
            {
                self.out.push(Effect::Event(event));
            }
            return self.discard(name);
        }
        let wanted = claim.filter(|c| wants(c, &self.options) && !self.gone.contains(name));
        match self.volume(name).cloned() {
            Some(volume) if self.options.made(&volume) => {
                self.decide_volume(name, &volume);
            }
            // The scheduler chose another node meanwhile, and that was faster; or somebody took
            // the name.
            Some(volume) => {
                self.discard(name);
                if wanted.is_some_and(|claim| !volume.is_for(&claim)) {
                    let taken = "there is a PersistentVolume of its name that is for another claim";
                    self.tell_claim(name, taken);
                }
            }
            None => match wanted {
                Some(claim) => self.decide_claim(name, &claim),
                None => {
                    if let Some(unit) = self.units.get_mut(name) {
                        unit.misplaced = None;
                    }
                    self.discard(name);
                }
            },
        }
    }

    fn decide_claim(&mut self, name: &Name, claim: &Arc<Claim>) {
        let node = self.node().cloned();
        if node.is_none() && self.options.watches(Kind::Node) {
            return; // it comes
        }
        let class = self.class_of(claim).cloned();
        if class.as_ref().is_some_and(|c| waits_for_its_pod(claim, c)) {
            return self.discard(name);
        }
        let plan = plan(claim, class.as_deref(), node.as_deref(), &self.options);
        let plan = plan.and_then(|(site, record)| {
            let beginning = self.beginning(name, claim, &site)?;
            Ok((site, record, beginning))
        });
        let (site, mut record, beginning) = match plan {
            Ok(plan) => plan,
            Err(refusal) => return self.tell_claim(name, &refusal.to_string()),
        };
        let Some(class) = class else {
            return;
        };
        let fits = |node: &Arc<Node>| node.fits(class.allowed_topologies.as_ref());
        let left_out = (!node.as_ref().is_none_or(fits))
            .then(|| "the class's allowedTopologies leave this node out".to_owned());
        let elsewhere = match beginning {
            Beginning::Elsewhere(why) => Some(why),
            Beginning::With(copy_of) => {
                record.copy_of = copy_of;
                left_out
            }
        };
        let unit = self.units.entry(name.clone()).or_default();
        unit.copy_of.clone_from(&record.copy_of);
        if let Some(why) = unit.misplaced.clone().or(elsewhere) {
            let message = format!("{why}; the pod is scheduled again");
            self.tell_claim(name, &message);
            self.write(name, volume::reschedule(claim));
            return;
        }
        // The class was made anew with another share: what was begun on the old one is undone first.
        let begun = unit.site.as_ref().filter(|_| unit.disk.is_unconfirmed());
        if begun.is_some_and(|begun| !begun.holds_the_same(&site)) {
            return self.discard(name);
        }
        match &unit.disk {
            Disk::Made { path, .. } if unit.site.as_ref() == Some(&site) => {
                let create = volume::create(claim, &class, &site, node.as_deref(), path);
                self.create(name, create);
            }
            _ => self.make(name, site, record),
        }
    }

    fn make(&mut self, name: &Name, site: Site, record: Record) {
        if let Err(lost) = self.reach(name, &site) {
            return lost.into_iter().for_each(|why| self.tell_claim(name, &why));
        }
        self.owners.insert(name.clone(), record.claim.clone());
        let unit = self.units.entry(name.clone()).or_default();
        let first = !std::mem::replace(&mut unit.announced, true);
        // Whatever comes of it, something may be there from now on; what the API had stays so.
        let there = unit.site.replace(site.clone());
        let same = there.is_none_or(|there| there.holds_the_same(&site));
        if !same || !matches!(unit.disk, Disk::Recorded { confirmed: true }) {
            unit.disk = Disk::Unsure;
        }
        self.task(name, site, Task::Make(record));
        if first {
            self.announce_later(name);
        }
    }

    fn decide_volume(&mut self, name: &Name, volume: &Arc<Volume>) {
        let replaced = volume.claim_ref.as_ref().is_some_and(|owner| {
            let place = (Some(owner.namespace.clone()), owner.name.clone());
            let there = self.present.get(&place);
            there.is_some() && there != owner.uid.as_ref()
        });
        let wish = volume::wish(volume, replaced);
        if self.is_recorded_first(name, volume, wish == Wish::Rest) {
            return;
        }
        let unit = self.units.entry(name.clone()).or_default();
        let removed = unit.disk == Disk::Removed;
        match wish {
            Wish::Rest => self.decide_size(name, volume),
            Wish::Hold(write) => self.write(name, write),
            Wish::Mark(destroy) => self.destroy(name, destroy),
            Wish::Remove if !removed => self.remove(name, volume),
            Wish::Remove if !volume.meta.is_deleting() => {
                self.destroy(name, volume::drop_object(volume));
            }
            Wish::Remove if volume::is_held(volume) => self.write(name, volume::let_go(volume)),
            Wish::Remove => {}
        }
    }

    /// Has a volume's data taken away, where everything says that it is this volume's.
    fn remove(&mut self, name: &Name, volume: &Volume) {
        let what =
            self.removal(name, volume)
                .and_then(|(site, task)| match self.reach(name, &site) {
                    Ok(()) => Ok(Some((site, task))),
                    Err(why) => why.map_or(Ok(None), Err),
                });
        match what {
            Ok(Some((site, task))) => self.task(name, site, task),
            Ok(None) => {}
            Err(why) => {
                let news = self.units.entry(name.clone()).or_default().tells(&why);
                if news {
                    let event = reason::not_deleted(volume, &why);
                    self.out.push(Effect::Event(event));
                }
            }
        }
    }

    /// What takes a volume's data away, and where; or why nothing may.
    fn removal(&self, name: &Name, volume: &Volume) -> Result<(Site, Task), String> {
        let refused = |why: &str| Err(format!("{why}; nothing was deleted"));
        let path = match (&self.options.ground, &volume.source) {
            // The second is what was taken over from another provisioner.
            (Ground::Node(_), Source::Local { path, .. } | Source::HostPath { path, .. }) => path,
            (Ground::Node(_), _) => return refused("it is no local volume any more"),
            (Ground::Shares, source) => match on_server(source) {
                Some((_, path)) => path,
                None => return refused("it is no NFS volume any more"),
            },
        };
        let Some(site) = self.options.site_of(volume) else {
            return refused("its path or its annotation bitts.dev/provisioned-on was changed");
        };
        let fits = |node: &Arc<Node>| node.fits(volume.node_affinity.as_ref());
        if self.options.watches(Kind::Node) && !self.node().is_some_and(fits) {
            return refused("its node affinity leaves out the node that made it");
        }
        let owner = volume.claim_ref.as_ref().and_then(|r| r.uid.as_ref());
        let Some(uid) = owner.filter(|uid| name_for(uid) == *name) else {
            return refused("it is for another claim than the one it was made for");
        };
        let task = Task::Remove {
            volume: name.clone(),
            uid: uid.clone(),
            path: path.into(),
        };
        Ok((site, task))
    }

    /// Has what was made undone, where the API never had it.
    fn discard(&mut self, name: &Name) {
        let unit = self.units.get(name);
        let unit = unit.filter(|unit| unit.disk.is_unconfirmed());
        let site = unit.and_then(|unit| unit.site.clone());
        if let (Some(site), Some(uid)) = (site, claim_uid(name)) {
            self.send(name, site, Task::Discard(name.clone(), uid));
        }
    }

    fn task(&mut self, name: &Name, site: Site, task: Task) {
        self.fly(name, Flight::Task);
        self.out.push(Effect::Task(Errand { site, task }));
    }

    fn create(&mut self, name: &Name, create: Create) {
        self.fly(name, Flight::Create);
        self.out.push(Effect::Create(create));
    }

    fn write(&mut self, name: &Name, write: Write) {
        self.fly(name, flight(&write.target));
        self.out.push(Effect::Write(write));
    }

    fn destroy(&mut self, name: &Name, destroy: Destroy) {
        self.fly(name, flight(&destroy.target));
        self.out.push(Effect::Destroy(destroy));
    }

    fn fly(&mut self, name: &Name, flight: Flight) {
        self.units.entry(name.clone()).or_default().flight = Some(flight);
    }
}

impl Machine for Provisioner {
    type Task = Errand;
    type Report = Reply;
    type Alarm = Alarm;

    fn watches(&self) -> Vec<Watch> {
        let scope = |kind| match (kind, &self.options.ground) {
            (Kind::Node, Ground::Node(node)) => Scope::Named(node.as_str().into()),
            _ => Scope::All,
        };
        let watch = |kind| Watch {
            kind,
            scope: scope(kind),
        };
        kinds(&self.options).map(watch).collect()
    }

    fn handle(&mut self, _now: Moment, input: Input<Reply, Alarm>) -> Effects {
        if self.options.watches(Kind::Node) {
            self.ask(&Site::Disks);
        }
        match input {
            Input::Listed(kind, objects) => self.list(kind, objects),
            Input::Found(_, Some(object)) | Input::Seen(object) => self.see(object),
            Input::Found(key, None) => self.capacity_is(&key.name, None), // it follows nothing else
            Input::Deleted(key, uid) => self.delete(key, &uid),
            Input::Finished(key, outcome) => self.finished(&key, outcome),
            Input::Report(report) => self.report(report),
            Input::Alarm(Alarm::Scan(site)) => self.scan_again(site),
            Input::Alarm(Alarm::Survey) => self.survey_for_ever(),
            Input::Alarm(Alarm::Confirm) => self.confirm_now(),
            Input::Alarm(Alarm::Announce) => self.announce(),
            Input::Alarm(Alarm::Retry(volume, attempt)) => {
                if let Some(unit) = self.units.get_mut(&volume) {
                    unit.retry(Some(attempt));
                    unit.forget_refusal();
                }
                self.dirty.insert(volume);
            }
        }
        if self.is_ready() {
            self.settle();
            self.settle_room();
        }
        std::mem::take(&mut self.out)
    }

    fn measures(&self) -> Vec<Measure> {
        let measure = |name, help, reading| Measure {
            name,
            help,
            labels: Vec::new(),
            reading,
        };
        let mut all = vec![
            measure(
                "bitts_provisioner_made_total",
                "Volumes made for claims",
                Reading::Counter(self.made),
            ),
            measure(
                "bitts_provisioner_removed_total",
                "Volumes whose data was taken away after their claims",
                Reading::Counter(self.removed),
            ),
        ];
        all.extend(self.room.measures());
        all
    }
}

/// Whether a report is of something that leaves the disks more or less room.
fn changes_room(report: &Report) -> bool {
    matches!(
        report,
        Report::Scanned(_)
            | Report::Made(..)
            | Report::Discarded(_)
            | Report::Removed(_)
            | Report::Grown { .. }
    )
}

fn flight(target: &Target) -> Flight {
    Flight::Write(target.key.clone(), target.version)
}

/// The uid of the claim for which a volume of this name was made.
fn claim_uid(volume: &Name) -> Option<Uid> {
    volume.as_str().strip_prefix("pvc-").map(Uid::from)
}

fn claim_in(object: Object) -> Option<Arc<Claim>> {
    match object {
        Object::Claim(claim) => Some(claim),
        _ => None,
    }
}

fn volume_in(object: Object) -> Option<Arc<Volume>> {
    match object {
        Object::Volume(volume) => Some(volume),
        _ => None,
    }
}

fn class_in(object: Object) -> Option<Arc<StorageClass>> {
    match object {
        Object::StorageClass(class) => Some(class),
        _ => None,
    }
}

fn node_in(object: Object) -> Option<Arc<Node>> {
    match object {
        Object::Node(node) => Some(node),
        _ => None,
    }
}
