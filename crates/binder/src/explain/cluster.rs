//! The objects that are judged, as they are.

use std::sync::Arc;

use bitts_api::machine::Place;
use bitts_api::{
    Claim, Kind, Name, Namespace, Node, NodeName, Object, Pod, StorageClass, Volume, names,
};

use super::report::{Class, Report, User};
use super::{claim, volume};
use crate::known::{Dirty, Known};
use crate::migration;
use crate::options::Options;
use crate::reclaim::IN_TREE;

/// Objects of a cluster as they are now.
///
/// What was not handed in counts as not there: for a claim that is the claim, all volumes, classes
/// and nodes, and the pods of its namespace; for a volume the volume, all claims, classes and
/// nodes, and the pods of its claim's namespace.
///
/// ```
/// use bitts_api::{Claim, Object, Volume};
/// use bitts_binder::{Cluster, Obstacle};
///
/// let volume: Volume = serde_json::from_value(serde_json::json!({
///     "metadata": {"name": "small", "uid": "v"},
///     "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
///              "local": {"path": "/data/pv"}},
///     "status": {"phase": "Available"},
/// }))?;
/// let claim: Claim = serde_json::from_value(serde_json::json!({
///     "metadata": {"name": "c", "namespace": "default", "uid": "c"},
///     "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
///              "resources": {"requests": {"storage": "3Gi"}}},
/// }))?;
/// let mut cluster = Cluster::new([Object::from(volume), claim.into()]);
/// let report = cluster.claim(&"default".into(), &"c".into()).ok_or("it is there")?;
/// assert_eq!(report.candidates[0].reason, Obstacle::TooSmall);
/// assert_eq!(report.candidates[0].details()[0].0, "holds 1Gi, 2Gi too little");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub(super) known: Known,
    pub(super) options: Options,
    pub(super) claims: Vec<Arc<Claim>>,
    pub(super) classes: Vec<Arc<StorageClass>>,
    pods: Vec<Arc<Pod>>,
    nodes: Vec<Arc<Node>>,
}

impl Cluster {
    /// A cluster of these objects.
    pub fn new(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut cluster = Self::default();
        let mut volumes = Vec::new();
        for object in objects {
            match object {
                Object::Volume(_) => volumes.push(object),
                Object::Claim(claim) => cluster.claims.push(claim),
                Object::StorageClass(class) => cluster.classes.push(class),
                Object::Pod(pod) => cluster.pods.push(pod),
                Object::Node(node) => cluster.nodes.push(node),
                Object::AttributesClass(_)
                | Object::Attachment(_)
                | Object::CsiDriver(_)
                | Object::CsiNode(_)
                | Object::StorageCapacity(_) => {}
            }
        }
        let claims = cluster.claims.iter().cloned().map(Object::Claim).collect();
        let classes = cluster.classes.iter().cloned();
        let classes = classes.map(Object::StorageClass).collect();
        let nodes = cluster.nodes.iter().cloned().map(Object::Node).collect();
        let pods = cluster.pods.iter().cloned().map(Object::Pod).collect();
        for (kind, objects) in [
            (Kind::Volume, volumes),
            (Kind::Claim, claims),
            (Kind::StorageClass, classes),
            (Kind::Pod, pods),
            (Kind::Node, nodes),
        ] {
            cluster.known.list(kind, objects, &mut Dirty::default());
        }
        let free: Vec<_> = cluster.known.offerable().cloned().collect();
        free.into_iter().for_each(|v| cluster.known.free.insert(v));
        cluster
    }

    /// The same cluster, judged as a binder with these options would.
    #[must_use]
    pub fn judged_by(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Why the claim is where it is; `None` when there is none.
    pub fn claim(&mut self, namespace: &Namespace, name: &Name) -> Option<Report> {
        let place = (Some(namespace.clone()), name.clone());
        let claim = self.known.claim(&place)?.clone();
        self.known.prepare(&claim);
        Some(claim::report(&claim, self))
    }

    /// Why the volume is where it is; `None` when there is none.
    #[must_use]
    pub fn volume(&self, name: &Name) -> Option<Report> {
        let volume = self.known.volume(name)?;
        Some(volume::report(volume, self))
    }

    pub(super) fn users(&self, claim: &Place) -> Vec<User> {
        let uses = |pod: &&Arc<Pod>| {
            pod.meta.namespace == claim.0 && pod.claims().any(|name| *name == claim.1)
        };
        self.pods
            .iter()
            .filter(uses)
            .map(|pod| User {
                name: pod.meta.name.clone(),
                node: pod.node.clone(),
                phase: pod.phase,
                holds: pod.holds(&claim.1),
            })
            .collect()
    }

    /// Whether the volume can be used on this node; a node that is not known is believed to fit.
    pub(super) fn can_use(&self, node: &NodeName, volume: &Volume) -> bool {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|known| known.meta.name.as_str() == node.as_str())
            .is_none_or(|known| known.fits(volume.node_affinity.as_ref()))
    }

    /// Whether no node satisfies the volume's node affinity; nobody can say where no node is known.
    pub(super) fn is_out_of_reach(&self, volume: &Volume) -> bool {
        !self.nodes.is_empty() && !self.known.is_reachable(volume)
    }
}

/// A class, with what it does for claims.
pub(super) fn class(class: &StorageClass) -> Class {
    let provisioner = &*class.provisioner;
    let provisions = migration::driver(provisioner).is_some() || !provisioner.starts_with(IN_TREE);
    Class {
        name: class.meta.name.as_str().into(),
        provisioner: provisioner.into(),
        binding_mode: class.binding_mode,
        is_default: class.is_default(),
        provisions: provisions && provisioner != names::NO_PROVISIONER,
    }
}
