//! Inputs in, effects out.

mod deciding;
mod direct;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitts_api::machine::{
    Change, Effect, Input, Inventory, Machine, Measure, Moment, Outcome, Place, Reading, Scope,
    Watch,
};
use bitts_api::{Attachment, Kind, Name, Node, NodeName, ObjectKey, Pod, Volume};

use crate::known::{KINDS, Known, News};
use crate::node::{self, NodeState};
use crate::options::Options;
use crate::pair::{Pair, UniqueName};
use crate::unit::{Flight, Unit};

pub(crate) type Effects = Vec<Effect<std::convert::Infallible, Alarm>>;

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Look at a volume on a node again.
    Volume(Pair),
    /// Look at what a node's status says again.
    Node(NodeName),
}

/// The attach controller.
#[derive(Debug)]
pub struct Attacher {
    options: Options,
    known: Known,
    /// All that something is known or wanted of.
    units: BTreeMap<Pair, Unit>,
    /// Which of them a VolumeAttachment is of: its name cannot be read backwards.
    names: BTreeMap<Name, Pair>,
    nodes: BTreeMap<NodeName, NodeState>,
    /// What each pod asks for.
    asked: BTreeMap<Place, Vec<Pair>>,
    /// Where a volume is waited for that is on another node.
    awaited: BTreeMap<UniqueName, BTreeSet<NodeName>>,
    /// What clouds attached themselves.
    direct: direct::Direct,
    /// VolumeAttachments by their PersistentVolumes, where those are not known.
    strays: BTreeMap<Name, BTreeSet<Name>>,
    is_ready: bool,
    now: Moment,
    dirty_pods: BTreeSet<Place>,
    dirty: BTreeSet<Pair>,
    dirty_nodes: BTreeSet<NodeName>,
    forced: BTreeMap<&'static str, u64>,
    out: Effects,
}

impl Attacher {
    /// An attacher that knows nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            known: Known::default(),
            units: BTreeMap::new(),
            names: BTreeMap::new(),
            nodes: BTreeMap::new(),
            asked: BTreeMap::new(),
            awaited: BTreeMap::new(),
            direct: direct::Direct::default(),
            strays: BTreeMap::new(),
            is_ready: false,
            now: Moment::default(),
            dirty_pods: BTreeSet::new(),
            dirty: BTreeSet::new(),
            dirty_nodes: BTreeSet::new(),
            forced: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    /// What was heard of the API.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// What VolumeAttachments are of, by their names.
    pub(crate) fn names(&self) -> &BTreeMap<Name, Pair> {
        &self.names
    }

    /// A7: everything is known for the first time.
    fn begin(&mut self) {
        self.is_ready = true;
        let nodes: Vec<Arc<Node>> = self.known.nodes.iter().cloned().collect();
        for node in nodes {
            self.node_changed(Change::Set {
                old: None,
                new: node,
            });
        }
        let attachments: Vec<Arc<Attachment>> = self.known.attachments.iter().cloned().collect();
        for attachment in attachments {
            self.attachment_changed(&attachment);
        }
        self.look_at_all();
    }

    fn look_at_all(&mut self) {
        let pods = self.known.pods.iter().map(|pod| pod.meta.place());
        self.dirty_pods.extend(pods);
        self.dirty.extend(self.units.keys().cloned());
        self.dirty_nodes.extend(self.nodes.keys().cloned());
    }

