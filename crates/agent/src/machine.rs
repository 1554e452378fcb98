//! The agent's machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitts_api::machine::{
    Cache, Change, Effect, Event, Input, Machine, Moment, Outcome, Place, Scope, Severity, Watch,
};
use bitts_api::{Claim, Kind, Name, Node, NodeName, Object, ObjectKey, Pod, Uid, Volume};

use crate::finish::{Finishing, Next};
use crate::gates::{self, Refusal, World};
use crate::ledger::{Actual, Job, Ledger};
use crate::task::{Alarm, Mount, MountKey, Report, Task, back_off};

type Effects = Vec<Effect<Task, Alarm>>;

/// Decides which volumes are mounted for the pods of one node, and when they are taken down.
///
/// It does nothing before it was told all pods, claims and volumes, its node, and what a scan of
/// the kubelet's directory found (B2, M4): until then work only piles up.
#[derive(Debug)]
pub struct Agent {
    node: NodeName,
    finish_pods: bool,

    pods: Cache<Pod>,
    claims: Cache<Claim>,
    volumes: Cache<Volume>,
    nodes: Cache<Node>,
    /// Where each pod's object is.
    by_uid: BTreeMap<Uid, Place>,
    /// The pods that wait for, or use, each claim.
    by_claim: BTreeMap<Place, BTreeSet<Place>>,
    /// The pods that wait until another one gives a volume up.
    by_turn: BTreeMap<Name, BTreeSet<Place>>,

    ledger: Ledger,
    finishing: Finishing,
    /// The last refusal that was told of each pod's volume, by its name in the pod.
    told: BTreeMap<(Uid, Box<str>), Refusal>,

    scan: Scan,
    /// What has to be looked at again.
    pods_to_look_at: BTreeSet<Place>,
    volumes_to_look_at: BTreeSet<MountKey>,
    empty_to_remove: BTreeSet<Uid>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scan {
    NotAsked,
    /// Asked for; it failed this many times.
    Asked(u32),
    Done,
}

impl Agent {
    /// The agent of this node. With `finish_pods` it also deletes the objects of pods whose
    /// deletion was asked for, once their volumes are down: for nodes where nobody else runs the
    /// pods, as in the demo.
    #[must_use]
    pub fn new(node: NodeName, finish_pods: bool) -> Self {
        Self {
            node,
            finish_pods,
            pods: Cache::default(),
            claims: Cache::default(),
            volumes: Cache::default(),
            nodes: Cache::default(),
            by_uid: BTreeMap::new(),
            by_claim: BTreeMap::new(),
            by_turn: BTreeMap::new(),
            ledger: Ledger::default(),
            finishing: Finishing::default(),
            told: BTreeMap::new(),
            scan: Scan::NotAsked,
            pods_to_look_at: BTreeSet::new(),
            volumes_to_look_at: BTreeSet::new(),
            empty_to_remove: BTreeSet::new(),
        }
    }

    fn is_ready(&self) -> bool {
        self.scan == Scan::Done
            && self.pods.is_listed()
            && self.claims.is_listed()
            && self.volumes.is_listed()
            && self.nodes.is_listed()
    }

    fn node(&self) -> Option<&Arc<Node>> {
        self.nodes.get(&(None, self.node.as_str().into()))
    }

    fn pod(&self, uid: &Uid) -> Option<&Arc<Pod>> {
        self.pods.get(self.by_uid.get(uid)?)
    }

    /// Whether nothing of the pod runs any more, as far as the API knows (M3). Only the node
    /// itself knows for sure; the worker asks it.
    fn is_over(&self, pod: &Uid) -> bool {
        self.pod(pod).is_none_or(|pod| pod.is_terminated())
    }

