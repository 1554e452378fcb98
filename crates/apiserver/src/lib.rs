//! An in-memory Kubernetes API: for the demo, for tests, with faults on request.
//!
//! It is a tower service for a kube client in the same process, and an HTTP server for kubectl. It
//! keeps objects as JSON, gives every write a revision, keeps the last changes of each kind, and
//! answers watches from them. There are no controllers in it, as in a real kube-apiserver; the
//! [`Collector`] stands in for those that clean up behind owners and namespaces.
//!
//! ```
//! use bitts_apiserver::ApiServer;
//! use k8s_openapi::api::core::v1::Namespace;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), kube::Error> {
//! let api = ApiServer::default();
//! let client = kube::Client::new(api.service(), "default");
//! let namespaces = kube::Api::<Namespace>::all(client).list(&Default::default()).await?;
//! assert!(namespaces.iter().any(|namespace| namespace.metadata.name.as_deref() == Some("default")));
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`kind`] | the registry of kinds |
//! | `store` | objects, revisions, history, watches |
//! | `rest` | one file a verb: what a request does to the store |
//! | `rules` | defaulting, validation, admission of each kind |
//! | `patch` | JSON, merge and strategic merge patches |
//! | `table`, `discovery`, `events` | what kubectl wants to see |
//! | [`faults`] | what goes wrong on request, from a seed or a script |
//! | `serve` | TLS, the token, the kubeconfig |

mod body;
mod collect;
mod discovery;
mod entropy;
mod events;
pub mod faults;
pub mod kind;
mod patch;
mod rest;
mod rules;
mod select;
mod serve;
mod service;
mod status;
mod store;
pub mod table;
mod trace;

use std::sync::Arc;

pub use body::Body;
pub use collect::Collector;
pub use entropy::Clock;
pub use faults::Faults;
pub use serve::{Serve, ServeError, Serving};
pub use service::ApiService;
pub use status::{Cause, Part, Status};
pub use trace::Traced;

use rest::Core;

/// How an API is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// What goes wrong, from the start.
    pub faults: Faults,
    /// How many changes of each kind are kept for watches and paged lists.
    pub history: usize,
    /// Where time comes from.
    pub clock: Clock,
    /// Seeds uids, generated names and faults; without it they differ from run to run.
    pub seed: Option<u64>,
    /// How many requests are kept for [`ApiServer::trace`].
    pub trace: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            history: 10_000,
            clock: Clock::System,
            seed: None,
            trace: 0,
        }
    }
}

/// An in-memory Kubernetes API. Clones are the same API.
#[derive(Debug, Clone)]
pub struct ApiServer {
    core: Arc<Core>,
}

impl Default for ApiServer {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl ApiServer {
    /// An API that holds the namespaces `default`, `kube-system`, `kube-public` and `kube-node-lease`.
    pub fn new(options: Options) -> Self {
        Self {
            core: Arc::new(Core::new(options)),
        }
    }

    /// The API for a client in this process: `kube::Client::new(api.service(), "default")`.
    pub fn service(&self) -> ApiService {
        ApiService::new(Arc::clone(&self.core))
    }

    /// Serves the API on a socket. Serving again later, for example after [`Serving::stop`], shows
    /// clients the same certificate and token.
    pub async fn serve(&self, options: Serve) -> Result<Serving, ServeError> {
        serve::serve(Arc::clone(&self.core), options).await
    }

    /// Replaces what goes wrong from now on. `Faults::default()` ends all trouble.
    pub fn set_faults(&self, faults: Faults) {
        self.core.faults.set(faults);
    }

    /// The last requests and their answers, oldest first; as many as [`Options::trace`] asks for.
    pub fn trace(&self) -> Vec<Traced> {
        self.core.trace.all()
    }

    /// Forgets the history of all kinds: watches and pages from before now get 410.
    pub fn compact(&self) {
        self.core.store.compact();
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.core.store.revision()
    }
}
