//! What the machine learns: objects, what came of writes, and what the cloud said.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitts_api::machine::{Change, Effect, Moment, Outcome, Place};
use bitts_api::{Attachment, Name, Node, NodeName, Pod, PodVolumeSource, Source, Volume};

use super::call::{Report, Task, Trouble};
use super::place::{Disk, Instance, Location, PREFIX, Zone};
use super::unit::{Call, OnNode, Unit};
use super::{CloudAlarm, CloudAttacher};
use crate::csi_volume::GCE;
use crate::known::News;

impl CloudAttacher {
    /// Everything is known for the first time.
    pub(super) fn begin(&mut self) {
        self.is_ready = true;
        let volumes: Vec<Arc<Volume>> = self.known.volumes.iter().cloned().collect();
        for volume in volumes {
            self.index_volume(&volume, true);
        }
        let attachments: Vec<Arc<Attachment>> = self.known.attachments.iter().cloned().collect();
        for attachment in attachments {
            self.index_attachment(&attachment, true);
        }
        let nodes: Vec<Arc<Node>> = self.known.nodes.iter().cloned().collect();
        for node in nodes {
            self.node_set(None, &node, true);
        }
        let pods = self.known.pods.iter().map(|pod| pod.meta.place());
        self.dirty_pods.extend(pods);
        let zones = self.sweep.iter().map(Instance::zone);
        self.settling = zones.collect();
        for zone in self.settling.clone() {
            self.out.push(Effect::Task(Task::Settle(zone)));
        }
        self.sweep_next();
    }

    /// What a process before this one asked for has ended in a zone.
    fn settled(&mut self, zone: Zone, result: Result<(), Trouble>) {
        match result {
            Ok(()) => {
                self.settling.remove(&zone);
                self.sweep_next();
            }
            Err(trouble) => {
                let disks: Vec<Disk> = self.units.keys().cloned().collect();
                for disk in disks {
                    if let Some(unit) = self.units.get_mut(&disk) {
                        unit.trouble = Some(trouble.message.clone());
                    }
                    self.tell_trouble(&disk);
                }
                let later = self.options.ask_again;
                self.out.push(Effect::Wake(later, CloudAlarm::Settle(zone)));
            }
        }
    }

    pub(super) fn take(&mut self, news: News) {
        // Before everything is known, nothing follows from anything.
        if !self.is_ready {
            return;
        }
        match news {
            News::Pod(Change::Set { new, .. }) => {
                self.dirty_pods.insert(new.meta.place());
            }
            News::Pod(Change::Removed(old)) => self.forget_asks(&old.meta.place()),
            News::Claim(claim) => self.claim_changed(&claim),
            News::Volume(change) => {
                let (old, new) = match change {
                    Change::Set { old, new } => (old, Some(new)),
                    Change::Removed(old) => (Some(old), None),
                };
                old.iter()
                    .for_each(|volume| self.index_volume(volume, false));
                new.iter()
                    .for_each(|volume| self.index_volume(volume, true));
                for volume in old.iter().chain(&new) {
                    self.volume_changed(volume);
                }
            }
            News::Attachment(change) => {
                let (attachment, there) = match &change {
                    Change::Set { new, .. } => (new, true),
                    Change::Removed(old) => (old, false),
                };
                self.index_attachment(attachment, there);
            }
            News::Node(Change::Set { old, new }) => self.node_set(old.as_deref(), &new, false),
            News::Node(Change::Removed(old)) => {
                let name = NodeName::from(old.meta.name.as_str());
                if let Some(host) = self.hosts.get_mut(&name) {
                    host.state.gone(&old, self.now);
                    self.touch_all(&name);
                }
            }
            News::Rare => self.dirty.extend(self.units.keys().cloned()),
        }
    }

    fn index_volume(&mut self, volume: &Volume, there: bool) {
        let Source::GcePersistentDisk { disk, .. } = &volume.source else {
            return;
        };
        let name = volume.meta.name.clone();
        if there {
            self.volumes.entry(disk.clone()).or_default().insert(name);
        } else if let Some(names) = self.volumes.get_mut(disk) {
            names.remove(&name);
            if names.is_empty() {
                self.volumes.remove(disk);
            }
        }
    }

    fn volume_changed(&mut self, volume: &Volume) {
        let owner = volume.claim_ref.as_ref();
        if let Some(owner) = owner {
            self.claim_changed(&(Some(owner.namespace.clone()), owner.name.clone()));
        }
        self.touch_disks_of(volume);
    }

