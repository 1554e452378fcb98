//! Names that users, dashboards and other controllers know: annotations, finalizers, event reasons
//! (N4 to N10). New names start with `bitts`.

/// Set on both sides of a pair that the binder, not a user, put together (value `yes`).
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Set on a claim when binding was completed (value `yes`); only its presence counts.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The node that the scheduler chose for the claim's first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Who is asked to make a volume for the claim.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The legacy form of [`STORAGE_PROVISIONER`].
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// Who made the volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The CSI driver that took the volume's in-tree type over.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// The legacy form of `spec.storageClassName`; wins over the field.
pub const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Makes a class the default (value `true`).
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The legacy form of [`DEFAULT_CLASS`].
pub const BETA_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// The capacity that the claim is told while its volume is being resized (B20.4).
pub const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// Holds a claim while a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Holds a volume while it is bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
