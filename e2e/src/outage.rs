//! An API that is killed and comes back with its data, or that forgets its history.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bitts_apiserver::{ApiServer, Serve, Serving};
use tokio::sync::Mutex;

use crate::cluster::Kind;
use crate::real::{RealApi, client_for};

/// An API of a test's own. Clones are the same API.
#[derive(Clone)]
pub struct Site {
    kubeconfig: String,
    api: Arc<Mutex<Api>>,
}

enum Api {
    Served {
        api: ApiServer,
        address: SocketAddr,
        serving: Option<Serving>,
    },
    Real(Box<RealApi>),
}

impl Site {
    /// Starts an API that clients reach over the network.
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        let api = if kind == Kind::Real {
            Api::Real(Box::new(RealApi::start().await?))
        } else {
            let api = ApiServer::default();
            let serving = serve(&api, ([127, 0, 0, 1], 0).into()).await?;
            Api::Served {
                api,
                address: serving.addr(),
                serving: Some(serving),
            }
        };
        let kubeconfig = match &api {
            Api::Real(api) => api.kubeconfig(),
            Api::Served { serving, .. } => serving.as_ref().context("it serves")?.kubeconfig(),
        };
        Ok(Self {
            kubeconfig: kubeconfig.to_owned(),
            api: Arc::new(Mutex::new(api)),
        })
    }

    /// A kubeconfig with full rights, as text.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// A new client; it works again after an outage.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        client_for(&self.kubeconfig).await
    }

    /// Ends the API as a crash would: connections break, nothing listens any more.
    pub async fn kill(&self) {
        match &mut *self.api.lock().await {
            Api::Real(api) => api.kill_apiserver(),
            Api::Served { serving, .. } => {
                if let Some(serving) = serving.take() {
                    serving.kill().await;
                }
            }
        }
    }

    /// Starts the API again at the same address with the same data.
    pub async fn restart(&self) -> anyhow::Result<()> {
        match &mut *self.api.lock().await {
            Api::Real(api) => api.restart_apiserver().await?,
            Api::Served {
                api,
                address,
                serving,
            } => *serving = Some(serve(api, *address).await?),
        }
        Ok(())
    }

    /// Makes the API forget everything but the present state.
    pub async fn forget_history(&self) -> anyhow::Result<()> {
        match &mut *self.api.lock().await {
            Api::Real(api) => api.forget_history().await?,
            Api::Served { api, .. } => api.compact(),
        }
        Ok(())
    }
}

async fn serve(api: &ApiServer, listen: SocketAddr) -> anyhow::Result<Serving> {
    let options = Serve {
        listen,
        insecure: false,
        write_kubeconfig: None,
    };
    Ok(api.serve(options).await?)
}
