//! A cluster in memory: objects as JSON, and a binder that works on them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up shall panic"
)]

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use bitts_api::machine::{
    Create, Destruction, Effect, Event, Evidence, Input, Machine, Measure, Moment, NOW, Outcome,
    Part, Target,
};
use bitts_api::{Kind, Object, ObjectKey, Uid};
use bitts_binder::{Binder, Options, Retry};
use serde_json::{Value, json};

pub type BinderEffect = Effect<Infallible, Retry>;
pub type BinderInput = Input<Infallible, Retry>;

pub const KINDS: [Kind; 6] = [
    Kind::Volume,
    Kind::Claim,
    Kind::StorageClass,
    Kind::AttributesClass,
    Kind::Pod,
    Kind::Node,
];

/// What the API holds.
#[derive(Clone, Default)]
pub struct Store {
    pub objects: BTreeMap<ObjectKey, Value>,
    version: u64,
}

impl Store {
    fn stamp(&mut self, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        object
    }

    /// Adds an object; its uid is `uid-<name>` where it says none.
    pub fn create(&mut self, kind: Kind, mut object: Value) -> ObjectKey {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let name = text(&object["metadata"]["name"]);
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{name}").into();
        }
        if kind.namespaced() && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = "default".into();
        }
        let key = ObjectKey {
            kind,
            namespace: object["metadata"]["namespace"].as_str().map(Into::into),
            name: name.into(),
        };
        let object = self.stamp(object);
        assert!(self.objects.insert(key.clone(), object).is_none(), "{key}");
        key
    }

    /// Changes an object as a user would.
    pub fn edit(&mut self, key: &ObjectKey, patch: &Value) {
        let mut object = self.objects[key].clone();
        merge(&mut object, patch);
        let object = self.stamp(object);
        self.objects.insert(key.clone(), object);
    }

    pub fn delete(&mut self, key: &ObjectKey) -> Option<Uid> {
        self.version += 1;
        let object = self.objects.remove(key)?;
        Some(object["metadata"]["uid"].as_str().unwrap().into())
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        Some(read(key.kind, self.objects.get(key)?))
    }

    pub fn list(&self, kind: Kind) -> Vec<Object> {
        let of_kind = self.objects.iter().filter(|(key, _)| key.kind == kind);
        of_kind.map(|(_, object)| read(kind, object)).collect()
    }

    /// Applies a merge patch under its preconditions, to one half of the object (V11).
    fn patch(&mut self, target: &Target, part: Part, patch: &Value) -> Outcome {
        let Some(now) = self.get(&target.key).filter(|o| *o.uid() == target.uid) else {
            return Outcome::Gone;
        };
        if now.resource_version() != target.version {
            return Outcome::Conflict;
        }
        let halves = patch.as_object().unwrap().keys();
        for half in halves {
            let in_status = half == "status";
            assert_eq!(in_status, part == Part::Status, "{half} is not in {part:?}");
        }
        let mut patch = patch.clone();
        let conditions = patch.pointer_mut("/status/conditions");
        for condition in conditions
            .into_iter()
            .flat_map(|c| c.as_array_mut().unwrap())
        {
            if condition["lastTransitionTime"] == NOW {
                condition["lastTransitionTime"] = format!("at {}", self.version).into();
            }
        }
        self.edit(&target.key, &patch);
        let meta = &self.objects[&target.key]["metadata"];
        let held = meta["finalizers"]
            .as_array()
            .is_some_and(|all| !all.is_empty());
        if !meta["deletionTimestamp"].is_null() && !held {
            self.delete(&target.key);
        }
        Outcome::Done
    }

    /// Deletes an object, or marks it where finalizers hold it.
    fn mark_deleted(&mut self, target: &Target) -> Outcome {
        let Some(now) = self.get(&target.key).filter(|o| *o.uid() == target.uid) else {
            return Outcome::Gone;
        };
        if now.resource_version() != target.version {
            return Outcome::Conflict;
        }
        if now.meta().finalizers.is_empty() {
            self.delete(&target.key);
        } else {
            let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
            self.edit(&target.key, &deleting);
        }
        Outcome::Done
    }

    /// Makes an object where none of its name is.
    fn make(&mut self, create: &Create) -> Outcome {
        if self.objects.contains_key(&create.key) {
            return Outcome::Conflict;
        }
        let mut object = create.body.clone();
        object["metadata"]["name"] = json!(create.key.name);
        object["metadata"]["namespace"] = json!(create.key.namespace);
        self.create(create.key.kind, object);
        Outcome::Done
    }

    /// Reads a destruction's evidence again; returns what was found where it does not hold.
    fn refuted(&self, evidence: &Evidence) -> Option<Vec<Object>> {
        match evidence {
            Evidence::ClaimGone(key, uid) => {
                let found = self.get(key).filter(|o| o.uid() == uid)?;
                Some(vec![found])
            }
            Evidence::ClaimAbandoned(key, uid) => match self.get(key) {
                Some(Object::Claim(claim)) if claim.meta.uid == *uid => {
                    let abandoned = claim.meta.is_deleting() && claim.never_bound();
                    (!abandoned).then(|| vec![Object::Claim(claim)])
                }
                found => Some(found.into_iter().collect()),
            },
            Evidence::ClaimElsewhere(key, uid, volume) => match self.get(key) {
                Some(Object::Claim(claim)) if claim.meta.uid == *uid => {
                    let other = claim
                        .volume_name
                        .as_ref()
                        .is_some_and(|name| name != volume);
                    (!other).then(|| vec![Object::Claim(claim)])
                }
                found => Some(found.into_iter().collect()),
            },
            Evidence::VolumeLost(name, claim) => {
                let found = self.get(&ObjectKey::volume(name.clone()))?;
                let owner = match &found {
                    Object::Volume(volume) => volume.claim_ref.clone(),
                    _ => None,
                };
                let lost = owner.is_some_and(|r| r.uid.as_ref() != Some(claim));
                (!lost).then(|| vec![found])
            }
            Evidence::ClaimUnused(key) => {
                let mut pods = self.list(Kind::Pod);
                pods.retain(|object| match object {
                    Object::Pod(pod) => pod.meta.namespace == key.namespace && pod.holds(&key.name),
                    _ => false,
                });
                (!pods.is_empty()).then_some(pods)
            }
            Evidence::ClaimAtRest(key) => {
                let mut pods = self.list(Kind::Pod);
                pods.retain(|object| match object {
                    Object::Pod(pod) => {
                        pod.meta.namespace == key.namespace
                            && pod.claims().any(|c| *c == key.name)
                            && !pod.is_terminated()
                    }
                    _ => false,
                });
                (!pods.is_empty()).then_some(pods)
            }
            Evidence::AttributesClassUnused(class) => {
                let users = self.objects.values().filter(|o| {
                    let named = |at: &str| o.pointer(at) == Some(&json!(class));
                    named("/spec/volumeAttributesClassName")
                        || named("/status/currentVolumeAttributesClassName")
                        || named("/status/modifyVolumeStatus/targetVolumeAttributesClassName")
                });
                let users: Vec<_> = users.cloned().collect();
                (!users.is_empty()).then(|| {
                    let kind = |o: &Value| match o["metadata"]["namespace"].is_null() {
                        true => Kind::Volume,
                        false => Kind::Claim,
                    };
                    users.iter().map(|o| read(kind(o), o)).collect()
                })
            }
            Evidence::ClassAbsent(class) => Some(vec![self.get(&ObjectKey::storage_class(class))?]),
            other => panic!("the binder needs no such evidence: {other:?}"),
        }
    }
}

