//! From what is known of a disk to what the cloud is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitts_api::machine::{Effect, Moment};
use bitts_api::{AccessMode, NodeName, Source, Volume};

use super::call::{Attach, Because, Detach, Look, Task};
use super::hearing::is_ours;
use super::place::{Disk, Instance, PREFIX};
use super::unit::Call;
use super::{CloudAlarm, CloudAttacher};
use crate::csi_volume::as_always;
use crate::node;
use crate::verdict::{Act, Attachment, Grounds, Health, Use, View};
use crate::wanted::is_single;

impl CloudAttacher {
    /// Decides what comes next for a disk.
    pub(super) fn decide(&mut self, disk: &Disk) {
        let now = self.now;
        let Some(unit) = self.units.get_mut(disk) else {
            return;
        };
        for on_node in unit.nodes.values_mut() {
            if on_node.pods.is_empty() {
                on_node.idle_since.get_or_insert(now);
            } else {
                on_node.idle_since = None;
            }
        }
        let nodes: Vec<NodeName> = unit.nodes.keys().cloned().collect();
        if unit.users.is_none() {
            // What nodes list stays listed until it is known.
            self.tell_trouble(disk);
            if self.may_call(disk) {
                self.look(disk, &nodes);
            }
            return;
        }
        let view = |node: NodeName| (self.view(disk, &node), node);
        let views: Vec<(View, NodeName)> = nodes.into_iter().map(view).collect();
        let mut asks_again = false;
        let mut acts = Vec::new();
        for (view, node) in &views {
            let verdict = view.verdict();
            self.note(disk, node, view, verdict.report, verdict.act);
            match verdict.act {
                Act::Attach | Act::Detach(_) => acts.push((node.clone(), verdict.act)),
                Act::AwaitOther => {
                    asks_again = true;
                    self.tell_elsewhere(disk, node);
                }
                Act::AwaitNode => {
                    asks_again |= view.node != Health::Ready;
                    if let Some(at) = self.due(disk, node) {
                        self.wake(disk, at);
                    }
                }
                Act::AwaitAttach | Act::AwaitDetach | Act::Rest => {}
            }
        }
        self.ask_again(disk, asks_again);
        // Away first: somebody may wait for it.
        acts.sort_by_key(|(_, act)| !matches!(act, Act::Detach(_)));
        for (node, act) in acts {
            match act {
                Act::Attach => self.attach(disk, &node),
                Act::Detach(grounds) => self.detach(disk, &node, grounds),
                _ => {}
            }
        }
        self.drop_what_is_over(disk, &views);
    }

    /// Remembers what was decided.
    fn note(&mut self, disk: &Disk, node: &NodeName, view: &View, report: bool, act: Act) {
        let now = self.now;
        let Some(unit) = self.units.get_mut(disk) else {
            return;
        };
        let Some(on_node) = unit.nodes.get_mut(node) else {
            return;
        };
        on_node.report = report;
        if report != view.listed {
            self.dirty_nodes.insert(node.clone());
        }
        let attached = view.attachment == Attachment::Attached;
        let news = view.wanted && attached && on_node.waited;
        on_node.waited = view.wanted && !attached;
        if matches!(act, Act::Rest | Act::AwaitNode) {
            on_node.calm();
        } else {
            on_node.wait(now, act);
        }
        if news {
            self.tell_attached(disk, node);
        }
    }

    /// All that the decision depends on.
    pub(super) fn view(&self, disk: &Disk, name: &NodeName) -> View {
        let unit = self.units.get(disk);
        let wanted = unit
            .and_then(|unit| unit.nodes.get(name))
            .is_some_and(|on_node| !on_node.pods.is_empty());
        let node = self.known.node(name);
        let unique = disk.unique();
        View {
            wanted,
            node: match node {
                Some(node) if node.is_ready => Health::Ready,
                Some(_) => Health::Unready,
                None => Health::Gone,
            },
            in_use: self.in_use(disk, name),
            listed: node.is_some_and(|node| node.lists(&unique)),
            attachment: self.presence(disk, name, wanted),
            elsewhere: self.is_elsewhere(disk, name),
            out_of_service: node.is_some_and(|node| node.is_out_of_service),
            // An operator detaches it with the cloud's own tools: that is seen.
            forced: false,
            overdue: self.due(disk, name).is_some_and(|at| at <= self.now),
        }
    }

