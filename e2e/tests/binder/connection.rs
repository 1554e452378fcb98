//! How a node's roles are connected to the API: all of a process shares one connection, and one that
//! fell silent is given up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_e2e::cluster::Kind;
use bitts_e2e::outage::Site;
use bitts_e2e::raw::Request;
use bitts_e2e::suite::Suite;
use futures::future::try_join_all;
use kube::Client;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is late counts for a lease, which lasts 15 s: another server is reached before.
const GIVEN_UP: Duration = Duration::from_secs(15);

const KINDS: &[Kind] = &[Kind::Served, Kind::Real];

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own(
        "connection::a_hundred_requests_share_one",
        KINDS,
        a_hundred_requests_share_one,
    );
    suite.add_own(
        "connection::one_that_fell_silent_is_given_up",
        KINDS,
        one_that_fell_silent_is_given_up,
    );
}

/// What stands between a client and the API: it counts connections, and can leave all that there are
/// open without carrying anything any more.
struct Between {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    silent: watch::Sender<()>,
}

impl Between {
    async fn start(api: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let taken = Arc::new(AtomicUsize::new(0));
        let (silent, told) = watch::channel(());
        let count = taken.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut told = told.clone();
                told.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(api).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        Ok(()) = told.changed() => std::future::pending::<()>().await,
                    }
                });
            }
        });
        Ok(Self {
            address,
            taken,
            silent,
        })
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// An API, what stands before it, and a client as roles have one.
async fn connected(kind: Kind) -> anyhow::Result<(Site, Between, Client)> {
    let site = Site::start(kind).await?;
    let (before, rest) = site
        .kubeconfig()
        .split_once("https://")
        .context("no server in the kubeconfig")?;
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || ".:".contains(c)))
        .unwrap_or(rest.len());
    let between = Between::start(rest[..end].parse()?).await?;
    let changed = format!("{before}https://{}{}", between.address, &rest[end..]);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, changed)?;
    let client = bitts_runtime::connect_shared(Some(&file)).await?;
    Ok((site, between, client))
}

async fn a_hundred_requests_share_one(kind: Kind) -> anyhow::Result<()> {
    let (_site, between, client) = connected(kind).await?;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    let request = Request::new("POST", "/api/v1/nodes", node);
    request.send(&client).await?.expect(201)?;
    let reads = (0..100).map(|_| async {
        let request = Request::new("GET", "/api/v1/nodes/n", Value::Null);
        request.send(&client).await?.expect(200)
    });
    try_join_all(reads).await?;
    ensure!(between.taken() == 1, "{} connections", between.taken());
    Ok(())
}

async fn one_that_fell_silent_is_given_up(kind: Kind) -> anyhow::Result<()> {
    let (_site, between, client) = connected(kind).await?;
    between.silent.send(())?;
    let since = Instant::now();
    let request = || Request::new("GET", "/api/v1/nodes", Value::Null);
    // As a role would: a request has its deadline, and is sent again.
    loop {
        let patience = Duration::from_secs(2);
        let answer = tokio::time::timeout(patience, request().send(&client)).await;
        if let Ok(Ok(answer)) = answer {
            answer.expect(200)?;
            break;
        }
        ensure!(since.elapsed() < GIVEN_UP, "no answer: {answer:?}");
    }
    ensure!(between.taken() == 2, "{} connections", between.taken());
    Ok(())
}