    fn touch_disks_of(&mut self, volume: &Volume) {
        let disks = self.disks_of(volume);
        self.dirty.extend(disks);
    }

    fn disks_of(&self, volume: &Volume) -> Vec<Disk> {
        let Source::GcePersistentDisk { disk, .. } = &volume.source else {
            return Vec::new();
        };
        let named = self.units.keys().filter(|known| known.name == *disk);
        named.cloned().collect()
    }

    /// Its driver did something to a disk.
    fn doubt_disks_of(&mut self, volume: &Volume) {
        for disk in self.disks_of(volume) {
            if let Some(unit) = self.units.get_mut(&disk) {
                unit.is_stale = unit.call.is_some();
                unit.users = None;
            }
            self.dirty.insert(disk);
        }
    }

    fn index_attachment(&mut self, attachment: &Attachment, there: bool) {
        let Some(volume) = attachment.volume.clone() else {
            return;
        };
        if *attachment.driver != *GCE {
            return;
        }
        let name = attachment.meta.name.clone();
        if there {
            let names = self.attachments.entry(volume.clone()).or_default();
            names.insert(name);
        } else if let Some(names) = self.attachments.get_mut(&volume) {
            names.remove(&name);
            if names.is_empty() {
                self.attachments.remove(&volume);
            }
        }
        if let Some(volume) = self.known.volumes.get(&(None, volume)).cloned() {
            self.doubt_disks_of(&volume);
        }
    }

    /// A10: what was bound late is noticed.
    fn claim_changed(&mut self, claim: &Place) {
        let users = self.known.users(claim).collect::<Vec<_>>();
        self.dirty_pods.extend(users);
    }

    fn node_set(&mut self, old: Option<&Node>, node: &Node, begins: bool) {
        let name = NodeName::from(node.meta.name.as_str());
        // A node's status is written all the time.
        let same = old.is_some_and(|old| {
            old.meta.annotations == node.meta.annotations
                && old.is_ready == node.is_ready
                && old.is_out_of_service == node.is_out_of_service
                && old.volumes_in_use == node.volumes_in_use
                && old.volumes_attached == node.volumes_attached
                && old.provider_id == node.provider_id
        });
        if same {
            return;
        }
        let instance = Instance::of(node);
        let host = self.hosts.entry(name.clone()).or_default();
        host.state.seen(node, self.now);
        let is_new = old.is_none() || host.instance != instance;
        if host.instance != instance {
            if let Some(before) = host.instance.take() {
                self.machines.remove(&before);
            }
            if let Some(instance) = &instance {
                self.machines.insert(instance.clone(), name.clone());
            }
            host.instance.clone_from(&instance);
        }
        let lists = node
            .volumes_attached
            .iter()
            .any(|n| n.as_str().starts_with(PREFIX));
        host.is_ours = is_ours(node) || lists;
        let was_ours = old.is_some_and(is_ours);
        if is_new || was_ours != is_ours(node) {
            self.pods_of(&name);
            if is_ours(node)
                && let Some(instance) = &instance
            {
                self.sweep.push_back(instance.clone());
                if !begins {
                    self.sweep_next();
                }
            }
        }
        let listed = node
            .volumes_attached
            .iter()
            .filter_map(|n| n.as_str().strip_prefix(PREFIX));
        if let Some(instance) = &instance {
            for disk in listed {
                if let Some(disk) = self.resolve(disk, instance) {
                    self.on_node(&disk, &name);
                }
            }
        }
        self.touch_all(&name);
    }

    /// The disk of this name that a machine can have: as a PersistentVolume says, else in its zone.
    pub(super) fn resolve(&self, name: &str, instance: &Instance) -> Option<Disk> {
        let volumes = self.volumes.get(name).into_iter().flatten();
        let known = volumes.filter_map(|volume| {
            let volume = self.known.volumes.get(&(None, volume.clone()))?;
            let disk = Disk::of(volume, instance)?;
            let near = match &disk.location {
                Location::Zone(zone) => *zone == instance.zone,
                Location::Region(region) => instance.zone.starts_with(&**region),
            };
            near.then_some(disk)
        });
        let in_zone = || Disk::new(name, instance, Location::Zone(instance.zone.clone()));
        known.into_iter().next().or_else(in_zone)
    }

