//! The controller of a driver in this process, and the disks behind it, which stay when it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::{Fate, Listener};
use crate::v1::controller_server::{Controller, ControllerServer};
use crate::v1::controller_service_capability::rpc::Type as Rpc;
use crate::v1::identity_server::{Identity, IdentityServer};
use crate::v1::{self};

/// What a controller does with one call: after how long, and what comes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// How long it takes.
    pub after: Duration,
    /// How it fails, where it does.
    pub fate: Option<Fate>,
}

/// A call that attaches or detaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCall {
    /// Whether it attaches.
    pub attaches: bool,
    /// The volume.
    pub volume: String,
    /// The node, by the driver's name.
    pub node: String,
    /// The secrets that came with it.
    pub secrets: BTreeMap<String, String>,
}

type Decide = dyn FnMut(&DiskCall) -> Turn + Send;
type Watch = dyn Fn(&DiskCall, &BTreeSet<(String, String)>) + Send;

/// What really is attached where. A controller that dies leaves it as it is.
#[derive(Clone)]
pub struct Disks(Arc<Mutex<State>>);

struct State {
    name: String,
    capabilities: Vec<Rpc>,
    attached: BTreeSet<(String, String)>,
    calls: Vec<DiskCall>,
    under_way: BTreeMap<String, usize>,
    crowded: BTreeSet<String>,
    most_at_once: usize,
    decide: Box<Decide>,
    watch: Box<Watch>,
}

impl std::fmt::Debug for Disks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Disks").field(&self.attached()).finish()
    }
}

impl Disks {
    /// The disks of a driver of this name, whose controller can do this.
    #[must_use]
    pub fn new(name: &str, capabilities: &[Rpc]) -> Self {
        Self(Arc::new(Mutex::new(State {
            name: name.to_owned(),
            capabilities: capabilities.to_vec(),
            attached: BTreeSet::new(),
            calls: Vec::new(),
            under_way: BTreeMap::new(),
            crowded: BTreeSet::new(),
            most_at_once: 0,
            decide: Box::new(|_| Turn::default()),
            watch: Box::new(|_, _| {}),
        })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has this say what each call comes to, when it comes in.
    pub fn decide(&self, decide: impl FnMut(&DiskCall) -> Turn + Send + 'static) {
        self.with(|state| state.decide = Box::new(decide));
    }

    /// Has this look at what is attached directly before a call takes effect.
    pub fn watch(&self, watch: impl Fn(&DiskCall, &BTreeSet<(String, String)>) + Send + 'static) {
        self.with(|state| state.watch = Box::new(watch));
    }

    /// What is attached: volume and node.
    #[must_use]
    pub fn attached(&self) -> BTreeSet<(String, String)> {
        self.with(|state| state.attached.clone())
    }

    /// Attaches or detaches behind everybody's back.
    pub fn set(&self, volume: &str, node: &str, attached: bool) {
        let pair = (volume.to_owned(), node.to_owned());
        self.with(|state| match attached {
            true => state.attached.insert(pair),
            false => state.attached.remove(&pair),
        });
    }

    /// The calls so far, in the order in which they came in.
    #[must_use]
    pub fn calls(&self) -> Vec<DiskCall> {
        self.with(|state| state.calls.clone())
    }

    /// The volumes of which two calls were under way at a time.
    #[must_use]
    pub fn crowded(&self) -> BTreeSet<String> {
        self.with(|state| state.crowded.clone())
    }

    /// How many calls were under way at a time at most.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.with(|state| state.most_at_once)
    }

    async fn perform(&self, call: DiskCall) -> Result<(), Status> {
        let turn = self.with(|state| {
            state.calls.push(call.clone());
            (state.decide)(&call)
        });
        let _under_way = UnderWay::begin(self, &call.volume);
        tokio::time::sleep(turn.after).await;
        let code = match turn.fate {
            None => None,
            Some(Fate::Refuses(code)) => return Err(Status::new(code, "told to refuse")),
            Some(Fate::Hangs) => std::future::pending().await,
            Some(Fate::OnlySays) => return Ok(()),
            Some(Fate::DoesAndFails(code)) => Some(code),
        };
        self.with(|state| {
            (state.watch)(&call, &state.attached);
            let pair = (call.volume, call.node);
            match call.attaches {
                true => state.attached.insert(pair),
                false => state.attached.remove(&pair),
            };
        });
        code.map_or(Ok(()), |code| Err(Status::new(code, "told to fail")))
    }
}

/// A call that is under way, also when whoever called has gone.
struct UnderWay<'a> {
    disks: &'a Disks,
    volume: String,
}

impl<'a> UnderWay<'a> {
    fn begin(disks: &'a Disks, volume: &str) -> Self {
        disks.with(|state| {
            let of_volume = state.under_way.entry(volume.to_owned()).or_default();
            *of_volume += 1;
            if *of_volume > 1 {
                state.crowded.insert(volume.to_owned());
            }
            let all = state.under_way.values().sum();
            state.most_at_once = state.most_at_once.max(all);
        });
        let volume = volume.to_owned();
        Self { disks, volume }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.disks.with(|state| {
            if let Some(of_volume) = state.under_way.get_mut(&self.volume) {
                *of_volume -= 1;
            }
        });
    }
}

/// A controller that listens until it is dropped, which ends its connections and whatever it is at.
#[derive(Debug)]
pub struct FakeController {
    _listener: Listener,
}

impl FakeController {
    /// Listens at this socket; one that an earlier controller left there goes.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(socket: &Path, disks: &Disks) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let services = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(disks.clone()))
            .add_service(ControllerServer::new(disks.clone()));
        Ok(Self {
            _listener: Listener::start(socket, services)?,
        })
    }
}

