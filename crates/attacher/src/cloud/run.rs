//! The cloud's part on a cluster.

use bitts_api::names::source;
use bitts_runtime::{Host, LeaseOptions, RoleOptions, RuntimeError};

use super::worker::{Cloud, CloudWorker};
use super::{CloudAttacher, CloudOptions};

/// How many writes are under way at a time.
const WRITES_AT_ONCE: usize = 64;

/// How the part that calls a cloud is run.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// What is decided how.
    pub options: CloudOptions,
    /// With a lease, only one process at a time calls the cloud. Two would take disks from each other.
    pub lease: Option<LeaseOptions>,
}

/// Has a cloud attach and detach until the host shuts down.
///
/// # Errors
/// When the lease is lost or something panicked: start again.
pub async fn run_cloud(
    host: &Host,
    config: CloudConfig,
    cloud: impl Cloud,
) -> Result<(), RuntimeError> {
    let role = RoleOptions {
        name: "cloud-attacher",
        event_source: source::ATTACHER,
        lease: config.lease,
        writes_at_once: WRITES_AT_ONCE,
    };
    let worker = CloudWorker {
        cloud,
        client: host.client().clone(),
    };
    let machine = CloudAttacher::new(config.options);
    bitts_runtime::run_role(host, role, machine, worker).await
}