    /// The pods of a node ask anew: rare.
    fn pods_of(&mut self, node: &NodeName) {
        let pods = self.known.pods.iter();
        let those = pods.filter(|pod| pod.node.as_ref() == Some(node));
        let those = those.map(|pod| pod.meta.place());
        self.dirty_pods.extend(those);
    }

    pub(super) fn touch_all(&mut self, node: &NodeName) {
        self.dirty_nodes.insert(node.clone());
        if let Some(host) = self.hosts.get(node) {
            self.dirty.extend(host.disks.iter().cloned());
        }
    }

    /// What is remembered of a disk on a node. One that the node lists stays there until it is decided on.
    pub(super) fn on_node(&mut self, disk: &Disk, node: &NodeName) -> &mut OnNode {
        let listed = self.known.node(node);
        let listed = listed.is_some_and(|node| node.lists(&disk.unique()));
        let host = self.hosts.entry(node.clone()).or_default();
        host.disks.insert(disk.clone());
        self.dirty.insert(disk.clone());
        let unit = self.units.entry(disk.clone()).or_default();
        let on_node = unit.nodes.entry(node.clone());
        on_node.or_insert_with(|| OnNode::listed(listed))
    }

    pub(super) fn forget_asks(&mut self, pod: &Place) {
        self.refused.remove(pod);
        for (disk, node) in self.asked.remove(pod).unwrap_or_default() {
            if let Some(unit) = self.units.get_mut(&disk) {
                if let Some(on_node) = unit.nodes.get_mut(&node) {
                    on_node.leave(pod);
                }
                unit.hurry();
            }
            self.dirty.insert(disk);
        }
    }

    /// What a pod asks for now (A9).
    pub(super) fn ask(&mut self, place: &Place) {
        let pod = self.known.pods.get(place).cloned();
        let mut asks = pod.as_ref().map_or_else(Vec::new, |pod| self.asks(pod));
        asks.sort_unstable();
        asks.dedup();
        let pairs = |asks: &[(Disk, NodeName, Name)]| -> Vec<(Disk, NodeName)> {
            let pairs = asks.iter();
            pairs
                .map(|(disk, node, _)| (disk.clone(), node.clone()))
                .collect()
        };
        let now = pairs(&asks);
        let before = self.asked.get(place);
        if before.map_or(now.is_empty(), |before| *before == now) {
            return;
        }
        self.forget_asks(place);
        for (disk, node, volume) in asks {
            self.on_node(&disk, &node)
                .pods
                .insert(place.clone(), volume);
            if let Some(unit) = self.units.get_mut(&disk) {
                unit.hurry();
            }
        }
        if !now.is_empty() {
            self.asked.insert(place.clone(), now);
        }
    }

    fn asks(&mut self, pod: &Arc<Pod>) -> Vec<(Disk, NodeName, Name)> {
        let Some(name) = pod.node.clone().filter(|_| !pod.is_terminated()) else {
            return Vec::new();
        };
        // Where the node is gone the pod is about to go too; until then it says what it wants.
        let node = self.known.node(&name).cloned();
        if node.as_ref().is_some_and(|node| !is_ours(node)) {
            return Vec::new();
        }
        let host = self.hosts.get(&name).filter(|host| host.is_ours);
        let instance = host.and_then(|host| host.instance.clone());
        let mut asks = Vec::new();
        for volume in &pod.volumes {
            let PodVolumeSource::Claim { .. } = &volume.source else {
                continue;
            };
            let volume = self.known.world().bound(pod, &volume.source).cloned();
            let Some(volume) = volume else { continue };
            if !matches!(volume.source, Source::GcePersistentDisk { .. }) {
                continue;
            }
            let volume_name = volume.meta.name.clone();
            let disk = instance
                .as_ref()
                .map(|instance| Disk::of(&volume, instance));
            match (disk, &node) {
                (Some(Some(disk)), _) => asks.push((disk, name.clone(), volume_name)),
                (Some(None), _) => self.refuse(
                    pod,
                    &volume_name,
                    "its zone labels contradict each other, or its pdName is none: mend the \
                     PersistentVolume",
                ),
                (None, Some(node)) => {
                    let id = node.provider_id.as_deref().unwrap_or("none");
                    let why = format!(
                        "node {name} is not known to be a machine of Google's cloud: its spec.providerID \
                         is {id}, and must be gce://project/zone/instance"
                    );
                    self.refuse(pod, &volume_name, &why);
                }
                (None, None) => {}
            }
        }
        asks
    }

