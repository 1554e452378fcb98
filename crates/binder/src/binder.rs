//! The machine: takes inputs in, decides again what they touch, and sends what was decided.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use bitts_api::machine::{
    Destroy, Destruction, Effect, Event, Evidence, Input, Inventory, Machine, Measure, Moment,
    Part, Place, Scope, Watch,
};
use bitts_api::{
    Claim, ClaimPhase, ClassName, Kind, Name, Object, ObjectKey, Quantity, ResourceVersion, Source,
    Uid, Volume, VolumePhase, names,
};

mod writing;

use crate::bind::{Step, next_step};
use crate::claim::{self, Wait};
use crate::flights::{Flights, Sent};
use crate::hush::Hush;
use crate::known::{Dirty, Known};
use crate::looks::{Looks, Standing};
use crate::operations::Operations;
use crate::options::Options;
use crate::protection::{self, Protection};
use crate::reason::{Loss, Notice, Waiting};
use crate::rests::{Rests, Timer};
use crate::told::{Told, Topic};
use crate::waiting::WaitingClaims;
use crate::writes::claim_key;
use crate::{attributes_class, ephemeral, migration, orders, unused};
use crate::{volume, writes};
use writing::{FAIL_VOLUME, UPKEEP};

/// A timer of the binder: an object whose write failed may be written again, or this one write that
/// keeps nothing else waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry(ObjectKey, Timer, Option<&'static str>);

type Effects = Vec<Effect<Infallible, Retry>>;

/// So many writes are in flight at most: more than a runner executes at a time, few enough that
/// news is acted upon before the rest of a large backlog, and that the backlog costs no memory.
const IN_FLIGHT: usize = 128;

/// Binds claims and volumes.
///
/// See the [crate's page](crate) for how to drive it.
#[derive(Clone, Debug, Default)]
pub struct Binder {
    options: Options,
    known: Known,
    waiting: WaitingClaims,
    flights: Flights,
    /// Claims for which a volume is being reserved: they must not look for another.
    committed: BTreeSet<Place>,
    hush: Hush,
    /// Finalizers and marks that the API refuses: everything else is done before they are tried
    /// again, so that no webhook which minds them keeps claims from being bound.
    upkeep: Rests<(ObjectKey, &'static str)>,
    looks: Looks,
    told: Told,
    dirty: Dirty,
    /// Claims of which a write just took effect: the next of the four follows at once.
    started: BTreeSet<Place>,
    /// Volumes that became free since claims were last looked for.
    offers: BTreeSet<Name>,
    /// Pods that wait because a claim of their claim's name is there, told of by pod and claim.
    clashes: BTreeMap<(Place, Name), (Uid, Uid)>,
    operations: Operations,
    now: Moment,
    out: Effects,
}

impl Machine for Binder {
    type Task = Infallible;
    type Report = Infallible;
    type Alarm = Retry;

    fn watches(&self) -> Vec<Watch> {
        Known::KINDS
            .into_iter()
            // Nothing waits for these to be listed: not every API has them.
            .chain([Kind::AttributesClass])
            .map(|kind| Watch {
                kind,
                scope: Scope::All,
            })
            .collect()
    }

    fn handle(&mut self, now: Moment, input: Input<Infallible, Retry>) -> Effects {
        self.now = now;
        match input {
            Input::Listed(kind, objects) => {
                self.looks.disprove();
                self.known.list(kind, objects, &mut self.dirty);
            }
            Input::Found(_, Some(object)) | Input::Seen(object) => self.see(object),
            Input::Found(_, None) => {} // it follows nothing
            Input::Deleted(key, uid) => self.known.remove(&key, &uid, &mut self.dirty),
            Input::Finished(key, outcome) => self.landed(&key, &outcome),
            Input::Alarm(Retry(key, timer, step)) => {
                let rang = match step {
                    Some(step) => self.upkeep.ring(&(key.clone(), step), timer),
                    None => self.flights.ring(&key, timer),
                };
                if rang {
                    self.look_again(&key);
                }
            }
            Input::Report(never) => match never {},
        }
        if self.known.all_listed() {
            self.settle();
        }
        std::mem::take(&mut self.out)
    }

