//! Inputs in, effects out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitts_api::machine::{
    Cache, Change, Create, Destroy, Effect, Input, Machine, Measure, Moment, Outcome, Place,
    Reading, Scope, Target, Watch, Write,
};
use bitts_api::{
    Claim, Kind, Name, Node, Object, ObjectKey, Recent, ResourceVersion, StorageClass, Uid, Volume,
};

use crate::claim::{is_served, plan, wants};
use crate::options::Options;
use crate::reason;
use crate::task::{Alarm, Owner, Record, Report, Task};
use crate::unit::{Disk, Flight, Unit};
use crate::volume::{self, Wish, name_for};

/// What is watched: of nodes, the own one only.
pub(crate) const KINDS: [Kind; 4] = [Kind::Claim, Kind::Volume, Kind::StorageClass, Kind::Node];

/// How long until a scan that failed is tried again.
const SCAN_AGAIN: Duration = Duration::from_secs(10);

type Effects = Vec<Effect<Task, Alarm>>;

/// The provisioner of a node.
///
/// Everything is kept by the volume's name, which follows from the claim's uid: one unit has at
/// most one thing under way, and what comes next follows from its claim, its volume's object and what
/// the disk holds.
#[derive(Debug)]
pub struct Provisioner {
    options: Options,
    /// The claims that were handed to a provisioner of this kind, on whichever node.
    claims: Cache<Claim>,
    /// The volumes of this node's provisioner, and whatever has the name of one.
    volumes: Cache<Volume>,
    classes: Cache<StorageClass>,
    nodes: Cache<Node>,
    /// Where each claim is that asks for a volume of this node, by the volume's name.
    places: BTreeMap<Name, Place>,
    /// All claims there are: a volume's claim may have been replaced by one of its name.
    present: BTreeMap<Place, Uid>,
    units: BTreeMap<Name, Unit>,
    /// For whom there is something on the disk.
    owners: BTreeMap<Name, Owner>,
    /// Volumes that were taken away: their claims were seen to be gone, whatever the watch still says.
    gone: Recent<Name, 4096>,
    scan: Scan,
    dirty: BTreeSet<Name>,
    made: u64,
    removed: u64,
    out: Effects,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    NotAsked,
    Asked,
    Done,
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
            present: BTreeMap::new(),
            units: BTreeMap::new(),
            owners: BTreeMap::new(),
            gone: Recent::default(),
            scan: Scan::NotAsked,
            dirty: BTreeSet::new(),
            made: 0,
            removed: 0,
            out: Vec::new(),
        }
    }

    /// Nothing is decided before everything was seen (B2), the disks included: what was made for a
    /// claim must be known before anything is made for it.
    fn is_ready(&self) -> bool {
        self.claims.is_listed()
            && self.volumes.is_listed()
            && self.classes.is_listed()
            && self.nodes.is_listed()
            && self.scan == Scan::Done
    }

    fn node(&self) -> Option<&Arc<Node>> {
        self.nodes.get(&(None, self.options.node.as_str().into()))
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
                volume::is_made_on(volume, &self.options.node)
                    || self.units.contains_key(&volume.meta.name)
                    || self.volume(&volume.meta.name).is_some()
            }
            Object::StorageClass(_) => true,
            Object::Node(node) => node.meta.name == *self.options.node.as_str(),
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
                    self.look_at_all();
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
            | Kind::CsiNode => {}
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
                    self.look_at_all();
                }
            }
            Object::Node(node) => {
                let changes = self.nodes.see(node);
                changes.into_iter().for_each(|c| self.node_changed(c));
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
                    self.look_at_all();
                }
            }
            Kind::Node => {
                let change = self.nodes.remove(&place, uid);
                change.into_iter().for_each(|c| self.node_changed(c));
            }
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
        let concerns = self.units.contains_key(&name) || wants(&claim, &self.options);
        if concerns {
            self.resume(name);
        }
    }

    fn volume_changed(&mut self, change: &Change<Volume>) {
        let (Change::Set { new: volume, .. } | Change::Removed(volume)) = change;
        self.resume(volume.meta.name.clone());
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
        let waiting = self.claims.iter().filter(|c| wants(c, &self.options));
        let mut names: BTreeSet<Name> = waiting.map(|c| name_for(&c.meta.uid)).collect();
        names.extend(self.units.keys().cloned());
        names.into_iter().for_each(|name| self.resume(name));
    }

    /// What it depends on changed: it is looked at again, however often it failed before.
    fn resume(&mut self, name: Name) {
        if let Some(unit) = self.units.get_mut(&name) {
            unit.retry(None);
        }
        self.dirty.insert(name);
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Scanned(records) => {
                self.scan = Scan::Done;
                for record in records {
                    self.owners
                        .insert(record.volume.clone(), record.claim.clone());
                    let unit = self.units.entry(record.volume.clone()).or_default();
                    unit.disk = Disk::of(&record);
                    self.dirty.insert(record.volume);
                }
                // What the API has and the disks have not is looked at too.
                let all = self.volumes.iter().map(|v| v.meta.name.clone());
                self.dirty.extend(all);
                self.look_at_all();
            }
            Report::ScanFailed(_) => self.out.push(Effect::Wake(SCAN_AGAIN, Alarm::Scan)),
            Report::Made(volume, path) => {
                let (unit, _) = self.landed(&volume);
                unit.succeed();
                let confirmed = matches!(unit.disk, Disk::Recorded { confirmed: true });
                unit.disk = Disk::Made { path, confirmed };
            }
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
        let ours = self
            .volume(name)
            .is_some_and(|v| volume::is_made_on(v, &self.options.node));
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
            let needed = self.volume(&name).is_some()
                || self.claim(&name).is_some_and(|c| wants(c, &self.options));
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
        let wanted = claim.filter(|c| wants(c, &self.options) && !self.gone.contains(name));
        match self.volume(name).cloned() {
            Some(volume) if volume::is_made_on(&volume, &self.options.node) => {
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
        let Some(node) = self.node().cloned() else {
            return; // it comes
        };
        let class = self.class_of(claim).cloned();
        let record = match plan(claim, class.as_deref(), &node, &self.options) {
            Ok(record) => record,
            Err(refusal) => return self.tell_claim(name, &refusal.to_string()),
        };
        let Some(class) = class else {
            return;
        };
        let elsewhere = (!node.fits(class.allowed_topologies.as_ref()))
            .then(|| "the class's allowedTopologies leave this node out".to_owned());
        let unit = self.units.entry(name.clone()).or_default();
        if let Some(why) = unit.misplaced.clone().or(elsewhere) {
            let message = format!("{why}; the pod is scheduled again");
            self.tell_claim(name, &message);
            self.write(name, volume::reschedule(claim));
            return;
        }
        if let Disk::Made { path, .. } = &unit.disk {
            let create = volume::create(claim, &class, &node, path);
            return self.create(name, create);
        }
        if !unit.announced {
            unit.announced = true;
            self.out.push(Effect::Event(reason::provisioning(claim)));
        }
        self.make(name, record);
    }

    fn make(&mut self, name: &Name, record: Record) {
        self.owners.insert(name.clone(), record.claim.clone());
        let unit = self.units.entry(name.clone()).or_default();
        // Whatever comes of it, something may be there from now on; what the API had stays so.
        if !matches!(unit.disk, Disk::Recorded { confirmed: true }) {
            unit.disk = Disk::Unsure;
        }
        self.task(name, Task::Make(record));
    }

    fn decide_volume(&mut self, name: &Name, volume: &Arc<Volume>) {
        let replaced = volume.claim_ref.as_ref().is_some_and(|owner| {
            let place = (Some(owner.namespace.clone()), owner.name.clone());
            let there = self.present.get(&place);
            there.is_some() && there != owner.uid.as_ref()
        });
        let unit = self.units.entry(name.clone()).or_default();
        let removed = unit.disk == Disk::Removed;
        if unit.disk.is_unconfirmed()
            && let Some(uid) = claim_uid(name)
        {
            return self.task(name, Task::Confirm(name.clone(), uid));
        }
        match volume::wish(volume, replaced) {
            Wish::Rest => {}
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
        let fits = self
            .node()
            .is_some_and(|node| node.fits(volume.node_affinity.as_ref()));
        let owner = volume.claim_ref.as_ref().and_then(|r| r.uid.as_ref());
        let what = match (&volume.source, owner) {
            (bitts_api::Source::Local { path, .. }, Some(uid))
                if name_for(uid) == *name && fits =>
            {
                Ok((path, uid))
            }
            (bitts_api::Source::Local { .. }, _) if !fits => {
                Err("its node affinity leaves out the node that made it; nothing was deleted")
            }
            (bitts_api::Source::Local { .. }, _) => {
                Err("it is for another claim than the one it was made for; nothing was deleted")
            }
            _ => Err("it is no local volume any more; nothing was deleted"),
        };
        match what {
            Ok((path, uid)) => {
                let task = Task::Remove {
                    volume: name.clone(),
                    uid: uid.clone(),
                    path: path.clone(),
                };
                self.task(name, task);
            }
            Err(why) => {
                let news = self.units.entry(name.clone()).or_default().tells(why);
                if news {
                    let event = reason::not_deleted(volume, why);
                    self.out.push(Effect::Event(event));
                }
            }
        }
    }

    /// Has what was made undone, where the API never had it.
    fn discard(&mut self, name: &Name) {
        let unconfirmed = self
            .units
            .get(name)
            .is_some_and(|u| u.disk.is_unconfirmed());
        if let (true, Some(uid)) = (unconfirmed, claim_uid(name)) {
            self.task(name, Task::Discard(name.clone(), uid));
        }
    }

    fn task(&mut self, name: &Name, task: Task) {
        self.fly(name, Flight::Task);
        self.out.push(Effect::Task(task));
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
    type Task = Task;
    type Report = Report;
    type Alarm = Alarm;

    fn watches(&self) -> Vec<Watch> {
        let scope = |kind| match kind {
            Kind::Node => Scope::Named(self.options.node.as_str().into()),
            _ => Scope::All,
        };
        let watch = |kind| Watch {
            kind,
            scope: scope(kind),
        };
        KINDS.into_iter().map(watch).collect()
    }

    fn handle(&mut self, _now: Moment, input: Input<Report, Alarm>) -> Effects {
        if self.scan == Scan::NotAsked {
            self.scan = Scan::Asked;
            self.out.push(Effect::Task(Task::Scan));
        }
        match input {
            Input::Listed(kind, objects) => self.list(kind, objects),
            Input::Found(_, Some(object)) | Input::Seen(object) => self.see(object),
            Input::Found(_, None) => {} // it follows nothing
            Input::Deleted(key, uid) => self.delete(key, &uid),
            Input::Finished(key, outcome) => self.finished(&key, outcome),
            Input::Report(report) => self.report(report),
            Input::Alarm(Alarm::Scan) => self.out.push(Effect::Task(Task::Scan)),
            Input::Alarm(Alarm::Retry(volume, attempt)) => {
                if let Some(unit) = self.units.get_mut(&volume) {
                    unit.retry(Some(attempt));
                }
                self.dirty.insert(volume);
            }
        }
        if self.is_ready() {
            self.settle();
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
        vec![
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
        ]
    }
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
