//! A real kube-apiserver with its etcd, on random loopback ports, with nothing else of a cluster:
//! no controllers, no scheduler, no nodes.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::programs::{Programs, Source};
use crate::raw::Request;

/// How long the API may take to become ready; on an idle machine it needs 3 s.
const START: Duration = Duration::from_secs(90);

/// The running programs. They are killed and their data is removed when this is dropped.
pub struct RealApi {
    programs: Programs,
    etcd: Process,
    apiserver: Process,
    port: u16,
    etcd_url: String,
    etcd_arguments: Vec<String>,
    arguments: Vec<String>,
    kubeconfig: String,
    // Last: it is removed after the programs have ended.
    folder: TempDir,
}

impl RealApi {
    /// Starts both programs and waits until the API is ready.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more flags for kube-apiserver, which win over those that it has already.
    pub async fn start_with(flags: &[&str]) -> anyhow::Result<Self> {
        let source = Source::locate().map_err(|missing| anyhow::anyhow!("{missing}"))?;
        let programs = source.programs()?;
        // A free port can be taken by someone else before the program listens on it.
        let mut last = None;
        for _ in 0..3 {
            match Self::start_once(&programs, flags).await {
                Ok(api) => return Ok(api),
                Err(why) => last = Some(why),
            }
        }
        Err(last.context("unreachable: three tries were made")?)
    }

    async fn start_once(programs: &Programs, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bitts-e2e-").tempdir()?;
        let [client, peer, port] = free_ports()?;
        let credentials = Credentials::write(&folder)?;
        let file = |name: &str| folder.path().join(name).display().to_string();
        let etcd_arguments = vec![
            format!("--data-dir={}", file("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        let mut etcd = Process::start(programs.etcd(), &etcd_arguments, folder.path())?;
        etcd.check_running()?;
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{client}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", file("serving.crt")),
            format!("--tls-private-key-file={}", file("serving.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!(
                "--service-account-signing-key-file={}",
                file("accounts.key")
            ),
            // Without the controller that makes the accounts it would refuse every pod.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            // As kubeadm and the others have it: the agent is such a pod.
            "--allow-privileged=true".to_owned(),
        ];
        arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        let apiserver = Process::start(programs.apiserver(), &arguments, folder.path())?;
        let kubeconfig = credentials.kubeconfig(port);
        let etcd_url = format!("http://127.0.0.1:{client}");
        let programs = programs.clone();
        let mut api = Self {
            programs,
            etcd,
            apiserver,
            port,
            etcd_url,
            etcd_arguments,
            arguments,
            kubeconfig,
            folder,
        };
        if let Err(why) = api.wait_until_ready().await {
            // Kept, since the error names the logs in it.
            api.folder.disable_cleanup(true);
            return Err(why);
        }
        Ok(api)
    }

    /// The programs that it was started from.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A kubeconfig with full rights, as text.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// A new client; nothing is shared with other clients, and nothing is retried.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        client_for(&self.kubeconfig).await
    }

    /// The id of the process kube-apiserver.
    pub fn apiserver_pid(&self) -> anyhow::Result<u32> {
        self.apiserver.pid()
    }

    /// Kills kube-apiserver as a crash would. etcd keeps the data.
    pub fn kill_apiserver(&mut self) {
        self.apiserver.kill();
    }

    /// Starts kube-apiserver again, on the same port and the same data.
    pub async fn restart_apiserver(&mut self) -> anyhow::Result<()> {
        self.kill_apiserver();
        self.apiserver = Process::start(
            self.programs.apiserver(),
            &self.arguments,
            self.folder.path(),
        )?;
        self.wait_until_ready().await
    }

    /// Kills etcd as a crash would, while kube-apiserver goes on without it, and starts it again on
    /// the same data after `outage`.
    pub async fn restart_etcd(&mut self, outage: Duration) -> anyhow::Result<()> {
        self.etcd.kill();
        tokio::time::sleep(outage).await;
        self.etcd = Process::start(
            self.programs.etcd(),
            &self.etcd_arguments,
            self.folder.path(),
        )?;
        self.wait_until_ready().await
    }

    /// Makes the API forget what was before now: compacts etcd, and starts kube-apiserver anew since
    /// it keeps recent events in memory.
    pub async fn forget_history(&mut self) -> anyhow::Result<()> {
        let etcd = kube::Client::try_from(kube::Config::new(self.etcd_url.parse()?))?;
        let call = async |path: &str, body: Value| {
            Request::new("POST", path, body)
                .send(&etcd)
                .await?
                .expect(200)
        };
        let any = call("/v3/kv/range", json!({"key": BASE64_STANDARD.encode("x")})).await?;
        let revision = any["header"]["revision"].clone();
        call(
            "/v3/kv/compaction",
            json!({"revision": revision, "physical": true}),
        )
        .await?;
        self.restart_apiserver().await
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client = self.client().await?;
        let start = Instant::now();
        let mut told = start;
        loop {
            self.etcd.check_running()?;
            self.apiserver.check_running()?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            match client.request_text(request).await {
                Ok(_) => break,
                Err(why) if start.elapsed() > START => {
                    let words = self.apiserver.last_words();
                    return Err(why).with_context(|| {
                        format!("kube-apiserver was not ready in {START:?}.\n{words}")
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            if told.elapsed() > Duration::from_secs(2) {
                told = Instant::now();
                let seconds = start.elapsed().as_secs();
                eprintln!(
                    "waiting for kube-apiserver on port {} ({seconds} s)",
                    self.port
                );
            }
        }
        // Ready comes a moment before the default namespace.
        let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client);
        while namespaces.get_opt("default").await?.is_none() {
            anyhow::ensure!(
                start.elapsed() < START,
                "no default namespace after {START:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// A client for `kubeconfig` that does not retry by itself.
pub async fn client_for(kubeconfig: &str) -> anyhow::Result<kube::Client> {
    // An error means that a provider was installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

/// What proves the server to the client and the client to the server.
struct Credentials {
    certificate: String,
    token: String,
}

impl Credentials {
    fn write(folder: &TempDir) -> anyhow::Result<Self> {
        let serving = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let accounts = rcgen::KeyPair::generate()?;
        let token = uuid::Uuid::new_v4().to_string();
        let files = [
            ("serving.crt", serving.cert.pem()),
            ("serving.key", serving.signing_key.serialize_pem()),
            ("accounts.key", accounts.serialize_pem()),
            ("accounts.pub", accounts.public_key_pem()),
            (
                "tokens.csv",
                format!("{token},tests,tests,system:masters\n"),
            ),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text)?;
        }
        Ok(Self {
            certificate: serving.cert.pem(),
            token,
        })
    }

    fn kubeconfig(&self, port: u16) -> String {
        let certificate = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "real", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority-data": BASE64_STANDARD.encode(&self.certificate),
            }}],
            "users": [{"name": "tests", "user": {"token": self.token}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": "tests"}}],
            "current-context": "real",
        });
        certificate.to_string()
    }
}

fn free_ports() -> anyhow::Result<[u16; 3]> {
    let listeners = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
