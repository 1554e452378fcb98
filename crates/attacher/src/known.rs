//! What the API said, and who has to do with whom.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitts_api::machine::{Cache, Change, Inventory, Place};
use bitts_api::{
    Attachment, Claim, CsiDriver, Kind, Name, Node, NodeName, Object, ObjectKey, Pod, StorageClass,
    Uid, Volume,
};

use crate::wanted::World;

/// What is watched.
pub(crate) const KINDS: [Kind; 7] = [
    Kind::Pod,
    Kind::Claim,
    Kind::Volume,
    Kind::Node,
    Kind::Attachment,
    Kind::CsiDriver,
    Kind::StorageClass,
];

/// All that is known of the API.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Those that have a node and claims.
    pub(crate) pods: Cache<Pod>,
    pub(crate) claims: Cache<Claim>,
    pub(crate) volumes: Cache<Volume>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) attachments: Cache<Attachment>,
    pub(crate) drivers: Cache<CsiDriver>,
    pub(crate) classes: Cache<StorageClass>,
    /// Claims and the pods that name them, in the same namespace.
    users: BTreeSet<(Place, Name)>,
}

/// What an input changed.
#[derive(Debug)]
pub(crate) enum News {
    Pod(Change<Pod>),
    Claim(Place),
    Volume(Change<Volume>),
    Node(Change<Node>),
    Attachment(Change<Attachment>),
    /// Something that is rare and may concern anything.
    Rare,
}

impl Known {
    /// Whether all kinds were listed (B2, A7).
    pub(crate) fn is_listed(&self) -> bool {
        self.pods.is_listed()
            && self.claims.is_listed()
            && self.volumes.is_listed()
            && self.nodes.is_listed()
            && self.attachments.is_listed()
            && self.drivers.is_listed()
            && self.classes.is_listed()
    }

