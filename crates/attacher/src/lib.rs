//! The attacher: decides which volume belongs on which node.
//!
//! [`Attacher`] is the decisions, a [`Machine`](bitts_api::machine::Machine) without I/O. Pods say
//! what is wanted, VolumeAttachments and the status of nodes what is; the difference is a
//! VolumeAttachment that is made or deleted, for the driver's external-attacher to act on, and the
//! list `volumesAttached` in a node's status. With the feature `run` it runs on a cluster.
//!
//! What holds, whenever the process is killed:
//! - Nothing is kept but in the API (A6): the next one finds all of it there.
//! - A volume for one node is not asked for on a node while it may be on another, and it may be there
//!   as long as its VolumeAttachment exists (A21, mended).
//! - A volume is taken from a node in this order: no pod asks for it, the kubelet does not use it, the
//!   node's list has it no more, a live look at the node says so too, the VolumeAttachment is deleted
//!   (A13, A35). A kubelet that looks at the list meanwhile does not begin to use it.
//! - A node that is ready and uses it is never overruled. One that is not is overruled by its taint
//!   `out-of-service`, by an operator's word on the attachment, or by time where that is set; that its
//!   object was deleted is no proof that it is off.
//!
//! [`Publisher`] is the other half: it has one CSI driver attach and detach what VolumeAttachments ask
//! for, as the external-attacher does. Either works with the stock other half. [`CloudAttacher`] has a cloud
//! attach its disks directly, to nodes whose volumes a bitts agent mounts. [`AttachCluster`] tells
//! why a pod's volume is not where it is wanted.
//!
//! Not here: volumes that pods name without a claim, types that no CSI driver attaches.
//!
//! ```
//! use bitts_api::Kind;
//! use bitts_api::machine::{Input, Machine as _, Moment};
//! use bitts_attacher::{Attacher, Options};
//!
//! let mut attacher = Attacher::new(Options::default());
//! // Nothing is decided before all kinds were listed.
//! assert!(attacher.watches().iter().any(|watch| watch.kind == Kind::Attachment));
//! assert!(attacher.handle(Moment::default(), Input::Listed(Kind::Pod, Vec::new())).is_empty());
//! ```

mod attacher;
mod cloud;
mod csi_volume;
mod explain;
mod grants;
mod known;
mod node;
mod options;
mod pair;
mod publisher;
mod reason;
#[cfg(feature = "run")]
mod run;
mod unit;
mod verdict;
mod wanted;

pub use attacher::{Alarm, Attacher};
pub use cloud::{
    Attach, Because as CloudBecause, CloudAlarm, CloudAttacher, CloudOptions, Detach, Disk,
    Instance, Location, Look, Looked, Report as CloudReport, Task as CloudTask,
    Trouble as CloudTrouble, Zone,
};
#[cfg(feature = "run")]
pub use cloud::{
    Cloud, CloudConfig, CloudError, CloudMachine, ComputeEngine, DEFAULT_ENDPOINT, EndpointError,
    METADATA_HOST, run_cloud,
};
pub use explain::{
    AttachCluster, Holder, Next, Report as AttachReport, Said, State, VolumeOnNode, Wait,
};
pub use grants::{cloud_grants, csi_grants, grants};
pub use options::Options;
pub use pair::{Pair, UniqueName};
pub use publisher::{
    Because, Can, Context, Publish, Publisher, PublisherAlarm, PublisherOptions, Report, Task,
    Ticket, Trouble, Unpublish,
};
#[cfg(feature = "run")]
pub use publisher::{CsiConfig, run_csi};
#[cfg(feature = "run")]
pub use run::run;
