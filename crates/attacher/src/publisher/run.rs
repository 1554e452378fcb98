//! The publisher on a cluster, beside a driver's controller.

use std::path::PathBuf;
use std::time::Duration;

use bitts_api::names::source;
use bitts_csi::{CsiError, Driver};
use bitts_runtime::{Host, LeaseOptions, RoleOptions, RuntimeError};
use tokio::sync::Mutex;

use super::worker::CsiWorker;
use super::{Publisher, PublisherOptions, writes};

/// How many writes are under way at a time.
const WRITES_AT_ONCE: usize = 64;
/// Between two tries to find out which driver it is.
const RETRY: Duration = Duration::from_secs(2);

/// How the part that calls a CSI driver is run.
#[derive(Clone, Debug)]
pub struct CsiConfig {
    /// The driver's socket.
    pub socket: PathBuf,
    /// How long a call may take.
    pub patience: Duration,
    /// The rest.
    pub options: PublisherOptions,
    /// In this namespace is the lease, by the name that the stock external-attacher gives it: so neither
    /// two of these nor one beside a stock one with leader election call the driver. Without it
    /// there is none.
    pub lease_namespace: Option<String>,
}

/// Has the driver attach and detach until the host shuts down; begins when the driver first answers.
///
/// # Errors
/// When the lease is lost or something panicked: start again.
pub async fn run_csi(host: &Host, config: CsiConfig) -> Result<(), RuntimeError> {
    let Some(driver) = name(host, &config).await else {
        return Ok(());
    };
    let lease = config.lease_namespace.as_deref();
    let lease = lease.map(|namespace| LeaseOptions::new(namespace, &writes::lease(&driver)));
    let role = RoleOptions {
        name: "csi-attacher",
        event_source: source::CSI_ATTACHER,
        lease,
        writes_at_once: WRITES_AT_ONCE,
    };
    let worker = CsiWorker {
        driver: driver.as_str().into(),
        socket: config.socket,
        patience: config.patience,
        client: host.client().clone(),
        connection: Mutex::default(),
    };
    let machine = Publisher::new(&driver, config.options);
    bitts_runtime::run_role(host, role, machine, worker).await
}

/// The driver's name, once it answers; `None` where the host shuts down before that.
async fn name(host: &Host, config: &CsiConfig) -> Option<String> {
    loop {
        match ask(config).await {
            Ok(name) => {
                tracing::info!(driver = name, "the driver answers");
                return Some(name);
            }
            Err(error) => tracing::warn!(%error, "waiting for the driver"),
        }
        tokio::select! {
            () = host.shutdown().cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn ask(config: &CsiConfig) -> Result<String, CsiError> {
    let driver = Driver::connect(&config.socket, config.patience).await?;
    Ok(driver.info().await?.name)
}
