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
/// On a node, with the value `true`: the attach controller attaches disks to it (A2).
pub const CONTROLLED_ATTACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// A node's agent says that it, and no kubelet, mounts the volumes of the pods there, with the value
/// `bitts-agent`: then cloud disks are attached to it directly, and not through the CSI driver that
/// took them over.
pub const MOUNTED_BY: &str = "bitts.dev/mounted-by";
/// The value of [`MOUNTED_BY`].
pub const BITTS_AGENT: &str = "bitts-agent";
/// A node's taint: an operator says that it is shut down and nothing runs there any more (A13.5).
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The operator says of an attachment: the node is off for good, detach whatever its last word was.
/// Any value.
pub const FORCE_DETACH: &str = "bitts.dev/force-detach";
/// On a StorageClass or a node: after how long a volume is taken from a node that is not ready and
/// does not let it go, e.g. `6m`, or `never`.
pub const FORCE_DETACH_AFTER: &str = "bitts.dev/force-detach-after";
/// On a VolumeAttachment: what the driver calls the node that it was told to attach to (A26).
pub const PUBLISHED_NODE_ID: &str = "csi.alpha.kubernetes.io/node-id";
/// The legacy form of `spec.storageClassName`; wins over the field.
pub const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Makes a class the default (value `true`).
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The legacy form of [`DEFAULT_CLASS`].
pub const BETA_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// The capacity that the claim is told while its volume is being resized (B20.4).
pub const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// The operator says of a volume that is held after a restore: its claim is gone for good, reclaim
/// it by its policy. Any value.
pub const RECLAIM: &str = "bitts.dev/reclaim";
/// A node says that its agent wipes volumes that are to be recycled. Any value.
pub const RECYCLER: &str = "bitts.dev/recycler";
/// The binder asks the agent of this node to wipe the volume; the value is the node's name.
pub const RECYCLE_ON: &str = "bitts.dev/recycle-on";
/// The agent says that the volume was wiped after the claim of this uid.
pub const RECYCLED: &str = "bitts.dev/recycled";
/// The node whose provisioner made the volume and deletes it.
pub const PROVISIONED_ON: &str = "bitts.dev/provisioned-on";
/// The provisioner says that the volume's data goes, after the claim of this uid.
pub const DELETING: &str = "bitts.dev/deleting";
/// On a volume that lies on a node: what becomes of it once that node is gone for good.
pub const NODE_GONE: &str = "bitts.dev/node-gone";
/// On such a volume: the claim that is to be made anew, as JSON, once the one that it was made for is gone.
pub const RECREATES: &str = "bitts.dev/recreates";
/// The agent says why it could not wipe the volume.
pub const RECYCLE_FAILED: &str = "bitts.dev/recycle-failed";

/// Holds a claim while a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Holds a volume while it is bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Holds a VolumeAttributesClass while a volume or claim names it.
pub const ATTRIBUTES_CLASS_PROTECTION: &str = "kubernetes.io/vac-protection";
/// Holds a volume whose data an in-tree provisioner deletes first (N5).
pub const VOLUME_CONTROLLER: &str = "kubernetes.io/pv-controller";
/// Holds a volume whose data the CSI external-provisioner deletes first (N5).
pub const EXTERNAL_PROVISIONER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// What begins the finalizer that holds an attachment and its volume until the driver has detached
/// it; the driver's name follows (A25).
pub const EXTERNAL_ATTACHER: &str = "external-attacher/";

/// The condition of a claim that tells since when no pod refers to it (X5).
pub const UNUSED: &str = "Unused";

/// Who grows the claim's volume.
pub const STORAGE_RESIZER: &str = "volume.kubernetes.io/storage-resizer";
/// The conditions of a claim that tell of a change of its size (N7).
pub const RESIZE_CONDITIONS: [&str; 3] = [
    "Resizing",
    "FileSystemResizePending",
    "ControllerResizeError",
];
/// The state of a claim whose size is being changed (N7).
pub const RESIZE_IN_PROGRESS: &str = "ControllerResizeInProgress";
/// The state of a claim whose size cannot be changed so (N7).
pub const RESIZE_INFEASIBLE: &str = "ControllerResizeInfeasible";

/// The provisioner of a class whose volumes are made by hand (N8).
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The value of the annotations that only say yes.
pub const YES: &str = "yes";
/// More mount options, separated by commas, from before there was a field (N4).
pub const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// Who an event says it is from (N9), so that what users and dashboards filter by stays the same.
pub mod source {
    /// The binder.
    pub const BINDER: &str = "persistentvolume-controller";
    /// The part that attaches volumes to nodes.
    pub const ATTACHER: &str = "attachdetach-controller";
    /// The part that has drivers attach and detach.
    pub const CSI_ATTACHER: &str = "csi-attacher";
    /// The part that grows volumes.
    pub const EXPANDER: &str = "volume_expand";
    /// The part that makes claims for ephemeral volumes.
    pub const EPHEMERAL: &str = "ephemeral_volume";
    /// The node's agent.
    pub const AGENT: &str = "kubelet";
}

