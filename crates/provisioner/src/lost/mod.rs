//! Volumes on the disks of nodes that are gone: nobody is left there to take their data away.
//!
//! A node is gone once its object was deleted and stayed so for a while; one that is merely not ready is
//! not. Then the user is told on the claim, and what the class said (`nodeGone`) is done with the volumes
//! whose claims are gone too. No claim is touched: having one made anew is an operator's decision
//! (`bitts recreate`).

mod options;
#[cfg(feature = "run")]
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bitts_api::grant::{Grant, Verb};
use bitts_api::machine::{
    Cache, Destroy, Destruction, Effect, Evidence, Input, Machine, Measure, Moment, Outcome, Part,
    Reading, Scope, Target, Watch,
};
use bitts_api::{
    Kind, Name, NodeName, Object, ObjectKey, ReclaimPolicy, Source, Volume, VolumePhase, names,
};
use serde_json::json;

use crate::class::NodeGone;
use crate::reason;
use crate::volume::{is_held, others};
pub use options::LostOptions;
#[cfg(feature = "run")]
pub use run::run_lost;

/// What has to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostAlarm {
    /// A node, which has been gone for a while by now unless it came back since.
    Node(NodeName, u32),
    /// A volume of which something failed.
    Volume(Name),
}

type Effects = Vec<Effect<Infallible, LostAlarm>>;

/// A node that volumes lie on and that is not there.
#[derive(Debug)]
struct Missing {
    /// Which of its absences.
    since: u32,
    /// Whether it lasted long enough to count.
    is_gone: bool,
}

/// What is remembered of a volume.
#[derive(Debug, Default)]
struct Unit {
    in_flight: bool,
    resting: bool,
    failures: u32,
    told: Option<String>,
}

/// Looks after the volumes of nodes that are gone.
///
/// ```
/// use bitts_api::Kind;
/// use bitts_api::machine::Machine as _;
/// use bitts_provisioner::{LostNodes, LostOptions};
///
/// let machine = LostNodes::new(LostOptions::default());
/// let kinds: Vec<Kind> = machine.watches().into_iter().map(|watch| watch.kind).collect();
/// assert_eq!(kinds, [Kind::Node, Kind::Volume]);
/// ```
#[derive(Debug)]
pub struct LostNodes {
    options: LostOptions,
    nodes: BTreeSet<Name>,
    nodes_listed: bool,
    /// The volumes on nodes' disks that were made by provisioners of these names.
    volumes: Cache<Volume>,
    missing: BTreeMap<NodeName, Missing>,
    absences: u32,
    units: BTreeMap<Name, Unit>,
    dirty: BTreeSet<Name>,
    out: Effects,
}

impl LostNodes {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(options: LostOptions) -> Self {
        Self {
            options,
            nodes: BTreeSet::new(),
            nodes_listed: false,
            volumes: Cache::default(),
            missing: BTreeMap::new(),
            absences: 0,
            units: BTreeMap::new(),
            dirty: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    /// The node that a volume of ours lies on.
    fn node_of<'a>(&self, volume: &'a Volume) -> Option<&'a str> {
        let annotations = &volume.meta.annotations;
        let made_by = annotations.get(names::PROVISIONED_BY)?;
        // The second is what was taken over from another provisioner.
        let lies_on_node = matches!(
            volume.source,
            Source::Local { .. } | Source::HostPath { .. }
        );
        let ours = lies_on_node && self.options.names.contains(made_by);
        annotations.get(names::PROVISIONED_ON).filter(|_| ours)
    }

    fn list_volumes(&mut self, objects: Vec<Object>) {
        let kept = objects.into_iter().filter_map(|object| match object {
            Object::Volume(volume) if self.node_of(&volume).is_some() => Some(volume),
            _ => None,
        });
        let kept: Vec<_> = kept.collect();
        self.volumes.replace(kept);
        self.look_at_all();
    }

    fn see_node(&mut self, node: Name) {
        if self.missing.remove(node.as_str()).is_some() {
            self.look_at(node.as_str());
        }
        self.nodes.insert(node);
    }

    fn look_at_all(&mut self) {
        let all = self.volumes.iter().map(|v| v.meta.name.clone());
        self.dirty.extend(all);
        self.units
            .retain(|name, _| self.volumes.get(&(None, name.clone())).is_some());
    }

