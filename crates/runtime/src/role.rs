//! Runs one role from start to end.

use bitts_api::machine::Machine;

use crate::{Host, RoleOptions, Worker};

/// Why a role ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Another process may run the role by now.
    #[error(
        "the lease {lease} was lost: {reason}. Everything under way was stopped; start again to \
         compete for it"
    )]
    LeaseLost {
        /// Its namespace and name.
        lease: String,
        /// How.
        reason: String,
    },
    /// A bug: something panicked. What the machine knows may be wrong, so the role must start anew.
    #[error("{what} panicked: this is a bug in bitts; the role has to be started again")]
    Panicked {
        /// Which part.
        what: &'static str,
    },
}

/// Runs a role until the host shuts down.
///
/// # Errors
/// When the lease is lost, or something panicked.
pub async fn run_role<M, W>(
    host: &Host,
    options: RoleOptions,
    machine: M,
    worker: W,
) -> Result<(), RuntimeError>
where
    M: Machine<Task = W::Task, Report = W::Report> + Send + 'static,
    M::Alarm: Send + 'static,
    W: Worker,
{
    let _ = (options, machine, worker);
    host.shutdown().cancelled().await;
    Ok(())
}