    fn take(&mut self, news: News) {
        // Before everything is known, nothing follows from anything.
        if !self.is_ready {
            return;
        }
        match news {
            News::Pod(change) => self.pod_changed(change),
            News::Claim(claim) => self.claim_changed(&claim),
            News::Volume(change) => self.volume_changed(&change),
            News::Node(change) => self.node_changed(change),
            News::Attachment(Change::Set { new, .. }) => self.attachment_changed(&new),
            News::Attachment(Change::Removed(old)) => {
                if let Some(volume) = &old.volume
                    && let Some(names) = self.strays.get_mut(volume)
                {
                    names.remove(&old.meta.name);
                    if names.is_empty() {
                        self.strays.remove(volume);
                    }
                }
                if let Some(pair) = self.names.get(&old.meta.name).cloned() {
                    self.touch(pair);
                }
            }
            News::Rare => self.look_at_all(),
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        match change {
            Change::Set { new, .. } => {
                self.dirty_pods.insert(new.meta.place());
            }
            // At once: the next of its name asks for itself.
            Change::Removed(old) => self.forget_asks(&old.meta.place()),
        }
    }

    fn forget_asks(&mut self, pod: &Place) {
        for pair in self.asked.remove(pod).unwrap_or_default() {
            if let Some(unit) = self.units.get_mut(&pair) {
                unit.leave(pod);
            }
            self.touch(pair);
        }
    }

    /// A10: what was bound late is noticed.
    fn claim_changed(&mut self, claim: &Place) {
        let users = self.known.users(claim);
        self.dirty_pods.extend(users);
    }

    fn volume_changed(&mut self, change: &Change<Volume>) {
        let (old, new) = match change {
            Change::Set { old, new } => (old.as_ref(), Some(new)),
            Change::Removed(old) => (Some(old), None),
        };
        let owners = [old, new].into_iter().flatten();
        for owner in owners.filter_map(|volume| volume.claim_ref.as_ref()) {
            self.claim_changed(&(Some(owner.namespace.clone()), owner.name.clone()));
        }
        let strays = new.and_then(|volume| self.strays.remove(&volume.meta.name));
        for name in strays.unwrap_or_default() {
            if let Some(attachment) = self.known.attachment(&name).cloned() {
                self.attachment_changed(&attachment);
            }
        }
    }

    fn attachment_changed(&mut self, attachment: &Attachment) {
        if let Some(pair) = self.pair_of(attachment) {
            self.touch(pair);
        } else if let Some(volume) = &attachment.volume {
            // Of a volume that is gone, and no node names it: nobody can say what it is (A7).
            let strays = self.strays.entry(volume.clone()).or_default();
            strays.insert(attachment.meta.name.clone());
        }
    }

    /// What a VolumeAttachment is of, where it has the name that says so (A23).
    fn pair_of(&mut self, attachment: &Attachment) -> Option<Pair> {
        let name = &attachment.meta.name;
        if let Some(pair) = self.names.get(name) {
            return Some(pair.clone());
        }
        let place = (None, attachment.volume.clone()?);
        let pair = Pair {
            volume: UniqueName::of(self.known.volumes.get(&place)?)?,
            node: attachment.node.clone(),
        };
        (pair.attachment() == *name).then(|| {
            self.unit(&pair);
            pair
        })
    }

    fn node_changed(&mut self, change: Change<Node>) {
        let (old, node) = match change {
            Change::Set { old, new } => (old, new),
            Change::Removed(old) => {
                self.direct_changed(Some(&old), None);
                let name = NodeName::from(old.meta.name.as_str());
                if let Some(state) = self.nodes.get_mut(&name) {
                    state.gone(&old, self.now);
                    self.touch_all(&name);
                }
                return;
            }
        };
        self.direct_changed(old.as_deref(), Some(&node));
        let name = NodeName::from(node.meta.name.as_str());
        // A node's status is written all the time.
        let same = old.is_some_and(|old| {
            if old.is_attached_to() != node.is_attached_to()
                || old.is_mounted_by_agent() != node.is_mounted_by_agent()
            {
                self.pods_of(&name);
            }
            old.meta.annotations == node.meta.annotations
                && old.is_ready == node.is_ready
                && old.is_out_of_service == node.is_out_of_service
                && old.volumes_in_use == node.volumes_in_use
                && old.volumes_attached == node.volumes_attached
        });
        if same {
            return;
        }
        if !node.is_attached_to() {
            self.pods_of(&name);
        }
        let state = self.nodes.entry(name.clone()).or_default();
        state.seen(&node, self.now);
        for listed in node.volumes_attached.iter().chain(&node.volumes_in_use) {
            if let Some(volume) = UniqueName::listed(listed.as_str()) {
                let pair = Pair {
                    volume,
                    node: name.clone(),
                };
                self.unit(&pair);
            }
        }
        self.touch_all(&name);
    }

    /// The pods of a node ask anew: rare.
    fn pods_of(&mut self, node: &NodeName) {
        let pods = self.known.pods.iter();
        let those = pods.filter(|pod| pod.node.as_ref() == Some(node));
        let those = those.map(|pod| pod.meta.place());
        self.dirty_pods.extend(those);
    }

    fn touch_all(&mut self, node: &NodeName) {
        self.dirty_nodes.insert(node.clone());
        let volumes = self.nodes.get(node).map(|state| state.units.clone());
        for volume in volumes.unwrap_or_default() {
            self.touch(Pair {
                volume,
                node: node.clone(),
            });
        }
    }

    /// Something about a volume on a node changed: it is looked at, and where it is waited for too.
    fn touch(&mut self, pair: Pair) {
        for node in self.awaited.get(&pair.volume).into_iter().flatten() {
            self.dirty.insert(Pair {
                volume: pair.volume.clone(),
                node: node.clone(),
            });
        }
        self.dirty.insert(pair);
    }

    fn unit(&mut self, pair: &Pair) -> &mut Unit {
        self.units.entry(pair.clone()).or_insert_with(|| {
            let name = pair.attachment();
            self.names.insert(name.clone(), pair.clone());
            let node = self.nodes.entry(pair.node.clone()).or_default();
            node.units.insert(pair.volume.clone());
            Unit::new(name)
        })
    }

    /// Nothing is there, and nobody wants it.
    fn drop_unit(&mut self, pair: &Pair) {
        if let Some(unit) = self.units.remove(pair) {
            self.names.remove(&unit.attachment);
        }
        let exists = self.known.node(&pair.node).is_some();
        if let Some(node) = self.nodes.get_mut(&pair.node) {
            node.units.remove(&pair.volume);
            if node.units.is_empty() && !exists {
                self.nodes.remove(&pair.node);
            }
        }
    }

    fn finished(&mut self, key: &ObjectKey, outcome: Outcome) {
        match key.kind {
            Kind::Attachment => self.attachment_finished(&key.name, outcome),
            Kind::Node => self.node_finished(&key.name, &outcome),
            _ => {}
        }
    }

    fn attachment_finished(&mut self, name: &Name, outcome: Outcome) {
        let Some(pair) = self.names.get(name).cloned() else {
            return;
        };
        let now = self.now;
        let unit = self.unit(&pair);
        let flight = unit.flight.take();
        let refusal = match outcome {
            Outcome::Done | Outcome::Gone => {
                unit.succeed();
                if let (Outcome::Done, Some(Flight::Delete(grounds))) = (outcome, flight)
                    && let Some(reason) = grounds.forced()
                {
                    *self.forced.entry(reason).or_default() += 1;
                }
                None
            }
            Outcome::Conflict => {
                unit.fail(now, true);
                None
            }
            Outcome::Spared => {
                unit.fail(now, false);
                None
            }
            Outcome::Refused(message) | Outcome::Failed(message) => {
                unit.fail(now, false);
                (flight == Some(Flight::Create)).then_some(message)
            }
        };
        if let Some(message) = refusal {
            self.tell_failure(&pair, &message);
        }
        self.touch(pair);
    }

    fn node_finished(&mut self, name: &Name, outcome: &Outcome) {
        let name = NodeName::from(name.as_str());
        let now = self.now;
        let Some(state) = self.nodes.get_mut(&name) else {
            return;
        };
        state.in_flight = false;
        match outcome {
            Outcome::Done | Outcome::Gone => state.succeed(),
            // Somebody else wrote it first, mostly its kubelet; that was fed.
            Outcome::Conflict | Outcome::Spared => {}
            Outcome::Refused(_) | Outcome::Failed(_) => {
                let until = state.fail(now);
                let after = until.0.saturating_sub(now.0);
                let alarm = Alarm::Node(name.clone());
                self.out.push(Effect::Wake(after, alarm));
            }
        }
        self.touch_all(&name);
    }

    fn settle(&mut self) {
        while let Some(pod) = self.dirty_pods.pop_first() {
            self.ask(&pod);
        }
        while let Some(pair) = self.dirty.pop_first() {
            self.decide(&pair);
        }
        while let Some(node) = self.dirty_nodes.pop_first() {
            self.report(&node);
        }
    }

    fn ask(&mut self, place: &Place) {
        let pod = self.known.pods.get(place);
        let asks = pod.map(|pod| self.known.world().asks(pod));
        let asks = asks.unwrap_or_default();
        let mut pairs: Vec<Pair> = asks.iter().map(|ask| ask.pair.clone()).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let before = self.asked.get(place);
        if before.map_or(pairs.is_empty(), |before| *before == pairs) {
            return;
        }
        self.forget_asks(place);
        for ask in asks {
            let pair = ask.pair.clone();
            self.unit(&pair).ask(place.clone(), ask);
            self.touch(pair);
        }
        if !pairs.is_empty() {
            self.asked.insert(place.clone(), pairs);
        }
    }

    /// Has a node's status say what it shall (A17).
    fn report(&mut self, name: &NodeName) {
        let (Some(node), Some(state)) = (self.known.node(name), self.nodes.get_mut(name)) else {
            return;
        };
        let rests = state.rests_until.is_some_and(|until| until > self.now);
        if !node.is_attached_to() || state.in_flight || rests {
            return;
        }
        let reported = |volume: &&UniqueName| {
            let pair = Pair {
                volume: UniqueName::clone(volume),
                node: name.clone(),
            };
            self.units.get(&pair).is_some_and(|unit| unit.report)
        };
        let ours = state.units.iter().filter(reported);
        let ours: BTreeSet<&str> = ours.map(UniqueName::as_str).collect();
        if let Some(write) = node::report(node, &ours) {
            state.in_flight = true;
            self.out.push(Effect::Write(write));
        }
    }
}

impl Machine for Attacher {
    type Task = std::convert::Infallible;
    type Report = std::convert::Infallible;
    type Alarm = Alarm;

