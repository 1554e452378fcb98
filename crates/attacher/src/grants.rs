//! What the attacher asks of access control.

use bitts_api::Kind;
use bitts_api::grant::{Grant, Place, Verb};

/// What the machine's watches, looks and writes take; events are the runtime's.
///
/// ```
/// let grants = bitts_attacher::grants();
/// assert!(grants.iter().any(|g| g.resource == "volumeattachments"));
/// assert!(grants.iter().all(|g| g.resource != "secrets"));
/// ```
#[must_use]
pub fn grants() -> Vec<Grant> {
    let on = |kind: Kind, resource, verbs, why| Grant::new(kind.group(), resource, verbs, why);
    let mut grants: Vec<Grant> = crate::known::KINDS
        .into_iter()
        .map(Grant::to_watch)
        .collect();
    grants.extend([
        on(
            Kind::Attachment,
            Kind::Attachment.plural(),
            &[Verb::Get, Verb::Create, Verb::Delete],
            "made to attach and deleted to detach (A24, A25)",
        ),
        on(
            Kind::Node,
            Kind::Node.plural(),
            &[Verb::Get],
            "looked at live before a volume is taken away (A13.8)",
        ),
        on(
            Kind::Node,
            "nodes/status",
            &[Verb::Patch],
            "lists what is attached (A17, A35)",
        ),
    ]);
    grants
}

/// What having a cloud attach its disks takes on the API; what it takes there is the cloud's to grant.
///
/// ```
/// let grants = bitts_attacher::cloud_grants();
/// assert!(grants.iter().all(|g| g.resource != "secrets"));
/// ```
#[must_use]
pub fn cloud_grants() -> Vec<Grant> {
    let watches = crate::known::KINDS.into_iter().map(Grant::to_watch);
    let node = |resource, verbs, why| Grant::new(Kind::Node.group(), resource, verbs, why);
    let looks = node(
        Kind::Node.plural(),
        &[Verb::Get],
        "looked at live before a disk is taken away (A13.8)",
    );
    let lists = node(
        "nodes/status",
        &[Verb::Patch],
        "lists what is attached (A17, A35)",
    );
    watches.chain([looks, lists]).collect()
}

/// What having a driver attach takes, beside the driver's controller. Secrets are read only where a
/// volume names one.
///
/// ```
/// let grants = bitts_attacher::csi_grants();
/// assert!(grants.iter().all(|g| g.resource != "pods"));
/// ```
#[must_use]
pub fn csi_grants() -> Vec<Grant> {
    let on = |kind: Kind, resource, verbs, why| Grant::new(kind.group(), resource, verbs, why);
    let mut grants: Vec<Grant> = crate::publisher::KINDS
        .into_iter()
        .map(Grant::to_watch)
        .collect();
    grants.extend([
        on(
            Kind::Attachment,
            Kind::Attachment.plural(),
            &[Verb::Get, Verb::Patch],
            "held while the driver may have it attached (A25)",
        ),
        on(
            Kind::Attachment,
            "volumeattachments/status",
            &[Verb::Patch],
            "tells what the driver said (A26)",
        ),
        on(
            Kind::Volume,
            Kind::Volume.plural(),
            &[Verb::Get, Verb::Patch],
            "held while it is attached (A25)",
        ),
        on(
            Kind::CsiNode,
            Kind::CsiNode.plural(),
            &[Verb::Get],
            "looked at live before a volume is taken from a node's earlier name",
        ),
        Grant::new(
            "",
            "secrets",
            &[Verb::Get],
            "what a volume's controllerPublishSecretRef names is given to the driver",
        ),
    ]);
    // The lease has the driver's name in its own.
    grants.push(
        Grant::new(
            "coordination.k8s.io",
            "leases",
            &[Verb::Create, Verb::Get, Verb::Patch],
            "one process at a time calls the driver, and says every 2 s that it is alive",
        )
        .at(Place::Own),
    );
    grants
}
