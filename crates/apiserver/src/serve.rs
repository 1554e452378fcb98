//! The API on a socket: TLS, a token, a kubeconfig.

mod credentials;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

pub(crate) use credentials::Credentials;

use crate::body::Body;
use crate::rest::{Closing, Core, refusal};
use crate::service::ApiService;
use crate::status::Status;

/// How long a stop waits for requests that are under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to serve.
#[derive(Debug, Clone)]
pub struct Serve {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allow addresses that others can reach. The token guards them all the same, but this API is for
    /// tests and demos: it has one user, who may do everything.
    pub insecure: bool,
    /// Where to put a kubeconfig. It appears, whole and with mode 0600, once the API listens.
    pub write_kubeconfig: Option<PathBuf>,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could reach it.
    #[error(
        "{0} can be reached from other machines: listen on 127.0.0.1 or [::1], or pass --insecure if that is meant"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {listen}: {source}; is something else listening there?")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No certificate.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// No TLS.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No kubeconfig.
    #[error("cannot write the kubeconfig {path}: {source}", path = .path.display())]
    Kubeconfig {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// An API that is being served. It stops when this is dropped.
#[derive(Debug)]
pub struct Serving {
    addr: SocketAddr,
    kubeconfig: String,
    closing: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    /// The address, with the port that was free.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A kubeconfig with everything that a client needs.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// Ends all watches, lets requests under way end, and stops.
    pub async fn stop(mut self) {
        self.closing.cancel();
        // The task ends by itself within the stop's timeout; a panic in it has been printed.
        let _ = (&mut self.task).await;
    }

    /// Breaks all connections at once, as a crash would.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn serve(core: Arc<Core>, options: Serve) -> Result<Serving, ServeError> {
    let Serve {
        listen,
        insecure,
        write_kubeconfig,
    } = options;
    if !insecure && !listen.ip().is_loopback() {
        return Err(ServeError::NotLoopback(listen));
    }
    let credentials = core.credentials()?;
    let tls = TlsAcceptor::from(Arc::new(credentials.server_config(listen.ip())?));
    let fail = |source| ServeError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(fail)?;
    let addr = listener.local_addr().map_err(fail)?;
    let kubeconfig = credentials.kubeconfig(addr);
    if let Some(path) = write_kubeconfig {
        write_private(&path, &kubeconfig)
            .map_err(|source| ServeError::Kubeconfig { path, source })?;
    }
    let closing = CancellationToken::new();
    let server = Server {
        service: ApiService::new(Arc::clone(&core)),
        authorization: format!("Bearer {}", credentials.token()),
        closing: closing.clone(),
    };
    let task = tokio::spawn(accept(listener, tls, server));
    Ok(Serving {
        addr,
        kubeconfig,
        closing,
        task,
    })
}

/// Writes a file that appears whole and that nobody else can read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&unfinished, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&unfinished)))
}

#[derive(Debug, Clone)]
struct Server {
    service: ApiService,
    authorization: String,
    closing: CancellationToken,
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, server: Server) {
    let graceful = GracefulShutdown::new();
    // The set is dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = server.closing.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let (tls, server, watcher) = (tls.clone(), server.clone(), graceful.watcher());
                    connections.spawn(async move {
                        if let Err(error) = connection(socket, tls, server, watcher).await {
                            tracing::debug!("connection ended: {error}");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come free.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests were still under way when the API stopped");
    }
}

async fn connection(
    socket: TcpStream,
    tls: TlsAcceptor,
    server: Server,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    socket.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await??;
    let service = service_fn(move |request| server.clone().handle(request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1_000);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    watcher.watch(connection).await
}

impl Server {
    async fn handle(
        mut self,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let sent = request.headers().get(header::AUTHORIZATION);
        let authorized = sent.is_some_and(|sent| sent.as_bytes() == self.authorization.as_bytes());
        let public = matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz");
        if !authorized && !public {
            let status = Status::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
            return Ok(refusal(&status));
        }
        request.extensions_mut().insert(Closing(self.closing));
        self.service.call(request).await
    }
}