    fn presence(&self, disk: &Disk, node: &NodeName, wanted: bool) -> Attachment {
        let Some(unit) = self.units.get(disk) else {
            return Attachment::Absent;
        };
        if unit.attaches_to(node) {
            return Attachment::Pending;
        }
        if unit.detaches_from(node) {
            return Attachment::Deleting;
        }
        // What is another's there is nothing that is to be listed or taken away.
        if !self.is_in_charge(disk, node) || self.has_attachment_on(disk, Some(node)) {
            return Attachment::Absent;
        }
        let instance = self.instance(node);
        let has_it = instance.is_some_and(|instance| {
            unit.users
                .as_ref()
                .is_some_and(|users| users.contains(instance))
        });
        match has_it {
            // A14: it is listed again only when it was attached again.
            true if wanted && unit.leaving.contains(node) => Attachment::Absent,
            true => Attachment::Attached,
            false => Attachment::Absent,
        }
    }

    /// Whether a disk is attached to a node directly, if it is: not by a CSI driver.
    pub(super) fn is_in_charge(&self, disk: &Disk, name: &NodeName) -> bool {
        match self.known.node(name) {
            Some(node) => is_ours(node) || node.lists(&disk.unique()),
            None => self.hosts.get(name).is_some_and(|host| host.is_ours),
        }
    }

    pub(super) fn instance(&self, node: &NodeName) -> Option<&Instance> {
        self.hosts.get(node)?.instance.as_ref()
    }

    /// Whether the agent uses it, by its last word; where the node went and came back, by both. A machine
    /// that does not run uses nothing.
    pub(super) fn in_use(&self, disk: &Disk, name: &NodeName) -> Use {
        let unique = disk.unique();
        let node = self.known.node(name);
        if !node.is_some_and(|node| node.is_ready) && self.is_off(disk, name) {
            return Use::No;
        }
        let earlier = self.hosts.get(name);
        let earlier = earlier.and_then(|host| host.state.last_word.as_ref());
        let now =
            node.is_some_and(|node| node.volumes_in_use.iter().any(|v| v.as_str() == &*unique));
        let before = earlier.is_some_and(|word| word.in_use.contains(&*unique));
        match (now || before, node.is_some() || earlier.is_some()) {
            (true, _) => Use::Yes,
            (false, true) => Use::No,
            (false, false) => Use::Unknown,
        }
    }

    /// Whether the cloud said that the node's machine does not run.
    fn is_off(&self, disk: &Disk, node: &NodeName) -> bool {
        let unit = self.units.get(disk);
        let instance = self.instance(node);
        instance.is_some_and(|instance| unit.is_some_and(|unit| unit.off.contains(instance)))
    }

    /// Whether something else may have the disk, and it is for one node; or its CSI driver has to do with
    /// it: never both.
    fn is_elsewhere(&self, disk: &Disk, node: &NodeName) -> bool {
        if self.has_attachment_on(disk, None) {
            return true;
        }
        let single = self.volume(disk).is_none_or(|v| is_for_one_node(&v));
        single
            && (self.other_users(disk, node).next().is_some()
                || self.other_list(disk, node).is_some())
    }