    fn look_at(&mut self, node: &str) {
        let lie_there = self
            .volumes
            .iter()
            .filter(|v| self.node_of(v) == Some(node));
        let names: Vec<Name> = lie_there.map(|v| v.meta.name.clone()).collect();
        self.dirty.extend(names);
    }

    fn settle(&mut self) {
        if !self.nodes_listed || !self.volumes.is_listed() {
            return;
        }
        while let Some(name) = self.dirty.pop_first() {
            match self.volumes.get(&(None, name.clone())).cloned() {
                Some(volume) => self.decide(&volume),
                None => drop(self.units.remove(&name)),
            }
        }
    }

    fn decide(&mut self, volume: &Arc<Volume>) {
        let Some(node) = self.node_of(volume).map(NodeName::from) else {
            return;
        };
        let name = &volume.meta.name;
        if self.nodes.contains(node.as_str()) {
            self.units.remove(name);
            return;
        }
        if !self.is_gone(&node) {
            return;
        }
        let unit = self.units.entry(name.clone()).or_default();
        if unit.in_flight || unit.resting {
            return;
        }
        let policy = volume.meta.annotations.get(names::NODE_GONE);
        let policy = policy.and_then(NodeGone::parse).unwrap_or_default();
        let deletes = volume.reclaim_policy == ReclaimPolicy::Delete;
        let is_over = volume.phase == VolumePhase::Released && deletes;
        // An operator has its claim made anew: that goes by what the volume says.
        let is_journal = volume.meta.annotations.has(names::RECREATES);
        if is_over && policy != NodeGone::Keep && !is_journal {
            return self.release(volume, &node);
        }
        let message = match (volume.phase, policy) {
            (VolumePhase::Released, _) => reason::data_stays(node.as_str()),
            (_, NodeGone::Recreate) => reason::may_be_recreated(node.as_str(), volume),
            _ => reason::waits_for_node(node.as_str()),
        };
        if unit.told.as_deref() != Some(&*message) {
            unit.told = Some(message.clone());
            self.out
                .push(Effect::Event(reason::node_gone(volume, message)));
        }
    }

    /// Whether a node is gone for good; asked for the first time, it is waited for.
    fn is_gone(&mut self, node: &NodeName) -> bool {
        if let Some(missing) = self.missing.get(node.as_str()) {
            return missing.is_gone;
        }
        self.absences += 1;
        let since = self.absences;
        let missing = Missing {
            since,
            is_gone: false,
        };
        self.missing.insert(node.clone(), missing);
        let alarm = LostAlarm::Node(node.clone(), since);
        self.out.push(Effect::Wake(self.options.grace, alarm));
        false
    }

    /// Deletes a volume's object, and lets it go. Its claim is gone, and so is whoever could take its data
    /// away: both are looked at live.
    fn release(&mut self, volume: &Volume, node: &NodeName) {
        let Some(owner) = &volume.claim_ref else {
            return;
        };
        let Some(uid) = owner.uid.clone() else {
            return;
        };
        let (step, action) = if !volume.meta.is_deleting() {
            ("release-volume", Destruction::Delete)
        } else if is_held(volume) {
            let rest = json!({"metadata": {"finalizers": others(volume)}});
            ("let-volume-go", Destruction::Patch(Part::Main, rest))
        } else {
            return;
        };
        let claim = ObjectKey::claim(owner.namespace.clone(), owner.name.clone());
        let destroy = Destroy {
            step,
            target: Target::of(Kind::Volume, &volume.meta),
            action,
            evidence: vec![
                Evidence::NodeAbsent(node.clone()),
                Evidence::ClaimGone(claim, uid),
            ],
        };
        self.units
            .entry(volume.meta.name.clone())
            .or_default()
            .in_flight = true;
        self.out.push(Effect::Destroy(destroy));
    }

