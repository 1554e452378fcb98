//! A driver in this process: it records what it is asked, and fails as it is told to.
//!
//! What it stages and publishes is only remembered, unless it is told how to do it. As the interface wants it, a
//! call that was done before is done again without effect.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

mod controller;

pub use controller::{DiskCall, Disks, FakeController, Turn};

use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::v1::identity_server::{Identity, IdentityServer};
use crate::v1::node_server::{Node, NodeServer};
use crate::v1::node_service_capability::rpc::Type as Rpc;
use crate::v1::{self};

/// What the driver does with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It refuses, and nothing happens.
    Refuses(Code),
    /// It does it, and answers with an error.
    DoesAndFails(Code),
    /// It never answers.
    Hangs,
    /// It says that it did, and does nothing.
    OnlySays,
}

/// A driver that listens until it is dropped, on a thread of its own: those who call it need not be
/// asynchronous, and its connections end with it.
#[derive(Debug)]
pub struct FakeDriver {
    state: Shared,
    _listener: Listener,
}

/// Services on a thread of their own, until this is dropped.
#[derive(Debug)]
struct Listener {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listener {
    fn start(socket: &Path, services: tonic::transport::server::Router) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = UnixListener::from_std(listener) else {
                    return; // who calls sees that nobody answers
                };
                let serve = services.serve_with_incoming(UnixListenerStream::new(listener));
                tokio::select! {
                    _ = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A thread that panicked has nothing left to end.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    name: String,
    capabilities: Vec<Rpc>,
    fates: BTreeMap<&'static str, Vec<Fate>>,
    calls: Vec<String>,
    staged: BTreeSet<(String, String)>,
    published: BTreeSet<(String, String)>,
    acts: Acts,
}

/// How it does what it is called for, by the call's name and the path that it is about.
#[derive(Clone)]
struct Acts(Arc<Act>);

type Act = dyn Fn(&str, &str) + Send + Sync;

impl Default for Acts {
    fn default() -> Self {
        Self(Arc::new(|_, _| {}))
    }
}

impl std::fmt::Debug for Acts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acts")
    }
}