    pub(super) fn node_finished(&mut self, name: &Name, outcome: &Outcome) {
        let name = NodeName::from(name.as_str());
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&name) else {
            return;
        };
        host.state.in_flight = false;
        match outcome {
            Outcome::Done | Outcome::Gone => host.state.succeed(),
            // Somebody else wrote it first, mostly its agent; that was fed.
            Outcome::Conflict | Outcome::Spared => {}
            Outcome::Refused(_) | Outcome::Failed(_) => {
                let until = host.state.fail(now);
                let after = until.0.saturating_sub(now.0);
                self.out
                    .push(Effect::Wake(after, CloudAlarm::Node(name.clone())));
            }
        }
        self.touch_all(&name);
    }

    pub(super) fn ring(&mut self, disk: &Disk) {
        let now = self.now;
        if let Some(unit) = self.units.get_mut(disk) {
            unit.wake_at = unit.wake_at.filter(|at| *at > now);
            if unit.ask_at.is_some_and(|at| at <= now) && unit.call.is_none() {
                unit.ask_at = None;
                unit.asks += 1;
                unit.users = None;
            }
            self.dirty.insert(disk.clone());
        }
    }

    pub(super) fn reported(&mut self, report: Report) {
        let now = self.now;
        match report {
            Report::Settled(zone, result) => self.settled(zone, result),
            Report::Looked(disk, result) => {
                self.called("look", &disk, result.as_ref().err());
                if let Some(unit) = self.units.get_mut(&disk) {
                    match result {
                        Ok(looked) => {
                            unit.users = Some(looked.users).filter(|_| !unit.is_stale);
                            unit.off = looked.off;
                        }
                        Err(trouble) => unit.fail(now, Some(trouble.message)),
                    }
                }
                if let Some(unit) = self.units.get_mut(&disk) {
                    unit.is_stale = false;
                }
                self.place_users(&disk);
            }
            Report::Attached(disk, instance, result) => {
                self.called("attach", &disk, result.as_ref().err());
                let node = self.machines.get(&instance).cloned();
                if let Some(unit) = self.units.get_mut(&disk) {
                    match result {
                        Ok(()) => {
                            unit.succeed();
                            unit.users.get_or_insert_default().insert(instance);
                            node.into_iter().for_each(|node| {
                                unit.leaving.remove(&node);
                            });
                        }
                        Err(trouble) => unit.fail(now, Some(trouble.message)),
                    }
                }
            }
            Report::Detached(disk, instance, result) => {
                let call = self.called("detach", &disk, result.as_ref().err());
                let Some(unit) = self.units.get_mut(&disk) else {
                    return;
                };
                let Some(Call::Detach(node, reason)) = call else {
                    return;
                };
                match result {
                    Ok(()) => {
                        unit.succeed();
                        unit.leaving.remove(&node);
                        if let Some(users) = &mut unit.users {
                            users.remove(&instance);
                        }
                        if !reason.is_empty() {
                            *self.forced.entry(reason).or_default() += 1;
                        }
                    }
                    Err(trouble) => {
                        unit.fail(now, Some(trouble.message));
                        unit.leaving.insert(node);
                    }
                }
            }
            Report::Spared(disk, _) => {
                self.called("detach", &disk, None);
                if let Some(unit) = self.units.get_mut(&disk) {
                    unit.fail(now, None);
                }
            }
            Report::Swept(instance, result) => self.swept(&instance, result),
        }
    }

    /// A call ended, whatever came of it.
    fn called(
        &mut self,
        call: &'static str,
        disk: &Disk,
        trouble: Option<&Trouble>,
    ) -> Option<Call> {
        let now = self.now;
        let full = !self.queue.is_empty() || self.calls >= self.limit.allowed();
        self.calls = self.calls.saturating_sub(1);
        self.dirty.insert(disk.clone());
        let unit = self.units.get_mut(disk)?;
        unit.called_at = Some(now);
        let (ended, began) = unit.call.take()?;
        let overload = trouble.is_some_and(|trouble| trouble.overload);
        self.limit.ended(began, now, overload, full);
        let took = now.0.saturating_sub(began.0);
        self.calls_ended.add(call, trouble, took);
        Some(ended)
    }

    /// Those nodes have it, whether or not they are asked for it.
    fn place_users(&mut self, disk: &Disk) {
        let users = self.units.get(disk).and_then(|unit| unit.users.as_ref());
        let nodes = users.into_iter().flatten();
        let nodes: Vec<NodeName> = nodes
            .filter_map(|user| self.machines.get(user).cloned())
            .filter(|node| self.is_in_charge(disk, node))
            .collect();
        for node in nodes {
            self.on_node(disk, &node);
        }
    }

    /// Machines whose disks are the agents' are looked at, one after another.
    pub(super) fn sweep_all(&mut self) {
        if self.sweep.is_empty() {
            let ours = self.hosts.iter().filter(|(name, host)| {
                !host.disks.is_empty() || self.known.node(name).is_some_and(|node| is_ours(node))
            });
            let instances = ours.filter_map(|(_, host)| host.instance.clone());
            self.sweep.extend(instances);
        }
        self.sweep_next();
    }

    fn sweep_next(&mut self) {
        if self.sweeping.is_some() || !self.settling.is_empty() {
            return;
        }
        if let Some(instance) = self.sweep.pop_front() {
            self.sweeping = Some((instance.clone(), self.now));
            self.out.push(Effect::Task(Task::Sweep(instance)));
        } else if let Some(interval) = self.options.sweep
            && !self.sweeps
        {
            self.sweeps = true;
            self.out.push(Effect::Wake(interval, CloudAlarm::Sweep));
        }
    }

    /// A machine said what it has.
    fn swept(&mut self, instance: &Instance, result: Result<BTreeMap<Disk, bool>, Trouble>) {
        let began = self.sweeping.take().map_or(self.now, |(_, began)| began);
        let disks = match result {
            Ok(disks) => disks,
            Err(_) => {
                self.sweep.push_back(instance.clone());
                if !self.sweeps {
                    self.sweeps = true;
                    let later = self.options.ask_again;
                    self.out.push(Effect::Wake(later, CloudAlarm::Sweep));
                }
                return;
            }
        };
        if let Some(node) = self.machines.get(instance).cloned() {
            self.compare(&node, instance, &disks, began);
        }
        self.sweep_next();
    }

    fn compare(
        &mut self,
        node: &NodeName,
        instance: &Instance,
        disks: &BTreeMap<Disk, bool>,
        began: Moment,
    ) {
        let is_settled =
            |unit: &Unit| unit.call.is_none() && unit.called_at.is_none_or(|at| at < began);
        let known = self.hosts.get(node).map(|host| host.disks.clone());
        for disk in known.unwrap_or_default() {
            let Some(unit) = self.units.get_mut(&disk).filter(|unit| is_settled(unit)) else {
                continue;
            };
            let said = unit.users.as_ref().map(|users| users.contains(instance));
            if said.is_some_and(|said| said != disks.contains_key(&disk)) {
                unit.users = None;
                self.found += 1;
                self.dirty.insert(disk);
            }
        }
        let object = self.known.node(node).cloned();
        for (disk, is_named) in disks {
            let listed = object
                .as_ref()
                .is_some_and(|node| node.lists(&disk.unique()));
            // What somebody attached for something else is left alone.
            let ours = object.as_ref().is_some_and(|node| is_ours(node))
                && *is_named
                && self.has_volume(disk, instance);
            let is_known = self
                .units
                .get(disk)
                .is_some_and(|unit| unit.nodes.contains_key(node));
            if (listed || ours) && !is_known {
                self.found += 1;
                self.on_node(disk, node);
                if let Some(unit) = self.units.get_mut(disk).filter(|unit| is_settled(unit)) {
                    unit.users = None;
                }
            }
        }
    }

    /// Whether a PersistentVolume is this disk.
    fn has_volume(&self, disk: &Disk, instance: &Instance) -> bool {
        let names = self.volumes.get(&disk.name).into_iter().flatten();
        let mut volumes = names.filter_map(|name| self.known.volumes.get(&(None, name.clone())));
        volumes.any(|volume| Disk::of(volume, instance).as_ref() == Some(disk))
    }
}

/// Whether disks are attached to a node directly: its agent mounts, and wants to be told.
pub(super) fn is_ours(node: &Node) -> bool {
    node.is_attached_to() && node.is_mounted_by_agent()
}