    /// Does what piled up.
    fn settle(&mut self, out: &mut Effects) {
        loop {
            if let Some(place) = self.pods_to_look_at.pop_first() {
                self.look_at_pod(&place, out);
            } else if let Some(key) = self.volumes_to_look_at.pop_first() {
                self.look_at_volume(key, out);
            } else {
                break;
            }
        }
        if self.node().is_none() {
            return;
        }
        for pod in std::mem::take(&mut self.empty_to_remove) {
            if self.is_over(&pod) && !self.ledger.has_pod(&pod) {
                out.push(Effect::Task(Task::RemovePodDirectory(pod)));
            }
        }
    }

    fn look_at_pod(&mut self, place: &Place, out: &mut Effects) {
        let Some(pod) = self.pods.get(place).cloned() else {
            return;
        };
        let uid = &pod.meta.uid;
        self.volumes_to_look_at.extend(self.ledger.of_pod(uid));
        if !pod.is_terminated() {
            self.plan_pod(place, &pod, out);
        } else if self.finish_pods && pod.meta.is_deleting() && !self.ledger.has_pod(uid) {
            out.extend(self.finishing.start(&pod).map(Effect::Destroy));
        }
    }

    fn plan_pod(&mut self, place: &Place, pod: &Pod, out: &mut Effects) {
        let uid = &pod.meta.uid;
        let mut wanted = BTreeMap::<MountKey, Mount>::new();
        for volume in &pod.volumes {
            let world = World {
                claims: &self.claims,
                volumes: &self.volumes,
                node: self.node().map(|node| &**node),
                used_by_another: &|volume| self.ledger.has_other_pod(volume, uid),
            };
            let topic = (uid.clone(), volume.name.clone());
            match gates::plan(pod, volume, &world) {
                Ok(None) => {}
                Ok(Some(mount)) => {
                    self.told.remove(&topic);
                    // Volumes of a pod that name the same claim share one mount, which is
                    // read-only when none of them writes.
                    let read_only = mount.read_only;
                    let shared = wanted.entry(mount.key.clone()).or_insert(mount);
                    shared.read_only &= read_only;
                }
                Err(refusal) => {
                    if let Refusal::InUse(name) = &refusal {
                        self.by_turn
                            .entry(name.clone())
                            .or_default()
                            .insert(place.clone());
                    }
                    if self.told.get(&topic) != Some(&refusal) {
                        out.push(about_pod(pod, "FailedMount", refusal.to_string()));
                        self.told.insert(topic, refusal);
                    }
                }
            }
        }
        for (key, mount) in wanted {
            let record = self.ledger.open(key.clone());
            record.pod = Some(pod_key(pod));
            record.want(mount);
            self.volumes_to_look_at.insert(key);
        }
    }

    fn look_at_volume(&mut self, key: MountKey, out: &mut Effects) {
        let over = self.is_over(&key.pod);
        // Of a node that the API does not have, no pods are listed: a mistyped name must not make
        // them all look gone. When the node appears, all is looked at again.
        if over && self.node().is_none() {
            return;
        }
        let Some(record) = self.ledger.get(&key) else {
            return;
        };
        if record.is_over(over) {
            self.ledger.close(&key);
            self.pods_to_look_at
                .extend(self.by_uid.get(&key.pod).cloned());
            self.pods_to_look_at
                .extend(self.by_turn.remove(&key.volume).unwrap_or_default());
            return;
        }
        let desired = record.desired.clone();
        match (record.start(over), desired) {
            (Some(Job::Unmount), _) => out.push(Effect::Task(Task::Unmount(key))),
            (Some(Job::Mount), Some(mount)) => out.push(Effect::Task(Task::Mount(mount))),
            (Some(Job::Mount), None) | (None, _) => {}
        }
    }

