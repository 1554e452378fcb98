//! Why a volume is not on the node that it is wanted on: told by the decisions of the machine about the
//! objects of a cluster as they are. No I/O.

mod direct;
mod report;
mod way;

use std::collections::BTreeMap;

use bitts_api::machine::{Input, Machine as _, Moment};
use bitts_api::{Kind, Name, Object, ObjectKey, Pod};

use crate::attacher::Attacher;
use crate::known::KINDS;
use crate::options::Options;
use crate::pair::Pair;

pub use report::{Holder, Next, Report, Said, State, VolumeOnNode, Wait};

/// Objects of a cluster as they are now. What was not handed in counts as not there: for a pod that is
/// the pod, its claims and their volumes, the pods of its namespace, all VolumeAttachments, CSIDrivers
/// and nodes; for an attachment the same of those that use its volume.
///
/// ```
/// use bitts_api::{Object, Pod};
/// use bitts_attacher::{AttachCluster, Wait};
///
/// let pod: Pod = serde_json::from_value(serde_json::json!({
///     "metadata": {"name": "web", "namespace": "shop", "uid": "p"},
///     "spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]},
/// }))?;
/// let cluster = AttachCluster::new([Object::from(pod.clone())]);
/// assert_eq!(cluster.pod(&pod).waiting_for, Some(Wait::Scheduler));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AttachCluster {
    attacher: Attacher,
}

impl AttachCluster {
    /// A cluster of these objects.
    pub fn new(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut by_kind: BTreeMap<Kind, Vec<Object>> = BTreeMap::new();
        for object in objects {
            by_kind.entry(object.kind()).or_default().push(object);
        }
        let mut attacher = Attacher::new(Options::default());
        for kind in KINDS {
            let listed = by_kind.remove(&kind).unwrap_or_default();
            // What it would do now is what it waits for: nothing is done here.
            let _undone = attacher.handle(Moment::default(), Input::Listed(kind, listed));
        }
        Self { attacher }
    }

    /// Where a pod's volumes are, and what they wait for.
    #[must_use]
    pub fn pod(&self, pod: &Pod) -> Report {
        let key = ObjectKey {
            kind: Kind::Pod,
            namespace: pod.meta.namespace.clone(),
            name: pod.meta.name.clone(),
        };
        if pod.is_terminated() {
            return Report::new(key, State::Ended);
        }
        if pod.node.is_none() {
            let next = Next {
                code: "check-scheduler",
                text: "Wait for the scheduler; the pod's events say why it has no node yet."
                    .to_owned(),
                command: Some(format!(
                    "kubectl -n {} describe pod {}",
                    pod.meta.namespace.as_ref().map_or("", |n| n.as_str()),
                    pod.meta.name
                )),
            };
            return Report::new(key, State::Waiting).waits(Wait::Scheduler, next);
        }
        let volumes = pod
            .claims()
            .filter_map(|claim| self.attacher.volume_of(pod, claim));
        Report::of_volumes(key, volumes.collect())
    }

    /// Where an attachment stands; `None` where it does not exist.
    #[must_use]
    pub fn attachment(&self, name: &Name) -> Option<Report> {
        let key = ObjectKey::attachment(name.clone());
        Some(Report::of_attachment(
            key,
            self.attacher.attachment_of(name)?,
        ))
    }

    /// The pair that an attachment is of, where its volume is known.
    #[must_use]
    pub fn pair(&self, name: &Name) -> Option<&Pair> {
        self.attacher.named(name)
    }
}
