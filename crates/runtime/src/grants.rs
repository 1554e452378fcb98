//! What the runtime itself asks of access control, whatever the role.

use bitts_api::grant::{Grant, Place, Verb};

/// What events take; they are written where their objects live, so everywhere.
#[must_use]
pub fn event_grants() -> Vec<Grant> {
    vec![Grant::new(
        "",
        "events",
        &[Verb::Create, Verb::Patch],
        "users are told what happened; a repetition is counted",
    )]
}

/// What competing for the lease of this name takes, in one namespace. A creation names no object
/// to access control, so that part is not limited to the name.
#[must_use]
pub fn lease_grants(name: &'static str) -> Vec<Grant> {
    let lease = |verbs, why| Grant::new("coordination.k8s.io", "leases", verbs, why).at(Place::Own);
    vec![
        lease(&[Verb::Create], "the first process of all makes the lease"),
        lease(
            &[Verb::Get, Verb::Patch],
            "one process at a time decides, and says every 2 s that it is alive",
        )
        .named(name),
    ]
}