    fn report(&mut self, report: Report, out: &mut Effects) {
        match report {
            Report::Scanned { volumes, empty } => {
                self.scan = Scan::Done;
                for key in volumes {
                    self.ledger.open(key.clone()).actual = Actual::Unsure;
                    self.volumes_to_look_at.insert(key);
                }
                self.empty_to_remove.extend(empty);
            }
            Report::ScanFailed(message) => {
                let Scan::Asked(before) = self.scan else {
                    return;
                };
                self.scan = Scan::Asked(before + 1);
                out.push(Effect::Wake(back_off(before + 1), Alarm::Scan));
                if before == 0 {
                    out.extend(self.about_node("BittsFailedScan", message));
                }
            }
            Report::Mounted { mount, .. } => {
                if let Some(record) = self.ledger.get(&mount.key) {
                    self.volumes_to_look_at.insert(mount.key.clone());
                    record.succeed(Actual::Mounted(mount));
                }
            }
            Report::MountFailed {
                mount,
                stage,
                message,
            } => {
                let text = format!("{stage} for volume {:?} : {message}", mount.key.volume);
                self.failed(mount.key, "FailedMount", text, out);
            }
            Report::Unmounted { key, .. } => {
                if let Some(record) = self.ledger.get(&key) {
                    record.succeed(Actual::Absent);
                    self.volumes_to_look_at.insert(key);
                }
            }
            Report::Kept { key, holders, .. } => {
                let text = format!(
                    "volume {:?} stays mounted although the pod is over: {holders}. End what uses it",
                    key.volume
                );
                self.failed(key, "BittsVolumeKept", text, out);
            }
            Report::UnmountFailed { key, message } => {
                let text = format!(
                    "UnmountVolume.TearDown failed for volume {:?} : {message}",
                    key.volume
                );
                self.failed(key, "BittsFailedUnmount", text, out);
            }
            Report::PodDirectoryRemoved(_) => {}
        }
    }

    fn failed(&mut self, key: MountKey, reason: &'static str, text: String, out: &mut Effects) {
        let place = self
            .by_uid
            .get(&key.pod)
            .map(|(namespace, name)| ObjectKey {
                kind: Kind::Pod,
                namespace: namespace.clone(),
                name: name.clone(),
            });
        let Some(record) = self.ledger.get(&key) else {
            return;
        };
        let about = record.pod.clone().or(place);
        let new = record.tells(&text);
        let (delay, attempt) = record.fail();
        if new {
            out.extend(match about {
                Some(about) => Some(warn(about, key.pod.clone(), reason, text)),
                // The pod's object was gone before this agent began.
                None => self.about_node(reason, format!("pod {}: {text}", key.pod)),
            });
        }
        self.volumes_to_look_at.insert(key.clone());
        out.push(Effect::Wake(delay, Alarm::Retry(key, attempt)));
    }

    fn about_node(&self, reason: &'static str, text: String) -> Option<Effect<Task, Alarm>> {
        let node = self.node()?;
        let about = ObjectKey {
            kind: Kind::Node,
            namespace: None,
            name: node.meta.name.clone(),
        };
        Some(warn(about, node.meta.uid.clone(), reason, text))
    }

    fn alarm(&mut self, alarm: Alarm, out: &mut Effects) {
        match alarm {
            Alarm::Scan => {
                if matches!(self.scan, Scan::Asked(_)) {
                    out.push(Effect::Task(Task::Scan));
                }
            }
            Alarm::Retry(key, attempt) => {
                if let Some(record) = self.ledger.get(&key) {
                    record.retry(attempt);
                    self.volumes_to_look_at.insert(key);
                }
            }
            Alarm::Finish(key) => {
                self.finishing.wake(&key);
                self.pods_to_look_at.insert((key.namespace, key.name));
            }
        }
    }

    fn finished(&mut self, key: ObjectKey, outcome: Outcome, out: &mut Effects) {
        let next = self.finishing.ended(&key, outcome);
        let place = (key.namespace.clone(), key.name.clone());
        match next {
            Next::Wait => {}
            Next::Again => {
                self.pods_to_look_at.insert(place);
            }
            Next::Later(delay) => out.push(Effect::Wake(delay, Alarm::Finish(key))),
            Next::Tell(message) => {
                if let Some(pod) = self.pods.get(&place) {
                    let text = format!("the object of the ended pod cannot be deleted: {message}");
                    out.push(about_pod(pod, "BittsFailedFinish", text));
                }
            }
        }
    }

