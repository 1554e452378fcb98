use bitts_runtime::{Host, LeaseOptions, NoTasks, RoleOptions, RuntimeError, run_role};

use super::{LostNodes, LostOptions};

/// How many writes are under way at a time: nobody waits for them.
const WRITES_AT_ONCE: usize = 4;

/// Looks after the volumes of nodes that are gone, until the host shuts down.
///
/// # Errors
/// When something panicked: start again.
pub async fn run_lost(
    host: &Host,
    options: LostOptions,
    lease: Option<LeaseOptions>,
) -> Result<(), RuntimeError> {
    let role = RoleOptions {
        name: "lost-nodes",
        event_source: "bitts-lost-nodes",
        lease,
        writes_at_once: WRITES_AT_ONCE,
    };
    run_role(host, role, LostNodes::new(options), NoTasks).await
}
