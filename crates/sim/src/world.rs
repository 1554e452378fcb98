//! The world in which a life is led: the API, the binder's process, and what is on its way between
//! the two.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bitts_api::machine::{Destruction, Effect, Event, Evidence, Input, Machine, Moment, Outcome};
use bitts_api::{Claim, Kind, Object, ObjectKey, Uid, names};
use bitts_binder::{Binder, Differences, Options, Retry};
use serde_json::json;

use crate::actors;
use crate::invariants::{self, Broken, Invariant, Past};
use crate::life::{Fate, Life, Pick, Step};
use crate::plant::Bug;
use crate::store::{News, Store};

/// What the binder asks for.
pub type BinderEffect = Effect<Infallible, Retry>;
/// What the binder is told.
pub type BinderInput = Input<Infallible, Retry>;

const KINDS: [Kind; 6] = [
    Kind::Volume,
    Kind::Claim,
    Kind::StorageClass,
    Kind::AttributesClass,
    Kind::Pod,
    Kind::Node,
];

/// More effects than this without anything happening are no work but a circle.
const MOST_AT_REST: usize = 2_000;

/// One process that runs the binder. Other roles get a place beside it.
#[derive(Clone, Debug, Default)]
struct Process {
    binder: Binder,
    /// How far each watch is in the log.
    watched: BTreeMap<Kind, usize>,
    /// Where the log began for this process: a watch does not tell of before a restored API.
    since: usize,
    /// What was asked for and not executed.
    queue: Vec<BinderEffect>,
    timers: Vec<Retry>,
    told: BTreeMap<ObjectKey, (Uid, &'static str, String)>,
}

/// A world.
#[derive(Clone, Debug)]
pub struct World {
    /// The API.
    pub store: Store,
    /// How many effects were executed.
    pub executed: usize,
    /// Every effect that was asked for, in order.
    pub trace: Vec<BinderEffect>,
    options: Options,
    process: Process,
    /// Requests of processes that are no more.
    late: Vec<BinderEffect>,
    /// What the provisioner is at work on.
    making: Vec<Claim>,
    past: Past,
    bug: Option<Bug>,
    chance: u64,
    /// The process dies after this many effects.
    cut: Option<usize>,
}

impl World {
    /// A world with its classes and nothing else. `chance` must not matter: it is what a planted
    /// bug depends on that is not in its inputs.
    ///
    /// # Errors
    /// When the first list already breaks something.
    pub fn new(
        life: &Life,
        bug: Option<Bug>,
        cut: Option<usize>,
        chance: u64,
    ) -> Result<Self, Broken> {
        let mut store = Store::default();
        store.admission = life.admission;
        if !life.late_classes {
            for class in actors::classes() {
                store.create(Kind::StorageClass, class);
            }
        }
        let mut options = Options::default();
        if life.strict {
            options.differences = Differences::NONE;
        }
        if bug == Some(Bug::KeepReservations) {
            use bitts_binder::Difference;
            options.differences = options.differences.set(Difference::GiveBack, false);
        }
        let mut world = Self {
            store,
            executed: 0,
            trace: Vec::new(),
            options,
            process: Process::default(),
            late: Vec::new(),
            making: Vec::new(),
            past: Past {
                strict: life.strict,
                // Without a finalizer from the start a claim can go unseen.
                disturbed: !life.admission,
                ..Past::default()
            },
            bug,
            chance,
            cut,
        };
        world.start()?;
        Ok(world)
    }

    /// Kills the process after so many effects.
    pub fn cut(&mut self, after: usize) {
        self.cut = Some(after);
    }

    fn start(&mut self) -> Result<(), Broken> {
        self.past.died |= self.executed > 0;
        if self.past.died && self.bug == Some(Bug::NextIsOlder) {
            self.options.unused_condition = false;
        }
        self.process = Process {
            binder: Binder::new(self.options),
            since: self.store.log().len(),
            ..Process::default()
        };
        self.list_all()
    }

    fn list_all(&mut self) -> Result<(), Broken> {
        for kind in KINDS {
            self.process.watched.insert(kind, self.store.log().len());
            self.feed(Input::Listed(kind, self.store.list(kind)))?;
        }
        Ok(())
    }

