//! One connection to the API server for all requests and watches of a process, where it speaks HTTP/2.
//!
//! kube's own client speaks HTTP/1.1: a connection, its handshake and its buffers for each request
//! that is under way, which a burst of short reads pays first. Servers and proxies that offer no
//! HTTP/2 still get HTTP/1.1.

use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use tower::ServiceBuilder;

/// One that is silent for so long is asked whether it is alive.
const SILENT: Duration = Duration::from_secs(10);
/// One that does not answer that is given up, and all that is under way on it: soon enough that the
/// next tries reach another server before a lease is over.
const DEAD: Duration = Duration::from_secs(3);
/// What a watch may hold that its role has not read yet, in bytes.
const WINDOW_OF_STREAM: u32 = 256 * 1024;
/// The same for all together: more than all watches of all roles hold, so that roles that are busy
/// keep no answer from those they wait for.
const WINDOW: u32 = 32 * 1024 * 1024;

/// A client for a cluster. Nobody was asked anything yet.
///
/// # Errors
/// When a certificate or another part of the configuration cannot be used.
pub(crate) fn client(config: Config) -> Result<Client, kube::Error> {
    // Which kube was built without, and says so.
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(config.connect_timeout);
    let mut tls = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into().map_err(|error| {
            let error = kube::client::RustlsTlsError::InvalidServerName(error);
            kube::Error::RustlsTls(error)
        })?;
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connector = tls.enable_http1().enable_http2().wrap_connector(tcp);
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_initial_stream_window_size(WINDOW_OF_STREAM)
        .http2_initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(SILENT)
        .http2_keep_alive_timeout(DEAD)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}
