//! From what is known of a volume on a node to what is done.

use bitts_api::machine::{Create, Destroy, Destruction, Effect, Evidence, Moment, Place, Target};
use bitts_api::{Kind, Name, NodeName, ObjectKey, names};
use serde_json::json;

use super::{Alarm, Attacher};
use crate::pair::Pair;
use crate::unit::Flight;
use crate::verdict::{Act, Attachment, Grounds, Health, Use, View};

impl Attacher {
    /// Decides what comes next for a volume on a node.
    pub(super) fn decide(&mut self, pair: &Pair) {
        let now = self.now;
        let Some(unit) = self.units.get_mut(pair) else {
            return;
        };
        if unit.pods.is_empty() {
            unit.idle_since.get_or_insert(now);
        } else {
            unit.idle_since = None;
        }
        let Some(view) = self.view(pair) else {
            return;
        };
        let verdict = view.verdict();
        self.note(pair, &view, verdict.report, verdict.act);
        match verdict.act {
            Act::Attach => self.attach(pair),
            Act::Detach(grounds) => self.detach(pair, grounds),
            Act::Rest => self.drop_if_over(pair, &view),
            Act::AwaitOther | Act::AwaitAttach | Act::AwaitDetach => self.tell_waiting(pair),
            Act::AwaitNode => {
                if let Some(at) = self.due(pair) {
                    self.wake(pair, at);
                }
            }
        }
    }

    /// Remembers what was decided.
    fn note(&mut self, pair: &Pair, view: &View, report: bool, act: Act) {
        let now = self.now;
        let Some(unit) = self.units.get_mut(pair) else {
            return;
        };
        // What is being detached is not listed, even if it is wanted again by now.
        unit.report = report && !matches!(unit.flight, Some(Flight::Delete(_)));
        if unit.report != view.listed {
            self.dirty_nodes.insert(pair.node.clone());
        }
        let attached = view.attachment == Attachment::Attached;
        let news = view.wanted && attached && unit.waited;
        unit.waited = view.wanted && !attached;
        if matches!(act, Act::Rest | Act::AwaitNode) {
            unit.waiting = None;
            unit.calm();
        } else {
            unit.wait(now, act);
        }
        if act == Act::AwaitOther {
            let nodes = self.awaited.entry(pair.volume.clone()).or_default();
            nodes.insert(pair.node.clone());
        } else if let Some(nodes) = self.awaited.get_mut(&pair.volume) {
            nodes.remove(&pair.node);
            if nodes.is_empty() {
                self.awaited.remove(&pair.volume);
            }
        }
        if news {
            self.tell_attached(pair);
        }
    }

    /// All that the decision depends on; `None` where the node attaches by itself (A2): nothing of
    /// it is touched.
    pub(crate) fn view(&self, pair: &Pair) -> Option<View> {
        let unit = self.units.get(pair)?;
        let node = self.known.node(&pair.node);
        if node.is_some_and(|node| !node.is_attached_to()) {
            return None;
        }
        let name = pair.volume.as_str();
        let attachment = self.known.attachment(&unit.attachment);
        Some(View {
            wanted: !unit.pods.is_empty(),
            node: match node {
                Some(node) if node.is_ready => Health::Ready,
                Some(_) => Health::Unready,
                None => Health::Gone,
            },
            in_use: self.in_use(pair),
            listed: node.is_some_and(|node| node.lists(name)),
            attachment: self.presence(&unit.attachment),
            elsewhere: unit.single
                && (self.holders(pair).next().is_some() || self.direct_holder(pair).is_some()),
            out_of_service: node.is_some_and(|node| node.is_out_of_service),
            forced: attachment.is_some_and(|a| a.meta.annotations.has(names::FORCE_DETACH)),
            overdue: self.due(pair).is_some_and(|at| at <= self.now),
        })
    }

    fn presence(&self, attachment: &Name) -> Attachment {
        match self.known.attachment(attachment) {
            None => Attachment::Absent,
            Some(a) if a.meta.is_deleting() => Attachment::Deleting,
            Some(a) if a.is_attached => Attachment::Attached,
            Some(_) => Attachment::Pending,
        }
    }

    /// Whether the kubelet uses it, by its last word; where the node went and came back, by both.
    pub(crate) fn in_use(&self, pair: &Pair) -> Use {
        let name = pair.volume.as_str();
        let node = self.known.node(&pair.node);
        let earlier = self.nodes.get(&pair.node);
        let earlier = earlier.and_then(|state| state.last_word.as_ref());
        let now = node.is_some_and(|node| node.volumes_in_use.iter().any(|v| *v == *name));
        let before = earlier.is_some_and(|word| word.in_use.contains(name));
        match (now || before, node.is_some() || earlier.is_some()) {
            (true, _) => Use::Yes,
            (false, true) => Use::No,
            (false, false) => Use::Unknown,
        }
    }

    /// Where else the volume may be attached. What is not known to be off a node counts as on it
    /// (section 13, weakness 31).
    pub(crate) fn holders<'a>(&'a self, pair: &'a Pair) -> impl Iterator<Item = &'a Pair> {
        let first = Pair {
            volume: pair.volume.clone(),
            node: NodeName::from(""),
        };
        let nodes = self.units.range(first..);
        let nodes = nodes.take_while(|(other, _)| other.volume == pair.volume);
        let held = nodes.filter(|(other, unit)| {
            let node = self.known.node(&other.node);
            let listed = node.is_some_and(|node| node.lists(pair.volume.as_str()));
            other.node != pair.node
                && (unit.flight.is_some()
                    || listed
                    || self.presence(&unit.attachment) != Attachment::Absent)
        });
        held.map(|(other, _)| other)
    }

