//! A cluster in memory: an API, kubelets that keep to A35, a driver behind an external-attacher, and
//! what really is attached and mounted, which only the checks look at.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test crate uses its own part, and one that cannot set itself up shall panic"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use bitts_api::machine::{
    Create, Destruction, Effect, Event, Evidence, Input, Machine as _, Moment, Outcome, Part,
    Target,
};
use bitts_api::{DiskName, Kind, Name, Node, NodeName, Object, ObjectKey, Uid};
use bitts_attacher::{Alarm, Attacher, Options, Pair, UniqueName};
use serde_json::{Value, json};

pub type Step = Effect<Infallible, Alarm>;

pub const DRIVER: &str = "disk.example.com";

/// What is wrong with the world, to show that a check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// What speaks for a detach is not looked at again.
    NoEvidence,
    /// The machine is not told of attachments that no driver confirmed: they count as absent.
    HidesPending,
    /// The machine is told that no node uses anything, by its watch and by live looks.
    HidesUse,
    /// The machine is told that nodes list nothing.
    HidesLists,
}

/// What is done to an effect on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// The API cannot be reached.
    Lost,
    /// It is executed, and its answer is lost with the process.
    DeathAfter,
    DeathBefore,
}

pub struct World {
    pub objects: BTreeMap<ObjectKey, Value>,
    version: u64,
    /// What the watches have yet to tell.
    pub news: VecDeque<(ObjectKey, Uid, Option<Value>)>,
    pub machine: Attacher,
    pub options: Options,
    pub queue: VecDeque<Step>,
    pub timers: Vec<(Duration, Alarm)>,
    pub now: Duration,
    pub events: Vec<Event>,
    pub steps: Vec<String>,
    pub plant: Plant,
    /// What really is attached: volume and node.
    pub attached: BTreeSet<(String, String)>,
    /// What really is mounted.
    pub mounted: BTreeSet<(String, String)>,
    /// Volumes for one node.
    pub single: BTreeSet<String>,
    /// Nodes whose kubelet does not unmount.
    pub stuck: BTreeSet<String>,
    /// What the driver says to everything, where it fails.
    pub driver_fails: Option<String>,
    pub driver_is_off: bool,
    /// Nobody can write the status of nodes.
    pub status_fails: bool,
    /// What must never be.
    pub broken: Vec<String>,
}

pub fn unique(volume: &str) -> String {
    format!("kubernetes.io/csi/{DRIVER}^{volume}")
}

pub fn attachment(volume: &str, node: &str) -> ObjectKey {
    let pair = Pair {
        volume: UniqueName::listed(&unique(volume)).unwrap(),
        node: NodeName::from(node),
    };
    ObjectKey::attachment(pair.attachment())
}

pub fn node_key(node: &str) -> ObjectKey {
    ObjectKey::node(&NodeName::from(node))
}

impl World {
    pub fn new(options: Options) -> Self {
        let mut world = Self {
            objects: BTreeMap::new(),
            version: 0,
            news: VecDeque::new(),
            machine: Attacher::new(options.clone()),
            options,
            queue: VecDeque::new(),
            timers: Vec::new(),
            now: Duration::ZERO,
            events: Vec::new(),
            steps: Vec::new(),
            plant: Plant::Nothing,
            attached: BTreeSet::new(),
            mounted: BTreeSet::new(),
            single: BTreeSet::new(),
            stuck: BTreeSet::new(),
            driver_fails: None,
            driver_is_off: false,
            status_fails: false,
            broken: Vec::new(),
        };
        world.restart();
        world
    }

    /// The process dies, and another one begins.
    pub fn restart(&mut self) {
        self.machine = Attacher::new(self.options.clone());
        self.queue.clear();
        self.timers.clear();
        self.news.clear();
        for watch in self.machine.watches() {
            let all = self
                .objects
                .iter()
                .filter(|(key, _)| key.kind == watch.kind);
            let all = all
                .filter_map(|(key, value)| self.shown(key, value))
                .collect();
            self.input(Input::Listed(watch.kind, all));
        }
    }

