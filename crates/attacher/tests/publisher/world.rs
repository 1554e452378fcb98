//! A cluster in memory with one CSI driver: an API, the driver, and what really is attached, which only
//! the checks look at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bitts_api::machine::{
    Destruction, Effect, Evidence, Input, Machine as _, Moment, Outcome, Part, Target,
};
use bitts_api::{Kind, Object, ObjectKey, Uid};
use bitts_attacher::{
    Because, Can, Publisher, PublisherAlarm, PublisherOptions, Report, Task, Ticket, Trouble,
};
use serde_json::{Value, json};

pub(crate) const DRIVER: &str = "disk.example.com";
pub(crate) const FINALIZER: &str = "external-attacher/disk-example-com";
pub(crate) const NODE_ID: &str = "csi.alpha.kubernetes.io/node-id";

pub(crate) type Step = Effect<Task, PublisherAlarm>;

/// What is wrong with the world, to show that a check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// The machine is told that its finalizers are there before they are.
    ImaginesHolds,
    /// The machine is told that a detach succeeded when it failed.
    BelievesFailedDetach,
    /// The machine is not told which other attachments are held.
    HidesHolds,
    /// What speaks for a detach, or for letting go of a volume, is not looked at again.
    NoEvidence,
    /// The machine is told that calls ended which are still under way.
    ForgetsCalls,
}

/// What is done to an effect on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// The API cannot be reached.
    Lost,
    /// It is executed, and its answer is lost with the process.
    DeathAfter,
    DeathBefore,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Well,
    /// It fails, and nothing happened.
    Fails(i32),
    /// It happened, and the answer says no.
    DoesAndFails(i32),
    /// The connection breaks: it happened or did not.
    Breaks(bool),
}

pub(crate) struct World {
    pub(crate) objects: BTreeMap<ObjectKey, Value>,
    version: u64,
    news: VecDeque<(ObjectKey, Uid, Option<Value>)>,
    pub(crate) machine: Publisher,
    options: PublisherOptions,
    pub(crate) queue: VecDeque<Step>,
    pub(crate) calls: Vec<Task>,
    pub(crate) timers: Vec<(Duration, PublisherAlarm)>,
    pub(crate) now: Duration,
    pub(crate) steps: Vec<String>,
    /// What somebody was told.
    pub(crate) events: Vec<String>,
    pub(crate) can: Can,
    pub(crate) is_down: bool,
    pub(crate) plant: Plant,
    /// What really is attached: volume and node, by the driver's names.
    pub(crate) attached: BTreeSet<(String, String)>,
    /// What must never be.
    pub(crate) broken: Vec<String>,
}

pub(crate) fn attachment(name: &str) -> ObjectKey {
    ObjectKey::attachment(name)
}

pub(crate) fn csi_node(name: &str) -> ObjectKey {
    ObjectKey {
        kind: Kind::CsiNode,
        namespace: None,
        name: name.into(),
    }
}

impl World {
    pub(crate) fn new(options: PublisherOptions) -> Self {
        let mut world = Self {
            objects: BTreeMap::new(),
            version: 0,
            news: VecDeque::new(),
            machine: Publisher::new(DRIVER, options.clone()),
            options,
            queue: VecDeque::new(),
            calls: Vec::new(),
            timers: Vec::new(),
            now: Duration::ZERO,
            steps: Vec::new(),
            events: Vec::new(),
            can: Can {
                publish: true,
                ..Can::default()
            },
            is_down: false,
            plant: Plant::Nothing,
            attached: BTreeSet::new(),
            broken: Vec::new(),
        };
        world.restart();
        world
    }

    /// The process dies, and another one begins. What the driver was asked for it may do or not.
    pub(crate) fn restart(&mut self) {
        self.machine = Publisher::new(DRIVER, self.options.clone());
        self.queue.clear();
        self.timers.clear();
        self.news.clear();
        self.calls.clear();
        for watch in self.machine.watches() {
            let all = self.objects.iter();
            let all = all.filter(|(key, _)| key.kind == watch.kind);
            let all = all.map(|(key, value)| self.shown(key, value)).collect();
            self.input(Input::Listed(watch.kind, all));
        }
    }