    fn watches(&self) -> Vec<Watch> {
        let watch = |kind| Watch {
            kind,
            scope: Scope::All,
        };
        KINDS.into_iter().map(watch).collect()
    }

    fn handle(&mut self, now: Moment, input: Input<Self::Report, Alarm>) -> Effects {
        self.now = now;
        let news = match input {
            Input::Listed(kind, objects) => self.known.list(kind, objects),
            Input::Found(_, Some(object)) | Input::Seen(object) => self.known.see(object),
            Input::Found(_, None) => Vec::new(), // it follows nothing
            Input::Deleted(key, uid) => self.known.delete(key, &uid),
            Input::Finished(key, outcome) => {
                self.finished(&key, outcome);
                Vec::new()
            }
            Input::Report(report) => match report {},
            Input::Alarm(Alarm::Volume(pair)) => {
                self.dirty.insert(pair);
                Vec::new()
            }
            Input::Alarm(Alarm::Node(node)) => {
                self.dirty_nodes.insert(node);
                Vec::new()
            }
        };
        news.into_iter().for_each(|news| self.take(news));
        if !self.is_ready && self.known.is_listed() {
            self.begin();
        }
        if self.is_ready {
            self.settle();
        }
        std::mem::take(&mut self.out)
    }

    fn inventory(&self, kind: Kind) -> Option<Inventory> {
        self.known.inventory(kind)
    }