    fn input(&mut self, input: Input<Infallible, Alarm>) {
        let effects = self.machine.handle(Moment(self.now), input);
        self.queue.extend(effects);
    }

    // The API.

    fn read(key: &ObjectKey, value: &Value) -> Object {
        key.kind.read(value.to_string().as_bytes()).unwrap()
    }

    /// An object as the machine is told of it.
    fn shown(&self, key: &ObjectKey, value: &Value) -> Option<Object> {
        let mut value = value.clone();
        match (self.plant, key.kind) {
            (Plant::HidesPending, Kind::Attachment)
                if value["status"]["attached"] != json!(true) =>
            {
                return None;
            }
            (Plant::HidesUse, Kind::Node) => value["status"]["volumesInUse"] = json!([]),
            (Plant::HidesLists, Kind::Node) => value["status"]["volumesAttached"] = json!([]),
            _ => {}
        }
        Some(Self::read(key, &value))
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key)
    }

    fn node(&self, name: &str) -> Option<Node> {
        let key = node_key(name);
        match Self::read(&key, self.get(&key)?) {
            Object::Node(node) => Some((*node).clone()),
            _ => None,
        }
    }

    pub fn put(&mut self, key: &ObjectKey, mut value: Value) {
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
        let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if !meta["deletionTimestamp"].is_null() && !held {
            self.objects.remove(key);
            self.news.push_back((key.clone(), uid, None));
        } else {
            self.news.push_back((key.clone(), uid, Some(value.clone())));
            self.objects.insert(key.clone(), value);
        }
    }

    pub fn delete(&mut self, key: &ObjectKey) {
        if let Some(mut value) = self.objects.get(key).cloned() {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.put(key, value);
        }
    }

    pub fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
        if let Some(mut value) = self.objects.get(key).cloned() {
            change(&mut value);
            self.put(key, value);
        }
    }

    // What users and nodes do.

    /// A kubelet registers its node, and says at once what it still uses from before.
    pub fn add_node(&mut self, name: &str, managed: bool) {
        let mounted = self.mounted.iter().filter(|(_, node)| node == name);
        let in_use: Vec<String> = mounted.map(|(volume, _)| unique(volume)).collect();
        let annotations = match managed {
            true => json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"}),
            false => json!({}),
        };
        self.put(
            &node_key(name),
            json!({"metadata": {"annotations": annotations},
                "status": {"volumesInUse": in_use,
                           "conditions": [{"type": "Ready", "status": "True"}]}}),
        );
    }

    pub fn set_ready(&mut self, name: &str, ready: bool) {
        let status = if ready { "True" } else { "Unknown" };
        self.change(&node_key(name), |node| {
            node["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        });
    }

    pub fn set_taint(&mut self, name: &str, tainted: bool) {
        self.change(&node_key(name), |node| {
            node["spec"]["taints"] = match tainted {
                true => {
                    json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}])
                }
                false => json!([]),
            };
        });
    }

    pub fn add_volume(&mut self, name: &str, modes: &[&str]) {
        if !modes.iter().any(|m| m.ends_with("Many")) {
            self.single.insert(name.to_owned());
        }
        let claim = format!("c-{name}");
        self.put(
            &ObjectKey::volume(name),
            json!({"metadata": {}, "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": modes,
                "csi": {"driver": DRIVER, "volumeHandle": name},
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

    pub fn add_pod(&mut self, name: &str, volume: &str, node: &str) {
        self.put(
            &ObjectKey::pod("shop", name),
            json!({"metadata": {}, "spec": {"nodeName": node, "volumes": [
                {"name": "d", "persistentVolumeClaim": {"claimName": format!("c-{volume}")}}]},
                "status": {"phase": "Pending"}}),
        );
    }

    fn wanted_here(&self, node: &str) -> BTreeSet<String> {
        let pods = self.objects.iter().filter(|(key, _)| key.kind == Kind::Pod);
        let here = pods.filter(|(_, pod)| {
            pod["spec"]["nodeName"] == node && pod["status"]["phase"] != "Succeeded"
        });
        here.map(|(_, pod)| {
            let claim = &pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
            claim.as_str().unwrap().trim_start_matches("c-").to_owned()
        })
        .collect()
    }

    /// A kubelet does one thing; returns whether there was one. One that is not ready does nothing, and
    /// what it mounted stays.
    pub fn kubelet(&mut self, name: &str) -> bool {
        let Some(node) = self.node(name).filter(|node| node.is_ready) else {
            return false;
        };
        let wanted = self.wanted_here(name);
        let here = |(_, node): &&(String, String)| node == name;
        let mounted: BTreeSet<String> = self
            .mounted
            .iter()
            .filter(here)
            .map(|(v, _)| v.clone())
            .collect();
        if let Some(volume) = mounted.difference(&wanted).next()
            && !self.stuck.contains(name)
        {
            self.mounted.remove(&(volume.clone(), name.to_owned()));
            return true;
        }
        // In use before the list is looked at (M14, A35).
        let mut in_use: BTreeSet<String> = wanted.union(&mounted).cloned().collect();
        in_use.retain(|volume| {
            self.objects
                .contains_key(&ObjectKey::volume(volume.as_str()))
        });
        let in_use: Vec<String> = in_use.iter().map(|v| unique(v)).collect();
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
        for volume in wanted.difference(&mounted) {
            if node
                .volumes_attached
                .iter()
                .any(|v| *v == unique(volume).as_str())
            {
                let here = (volume.clone(), name.to_owned());
                if !self.attached.contains(&here) {
                    self.broken
                        .push(format!("{name} mounts {volume}, which is not attached"));
                }
                self.mounted.insert(here);
                return true;
            }
        }
        false
    }

    /// The external-attacher does one thing (A25, A26); returns whether there was one. `half`: what it
    /// did succeeded, and it does not know.
    pub fn driver(&mut self, half: bool) -> bool {
        if self.driver_is_off {
            return false;
        }
        let all: Vec<ObjectKey> = self.objects.keys().cloned().collect();
        for key in all.into_iter().filter(|key| key.kind == Kind::Attachment) {
            let value = self.objects[&key].clone();
            let text = |at: &str| value.pointer(at).unwrap().as_str().unwrap().to_owned();
            let here = (
                text("/spec/source/persistentVolumeName"),
                text("/spec/nodeName"),
            );
            let deleting = !value["metadata"]["deletionTimestamp"].is_null();
            let held = value["metadata"]["finalizers"]
                .as_array()
                .is_some_and(|f| !f.is_empty());
            if !deleting && !held {
                self.change(&key, |a| {
                    a["metadata"]["finalizers"] = json!(["external-attacher/disk"]);
                });
                return true;
            }
            let error = self.driver_fails.clone();
            if deleting {
                if error.is_some() && value["status"]["detachError"]["message"] == json!(error) {
                    continue;
                }
                if error.is_none() || half {
                    self.really_detach(&here);
                }
                self.change(&key, |a| match error {
                    Some(error) => a["status"]["detachError"] = json!({"message": error}),
                    None => a["metadata"]["finalizers"] = json!([]),
                });
                return true;
            }
            if value["status"]["attached"] == json!(true) {
                continue;
            }
            if error.is_some() && value["status"]["attachError"]["message"] == json!(error) {
                continue;
            }
            if error.is_none() || half {
                self.really_attach(&here);
            }
            self.change(&key, |a| match error {
                Some(error) => a["status"]["attachError"] = json!({"message": error}),
                None => a["status"] = json!({"attached": true}),
            });
            return true;
        }
        false
    }

    fn really_attach(&mut self, here: &(String, String)) {
        let other = self
            .attached
            .iter()
            .find(|(v, n)| *v == here.0 && *n != here.1);
        if let (Some((_, other)), true) = (other, self.single.contains(&here.0)) {
            self.broken
                .push(format!("{} is on {other}, and now on {}", here.0, here.1));
        }
        self.attached.insert(here.clone());
    }

    fn really_detach(&mut self, here: &(String, String)) {
        self.attached.remove(here);
    }

    // What the machine does.

    /// Tells the machine one thing that a watch has; returns whether there was one.
    pub fn deliver(&mut self) -> bool {
        let Some((key, uid, value)) = self.news.pop_front() else {
            return false;
        };
        let shown = value.map(|value| self.shown(&key, &value));
        match shown {
            Some(Some(object)) => self.input(Input::Seen(object)),
            Some(None) => {}
            None => self.input(Input::Deleted(key, uid)),
        }
        true
    }

    fn feed(&mut self, key: &ObjectKey) {
        let found = self.get(key).cloned();
        if let Some(object) = found.and_then(|value| self.shown(key, &value)) {
            self.input(Input::Seen(object));
        }
    }

    /// Executes one effect; returns whether there was one.
    pub fn execute(&mut self, fate: Fate) -> bool {
        let Some(effect) = self.queue.pop_front() else {
            return false;
        };
        match effect {
            Effect::Event(event) => {
                self.events.push(event);
                return true;
            }
            Effect::Wake(after, alarm) => {
                self.timers.push((self.now + after, alarm));
                return true;
            }
            _ => {}
        }
        if fate == Fate::DeathBefore {
            self.restart();
            return true;
        }
        let key = match &effect {
            Effect::Create(create) => create.key.clone(),
            Effect::Write(write) => write.target.key.clone(),
            Effect::Destroy(destroy) => destroy.target.key.clone(),
            other => panic!("{other:?}"),
        };
        let outcome = match (fate, &effect) {
            (Fate::Lost, _) => Outcome::Failed("no route".to_owned()),
            (_, Effect::Create(create)) => self.create(create),
            (_, Effect::Write(write)) => {
                assert_eq!(write.part, Part::Status);
                match self.target(&write.target) {
                    Err(outcome) => outcome,
                    Ok(_) if self.status_fails => Outcome::Failed("no status".to_owned()),
                    Ok(mut value) => {
                        let list = &write.patch["status"]["volumesAttached"];
                        value["status"]["volumesAttached"] = list.clone();
                        self.put(&key, value);
                        Outcome::Done
                    }
                }
            }
            (_, Effect::Destroy(destroy)) => {
                let refuted = destroy.evidence.iter().any(|e| self.is_refuted(e));
                if refuted && self.plant != Plant::NoEvidence {
                    for evidence in &destroy.evidence {
                        let (Evidence::NodeReleased(node, ..)
                        | Evidence::NodeOutOfService(node, ..)
                        | Evidence::NodeAbsent(node)
                        | Evidence::NodeDown(node, _)) = evidence
                        else {
                            panic!("{evidence:?}");
                        };
                        let node = ObjectKey::node(node);
                        self.feed(&node);
                    }
                    Outcome::Spared
                } else {
                    match self.target(&destroy.target) {
                        Err(outcome) => outcome,
                        Ok(value) => {
                            assert_eq!(destroy.action, Destruction::Delete);
                            self.check_detach(&value, &destroy.evidence);
                            self.delete(&key);
                            Outcome::Done
                        }
                    }
                }
            }
            (_, other) => panic!("{other:?}"),
        };
        let step = match &effect {
            Effect::Create(create) => create.step,
            Effect::Write(write) => write.step,
            Effect::Destroy(destroy) => destroy.step,
            _ => "",
        };
        self.steps.push(format!("{step} {outcome:?}"));
        if fate == Fate::DeathAfter {
            self.restart();
            return true;
        }
        match self.get(&key) {
            Some(_) => self.feed(&key),
            None => {
                if let Effect::Destroy(destroy) = &effect {
                    let uid = destroy.target.uid.clone();
                    self.input(Input::Deleted(key.clone(), uid));
                }
            }
        }
        self.input(Input::Finished(key, outcome));
        true
    }

    fn create(&mut self, create: &Create) -> Outcome {
        if self.objects.contains_key(&create.key) {
            return Outcome::Conflict;
        }
        self.put(&create.key, create.body.clone());
        Outcome::Done
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

    fn is_refuted(&self, evidence: &Evidence) -> bool {
        let live = |name: &NodeName| {
            let key = ObjectKey::node(name);
            match self.shown(&key, self.get(&key)?) {
                Some(Object::Node(node)) => Some(node),
                _ => None,
            }
        };
        let holds = match evidence {
            Evidence::NodeReleased(node, uid, volume) => {
                live(node).is_some_and(|n| n.meta.uid == *uid && n.released(volume))
            }
            Evidence::NodeAbsent(node) => live(node).is_none(),
            Evidence::NodeOutOfService(node, uid, volume) => live(node).is_some_and(|n| {
                n.meta.uid == *uid && n.is_out_of_service && !n.is_ready && !n.lists(volume)
            }),
            Evidence::NodeDown(node, volume) => {
                live(node).is_none_or(|n| !n.is_ready && !n.lists(volume))
            }
            other => panic!("{other:?}"),
        };
        !holds
    }

    /// What must hold whenever a volume is taken from a node.
    fn check_detach(&mut self, attachment: &Value, evidence: &[Evidence]) {
        let volume = attachment["spec"]["source"]["persistentVolumeName"]
            .as_str()
            .unwrap();
        let name = attachment["spec"]["nodeName"].as_str().unwrap();
        let mounted = self.mounted.contains(&(volume.to_owned(), name.to_owned()));
        let node = self.node(name);
        let lists = |list: &[DiskName]| list.iter().any(|v| *v == unique(volume).as_str());
        if node
            .as_ref()
            .is_some_and(|node| lists(&node.volumes_attached))
        {
            self.broken
                .push(format!("{volume} is taken from {name}, which lists it"));
        }
        let ready = node.as_ref().is_some_and(|node| node.is_ready);
        if ready && (mounted || node.as_ref().is_some_and(|n| lists(&n.volumes_in_use))) {
            self.broken.push(format!(
                "{volume} is taken from {name}, which is well and uses it"
            ));
        }
        let tainted = node.as_ref().is_some_and(|node| node.is_out_of_service);
        let said = attachment["metadata"]["annotations"]["bitts.dev/force-detach"].is_string();
        let timed = self.options.force_single_after.is_some() || !self.single.contains(volume);
        if mounted && !(tainted || said || timed) {
            self.broken.push(format!(
                "{volume} is taken from {name} without a word: {evidence:?}"
            ));
        }
    }

    /// Lets everybody do what they have to, until nobody has anything to do.
    pub fn rest(&mut self) {
        for _ in 0..10_000 {
            let names: Vec<Name> = self
                .objects
                .keys()
                .filter(|k| k.kind == Kind::Node)
                .map(|k| k.name.clone())
                .collect();
            let kubelets = names.iter().any(|name| self.kubelet(name.as_str()));
            let busy = self.deliver() | self.execute(Fate::Done) | self.driver(false) | kubelets;
            if !busy {
                // Back-offs of up to a second are part of a rest.
                let soon = self.now + Duration::from_secs(1);
                if !self.ring(soon) {
                    return;
                }
            }
        }
        panic!(
            "no rest: {:?} {:?}",
            self.steps.iter().rev().take(20).collect::<Vec<_>>(),
            self.queue
        );
    }

    /// Rings the next timer until then; returns whether there was one.
    pub fn ring(&mut self, until: Duration) -> bool {
        let next = self
            .timers
            .iter()
            .enumerate()
            .min_by_key(|(_, (at, _))| *at);
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
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        self.rest();
        while self.ring(until) {
            self.rest();
        }
        self.now = self.now.max(until);
    }

    pub fn is_listed(&self, volume: &str, node: &str) -> bool {
        let node = self.node(node);
        node.is_some_and(|n| {
            n.volumes_attached
                .iter()
                .any(|v| *v == unique(volume).as_str())
        })
    }
}
