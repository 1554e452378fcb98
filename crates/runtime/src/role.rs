//! Runs one role from start to end.

use bitts_api::machine::Machine;

use crate::gate::Gate;
use crate::health::Stage;
use crate::lease::Candidate;
use crate::metrics::OfRole;
use crate::turn;
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

/// Runs a role until the host shuts down: waits for the lease if there is one, watches what the
/// machine wants to know, executes what it decides, and at the end finishes what is under way and
/// gives the lease back.
///
/// # Errors
/// When the lease is lost, or something panicked. The role is over then; the machine's successor
/// finds out from the objects what was done.
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
    let _ended = Ended {
        host,
        role: options.name,
    };
    let Some(lease) = options.lease.clone() else {
        set_leading(host, options.name, true);
        return turn::run(host, &options, Gate::default(), machine, worker).await;
    };
    host.health().set_stage(options.name, Stage::Standby);
    set_leading(host, options.name, false);
    let name = lease.to_string();
    tracing::info!(
        role = options.name,
        lease = name,
        identity = lease.identity,
        "waiting for the lease"
    );
    let candidate = Candidate::new(host.clone(), lease);
    let Some(mut leader) = candidate.acquire(host.shutdown()).await else {
        return Ok(());
    };
    tracing::info!(role = options.name, lease = name, "got the lease");
    set_leading(host, options.name, true);
    let gate = leader.gate();
    let result = tokio::select! {
        biased;
        // Whatever is under way is dropped with the other branch.
        reason = leader.keep() => Err(RuntimeError::LeaseLost { lease: name, reason }),
        result = turn::run(host, &options, gate, machine, worker) => result,
    };
    if !matches!(result, Err(RuntimeError::LeaseLost { .. })) {
        leader.release().await;
    }
    result
}

fn set_leading(host: &Host, role: &'static str, leading: bool) {
    let of = OfRole { role };
    host.metrics()
        .leading
        .get_or_create(&of)
        .set(leading.into());
}

/// Notes that a role is over, however that comes about.
struct Ended<'a> {
    host: &'a Host,
    role: &'static str,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.host.health().set_stage(self.role, Stage::Ended);
        set_leading(self.host, self.role, false);
    }
}