    /// A machine that has it and is not this node.
    pub(super) fn other_users<'a>(
        &'a self,
        disk: &'a Disk,
        node: &'a NodeName,
    ) -> impl Iterator<Item = &'a Instance> {
        let users = self.units.get(disk).and_then(|unit| unit.users.as_ref());
        let here = self.instance(node);
        users
            .into_iter()
            .flatten()
            .filter(move |user| Some(*user) != here)
    }

    /// Another node whose list still has it.
    pub(super) fn other_list(&self, disk: &Disk, node: &NodeName) -> Option<&NodeName> {
        let unique = disk.unique();
        let nodes = self.units.get(disk).map(|unit| unit.nodes.keys());
        nodes.into_iter().flatten().find(|other| {
            *other != node
                && self
                    .known
                    .node(other)
                    .is_some_and(|other| other.lists(&unique))
        })
    }

    /// Whether there is a VolumeAttachment of it; for this node, or for any.
    pub(super) fn has_attachment_on(&self, disk: &Disk, node: Option<&NodeName>) -> bool {
        let names = self.volumes.get(&disk.name).into_iter().flatten();
        let mut attached = names.filter_map(|name| Some((name, self.attachments.get(name)?)));
        attached.any(|(name, attachments)| {
            let volume = self.known.volumes.get(&(None, name.clone()));
            let mut attachments = attachments.iter().filter_map(|a| self.known.attachment(a));
            volume.is_some_and(|volume| self.is_of(volume, disk))
                && attachments.any(|a| node.is_none_or(|node| a.node == *node))
        })
    }

    /// The PersistentVolume that a disk is.
    pub(super) fn volume(&self, disk: &Disk) -> Option<Arc<Volume>> {
        let names = self.volumes.get(&disk.name).into_iter().flatten();
        let mut volumes = names.filter_map(|name| self.known.volumes.get(&(None, name.clone())));
        volumes.find(|volume| self.is_of(volume, disk)).cloned()
    }

    fn is_of(&self, volume: &Volume, disk: &Disk) -> bool {
        let nodes = self.units.get(disk).map(|unit| unit.nodes.keys());
        let mut instances = nodes
            .into_iter()
            .flatten()
            .filter_map(|node| self.instance(node));
        instances.any(|instance| Disk::of(volume, instance).as_ref() == Some(disk))
    }

    /// When a node that is not ready had its time to let go of a disk that no pod asks for (A13.4).
    fn due(&self, disk: &Disk, name: &NodeName) -> Option<Moment> {
        let on_node = self.units.get(disk)?.nodes.get(name)?;
        let state = self.hosts.get(name).map(|host| &host.state);
        let node = self.known.node(name);
        if node.is_some_and(|node| node.is_ready) {
            return None;
        }
        let idle = on_node.idle_since?;
        let down = state.and_then(|state| state.down_since);
        let earlier = state.and_then(|state| state.last_word.as_ref());
        let meta = node.map(|node| &node.meta);
        let meta = meta.or_else(|| earlier.map(|word| &word.meta));
        let volume = self.volume(disk);
        let single = volume.as_deref().is_none_or(is_for_one_node);
        let class = volume.as_ref().and_then(|v| v.class.as_ref());
        let class = class.and_then(|c| self.known.classes.get(&(None, c.as_str().into())));
        let class = class.map(|class| &class.meta);
        let after = self.options.attach.force_after(single, meta, class)?;
        Some(down.map_or(idle, |down| down.max(idle)) + after)
    }

    /// Looks again at this time at the latest.
    pub(super) fn wake(&mut self, disk: &Disk, at: Moment) {
        let now = self.now;
        if let Some(unit) = self.units.get_mut(disk)
            && unit.wake_at.is_none_or(|known| known <= now || at < known)
        {
            unit.wake_at = Some(at);
            let after = at.0.saturating_sub(now.0);
            self.out
                .push(Effect::Wake(after, CloudAlarm::Disk(disk.clone())));
        }
    }

    /// Nobody tells when another machine lets go of a disk, or is off: it is asked for now and then.
    fn ask_again(&mut self, disk: &Disk, wanted: bool) {
        let Some(unit) = self.units.get_mut(disk) else {
            return;
        };
        if !wanted {
            (unit.ask_at, unit.asks) = (None, 0);
            return;
        }
        let at = self.now + self.options.ask_again * 2_u32.pow(unit.asks.min(3));
        let at = *unit.ask_at.get_or_insert(at);
        self.wake(disk, at);
    }

    /// Whether the cloud may be called for a disk now; otherwise it waits for its turn.
    fn may_call(&mut self, disk: &Disk) -> bool {
        let now = self.now;
        let Some(unit) = self.units.get_mut(disk) else {
            return false;
        };
        if unit.call.is_some() {
            return false;
        }
        if let Some(until) = unit.rests_until(now) {
            self.wake(disk, until);
            return false;
        }
        if self.calls >= self.limit.allowed() {
            if !unit.queued {
                unit.queued = true;
                self.queue.push_back(disk.clone());
            }
            return false;
        }
        true
    }

    fn call(&mut self, disk: &Disk, call: Call, task: Task) {
        if let Some(unit) = self.units.get_mut(disk) {
            unit.call = Some((call, self.now));
            self.calls += 1;
            self.out.push(Effect::Task(task));
        }
    }

    fn look(&mut self, disk: &Disk, nodes: &[NodeName]) {
        let around: BTreeSet<Instance> = nodes
            .iter()
            .filter_map(|node| self.instance(node).cloned())
            .collect();
        let silent = nodes
            .iter()
            .filter(|node| !self.known.node(node).is_some_and(|node| node.is_ready));
        let look = Look {
            disk: disk.clone(),
            silent: silent
                .filter_map(|node| self.instance(node).cloned())
                .collect(),
            around: around.into_iter().collect(),
        };
        self.call(disk, Call::Look, Task::Look(look));
    }

    fn attach(&mut self, disk: &Disk, name: &NodeName) {
        let unique = disk.unique();
        let node = self.known.node(name);
        let asked = node.is_some_and(|node| {
            is_ours(node) && node.volumes_in_use.iter().any(|v| v.as_str() == &*unique)
        });
        if !asked {
            return self.tell_unasked(disk, name);
        }
        self.tell_trouble(disk);
        if !self.may_call(disk) {
            return;
        }
        let (Some(instance), Some(volume)) = (self.instance(name).cloned(), self.volume(disk))
        else {
            return;
        };
        let attach = Attach {
            disk: disk.clone(),
            instance,
            read_only: is_only_read(&volume),
        };
        self.call(disk, Call::Attach(name.clone()), Task::Attach(attach));
    }

    /// Takes it away from the node, on evidence that is read again.
    fn detach(&mut self, disk: &Disk, name: &NodeName, grounds: Grounds) {
        // A list that is on its way may have it: whatever comes of that, this is decided on anew.
        let listing = self
            .hosts
            .get(name)
            .is_some_and(|host| host.state.in_flight);
        if listing || !self.may_call(disk) {
            return;
        }
        let Some(instance) = self.instance(name).cloned() else {
            return;
        };
        let node = self.known.node(name);
        let is_ready = node.is_some_and(|node| node.is_ready);
        let uid = node.map(|node| node.meta.uid.clone());
        let (because, reason) = match (grounds, uid) {
            (Grounds::Released | Grounds::GoneUnused, _)
                if !is_ready && self.is_off(disk, name) =>
            {
                (Because::Off, "off")
            }
            (Grounds::Released, Some(uid)) => (Because::Released(uid), ""),
            (Grounds::GoneUnused, _) => (Because::Gone, ""),
            (Grounds::OutOfService, Some(uid)) => (Because::OutOfService(uid), "out-of-service"),
            (Grounds::Overdue, _) => (Because::Overdue, "timeout"),
            // Nobody can say so here.
            (Grounds::Operator, _) | (Grounds::Released | Grounds::OutOfService, None) => return,
        };
        let detach = Detach {
            disk: disk.clone(),
            instance,
            node: name.clone(),
            because,
        };
        self.call(
            disk,
            Call::Detach(name.clone(), reason),
            Task::Detach(detach),
        );
        // It is decided on once more, as one that is being detached.
        self.dirty.insert(disk.clone());
    }

    /// Forgets what is nowhere and what nobody wants.
    fn drop_what_is_over(&mut self, disk: &Disk, views: &[(View, NodeName)]) {
        let Some(unit) = self.units.get_mut(disk) else {
            return;
        };
        for (view, node) in views {
            let there = view.attachment != Attachment::Absent
                || view.listed
                || unit.attaches_to(node)
                || unit.detaches_from(node)
                || unit.leaving.contains(node);
            if there || view.wanted {
                continue;
            }
            unit.nodes.remove(node);
            let exists = self.known.node(node).is_some();
            if let Some(host) = self.hosts.get_mut(node) {
                host.disks.remove(disk);
                if host.disks.is_empty() && !exists {
                    if let Some(instance) = &host.instance
                        && self.machines.get(instance) == Some(node)
                    {
                        self.machines.remove(instance);
                    }
                    self.hosts.remove(node);
                }
            }
        }
        if unit.nodes.is_empty() && unit.call.is_none() {
            self.units.remove(disk);
        }
    }

    /// Has a node's status say what it shall (A17).
    pub(super) fn report_of(&mut self, name: &NodeName) {
        let (Some(node), Some(host)) = (self.known.node(name), self.hosts.get_mut(name)) else {
            return;
        };
        let state = &mut host.state;
        let rests = state.rests_until.is_some_and(|until| until > self.now);
        // Without a machine nothing is known of what it lists.
        if host.instance.is_none() || state.in_flight || rests {
            return;
        }
        let reported = host.disks.iter().filter(|disk| {
            let on_node = self.units.get(*disk).and_then(|unit| unit.nodes.get(name));
            on_node.is_some_and(|on_node| on_node.report)
        });
        let ours: BTreeMap<String, String> = reported
            .map(|disk| (disk.unique(), disk.device()))
            .collect();
        if let Some(write) = node::listing(node, &ours, |listed| listed.starts_with(PREFIX)) {
            state.in_flight = true;
            self.out.push(Effect::Write(write));
        }
    }
}

/// As the in-tree plugin had it: one that says it is for many writers is for one node.
fn is_for_one_node(volume: &Volume) -> bool {
    is_single(as_always(volume.access_modes))
}

/// Whether no pod writes it: then many nodes may have it.
fn is_only_read(volume: &Volume) -> bool {
    let read: bitts_api::AccessModes = [AccessMode::ReadOnlyMany].into_iter().collect();
    let says = matches!(
        volume.source,
        Source::GcePersistentDisk {
            read_only: true,
            ..
        }
    );
    says || volume.access_modes == read
}
