//! A cluster on a cloud in memory: an API, agents that keep to A35, machines and disks of a cloud whose
//! operations take their time, and what really is mounted, which only the checks look at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bitts_api::machine::{Effect, Event, Input, Machine as _, Moment, Outcome, Write};
use bitts_api::{Kind, Node, NodeName, Object, ObjectKey, Uid};
use bitts_attacher::{
    CloudAlarm, CloudAttacher, CloudBecause, CloudOptions, CloudReport, CloudTask, CloudTrouble,
    Detach, Disk, Instance, Location, Looked,
};
use serde_json::{Value, json};

pub(crate) const PROJECT: &str = "shop";
pub(crate) const ZONE: &str = "us-east1-b";

/// What is wrong with the world, to show that a check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// What speaks for a detach is not looked at again.
    NoEvidence,
    /// What is under way is not waited for.
    NoWait,
    /// The cloud does not say who has a disk.
    HidesUsers,
    /// The machine is told that nodes list nothing.
    HidesLists,
    /// The machine is told that nodes use only what their pods still ask for.
    HidesUse,
}

/// How a step of a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Well,
    /// The cloud does not want to.
    Refused,
    /// What was asked for is under way, and the answer is lost.
    Lost,
    /// It began, and fails in the end.
    FailsLate,
}

/// What the cloud has under way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operation {
    attaches: bool,
    disk: Disk,
    instance: Instance,
    fails: bool,
}

/// A task that was begun.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    New(CloudTask),
    /// Its operation is waited for; whether that one fails.
    Begun(CloudTask, bool),
}

pub(crate) struct World {
    pub(crate) objects: BTreeMap<ObjectKey, Value>,
    version: u64,
    news: VecDeque<(ObjectKey, Uid, Option<Value>)>,
    pub(crate) machine: CloudAttacher,
    pub(crate) options: CloudOptions,
    pub(crate) queue: VecDeque<Effect<CloudTask, CloudAlarm>>,
    timers: Vec<(Duration, CloudAlarm)>,
    pub(crate) now: Duration,
    pub(crate) events: Vec<Event>,
    pub(crate) plant: Plant,
    pub(crate) calls: Vec<Call>,
    pub(crate) operations: Vec<Operation>,
    /// Which machines have which disks.
    pub(crate) attached: BTreeSet<(Disk, Instance)>,
    pub(crate) off: BTreeSet<Instance>,
    /// No agent does anything.
    pub(crate) agents_are_off: bool,
    /// What really is mounted: disk and node.
    pub(crate) mounted: BTreeSet<(String, String)>,
    pub(crate) single: BTreeSet<String>,
    /// The cloud says this to everything.
    pub(crate) fails: Option<String>,
    /// What was asked of the cloud that changes something.
    pub(crate) asked: Vec<String>,
    pub(crate) broken: Vec<String>,
}

pub(crate) fn unique(disk: &str) -> String {
    format!("kubernetes.io/gce-pd/{disk}")
}

pub(crate) fn instance(name: &str) -> Instance {
    Instance {
        project: PROJECT.into(),
        zone: ZONE.into(),
        name: name.into(),
    }
}

pub(crate) fn disk(name: &str) -> Disk {
    Disk {
        name: name.into(),
        project: PROJECT.into(),
        location: Location::Zone(ZONE.into()),
    }
}

pub(crate) fn node_key(node: &str) -> ObjectKey {
    ObjectKey::node(&NodeName::from(node))
}

impl World {
    pub(crate) fn new(options: CloudOptions) -> Self {
        let mut world = Self {
            objects: BTreeMap::new(),
            version: 0,
            news: VecDeque::new(),
            machine: CloudAttacher::new(options.clone()),
            options,
            queue: VecDeque::new(),
            timers: Vec::new(),
            now: Duration::ZERO,
            events: Vec::new(),
            plant: Plant::Nothing,
            calls: Vec::new(),
            operations: Vec::new(),
            attached: BTreeSet::new(),
            off: BTreeSet::new(),
            agents_are_off: false,
            mounted: BTreeSet::new(),
            single: BTreeSet::new(),
            fails: None,
            asked: Vec::new(),
            broken: Vec::new(),
        };
        world.restart();
        world
    }