/// Why an event was written (N10).
pub mod reason {
    /// No volume fits the claim and nobody makes one, or the binding was refused.
    pub const FAILED_BINDING: &str = "FailedBinding";
    /// The volume that the claim names does not fit it.
    pub const VOLUME_MISMATCH: &str = "VolumeMismatch";
    /// The claim's volume is gone.
    pub const CLAIM_LOST: &str = "ClaimLost";
    /// The claim's volume is bound to another claim.
    pub const CLAIM_MISBOUND: &str = "ClaimMisbound";
    /// The claim waits until a pod uses it.
    pub const WAIT_FOR_FIRST_CONSUMER: &str = "WaitForFirstConsumer";
    /// The claim waits until its pod gets a node.
    pub const WAIT_FOR_POD_SCHEDULED: &str = "WaitForPodScheduled";
    /// Another program was asked to make the volume.
    pub const EXTERNAL_PROVISIONING: &str = "ExternalProvisioning";
    /// The volume is being made.
    pub const PROVISIONING: &str = "Provisioning";
    /// The volume could not be made.
    pub const PROVISIONING_FAILED: &str = "ProvisioningFailed";
    /// The volume was made.
    pub const PROVISIONING_SUCCEEDED: &str = "ProvisioningSucceeded";
    /// Of a StorageClass, or a claim that no node can serve: no volumes are made, whatever is done but
    /// changing the class.
    pub const CLASS_INVALID: &str = "BittsClassInvalid";
    /// Of a StorageClass: the server that it names does not answer, or refuses.
    pub const SERVER_UNREACHABLE: &str = "BittsServerUnreachable";
    /// The data of a volume lies on a node that is not in the cluster any more.
    pub const NODE_GONE: &str = "BittsNodeGone";
    /// The reasons that the processes of many nodes tell in the same words: they share one event.
    pub const SHARED: [&str; 1] = [CLASS_INVALID];
    /// What a failed provisioning left behind could not be removed.
    pub const PROVISIONING_CLEANUP_FAILED: &str = "ProvisioningCleanupFailed";
    /// The volume's data is being deleted by another program.
    pub const VOLUME_DELETE: &str = "VolumeDelete";
    /// The volume or its data could not be deleted.
    pub const VOLUME_FAILED_DELETE: &str = "VolumeFailedDelete";
    /// The volume was wiped.
    pub const VOLUME_RECYCLED: &str = "VolumeRecycled";
    /// The volume could not be wiped.
    pub const VOLUME_FAILED_RECYCLE: &str = "VolumeFailedRecycle";
    /// The volume's reclaim policy means nothing to this version.
    pub const VOLUME_UNKNOWN_RECLAIM_POLICY: &str = "VolumeUnknownReclaimPolicy";
    /// Another program was asked to grow the volume.
    pub const EXTERNAL_EXPANDING: &str = "ExternalExpanding";
    /// The volume is being grown.
    pub const RESIZING: &str = "Resizing";
    /// The volume could not be grown.
    pub const VOLUME_RESIZE_FAILED: &str = "VolumeResizeFailed";
    /// The volume was grown.
    pub const VOLUME_RESIZE_SUCCESSFUL: &str = "VolumeResizeSuccessful";
    /// The volume could not be attached to the node.
    pub const FAILED_ATTACH_VOLUME: &str = "FailedAttachVolume";
    /// The volume was attached to the node.
    pub const SUCCESSFUL_ATTACH_VOLUME: &str = "SuccessfulAttachVolume";
    /// Of a volume: its driver has it on a node where nothing asks for it.
    pub const STILL_ATTACHED: &str = "BittsStillAttached";
    /// The volume could not be mounted for the pod.
    pub const FAILED_MOUNT: &str = "FailedMount";
    /// The device could not be given to the pod.
    pub const FAILED_MAP_VOLUME: &str = "FailedMapVolume";
    /// The device was given to the pod; mounts get no such event.
    pub const SUCCESSFUL_MOUNT_VOLUME: &str = "SuccessfulMountVolume";
    /// The device holds another file system than the volume names.
    pub const FAILED_MOUNT_ON_FILESYSTEM_MISMATCH: &str = "FailedMountOnFilesystemMismatch";
}