    /// When a node that is not ready had its time to let go of a volume that no pod asks for (A13.4):
    /// counted from when both was so.
    fn due(&self, pair: &Pair) -> Option<Moment> {
        let unit = self.units.get(pair)?;
        let state = self.nodes.get(&pair.node);
        // A node that was never seen is down as long as the volume is known to be idle.
        let down = match (self.known.node(&pair.node), state) {
            (Some(node), _) if node.is_ready => return None,
            (_, Some(state)) => state.down_since,
            (_, None) => None,
        };
        let idle = unit.idle_since?;
        let node = self.known.node(&pair.node).map(|node| &node.meta);
        let earlier = state.and_then(|state| state.last_word.as_ref());
        let node = node.or_else(|| earlier.map(|word| &word.meta));
        // Whether it may be on one node only is known of its pods or its attachment's volume.
        let volume = self.known.attachment(&unit.attachment);
        let volume = volume.and_then(|a| a.volume.clone());
        let volume = volume.and_then(|name| self.known.volumes.get(&(None, name)));
        let single = volume.is_none_or(|v| crate::wanted::is_single(v.access_modes));
        let class = volume.and_then(|v| v.class.as_ref());
        let class = class.and_then(|c| self.known.classes.get(&(None, c.as_str().into())));
        let class = class.map(|class| &class.meta);
        let after = self.options.force_after(single, node, class)?;
        Some(down.map_or(idle, |down| down.max(idle)) + after)
    }

    /// Looks again at this time at the latest.
    pub(super) fn wake(&mut self, pair: &Pair, at: Moment) {
        let now = self.now;
        if let Some(unit) = self.units.get_mut(pair)
            && unit.wake_at.is_none_or(|known| known <= now || at < known)
        {
            unit.wake_at = Some(at);
            let after = at.0.saturating_sub(now.0);
            self.out
                .push(Effect::Wake(after, Alarm::Volume(pair.clone())));
        }
    }

    /// Whether nothing may be written of it now.
    fn is_blocked(&mut self, pair: &Pair) -> bool {
        let Some(unit) = self.units.get(pair) else {
            return true;
        };
        if unit.flight.is_some() {
            return true;
        }
        let rest = unit.rests_until(self.now);
        if let Some(until) = rest {
            self.wake(pair, until);
        }
        rest.is_some()
    }

    /// A24: asks for it.
    fn attach(&mut self, pair: &Pair) {
        if self.is_blocked(pair) {
            return;
        }
        let Some(unit) = self.units.get_mut(pair) else {
            return;
        };
        let (Some((_, volume)), Some((driver, _))) = (unit.pods.first(), pair.volume.csi()) else {
            return;
        };
        unit.flight = Some(Flight::Create);
        let create = Create {
            step: "attach-volume",
            key: ObjectKey::attachment(unit.attachment.clone()),
            body: json!({"metadata": {}, "spec": {
                "attacher": driver,
                "nodeName": pair.node,
                "source": {"persistentVolumeName": volume},
            }}),
        };
        self.out.push(Effect::Create(create));
    }

    /// A25: takes it away from the node, on evidence that is read again.
    fn detach(&mut self, pair: &Pair, grounds: Grounds) {
        // A list that is on its way may have it: whatever comes of that, this is decided on anew.
        let listing = self
            .nodes
            .get(&pair.node)
            .is_some_and(|node| node.in_flight);
        if listing || self.is_blocked(pair) {
            return;
        }
        let node = pair.node.clone();
        let uid = self.known.node(&node).map(|node| node.meta.uid.clone());
        let Some(unit) = self.units.get_mut(pair) else {
            return;
        };
        let Some(attachment) = self.known.attachment(&unit.attachment) else {
            return;
        };
        let name = || pair.volume.as_str().into();
        let evidence = match (grounds, uid) {
            (Grounds::Released, Some(uid)) => Evidence::NodeReleased(node, uid, name()),
            (Grounds::OutOfService, Some(uid)) => Evidence::NodeOutOfService(node, uid, name()),
            (Grounds::GoneUnused, _) => Evidence::NodeAbsent(node),
            (Grounds::Operator | Grounds::Overdue, _) => Evidence::NodeDown(node, name()),
            (Grounds::Released | Grounds::OutOfService, None) => return,
        };
        unit.flight = Some(Flight::Delete(grounds));
        self.out.push(Effect::Destroy(Destroy {
            step: "detach-volume",
            target: Target::of(Kind::Attachment, &attachment.meta),
            action: Destruction::Delete,
            evidence: vec![evidence],
        }));
    }

    fn drop_if_over(&mut self, pair: &Pair, view: &View) {
        let in_flight = self
            .units
            .get(pair)
            .is_some_and(|unit| unit.flight.is_some());
        // What a node that is gone used is remembered of the node, not here.
        let used = view.in_use == Use::Yes && view.node != Health::Gone;
        let there = view.attachment != Attachment::Absent || view.listed;
        if !(view.wanted || in_flight || used || there) {
            self.drop_unit(pair);
        }
    }

    /// The pods that ask for a volume on a node.
    pub(crate) fn pods(&self, pair: &Pair) -> Vec<(Place, Name)> {
        let unit = self.units.get(pair);
        unit.map(|unit| unit.pods.clone()).unwrap_or_default()
    }
}
