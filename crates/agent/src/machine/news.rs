//! What the agent is told of objects, and what has to be looked at after each change.

use std::sync::Arc;

use bitts_api::machine::Change;
use bitts_api::{Kind, Node, Object, ObjectKey, Pod, Uid};

use super::{Agent, claim_key, place_of, pod_key, volume_key};

impl Agent {
    pub(super) fn list(&mut self, kind: Kind, objects: Vec<Object>) {
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
            // Followed one by one, or not at all.
            _ => {}
        }
    }

    /// Takes in what is at the place of an object that pods wait for.
    pub(super) fn find(&mut self, key: &ObjectKey, found: Option<Object>) {
        if !self.following.found(key) {
            return;
        }
        let place = (key.namespace.clone(), key.name.clone());
        match (key.kind, found) {
            (Kind::Claim, Some(Object::Claim(claim))) => {
                drop(self.claims.find(&place, Some(claim)))
            }
            (Kind::Claim, _) => drop(self.claims.find(&place, None)),
            (Kind::Volume, Some(Object::Volume(volume))) => {
                drop(self.volumes.find(&place, Some(volume)));
            }
            (Kind::Volume, _) => drop(self.volumes.find(&place, None)),
            (Kind::CsiDriver, Some(Object::CsiDriver(driver))) => {
                drop(self.csi_drivers.find(&place, Some(driver)));
            }
            (Kind::CsiDriver, _) => drop(self.csi_drivers.find(&place, None)),
            (Kind::Attachment, Some(Object::Attachment(attachment))) => {
                drop(self.attachments.find(&place, Some(attachment)));
            }
            (Kind::Attachment, _) => drop(self.attachments.find(&place, None)),
            _ => {}
        }
        self.look_at_pods_of(key);
    }

    fn look_at_pods_of(&mut self, key: &ObjectKey) {
        self.pods_to_look_at
            .extend(self.following.pods(key).cloned());
    }

    pub(super) fn see(&mut self, object: Object) {
        match object {
            Object::Pod(pod) if pod.node.as_ref() == Some(&self.node) => {
                let changes = self.pods.see(pod);
                changes
                    .into_iter()
                    .for_each(|change| self.pod_changed(change));
            }
            Object::Claim(claim) => {
                let key = claim_key(claim.meta.namespace.clone(), &claim.meta.name);
                if self.following.knows(&key) && !self.claims.see(claim).is_empty() {
                    self.look_at_pods_of(&key);
                }
            }
            Object::Volume(volume) => {
                let key = volume_key(&volume.meta.name);
                if self.following.knows(&key) && !self.volumes.see(volume).is_empty() {
                    self.look_at_pods_of(&key);
                }
            }
            Object::CsiDriver(driver) => {
                let key = ObjectKey::csi_driver(driver.meta.name.clone());
                if self.following.knows(&key) && !self.csi_drivers.see(driver).is_empty() {
                    self.look_at_pods_of(&key);
                }
            }
            Object::Attachment(attachment) => {
                let key = ObjectKey::attachment(attachment.meta.name.clone());
                if self.following.knows(&key) && !self.attachments.see(attachment).is_empty() {
                    self.look_at_pods_of(&key);
                }
            }
            Object::Node(node) if node.meta.name == *self.node.as_str() => {
                let changes = self.nodes.see(node);
                changes
                    .into_iter()
                    .for_each(|change| self.node_changed(change));
            }
            _ => {}
        }
    }

    pub(super) fn delete(&mut self, key: ObjectKey, uid: &Uid) {
        let place = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Pod => {
                let change = self.pods.remove(&place, uid);
                change
                    .into_iter()
                    .for_each(|change| self.pod_changed(change));
            }
            Kind::Claim if self.following.knows(&key) => {
                if self.claims.remove(&place, uid).is_some() {
                    self.look_at_pods_of(&key);
                }
            }
            Kind::Volume if self.following.knows(&key) => {
                if self.volumes.remove(&place, uid).is_some() {
                    self.look_at_pods_of(&key);
                }
            }
            Kind::CsiDriver if self.following.knows(&key) => {
                if self.csi_drivers.remove(&place, uid).is_some() {
                    self.look_at_pods_of(&key);
                }
            }
            Kind::Attachment if self.following.knows(&key) => {
                if self.attachments.remove(&place, uid).is_some() {
                    self.look_at_pods_of(&key);
                }
            }
            Kind::Node => {
                let change = self.nodes.remove(&place, uid);
                change
                    .into_iter()
                    .for_each(|change| self.node_changed(change));
            }
            Kind::Claim
            | Kind::Volume
            | Kind::StorageClass
            | Kind::AttributesClass
            | Kind::Attachment
            | Kind::CsiDriver
            | Kind::CsiNode
            | Kind::StorageCapacity => {}
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        let (old, new) = sides(change);
        if let Some(old) = &old {
            self.pods_to_look_at.insert(place_of(old));
            if new.is_none() {
                let uid = &old.meta.uid;
                self.by_uid.remove(uid);
                self.told.retain(|(pod, _), _| pod != uid);
                self.planned.retain(|(pod, _), _| pod != uid);
                self.left_alone.retain(|(pod, _)| pod != uid);
                self.finishing.forget(&pod_key(old));
                self.volumes_to_look_at.extend(self.ledger.of_pod(uid));
            }
        }
        if let Some(new) = &new {
            let place = place_of(new);
            self.by_uid.insert(new.meta.uid.clone(), place.clone());
            self.finishing.wake(&pod_key(new));
            self.pods_to_look_at.insert(place);
        }
    }

    fn node_changed(&mut self, change: Change<Node>) {
        let (old, new) = sides(change);
        if old.is_some() != new.is_some() {
            self.volumes_to_look_at.extend(self.ledger.keys().cloned());
            self.stages_to_look_at.extend(self.stages.keys().cloned());
        }
        let disks = |node: &Arc<Node>| {
            let listed = node.is_attached_to().then(|| node.volumes_attached.clone());
            (node.volumes_in_use.clone(), listed)
        };
        if old.as_ref().map(disks) != new.as_ref().map(disks) {
            self.stages_to_look_at.extend(self.stages.keys().cloned());
        }
        // A node's status changes all the time.
        if old.map(|n| n.meta.labels.clone()) != new.map(|n| n.meta.labels.clone()) {
            self.pods_to_look_at
                .extend(self.pods.iter().map(|pod| place_of(pod)));
        }
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
