//! Runs a role's machine on a cluster: watches, effects, events, leadership, health.
//!
//! A role is a [`Machine`](bitts_api::machine::Machine): it decides and does no I/O. [`run_role`]
//! does the rest. It keeps the machine told of the objects it watches, executes what it decides,
//! feeds back what came of it, and sees to it that only one process at a time does so. A [`Host`]
//! is what the roles of one process share.
//!
//! ```no_run
//! use std::convert::Infallible;
//!
//! use bitts_api::Kind;
//! use bitts_api::machine::{Effect, Input, Machine, Moment, Scope, Watch};
//! use bitts_runtime::{Host, NoTasks, RoleOptions, connect, ended_by_signal, run_role};
//!
//! /// Prints every volume it hears of.
//! struct Town;
//!
//! impl Machine for Town {
//!     type Task = Infallible;
//!     type Report = Infallible;
//!     type Alarm = Infallible;
//!
//!     fn watches(&self) -> Vec<Watch> {
//!         vec![Watch { kind: Kind::Volume, scope: Scope::All }]
//!     }
//!
//!     fn handle(
//!         &mut self,
//!         _: Moment,
//!         input: Input<Infallible, Infallible>,
//!     ) -> Vec<Effect<Infallible, Infallible>> {
//!         if let Input::Seen(volume) = input {
//!             println!("{}", volume.key());
//!         }
//!         Vec::new()
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let host = Host::new(connect(None).await?);
//!     let shutdown = host.shutdown().clone();
//!     tokio::spawn(async move {
//!         ended_by_signal().await;
//!         shutdown.cancel();
//!     });
//!     let options = RoleOptions {
//!         name: "town-crier",
//!         event_source: "town-crier",
//!         lease: None,
//!         writes_at_once: 1,
//!     };
//!     Ok(run_role(&host, options, Town, NoTasks).await?)
//! }
//! ```
//!
//! Where things are: `role` runs a role from start to end; `turn` is the loop that owns the machine;
//! `watch` (on `list`, `lines` and `discovery`) brings inputs in, with `resync` below it; `execute` and `destroy` (on `caller` and `api`)
//! carry effects out, `events` those for users; `lease` and `gate` decide whether they may; `health`,
//! `metrics`, `measures`, `binding` and `admin` tell how it goes.

mod admin;
mod api;
mod backoff;
mod binding;
mod caller;
mod connect;
mod connection;
mod create;
mod destroy;
mod discovery;
mod events;
mod execute;
mod follow;
mod gate;
mod grants;
mod health;
mod host;
mod inflight;
mod lease;
mod lines;
mod list;
mod logging;
mod measures;
mod metrics;
mod options;
mod resting;
mod resync;
mod role;
mod signals;
mod turn;
mod users;
mod watch;

pub use admin::serve_admin;
pub use connect::{ConnectError, connect, connect_shared};
pub use grants::{event_grants, lease_grants};
pub use host::{Host, Timing};
pub use logging::{LogFormat, LoggingError, init_logging};
pub use options::{LeaseOptions, NoTasks, RoleOptions, Worker};
pub use role::{RuntimeError, run_role};
pub use signals::ended_by_signal;