    fn inventory(&self, kind: Kind) -> Option<Inventory> {
        self.known.inventory(kind)
    }

    fn measures(&self) -> Vec<Measure> {
        let mut all = self.known.census.measures();
        all.extend(self.operations.measures());
        all
    }
}

impl Binder {
    /// A binder that knows nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Takes in an object. What could not be written may pass now that the object was changed.
    fn see(&mut self, object: Object) {
        let key = object.key();
        let waits = self.flights.is_waiting(&key);
        let before = waits.then(|| self.version(&key));
        self.known.see(object, &mut self.dirty);
        if before.is_some_and(|before| before != self.version(&key)) {
            self.flights.resume(&key);
        }
    }

    /// Decides until nothing is left to decide, or enough is in flight: what was started is always
    /// gone on with. Volumes before claims, since what they become counts for claims; what is still
    /// free then is offered to those that wait.
    fn settle(&mut self) {
        loop {
            if let Some(place) = self.started.pop_first() {
                self.decide_claim(&place);
            } else if self.flights.len() >= IN_FLIGHT {
                break;
            } else if let Some(class) = self.dirty.classes.pop_first() {
                let of_it = self.waiting.of_class(Some(&class));
                let of_none = self.waiting.of_class(None); // the default may have changed
                self.dirty.claims.extend(of_it.chain(of_none).cloned());
            } else if let Some(place) = self.dirty.pods.pop_first() {
                self.make_claims(&place);
            } else if let Some(name) = self.dirty.volumes.pop_first() {
                self.decide_volume(&name);
            } else if let Some(place) = self.dirty.claims.pop_first() {
                self.decide_claim(&place);
            } else if let Some(name) = self.offers.pop_first() {
                self.offer(&name);
            } else if let Some(class) = self.dirty.attributes_classes.pop_first() {
                self.decide_attributes_class(&class);
            } else if let Some(place) = self.dirty.uses.pop_first() {
                self.note_use(&place);
            } else {
                break;
            }
        }
    }

    fn decide_volume(&mut self, name: &Name) {
        let key = ObjectKey::volume(name.clone());
        let Some(volume) = self.known.volume(name).cloned() else {
            self.operations.stands(&key, None, self.now);
            self.forget(&key);
            return;
        };
        let uid = &volume.meta.uid;
        self.operations.stands(&key, Some(uid), self.now);
        if let Some(plugin) = volume::deleter(&volume, &self.known, &self.options) {
            self.operations.begin(key.clone(), uid, plugin, self.now);
        }
        if self.flights.is_blocked(&key) {
            return; // it is not on offer either, see `send`
        }
        self.shelve(&volume);
        let mark = migration::of_volume(&volume);
        let mut later = Vec::new();
        if self.keep_up(mark.map(Protection::Add), &mut later) {
            return;
        }
        if let Some(write) = orders::withdraw(&volume, &self.known, &self.options) {
            self.write(write);
            return;
        }
        if self.options.protection {
            let named = self.known.is_named_by_its_claim(&volume);
            if self.keep_up(protection::of_volume(&volume, named), &mut later) {
                return;
            }
        }
        self.further_volume(&volume);
        self.catch_up(later);
    }

