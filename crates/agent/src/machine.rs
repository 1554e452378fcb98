//! The agent's machine.

pub(crate) mod beside;
mod healing;
mod news;
mod scanning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitts_api::machine::{
    Cache, Effect, Event, Input, Machine, Measure, Moment, Outcome, Place, Scope, Severity, Watch,
};
use bitts_api::{
    Attachment, Claim, CsiDriver, CsiVolume, Kind, Name, Namespace, Node, NodeName, ObjectKey, Pod,
    PodVolume, PodVolumeSource, Source, Uid, Volume, VolumeMode,
};

use crate::finish::{Finishing, Next};
use crate::following::Following;
use crate::gates::{self, Refusal, World};
use crate::heal::Wards;
use crate::in_use::InUse;
use crate::ledger::{Actual, Job, Ledger};
use crate::mode::Mode;
use crate::plugins::attachment;
use crate::stages::Stages;
use crate::task::{Alarm, Give, Mount, MountKey, OnNode, Report, StageKey, Task};
use scanning::Scans;

type Effects = Vec<Effect<Task, Alarm>>;

/// Decides which volumes are mounted for the pods of one node, and when they are taken down.
///
/// It does nothing before it was told all its pods, its node, and what a scan of
/// the kubelet's directory found (B2, M4): until then work only piles up.
#[derive(Debug)]
pub struct Agent {
    node: NodeName,
    finish_pods: bool,
    mode: Mode,

    pods: Cache<Pod>,
    claims: Cache<Claim>,
    volumes: Cache<Volume>,
    nodes: Cache<Node>,
    csi_drivers: Cache<CsiDriver>,
    attachments: Cache<Attachment>,
    /// Where each pod's object is.
    by_uid: BTreeMap<Uid, Place>,
    /// Which claims and volumes pods wait for; no others are known.
    following: Following,
    /// The pods that wait until another one gives a volume up.
    by_turn: BTreeMap<Name, BTreeSet<Place>>,

    ledger: Ledger,
    stages: Stages,
    in_use: InUse,
    finishing: Finishing,
    wards: Wards,
    /// The task that notices what vanishes, when it is not under way.
    watch: Option<Task>,
    /// The last refusal that was told of each pod's volume, by its name in the pod.
    told: BTreeMap<(Uid, Box<str>), Refusal>,
    /// The mount that each pod's volume is in, by its name in the pod.
    planned: BTreeMap<(Uid, Box<str>), MountKey>,
    /// The volumes of pods that are a kubelet's alone.
    left_alone: BTreeSet<(Uid, Box<str>)>,

