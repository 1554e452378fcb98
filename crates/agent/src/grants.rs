//! What the agent asks of access control.

use bitts_api::Kind;
use bitts_api::grant::{Grant, Verb};

use crate::Mode;

/// What the machine's watches and writes take; events are the runtime's. Ending the objects of pods
/// (`finish_pods`) takes more: it is for nodes without a kubelet, never part of a manifest.
///
/// ```
/// use bitts_agent::{Mode, grants};
///
/// let writes = |mode| grants(mode).iter().any(|g| g.resource == "nodes/status");
/// assert!(writes(Mode::Owner) && !writes(Mode::BesideKubelet));
/// ```
#[must_use]
pub fn grants(mode: Mode) -> Vec<Grant> {
    let mut grants: Vec<Grant> = [Kind::Node, Kind::Pod, Kind::Claim, Kind::Volume]
        .into_iter()
        .map(Grant::to_watch)
        .collect();
    if mode == Mode::Owner {
        grants.extend([Kind::CsiDriver, Kind::Attachment].map(Grant::to_watch));
        grants.push(Grant::new(
            "",
            Kind::Pod.plural(),
            &[Verb::Get],
            "looked at live before its volumes are taken down",
        ));
        grants.push(Grant::new(
            "",
            "nodes/status",
            &[Verb::Patch],
            "the disks that are in use are told, so that nobody detaches them",
        ));
    }
    grants
}