    /// Does what a volume needs that is kept up.
    fn further_volume(&mut self, volume: &Arc<Volume>) {
        let name = &volume.meta.name;
        let key = ObjectKey::volume(name.clone());
        let claim_ref = volume.claim_ref.as_ref();
        match volume::decide(volume, &self.known, &self.options) {
            volume::Decision::Rest => self.all_well(&key),
            volume::Decision::Tell(notice) => {
                self.tell(&key, Topic::State, &volume.meta.uid, notice);
            }
            volume::Decision::Offer => {
                let write = writes::mark_available(volume);
                let anybodys = volume.claim_ref.is_none() && self.known.rightful(volume).is_none();
                if self.write_then(write, None, vec![]) && anybodys {
                    self.hush.set_out(name.clone());
                    self.known.coming.insert(volume.clone());
                }
            }
            volume::Decision::Bind => self.write(writes::mark_volume_bound(volume)),
            volume::Decision::Mismatch => {
                let place = claim_ref.map(|r| (Some(r.namespace.clone()), r.name.clone()));
                if let (Some(claim_ref), Some(place)) = (claim_ref, place)
                    && let Some(claim) = self.known.claim(&place).cloned()
                {
                    let notice = Notice::claim_mode_differs(&claim_ref.name);
                    if self.tell(&key, Topic::State, &volume.meta.uid, notice) {
                        let notice = Notice::volume_mode_differs(name);
                        self.say(claim_key(&claim), &claim.meta.uid, notice);
                    }
                }
            }
            volume::Decision::Hold(evidence) => {
                let Some(claim_ref) = claim_ref else { return };
                let notice = Notice::held(name, claim_ref);
                if *volume.message != *notice.message {
                    let patch = Destruction::Patch(Part::Status, writes::held(&notice.message));
                    self.take("hold-volume", volume, patch, evidence, Some(notice));
                }
            }
            volume::Decision::Release(evidence) => {
                let patch = writes::phase(VolumePhase::Released, None);
                let patch = Destruction::Patch(Part::Status, patch);
                self.take("release-volume", volume, patch, evidence, None);
            }
            volume::Decision::Unbind(evidence) => {
                let patch = Destruction::Patch(Part::Main, writes::unbind(volume));
                self.take("unbind-volume", volume, patch, evidence, None);
            }
            volume::Decision::Fail(evidence, failure) => {
                let notice = failure.notice();
                let patch = writes::phase(VolumePhase::Failed, Some(&notice.message));
                let patch = Destruction::Patch(Part::Status, patch);
                self.take(FAIL_VOLUME, volume, patch, evidence, Some(notice));
            }
            volume::Decision::Drop(evidence) => self.drop_object(volume, evidence),
            volume::Decision::Wipe(evidence, node) => {
                let patch = Destruction::Patch(Part::Main, writes::wipe(&node));
                self.take_on("ask-to-recycle", volume, patch, evidence, None);
            }
            volume::Decision::Recycled(evidence) => {
                let patch = Destruction::Patch(Part::Main, writes::recycled(volume));
                let told = Some(Notice::recycled());
                self.take("take-back-recycled", volume, patch, evidence, told);
            }
        }
    }

    fn decide_claim(&mut self, place: &Place) {
        let key = ObjectKey {
            kind: Kind::Claim,
            namespace: place.0.clone(),
            name: place.1.clone(),
        };
        // Whatever stops it now, it is decided again when that is over: until then no volume is for it.
        self.waiting.remove(place);
        let Some(claim) = self.known.claim(place).cloned() else {
            self.operations.stands(&key, None, self.now);
            // What is remembered may be about making it.
            if self.known.makers_of(place).is_empty() {
                self.forget(&key);
            }
            self.hush.forget(place);
            return;
        };
        self.operations
            .stands(&key, Some(&claim.meta.uid), self.now);
        if self.flights.is_blocked(&key) || self.committed.contains(place) {
            return;
        }
        let mark = migration::of_claim(&claim);
        let mut later = Vec::new();
        if self.keep_up(mark.map(Protection::Add), &mut later) {
            return;
        }
        let abandoned = volume::is_abandoned(&claim, &self.known, &self.options);
        if abandoned && self.gives_back(&claim) {
            return;
        }
        if self.options.protection {
            let used = self.known.is_used(place);
            if self.keep_up(protection::of_claim(&claim, used), &mut later) {
                return;
            }
        }
        if abandoned {
            return; // it goes: a volume reserved now would be given back at once
        }
        self.further_claim(place, &claim);
        self.catch_up(later);
    }

