//! The binder on a cluster.

use bitts_runtime::{Host, LeaseOptions, NoTasks, RoleOptions, RuntimeError};

use crate::{Binder, Options};

/// How many writes are under way at a time. The API server takes them concurrently; more than this
/// makes other clients wait without making the binder faster.
const WRITES_AT_ONCE: usize = 64;

/// Runs the binder until the host shuts down; with a lease, only while it is held.
///
/// # Errors
/// When the lease is lost or something panicked: start again.
pub async fn run(
    host: &Host,
    options: Options,
    lease: Option<LeaseOptions>,
) -> Result<(), RuntimeError> {
    let role = RoleOptions {
        name: "binder",
        event_source: "persistentvolume-controller",
        lease,
        writes_at_once: WRITES_AT_ONCE,
    };
    bitts_runtime::run_role(host, role, Binder::new(options), NoTasks).await
}