    fn feed(&mut self, input: BinderInput) -> Result<(), Broken> {
        let input = match self.bug {
            Some(bug) => bug.input(input),
            None => Some(input),
        };
        let Some(input) = input else { return Ok(()) };
        let mut effects = self.process.binder.handle(Moment::default(), input);
        if let Some(bug) = self.bug {
            self.chance += 1;
            effects = bug.effects(effects, self.chance / 3);
        }
        for effect in effects {
            self.trace.push(effect.clone());
            match effect {
                Effect::Event(event) => self.tell(event)?,
                Effect::Wake(_, retry) => self.process.timers.push(retry),
                Effect::Task(never) => match never {},
                Effect::Follow(_) | Effect::Unfollow(_) => {} // the binder watches all
                effect => {
                    let key = key(&effect);
                    if self.process.queue.iter().any(|e| self::key(e) == key) {
                        return Err(Invariant::OneInFlight.broken(format!("{key:?}")));
                    }
                    self.process.queue.push(effect);
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, event: Event) -> Result<(), Broken> {
        let news = (event.uid, event.reason, event.message);
        let last = self.process.told.insert(event.about, news.clone());
        if last.as_ref() == Some(&news) {
            return Err(Invariant::ToldOnce.broken(format!("{news:?}")));
        }
        Ok(())
    }

    /// Does one step of a life.
    ///
    /// # Errors
    /// What the step broke.
    pub fn step(&mut self, step: Step) -> Result<(), Broken> {
        match step {
            Step::NewVolume(pick) => drop(self.store.create(Kind::Volume, actors::volume(pick))),
            Step::RestoredVolume(pick) => {
                let mut volume = actors::volume(pick);
                volume["spec"]["claimRef"] = json!({
                    "namespace": "default",
                    "name": format!("c-{}", pick % 8),
                    "uid": "from-elsewhere",
                });
                self.store.create(Kind::Volume, volume);
            }
            Step::NewClaim(pick) => drop(self.store.create(Kind::Claim, actors::claim(pick))),
            Step::NewPod(pick) => drop(self.store.create(Kind::Pod, actors::pod(pick))),
            Step::DeleteClaim(pick) => self.with(Kind::Claim, pick, Store::delete),
            Step::DeleteVolume(pick) => self.with(Kind::Volume, pick, Store::delete),
            Step::DeletePod(pick) => self.with(Kind::Pod, pick, Store::delete),
            Step::PodEnds(pick) => {
                self.edit(Kind::Pod, pick, &json!({"status": {"phase": "Succeeded"}}));
            }
            Step::Label(pick) => {
                let kind = [Kind::Volume, Kind::Claim][(pick % 2) as usize];
                self.edit(
                    kind,
                    pick / 2,
                    &json!({"metadata": {"labels": {"app": "db"}}}),
                );
            }
            Step::ChangePolicy(pick) => {
                let policy = ["Retain", "Delete", "Recycle"][(pick % 3) as usize];
                let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
                self.edit(Kind::Volume, pick / 3, &patch);
            }
            Step::ClearClaimRef(pick) => {
                self.edit(Kind::Volume, pick, &json!({"spec": {"claimRef": null}}));
            }
            Step::DefaultClass(on) => {
                let key = ObjectKey {
                    kind: Kind::StorageClass,
                    namespace: None,
                    name: "gold".into(),
                };
                let text = if on { "true" } else { "false" };
                let patch = json!({"metadata": {"annotations": {names::DEFAULT_CLASS: text}}});
                self.store.edit(&key, &patch);
            }
            Step::NewClass(pick) => {
                let classes = actors::classes();
                let at = pick as usize % classes.len();
                self.store.create(Kind::StorageClass, classes[at].clone());
            }
            Step::DeleteClass(pick) => self.with(Kind::StorageClass, pick, Store::delete),
            Step::Schedule(pick) => self.with(Kind::Pod, pick, schedule),
            Step::Provision(pick) => self.provision(pick),
            Step::CollectGarbage => actors::collect_garbage(&mut self.store),
            Step::Execute(pick, fate) => {
                if let Some(at) = index(pick, self.process.queue.len()) {
                    self.execute(at, fate)?;
                }
            }
            Step::Deliver(pick) => self.deliver(KINDS[index(pick, KINDS.len()).unwrap_or(0)], 3)?,
            Step::Timers => self.wake()?,
            Step::Repeat(pick) => self.repeat(pick)?,
            Step::Relist(pick) => {
                let kind = KINDS[index(pick, KINDS.len()).unwrap_or(0)];
                self.process.watched.insert(kind, self.store.log().len());
                self.feed(Input::Listed(kind, self.store.list(kind)))?;
            }
            Step::Restart => self.start()?,
            Step::LoseLease => {
                let sent = std::mem::take(&mut self.process.queue);
                self.late.extend(sent);
                self.start()?;
            }
            Step::Late(pick) => {
                if let Some(at) = index(pick, self.late.len()) {
                    let effect = self.late.remove(at);
                    self.carry_out(&effect)?;
                }
            }
            Step::BackUp => self.store.back_up(),
            Step::Restore => self.restore()?,
        }
        self.remember();
        Ok(())
    }

    fn remember(&mut self) {
        for claim in actors::claims(&self.store) {
            if !self.past.claims.contains(&claim.meta.uid) {
                self.past.claims.insert(claim.meta.uid.clone());
            }
            if claim.bind_completed() && !self.past.bound.contains(&claim.meta.uid) {
                self.past.bound.insert(claim.meta.uid.clone());
            }
        }
    }

    fn pick(&self, kind: Kind, pick: Pick) -> Option<ObjectKey> {
        let keys = self.store.iter().map(|(key, _)| key);
        let keys: Vec<_> = keys.filter(|key| key.kind == kind).collect();
        index(pick, keys.len()).map(|at| keys[at].clone())
    }

    fn with(&mut self, kind: Kind, pick: Pick, act: impl Fn(&mut Store, &ObjectKey)) {
        if let Some(key) = self.pick(kind, pick) {
            act(&mut self.store, &key);
        }
    }

    fn edit(&mut self, kind: Kind, pick: Pick, patch: &serde_json::Value) {
        self.with(kind, pick, |store, key| store.edit(key, patch));
    }

    /// The provisioner notes a claim, or makes a volume for one that it noted, or deletes volumes.
    fn provision(&mut self, pick: Pick) {
        match pick % 3 {
            0 => {
                let key = self.pick(Kind::Claim, pick / 3);
                let claim = key.and_then(|key| self.store.get(&key));
                if let Some(Object::Claim(claim)) = claim.map(|s| &s.object) {
                    self.making.push(Claim::clone(claim));
                }
            }
            1 => {
                if let Some(claim) = self.making.pop() {
                    actors::provision(&mut self.store, &claim);
                }
            }
            _ => actors::reap(&mut self.store),
        }
    }

    /// Delivers up to `most` of what a watch has not told yet.
    fn deliver(&mut self, kind: Kind, most: usize) -> Result<(), Broken> {
        let mut told = 0;
        loop {
            let at = self.process.watched.entry(kind).or_default();
            let Some((of, news)) = self.store.log().get(*at).cloned() else {
                return Ok(());
            };
            *at += 1;
            if of == kind {
                self.feed(match news {
                    News::Set(object) => Input::Seen(object),
                    News::Gone(key, uid) => Input::Deleted(key, uid),
                })?;
                told += 1;
                if told == most {
                    return Ok(());
                }
            }
        }
    }

    /// A watch that broke off begins again a little before.
    fn repeat(&mut self, pick: Pick) -> Result<(), Broken> {
        let kind = KINDS[index(pick, 2).unwrap_or(0)];
        let at = self.process.watched.entry(kind).or_default();
        *at = at
            .saturating_sub((pick % 7) as usize)
            .max(self.process.since);
        self.deliver(kind, 4)
    }

    fn wake(&mut self) -> Result<(), Broken> {
        for retry in std::mem::take(&mut self.process.timers) {
            self.feed(Input::Alarm(retry))?;
        }
        Ok(())
    }

    /// The API goes back to a backup: what was sent fails, and everything is listed anew.
    fn restore(&mut self) -> Result<(), Broken> {
        if !self.store.restore() {
            return Ok(());
        }
        self.past.disturbed = true;
        self.late.clear();
        self.start()
    }

    fn execute(&mut self, at: usize, fate: Fate) -> Result<(), Broken> {
        let effect = self.process.queue.remove(at);
        self.executed += 1;
        let cut = self.cut == Some(self.executed);
        if fate == Fate::DeathBefore {
            return self.start();
        }
        let key = key(&effect);
        if fate == Fate::Touched {
            let patch = json!({"metadata": {"labels": {"touched": self.executed.to_string()}}});
            self.store.edit(&key, &patch);
        }
        let outcome = match fate {
            Fate::Lost => Outcome::Failed("connection refused".into()),
            _ => self.carry_out(&effect)?,
        };
        if fate == Fate::DeathAfter || cut {
            return self.start();
        }
        if matches!(fate, Fate::Lost | Fate::AnswerLost) {
            return self.feed(Input::Finished(key, Outcome::Failed("timed out".into())));
        }
        match (self.store.get(&key), &effect) {
            (Some(stored), _) => self.feed(Input::Seen(stored.object.clone()))?,
            (None, Effect::Write(w)) => {
                self.feed(Input::Deleted(key.clone(), w.target.uid.clone()))?;
            }
            (None, Effect::Destroy(d)) => {
                self.feed(Input::Deleted(key.clone(), d.target.uid.clone()))?;
            }
            (None, _) => {}
        }
        self.feed(Input::Finished(key, outcome))?;
        if self.bug == Some(Bug::Restless) {
            self.process.queue.push(effect);
        }
        Ok(())
    }

    /// Does to the API what an effect says, and checks what became of it.
    fn carry_out(&mut self, effect: &BinderEffect) -> Result<Outcome, Broken> {
        let ignored = self.bug == Some(Bug::NoPreconditions);
        let before = self.store.objects();
        let (step, outcome) = match effect {
            Effect::Write(w) => {
                let outcome = self.store.patch(&w.target, w.part, &w.patch, ignored);
                (w.step, outcome)
            }
            Effect::Create(create) => (create.step, self.store.make(create)),
            Effect::Destroy(d) => {
                if d.step == "release-volume" && self.bug == Some(Bug::ForgetReleases) {
                    return Ok(Outcome::Done);
                }
                let surplus = matches!(d.evidence[..], [Evidence::ClaimElsewhere(..)]);
                if surplus && self.bug == Some(Bug::KeepSurplus) {
                    return Ok(Outcome::Done);
                }
                let bug = self.bug;
                let read = d
                    .evidence
                    .iter()
                    .filter(|e| !bug.is_some_and(|b| b.believes(e)));
                if let Some(found) = read.into_iter().find_map(|e| self.store.refuted(e)) {
                    for object in found {
                        self.feed(Input::Seen(object))?;
                    }
                    return Ok(Outcome::Spared);
                }
                let outcome = match &d.action {
                    Destruction::Patch(part, patch) => {
                        self.store.patch(&d.target, *part, patch, ignored)
                    }
                    Destruction::Delete => self.store.remove(&d.target),
                };
                (d.step, outcome)
            }
            Effect::Event(_) | Effect::Wake(..) | Effect::Follow(_) | Effect::Unfollow(_) => {
                return Ok(Outcome::Done);
            }
            Effect::Task(never) => match *never {},
        };
        if outcome == Outcome::Done {
            let key = key(effect);
            let after = self.store.get(&key).map(|s| &s.object);
            invariants::landed(&before, step, &key, after, &self.past)?;
        }
        self.remember();
        Ok(outcome)
    }

    /// Lets everybody finish, without faults, and checks what came of it.
    ///
    /// # Errors
    /// What does not hold at rest, or that there is none.
    pub fn settle(&mut self) -> Result<(), Broken> {
        for effect in std::mem::take(&mut self.late) {
            self.carry_out(&effect)?;
        }
        let rested = self.rest();
        if let Err(broken) = &rested
            && broken.invariant != Invariant::Quiet
        {
            return rested;
        }
        // What is wrong says more than that somebody goes on trying to mend it.
        invariants::at_rest(&self.store, &self.past)?;
        rested?;
        // A new process finds nothing to do.
        let before = self.executed;
        self.start()?;
        self.rest()?;
        if self.executed != before {
            let found: Vec<_> = self.trace.iter().rev().take(4).collect();
            return Err(Invariant::Quiet.broken(format!("a new process did {found:#?}")));
        }
        Ok(())
    }

    fn rest(&mut self) -> Result<(), Broken> {
        let most = self.executed + MOST_AT_REST;
        loop {
            let before = (self.store.log().len(), self.executed);
            for kind in KINDS {
                self.deliver(kind, usize::MAX)?;
            }
            while !self.process.queue.is_empty() {
                self.execute(0, Fate::Done)?;
                if self.executed > most {
                    let last: Vec<_> = self.trace.iter().rev().take(4).collect();
                    return Err(Invariant::Quiet.broken(format!("no rest: {last:#?}")));
                }
            }
            self.wake()?;
            for claim in std::mem::take(&mut self.making) {
                actors::provision(&mut self.store, &claim);
            }
            let claims: Vec<_> = actors::claims(&self.store).cloned().collect();
            for claim in claims {
                actors::provision(&mut self.store, &claim);
            }
            actors::reap(&mut self.store);
            actors::collect_garbage(&mut self.store);
            for pod in self.store.list(Kind::Pod) {
                schedule(&mut self.store, &pod.key());
            }
            let idle = self.process.queue.is_empty() && self.process.timers.is_empty();
            if idle && before == (self.store.log().len(), self.executed) {
                return Ok(());
            }
            if self.store.log().len() > before.0 + MOST_AT_REST {
                return Err(Invariant::Quiet.broken("others do not come to rest"));
            }
        }
    }
}

fn schedule(store: &mut Store, key: &ObjectKey) {
    if let Some(Object::Pod(pod)) = store.get(key).map(|s| s.object.clone()) {
        actors::schedule(store, &pod);
    }
}

fn index(pick: Pick, len: usize) -> Option<usize> {
    (len > 0).then(|| pick as usize % len)
}

/// The object that an effect is for; none for what is no request.
fn key(effect: &BinderEffect) -> ObjectKey {
    match effect {
        Effect::Write(write) => write.target.key.clone(),
        Effect::Destroy(destroy) => destroy.target.key.clone(),
        Effect::Create(create) => create.key.clone(),
        Effect::Event(event) => event.about.clone(),
        Effect::Follow(key) | Effect::Unfollow(key) => key.clone(),
        Effect::Wake(..) => ObjectKey::volume(""),
        Effect::Task(never) => match *never {},
    }
}
