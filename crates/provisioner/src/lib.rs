//! The provisioner: makes a volume for each claim of its StorageClasses, and deletes it after the
//! claim.
//!
//! [`Provisioner`] is the decisions, a [`Machine`](bitts_api::machine::Machine) without I/O, for the
//! claims whose pods run on one node: their volumes are directories on the node's own disks, made by
//! the process that runs there. With the feature `run`, [`disk`] keeps the directories and `run`
//! puts it all on a cluster.
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
//! Not here yet: NFS, limits on what a volume may hold (its size is only compared with the free
//! space), expansion, clones, CSIStorageCapacity.
//!
//! ```
//! use bitts_api::Kind;
//! use bitts_api::machine::{Effect, Input, Machine as _, Moment};
//! use bitts_provisioner::{Options, Provisioner, Task};
//!
//! let mut provisioner = Provisioner::new(Options::new("node-1".into()));
//! // Whatever comes first, it asks what an earlier process left on the disks.
//! let effects = provisioner.handle(Moment::default(), Input::Listed(Kind::Claim, Vec::new()));
//! assert_eq!(effects, [Effect::Task(Task::Scan)]);
//! ```

mod claim;
mod class;
#[cfg(feature = "run")]
pub mod disk;
mod grants;
mod machine;
mod options;
mod pattern;
mod reason;
#[cfg(feature = "run")]
mod run;
mod task;
mod unit;
mod volume;

pub use class::{Access, ClassError, OnDelete, Template};
pub use grants::grants;
pub use machine::Provisioner;
pub use options::{LOCAL, Options};
pub use pattern::{OWN, Pattern, PatternError, Subpath, SubpathError};
#[cfg(feature = "run")]
pub use run::{LocalConfig, LocalWorker, run};
pub use task::{Alarm, Owner, Record, Report, Task, Trouble};