    /// Does what a claim needs that is kept up.
    fn further_claim(&mut self, place: &Place, claim: &Claim) {
        self.known.prepare(claim);
        let decision = claim::decide(claim, &self.known, &self.options);
        if !decision.wants_any_volume() || self.known.coming.best(claim).is_none() {
            self.hush.forget(place);
        } else if self.hush.holds(place) {
            self.waiting.insert(claim, true);
            return;
        }
        match decision {
            claim::Decision::Bind { volume, chosen } => {
                self.bind(place, claim, &volume, chosen);
            }
            claim::Decision::TakeClass(class) => {
                self.write(writes::set_default_class(claim, &class));
            }
            claim::Decision::Ask { provisioner, .. } => {
                self.begin_provisioning(claim, &provisioner);
                self.write(writes::ask_provisioner(claim, &provisioner));
            }
            claim::Decision::Wait(wait) => {
                if let Waiting::Provisioner(provisioner) = &wait.why {
                    self.begin_provisioning(claim, provisioner);
                }
                self.wait(claim, wait);
            }
            claim::Decision::Lose(loss) => self.lose(claim, loss),
        }
    }

    fn begin_provisioning(&mut self, claim: &Claim, provisioner: &str) {
        let (key, uid) = (claim_key(claim), &claim.meta.uid);
        self.operations.begin(key, uid, provisioner, self.now);
    }

    /// Sends the next of the four writes (B20).
    fn bind(&mut self, place: &Place, claim: &Claim, volume: &Volume, chosen: bool) {
        match next_step(volume, claim) {
            Step::Reserve(write) => {
                let class = claim
                    .class
                    .as_ref()
                    .filter(|class| chosen && self.known.class(class).is_none());
                let standing = class.map(|class| self.looks.standing(class, claim, volume));
                if standing == Some(Standing::Asked) {
                    self.waiting.insert(claim, true);
                    return;
                }
                let look = class
                    .filter(|_| standing == Some(Standing::Unknown))
                    .cloned();
                let mut then = Vec::new();
                if chosen && !self.known.is_reachable(volume) {
                    let notice = Notice::unreachable(&volume.meta.name);
                    then.push(event(claim_key(claim), &claim.meta.uid, notice));
                }
                let key = write.target.key.clone();
                if self.reserve(write, place, look, then) {
                    self.committed.insert(place.clone());
                } else if chosen && self.flights.is_waiting(&key) {
                    self.dirty.claims.insert(place.clone()); // another volume may do
                }
            }
            Step::Next(mut write) => {
                if self.options.unused_condition && write.step == "mark-claim-bound" {
                    unused::join(&mut write, claim, self.known.is_referred_to(place));
                }
                let unreadable =
                    unreadable_capacity(volume).filter(|_| write.step == "mark-claim-bound");
                let told = unreadable.map(|notice| {
                    event(
                        ObjectKey::volume(volume.meta.name.clone()),
                        &volume.meta.uid,
                        notice,
                    )
                });
                self.write_then(write, Some(place), told.into_iter().collect());
            }
            Step::Bound => {
                let key = claim_key(claim);
                self.operations.end(&key, self.now);
                self.all_well(&key);
                self.dirty.uses.insert(place.clone());
            }
            Step::NoCapacity => {
                let why = Waiting::NoCapacity(volume.meta.name.clone());
                self.tell_of(claim, why.notice());
            }
        }
    }

    fn wait(&mut self, claim: &Claim, wait: Wait) {
        let key = claim_key(claim);
        let notice = wait.why.notice();
        let owner = wait.taken_by.as_ref();
        self.tell_of(
            claim,
            notice.map(|n| n.taken_by(owner).beside(&wait.beside)),
        );
        let has_something = claim.phase != ClaimPhase::Pending || has_status(claim);
        if wait.pending && has_something {
            let step = "mark-claim-pending";
            let write = writes::mark_claim_without_volume(step, claim, ClaimPhase::Pending);
            self.write(write);
        } else if claim.phase == ClaimPhase::Bound {
            self.dirty.uses.insert(claim.meta.place()); // written by hand, or unbound by hand
        }
        if !self.flights.is_blocked(&key) {
            self.waiting.insert(claim, wait.any_volume);
        }
    }

