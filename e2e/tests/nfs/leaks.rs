//! The provisioner of shares as a process killed with SIGKILL at random moments while claims come and go,
//! now and then beside a server that does not answer: afterwards each claim has one directory, and there
//! is no other.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::raw::text;
use bitts_e2e::records::of_volumes;
use bitts_e2e::uml::server::Server;
use bitts_provisioner::{Home, Share, ShareConfig, Store};
use bitts_runtime::{Host, connect};
use serde_json::{Value, json};

/// Makes this program a provisioner of the cluster that this file names.
const PROVISIONER: &str = "bitts_guest_provisioner";
const KUBECONFIG: &str = "/mnt/leaks-kubeconfig";
const LOG: &str = "/mnt/provisioner.log";
/// How often it is killed unless BITTS_E2E_KILLS says otherwise.
const KILLS: u32 = 6;
/// How long it waits for the server.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long until all has come to rest.
const LONG: Duration = Duration::from_secs(60);

/// Is a provisioner when it was started as one.
pub(crate) fn be_provisioner_if_asked() -> Option<ExitCode> {
    let kubeconfig = std::env::var_os(PROVISIONER)?;
    Some(match be_provisioner(kubeconfig.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the provisioner: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn be_provisioner(kubeconfig: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let host = Host::new(connect(Some(kubeconfig)).await?);
        let config = ShareConfig {
            patience: PATIENCE,
            ..ShareConfig::new()
        };
        Ok(bitts_provisioner::run_shares(&host, config).await?)
    })
}

/// A running provisioner.
struct Provisioner(Child);

impl Provisioner {
    fn start() -> anyhow::Result<Self> {
        let log = fs::File::options().create(true).append(true).open(LOG)?;
        let child = Command::new("/proc/self/exe")
            .env(PROVISIONER, KUBECONFIG)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the provisioner")?;
        Ok(Self(child))
    }

    /// Kills it and nothing else.
    fn kill(&mut self) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the provisioner ended: {ended:?}");
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

/// P12, D10.
pub(crate) fn nothing_leaks_on_a_share() -> anyhow::Result<()> {
    let kills = match std::env::var("BITTS_E2E_KILLS") {
        Ok(text) => text.parse().context("BITTS_E2E_KILLS")?,
        Err(_) => KILLS,
    };
    let mut server = Server::start(1, &["a"])?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let cluster = Cluster::start(Kind::Served).await?;
        fs::write(KUBECONFIG, cluster.kubeconfig().context("it is served")?)?;
        let api = Scope::new(Arc::new(cluster)).await?;
        let host = Host::new(api.client());
        let story = async {
            let ended = killed(&api, &mut server, kills).await;
            host.shutdown().cancel();
            ended
        };
        let options = bitts_binder::Options::default();
        let (binder, ended) = tokio::join!(bitts_binder::run(&host, options, None), story);
        binder?;
        ended.with_context(|| {
            let said = fs::read_to_string(LOG).unwrap_or_default();
            let lines: Vec<_> = said.lines().rev().take(20).collect();
            lines.join("\n")
        })
    })
}