    fn measures(&self) -> Vec<Measure> {
        let measure = |name, help, labels, reading| Measure {
            name,
            help,
            labels,
            reading,
        };
        let waiting = self.awaited.values().map(BTreeSet::len).sum::<usize>();
        let strays = self.strays.values().map(BTreeSet::len).sum::<usize>();
        let gauge = |n: usize| Reading::Gauge(n.try_into().unwrap_or(u64::MAX));
        let mut all = vec![
            measure(
                "bitts_attacher_volumes",
                "Volumes on nodes that are attached, wanted or in use",
                Vec::new(),
                gauge(self.units.len()),
            ),
            measure(
                "bitts_attacher_waiting",
                "Volumes that are wanted on a node and may still be on another",
                Vec::new(),
                gauge(waiting),
            ),
            measure(
                "bitts_attacher_strays",
                "VolumeAttachments whose volume is not known",
                Vec::new(),
                gauge(strays),
            ),
        ];
        for reason in ["operator", "out-of-service", "timeout"] {
            all.push(measure(
                "bitts_attacher_forced_detaches_total",
                "Detaches on which the node had no say",
                vec![("reason", reason.to_owned())],
                Reading::Counter(self.forced.get(reason).copied().unwrap_or(0)),
            ));
        }
        all
    }
}
