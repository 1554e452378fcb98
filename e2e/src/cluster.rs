//! An API of either kind, and what one test gets of it.

use std::sync::Arc;

use bitts_apiserver::{ApiServer, Serve, Serving};
use serde_json::{Value, json};

use crate::raw::{Answer, Request, Watch};
use crate::real::{RealApi, client_for};

/// Which API a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// bitts-apiserver as a service in this process, without sockets.
    Embedded,
    /// bitts-apiserver over HTTPS.
    Served,
    /// etcd and kube-apiserver.
    Real,
}

impl Kind {
    /// Both APIs, and bitts-apiserver in both of its ways.
    pub const ALL: &[Self] = &[Self::Embedded, Self::Served, Self::Real];
    /// Each API once.
    pub const BOTH: &[Self] = &[Self::Embedded, Self::Real];

    /// How the names of its trials begin.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Served => "served",
            Self::Real => "real",
        }
    }
}

/// A running API.
pub enum Cluster {
    /// bitts-apiserver as a service.
    Embedded(ApiServer),
    /// bitts-apiserver over HTTPS.
    Served(Serving),
    /// etcd and kube-apiserver.
    Real(Box<RealApi>),
}

impl Cluster {
    /// Starts an API.
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Embedded => Self::Embedded(ApiServer::default()),
            Kind::Served => Self::Served(serve().await?),
            Kind::Real => Self::Real(Box::new(RealApi::start().await?)),
        })
    }

    /// A client that retries nothing.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        match self {
            Self::Embedded(api) => Ok(kube::Client::new(api.service(), "default")),
            Self::Served(serving) => client_for(serving.kubeconfig()).await,
            Self::Real(api) => api.client().await,
        }
    }

    /// A kubeconfig with full rights, where programs can reach it.
    pub fn kubeconfig(&self) -> Option<&str> {
        match self {
            Self::Embedded(_) => None,
            Self::Served(serving) => Some(serving.kubeconfig()),
            Self::Real(api) => Some(api.kubeconfig()),
        }
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Embedded(_) => Kind::Embedded,
            Self::Served(_) => Kind::Served,
            Self::Real(_) => Kind::Real,
        }
    }
}

async fn serve() -> anyhow::Result<Serving> {
    let options = Serve {
        listen: ([127, 0, 0, 1], 0).into(),
        insecure: false,
        write_kubeconfig: None,
    };
    Ok(ApiServer::default().serve(options).await?)
}

/// A test's part of an API: a namespace of its own, and names that no other test uses for what lives
/// in no namespace. Tests run side by side on one API.
#[derive(Clone)]
pub struct Scope {
    cluster: Arc<Cluster>,
    client: kube::Client,
    id: String,
    namespace: String,
}

impl Scope {
    /// Makes a namespace in `cluster`.
    pub async fn new(cluster: Arc<Cluster>) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let id = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        let namespace = format!("ns-{id}");
        let scope = Self {
            cluster,
            client,
            id,
            namespace,
        };
        let body = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": scope.namespace}});
        scope.post("/api/v1/namespaces", body).await?.expect(201)?;
        Ok(scope)
    }

    /// Which API this is.
    pub fn kind(&self) -> Kind {
        self.cluster.kind()
    }

    /// The test's client.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// A kubeconfig of the API, where programs can reach it.
    pub fn kubeconfig(&self) -> Option<String> {
        self.cluster.kubeconfig().map(str::to_owned)
    }

    /// The test's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What is in each of the test's names and in no other's.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A name for an object outside of namespaces.
    pub fn name(&self, base: &str) -> String {
        format!("{base}-{}", self.id)
    }

    /// The path of the claims of the test's namespace, or of one of them: `claims("/a")`.
    pub fn claims(&self, rest: &str) -> String {
        format!(
            "/api/v1/namespaces/{}/persistentvolumeclaims{rest}",
            self.namespace
        )
    }

    /// The path of one of the test's volumes: `volume("a", "/status")`.
    pub fn volume(&self, base: &str, rest: &str) -> String {
        format!("/api/v1/persistentvolumes/{}{rest}", self.name(base))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        Request::new("GET", path, Value::Null)
            .send(&self.client)
            .await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Answer> {
        Request::new("POST", path, body).send(&self.client).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: Value) -> anyhow::Result<Answer> {
        Request::new("PUT", path, body).send(&self.client).await
    }

    /// A merge patch.
    pub async fn merge(&self, path: &str, body: Value) -> anyhow::Result<Answer> {
        self.patch("merge-patch", path, body).await
    }

    /// A patch of type `json-patch`, `merge-patch` or `strategic-merge-patch`.
    pub async fn patch(&self, kind: &str, path: &str, body: Value) -> anyhow::Result<Answer> {
        let mut request = Request::new("PATCH", path, body);
        request.content_type = Some(format!("application/{kind}+json"));
        request.send(&self.client).await
    }

    /// DELETE with DeleteOptions, or without if null.
    pub async fn delete(&self, path: &str, options: Value) -> anyhow::Result<Answer> {
        Request::new("DELETE", path, options)
            .send(&self.client)
            .await
    }

    /// Starts a watch; `path` has its query.
    pub async fn watch(&self, path: &str) -> anyhow::Result<Watch> {
        Request::new("GET", path, Value::Null)
            .watch(&self.client)
            .await
    }
}