    fn lose(&mut self, claim: &Claim, loss: Loss) {
        let lost = claim.phase == ClaimPhase::Lost;
        if !lost || has_status(claim) {
            let write =
                writes::mark_claim_without_volume("mark-claim-lost", claim, ClaimPhase::Lost);
            let told = event(claim_key(claim), &claim.meta.uid, loss.notice());
            let then = if lost { vec![] } else { vec![told] };
            let volume = claim.volume_name.clone();
            // That data is lost is never said on the word of a cache.
            let Some(evidence) = volume.map(|v| Evidence::VolumeLost(v, claim.meta.uid.clone()))
            else {
                self.write_then(write, None, then);
                return;
            };
            let destroy = Destroy {
                step: write.step,
                target: write.target,
                action: Destruction::Patch(write.part, write.patch),
                evidence: vec![evidence],
            };
            self.destroy(destroy, then);
        }
    }

    /// Looks for claims that a free volume can serve, and for no more than it takes.
    fn offer(&mut self, name: &Name) {
        while let Some(volume) = self.known.free.get(name) {
            let Some(place) = self.waiting.first_for(volume) else {
                break;
            };
            let class = volume.class.clone();
            self.decide_claim(&place);
            if self.waiting.contains(&place) {
                // It does not take what fits it: asking again would not end.
                if let Some(class) = class {
                    self.looks.postpone(&class, name);
                }
                break;
            }
        }
    }

    /// Keeps the volume, which is not being written, among the free ones exactly while it may be
    /// given away.
    fn shelve(&mut self, volume: &Arc<Volume>) {
        let name = &volume.meta.name;
        if !self.known.is_offerable(volume) {
            self.known.free.remove(name);
        } else if !self
            .known
            .free
            .get(name)
            .is_some_and(|known| Arc::ptr_eq(known, volume))
        {
            self.known.free.insert(volume.clone());
            self.offers.insert(name.clone());
        }
    }

    /// Deletes a volume's object; what protects its data from that goes once it is being deleted.
    fn drop_object(&mut self, volume: &Volume, evidence: Evidence) {
        if !volume.meta.is_deleting() {
            let told = match &volume.source {
                Source::HostPath { path, .. } => Some(Notice::object_dropped(path)),
                _ => None,
            };
            self.take("delete-volume", volume, Destruction::Delete, evidence, told);
        } else if volume
            .meta
            .finalizers
            .iter()
            .any(|f| **f == *names::VOLUME_CONTROLLER)
        {
            let patch = writes::without_finalizer(volume, names::VOLUME_CONTROLLER);
            let patch = Destruction::Patch(Part::Main, patch);
            self.take("let-volume-go", volume, patch, evidence, None);
        }
    }

    /// Has what is reserved for a claim that goes unbound given back first; returns whether the
    /// claim has to stay until then. Its being there is the only record that it was never bound.
    fn gives_back(&mut self, claim: &Claim) -> bool {
        let place = claim.meta.place();
        let back: Vec<Name> = self
            .known
            .reserved_for(&place)
            .filter(|volume| volume::goes_back(volume, claim))
            .map(|volume| volume.meta.name.clone())
            .collect();
        let any = !back.is_empty();
        let idle = |name: &Name| !self.flights.is_blocked(&ObjectKey::volume(name.clone()));
        self.dirty.volumes.extend(back.into_iter().filter(idle));
        any
    }

