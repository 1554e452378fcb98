//! Runs a role's machine on a cluster: watches, effects, events, leadership, health.

mod admin;
mod api;
mod backoff;
mod connect;
mod destroy;
mod events;
mod execute;
mod health;
mod host;
mod inflight;
mod lease;
mod lines;
mod list;
mod logging;
mod metrics;
mod options;
mod role;
mod signals;
mod turn;
mod watch;

pub use admin::serve_admin;
pub use connect::{ConnectError, connect};
pub use host::{Host, Timing};
pub use logging::{LogFormat, LoggingError, init_logging};
pub use options::{LeaseOptions, NoTasks, RoleOptions, Worker};
pub use role::{RuntimeError, run_role};
pub use signals::ended_by_signal;
