//! The ends that face people: kubeconfigs, and the pages on health and metrics. In real time.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use bitts_api::Kind;
use bitts_api::machine::Input;
use bitts_runtime::{ConnectError, Host, connect, serve_admin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::{Fake, Fault};
use crate::script::Role;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn get(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn health_and_metrics_can_be_read() {
    let fake = Fake::default();
    fake.fail("persistentvolumes", usize::MAX, Fault::Status(403, None));
    let role = Role::watching(&fake, &[Kind::Claim, Kind::Volume]);
    role.until(|i| matches!(i, Input::Listed(..))).await;
    let at = serve_admin(&role.host, ANY_PORT).await.unwrap();
    assert!(get(at, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    let ready = get(at, "GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(
        ready.contains("tester watches persistentvolumes: forbidden"),
        "{ready}"
    );
    let metrics = get(at, "GET /metrics").await;
    let inputs = r#"bitts_inputs_total{role="tester",input="listed"} 1"#;
    assert!(
        metrics.contains(inputs) && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    assert!(get(at, "GET /other").await.starts_with("HTTP/1.1 404"));
    assert!(get(at, "POST /metrics").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let taken = TcpListener::bind(ANY_PORT).await.unwrap();
    let host = Host::new(Fake::default().client());
    assert!(
        serve_admin(&host, taken.local_addr().unwrap())
            .await
            .is_err()
    );
}

/// Why there is no connection.
async fn why_not(kubeconfig: &Path) -> ConnectError {
    connect(Some(kubeconfig)).await.map(drop).unwrap_err()
}

fn kubeconfig(server: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(file.path(), text).unwrap();
    file
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_named() {
    let error = why_not(Path::new("/nowhere/config")).await;
    assert_eq!(
        error.to_string(),
        "--kubeconfig names the kubeconfig /nowhere/config, which does not exist"
    );
}

#[tokio::test]
async fn a_kubeconfig_that_is_no_kubeconfig_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "clusters: 7\n").unwrap();
    let error = why_not(file.path()).await;
    assert!(matches!(error, ConnectError::Unusable { .. }));
    assert!(
        error.to_string().contains(file.path().to_str().unwrap()),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_with_the_cause() {
    // Bound and closed: nobody listens there.
    let port = TcpListener::bind(ANY_PORT)
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let file = kubeconfig(&format!("http://127.0.0.1:{port}"));
    let error = why_not(file.path()).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn credentials_that_are_not_accepted_are_told_apart() {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let file = kubeconfig(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        let body = r#"{"kind":"Status","code":401,"message":"token expired"}"#;
        let answer = format!(
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let error = why_not(file.path()).await;
    assert!(matches!(error, ConnectError::Unauthorized { .. }));
    assert!(error.to_string().contains("token expired"), "{error}");
}
