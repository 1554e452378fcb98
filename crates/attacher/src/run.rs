//! The attacher on a cluster.

use bitts_api::names::source;
use bitts_runtime::{Host, LeaseOptions, NoTasks, RoleOptions, RuntimeError};

use crate::{Attacher, Options};

/// How many writes are under way at a time.
const WRITES_AT_ONCE: usize = 64;

/// Runs the attacher until the host shuts down; with a lease, only while it is held. Two of them, or
/// one beside the stock controller, would fight over what nodes list (A35).
///
/// # Errors
/// When the lease is lost or something panicked: start again.
pub async fn run(
    host: &Host,
    options: Options,
    lease: Option<LeaseOptions>,
) -> Result<(), RuntimeError> {
    let role = RoleOptions {
        name: "attacher",
        event_source: source::ATTACHER,
        lease,
        writes_at_once: WRITES_AT_ONCE,
    };
    bitts_runtime::run_role(host, role, Attacher::new(options), NoTasks).await
}
