//! From a kubeconfig, or the pod this runs in, to a client.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::connection;

const CONNECT: Duration = Duration::from_secs(5);
const PROBE: Duration = Duration::from_secs(10);
/// How the API server's log and metrics know this program.
const NAME: HeaderValue = HeaderValue::from_static(concat!("bitts/", env!("CARGO_PKG_VERSION")));

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A kubeconfig was named, and is not there.
    #[error("{named_by} names the kubeconfig {}, which does not exist", path.display())]
    NoSuchFile {
        /// The flag or variable.
        named_by: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// A kubeconfig cannot be used.
    #[error("the kubeconfig {} cannot be used: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// Neither a kubeconfig nor a pod's service account.
    #[error(
        "no cluster to talk to: no kubeconfig in $KUBECONFIG or ~/.kube/config, and not in a pod \
         ({0}). Give --kubeconfig FILE, or set KUBECONFIG"
    )]
    NoCluster(#[source] Box<InferConfigError>),
    /// The configuration does not make a client: a certificate does not parse, for one.
    #[error(
        "no connection to {server} can be set up: {source}. Check the certificates and proxy of the kubeconfig"
    )]
    Setup {
        /// The address.
        server: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
    /// Nobody answers.
    #[error(
        "{server} does not answer: {reason}. Check the kubeconfig's `server`, and that the API \
         server runs and can be reached from here"
    )]
    Unreachable {
        /// The address.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The server does not know who is asking.
    #[error(
        "{server} does not accept these credentials: {reason}. Renew the token or client certificate"
    )]
    Unauthorized {
        /// The address.
        server: String,
        /// What the server says.
        reason: String,
    },
}

/// A client for the cluster of a kubeconfig; without one for that of `KUBECONFIG`,
/// `~/.kube/config` or the pod this runs in. The server was reached once.
///
/// kube's own retries are off: they can outlive a lease (up to 15 tries over 1,000 s). Retrying is
/// up to the runtime, which knows whether it still may.
///
/// # Errors
/// When there is no usable configuration, or the server does not answer.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    connect_by(kubeconfig, Client::try_from).await
}

/// The same for a role of which each node has one: all that it asks shares one connection (HTTP/2),
/// where the server speaks that. Thousands of nodes cost the server less so, and a burst of reads
/// waits for no handshakes. A role that writes all the time for the whole cluster is better off with
/// a connection for each request: a busy server gives each connection its turn.
///
/// # Errors
/// As [`connect`].
pub async fn connect_shared(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    connect_by(kubeconfig, connection::client).await
}

async fn connect_by(
    kubeconfig: Option<&Path>,
    client: impl FnOnce(Config) -> Result<Client, kube::Error>,
) -> Result<Client, ConnectError> {
    let mut config = configuration(kubeconfig).await?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.headers.push((USER_AGENT, NAME));
    let server = config.cluster_url.to_string();
    let client = client(config).map_err(|source| ConnectError::Setup {
        server: server.clone(),
        source: Box::new(source),
    })?;
    probe(&client, server).await?;
    Ok(client)
}

async fn configuration(kubeconfig: Option<&Path>) -> Result<Config, ConnectError> {
    if let Some(path) = kubeconfig {
        return from_file("--kubeconfig", path).await;
    }
    // A list of files is merged by kube; one file can be named in the error.
    if let Some(path) = env::var_os("KUBECONFIG").map(PathBuf::from)
        && !path.as_os_str().is_empty()
        && env::split_paths(&path).count() == 1
    {
        return from_file("KUBECONFIG", &path).await;
    }
    Config::infer()
        .await
        .map_err(|source| ConnectError::NoCluster(Box::new(source)))
}

async fn from_file(named_by: &'static str, path: &Path) -> Result<Config, ConnectError> {
    if !path.exists() {
        return Err(ConnectError::NoSuchFile {
            named_by,
            path: path.to_owned(),
        });
    }
    let unusable = |source| ConnectError::Unusable {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let read = Kubeconfig::read_from(path).map_err(unusable)?;
    Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .map_err(unusable)
}

async fn probe(client: &Client, server: String) -> Result<(), ConnectError> {
    match tokio::time::timeout(PROBE, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(()),
        // An answer is an answer: what this client may do shows with each watch.
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 401 => {
            Err(ConnectError::Unauthorized {
                server,
                reason: status.message.clone(),
            })
        }
        Ok(Err(error)) => Err(ConnectError::Unreachable {
            server,
            reason: whole(&error),
        }),
        Err(_) => Err(ConnectError::Unreachable {
            server,
            reason: format!("no answer within {} s", PROBE.as_secs()),
        }),
    }
}

/// An error with its causes, each once: some errors print their cause, others leave it out.
pub(crate) fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}