    fn list(&mut self, kind: Kind, objects: Vec<Object>) {
        match kind {
            Kind::Pod => {
                let pods = objects.into_iter().filter_map(|o| match o {
                    Object::Pod(pod) if pod.node.as_ref() == Some(&self.node) => Some(pod),
                    _ => None,
                });
                let changes = self.pods.replace(pods.collect::<Vec<_>>());
                changes
                    .into_iter()
                    .for_each(|change| self.pod_changed(change));
            }
            Kind::Claim => {
                let changes = self
                    .claims
                    .replace(objects.into_iter().filter_map(|o| match o {
                        Object::Claim(claim) => Some(claim),
                        _ => None,
                    }));
                changes
                    .into_iter()
                    .for_each(|change| self.claim_changed(change));
            }
            Kind::Volume => {
                let changes = self
                    .volumes
                    .replace(objects.into_iter().filter_map(|o| match o {
                        Object::Volume(volume) => Some(volume),
                        _ => None,
                    }));
                changes
                    .into_iter()
                    .for_each(|change| self.volume_changed(change));
            }
            Kind::Node => {
                let changes = self
                    .nodes
                    .replace(objects.into_iter().filter_map(|o| match o {
                        Object::Node(node) => Some(node),
                        _ => None,
                    }));
                changes
                    .into_iter()
                    .for_each(|change| self.node_changed(change));
            }
            Kind::StorageClass | Kind::AttributesClass => {}
        }
    }

    fn see(&mut self, object: Object) {
        match object {
            Object::Pod(pod) if pod.node.as_ref() == Some(&self.node) => {
                let changes = self.pods.see(pod);
                changes
                    .into_iter()
                    .for_each(|change| self.pod_changed(change));
            }
            Object::Claim(claim) => {
                let changes = self.claims.see(claim);
                changes
                    .into_iter()
                    .for_each(|change| self.claim_changed(change));
            }
            Object::Volume(volume) => {
                let changes = self.volumes.see(volume);
                changes
                    .into_iter()
                    .for_each(|change| self.volume_changed(change));
            }
            Object::Node(node) if node.meta.name == *self.node.as_str() => {
                let changes = self.nodes.see(node);
                changes
                    .into_iter()
                    .for_each(|change| self.node_changed(change));
            }
            Object::Pod(_)
            | Object::Node(_)
            | Object::StorageClass(_)
            | Object::AttributesClass(_) => {}
        }
    }

    fn delete(&mut self, key: ObjectKey, uid: &Uid) {
        let place = (key.namespace, key.name);
        match key.kind {
            Kind::Pod => {
                let change = self.pods.remove(&place, uid);
                change
                    .into_iter()
                    .for_each(|change| self.pod_changed(change));
            }
            Kind::Claim => {
                let change = self.claims.remove(&place, uid);
                change
                    .into_iter()
                    .for_each(|change| self.claim_changed(change));
            }
            Kind::Volume => {
                let change = self.volumes.remove(&place, uid);
                change
                    .into_iter()
                    .for_each(|change| self.volume_changed(change));
            }
            Kind::Node => {
                let change = self.nodes.remove(&place, uid);
                change
                    .into_iter()
                    .for_each(|change| self.node_changed(change));
            }
            Kind::StorageClass | Kind::AttributesClass => {}
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        let (old, new) = sides(change);
        if let Some(old) = &old {
            let place = place_of(old);
            for claim in claims_of(old) {
                if let Some(pods) = self.by_claim.get_mut(&claim) {
                    pods.remove(&place);
                    if pods.is_empty() {
                        self.by_claim.remove(&claim);
                    }
                }
            }
            if new.is_none() {
                let uid = &old.meta.uid;
                self.by_uid.remove(uid);
                self.told.retain(|(pod, _), _| pod != uid);
                self.finishing.forget(&pod_key(old));
                self.volumes_to_look_at.extend(self.ledger.of_pod(uid));
            }
        }
        if let Some(new) = &new {
            let place = place_of(new);
            for claim in claims_of(new) {
                self.by_claim
                    .entry(claim)
                    .or_default()
                    .insert(place.clone());
            }
            self.by_uid.insert(new.meta.uid.clone(), place.clone());
            self.finishing.wake(&pod_key(new));
            self.pods_to_look_at.insert(place);
        }
    }

    fn claim_changed(&mut self, change: Change<Claim>) {
        let (old, new) = sides(change);
        for claim in old.iter().chain(&new) {
            let place = claim.meta.place();
            self.pods_to_look_at
                .extend(self.by_claim.get(&place).into_iter().flatten().cloned());
        }
    }

    /// A volume matters to the pods of the claim that it says it belongs to.
    fn volume_changed(&mut self, change: Change<Volume>) {
        let (old, new) = sides(change);
        for volume in old.iter().chain(&new) {
            let Some(claim) = &volume.claim_ref else {
                continue;
            };
            let place = (Some(claim.namespace.clone()), claim.name.clone());
            self.pods_to_look_at
                .extend(self.by_claim.get(&place).into_iter().flatten().cloned());
        }
    }

    fn node_changed(&mut self, change: Change<Node>) {
        let (old, new) = sides(change);
        if old.is_some() != new.is_some() {
            self.volumes_to_look_at.extend(self.ledger.keys().cloned());
        }
        // A node's status changes all the time.
        if old.map(|n| n.meta.labels.clone()) != new.map(|n| n.meta.labels.clone()) {
            self.pods_to_look_at
                .extend(self.pods.iter().map(|pod| place_of(pod)));
        }
    }
}

impl Machine for Agent {
    type Task = Task;
    type Report = Report;
    type Alarm = Alarm;

