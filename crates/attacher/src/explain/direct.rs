//! What is told of a disk that a cloud attaches to an agent's node: there is no VolumeAttachment, so all that
//! shows is what nodes say (`cloud`).

use bitts_api::{Node, ObjectKey, Pod};

use super::report::{Next, VolumeOnNode, Wait};
use crate::known::Known;

/// Where a disk is that a pod asks for on a node.
pub(super) fn fill(told: &mut VolumeOnNode, known: &Known, pod: &Pod, node: &Node, disk: &str) {
    let unique = format!("kubernetes.io/gce-pd/{disk}");
    let name = &node.meta.name;
    let uses = |node: &Node| {
        node.volumes_in_use
            .iter()
            .any(|used| used.as_str() == &*unique)
    };
    told.disk = Some(("Compute Engine".into(), disk.into()));
    told.pods = vec![pod.meta.name.to_string()];
    told.is_listed = node.lists(&unique);
    told.is_attached = told.is_listed;
    told.is_in_use = uses(node);
    let mut others = known.nodes.iter().filter(|other| other.meta.name != *name);
    let other = others.find(|other| other.lists(&unique));
    let next = |code, text: String, command: Option<String>| Next {
        code,
        text,
        command,
    };
    let events = || {
        let key = ObjectKey {
            kind: bitts_api::Kind::Pod,
            namespace: pod.meta.namespace.clone(),
            name: pod.meta.name.clone(),
        };
        let namespace = key.namespace.as_ref().map_or("", |n| n.as_str());
        format!("kubectl events -n {namespace} --for pod/{}", key.name)
    };
    (told.wait, told.text, told.next) = match other {
        _ if told.is_listed => (
            None,
            format!("it is attached to node {name}, by its cloud"),
            None,
        ),
        Some(other) => (
            Some(Wait::OtherNode),
            format!("node {} lists it as attached", other.meta.name),
            Some(next(
                "end-pods",
                "End the pods that use it there; the pod's events say what holds it.".to_owned(),
                Some(events()),
            )),
        ),
        None if !told.is_in_use => (
            Some(Wait::Kubelet),
            format!("the agent of node {name} has yet to ask for it in the node's status"),
            Some(next(
                "check-agent",
                format!(
                    "See whether the agent of node {name} runs. If a kubelet mounts there by now, take the \
                     node's mark away."
                ),
                Some(format!("kubectl annotate node {name} bitts.dev/mounted-by-")),
            )),
        ),
        None => (
            Some(Wait::Attacher),
            format!("the cloud is to attach it to node {name}"),
            Some(next(
                "check-cloud-attacher",
                "See whether bitts run --roles cloud-attacher runs. What the cloud last said is in the \
                 pod's events."
                    .to_owned(),
                Some(events()),
            )),
        ),
    };
}