    fn input(&mut self, input: Input<Report, PublisherAlarm>) {
        let effects = self.machine.handle(Moment(self.now), input);
        self.queue.extend(effects);
    }

    fn read(key: &ObjectKey, value: &Value) -> Object {
        key.kind.read(value.to_string().as_bytes()).unwrap()
    }

    /// An object as the machine is told of it.
    fn shown(&self, key: &ObjectKey, value: &Value) -> Object {
        let mut value = value.clone();
        let held = json!([FINALIZER]);
        match (self.plant, key.kind) {
            (Plant::ImaginesHolds, Kind::Attachment) => {
                value["metadata"]["finalizers"] = held;
                value["metadata"]["annotations"] = json!({NODE_ID: "id-n1"});
            }
            (Plant::ImaginesHolds, Kind::Volume) => value["metadata"]["finalizers"] = held,
            (Plant::HidesHolds, Kind::Attachment)
                if value["status"]["attached"] == json!(true)
                    && value["metadata"]["deletionTimestamp"].is_null() =>
            {
                value["metadata"]["finalizers"] = json!([]);
            }
            _ => {}
        }
        Self::read(key, &value)
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key)
    }

    pub(crate) fn put(&mut self, key: &ObjectKey, mut value: Value) {
        self.version += 1;
        let meta = &mut value["metadata"];
        meta["name"] = json!(key.name);
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{}", self.version));
        }
        meta["resourceVersion"] = json!(self.version.to_string());
        let uid = Uid::from(meta["uid"].as_str().unwrap());
        let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if !meta["deletionTimestamp"].is_null() && !held {
            self.objects.remove(key);
            self.check_gone(key, &value);
            self.news.push_back((key.clone(), uid, None));
        } else {
            self.news.push_back((key.clone(), uid, Some(value.clone())));
            self.objects.insert(key.clone(), value);
        }
    }

    /// What is attached must be known of somewhere.
    fn check_gone(&mut self, key: &ObjectKey, value: &Value) {
        let text = |at: &str| value.pointer(at).and_then(Value::as_str);
        if key.kind == Kind::Attachment
            && let (Some(volume), Some(node)) = (
                text("/spec/source/persistentVolumeName"),
                text("/metadata/annotations/csi.alpha.kubernetes.io~1node-id"),
            )
            && self
                .attached
                .contains(&(format!("h-{volume}"), node.to_owned()))
        {
            let name = &key.name;
            self.broken
                .push(format!("{name} is gone, and {volume} is on {node}"));
        }
        if key.kind == Kind::Volume
            && self
                .attached
                .iter()
                .any(|(v, _)| **v == format!("h-{}", key.name))
        {
            let name = &key.name;
            self.broken
                .push(format!("{name} is gone while it is attached"));
        }
    }

    pub(crate) fn delete(&mut self, key: &ObjectKey) {
        if let Some(mut value) = self.objects.get(key).cloned() {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.put(key, value);
        }
    }

    pub(crate) fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
        if let Some(mut value) = self.objects.get(key).cloned() {
            change(&mut value);
            self.put(key, value);
        }
    }

    pub(crate) fn add_node(&mut self, name: &str, id: &str) {
        let drivers = json!([{"name": DRIVER, "nodeID": id, "topologyKeys": null}]);
        match self.get(&csi_node(name)) {
            Some(_) => self.change(&csi_node(name), |node| node["spec"]["drivers"] = drivers),
            None => self.put(
                &csi_node(name),
                json!({"metadata": {}, "spec": {"drivers": drivers}}),
            ),
        }
    }

    /// Its handle is its name with `h-` before it.
    pub(crate) fn add_volume(&mut self, name: &str, modes: &[&str]) {
        self.put(
            &ObjectKey::volume(name),
            json!({"metadata": {}, "spec": {
                "accessModes": modes,
                "csi": {"driver": DRIVER, "volumeHandle": format!("h-{name}")}}}),
        );
    }

    pub(crate) fn ask_for(&mut self, name: &str, volume: &str, node: &str) {
        self.put(
            &attachment(name),
            json!({"metadata": {}, "spec": {"attacher": DRIVER, "nodeName": node,
                "source": {"persistentVolumeName": volume}}}),
        );
    }

    /// Tells the machine one thing that a watch has; returns whether there was one.
    pub(crate) fn deliver(&mut self) -> bool {
        let Some((key, uid, value)) = self.news.pop_front() else {
            return false;
        };
        match value {
            Some(value) => {
                let object = self.shown(&key, &value);
                self.input(Input::Seen(object));
            }
            None => self.input(Input::Deleted(key, uid)),
        }
        true
    }

    fn target(&self, target: &Target) -> Result<Value, Outcome> {
        let value = self.get(&target.key).ok_or(Outcome::Gone)?;
        let meta = &value["metadata"];
        if meta["uid"] != json!(target.uid) {
            return Err(Outcome::Gone);
        }
        if meta["resourceVersion"] != json!(target.version.to_string()) {
            return Err(Outcome::Conflict);
        }
        Ok(value.clone())
    }

    /// Executes one effect; returns whether there was one.
    pub(crate) fn execute(&mut self, fate: Fate) -> bool {
        let Some(effect) = self.queue.pop_front() else {
            return false;
        };
        let (target, part, patch, step) = match effect {
            Effect::Wake(after, alarm) => {
                self.timers.push((self.now + after, alarm));
                return true;
            }
            Effect::Event(event) => {
                self.events.push(event.message);
                return true;
            }
            Effect::Task(task) => {
                self.begin(task);
                return true;
            }
            Effect::Write(write) => (write.target, write.part, write.patch, write.step),
            Effect::Destroy(destroy) => {
                let holds = |evidence: &Evidence| match evidence {
                    Evidence::VolumeUnattached(volume) => !self.is_attached_somewhere(volume),
                    other => panic!("{other:?}"),
                };
                if !destroy.evidence.iter().all(holds) && self.plant != Plant::NoEvidence {
                    self.steps.push(format!("{} Spared", destroy.step));
                    let key = destroy.target.key;
                    self.input(Input::Finished(key, Outcome::Spared));
                    return true;
                }
                let Destruction::Patch(part, patch) = destroy.action else {
                    panic!("{:?}", destroy.action);
                };
                (destroy.target, part, patch, destroy.step)
            }
            other => panic!("{other:?}"),
        };
        if fate == Fate::DeathBefore {
            self.restart();
            return true;
        }
        let key = target.key.clone();
        let outcome = match self.target(&target) {
            _ if fate == Fate::Lost => Outcome::Failed("no route".to_owned()),
            Err(outcome) => outcome,
            Ok(mut value) => {
                let half = match part {
                    Part::Main => json!({"metadata": patch["metadata"]}),
                    Part::Status => json!({"status": patch["status"]}),
                };
                merge(&mut value, &half);
                self.put(&key, value);
                Outcome::Done
            }
        };
        self.steps.push(format!("{step} {outcome:?}"));
        if fate == Fate::DeathAfter {
            self.restart();
            return true;
        }
        match self.get(&key).cloned() {
            Some(value) => {
                let object = self.shown(&key, &value);
                self.input(Input::Seen(object));
            }
            None => self.input(Input::Deleted(key.clone(), target.uid)),
        }
        self.input(Input::Finished(key, outcome));
        true
    }

    fn is_attached_somewhere(&self, volume: &bitts_api::Name) -> bool {
        let of_volume = |value: &Value| {
            value.pointer("/spec/source/persistentVolumeName") == Some(&json!(volume))
        };
        let attachments = self.objects.iter();
        let mut attachments = attachments.filter(|(key, _)| key.kind == Kind::Attachment);
        attachments.any(|(_, value)| of_volume(value))
    }

    /// The driver is called.
    fn begin(&mut self, task: Task) {
        let ticket = match &task {
            Task::Ask => {
                let can = match self.is_down {
                    true => Err(lost()),
                    false => Ok(self.can),
                };
                return self.input(Input::Report(Report::Can(can)));
            }
            Task::List => {
                let mut all = BTreeMap::<Box<str>, BTreeSet<Box<str>>>::new();
                for (volume, node) in &self.attached {
                    let nodes = all.entry(volume.as_str().into()).or_default();
                    nodes.insert(node.as_str().into());
                }
                return self.input(Input::Report(Report::Listed(Ok(all))));
            }
            Task::Publish(publish) => {
                self.steps.push(format!(
                    "publish {} {}",
                    publish.ticket.handle, publish.node_id
                ));
                publish.ticket.clone()
            }
            Task::Unpublish(unpublish) => {
                self.steps.push(format!(
                    "unpublish {} {}",
                    unpublish.ticket.handle, unpublish.node_id
                ));
                unpublish.ticket.clone()
            }
        };
        let is_same = |call: &Task| ticket_of(call).is_some_and(|t| t.handle == ticket.handle);
        if self.calls.iter().any(is_same) {
            let handle = &ticket.handle;
            self.broken
                .push(format!("two calls for {handle} at a time"));
        }
        if let Task::Publish(publish) = &task {
            self.check_held(&publish.ticket, &publish.node_id);
        }
        if self.plant == Plant::ForgetsCalls {
            let forgotten = Report::Unpublished(ticket, Err(trouble(4)));
            self.calls.push(task);
            return self.input(Input::Report(forgotten));
        }
        self.calls.push(task);
    }

    /// A26: both are held before the driver is called.
    fn check_held(&mut self, ticket: &Ticket, node_id: &str) {
        let Some(value) = self.get(&attachment(ticket.attachment.as_str())).cloned() else {
            // It went while the call was on its way, by somebody's hand.
            return;
        };
        let volume = ticket.handle.trim_start_matches("h-").to_owned();
        let held = |value: &Value| {
            let finalizers = value["metadata"]["finalizers"].as_array();
            finalizers.is_some_and(|f| f.contains(&json!(FINALIZER)))
        };
        let volume_held = self
            .get(&ObjectKey::volume(volume.as_str()))
            .is_some_and(held);
        if !held(&value) || !volume_held || value["metadata"]["annotations"][NODE_ID] != *node_id {
            self.broken
                .push(format!("{volume} is published and not held: {value}"));
        }
    }

    /// One call ends; returns whether there was one.
    pub(crate) fn end_call(&mut self, which: usize, end: End) -> bool {
        if self.calls.is_empty() {
            return false;
        }
        let task = self.calls.remove(which % self.calls.len());
        let done = matches!(end, End::Well | End::DoesAndFails(_) | End::Breaks(true));
        let result = match end {
            End::Well => Ok(()),
            End::Fails(code) | End::DoesAndFails(code) => Err(trouble(code)),
            End::Breaks(_) => Err(lost()),
        };
        let report = match task {
            Task::Publish(publish) => {
                if done {
                    self.really_attach(&publish.ticket.handle, &publish.node_id);
                }
                let context = [("device".into(), publish.ticket.handle.clone())];
                Report::Published(publish.ticket, result.map(|()| context.into()))
            }
            Task::Unpublish(unpublish) => {
                let holds = self.speaks_for(&unpublish.ticket, &unpublish.because);
                if !holds && self.plant != Plant::NoEvidence {
                    Report::Spared(unpublish.ticket)
                } else {
                    if !holds {
                        let handle = &unpublish.ticket.handle;
                        self.broken
                            .push(format!("{handle} is detached without reason"));
                    }
                    if done {
                        let pair = (
                            unpublish.ticket.handle.to_string(),
                            unpublish.node_id.to_string(),
                        );
                        self.attached.remove(&pair);
                    }
                    let believed = self.plant == Plant::BelievesFailedDetach;
                    Report::Unpublished(unpublish.ticket, if believed { Ok(()) } else { result })
                }
            }
            other => panic!("{other:?}"),
        };
        self.input(Input::Report(report));
        true
    }

    /// Whether what speaks for a detach does, in the API.
    fn speaks_for(&self, ticket: &Ticket, because: &Because) -> bool {
        match because {
            Because::Deleted => {
                let found = self.get(&attachment(ticket.attachment.as_str()));
                found.is_none_or(|value| {
                    value["metadata"]["uid"] != json!(ticket.uid)
                        || !value["metadata"]["deletionTimestamp"].is_null()
                })
            }
            Because::Renamed { node, now } => {
                let found = self.get(&csi_node(node.as_str()));
                found.is_some_and(|node| node["spec"]["drivers"][0]["nodeID"] == json!(now))
            }
        }
    }

    fn really_attach(&mut self, handle: &str, node: &str) {
        let volume = handle.trim_start_matches("h-");
        let spec = self.get(&ObjectKey::volume(volume));
        let single = spec.is_some_and(|v| v["spec"]["accessModes"] == json!(["ReadWriteOnce"]));
        let other = self.attached.iter().find(|(v, n)| v == handle && n != node);
        if let (Some((_, other)), true) = (other, single) {
            self.broken
                .push(format!("{volume} is on {other}, and now on {node}"));
        }
        self.attached.insert((handle.to_owned(), node.to_owned()));
    }

    /// Lets everybody do what they have to, until nobody has anything to do within a second.
    pub(crate) fn rest(&mut self) {
        for _ in 0..10_000 {
            let busy = self.deliver() | self.execute(Fate::Done) | self.end_call(0, End::Well);
            if !busy && !self.ring(self.now + Duration::from_secs(1)) {
                return;
            }
        }
        panic!(
            "no rest: {:?} {:?}",
            self.steps.iter().rev().take(20).collect::<Vec<_>>(),
            self.queue
        );
    }

    /// Delivers and executes, and ends no call.
    pub(crate) fn until_calls(&mut self) {
        while self.deliver() || self.execute(Fate::Done) {}
    }

    /// Rings the next timer until then; returns whether there was one.
    pub(crate) fn ring(&mut self, until: Duration) -> bool {
        let timers = self.timers.iter().enumerate();
        let next = timers.min_by_key(|(_, (at, _))| *at);
        let Some((index, at)) = next.map(|(index, (at, _))| (index, *at)) else {
            return false;
        };
        if at > until {
            return false;
        }
        let (_, alarm) = self.timers.remove(index);
        self.now = self.now.max(at);
        self.input(Input::Alarm(alarm));
        true
    }

    /// Time goes by.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        self.rest();
        while self.ring(until) {
            self.rest();
        }
        self.now = self.now.max(until);
    }
}

pub(crate) fn ticket_of(task: &Task) -> Option<&Ticket> {
    match task {
        Task::Publish(publish) => Some(&publish.ticket),
        Task::Unpublish(unpublish) => Some(&unpublish.ticket),
        Task::Ask | Task::List => None,
    }
}

fn trouble(code: i32) -> Trouble {
    Trouble {
        message: format!("told to fail with {code}"),
        code: Some(code),
        overload: matches!(code, 4 | 8 | 14),
        lost: false,
    }
}

fn lost() -> Trouble {
    Trouble {
        message: "the connection broke".to_owned(),
        code: None,
        overload: false,
        lost: true,
    }
}

/// A merge patch (RFC 7386).
fn merge(value: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (key, part) in patch {
        if part.is_null() {
            value.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut value[key.as_str()], part);
        }
    }
}