    pub(crate) fn world(&self) -> World<'_> {
        World {
            claims: &self.claims,
            volumes: &self.volumes,
            nodes: &self.nodes,
            drivers: &self.drivers,
        }
    }

    pub(crate) fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(&(None, name.as_str().into()))
    }

    pub(crate) fn attachment(&self, name: &Name) -> Option<&Arc<Attachment>> {
        self.attachments.get(&(None, name.clone()))
    }

    /// The pods that name a claim.
    pub(crate) fn users<'a>(&'a self, claim: &'a Place) -> impl Iterator<Item = Place> {
        let users = self.users.range((claim.clone(), Name::from(""))..);
        let users = users.take_while(move |(other, _)| other == claim);
        users.map(|((namespace, _), pod)| (namespace.clone(), pod.clone()))
    }

    pub(crate) fn list(&mut self, kind: Kind, objects: Vec<Object>) -> Vec<News> {
        macro_rules! list {
            ($cache:ident, $kind:ident) => {
                self.$cache
                    .replace(objects.into_iter().filter_map(|o| match o {
                        Object::$kind(o) => Some(o),
                        _ => None,
                    }))
            };
        }
        match kind {
            Kind::Pod => {
                let pods = objects.into_iter().filter_map(|o| match o {
                    Object::Pod(pod) if is_user(&pod) => Some(pod),
                    _ => None,
                });
                let changes = self.pods.replace(pods);
                self.of_pods(changes)
            }
            Kind::Claim => of_claims(list!(claims, Claim)),
            Kind::Volume => (list!(volumes, Volume).into_iter().map(News::Volume)).collect(),
            Kind::Node => list!(nodes, Node).into_iter().map(News::Node).collect(),
            Kind::Attachment => {
                let changes = list!(attachments, Attachment);
                changes.into_iter().map(News::Attachment).collect()
            }
            Kind::CsiDriver => rare(!list!(drivers, CsiDriver).is_empty()),
            Kind::StorageClass => rare(!list!(classes, StorageClass).is_empty()),
            Kind::AttributesClass | Kind::CsiNode | Kind::StorageCapacity => Vec::new(),
        }
    }

    pub(crate) fn see(&mut self, object: Object) -> Vec<News> {
        match object {
            Object::Pod(pod) if is_user(&pod) => {
                let changes = self.pods.see(pod);
                self.of_pods(changes)
            }
            Object::Claim(claim) => of_claims(self.claims.see(claim)),
            Object::Volume(volume) => {
                let changes = self.volumes.see(volume);
                changes.into_iter().map(News::Volume).collect()
            }
            Object::Node(node) => self.nodes.see(node).into_iter().map(News::Node).collect(),
            Object::Attachment(attachment) => {
                let changes = self.attachments.see(attachment);
                changes.into_iter().map(News::Attachment).collect()
            }
            Object::CsiDriver(driver) => rare(!self.drivers.see(driver).is_empty()),
            Object::StorageClass(class) => rare(!self.classes.see(class).is_empty()),
            Object::Pod(_)
            | Object::AttributesClass(_)
            | Object::CsiNode(_)
            | Object::StorageCapacity(_) => Vec::new(),
        }
    }

    pub(crate) fn delete(&mut self, key: ObjectKey, uid: &Uid) -> Vec<News> {
        let place = (key.namespace, key.name);
        match key.kind {
            Kind::Pod => {
                let change = self.pods.remove(&place, uid);
                self.of_pods(change.into_iter().collect())
            }
            Kind::Claim => of_claims(self.claims.remove(&place, uid).into_iter().collect()),
            Kind::Volume => {
                let change = self.volumes.remove(&place, uid);
                change.into_iter().map(News::Volume).collect()
            }
            Kind::Node => {
                let change = self.nodes.remove(&place, uid);
                change.into_iter().map(News::Node).collect()
            }
            Kind::Attachment => {
                let change = self.attachments.remove(&place, uid);
                change.into_iter().map(News::Attachment).collect()
            }
            Kind::CsiDriver => rare(self.drivers.remove(&place, uid).is_some()),
            Kind::StorageClass => rare(self.classes.remove(&place, uid).is_some()),
            Kind::AttributesClass | Kind::CsiNode | Kind::StorageCapacity => Vec::new(),
        }
    }

    fn of_pods(&mut self, changes: Vec<Change<Pod>>) -> Vec<News> {
        for change in &changes {
            let (Change::Set { new: pod, .. } | Change::Removed(pod)) = change;
            for claim in pod.claims() {
                let claim = (pod.meta.namespace.clone(), claim.clone());
                let user = (claim, pod.meta.name.clone());
                match change {
                    Change::Set { .. } => self.users.insert(user),
                    Change::Removed(_) => self.users.remove(&user),
                };
            }
        }
        changes.into_iter().map(News::Pod).collect()
    }

    /// What is known of a kind. Pods without claims are not kept, so of pods this says nothing.
    pub(crate) fn inventory(&self, kind: Kind) -> Option<Inventory> {
        match kind {
            Kind::Claim => self.claims.inventory(),
            Kind::Volume => self.volumes.inventory(),
            Kind::Node => self.nodes.inventory(),
            Kind::Attachment => self.attachments.inventory(),
            Kind::CsiDriver => self.drivers.inventory(),
            Kind::StorageClass => self.classes.inventory(),
            Kind::Pod | Kind::AttributesClass | Kind::CsiNode | Kind::StorageCapacity => None,
        }
    }
}

/// Whether a pod can ask for anything. A pod's volumes never change, and its node is given once.
fn is_user(pod: &Pod) -> bool {
    pod.node.is_some() && pod.claims().next().is_some()
}

fn of_claims(changes: Vec<Change<Claim>>) -> Vec<News> {
    let place = |change: Change<Claim>| match change {
        Change::Set { new, .. } => News::Claim(new.meta.place()),
        Change::Removed(old) => News::Claim(old.meta.place()),
    };
    changes.into_iter().map(place).collect()
}

fn rare(changed: bool) -> Vec<News> {
    changed.then_some(News::Rare).into_iter().collect()
}
