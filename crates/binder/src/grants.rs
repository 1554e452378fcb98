//! What the binder asks of access control, and whose place it takes.

use bitts_api::grant::{Grant, Verb};
use bitts_api::machine::Machine as _;
use bitts_api::{Kind, StockController};

use crate::{Binder, Options};

/// What the machine's watches, looks and writes take, each once; events and the lease are the
/// runtime's.
///
/// ```
/// let grants = bitts_binder::grants();
/// assert!(grants.iter().any(|g| g.resource == "persistentvolumes/status"));
/// assert!(grants.iter().all(|g| g.resource != "secrets"));
/// ```
#[must_use]
pub fn grants() -> Vec<Grant> {
    let on = |kind: Kind, verbs, why| Grant::new(kind.group(), kind.plural(), verbs, why);
    let part = |resource, verbs, why| Grant::new("", resource, verbs, why);
    let watches = Binder::new(Options::default()).watches();
    let watched = watches.iter().map(|watch| Grant::to_watch(watch.kind));
    let mut grants: Vec<Grant> = watched.collect();
    grants.extend([
        on(
            Kind::Volume,
            &[Verb::Get, Verb::Patch, Verb::Delete],
            "looked at live before data may go (B24), reserved for claims (B20), protected (X7), \
             deleted once a provisioned volume's storage is gone",
        ),
        part(
            "persistentvolumes/status",
            &[Verb::Patch],
            "phases (B21, B24)",
        ),
        on(
            Kind::Claim,
            &[Verb::Get, Verb::Create, Verb::Patch],
            "looked at live before data may go (B24), bound (B20), protected (X2), made for \
             ephemeral volumes (X9)",
        ),
        part(
            "persistentvolumeclaims/status",
            &[Verb::Patch],
            "phases (B20) and the condition Unused (X5)",
        ),
        on(
            Kind::StorageClass,
            &[Verb::Get],
            "looked at live before a claim of a class that is not known is bound (B9)",
        ),
        // A claim that blocks the deletion of its pod may be made only by those who may set the
        // pod's finalizers (the admission plugin OwnerReferencesPermissionEnforcement).
        part(
            "pods/finalizers",
            &[Verb::Update],
            "claims of ephemeral volumes block the deletion of their pods (X9)",
        ),
        on(
            Kind::AttributesClass,
            &[Verb::Get, Verb::Patch],
            "protected while something uses them (X8)",
        ),
    ]);
    grants
}

/// The stock controllers whose work the binder does: they must be off (N1).
#[must_use]
pub const fn stands_in_for() -> &'static [StockController] {
    &[
        StockController::Binder,
        StockController::ClaimProtection,
        StockController::VolumeProtection,
        StockController::Ephemeral,
        StockController::AttributesClassProtection,
    ]
}