    fn finished(&mut self, name: Name, outcome: Outcome) {
        let Some(unit) = self.units.get_mut(&name) else {
            return;
        };
        unit.in_flight = false;
        let told = match outcome {
            Outcome::Done | Outcome::Gone => {
                unit.failures = 0;
                None
            }
            Outcome::Conflict | Outcome::Spared => Some(None),
            Outcome::Refused(why) | Outcome::Failed(why) => Some(Some(why)),
        };
        if let Some(why) = told {
            let after = Duration::from_secs(1 << unit.failures.min(8));
            unit.failures += 1;
            unit.resting = true;
            self.out
                .push(Effect::Wake(after, LostAlarm::Volume(name.clone())));
            let volume = self.volumes.get(&(None, name.clone()));
            if let (Some(why), Some(volume)) = (why, volume) {
                self.out
                    .push(Effect::Event(reason::not_deleted(volume, &why)));
            }
        }
        self.dirty.insert(name);
    }
}

impl Machine for LostNodes {
    type Task = Infallible;
    type Report = Infallible;
    type Alarm = LostAlarm;

    fn watches(&self) -> Vec<Watch> {
        let all = |kind| Watch {
            kind,
            scope: Scope::All,
        };
        KINDS.map(all).to_vec()
    }

    fn handle(&mut self, _now: Moment, input: Input<Infallible, LostAlarm>) -> Effects {
        match input {
            Input::Listed(Kind::Node, objects) => {
                self.nodes = objects.iter().map(|o| o.meta().name.clone()).collect();
                self.nodes_listed = true;
                let nodes = &self.nodes;
                self.missing
                    .retain(|node, _| !nodes.contains(node.as_str()));
                self.look_at_all();
            }
            Input::Listed(Kind::Volume, objects) => self.list_volumes(objects),
            Input::Seen(Object::Node(node)) => self.see_node(node.meta.name.clone()),
            Input::Deleted(key, _) if key.kind == Kind::Node => {
                self.nodes.remove(&key.name);
                self.look_at(key.name.as_str());
            }
            Input::Seen(Object::Volume(volume)) => {
                let known = self.volumes.get(&volume.meta.place()).is_some();
                if known || self.node_of(&volume).is_some() {
                    self.dirty.insert(volume.meta.name.clone());
                    self.volumes.see(volume);
                }
            }
            Input::Deleted(key, uid) if key.kind == Kind::Volume => {
                self.dirty.insert(key.name.clone());
                self.volumes.remove(&(None, key.name), &uid);
            }
            Input::Finished(key, outcome) => self.finished(key.name, outcome),
            Input::Alarm(LostAlarm::Node(node, since)) => {
                if let Some(missing) = self.missing.get_mut(&node)
                    && missing.since == since
                {
                    missing.is_gone = true;
                    self.look_at(node.as_str());
                }
            }
            Input::Alarm(LostAlarm::Volume(name)) => {
                if let Some(unit) = self.units.get_mut(&name) {
                    unit.resting = false;
                }
                self.dirty.insert(name);
            }
            Input::Listed(..) | Input::Found(..) | Input::Seen(_) | Input::Deleted(..) => {}
            Input::Report(never) => match never {},
        }
        self.settle();
        std::mem::take(&mut self.out)
    }

    fn measures(&self) -> Vec<Measure> {
        let measure = |name, help, reading| Measure {
            name,
            help,
            labels: Vec::new(),
            reading,
        };
        vec![measure(
            "bitts_lost_nodes_volumes",
            "Volumes whose data lies on nodes that were deleted",
            Reading::Gauge(self.units.len() as u64),
        )]
    }
}

const KINDS: [Kind; 2] = [Kind::Node, Kind::Volume];

/// What looking after the volumes of nodes that are gone asks of access control; events and a lease are the
/// runtime's.
#[must_use]
pub fn lost_grants() -> Vec<Grant> {
    let on = |kind: Kind, verbs, why| Grant::new(kind.group(), kind.plural(), verbs, why);
    let mut grants: Vec<Grant> = KINDS.into_iter().map(Grant::to_watch).collect();
    grants.extend([
        on(
            Kind::Volume,
            &[Verb::Get, Verb::Patch, Verb::Delete],
            "deleted with their claims where their nodes are gone and their class says so",
        ),
        on(
            Kind::Node,
            &[Verb::Get],
            "looked at live before a volume goes",
        ),
        on(
            Kind::Claim,
            &[Verb::Get],
            "looked at live before a volume goes",
        ),
    ]);
    grants
}
