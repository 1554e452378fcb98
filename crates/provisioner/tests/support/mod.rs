//! A cluster in memory with one node, and a provisioner whose disks are real directories.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "each test crate uses its own part, and one that cannot set itself up shall panic; its \
              trash has real times"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitts_api::machine::{
    Create, Destruction, Effect, Event, Evidence, Input, Machine, Moment, Outcome, Target,
};
use bitts_api::{Kind, Object, ObjectKey, Uid};
use bitts_provisioner::{
    Alarm, Errand, Ground, LocalWorker, Options, Provisioner, Reply, Report, Share, Site, Task,
};
use serde_json::{Value, json};

pub type Step = Effect<Errand, Alarm>;

pub const NODE: &str = "n1";

/// What is wrong with the world, to show that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// The worker forgets what it began, and begins again elsewhere.
    MakesAnew,
    /// What speaks for a destruction is not looked at again.
    NoEvidence,
}

/// What is done to an effect on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// Somebody touches the object first.
    Touched,
    /// The API cannot be reached; of a task, it fails.
    Lost,
    /// It is executed, and the process dies.
    DeathAfter,
    /// The process dies before.
    DeathBefore,
}

pub struct World {
    pub objects: BTreeMap<ObjectKey, Value>,
    version: u64,
    /// What the watches have yet to tell.
    news: VecDeque<(ObjectKey, Uid)>,
    pub machine: Provisioner,
    pub worker: LocalWorker,
    pub temp: tempfile::TempDir,
    pub queue: VecDeque<Step>,
    pub timers: Vec<(Duration, Alarm)>,
    pub events: Vec<Event>,
    pub steps: Vec<String>,
    pub plant: Plant,
    pub options: Options,
    /// Servers that do not answer.
    pub down: BTreeSet<String>,
    /// Objects that the machine asked to be told about.
    pub followed: BTreeSet<ObjectKey>,
    shares: BTreeMap<PathBuf, LocalWorker>,
    made_anew: u32,
}

