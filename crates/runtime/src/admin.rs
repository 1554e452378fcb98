//! `/metrics`, `/healthz` and `/readyz`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use crate::Host;

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// How long a client may take to send the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `/metrics`, `/healthz` and `/readyz` until the host shuts down. Returns the address that
/// was bound, for `listen` may leave the port open.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve_admin(host: &Host, listen: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let bound = listener.local_addr()?;
    let host = host.clone();
    tokio::spawn(async move {
        let shutdown = host.shutdown().clone();
        shutdown
            .run_until_cancelled_owned(accept(listener, host))
            .await
    });
    Ok(bound)
}

async fn accept(listener: TcpListener, host: Host) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: they come back.
                tracing::warn!(%error, "cannot accept a connection for metrics or health");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let host = host.clone();
        tokio::spawn(async move {
            let shutdown = host.shutdown().clone();
            let service = service_fn(move |request: Request<_>| {
                let host = host.clone();
                async move {
                    let answer = answer(&host, request.method(), request.uri().path()).await;
                    Ok::<_, Infallible>(answer)
                }
            });
            let mut server = auto::Builder::new(TokioExecutor::new());
            server
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE);
            // A client that breaks off is its own affair.
            let served = server.serve_connection(TokioIo::new(stream), service);
            shutdown.run_until_cancelled_owned(served).await.map(drop)
        });
    }
}

async fn answer(host: &Host, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return response(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "only GET\n".to_owned(),
        );
    }
    match path {
        "/metrics" => response(StatusCode::OK, METRICS, host.metrics_text().await),
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => match host.readiness() {
            (true, text) => response(StatusCode::OK, TEXT, text),
            (false, text) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, text),
        },
        _ => response(
            StatusCode::NOT_FOUND,
            TEXT,
            "here are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    }
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
