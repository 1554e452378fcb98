//! The provisioner: makes a volume for each claim of its StorageClasses, and deletes it after the
//! claim.
//!
//! [`Provisioner`] is the decisions, a [`Machine`](bitts_api::machine::Machine) without I/O. Volumes are
//! directories, and where depends on the [`Ground`]: on a node's own disks, for the claims whose pods
//! run there, made by the process on that node; or on NFS shares, for all claims, made by one process
//! of the cluster. With the feature `run`, [`disk`] keeps the directories, `share` does so on what a
//! server exports, in a child, and `run` and `run_shares` put it all on a cluster.
//!
//! [`LostNodes`] is another machine, one for the cluster: it looks after the volumes of nodes that are gone.
//!
//! What holds, whenever the process is killed:
//! - A claim has one volume or none, named `pvc-<uid of the claim>` (P12). Everything that is made is
//!   named by it, so that making it twice is making it once.
//! - What was made is found again: a record is written before the directory (`disk.rs` has the
//!   table of what a death leaves).
//! - A directory that the API never had as a volume is removed only while it is empty; one that was a
//!   volume, only after a live look at its claim and the pods, and only where its record names that
//!   claim (D10).
//!
//! - A claim that asks for more has it on the disk first, then in the volume, then itself (R5).
//! - A volume that begins as a copy is one once everything is copied.
//!
//! ```
//! use bitts_api::Kind;
//! use bitts_api::machine::{Effect, Input, Machine as _, Moment};
//! use bitts_provisioner::{Errand, Options, Provisioner, Site, Task};
//!
//! let mut provisioner = Provisioner::new(Options::new("node-1".into()));
//! // Whatever comes first, it asks what an earlier process left on the disks.
//! let effects = provisioner.handle(Moment::default(), Input::Listed(Kind::Claim, Vec::new()));
//! let scan = Errand { site: Site::Disks, task: Task::Scan };
//! assert_eq!(effects, [Effect::Task(scan)]);
//! ```

#[cfg(feature = "run")]
mod adopt;
mod claim;
mod class;
#[cfg(feature = "run")]
pub mod disk;
mod grants;
mod legacy;
mod lost;
mod machine;
#[cfg(feature = "run")]
mod operator;
mod options;
#[cfg(feature = "run")]
mod orphans;
mod pattern;
mod reason;
mod resize;
#[cfg(feature = "run")]
mod run;
#[cfg(feature = "run")]
mod share;
mod site;
mod task;
mod unit;
mod volume;

#[cfg(feature = "run")]
pub use adopt::{AdoptError, Adoption, adopt, equivalent};
pub use class::{Access, ClassError, NodeGone, OnDelete, Quota, Template};
pub use grants::grants;
#[cfg(feature = "run")]
pub use lost::run_lost;
pub use lost::{LostAlarm, LostNodes, LostOptions, lost_grants};
pub use machine::Provisioner;
#[cfg(feature = "run")]
pub use operator::{Order, Store, StoreError, Told};
pub use options::{Ground, LOCAL, NFS, Options};
#[cfg(feature = "run")]
pub use orphans::{Home, Orphan, OrphanKind, orphans};
pub use pattern::{OWN, Pattern, PatternError, Subpath, SubpathError};
#[cfg(feature = "run")]
pub use run::{LocalConfig, LocalWorker, run};
#[cfg(feature = "run")]
pub use share::{SERVICE, ShareConfig, run_shares};
pub use site::{Share, Site};
pub use task::{Alarm, CopyOf, Errand, Owner, Record, Reply, Report, Survey, Task, Trouble};
#[cfg(feature = "run")]
pub use volume::restored;
