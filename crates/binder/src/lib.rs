//! The binder: which claim gets which volume, what phase each of them is in, and what becomes of a
//! volume whose claim is gone.
//!
//! [`Binder`] is a [`Machine`](bitts_api::machine::Machine): it is told what the API server holds
//! and answers with writes, each a patch with its precondition. Whoever drives it executes them and
//! tells it what came of each. With the feature `run` (on by default) that is `run`, which drives
//! it on a cluster; without it this crate knows neither Kubernetes' client nor async.
//!
//! ```
//! use bitts_api::machine::{Effect, Input, Machine, Moment};
//! use bitts_api::{Claim, Kind, Volume};
//! use bitts_binder::{Binder, Options};
//!
//! let volume: Volume = serde_json::from_value(serde_json::json!({
//!     "metadata": {"name": "cqh", "uid": "v-1", "resourceVersion": "7",
//!                  "finalizers": ["kubernetes.io/pv-protection"]},
//!     "spec": {"capacity": {"storage": "100Mi"}, "accessModes": ["ReadWriteMany"],
//!              "local": {"path": "/data/pv"}},
//!     "status": {"phase": "Available"},
//! }))?;
//! let claim: Claim = serde_json::from_value(serde_json::json!({
//!     "metadata": {"name": "cqh", "namespace": "default", "uid": "c-1", "resourceVersion": "8",
//!                  "finalizers": ["kubernetes.io/pvc-protection"]},
//!     "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "",
//!              "resources": {"requests": {"storage": "100Mi"}}},
//! }))?;
//!
//! let mut binder = Binder::new(Options::default());
//! let now = Moment::default();
//! let mut effects = Vec::new();
//! // Nothing is decided until every kind was listed.
//! for kind in [Kind::StorageClass, Kind::Pod, Kind::Node] {
//!     effects.extend(binder.handle(now, Input::Listed(kind, vec![])));
//! }
//! effects.extend(binder.handle(now, Input::Listed(Kind::Volume, vec![volume.into()])));
//! effects.extend(binder.handle(now, Input::Listed(Kind::Claim, vec![claim.into()])));
//!
//! let [Effect::Write(first)] = &effects[..] else {
//!     panic!("{effects:?}");
//! };
//! assert_eq!(first.step, "reserve-volume");
//! assert_eq!(first.patch["spec"]["claimRef"]["uid"], "c-1");
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! To ask which claim would get which volume, and why not the others, without a cluster, there is
//! [`explain()`]; `examples/which_volume.rs` does so for manifests.
//!
//! # How it decides
//!
//! One input changes what is known (`known.rs`) and marks what has to be decided again. Deciding
//! is pure: for a claim in `claim.rs`, for a volume in `volume.rs`; the free volume that fits a
//! claim best is looked up in `matching.rs`, and the claim that a free volume serves in
//! `waiting.rs`. What a decision asks for is sent unless a write for the same object is in flight
//! (`flights.rs`); then it is decided again when that write came back. Finalizers come first, but
//! one that the API refuses keeps nothing else waiting.
//!
//! What can be set is in `options.rs`, along with every way in which things end differently than
//! under kube-controller-manager.
//!
//! What is counted for whoever watches over it is in `census.rs` and `operations.rs`.
//!
//! Not here: making volumes, and wiping them (`recycle.rs` says how an agent is asked to).

mod attributes_class;
mod bind;
mod binder;
mod census;
mod claim;
mod ephemeral;
mod explain;
mod flights;
mod grants;
mod hush;
mod known;
mod looks;
mod matching;
mod migration;
mod operations;
mod options;
mod orders;
mod protection;
mod reason;
mod reclaim;
mod recycle;
mod rests;
#[cfg(feature = "run")]
mod run;
mod told;
mod unused;
mod volume;
mod waiting;
mod writes;

pub use binder::{Binder, Retry};
pub use explain::{
    Candidates, Class, Cluster, Explanation, Fact, Group, Kubectl, Next, Obstacle, Outlook, Report,
    State, User, explain,
};
pub use grants::{grants, stands_in_for};
pub use matching::misfit;
pub use options::{Difference, Differences, Options, Recycle};
pub use reason::{Loss, Misfit, Notice, Waiting};
pub use reclaim::{Failure, Reclaim, reclaim};
#[cfg(feature = "run")]
pub use run::run;