#[tonic::async_trait]
impl Identity for Disks {
    async fn get_plugin_info(
        &self,
        _: Request<v1::GetPluginInfoRequest>,
    ) -> Result<Response<v1::GetPluginInfoResponse>, Status> {
        Ok(Response::new(v1::GetPluginInfoResponse {
            name: self.with(|state| state.name.clone()),
            vendor_version: "1".to_owned(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<v1::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<v1::GetPluginCapabilitiesResponse>, Status> {
        use v1::plugin_capability::{Service, Type, service};
        let controller = v1::PluginCapability {
            r#type: Some(Type::Service(Service {
                r#type: service::Type::ControllerService.into(),
            })),
        };
        Ok(Response::new(v1::GetPluginCapabilitiesResponse {
            capabilities: vec![controller],
        }))
    }

    async fn probe(
        &self,
        _: Request<v1::ProbeRequest>,
    ) -> Result<Response<v1::ProbeResponse>, Status> {
        Ok(Response::new(v1::ProbeResponse { ready: Some(true) }))
    }
}

/// What this controller does not do.
macro_rules! absent {
    ($($method:ident: $request:ident => $answer:ident;)*) => {
        #[tonic::async_trait]
        impl Controller for Disks {
            async fn controller_publish_volume(
                &self,
                request: Request<v1::ControllerPublishVolumeRequest>,
            ) -> Result<Response<v1::ControllerPublishVolumeResponse>, Status> {
                self.publish(request.into_inner()).await
            }

            async fn controller_unpublish_volume(
                &self,
                request: Request<v1::ControllerUnpublishVolumeRequest>,
            ) -> Result<Response<v1::ControllerUnpublishVolumeResponse>, Status> {
                self.unpublish(request.into_inner()).await
            }

            async fn list_volumes(
                &self,
                request: Request<v1::ListVolumesRequest>,
            ) -> Result<Response<v1::ListVolumesResponse>, Status> {
                self.list(&request.into_inner())
            }

            async fn controller_get_capabilities(
                &self,
                _: Request<v1::ControllerGetCapabilitiesRequest>,
            ) -> Result<Response<v1::ControllerGetCapabilitiesResponse>, Status> {
                Ok(self.capabilities())
            }

            $(async fn $method(
                &self,
                _: Request<v1::$request>,
            ) -> Result<Response<v1::$answer>, Status> {
                Err(Status::unimplemented("not in this driver"))
            })*
        }
    };
}

absent! {
    create_volume: CreateVolumeRequest => CreateVolumeResponse;
    delete_volume: DeleteVolumeRequest => DeleteVolumeResponse;
    validate_volume_capabilities: ValidateVolumeCapabilitiesRequest => ValidateVolumeCapabilitiesResponse;
    get_capacity: GetCapacityRequest => GetCapacityResponse;
    create_snapshot: CreateSnapshotRequest => CreateSnapshotResponse;
    delete_snapshot: DeleteSnapshotRequest => DeleteSnapshotResponse;
    list_snapshots: ListSnapshotsRequest => ListSnapshotsResponse;
    get_snapshot: GetSnapshotRequest => GetSnapshotResponse;
    controller_expand_volume: ControllerExpandVolumeRequest => ControllerExpandVolumeResponse;
    controller_get_volume: ControllerGetVolumeRequest => ControllerGetVolumeResponse;
    controller_modify_volume: ControllerModifyVolumeRequest => ControllerModifyVolumeResponse;
}

impl Disks {
    async fn publish(
        &self,
        request: v1::ControllerPublishVolumeRequest,
    ) -> Result<Response<v1::ControllerPublishVolumeResponse>, Status> {
        let device = format!("/dev/{}", request.volume_id);
        let call = DiskCall {
            attaches: true,
            volume: request.volume_id,
            node: request.node_id,
            secrets: request.secrets,
        };
        self.perform(call).await?;
        let publish_context = [("device".to_owned(), device)].into();
        Ok(Response::new(v1::ControllerPublishVolumeResponse {
            publish_context,
        }))
    }

    async fn unpublish(
        &self,
        request: v1::ControllerUnpublishVolumeRequest,
    ) -> Result<Response<v1::ControllerUnpublishVolumeResponse>, Status> {
        let call = DiskCall {
            attaches: false,
            volume: request.volume_id,
            node: request.node_id,
            secrets: request.secrets,
        };
        self.perform(call).await?;
        Ok(Response::new(Default::default()))
    }

    /// Two volumes a page.
    fn list(
        &self,
        request: &v1::ListVolumesRequest,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let mut volumes = BTreeMap::<String, Vec<String>>::new();
        for (volume, node) in self.attached() {
            volumes.entry(volume).or_default().push(node);
        }
        let from: usize = match request.starting_token.as_str() {
            "" => 0,
            token => (token.parse()).map_err(|_| Status::aborted("no such token"))?,
        };
        let more = from + 2 < volumes.len();
        let entry = |(volume_id, published_node_ids)| v1::list_volumes_response::Entry {
            volume: Some(v1::Volume {
                volume_id,
                ..Default::default()
            }),
            status: Some(v1::list_volumes_response::VolumeStatus {
                published_node_ids,
                ..Default::default()
            }),
        };
        let page = volumes.into_iter().skip(from).take(2).map(entry);
        Ok(Response::new(v1::ListVolumesResponse {
            entries: page.collect(),
            next_token: if more {
                (from + 2).to_string()
            } else {
                String::new()
            },
        }))
    }

    fn capabilities(&self) -> Response<v1::ControllerGetCapabilitiesResponse> {
        use v1::controller_service_capability::{Rpc as Of, Type};
        let capability = |rpc: Rpc| v1::ControllerServiceCapability {
            r#type: Some(Type::Rpc(Of { r#type: rpc.into() })),
        };
        let all = self.with(|state| state.capabilities.clone());
        Response::new(v1::ControllerGetCapabilitiesResponse {
            capabilities: all.into_iter().map(capability).collect(),
        })
    }
}
