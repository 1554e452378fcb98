//! The same tests on two Kubernetes APIs: [`bitts_apiserver`] in this process, and a real
//! kube-apiserver with etcd as processes of their own.
//!
//! - [`cluster`]: an API of either kind, and what a test gets of it: a client, a namespace, names.
//! - [`programs`], [`real`], [`process`]: where the real programs come from and how they run.
//! - [`go`]: programs of others that are built with Go.
//! - [`compute`]: a Compute Engine API with machines and disks.
//! - [`control_plane`]: kube-controller-manager, kube-scheduler and the bitts binary beside an API.
//! - [`outage`]: an API that is killed and comes back, or forgets its history.
//! - [`tripwire`]: a client that does something else just before or after a certain request.
//! - [`throttle`]: a client that is turned away at first, as by a server under load.
//! - [`audit`]: what a real API server was asked for.
//! - [`raw`]: requests and answers as they go over the wire, watches included.
//! - [`records`]: what a provisioner keeps beside its volumes.
//! - [`transcript`]: request files, and the answers of the real API that both must give.
//! - [`uml`]: tests in a Linux of their own, with real NFS servers.
//! - [`suite`]: every test as two named trials, `embedded::...` and `real::...`.
//!
//! ```no_run
//! use bitts_e2e::{cluster::Scope, suite::Suite};
//!
//! async fn a_namespace_is_there(api: Scope) -> anyhow::Result<()> {
//!     let found = api.get(&format!("/api/v1/namespaces/{}", api.namespace())).await?;
//!     anyhow::ensure!(found.status == 200, "{found}");
//!     Ok(())
//! }
//!
//! let mut suite = Suite::default();
//! bitts_e2e::on_both!(suite, "namespaces", a_namespace_is_there);
//! suite.run();
//! ```

pub mod audit;
pub mod cluster;
pub mod compute;
pub mod control_plane;
pub mod go;
mod intercept;
pub mod outage;
pub mod process;
pub mod programs;
pub mod raw;
pub mod real;
pub mod records;
pub mod suite;
pub mod throttle;
pub mod transcript;
pub mod tripwire;
pub mod uml;
