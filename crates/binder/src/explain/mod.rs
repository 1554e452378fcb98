//! Why things are as they are, by the binder's own decisions.
//!
//! [`Cluster`] judges objects as they are, phases and all, and says what would unblock them.
//! [`explain()`] judges manifests as if they were created now.

mod claim;
mod cluster;
mod deleting;
mod kubectl;
mod manifests;
mod mend;
mod obstacle;
mod report;
mod volume;

pub use cluster::Cluster;
pub use kubectl::Kubectl;
pub use manifests::{Candidates, Explanation, Outlook, explain};
pub use obstacle::{Group, Obstacle};
pub use report::{Class, Fact, Next, Report, State, User};