    /// The process dies, and another one begins. What the cloud has under way goes on.
    pub(crate) fn restart(&mut self) {
        self.machine = CloudAttacher::new(self.options.clone());
        self.queue.clear();
        self.timers.clear();
        self.news.clear();
        self.calls.clear();
        for watch in self.machine.watches() {
            let all = self
                .objects
                .iter()
                .filter(|(key, _)| key.kind == watch.kind);
            let all = all.map(|(key, value)| self.shown(key, value)).collect();
            self.input(Input::Listed(watch.kind, all));
        }
    }

    fn input(&mut self, input: Input<CloudReport, CloudAlarm>) {
        let effects = self.machine.handle(Moment(self.now), input);
        self.queue.extend(effects);
    }

    // The API.

    fn read(key: &ObjectKey, value: &Value) -> Object {
        key.kind.read(value.to_string().as_bytes()).unwrap()
    }

    /// An object as the machine is told of it.
    fn shown(&self, key: &ObjectKey, value: &Value) -> Object {
        let mut value = value.clone();
        match (self.plant, key.kind) {
            (Plant::HidesLists, Kind::Node) => value["status"]["volumesAttached"] = json!([]),
            (Plant::HidesUse, Kind::Node) => {
                let wanted = self.wanted_on(key.name.as_str());
                let in_use: Vec<String> = wanted.iter().map(|disk| unique(disk)).collect();
                value["status"]["volumesInUse"] = json!(in_use);
            }
            _ => {}
        }
        Self::read(key, &value)
    }

    pub(crate) fn node(&self, name: &str) -> Option<Node> {
        let key = node_key(name);
        match Self::read(&key, self.objects.get(&key)?) {
            Object::Node(node) => Some((*node).clone()),
            _ => None,
        }
    }

