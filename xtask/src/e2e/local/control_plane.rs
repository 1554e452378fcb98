//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler as processes in the machines'
//! network, with certificates and tokens made for this cluster.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use xshell::{Shell, cmd};

use super::machine;
use super::network::{self, API, NAMESPACE, SERVICES};
use crate::e2e::progress::{output, until};
use crate::e2e::provider::Kubectl;
use crate::e2e::rights;

/// On an idle machine it is ready after four seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// What the API server was asked for.
pub(super) const AUDIT: &str = "audit";
/// For whom certificates are made, and what each may be.
const EXTENSIONS: &str = "\
[req]
distinguished_name = none
[none]
[authority]
basicConstraints = critical, CA:TRUE
[server]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = IP:10.91.0.1, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
";

/// The programs, and where their state and logs are.
pub(super) struct ControlPlane<'a> {
    pub(super) programs: &'a Path,
    pub(super) folder: PathBuf,
    pub(super) kubectl: &'a Kubectl,
}

impl ControlPlane<'_> {
    /// Certificates, tokens, and a kubeconfig for the user and for each node.
    pub(super) fn credentials(&self, sh: &Shell, machines: &Path) -> Result<()> {
        sh.create_dir(&self.folder)?;
        let config = self.file("openssl.cnf");
        sh.write_file(&config, EXTENSIONS)?;
        let make = |name: &str, subject: &str, kind: &str, signed: bool| -> Result<()> {
            let (key, certificate) = (self.file(&format!("{name}.key")), self.crt(name));
            let key = [
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-days",
                "30",
            ];
            let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
            let with = ["-config", &config, "-extensions", kind, "-subj", subject];
            let (ca, ca_key) = (self.crt("ca"), self.file("ca.key"));
            let by = ["-CA", &ca, "-CAkey", &ca_key];
            let by = if signed { &by[..] } else { &[] };
            output(cmd!(
                sh,
                "openssl req -x509 {curve...} {key...} {with...} {by...}"
            ))
            .map(drop)
        };
        make("ca", "/CN=bitts-e2e", "authority", false)?;
        make("apiserver", "/CN=kube-apiserver", "server", true)?;
        let kubelets = "/O=system:masters/CN=kube-apiserver-kubelet-client";
        make("kubelets", kubelets, "client", true)?;
        let accounts = self.file("accounts.key");
        let curve = [
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ];
        output(cmd!(sh, "openssl genpkey {curve...} -out {accounts}"))?;
        let public = self.file("accounts.pub");
        output(cmd!(
            sh,
            "openssl pkey -in {accounts} -pubout -out {public}"
        ))?;

        let mut tokens = String::new();
        let mut user = |name: &str, group: &str| -> Result<String> {
            let token = output(cmd!(sh, "openssl rand -hex 16"))?;
            tokens.push_str(&format!("{token},{name},{name},{group}\n"));
            self.kubeconfig(&token)
        };
        let admin = user("admin", "system:masters")?;
        private(&self.kubectl.kubeconfig, &admin)?;
        for node in machine::nodes() {
            let folder = node.folder(machines);
            let kubelet = user(&format!("system:node:{}", node.name), "system:nodes")?;
            private(&folder.join("kubeconfig"), &kubelet)?;
            sh.copy_file(self.crt("ca"), folder)?;
        }
        sh.write_file(self.file("audit-policy.json"), rights::POLICY)?;
        private(Path::new(&self.file("tokens.csv")), &tokens)
    }

    fn kubeconfig(&self, token: &str) -> Result<String> {
        let authority = output_base64(Path::new(&self.crt("ca")))?;
        let config = json!({"apiVersion": "v1", "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": {"server": format!("https://{API}"),
                "certificate-authority-data": authority}}],
            "users": [{"name": "e2e", "user": {"token": token}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
            "current-context": "e2e"});
        Ok(config.to_string())
    }

    /// Starts all of them and waits until the API is ready.
    pub(super) fn start(&self, sh: &Shell, controllers: &str) -> Result<()> {
        let data = self.file("etcd");
        self.spawn(
            "etcd",
            &[
                &format!("--data-dir={data}"),
                // Nothing outlives the cluster that a disk would have to hold.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        )?;
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.file(name));
        self.spawn(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379",
                &format!("--bind-address={API}"),
                &format!("--advertise-address={API}"),
                "--secure-port=443",
                "--endpoint-reconciler-type=none",
                &format!("--service-cluster-ip-range={SERVICES}"),
                &file("tls-cert-file", "apiserver.crt"),
                &file("tls-private-key-file", "apiserver.key"),
                &file("token-auth-file", "tokens.csv"),
                &file("kubelet-client-certificate", "kubelets.crt"),
                &file("kubelet-client-key", "kubelets.key"),
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc",
                &file("service-account-key-file", "accounts.pub"),
                &file("service-account-signing-key-file", "accounts.key"),
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged",
                &file("audit-policy-file", "audit-policy.json"),
                &file("audit-log-path", AUDIT),
            ],
        )?;
        let log = self.file("kube-apiserver.log");
        until("the API to be ready", PATIENCE, || {
            let ready = self.kubectl.run(sh, &["get", "--raw=/readyz"]).is_ok();
            Ok(ready
                && self
                    .kubectl
                    .run(sh, &["get", "namespace", "default"])
                    .is_ok())
        })
        .with_context(|| format!("its log is {log}"))?;
        self.spawn(
            "kube-scheduler",
            &[&self.as_admin(), "--leader-elect=false", "--secure-port=0"],
        )?;
        self.start_controllers(controllers)?;
        let account = ["-n", "default", "get", "serviceaccount", "default"];
        until("the default service account", PATIENCE, || {
            Ok(self.kubectl.run(sh, &account).is_ok())
        })
    }

    /// Starts kube-controller-manager anew unless it runs with this flag.
    pub(super) fn set_controllers(&self, sh: &Shell, flag: &str) -> Result<()> {
        let running = network::processes(sh);
        let said = format!(" {flag} ");
        let is_so = running
            .iter()
            .any(|(_, line)| line.contains(CONTROLLER_MANAGER) && line.contains(&said));
        if is_so {
            return Ok(());
        }
        network::end(sh, "TERM", CONTROLLER_MANAGER)?;
        // The next one does not wait for what the last one held.
        let lease = ["lease", CONTROLLER_MANAGER, "--ignore-not-found"];
        let delete = ["-n", "kube-system", "delete"];
        self.kubectl.run(sh, &[&delete[..], &lease].concat())?;
        self.start_controllers(flag)
    }

    fn start_controllers(&self, flag: &str) -> Result<()> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.file(name));
        self.spawn(
            CONTROLLER_MANAGER,
            &[
                &self.as_admin(),
                flag,
                &file("service-account-private-key-file", "accounts.key"),
                &file("root-ca-file", "ca.crt"),
                "--secure-port=0",
                // One that stops leading ends, and no kubelet would start it again.
                "--leader-elect-lease-duration=120s",
                "--leader-elect-renew-deadline=110s",
            ],
        )
    }

    fn as_admin(&self) -> String {
        format!("--kubeconfig={}", self.kubectl.kubeconfig.display())
    }

    /// Starts a program that stays when this one ends.
    fn spawn(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let log = self.file(&format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        Command::new("setsid")
            .args(["ip", "netns", "exec", NAMESPACE])
            .arg(self.programs.join(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn crt(&self, name: &str) -> String {
        self.file(&format!("{name}.crt"))
    }
}

/// Whoever reads such a file may do anything with the cluster.
fn private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(fs::write(path, text)?)
}

fn output_base64(file: &Path) -> Result<String> {
    let sh = Shell::new()?;
    output(cmd!(sh, "base64 --wrap=0 {file}"))
}