impl FakeDriver {
    /// Listens at this socket, under this name.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(socket: &Path, name: &str, capabilities: &[Rpc]) -> io::Result<Self> {
        let state = Shared(Arc::new(Mutex::new(State {
            name: name.to_owned(),
            capabilities: capabilities.to_vec(),
            ..State::default()
        })));
        let services = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(state.clone()))
            .add_service(NodeServer::new(state.clone()));
        Ok(Self {
            state,
            _listener: Listener::start(socket, services)?,
        })
    }

    /// Has it do this for each call that takes effect: the call's name, and the path that it is
    /// about (where a volume is published rather than where it is staged).
    pub fn acts(&self, act: impl Fn(&str, &str) + Send + Sync + 'static) {
        self.state.with(|state| state.acts = Acts(Arc::new(act)));
    }

    /// What the next call of this name comes to; several are taken in turn.
    pub fn next(&self, call: &'static str, fate: Fate) {
        self.state
            .with(|state| state.fates.entry(call).or_default().push(fate));
    }

    /// The calls so far, each with the volume and the paths it is about.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.state.with(|state| state.calls.clone())
    }

    /// The volumes that are staged, and where.
    #[must_use]
    pub fn staged(&self) -> Vec<(String, String)> {
        self.state
            .with(|state| state.staged.iter().cloned().collect())
    }

    /// The volumes that are published, and where.
    #[must_use]
    pub fn published(&self) -> Vec<(String, String)> {
        self.state
            .with(|state| state.published.iter().cloned().collect())
    }
}

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn act(&self, call: &str, about: &[&str]) {
        let Acts(act) = self.with(|state| state.acts.clone());
        act(call, about.last().copied().unwrap_or_default());
    }

    /// Records a call, and does it unless it is to fail.
    async fn perform(
        &self,
        call: &'static str,
        about: &[&str],
        effect: impl FnOnce(&mut State),
    ) -> Result<(), Status> {
        let fate = self.with(|state| {
            state.calls.push([&[call], about].concat().join(" "));
            let fates = state.fates.get_mut(call).filter(|fates| !fates.is_empty());
            fates.map(|fates| fates.remove(0))
        });
        match fate {
            Some(Fate::Refuses(code)) => return Err(Status::new(code, "told to refuse")),
            Some(Fate::Hangs) => std::future::pending().await,
            Some(Fate::OnlySays) => {}
            Some(Fate::DoesAndFails(code)) => {
                self.act(call, about);
                self.with(effect);
                return Err(Status::new(code, "told to fail"));
            }
            None => {
                self.act(call, about);
                self.with(effect);
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Identity for Shared {
    async fn get_plugin_info(
        &self,
        _: Request<v1::GetPluginInfoRequest>,
    ) -> Result<Response<v1::GetPluginInfoResponse>, Status> {
        self.perform("GetPluginInfo", &[], |_| {}).await?;
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
        Ok(Response::new(Default::default()))
    }

    async fn probe(
        &self,
        _: Request<v1::ProbeRequest>,
    ) -> Result<Response<v1::ProbeResponse>, Status> {
        Ok(Response::new(v1::ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Node for Shared {
    async fn node_stage_volume(
        &self,
        request: Request<v1::NodeStageVolumeRequest>,
    ) -> Result<Response<v1::NodeStageVolumeResponse>, Status> {
        let v1::NodeStageVolumeRequest {
            volume_id,
            staging_target_path: path,
            ..
        } = request.into_inner();
        let about = [volume_id.clone(), path.clone()];
        self.perform(
            "NodeStageVolume",
            &about.each_ref().map(String::as_str),
            |state| {
                state.staged.insert((volume_id, path));
            },
        )
        .await?;
        Ok(Response::new(Default::default()))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<v1::NodeUnstageVolumeRequest>,
    ) -> Result<Response<v1::NodeUnstageVolumeResponse>, Status> {
        let v1::NodeUnstageVolumeRequest {
            volume_id,
            staging_target_path: path,
        } = request.into_inner();
        let about = [volume_id.clone(), path.clone()];
        self.perform(
            "NodeUnstageVolume",
            &about.each_ref().map(String::as_str),
            |state| {
                state.staged.remove(&(volume_id, path));
            },
        )
        .await?;
        Ok(Response::new(Default::default()))
    }

    async fn node_publish_volume(
        &self,
        request: Request<v1::NodePublishVolumeRequest>,
    ) -> Result<Response<v1::NodePublishVolumeResponse>, Status> {
        let v1::NodePublishVolumeRequest {
            volume_id,
            target_path: path,
            ..
        } = request.into_inner();
        let about = [volume_id.clone(), path.clone()];
        self.perform(
            "NodePublishVolume",
            &about.each_ref().map(String::as_str),
            |state| {
                state.published.insert((volume_id, path));
            },
        )
        .await?;
        Ok(Response::new(Default::default()))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<v1::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<v1::NodeUnpublishVolumeResponse>, Status> {
        let v1::NodeUnpublishVolumeRequest {
            volume_id,
            target_path: path,
        } = request.into_inner();
        let about = [volume_id.clone(), path.clone()];
        self.perform(
            "NodeUnpublishVolume",
            &about.each_ref().map(String::as_str),
            |state| {
                state.published.remove(&(volume_id, path));
            },
        )
        .await?;
        Ok(Response::new(Default::default()))
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<v1::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<v1::NodeGetVolumeStatsResponse>, Status> {
        Err(Status::unimplemented("not in this driver"))
    }

    async fn node_expand_volume(
        &self,
        _: Request<v1::NodeExpandVolumeRequest>,
    ) -> Result<Response<v1::NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented("not in this driver"))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<v1::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<v1::NodeGetCapabilitiesResponse>, Status> {
        self.perform("NodeGetCapabilities", &[], |_| {}).await?;
        let capabilities = self.with(|state| state.capabilities.clone());
        let capability = |rpc: Rpc| v1::NodeServiceCapability {
            r#type: Some(v1::node_service_capability::Type::Rpc(
                v1::node_service_capability::Rpc { r#type: rpc.into() },
            )),
        };
        Ok(Response::new(v1::NodeGetCapabilitiesResponse {
            capabilities: capabilities.into_iter().map(capability).collect(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<v1::NodeGetInfoRequest>,
    ) -> Result<Response<v1::NodeGetInfoResponse>, Status> {
        self.perform("NodeGetInfo", &[], |_| {}).await?;
        Ok(Response::new(v1::NodeGetInfoResponse {
            node_id: "node-1".to_owned(),
            ..Default::default()
        }))
    }
}