    scans: Scans,
    /// What has to be looked at again.
    pods_to_look_at: BTreeSet<Place>,
    volumes_to_look_at: BTreeSet<MountKey>,
    stages_to_look_at: BTreeSet<StageKey>,
    empty_to_remove: BTreeSet<Uid>,
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
            mode: Mode::Owner,
            pods: Cache::default(),
            claims: Cache::default(),
            volumes: Cache::default(),
            nodes: Cache::default(),
            csi_drivers: Cache::default(),
            attachments: Cache::default(),
            by_uid: BTreeMap::new(),
            following: Following::default(),
            by_turn: BTreeMap::new(),
            ledger: Ledger::default(),
            stages: Stages::default(),
            in_use: InUse::default(),
            finishing: Finishing::default(),
            wards: Wards::default(),
            watch: None,
            told: BTreeMap::new(),
            planned: BTreeMap::new(),
            left_alone: BTreeSet::new(),
            scans: Scans::default(),
            pods_to_look_at: BTreeSet::new(),
            volumes_to_look_at: BTreeSet::new(),
            stages_to_look_at: BTreeSet::new(),
            empty_to_remove: BTreeSet::new(),
        }
    }

    /// Has it leave to a kubelet what is a kubelet's.
    #[must_use]
    pub fn in_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    fn is_ready(&self) -> bool {
        self.scans.was_done() && self.pods.is_listed() && self.nodes.is_listed()
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
        let beside = self.mode == Mode::BesideKubelet;
        self.pod(pod)
            .is_none_or(|pod| pod.is_terminated() || (beside && pod.meta.is_deleting()))
    }

    /// Does what piled up.
    fn settle(&mut self, out: &mut Effects) {
        if self.mode == Mode::BesideKubelet {
            self.settle_beside(out);
            return;
        }
        loop {
            if let Some(place) = self.pods_to_look_at.pop_first() {
                self.look_at_pod(&place, out);
            } else if let Some(key) = self.volumes_to_look_at.pop_first() {
                self.look_at_volume(key, out);
            } else if let Some(key) = self.stages_to_look_at.pop_first() {
                self.look_at_stage(&key, out);
            } else {
                break;
            }
        }
        let Some(node) = self.node().cloned() else {
            return;
        };
        let names = self.stages.attachable_names(&node);
        out.extend(self.in_use.write(&node, &names).map(Effect::Write));
        for pod in std::mem::take(&mut self.empty_to_remove) {
            if self.is_over(&pod) && !self.ledger.has_pod(&pod) {
                out.push(Effect::Task(Task::RemovePodDirectory(pod)));
            }
        }
    }

    fn look_at_pod(&mut self, place: &Place, out: &mut Effects) {
        let Some(pod) = self.pods.get(place).cloned() else {
            self.follow(place, BTreeSet::new(), out);
            return;
        };
        let uid = &pod.meta.uid;
        self.volumes_to_look_at.extend(self.ledger.of_pod(uid));
        if !pod.is_terminated() {
            self.plan_pod(place, &pod, out);
            return;
        }
        self.follow(place, BTreeSet::new(), out);
        if self.finish_pods && pod.meta.is_deleting() && !self.ledger.has_pod(uid) {
            out.extend(self.finishing.start(&pod).map(Effect::Destroy));
        }
    }

    fn plan_pod(&mut self, place: &Place, pod: &Pod, out: &mut Effects) {
        let uid = &pod.meta.uid;
        let mut wanted = BTreeMap::<MountKey, Mount>::new();
        let mut needs = BTreeSet::new();
        for volume in &pod.volumes {
            let topic = (uid.clone(), volume.name.clone());
            if self.is_settled(&topic) {
                continue;
            }
            let keys = self.keys(pod, volume);
            let known = keys.iter().all(|key| self.following.knows(key));
            if !known {
                needs.extend(keys);
                continue;
            }
            let world = World {
                claims: &self.claims,
                volumes: &self.volumes,
                csi_drivers: &self.csi_drivers,
                attachment: &|volume| {
                    let key = attachment_key(volume, &self.node);
                    self.attachments
                        .get(&(None, key.name))
                        .map(|found| &**found)
                },
                node: self.node().map(|node| &**node),
                used_by_another: &|volume| self.ledger.has_other_pod(volume, uid),
            };
            match gates::plan(pod, volume, &world) {
                Ok(None) => {}
                Ok(Some(mount)) if self.is_the_kubelets(&mount) => {
                    self.left_alone.insert(topic);
                }
                Ok(Some(mount)) => {
                    // It is wanted all the same: only what the node says it uses is attached.
                    match gates::attaching(&mount) {
                        Some(refusal) => self.refuse(pod, topic.clone(), refusal, out),
                        None => drop(self.told.remove(&topic)),
                    }
                    self.planned.insert(topic, mount.key.clone());
                    needs.extend(keys);
                    // Volumes of a pod that name the same claim share one mount, which is
                    // read-only when none of them writes.
                    let read_only = mount.read_only;
                    let shared = wanted.entry(mount.key.clone()).or_insert(mount);
                    shared.read_only &= read_only;
                }
                Err(refusal) => {
                    if !refusal.is_final() {
                        needs.extend(keys);
                    }
                    if let Refusal::InUse(name) = &refusal {
                        self.by_turn
                            .entry(name.clone())
                            .or_default()
                            .insert(place.clone());
                    }
                    self.refuse(pod, topic, refusal, out);
                }
            }
        }
        self.follow(place, needs, out);
        for (key, mount) in wanted {
            let record = self.ledger.open(key.clone());
            record.pod = Some(pod_key(pod));
            record.want(mount);
            self.volumes_to_look_at.insert(key);
        }
    }

    /// Tells a pod why its volume is not mounted, unless it was told.
    fn refuse(&mut self, pod: &Pod, topic: (Uid, Box<str>), refusal: Refusal, out: &mut Effects) {
        if self.told.get(&topic) != Some(&refusal) {
            // A kubelet tells it, too.
            let tells = self.mode == Mode::Owner;
            out.extend(tells.then(|| about_pod(pod, "FailedMount", refusal.to_string())));
            self.told.insert(topic, refusal);
        }
    }

    /// Whether nothing is to be done about a mount beside a kubelet.
    fn is_the_kubelets(&self, mount: &Mount) -> bool {
        self.mode == Mode::BesideKubelet && !beside::is_watched_over(mount)
    }

    /// Whether nothing that may still be told changes what becomes of a pod's volume.
    fn is_settled(&mut self, topic: &(Uid, Box<str>)) -> bool {
        if self.told.get(topic).is_some_and(Refusal::is_final) {
            return true;
        }
        if self.left_alone.contains(topic) {
            return true;
        }
        let record = self.planned.get(topic);
        let record = record.and_then(|key| self.ledger.get(key));
        record.is_some_and(|record| matches!(record.actual, Actual::Mounted(_) | Actual::Spoilt(_)))
    }

    /// The objects that decide on a pod's volume, as far as is known yet.
    fn keys(&self, pod: &Pod, volume: &PodVolume) -> Vec<ObjectKey> {
        let PodVolumeSource::Claim { name, .. } = &volume.source else {
            return Vec::new();
        };
        let place = (pod.meta.namespace.clone(), name.clone());
        let bound_to = self
            .claims
            .get(&place)
            .and_then(|claim| claim.volume_name.as_ref())
            .map(volume_key);
        let volume = bound_to
            .as_ref()
            .and_then(|key| self.volumes.get(&(None, key.name.clone())));
        let claim = claim_key(place.0, name);
        let mut keys: Vec<_> = [claim].into_iter().chain(bound_to).collect();
        if let Some(Source::Csi(csi)) = volume.map(|volume| &volume.source) {
            let driver = ObjectKey::csi_driver(&*csi.driver);
            let wants = gates::wants(&self.csi_drivers, &csi.driver);
            let waits = self.following.knows(&driver) && wants.attach;
            keys.push(driver);
            keys.extend(waits.then(|| attachment_key(csi, &self.node)));
        }
        keys
    }

    /// Asks to be told of these for a pod, and of nothing else.
    fn follow(&mut self, pod: &Place, needs: BTreeSet<ObjectKey>, out: &mut Effects) {
        let difference = self.following.set(pod, needs);
        out.extend(difference.begun.into_iter().map(Effect::Follow));
        for key in difference.ended {
            let place = (key.namespace.clone(), key.name.clone());
            match key.kind {
                Kind::Claim => self.claims.forget(&place),
                Kind::CsiDriver => self.csi_drivers.forget(&place),
                Kind::Attachment => self.attachments.forget(&place),
                _ => self.volumes.forget(&place),
            }
            out.push(Effect::Unfollow(key));
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
            self.stages_to_look_at.extend(record.stages());
            self.ledger.close(&key);
            self.wards.forget(&key);
            self.pods_to_look_at
                .extend(self.by_uid.get(&key.pod).cloned());
            self.pods_to_look_at
                .extend(self.by_turn.remove(&key.volume).unwrap_or_default());
            return;
        }
        let missing = record.needs(over).map(|staging| staging.key.clone());
        let missing = missing.filter(|stage| self.stages.lacks(stage));
        let job = record.start(over, missing.is_none());
        match (job, record.desired.clone()) {
            (Some(Job::Unmount), _) => out.push(Effect::Task(Task::Unmount(key))),
            (Some(Job::Mount), Some(mut mount)) => {
                if key.plugin.volume_type().has_one_group()
                    && self.ledger.is_used_beside(&key)
                    && let Some(group) = &mut mount.group
                {
                    group.give = Give::Never;
                }
                out.push(Effect::Task(Task::Mount(mount)));
            }
            (Some(Job::Renew), _) => {
                if let Actual::Spoilt(mount) = &record.actual {
                    out.push(Effect::Task(Task::Renew(mount.clone())));
                }
            }
            (Some(Job::Mount), None) | (None, _) => {}
        }
        self.stages_to_look_at.extend(missing);
    }

    fn look_at_stage(&mut self, key: &StageKey, out: &mut Effects) {
        // As for the volumes: what is not listed does not look gone.
        let Some(node) = self.node().cloned() else {
            return;
        };
        let needed = self.ledger.users(key).find_map(|(user, record)| {
            let staging = record.needs(self.is_over(&user.pod))?;
            (staging.key == *key && self.stages.lacks(key)).then(|| staging.clone())
        });
        let is_used = self.ledger.users(key).next().is_some();
        // Nothing is mounted before the node says that it is used (M14).
        let told = |name: &String| node.volumes_in_use.iter().any(|listed| *listed == **name);
        if let Some(needed) = &needed
            && !(needed.attachable_names().iter().all(told) && needed.is_attached(&node))
        {
            self.stages.expect(needed);
            return;
        }
        let task = self.stages.start(key, needed.as_ref(), is_used);
        out.extend(task.map(Effect::Task));
    }

    fn report(&mut self, now: Moment, report: Report, out: &mut Effects) {
        match report {
            Report::Scanned {
                volumes,
                stages,
                empty,
            } => self.scanned(volumes, stages, empty, out),
            Report::ScanFailed(message) => self.scan_failed(message, out),
            Report::Mounted { mount, warning, .. } => {
                let pod = self.pod(&mount.key.pod);
                out.extend(
                    pod.zip(warning)
                        .map(|(pod, warning)| about_pod(pod, warning.reason, warning.message)),
                );
                if let Some(record) = self.ledger.get(&mount.key) {
                    self.volumes_to_look_at.insert(mount.key.clone());
                    self.pods_to_look_at
                        .extend(self.by_uid.get(&mount.key.pod).cloned());
                    record.succeed(Actual::Mounted(mount.clone()));
                    self.mounted_well(&mount, out);
                }
            }
            Report::Staged { staging, on_node } => {
                self.stages.staged(&staging.key, &on_node);
                if let OnNode::Device {
                    warning: Some(warning),
                    ..
                } = on_node
                {
                    let text = format!(
                        "MountVolume.NodeExpandVolume failed for volume {:?} : {warning}",
                        staging.volume
                    );
                    self.tell_users(&staging.key, "FileSystemResizeFailed", &text, out);
                }
                self.stage_ended(staging.key);
            }
            Report::StageFailed {
                staging,
                step,
                message,
            } => {
                let step = step.failed(VolumeMode::Filesystem);
                let text = format!("{step} for volume {:?} : {message}", staging.volume);
                let (delay, attempt, new) = self.stages.failed(&staging.key, &text);
                if new {
                    self.tell_users(&staging.key, "FailedMount", &text, out);
                }
                let alarm = Alarm::RetryStage(staging.key.clone(), attempt);
                out.push(Effect::Wake(delay, alarm));
                self.stage_ended(staging.key);
            }
            Report::Unstaged { key, .. } => {
                self.stages.unstaged(&key);
                self.stage_ended(key);
            }
            Report::UnstageFailed { key, message } => {
                let text = format!("UnmountDevice failed for {key} : {message}");
                let (delay, attempt, new) = self.stages.failed(&key, &text);
                if new {
                    out.extend(self.about_node("BittsFailedUnmount", text));
                }
                out.push(Effect::Wake(delay, Alarm::RetryStage(key.clone(), attempt)));
                self.stage_ended(key);
            }
            Report::NeedsDevice(mount) => {
                if let Some(staging) = mount.staging {
                    self.stages.expect(&staging);
                }
                if let Some(record) = self.ledger.get(&mount.key) {
                    record.running = None;
                    self.volumes_to_look_at.insert(mount.key);
                }
            }
            Report::MountFailed {
                mount,
                step,
                message,
            } => {
                if let Some(staging) = &mount.staging {
                    self.stages.doubt(&staging.key);
                }
                let step = step.failed(mount.key.mode);
                let text = format!("{step} for volume {:?} : {message}", mount.key.volume);
                let reason = match mount.key.mode {
                    VolumeMode::Filesystem => "FailedMount",
                    VolumeMode::Block => "FailedMapVolume",
                };
                self.failed(mount.key, reason, text, out);
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
            Report::Missing(keys) => self.missing(now, keys, out),
            Report::Appeared(keys) => self.appeared(keys, out),
            Report::Left(key) => self.left(key),
            Report::Probed { server, mounts } => self.probed(now, &server, mounts, out),
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
        let new = record.retry.tells(&text);
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

    /// What was done to a device is over: it and all that wait for it are looked at.
    fn stage_ended(&mut self, key: StageKey) {
        let users = self.ledger.users(&key).map(|(user, _)| user.clone());
        self.volumes_to_look_at.extend(users);
        self.stages_to_look_at.insert(key);
    }

    /// Tells the pods that have a volume on a device, or wait for one.
    fn tell_users(&self, key: &StageKey, reason: &'static str, text: &str, out: &mut Effects) {
        for (user, record) in self.ledger.users(key) {
            let about = record.pod.clone().filter(|_| !self.is_over(&user.pod));
            out.extend(about.map(|pod| warn(pod, user.pod.clone(), reason, text.to_owned())));
        }
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
            Alarm::Scan => out.push(Effect::Task(Task::Scan)),
            Alarm::Retry(key, attempt) => {
                if let Some(record) = self.ledger.get(&key) {
                    record.retry.wake(attempt);
                    self.volumes_to_look_at.insert(key);
                }
            }
            Alarm::RetryStage(key, attempt) => {
                self.stages.retry(&key, attempt);
                self.stages_to_look_at.insert(key);
            }
            Alarm::InUse(attempt) => self.in_use.wake(attempt),
            Alarm::Probe => self.probe(out),
            Alarm::Heal(key) => self.heal(&key),
            Alarm::Finish(key) => {
                self.finishing.wake(&key);
                self.pods_to_look_at.insert((key.namespace, key.name));
            }
        }
    }

    fn finished(&mut self, key: ObjectKey, outcome: Outcome, out: &mut Effects) {
        if key.kind == Kind::Node {
            if let Some(failed) = self.in_use.ended(outcome) {
                out.push(Effect::Wake(failed.delay, Alarm::InUse(failed.attempt)));
                let text = failed.news.map(|message| {
                    format!(
                        "the disks that are in use cannot be told, so none is mounted: {message}"
                    )
                });
                out.extend(text.and_then(|text| self.about_node("BittsVolumesInUse", text)));
            }
            return;
        }
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
}

impl Machine for Agent {
    type Task = Task;
    type Report = Report;
    type Alarm = Alarm;

    fn watches(&self) -> Vec<Watch> {
        let watch = |kind, scope| Watch { kind, scope };
        vec![
            watch(Kind::Pod, Scope::OnNode(self.node.clone())),
            watch(Kind::Node, Scope::Named(self.node.as_str().into())),
        ]
    }

    fn handle(&mut self, now: Moment, input: Input<Report, Alarm>) -> Effects {
        let mut out = Vec::new();
        out.extend(self.scans.begin());
        match input {
            Input::Listed(kind, objects) => self.list(kind, objects),
            Input::Found(key, found) => self.find(&key, found),
            Input::Seen(object) => self.see(object),
            Input::Deleted(key, uid) => self.delete(key, &uid),
            Input::Finished(key, outcome) => self.finished(key, outcome, &mut out),
            Input::Report(report) => self.report(now, report, &mut out),
            Input::Alarm(alarm) => self.alarm(alarm, &mut out),
        }
        if self.is_ready() {
            self.settle(&mut out);
            out.extend(self.watch.take().map(Effect::Task));
        }
        out.retain(|effect| self.mode.admits(effect));
        out
    }

    fn measures(&self) -> Vec<Measure> {
        self.wards.measures()
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

fn claim_key(namespace: Option<Namespace>, name: &Name) -> ObjectKey {
    ObjectKey {
        kind: Kind::Claim,
        namespace,
        name: name.clone(),
    }
}

fn volume_key(name: &Name) -> ObjectKey {
    ObjectKey {
        kind: Kind::Volume,
        namespace: None,
        name: name.clone(),
    }
}

fn attachment_key(volume: &CsiVolume, node: &NodeName) -> ObjectKey {
    ObjectKey::attachment(attachment(&volume.driver, &volume.handle, node))
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
