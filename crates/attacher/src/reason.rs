//! The words in which pods are told (A16, A20), and what would help.

use bitts_api::machine::{Event, Severity};
use bitts_api::names::reason;
use bitts_api::{Kind, Name, ObjectKey, Pod};

use crate::pair::Pair;

fn event(pod: &Pod, severity: Severity, reason: &'static str, message: String) -> Event {
    Event {
        about: ObjectKey {
            kind: Kind::Pod,
            namespace: pod.meta.namespace.clone(),
            name: pod.meta.name.clone(),
        },
        uid: pod.meta.uid.clone(),
        severity,
        reason,
        message,
        source: None,
    }
}

pub(crate) fn attached(pod: &Pod, volume: &Name) -> Event {
    let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
    event(
        pod,
        Severity::Normal,
        reason::SUCCESSFUL_ATTACH_VOLUME,
        message,
    )
}

pub(crate) fn failed(pod: &Pod, message: String) -> Event {
    event(
        pod,
        Severity::Warning,
        reason::FAILED_ATTACH_VOLUME,
        message,
    )
}

pub(crate) fn not_attached(volume: &Name, why: &str) -> String {
    format!("AttachVolume.Attach failed for volume \"{volume}\" : {why}")
}

pub(crate) fn timed_out(pair: &Pair) -> String {
    let (driver, handle) = pair.volume.csi().unwrap_or_default();
    format!(
        "timed out waiting for external-attacher of {driver} CSI driver to attach volume {handle}; \
         see whether the driver's controller runs"
    )
}

pub(crate) fn still_detaching(pair: &Pair, error: Option<&str>) -> String {
    let attachment = pair.attachment();
    match error {
        Some(error) => format!("it has to be detached first, and that fails: {error}"),
        None => format!(
            "VolumeAttachment {attachment} is being deleted; the driver has not detached it yet"
        ),
    }
}

/// Whoever has the volume that another pod waits for.
pub(crate) struct Holder<'a> {
    pub(crate) pair: &'a Pair,
    pub(crate) state: Hold<'a>,
}

/// Why a volume is still on a node.
pub(crate) enum Hold<'a> {
    /// Pods there use it.
    Pods,
    /// The kubelet there does.
    Kubelet,
    /// The node is not ready and does not let go.
    Down,
    /// The node is gone and was not heard to let go.
    Gone,
    /// The driver is at it; and what it last said.
    Driver(Option<&'a str>),
}

impl Holder<'_> {
    pub(crate) fn hint(&self) -> String {
        let node = &self.pair.node;
        match self.state {
            Hold::Pods => {
                format!("It is on node {node}, until the pods there that use it have ended")
            }
            Hold::Kubelet => {
                format!("Node {node} is well and still uses it, until it has unmounted it")
            }
            Hold::Down => format!(
                "Node {node} is not ready and does not let go of it. If the machine is off: kubectl \
                 taint nodes {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
            ),
            Hold::Gone => format!(
                "Node {node} was deleted while it used it. If the machine is off: kubectl annotate \
                 volumeattachment {} bitts.dev/force-detach=yes",
                self.pair.attachment()
            ),
            Hold::Driver(None) => format!("Its driver is to detach it from node {node}"),
            Hold::Driver(Some(error)) => {
                format!("Its driver fails to detach it from node {node}: {error}")
            }
        }
    }
}

/// A20: `users` are the pods that ask for it on other nodes; names of other namespaces are not told.
pub(crate) fn elsewhere(pod: &Pod, volume: &Name, users: &[&Pod], hint: &str) -> String {
    let (near, far): (Vec<&&Pod>, Vec<&&Pod>) = users
        .iter()
        .partition(|user| user.meta.namespace == pod.meta.namespace);
    let near: Vec<&str> = near.iter().map(|pod| pod.meta.name.as_str()).collect();
    let why = match (&near[..], far.len()) {
        ([], 0) => {
            "Volume is already exclusively attached to one node, waiting on detach before it \
                    can be attached to another node"
                .to_owned()
        }
        ([], n) => format!("Volume is already used by {n} pod(s) in different namespaces"),
        (near, 0) => format!("Volume is already used by pod(s) {}", near.join(", ")),
        (near, n) => format!(
            "Volume is already used by pod(s) {} and {n} pod(s) in different namespaces",
            near.join(", ")
        ),
    };
    format!("Waiting for detach for volume \"{volume}\" {why}. {hint}")
}
