//! The [Container Storage Interface](https://github.com/container-storage-interface/spec), version 1:
//! its messages ([`v1`]), and a client ([`Driver`]) that calls a driver over its unix socket, each call
//! with a deadline, and says of each failure what is known of the outcome ([`Class`]).
//!
//! With the feature `testing` there is a driver, too (`testing`), which records what it is asked and
//! fails as it is told to.
//!
//! ```no_run
//! # async fn doc() -> Result<(), bitts_csi::CsiError> {
//! use std::time::Duration;
//! use bitts_csi::{Driver, v1};
//!
//! let socket = "/var/lib/kubelet/plugins/disk.example.com/csi.sock";
//! let driver = Driver::connect(socket.as_ref(), Duration::from_secs(120)).await?;
//! if driver.node_capabilities().await?.stages {
//!     let request = v1::NodeStageVolumeRequest {
//!         volume_id: "disk-1".to_owned(),
//!         staging_target_path: "/var/lib/kubelet/plugins/kubernetes.io/csi/1/globalmount".to_owned(),
//!         ..Default::default()
//!     };
//!     driver.stage(request).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod driver;
mod error;
#[cfg(feature = "testing")]
pub mod testing;

pub use driver::{ControllerCapabilities, Driver, NodeCapabilities};
pub use error::{Class, CsiError};
pub use tonic::Code;

/// The messages of the interface, as its definition has them (`proto/csi.proto`).
#[expect(
    missing_docs,
    clippy::all,
    reason = "made from the definition, which documents them"
)]
pub mod v1 {
    tonic::include_proto!("csi.v1");
}