impl World {
    /// A world with a node, two classes and no claim.
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("disk");
        std::fs::create_dir(&root).unwrap();
        let mut world = Self {
            objects: BTreeMap::new(),
            version: 0,
            news: VecDeque::new(),
            machine: Provisioner::new(Options::new(NODE.into())),
            worker: LocalWorker::new(&[root]),
            temp,
            queue: VecDeque::new(),
            timers: Vec::new(),
            events: Vec::new(),
            steps: Vec::new(),
            plant: Plant::Nothing,
            options: Options::new(NODE.into()),
            down: BTreeSet::new(),
            followed: BTreeSet::new(),
            shares: BTreeMap::new(),
            made_anew: 0,
        };
        world.put(
            Kind::Node,
            json!({"metadata": {"name": NODE, "uid": "node",
                "labels": {"kubernetes.io/hostname": "host-1", "zone": "a"}}}),
        );
        world.put(Kind::StorageClass, class("fast", json!({})));
        world.put(
            Kind::StorageClass,
            class("keep", json!({"reclaimPolicy": "Retain"})),
        );
        world
    }

    pub fn root(&self) -> PathBuf {
        self.temp.path().join("disk")
    }

    /// The names of all directories at the root but bitts' own.
    pub fn directories(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.root()).unwrap();
        let mut names: Vec<String> = all
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".bitts")
            .collect();
        names.sort();
        names
    }

    /// The names of all records, those of volumes that are not confirmed included.
    pub fn records(&self) -> Vec<String> {
        let places = [".bitts/begun", ".bitts/volumes"].map(|place| self.root().join(place));
        let all = places.iter().flat_map(std::fs::read_dir).flatten();
        let mut names: Vec<String> = all
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A provisioner that knows nothing, told all there is.
    pub fn start(&mut self) {
        self.machine = Provisioner::new(self.options.clone());
        self.worker = LocalWorker::new(&[self.root()]);
        self.shares.clear();
        self.followed.clear();
        self.queue.clear();
        self.timers.clear();
        self.news.clear();
        for kind in self.machine.watches().into_iter().map(|watch| watch.kind) {
            let all = self.objects.iter().filter(|(key, _)| key.kind == kind);
            let all = all.map(|(key, object)| read(key.kind, object)).collect();
            self.feed(Input::Listed(kind, all));
        }
    }

    /// A world of shares without classes.
    pub fn of_shares() -> Self {
        let mut world = Self::new();
        world.options = Options::of_shares();
        world.objects.clear();
        world.start();
        world
    }

    /// Where a share lies.
    pub fn share(&self, server: &str, path: &str) -> PathBuf {
        let place = self.temp.path().join(server);
        place.join(path.trim_start_matches('/'))
    }

    pub fn feed(&mut self, input: Input<Reply, Alarm>) {
        let mut found = Vec::new();
        for effect in self.machine.handle(Moment::default(), input) {
            match effect {
                Effect::Event(event) => self.events.push(event),
                Effect::Wake(after, alarm) => self.timers.push((after, alarm)),
                Effect::Follow(key) => {
                    self.followed.insert(key.clone());
                    found.push(key);
                }
                Effect::Unfollow(key) => {
                    self.followed.remove(&key);
                }
                other => {
                    let of = subject(&other);
                    assert!(
                        of.is_empty() || !self.queue.iter().any(|e| subject(e) == of),
                        "two effects in flight for {of}"
                    );
                    self.queue.push_back(other);
                }
            }
        }
        for key in found {
            let object = self.get(&key);
            self.feed(Input::Found(key, object));
        }
    }

    fn stamp(&mut self, key: &ObjectKey, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let uid = Uid::from(object["metadata"]["uid"].as_str().unwrap());
        self.objects.insert(key.clone(), object);
        self.news.push_back((key.clone(), uid));
    }

    /// Adds or replaces an object; the watch has yet to tell.
    pub fn put(&mut self, kind: Kind, object: Value) -> ObjectKey {
        let key = ObjectKey {
            kind,
            namespace: object["metadata"]["namespace"].as_str().map(Into::into),
            name: object["metadata"]["name"].as_str().unwrap().into(),
        };
        self.stamp(&key, object);
        key
    }

    pub fn edit(&mut self, key: &ObjectKey, patch: &Value) {
        let mut object = self.objects[key].clone();
        merge(&mut object, patch);
        self.stamp(key, object);
        self.collect(key);
    }

    /// Asks for an object to be deleted.
    pub fn delete(&mut self, key: &ObjectKey) {
        if self.objects.contains_key(key) {
            let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
            self.edit(key, &deleting);
        }
    }

    /// What nothing holds goes.
    fn collect(&mut self, key: &ObjectKey) {
        let meta = &self.objects[key]["metadata"];
        let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if meta["deletionTimestamp"].is_string() && !held {
            let uid = Uid::from(meta["uid"].as_str().unwrap());
            self.objects.remove(key);
            self.version += 1;
            self.news.push_back((key.clone(), uid));
        }
    }

    /// A watch tells the next thing.
    pub fn tell(&mut self) -> bool {
        let Some((key, uid)) = self.news.pop_front() else {
            return false;
        };
        if key.kind == Kind::StorageCapacity && !self.followed.contains(&key) {
            return true;
        }
        match self.get(&key) {
            Some(object) if *object.uid() == uid => self.feed(Input::Seen(object)),
            Some(_) | None => self.feed(Input::Deleted(key, uid)),
        }
        true
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        Some(read(key.kind, self.objects.get(key)?))
    }

    /// Executes the effect at `index` of the queue.
    pub fn execute(&mut self, index: usize, fate: Fate) {
        let effect = self.queue.remove(index).unwrap();
        if fate == Fate::DeathBefore {
            return self.start();
        }
        if let Effect::Task(errand) = effect {
            return self.perform(errand, fate);
        }
        let key = match &effect {
            Effect::Create(create) => create.key.clone(),
            Effect::Write(write) => write.target.key.clone(),
            Effect::Destroy(destroy) => destroy.target.key.clone(),
            other => panic!("not executed: {other:?}"),
        };
        if fate == Fate::Lost {
            let failed = Outcome::Failed("connection refused".into());
            return self.feed(Input::Finished(key, failed));
        }
        if fate == Fate::Touched && self.objects.contains_key(&key) {
            self.edit(&key, &json!({"metadata": {"labels": {"touched": "yes"}}}));
        }
        let uid = self.get(&key).map(|o| o.uid().clone());
        let outcome = self.carry_out(&effect);
        if fate == Fate::DeathAfter {
            return self.start();
        }
        match (self.get(&key), uid) {
            (Some(object), _) => self.feed(Input::Seen(object)),
            (None, Some(uid)) => self.feed(Input::Deleted(key.clone(), uid)),
            (None, None) => {}
        }
        self.feed(Input::Finished(key, outcome));
    }

    fn perform(&mut self, Errand { site, task }: Errand, fate: Fate) {
        if fate == Fate::Lost && !matches!(task, Task::Scan | Task::Survey) {
            let report = match task {
                Task::Make(record) => Report::NotMade(
                    record.volume,
                    bitts_provisioner::Trouble {
                        message: "input/output error".into(),
                        elsewhere: false,
                    },
                ),
                Task::Confirm(v, _)
                | Task::Discard(v, _)
                | Task::Grow { volume: v, .. }
                | Task::Remove { volume: v, .. } => Report::Failed(v, "input/output error".into()),
                Task::Scan | Task::Survey => unreachable!(),
            };
            return self.feed(Input::Report(Reply { site, report }));
        }
        if let (Plant::MakesAnew, Task::Make(_)) = (self.plant, &task) {
            self.made_anew += 1;
            let other = format!("anew-{}", self.made_anew);
            std::fs::create_dir_all(self.root().join(&other)).unwrap();
        }
        let name = match &task {
            Task::Scan if site != Site::Disks => format!("scan {site}"),
            Task::Scan => "scan".to_owned(),
            Task::Survey => "survey".to_owned(),
            Task::Make(record) => format!("make {}", record.volume),
            Task::Confirm(volume, _) => format!("confirm {volume}"),
            Task::Discard(volume, _) => format!("discard {volume}"),
            Task::Grow { volume, bytes, .. } => format!("grow {volume} to {bytes}"),
            Task::Remove { volume, .. } => format!("remove {volume}"),
        };
        let report = match &site {
            Site::Disks => self.worker.perform_here(task),
            Site::Share(share) => self.perform_on(share, task),
        };
        if !matches!(
            report,
            Report::NotMade(..)
                | Report::Failed(..)
                | Report::NotGrown(..)
                | Report::ScanFailed(_)
                | Report::Unreachable(..)
        ) {
            self.steps.push(name);
        }
        if fate == Fate::DeathAfter {
            return self.start();
        }
        self.feed(Input::Report(Reply { site, report }));
    }

    /// What is done on a share, as its worker does it.
    fn perform_on(&mut self, share: &Share, task: Task) -> Report {
        assert!(matches!(self.options.ground, Ground::Shares), "{share}");
        let why = format!("{share}: it does not answer");
        if self.down.contains(&*share.server) {
            return match task {
                Task::Scan | Task::Survey => Report::ScanFailed(why),
                Task::Make(record) => Report::Unreachable(record.volume, why),
                Task::Confirm(v, _)
                | Task::Discard(v, _)
                | Task::Grow { volume: v, .. }
                | Task::Remove { volume: v, .. } => Report::Unreachable(v, why),
            };
        }
        let root = self.share(&share.server, &share.path);
        std::fs::create_dir_all(&root).unwrap();
        let task = match task {
            Task::Remove { volume, uid, path } => {
                let below = Path::new(&*path).strip_prefix(&*share.path).unwrap();
                let path = root.join(below).to_str().unwrap().into();
                Task::Remove { volume, uid, path }
            }
            task => task,
        };
        let worker = self.shares.entry(root.clone());
        let worker = worker.or_insert_with(|| {
            let worker = LocalWorker::new(std::slice::from_ref(&root));
            assert!(matches!(
                worker.perform_here(Task::Scan),
                Report::Scanned(_)
            ));
            worker
        });
        match worker.perform_here(task) {
            Report::Made(volume, path) => {
                let below = Path::new(&*path).strip_prefix(&root).unwrap();
                let path = Path::new(&*share.path).join(below);
                Report::Made(volume, path.to_str().unwrap().into())
            }
            report => report,
        }
    }

    fn carry_out(&mut self, effect: &Step) -> Outcome {
        let (step, key, outcome) = match effect {
            Effect::Create(c) => (c.step, &c.key, self.make(c)),
            Effect::Write(w) => (w.step, &w.target.key, self.patch(&w.target, &w.patch)),
            Effect::Destroy(d) => {
                assert!(!d.evidence.is_empty(), "{d:?}");
                let refuted = d.evidence.iter().find_map(|e| self.refuted(e));
                let outcome =
                    if let (Some(found), true) = (refuted, self.plant != Plant::NoEvidence) {
                        for object in found {
                            self.feed(Input::Seen(object));
                        }
                        Outcome::Spared
                    } else {
                        match &d.action {
                            Destruction::Patch(_, patch) => self.patch(&d.target, patch),
                            Destruction::Delete => match self.check(&d.target) {
                                Outcome::Done => {
                                    self.delete(&d.target.key);
                                    Outcome::Done
                                }
                                refused => refused,
                            },
                        }
                    };
                (d.step, &d.target.key, outcome)
            }
            other => panic!("not executed: {other:?}"),
        };
        if outcome == Outcome::Done {
            self.steps.push(format!("{step} {key}"));
        }
        outcome
    }

    fn make(&mut self, create: &Create) -> Outcome {
        if self.objects.contains_key(&create.key) {
            return Outcome::Conflict;
        }
        let mut object = create.body.clone();
        object["metadata"]["name"] = json!(create.key.name);
        if let Some(namespace) = &create.key.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        object["status"] = json!({"phase": "Pending"});
        self.put(create.key.kind, object);
        Outcome::Done
    }

    fn check(&self, target: &Target) -> Outcome {
        match self.get(&target.key).filter(|o| *o.uid() == target.uid) {
            None => Outcome::Gone,
            Some(now) if now.resource_version() != target.version => Outcome::Conflict,
            Some(_) => Outcome::Done,
        }
    }

    fn patch(&mut self, target: &Target, patch: &Value) -> Outcome {
        let outcome = self.check(target);
        if outcome == Outcome::Done {
            self.edit(&target.key, patch);
        }
        outcome
    }

    fn refuted(&self, evidence: &Evidence) -> Option<Vec<Object>> {
        match evidence {
            Evidence::ClaimGone(key, uid) => {
                let found = self.get(key).filter(|o| o.uid() == uid)?;
                Some(vec![found])
            }
            Evidence::ClassAbsent(class) => {
                let found = self.get(&ObjectKey::storage_class(class))?;
                Some(vec![found])
            }
            // There are no pods here.
            Evidence::ClaimAtRest(_) => None,
            other => panic!("the provisioner needs no such evidence: {other:?}"),
        }
    }

    /// Executes what is asked for, and tells what is new, until there is neither, whatever time passes.
    pub fn run(&mut self) {
        self.advance();
        while self.confirm() {
            self.advance();
        }
    }

    /// The same before any time passes.
    pub fn advance(&mut self) {
        for _ in 0..10_000 {
            if !self.queue.is_empty() {
                self.execute(0, Fate::Done);
            } else if !self.tell() {
                return;
            }
        }
        self.steps.truncate(20);
        panic!("does not come to rest: {:?}", self.steps);
    }

    /// Lets the time pass until which it is noted that the API has a volume.
    pub fn confirm(&mut self) -> bool {
        let mut timers = self.timers.iter();
        let due = timers.position(|(_, alarm)| *alarm == Alarm::Confirm);
        let due = due.map(|index| self.timers.remove(index));
        if let Some((_, alarm)) = due.clone() {
            self.feed(Input::Alarm(alarm));
        }
        due.is_some()
    }

    /// Runs until no timer runs either; those that come back for ever are left alone.
    pub fn settle(&mut self) {
        for _ in 0..20 {
            self.run();
            if self.timers.is_empty() {
                return;
            }
            for (_, alarm) in std::mem::take(&mut self.timers) {
                self.feed(Input::Alarm(alarm));
            }
        }
    }

    /// What the binder does: volumes and claims find each other, and those without are Released.
    pub fn bind(&mut self) {
        let volumes: Vec<ObjectKey> = self.of_kind(Kind::Volume);
        for key in volumes {
            let volume = self.objects[&key].clone();
            let owner = &volume["spec"]["claimRef"];
            let text = |field: &str| owner[field].as_str().unwrap_or_default().to_owned();
            let claim = ObjectKey::claim(&*text("namespace"), &*text("name"));
            let there = self.get(&claim).is_some_and(|c| *c.uid() == *text("uid"));
            let phase = volume["status"]["phase"].as_str().unwrap_or_default();
            if there && phase != "Bound" {
                self.edit(&key, &json!({"status": {"phase": "Bound"}}));
            }
            if there && self.objects[&claim]["spec"]["volumeName"].is_null() {
                let bound = json!({"spec": {"volumeName": key.name}, "status": {"phase": "Bound",
                    "capacity": volume["spec"]["capacity"]}});
                self.edit(&claim, &bound);
            }
            if !there && owner["uid"].is_string() && phase != "Released" {
                self.edit(&key, &json!({"status": {"phase": "Released"}}));
            }
        }
    }

    pub fn of_kind(&self, kind: Kind) -> Vec<ObjectKey> {
        let all = self.objects.keys().filter(|key| key.kind == kind);
        all.cloned().collect()
    }

    /// The events as `<Type> <Reason>: <message>`.
    /// What was told of claims and volumes.
    pub fn told(&self) -> Vec<String> {
        let told = |e: &Event| format!("{} {}: {}", e.severity.as_str(), e.reason, e.message);
        let all = self.events.iter();
        all.filter(|e| e.about.kind != Kind::StorageClass)
            .map(told)
            .collect()
    }

    /// What was told of classes.
    pub fn told_of_classes(&self) -> Vec<String> {
        let told = |e: &Event| format!("{} {}: {}", e.about.name, e.reason, e.message);
        let all = self.events.iter();
        all.filter(|e| e.about.kind == Kind::StorageClass)
            .map(told)
            .collect()
    }

    pub fn clear(&mut self) {
        self.events.clear();
        self.steps.clear();
    }

    /// Makes what is to be copied, as the worker does in the background, and lets two seconds pass.
    pub fn copy(&mut self) {
        self.worker.copy_here();
        self.shares.values().for_each(LocalWorker::copy_here);
        self.settle();
    }

    /// Sweeps the trash, as the worker does in a child.
    pub fn sweep(&self) {
        let disk = bitts_provisioner::disk::Disk::open(&self.root()).unwrap();
        for volume in disk.to_sweep(std::time::SystemTime::now()).unwrap() {
            disk.sweep(&volume, |dir, name| bitts_mount::sweep::remove(dir, name))
                .unwrap();
        }
    }

    pub fn trash(&self) -> Vec<String> {
        let Ok(all) = std::fs::read_dir(self.root().join(".bitts/trash")) else {
            return Vec::new();
        };
        all.map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn subject(effect: &Step) -> String {
    match effect {
        Effect::Create(create) => create.key.to_string(),
        Effect::Write(write) => write.target.key.to_string(),
        Effect::Destroy(destroy) => destroy.target.key.to_string(),
        Effect::Task(Errand { task, .. }) => match task {
            Task::Scan | Task::Survey => String::new(),
            Task::Make(record) => record.volume.to_string(),
            Task::Confirm(v, _)
            | Task::Discard(v, _)
            | Task::Grow { volume: v, .. }
            | Task::Remove { volume: v, .. } => v.to_string(),
        },
        _ => String::new(),
    }
}

fn read(kind: Kind, object: &Value) -> Object {
    kind.read(object.to_string().as_bytes()).unwrap()
}

/// RFC 7386.
pub fn merge(into: &mut Value, patch: &Value) {
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

pub fn class(name: &str, more: Value) -> Value {
    let mut class = json!({"metadata": {"name": name, "uid": format!("class-{name}")},
        "provisioner": "local.bitts.dev", "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete"});
    merge(&mut class, &more);
    class
}

/// A claim that the binder handed over and the scheduler placed.
pub fn claim(name: &str, uid: &str, class: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": uid, "annotations": {
            "volume.kubernetes.io/storage-provisioner": "local.bitts.dev",
            "volume.kubernetes.io/selected-node": NODE}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Mi"}}},
        "status": {"phase": "Pending"}})
}

/// A class whose volumes are made on a share.
pub fn share_class(name: &str, server: &str, share: &str, more: Value) -> Value {
    let mut class = json!({"metadata": {"name": name, "uid": format!("class-{name}")},
        "provisioner": "nfs.bitts.dev", "volumeBindingMode": "Immediate",
        "reclaimPolicy": "Delete", "parameters": {"server": server, "share": share}});
    merge(&mut class, &more);
    class
}

/// A claim of it, as the binder hands it over.
pub fn share_claim(name: &str, uid: &str, class: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": uid, "annotations": {
            "volume.kubernetes.io/storage-provisioner": "nfs.bitts.dev"}},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Mi"}}},
        "status": {"phase": "Pending"}})
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
