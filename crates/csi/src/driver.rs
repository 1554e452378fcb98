//! Calls to a driver.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::error::CsiError;
use crate::v1::identity_client::IdentityClient;
use crate::v1::node_client::NodeClient;
use crate::v1::node_service_capability::Type;
use crate::v1::node_service_capability::rpc::Type as Rpc;
use crate::v1::{self};

/// A connection to a driver. When it broke all calls fail: whoever listens then may be another driver,
/// and is connected to anew.
#[derive(Clone, Debug)]
pub struct Driver {
    channel: Channel,
    ended: Arc<AtomicBool>,
    patience: Duration,
}

/// What a driver's node plugin can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCapabilities {
    /// Volumes are staged once for all pods before they are published.
    pub stages: bool,
    /// How full a volume is.
    pub stats: bool,
    /// Volumes grow.
    pub expands: bool,
    /// A pod's group is given to the driver, which sees to the files itself.
    pub mounts_for_group: bool,
    /// It tells a single pod from a single node.
    pub one_writer: bool,
}

/// Calls one method of a service: within the deadline, and with an error that says which.
macro_rules! call {
    ($self:ident, $client:ident . $method:ident ( $request:expr ), $name:expr) => {{
        let mut client = $client::new($self.channel.clone());
        $self.within($name, client.$method($request)).await
    }};
}

mod controller;
mod stream;

pub use controller::ControllerCapabilities;

impl Driver {
    /// Connects to the driver at this socket. `patience` is how long each call may take.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(socket: &Path, patience: Duration) -> Result<Self, CsiError> {
        let path = socket.to_owned();
        let absent = |source| CsiError::Absent {
            path: path.clone(),
            source,
        };
        // The first connection is made here, so that what keeps it from being made is told as it is.
        let first = UnixStream::connect(&path).await.map_err(absent)?;
        let ended = Arc::new(AtomicBool::new(false));
        let mut first = Some(stream::Watched::new(first, Arc::clone(&ended)));
        let connector = tower::service_fn(move |_| {
            let none = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
            std::future::ready(first.take().map(TokioIo::new).ok_or_else(none))
        });
        // The name is sent to the driver, and means nothing there.
        let channel =
            Endpoint::from_static("http://csi.sock").connect_with_connector_lazy(connector);
        Ok(Self {
            channel,
            ended,
            patience,
        })
    }

    /// Whether the connection has ended, as it does when the driver dies: all calls on it will fail, and
    /// one who keeps connections makes a new one first. Seen from the first call on.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    async fn within<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CsiError> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(CsiError::of(call, &status)),
            Err(_) => Err(CsiError::Deadline {
                call,
                after: self.patience,
            }),
        }
    }

    /// The driver's name and version.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn info(&self) -> Result<v1::GetPluginInfoResponse, CsiError> {
        let request = v1::GetPluginInfoRequest {};
        call!(
            self,
            IdentityClient.get_plugin_info(request),
            "GetPluginInfo"
        )
    }

    /// Whether the driver is ready; one that does not say is.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn is_ready(&self) -> Result<bool, CsiError> {
        let request = v1::ProbeRequest {};
        let answer: v1::ProbeResponse = call!(self, IdentityClient.probe(request), "Probe")?;
        Ok(answer.ready.unwrap_or(true))
    }

    /// What its node plugin can do.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn node_capabilities(&self) -> Result<NodeCapabilities, CsiError> {
        let request = v1::NodeGetCapabilitiesRequest {};
        let answer: v1::NodeGetCapabilitiesResponse = call!(
            self,
            NodeClient.node_get_capabilities(request),
            "NodeGetCapabilities"
        )?;
        let mut can = NodeCapabilities::default();
        for capability in answer.capabilities {
            let Some(Type::Rpc(rpc)) = capability.r#type else {
                continue;
            };
            match rpc.r#type() {
                Rpc::StageUnstageVolume => can.stages = true,
                Rpc::GetVolumeStats => can.stats = true,
                Rpc::ExpandVolume => can.expands = true,
                Rpc::VolumeMountGroup => can.mounts_for_group = true,
                Rpc::SingleNodeMultiWriter => can.one_writer = true,
                Rpc::Unknown | Rpc::VolumeCondition => {}
            }
        }
        Ok(can)
    }

    /// What the driver calls this node, how many volumes fit, and where it is.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn node_info(&self) -> Result<v1::NodeGetInfoResponse, CsiError> {
        let request = v1::NodeGetInfoRequest {};
        call!(self, NodeClient.node_get_info(request), "NodeGetInfo")
    }

    /// Makes a volume ready for the pods of this node.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn stage(&self, request: v1::NodeStageVolumeRequest) -> Result<(), CsiError> {
        call!(
            self,
            NodeClient.node_stage_volume(request),
            "NodeStageVolume"
        )
        .map(drop)
    }

    /// The opposite of [`Driver::stage`], after the last pod.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn unstage(&self, volume: &str, staging: &str) -> Result<(), CsiError> {
        let request = v1::NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: staging.to_owned(),
        };
        call!(
            self,
            NodeClient.node_unstage_volume(request),
            "NodeUnstageVolume"
        )
        .map(drop)
    }

    /// Shows a volume to a pod.
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn publish(&self, request: v1::NodePublishVolumeRequest) -> Result<(), CsiError> {
        call!(
            self,
            NodeClient.node_publish_volume(request),
            "NodePublishVolume"
        )
        .map(drop)
    }

    /// The opposite of [`Driver::publish`].
    ///
    /// # Errors
    /// As all calls: see [`CsiError::class`].
    pub async fn unpublish(&self, volume: &str, target: &str) -> Result<(), CsiError> {
        let request = v1::NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: target.to_owned(),
        };
        call!(
            self,
            NodeClient.node_unpublish_volume(request),
            "NodeUnpublishVolume"
        )
        .map(drop)
    }
}