    /// Has the claims of a pod's ephemeral volumes made (X9).
    fn make_claims(&mut self, place: &Place) {
        let Some(pod) = self.known.pod(place).cloned() else {
            self.clashes.retain(|(pod, _), _| pod != place);
            self.forget(&pod_key(place));
            return;
        };
        for template in &pod.claim_templates {
            let claim = self.known.claim(&ephemeral::place(&pod, template)).cloned();
            let clash = (place.clone(), template.claim.clone());
            match ephemeral::decide(&pod, template, claim.as_deref()) {
                ephemeral::Decision::Rest => {
                    self.clashes.remove(&clash);
                    let topic = Topic::Claim(template.claim.clone());
                    self.told.clear(&pod_key(place), topic);
                }
                ephemeral::Decision::Clash(notice) => {
                    let claim = claim.map_or_else(|| pod.meta.uid.clone(), |c| c.meta.uid.clone());
                    let news = (pod.meta.uid.clone(), claim);
                    if self.clashes.get(&clash) != Some(&news) {
                        self.clashes.insert(clash, news);
                        self.say(pod_key(place), &pod.meta.uid, notice);
                    }
                }
                ephemeral::Decision::Create(create) => {
                    self.clashes.remove(&clash);
                    let sent = Sent {
                        step: create.step,
                        version: ResourceVersion::default(),
                        claim: None,
                        class: None,
                        then: Vec::new(),
                    };
                    self.send(create.key.clone(), sent, Effect::Create(create));
                }
            }
        }
    }

    fn decide_attributes_class(&mut self, name: &ClassName) {
        let key = ObjectKey::attributes_class(name);
        let Some(class) = self.known.attributes_class(name).cloned() else {
            self.forget(&key);
            return;
        };
        let used = self.known.is_attributes_class_used(name);
        if self.options.protection && !self.flights.is_blocked(&key) {
            match attributes_class::protection(&class, used) {
                None => {}
                Some(Protection::Add(write)) => self.write(write),
                Some(Protection::Lift(destroy)) => drop(self.destroy(destroy, vec![])),
            }
        }
    }

    /// Writes what pods are to a bound claim, where that is news (X5).
    fn note_use(&mut self, place: &Place) {
        let Some(claim) = self.known.claim(place).cloned() else {
            return;
        };
        let used = self.known.is_referred_to(place);
        if self.options.unused_condition
            && let Some(write) = unused::note(&claim, used)
        {
            self.write(write);
        }
    }

    fn tell_of(&mut self, claim: &Claim, notice: Option<Notice>) {
        match notice {
            Some(notice) => {
                self.tell(&claim_key(claim), Topic::State, &claim.meta.uid, notice);
            }
            None => self.all_well(&claim_key(claim)),
        }
    }

    /// There is nothing to tell about an object: what was told before may be told again.
    fn all_well(&mut self, key: &ObjectKey) {
        self.told.clear(key, Topic::State);
    }

    /// Tells something about an object unless it was the last that was told on this; returns whether
    /// it did.
    fn tell(&mut self, key: &ObjectKey, topic: Topic, uid: &Uid, notice: Notice) -> bool {
        let is_news = self.told.is_news(key, topic, uid, &notice);
        if is_news {
            self.say(key.clone(), uid, notice);
        }
        is_news
    }

    fn say(&mut self, about: ObjectKey, uid: &Uid, notice: Notice) {
        self.out.push(Effect::Event(event(about, uid, notice)));
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.told.forget(key);
        self.flights.forget(key);
        for step in UPKEEP {
            self.upkeep.forget(&(key.clone(), step));
        }
    }
}

/// What the claim should have been told during a resize, where that cannot be read.
fn unreadable_capacity(volume: &Volume) -> Option<Notice> {
    let text = volume.meta.annotations.get(names::PRE_RESIZE_CAPACITY)?;
    let unreadable = text.parse::<Quantity>().is_err();
    unreadable.then(|| Notice::unreadable_capacity(text))
}

fn pod_key(place: &Place) -> ObjectKey {
    ObjectKey {
        kind: Kind::Pod,
        namespace: place.0.clone(),
        name: place.1.clone(),
    }
}

fn has_status(claim: &Claim) -> bool {
    claim.status_capacity.is_some()
        || !claim.status_access_modes.is_empty()
        || (claim.status_attributes.as_ref()).is_some_and(|status| status.current.is_some())
}

fn event(about: ObjectKey, uid: &Uid, notice: Notice) -> Event {
    Event {
        about,
        uid: uid.clone(),
        severity: notice.severity,
        reason: notice.reason,
        message: notice.message,
        source: notice.source,
    }
}