    fn watches(&self) -> Vec<Watch> {
        let watch = |kind, scope| Watch { kind, scope };
        vec![
            watch(Kind::Pod, Scope::OnNode(self.node.clone())),
            watch(Kind::Claim, Scope::All),
            watch(Kind::Volume, Scope::All),
            watch(Kind::Node, Scope::Named(self.node.as_str().into())),
        ]
    }

    fn handle(&mut self, _now: Moment, input: Input<Report, Alarm>) -> Effects {
        let mut out = Vec::new();
        if self.scan == Scan::NotAsked {
            self.scan = Scan::Asked(0);
            out.push(Effect::Task(Task::Scan));
        }
        match input {
            Input::Listed(kind, objects) => self.list(kind, objects),
            Input::Seen(object) => self.see(object),
            Input::Deleted(key, uid) => self.delete(key, &uid),
            Input::Finished(key, outcome) => self.finished(key, outcome, &mut out),
            Input::Report(report) => self.report(report, &mut out),
            Input::Alarm(alarm) => self.alarm(alarm, &mut out),
        }
        if self.is_ready() {
            self.settle(&mut out);
        }
        out
    }
}

/// An object before and after a change.
type Sides<T> = (Option<Arc<T>>, Option<Arc<T>>);

fn sides<T>(change: Change<T>) -> Sides<T> {
    match change {
        Change::Set { old, new } => (old, Some(new)),
        Change::Removed(old) => (Some(old), None),
    }
}

fn place_of(pod: &Pod) -> Place {
    pod.meta.place()
}

fn pod_key(pod: &Pod) -> ObjectKey {
    ObjectKey {
        kind: Kind::Pod,
        namespace: pod.meta.namespace.clone(),
        name: pod.meta.name.clone(),
    }
}

fn claims_of(pod: &Pod) -> impl Iterator<Item = Place> {
    let namespace = pod.meta.namespace.clone();
    pod.claims()
        .map(move |claim| (namespace.clone(), claim.clone()))
}

fn about_pod(pod: &Pod, reason: &'static str, message: String) -> Effect<Task, Alarm> {
    warn(pod_key(pod), pod.meta.uid.clone(), reason, message)
}

fn warn(about: ObjectKey, uid: Uid, reason: &'static str, message: String) -> Effect<Task, Alarm> {
    Effect::Event(Event {
        about,
        uid,
        severity: Severity::Warning,
        reason,
        message,
        source: None,
    })
}
