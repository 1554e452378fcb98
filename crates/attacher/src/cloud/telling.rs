//! What pods are told while they wait.

use std::sync::Arc;

use bitts_api::machine::{Effect, Place};
use bitts_api::{Name, NodeName, Pod};

use super::CloudAttacher;
use super::place::{Disk, Location};
use crate::reason;
use crate::verdict::Use;

impl CloudAttacher {
    fn pods(&self, disk: &Disk, node: &NodeName) -> Vec<(Place, Name)> {
        let on_node = self.units.get(disk).and_then(|unit| unit.nodes.get(node));
        let pods = on_node.into_iter().flat_map(|on_node| &on_node.pods);
        pods.map(|(pod, volume)| (pod.clone(), volume.clone()))
            .collect()
    }

    /// The pods on a node are told that it is attached (A16).
    pub(super) fn tell_attached(&mut self, disk: &Disk, node: &NodeName) {
        for (place, volume) in self.pods(disk, node) {
            if let Some(pod) = self.known.pods.get(&place) {
                let event = reason::attached(pod, &volume);
                self.out.push(Effect::Event(event));
            }
        }
    }

    /// What asks for what cannot be is told why, again while it lasts.
    pub(super) fn refuse(&mut self, pod: &Arc<Pod>, volume: &Name, why: &str) {
        let (now, renew) = (self.now, self.options.attach.renew);
        let message = reason::not_attached(volume, why);
        let place = pod.meta.place();
        let known = self.refused.get(&place);
        if known.is_none_or(|(told, at)| *told != message || now >= *at + renew) {
            self.refused.insert(place, (message.clone(), now));
            self.out.push(Effect::Event(reason::failed(pod, message)));
        }
    }

    /// Wherever it is wanted it is told what the cloud said.
    pub(super) fn tell_trouble(&mut self, disk: &Disk) {
        let Some(unit) = self.units.get(disk) else {
            return;
        };
        let Some(trouble) = unit.trouble.clone() else {
            return;
        };
        let waits = unit.nodes.iter().filter(|(_, on_node)| !on_node.report);
        for node in waits.map(|(node, _)| node.clone()).collect::<Vec<_>>() {
            self.tell(disk, &node, |_, volume| {
                reason::not_attached(volume, &trouble)
            });
        }
    }

    /// Its node's agent has yet to ask for it: told where that takes too long.
    pub(super) fn tell_unasked(&mut self, disk: &Disk, node: &NodeName) {
        let on_node = self.units.get(disk).and_then(|unit| unit.nodes.get(node));
        let Some((_, since)) = on_node.and_then(|on_node| on_node.waiting) else {
            return;
        };
        let until = since + self.options.attach.patience;
        if self.now < until {
            self.wake(disk, until);
            return;
        }
        let why = format!(
            "the agent of node {node} does not ask for it in the node's status: see whether bitts runs there. \
             If a kubelet mounts there by now: kubectl annotate node {node} bitts.dev/mounted-by-"
        );
        self.tell(disk, node, |_, volume| reason::not_attached(volume, &why));
    }

    /// Something else has it, and why that lasts.
    pub(super) fn tell_elsewhere(&mut self, disk: &Disk, node: &NodeName) {
        let (users, hint) = self.holder(disk, node);
        self.tell(disk, node, |pod, volume| {
            let users: Vec<&Pod> = users.iter().map(|pod| &**pod).collect();
            reason::elsewhere(pod, volume, &users, &hint)
        });
    }

    /// The pods elsewhere that ask for it, and what holds it in which way.
    fn holder(&self, disk: &Disk, node: &NodeName) -> (Vec<Arc<Pod>>, String) {
        let nodes = self.units.get(disk).map(|unit| unit.nodes.keys());
        let others = nodes.into_iter().flatten().filter(|other| *other != node);
        let users: Vec<Arc<Pod>> = others
            .flat_map(|other| self.pods(disk, other))
            .filter_map(|(place, _)| self.known.pods.get(&place).cloned())
            .collect();
        let user = self.other_users(disk, node).next();
        let other = user.and_then(|user| self.machines.get(user));
        let other = other.or_else(|| self.other_list(disk, node));
        let hint = match (other, user) {
            (Some(other), _) => self.hint(disk, other),
            (None, Some(user)) => {
                let place = match &disk.location {
                    Location::Zone(_) => "",
                    Location::Region(_) => " --disk-scope regional",
                };
                format!(
                    "It is attached to {user}, which is no node of this cluster. If nothing there uses it: gcloud \
                     compute instances detach-disk {} --project {} --zone {} --disk {}{place}",
                    user.name, user.project, user.zone, disk.name
                )
            }
            (None, None) if self.has_attachment_on(disk, None) => {
                "Its CSI driver has to detach it first: kubectl get volumeattachments".to_owned()
            }
            (None, None) => String::new(),
        };
        (users, hint)
    }

    fn hint(&self, disk: &Disk, node: &NodeName) -> String {
        let object = self.known.node(node);
        if !self.pods(disk, node).is_empty() {
            return format!("It is on node {node}, until the pods there that use it have ended");
        }
        match object {
            Some(_) if !self.is_in_charge(disk, node) => {
                format!("It is on node {node}, whose disks a CSI driver attaches and detaches")
            }
            _ if self.in_use(disk, node) == Use::No => {
                let trouble = self.units.get(disk).and_then(|unit| unit.trouble.as_ref());
                match trouble {
                    Some(trouble) => format!("It is to be detached from node {node}: {trouble}"),
                    None => format!("It is to be detached from node {node}"),
                }
            }
            Some(object) if object.is_ready => {
                format!("Node {node} is well and still uses it, until it has unmounted it")
            }
            Some(_) => format!(
                "Node {node} is not ready and does not let go of it. If the machine is off: kubectl taint nodes \
                 {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
            ),
            None => format!(
                "Node {node} was deleted while it used it, and its machine runs: delete the machine, or stop it"
            ),
        }
    }

    fn tell(&mut self, disk: &Disk, node: &NodeName, why: impl Fn(&Pod, &Name) -> String) {
        let (now, renew) = (self.now, self.options.attach.renew);
        for (place, volume) in self.pods(disk, node) {
            let Some(pod) = self.known.pods.get(&place).cloned() else {
                continue;
            };
            let message = why(&pod, &volume);
            let unit = self.units.get_mut(disk);
            let on_node = unit.and_then(|unit| unit.nodes.get_mut(node));
            if on_node.is_some_and(|on_node| on_node.tells(&place, &message, now, renew)) {
                self.out.push(Effect::Event(reason::failed(&pod, message)));
            }
        }
        self.wake(disk, now + renew);
    }
}