async fn killed(api: &Scope, server: &mut Server, kills: u32) -> anyhow::Result<()> {
    let options = "vers=4.2";
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "nfs"}, "provisioner": bitts_provisioner::NFS,
        "mountOptions": [options],
        "parameters": {"server": server.address(), "share": server.path("a", options)}});
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    api.post(classes, class).await?.expect(201)?;
    let mut provisioner = Provisioner::start()?;
    let start = Instant::now();
    let (mut made, mut hung) = (0_i64, 0);
    for kill in 0..kills {
        let hangs = kill % 3 == 2;
        if hangs {
            server.drop_packets(true)?;
            hung += 1;
        }
        for _ in 0..4 {
            let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": format!("c{made}")}, "spec": {"storageClassName": "nfs",
                    "accessModes": ["ReadWriteMany"],
                    "resources": {"requests": {"storage": "1Mi"}}}});
            made += 1;
            api.post(&api.claims(""), claim).await?.expect(201)?;
        }
        // Of those of the last round and of this one.
        for n in [made - 1, made - 3, made - 6, made - 8] {
            if n >= 0 && n % 5 != 0 {
                let path = api.claims(&format!("/c{n}"));
                let answer = api.delete(&path, Value::Null).await?;
                ensure!(matches!(answer.status, 200 | 404), "{answer}");
            }
        }
        let moment = u64::from(kill * 211 % 700);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        provisioner.kill()?;
        if hangs {
            server.drop_packets(false)?;
        }
        provisioner = Provisioner::start()?;
    }
    let living = settled(api, server).await?;
    provisioner.kill()?;
    nothing_is_orphaned(api, server, options).await?;
    println!(
        "{kills} kills, {hung} of them beside a hung server: {made} claims made, {living} live, each has \
         one directory. {:.0?}",
        start.elapsed()
    );
    Ok(())
}

/// Waits until each claim that is there has one volume and one directory, and returns how many.
async fn settled(api: &Scope, server: &Server) -> anyhow::Result<usize> {
    let start = Instant::now();
    loop {
        let claims = items(api, &api.claims("")).await?;
        let volumes = items(api, "/api/v1/persistentvolumes").await?;
        let bound = |claim: &Value| text(claim, "/status/phase") == "Bound";
        let last = |v: &Value| {
            let path = text(v, "/spec/nfs/path");
            path.rsplit('/').next().unwrap_or_default().to_owned()
        };
        let mut expected: Vec<_> = volumes.iter().map(last).collect();
        expected.sort_unstable();
        let own = |place: &str| names(&server.export("a").join(".bitts").join(place));
        let mut there = names(&server.export("a"))?;
        there.retain(|name| name != ".bitts");
        let counts = (
            of_volumes(&server.export("a"))?.len(),
            own("trash")?.len(),
            own("leaving")?.len(),
        );
        let is_settled = claims.iter().all(bound)
            && volumes.len() == claims.len()
            && there == expected
            && counts == (claims.len(), 0, 0);
        if is_settled {
            return Ok(claims.len());
        }
        ensure!(
            start.elapsed() < LONG,
            "{} claims, {} volumes, {} directories; records, trash, leaving: {counts:?}",
            claims.len(),
            volumes.len(),
            there.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// As `bitts orphans` looks, through a mount of its own.
async fn nothing_is_orphaned(api: &Scope, server: &Server, options: &str) -> anyhow::Result<()> {
    let share = Share {
        server: server.address().into(),
        path: server.path("a", options).into(),
        options: [options.into()].into(),
    };
    let store = Store::share(share.clone(), LONG).await?;
    let census = store.census().await?;
    let mut volumes = Vec::new();
    for object in items(api, "/api/v1/persistentvolumes").await? {
        let read = bitts_api::Kind::Volume.read(object.to_string().as_bytes())?;
        if let bitts_api::Object::Volume(volume) = read {
            volumes.push((*volume).clone());
        }
    }
    let mut claims = Vec::new();
    for object in items(api, &api.claims("")).await? {
        let read = bitts_api::Kind::Claim.read(object.to_string().as_bytes())?;
        if let bitts_api::Object::Claim(claim) = read {
            claims.push((*claim).clone());
        }
    }
    ensure!(!volumes.is_empty() && volumes.len() == claims.len());
    let roots = [(store.name(), census)];
    let found = bitts_provisioner::orphans(&Home::Share(share), &roots, &volumes, &claims);
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

async fn items(api: &Scope, path: &str) -> anyhow::Result<Vec<Value>> {
    match api.get(path).await?.expect(200)?["items"].take() {
        Value::Array(items) => Ok(items),
        _ => anyhow::bail!("{path} has no items"),
    }
}

/// What is in a directory, sorted, but what was cut off while it was written; nothing where there is none.
fn names(path: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.ends_with(".new"));
    names.sort();
    Ok(names)
}
