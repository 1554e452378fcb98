//! What the provisioner asks of access control.

use bitts_api::Kind;
use bitts_api::grant::{Grant, Verb};

use crate::options::{Ground, Options};

/// What the machine's watches, looks and writes take; events and a lease are the runtime's.
///
/// ```
/// let grants = bitts_provisioner::grants(&bitts_provisioner::Options::of_shares());
/// assert!(grants.iter().any(|g| g.resource == "persistentvolumes"));
/// assert!(grants.iter().all(|g| g.resource != "secrets"));
/// ```
#[must_use]
pub fn grants(options: &Options) -> Vec<Grant> {
    let on = |kind: Kind, verbs, why| Grant::new(kind.group(), kind.plural(), verbs, why);
    let mut grants: Vec<Grant> = crate::machine::kinds(options)
        .map(Grant::to_watch)
        .collect();
    grants.extend([
        on(
            Kind::Volume,
            &[Verb::Get, Verb::Create, Verb::Patch, Verb::Delete],
            "made for claims and deleted after them (P12, D10)",
        ),
        match options.ground {
            Ground::Node(_) => on(
                Kind::Claim,
                &[Verb::Get, Verb::Patch],
                "looked at live before data goes (D10), given back to the scheduler where the node \
                 has no room (P12)",
            ),
            Ground::Shares => on(
                Kind::Claim,
                &[Verb::Get],
                "looked at live before data goes (D10)",
            ),
        },
        Grant::new(
            Kind::Claim.group(),
            "persistentvolumeclaims/status",
            &[Verb::Patch],
            "tells how far the growth of a claim is (R5)",
        ),
        on(
            Kind::Pod,
            &[Verb::List],
            "looked at live before data goes: none may still use the claim (D10)",
        ),
    ]);
    if let Ground::Node(_) = options.ground {
        let told = on(
            Kind::StorageCapacity,
            &[
                Verb::Get,
                Verb::List,
                Verb::Watch,
                Verb::Create,
                Verb::Patch,
                Verb::Delete,
            ],
            "tell the scheduler what the node has room for (S7)",
        );
        let class = on(
            Kind::StorageClass,
            &[Verb::Get],
            "looked at live before what was told of a class goes",
        );
        grants.extend([told.at(bitts_api::grant::Place::Own), class]);
    }
    grants
}