    pub(crate) fn put(&mut self, key: &ObjectKey, mut value: Value) {
        if let Some(known) = self.objects.get(key) {
            let mut same = value.clone();
            same["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"].clone();
            if *known == same {
                return;
            }
        }
        self.version += 1;
        let meta = &mut value["metadata"];
        meta["name"] = json!(key.name);
        if let Some(namespace) = &key.namespace {
            meta["namespace"] = json!(namespace);
        }
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{}", self.version));
        }
        meta["resourceVersion"] = json!(self.version.to_string());
        let uid = Uid::from(meta["uid"].as_str().unwrap());
        self.news.push_back((key.clone(), uid, Some(value.clone())));
        self.objects.insert(key.clone(), value);
    }

    pub(crate) fn delete(&mut self, key: &ObjectKey) {
        if let Some(value) = self.objects.remove(key) {
            let uid = Uid::from(value["metadata"]["uid"].as_str().unwrap());
            self.news.push_back((key.clone(), uid, None));
        }
    }

    pub(crate) fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
        if let Some(mut value) = self.objects.get(key).cloned() {
            change(&mut value);
            self.put(key, value);
        }
    }

    // What users, machines and agents do.

    /// An agent's node, with all that it uses from before.
    pub(crate) fn add_node(&mut self, name: &str) {
        let mounted = self.mounted.iter().filter(|(_, node)| node == name);
        let in_use: Vec<String> = mounted.map(|(disk, _)| unique(disk)).collect();
        self.put(
            &node_key(name),
            json!({"metadata": {"annotations": {
                    "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                    "bitts.dev/mounted-by": "bitts-agent"}},
                "spec": {"providerID": format!("gce://{PROJECT}/{ZONE}/{name}")},
                "status": {"volumesInUse": in_use,
                           "conditions": [{"type": "Ready", "status": "True"}]}}),
        );
    }

    pub(crate) fn set_ready(&mut self, name: &str, ready: bool) {
        let status = if ready { "True" } else { "Unknown" };
        self.change(&node_key(name), |node| {
            node["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        });
    }

    pub(crate) fn set_taint(&mut self, name: &str, tainted: bool) {
        self.change(&node_key(name), |node| {
            node["spec"]["taints"] = match tainted {
                true => {
                    json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}])
                }
                false => json!([]),
            };
        });
    }

    /// The machine stops, and all that ran on it.
    pub(crate) fn stop(&mut self, name: &str) {
        self.off.insert(instance(name));
        self.mounted.retain(|(_, node)| node != name);
        self.set_ready(name, false);
    }

    pub(crate) fn start(&mut self, name: &str) {
        self.off.remove(&instance(name));
        match self.objects.contains_key(&node_key(name)) {
            true => self.set_ready(name, true),
            false => self.add_node(name),
        }
    }

    pub(crate) fn add_volume(&mut self, name: &str, modes: &[&str]) {
        if !modes.iter().any(|m| m.ends_with("OnlyMany")) {
            self.single.insert(name.to_owned());
        }
        let claim = format!("c-{name}");
        self.put(
            &ObjectKey::volume(name),
            json!({"metadata": {}, "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": modes,
                "gcePersistentDisk": {"pdName": name, "fsType": "ext4"},
                "claimRef": {"namespace": "shop", "name": claim, "uid": format!("{claim}-uid")},
            }, "status": {"phase": "Bound"}}),
        );
        self.put(
            &ObjectKey::claim("shop", claim.as_str()),
            json!({"metadata": {"uid": format!("{claim}-uid")},
                "spec": {"volumeName": name, "accessModes": modes,
                         "resources": {"requests": {"storage": "1Gi"}}},
                "status": {"phase": "Bound"}}),
        );
    }

    pub(crate) fn add_pod(&mut self, name: &str, volume: &str, node: &str) {
        self.put(
            &ObjectKey::pod("shop", name),
            json!({"metadata": {}, "spec": {"nodeName": node, "volumes": [
                {"name": "d", "persistentVolumeClaim": {"claimName": format!("c-{volume}")}}]},
                "status": {"phase": "Pending"}}),
        );
    }

    pub(crate) fn wanted_on(&self, node: &str) -> BTreeSet<String> {
        let pods = self.objects.iter().filter(|(key, _)| key.kind == Kind::Pod);
        let here = pods.filter(|(_, pod)| pod["spec"]["nodeName"] == node);
        let claim = |pod: &Value| {
            let claim = &pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
            claim.as_str().unwrap().trim_start_matches("c-").to_owned()
        };
        here.map(|(_, pod)| claim(pod)).collect()
    }

    /// An agent does one thing; returns whether there was one. One that is not ready does nothing, and
    /// what it mounted stays.
    pub(crate) fn agent(&mut self, name: &str) -> bool {
        let Some(node) = self.node(name).filter(|node| node.is_ready) else {
            return false;
        };
        if !node.is_mounted_by_agent() || self.agents_are_off {
            return false;
        }
        let wanted = self.wanted_on(name);
        let here = self.mounted.iter().filter(|(_, node)| node == name);
        let mounted: BTreeSet<String> = here.map(|(disk, _)| disk.clone()).collect();
        if let Some(disk) = mounted.difference(&wanted).next() {
            self.mounted.remove(&(disk.clone(), name.to_owned()));
            return true;
        }
        // In use before the list is looked at (M14, A35).
        let in_use: Vec<String> = wanted.union(&mounted).map(|disk| unique(disk)).collect();
        let said: Vec<String> = node
            .volumes_in_use
            .iter()
            .map(ToString::to_string)
            .collect();
        if in_use != said {
            self.change(&node_key(name), |node| {
                node["status"]["volumesInUse"] = json!(in_use);
            });
            return true;
        }
        for wanted in wanted.difference(&mounted) {
            if node.lists(&unique(wanted)) {
                if !self.attached.contains(&(disk(wanted), instance(name))) {
                    self.broken
                        .push(format!("{name} mounts {wanted}, which is not attached"));
                }
                self.mounted.insert((wanted.clone(), name.to_owned()));
                return true;
            }
        }
        false
    }

    // The cloud.

    fn trouble(message: &str) -> CloudTrouble {
        CloudTrouble {
            message: message.to_owned(),
            code: "unavailable",
            overload: false,
        }
    }

    /// The cloud ends what it has under way.
    pub(crate) fn end_operation(&mut self) -> bool {
        if self.operations.is_empty() {
            return false;
        }
        let operation = self.operations.remove(0);
        self.end(&operation);
        true
    }

    fn end(&mut self, operation: &Operation) {
        let Operation {
            attaches,
            disk,
            instance,
            fails,
        } = operation;
        if *fails {
            return;
        }
        let here = (disk.clone(), instance.clone());
        if *attaches {
            self.attached.insert(here);
            return;
        }
        let place = (disk.name.to_string(), instance.name.to_string());
        let ready = self.node(&instance.name).is_some_and(|node| node.is_ready);
        if ready && self.mounted.contains(&place) {
            self.broken.push(format!(
                "{} vanishes on {}, which uses it",
                place.0, place.1
            ));
        }
        self.attached.remove(&here);
    }

    fn users(&self, disk: &Disk) -> BTreeSet<Instance> {
        let users = self.attached.iter().filter(|(known, _)| known == disk);
        users.map(|(_, instance)| instance.clone()).collect()
    }

    /// One of the calls goes on by a step; returns whether there was one.
    pub(crate) fn cloud(&mut self, which: usize, fate: Fate) -> bool {
        if self.calls.is_empty() {
            return false;
        }
        let call = self.calls.remove(which % self.calls.len());
        let waits = self.plant != Plant::NoWait;
        let report = match call {
            Call::New(task) => {
                let fate = match &self.fails {
                    Some(_) => Fate::Refused,
                    None => fate,
                };
                match self.begin(task, fate, waits) {
                    Ok(report) => report,
                    Err(call) => {
                        self.calls.push(*call);
                        return true;
                    }
                }
            }
            Call::Begun(task, fails) => {
                let (disk, instance) = match &task {
                    CloudTask::Attach(attach) => (&attach.disk, &attach.instance),
                    CloudTask::Detach(detach) => (&detach.disk, &detach.instance),
                    other => panic!("{other:?}"),
                };
                let found = self
                    .operations
                    .iter()
                    .position(|o| o.disk == *disk && o.instance == *instance);
                // Where the asking fails, the operation goes on.
                let unheard = fate == Fate::Refused;
                if let Some(index) = found.filter(|_| !unheard) {
                    let operation = self.operations.remove(index);
                    self.end(&operation);
                }
                let result = match fails || unheard {
                    true => Err(Self::trouble("it failed")),
                    false => Ok(()),
                };
                match &task {
                    CloudTask::Attach(_) => {
                        CloudReport::Attached(disk.clone(), instance.clone(), result)
                    }
                    _ => CloudReport::Detached(disk.clone(), instance.clone(), result),
                }
            }
        };
        self.input(Input::Report(report));
        true
    }

    /// The first step of a call: an answer, or something to wait for.
    fn begin(
        &mut self,
        task: CloudTask,
        fate: Fate,
        waits: bool,
    ) -> Result<CloudReport, Box<Call>> {
        let refused = || {
            let message = self.fails.clone().unwrap_or_else(|| "not now".to_owned());
            Self::trouble(&message)
        };
        Ok(match task {
            CloudTask::Settle(zone) if fate == Fate::Refused => {
                CloudReport::Settled(zone, Err(refused()))
            }
            CloudTask::Settle(zone) => {
                while waits && self.end_operation() {}
                CloudReport::Settled(zone, Ok(()))
            }
            CloudTask::Look(look) if fate == Fate::Refused => {
                CloudReport::Looked(look.disk, Err(refused()))
            }
            CloudTask::Look(look) => {
                let (around, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.operations)
                    .into_iter()
                    .partition(|operation| waits && look.around.contains(&operation.instance));
                self.operations = others;
                around.iter().for_each(|operation| self.end(operation));
                let silent = look.silent.iter();
                let off = silent.filter(|i| self.off.contains(*i)).cloned().collect();
                let users = match self.plant {
                    Plant::HidesUsers => BTreeSet::new(),
                    _ => self.users(&look.disk),
                };
                CloudReport::Looked(look.disk, Ok(Looked { users, off }))
            }
            CloudTask::Sweep(instance) if fate == Fate::Refused => {
                CloudReport::Swept(instance, Err(refused()))
            }
            CloudTask::Sweep(instance) => {
                let disks = self.attached.iter().filter(|(_, i)| *i == instance);
                let disks = disks.map(|(disk, _)| (disk.clone(), true)).collect();
                CloudReport::Swept(instance, Ok(disks))
            }
            CloudTask::Attach(attach) => {
                let (disk, instance) = (attach.disk.clone(), attach.instance.clone());
                if fate == Fate::Refused {
                    return Ok(CloudReport::Attached(disk, instance, Err(refused())));
                }
                self.asked
                    .push(format!("attach {} to {}", disk.name, instance.name));
                if self.single.contains(&*disk.name) {
                    let elsewhere = |d: &Disk, i: &Instance| *d == disk && *i != instance;
                    let there = self.attached.iter().any(|(d, i)| elsewhere(d, i));
                    let mut coming = self.operations.iter();
                    let coming = coming.any(|o| o.attaches && elsewhere(&o.disk, &o.instance));
                    if there || coming {
                        let broken = format!(
                            "{} is elsewhere, and asked for on {}",
                            disk.name, instance.name
                        );
                        self.broken.push(broken);
                        let taken = Err(Self::trouble("it is in use"));
                        return Ok(CloudReport::Attached(disk, instance, taken));
                    }
                }
                return self.wait_for(CloudTask::Attach(attach), true, (disk, instance), fate);
            }
            CloudTask::Detach(detach) => {
                let (disk, instance) = (detach.disk.clone(), detach.instance.clone());
                if fate == Fate::Refused {
                    return Ok(CloudReport::Detached(disk, instance, Err(refused())));
                }
                let key = ObjectKey::node(&detach.node);
                let node = self.objects.get(&key).map(|value| self.shown(&key, value));
                let node = node.as_ref().map(|node| match node {
                    Object::Node(node) => &**node,
                    other => panic!("{other:?}"),
                });
                let runs = !self.off.contains(&instance);
                let holds = detach.because.holds(&disk, node, runs);
                if !holds && self.plant != Plant::NoEvidence {
                    return Ok(CloudReport::Spared(disk, instance));
                }
                self.asked
                    .push(format!("detach {} from {}", disk.name, instance.name));
                self.check_detach(&detach);
                return self.wait_for(CloudTask::Detach(detach), false, (disk, instance), fate);
            }
        })
    }

    fn wait_for(
        &mut self,
        task: CloudTask,
        attaches: bool,
        (disk, instance): (Disk, Instance),
        fate: Fate,
    ) -> Result<CloudReport, Box<Call>> {
        let fails = fate == Fate::FailsLate;
        self.operations.push(Operation {
            attaches,
            disk: disk.clone(),
            instance: instance.clone(),
            fails,
        });
        if fate != Fate::Lost {
            return Err(Box::new(Call::Begun(task, fails)));
        }
        let lost = Err(Self::trouble("no answer"));
        Ok(match attaches {
            true => CloudReport::Attached(disk, instance, lost),
            false => CloudReport::Detached(disk, instance, lost),
        })
    }

    /// What must hold whenever a disk is taken from a node.
    fn check_detach(&mut self, detach: &Detach) {
        let (disk, name) = (&*detach.disk.name, detach.node.as_str());
        let node = self.node(name);
        let mounted = self.mounted.contains(&(disk.to_owned(), name.to_owned()));
        if node.as_ref().is_some_and(|node| node.lists(&unique(disk))) {
            self.broken
                .push(format!("{disk} is taken from {name}, which lists it"));
        }
        let uses = |node: &Node| {
            node.volumes_in_use
                .iter()
                .any(|v| v.as_str() == unique(disk))
        };
        let ready = node.as_ref().filter(|node| node.is_ready);
        if ready.is_some_and(|node| mounted || uses(node)) {
            self.broken.push(format!(
                "{disk} is taken from {name}, which is well and uses it"
            ));
        }
        let tainted = node.as_ref().is_some_and(|node| node.is_out_of_service);
        let timed = detach.because == CloudBecause::Overdue
            && (!self.single.contains(disk) || self.options.attach.force_single_after.is_some());
        if mounted && !(tainted || timed) {
            let because = &detach.because;
            self.broken.push(format!(
                "{disk} is taken from {name} without a word: {because:?}"
            ));
        }
    }

    // What the machine does.

    /// Tells the machine one thing that a watch has; returns whether there was one.
    pub(crate) fn deliver(&mut self) -> bool {
        let Some((key, uid, value)) = self.news.pop_front() else {
            return false;
        };
        match value.map(|value| self.shown(&key, &value)) {
            Some(object) => self.input(Input::Seen(object)),
            None => self.input(Input::Deleted(key, uid)),
        }
        true
    }

    /// Executes one effect; returns whether there was one. `lost`: the API cannot be reached.
    pub(crate) fn execute(&mut self, lost: bool) -> bool {
        let Some(effect) = self.queue.pop_front() else {
            return false;
        };
        match effect {
            Effect::Event(event) => self.events.push(event),
            Effect::Wake(after, alarm) => self.timers.push((self.now + after, alarm)),
            Effect::Task(task) => self.calls.push(Call::New(task)),
            Effect::Write(write) => {
                let outcome = match lost {
                    true => Outcome::Failed("no route".to_owned()),
                    false => self.write(&write),
                };
                let key = write.target.key;
                if let Some(value) = self.objects.get(&key).cloned() {
                    let object = self.shown(&key, &value);
                    self.input(Input::Seen(object));
                }
                self.input(Input::Finished(key, outcome));
            }
            other => panic!("{other:?}"),
        }
        true
    }

    fn write(&mut self, write: &Write) -> Outcome {
        let Some(mut value) = self.objects.get(&write.target.key).cloned() else {
            return Outcome::Gone;
        };
        let meta = &value["metadata"];
        if meta["uid"] != json!(write.target.uid) {
            return Outcome::Gone;
        }
        if meta["resourceVersion"] != json!(write.target.version.to_string()) {
            return Outcome::Conflict;
        }
        value["status"]["volumesAttached"] = write.patch["status"]["volumesAttached"].clone();
        self.put(&write.target.key, value);
        Outcome::Done
    }

    /// Lets everybody do what they have to, until nobody has anything to do.
    pub(crate) fn rest(&mut self) {
        for _ in 0..10_000 {
            let nodes = self.objects.keys().filter(|key| key.kind == Kind::Node);
            let nodes: Vec<String> = nodes.map(|key| key.name.to_string()).collect();
            let agents = nodes.iter().any(|node| self.agent(node));
            let busy = self.deliver() | self.execute(false) | self.cloud(0, Fate::Well) | agents;
            if !busy {
                // Back-offs of up to a second are part of a rest.
                let soon = self.now + Duration::from_secs(1);
                if !self.ring(soon) {
                    return;
                }
            }
        }
        panic!("no rest: {:?}", self.queue);
    }

    /// Rings the next timer until then; returns whether there was one.
    pub(crate) fn ring(&mut self, until: Duration) -> bool {
        let all = self.timers.iter().enumerate();
        let next = all.min_by_key(|(_, (at, _))| *at);
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

    pub(crate) fn lists(&self, disk: &str, node: &str) -> bool {
        self.node(node)
            .is_some_and(|node| node.lists(&unique(disk)))
    }
}