fn read(kind: Kind, object: &Value) -> Object {
    kind.read(object.to_string().as_bytes()).unwrap()
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

/// What is done to an effect on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is executed.
    Done,
    /// Somebody touches the object first.
    Touched,
    /// The API cannot be reached.
    Lost,
    /// It is executed, and the answer is lost.
    AnswerLost,
    /// The process dies before.
    DeathBefore,
    /// The process dies after.
    DeathAfter,
}

/// A binder, what it works on, and what happened.
pub struct World {
    pub store: Store,
    pub options: Options,
    binder: Binder,
    pub queue: VecDeque<BinderEffect>,
    pub timers: Vec<(Duration, Retry)>,
    pub events: Vec<Event>,
    /// The steps that took effect, in order.
    pub steps: Vec<String>,
    /// Every effect that the binder asked for.
    pub trace: Vec<BinderEffect>,
    pub deaths: u32,
    pub now: Moment,
}

impl World {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            // The objects of these tests carry no finalizers; `protection.rs` turns it on.
            options: Options {
                protection: false,
                // What is written when must not depend on it; `unused.rs` turns it on.
                unused_condition: false,
                ..Options::default()
            },
            binder: Binder::default(),
            queue: VecDeque::new(),
            timers: Vec::new(),
            events: Vec::new(),
            steps: Vec::new(),
            trace: Vec::new(),
            deaths: 0,
            now: Moment::default(),
        }
    }

    /// Starts a binder that knows nothing, and lists everything except `unseen` to it.
    pub fn start_without(&mut self, unseen: &[ObjectKey]) {
        self.binder = Binder::new(self.options);
        self.queue.clear();
        self.timers.clear();
        for kind in KINDS {
            let mut all = self.store.list(kind);
            all.retain(|object| !unseen.contains(&object.key()));
            assert!(self.queue.is_empty(), "decided before all was listed (B2)");
            self.feed(Input::Listed(kind, all));
        }
    }

    /// What the binder counts, under this name.
    pub fn measures(&self, name: &str) -> Vec<Measure> {
        let all = self.binder.measures().into_iter();
        all.filter(|measure| measure.name == name).collect()
    }

    pub fn start(&mut self) {
        self.start_without(&[]);
    }

    pub fn feed(&mut self, input: BinderInput) {
        let effects = self.binder.handle(self.now, input);
        for effect in effects {
            self.trace.push(effect.clone());
            match effect {
                Effect::Event(event) => self.events.push(event),
                Effect::Wake(after, retry) => self.timers.push((after, retry)),
                Effect::Task(never) => match never {},
                Effect::Follow(_) | Effect::Unfollow(_) => panic!("the binder watches all"),
                other => {
                    let twice = self.queue.iter().any(|e| key(e) == key(&other));
                    assert!(!twice, "two effects in flight for {}", key(&other));
                    self.queue.push_back(other);
                }
            }
        }
    }

    /// Feeds an object as it is now.
    pub fn see(&mut self, key: &ObjectKey) {
        let object = self.store.get(key).unwrap();
        self.feed(Input::Seen(object));
    }

    pub fn create(&mut self, kind: Kind, object: Value) -> ObjectKey {
        let key = self.store.create(kind, object);
        self.see(&key);
        key
    }

    pub fn edit(&mut self, key: &ObjectKey, patch: &Value) {
        self.store.edit(key, patch);
        self.see(key);
    }

    pub fn delete(&mut self, key: &ObjectKey) {
        if let Some(uid) = self.store.delete(key) {
            self.feed(Input::Deleted(key.clone(), uid));
        }
    }

    /// Executes the effect at `index` of the queue.
    pub fn execute(&mut self, index: usize, fate: Fate) {
        let effect = self.queue.remove(index).unwrap();
        let key = key(&effect).clone();
        if fate == Fate::DeathBefore {
            return self.die();
        }
        if fate == Fate::Touched && self.store.objects.contains_key(&key) {
            self.store
                .edit(&key, &json!({"metadata": {"labels": {"touched": "yes"}}}));
        }
        let outcome = if fate == Fate::Lost {
            Outcome::Failed("connection refused".into())
        } else {
            self.carry_out(&effect)
        };
        if fate == Fate::DeathAfter {
            return self.die();
        }
        if fate == Fate::AnswerLost {
            let failed = Outcome::Failed("timed out".into());
            return self.feed(Input::Finished(key, failed));
        }
        if fate != Fate::Lost {
            match self.store.get(&key) {
                Some(object) => self.feed(Input::Seen(object)),
                None => {
                    let uid = target(&effect).uid.clone();
                    self.feed(Input::Deleted(key.clone(), uid));
                }
            }
        }
        self.feed(Input::Finished(key, outcome));
    }

    fn carry_out(&mut self, effect: &BinderEffect) -> Outcome {
        let (step, outcome) = match effect {
            Effect::Create(c) => (c.step, self.store.make(c)),
            Effect::Write(w) => (w.step, self.store.patch(&w.target, w.part, &w.patch)),
            Effect::Destroy(d) => {
                // A volume that was never reserved has nobody to ask.
                assert!(!d.evidence.is_empty() || d.step == "unprotect-volume");
                let refuted = d.evidence.iter().find_map(|e| self.store.refuted(e));
                if let Some(found) = refuted {
                    for object in found {
                        self.feed(Input::Seen(object));
                    }
                    (d.step, Outcome::Spared)
                } else {
                    match &d.action {
                        Destruction::Patch(part, patch) => {
                            (d.step, self.store.patch(&d.target, *part, patch))
                        }
                        Destruction::Delete => (d.step, self.store.mark_deleted(&d.target)),
                    }
                }
            }
            other => panic!("not executed: {other:?}"),
        };
        if outcome == Outcome::Done {
            self.steps.push(format!("{step} {}", key(effect)));
        }
        outcome
    }

    fn die(&mut self) {
        self.deaths += 1;
        self.start();
    }

    /// The same, where a webhook refuses some steps.
    pub fn run_refusing(&mut self, steps: &[&str]) {
        while let Some(next) = self.queue.front() {
            if steps.contains(&step(next)) {
                let key = key(next).clone();
                self.queue.pop_front();
                let refused = Outcome::Refused("a webhook minds".into());
                self.feed(Input::Finished(key, refused));
            } else {
                self.execute(0, Fate::Done);
            }
        }
    }

    /// Executes what is asked for, in order, until nothing is.
    pub fn run(&mut self) {
        self.run_with(|_| Fate::Done);
    }

    pub fn run_with(&mut self, mut fate: impl FnMut(&BinderEffect) -> Fate) {
        for _ in 0..10_000 {
            let Some(next) = self.queue.front() else {
                return;
            };
            let fate = fate(next);
            self.execute(0, fate);
        }
        panic!(
            "does not come to rest: {:#?}",
            &self.trace[self.trace.len() - 10..]
        );
    }

    /// Lets every timer go off and runs on.
    pub fn wake(&mut self) {
        for (_, retry) in std::mem::take(&mut self.timers) {
            self.feed(Input::Alarm(retry));
        }
    }

    /// Runs until nothing is left to do and no timer runs.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            self.run();
            if self.timers.is_empty() {
                return;
            }
            self.wake();
        }
        panic!("keeps backing off: {:?}", self.timers);
    }

    /// The events as `<Type> <Reason>`.
    pub fn told(&self) -> Vec<String> {
        let told = |e: &Event| format!("{} {}", e.severity.as_str(), e.reason);
        self.events.iter().map(told).collect()
    }
}

pub fn target(effect: &BinderEffect) -> &Target {
    match effect {
        Effect::Write(write) => &write.target,
        Effect::Destroy(destroy) => &destroy.target,
        other => panic!("has no target: {other:?}"),
    }
}

pub fn key(effect: &BinderEffect) -> &ObjectKey {
    match effect {
        Effect::Create(create) => &create.key,
        other => &target(other).key,
    }
}

pub fn step(effect: &BinderEffect) -> &'static str {
    match effect {
        Effect::Write(write) => write.step,
        Effect::Destroy(destroy) => destroy.step,
        Effect::Create(create) => create.step,
        other => panic!("has no step: {other:?}"),
    }
}

/// A volume that is nobody's.
pub fn volume(name: &str, size: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "local": {"path": "/data"},
        },
        "status": {"phase": "Available"},
    })
}

/// A claim without a volume.
pub fn claim(name: &str, size: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "resources": {"requests": {"storage": size}},
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "storageClassName": "",
        },
        "status": {"phase": "Pending"},
    })
}
