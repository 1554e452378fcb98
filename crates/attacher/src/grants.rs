//! What the attacher asks of access control.

use bitts_api::Kind;
use bitts_api::grant::{Grant, Verb};

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
