//! The cluster as a user has it: kubectl, and time to wait.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// How long anything may take. A busy machine is slow; what is this late is wrong.
const PATIENCE: Duration = Duration::from_secs(150);

/// The pods that look at nodes and at the share.
const LOOKS: &str = "looks-at";
const FOR_EVER: &str = "sleep 1000000";
/// How long the client of the share may still see what was there before.
const FORGETS: Duration = Duration::from_secs(5);

/// A cluster on which bitts is installed.
#[derive(Clone)]
pub(crate) struct Cluster {
    kubectl: PathBuf,
    pub(crate) nfs_server: String,
    pub(crate) pod_image: String,
    roles: Vec<String>,
    abilities: Vec<String>,
    /// The command that changes the cluster.
    change: Vec<String>,
}

impl Cluster {
    /// What `cargo xtask e2e` says in variables.
    pub(crate) fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set: `cargo xtask e2e`"))
        };
        variable("KUBECONFIG")?;
        let list = |name: &str| -> Vec<String> {
            let words = std::env::var(name).unwrap_or_default();
            let words = words.split([',', ' ']).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        variable("BITTS_E2E_ROLES")?;
        let kubectl = std::env::var_os("BITTS_E2E_KUBECTL");
        Ok(Self {
            kubectl: kubectl.unwrap_or_else(|| "kubectl".into()).into(),
            nfs_server: variable("BITTS_E2E_NFS_SERVER")?,
            pod_image: variable("BITTS_E2E_POD_IMAGE")?,
            roles: list("BITTS_E2E_ROLES"),
            abilities: list("BITTS_E2E_ABILITIES"),
            change: list("BITTS_E2E_CHANGE"),
        })
    }

    /// Whether the role is installed.
    pub(crate) fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|installed| installed == role)
    }

    /// Whether the cluster can do what not every one can.
    pub(crate) fn can(&self, ability: &str) -> bool {
        self.abilities.iter().any(|known| known == ability)
    }

    /// Whether it can be changed by who made it.
    pub(crate) fn can_change(&self) -> bool {
        !self.change.is_empty()
    }

    /// Has who made the cluster change it.
    pub(crate) fn change(&self, arguments: &[&str]) -> Result<()> {
        let (program, first) = self.change.split_first().context("BITTS_E2E_CHANGE")?;
        let output = Command::new(program)
            .args(first)
            .args(arguments)
            // It belongs to the workspace, not to this package.
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .output()
            .with_context(|| format!("cannot start {program}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(())
    }

    /// What kubectl prints, or its error.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new(&self.kubectl)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no input")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let arguments = arguments.join(" ");
        ensure!(output.status.success(), "kubectl {arguments}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same, as JSON.
    pub(crate) fn read(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) fn apply(&self, namespace: &str, object: &Value) -> Result<()> {
        let apply = ["-n", namespace, "apply", "-f", "-"];
        self.kubectl_with(&apply, &object.to_string())?;
        Ok(())
    }

    /// An object, or null where there is none.
    pub(crate) fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Value> {
        let get = [
            "-n",
            namespace,
            "get",
            kind,
            name,
            "--ignore-not-found",
            "-o",
            "json",
        ];
        let text = self.kubectl(&get)?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until an object is as it should be.
    pub(crate) fn until(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let start = Instant::now();
        loop {
            let object = match self.get(namespace, kind, name) {
                // An API server that is too busy for one answer may have the next.
                Err(_) if start.elapsed() < PATIENCE => {
                    sleep(Duration::from_secs(1));
                    continue;
                }
                object => object?,
            };
            if is(&object) {
                return Ok(object);
            }
            if start.elapsed() > PATIENCE {
                let events = self.kubectl(&["-n", namespace, "get", "events"])?;
                bail!(
                    "{kind} {name} is not {what} after {PATIENCE:?}: its status is {}\n{events}",
                    object["status"]
                );
            }
            // kubectl takes a tenth of a second of a processor each time.
            sleep(Duration::from_millis(500));
        }
    }

    pub(crate) fn until_phase(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        phase: &str,
    ) -> Result<Value> {
        // A pod that failed never does anything else.
        let ends = |object: &Value| object["status"]["phase"] == "Failed" && phase == "Succeeded";
        let is = |object: &Value| object["status"]["phase"] == phase || ends(object);
        let object = self.until(namespace, kind, name, phase, is)?;
        if ends(&object) {
            let said = self.kubectl(&["-n", namespace, "logs", name]);
            bail!("{kind} {name} failed: {}", said.unwrap_or_default());
        }
        Ok(object)
    }

    pub(crate) fn until_gone(&self, namespace: &str, kind: &str, name: &str) -> Result<()> {
        self.until(namespace, kind, name, "gone", Value::is_null)?;
        Ok(())
    }

    /// Deletes objects that may not be there, and waits until they are gone.
    pub(crate) fn delete(&self, namespace: &str, kind: &str, name: &str) -> Result<()> {
        let delete = ["-n", namespace, "delete", kind, name, "--ignore-not-found"];
        self.kubectl(&[&delete[..], &["--wait=false", "--grace-period=1"]].concat())?;
        self.until_gone(namespace, kind, name)
    }

    /// The table that `kubectl get` prints: for each row, its cells by column.
    pub(crate) fn table(&self, namespace: &str, kind: &str, name: &str) -> Result<Vec<Value>> {
        Ok(rows(&self.kubectl(&["-n", namespace, "get", kind, name])?))
    }

    /// Runs a shell script in a container of a pod.
    pub(crate) fn sh(&self, namespace: &str, pod: &str, script: &str) -> Result<String> {
        self.kubectl(&["-n", namespace, "exec", pod, "--", "sh", "-euc", script])
    }

    /// The same, again and again until it succeeds.
    pub(crate) fn until_sh(&self, namespace: &str, pod: &str, script: &str) -> Result<()> {
        self.until_sh_within(PATIENCE, namespace, pod, script)
    }

    fn until_sh_within(
        &self,
        patience: Duration,
        namespace: &str,
        pod: &str,
        script: &str,
    ) -> Result<()> {
        let start = Instant::now();
        while let Err(error) = self.sh(namespace, pod, script) {
            if start.elapsed() > patience {
                return Err(error.context(format!("not so after {patience:?}: {script}")));
            }
            sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// The nodes that take pods, in the order of their names.
    pub(crate) fn workers(&self) -> Result<Vec<String>> {
        let nodes = self.read(&["get", "nodes"])?;
        let takes = |node: &&Value| node["spec"]["taints"].as_array().is_none_or(Vec::is_empty);
        let nodes = nodes["items"].as_array().into_iter().flatten();
        let names = nodes.filter(takes).map(|node| &node["metadata"]["name"]);
        let names = names.map(|name| name.as_str().unwrap_or_default().to_owned());
        Ok(names.collect())
    }

    /// Runs a shell script on a node, with its root directory as /node.
    pub(crate) fn on_node(&self, node: &str, script: &str) -> Result<()> {
        let name = format!("{LOOKS}-{node}");
        self.stays(&name, || {
            let root = json!({"hostPath": {"path": "/"}});
            let mut pod = self.looker(&name, ("/node", root));
            pod["spec"]["nodeName"] = json!(node);
            Ok(pod)
        })?;
        self.sh("default", &name, script)?;
        Ok(())
    }

    /// Runs a shell script in a node itself, with its programs and mounts.
    pub(crate) fn in_node(&self, node: &str, script: &str) -> Result<()> {
        let name = format!("{LOOKS}-in-{node}");
        self.stays(&name, || {
            let mut pod = self.pod(&name, FOR_EVER, &[]);
            pod["metadata"]["labels"] = json!({"app": LOOKS});
            pod["spec"]["nodeName"] = json!(node);
            pod["spec"]["hostPID"] = json!(true);
            pod["spec"]["shareProcessNamespace"] = json!(false);
            pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
            Ok(pod)
        })?;
        let nsenter = ["nsenter", "--target=1", "--mount", "--"];
        let exec = ["-n", "default", "exec", &name, "--"];
        let script = ["sh", "-euc", script];
        self.kubectl(&[&exec[..], &nsenter, &script].concat())?;
        Ok(())
    }

    /// Runs a shell script with what the NFS server exports as /share: again for as long as a client that
    /// is told to remember nothing may remember.
    pub(crate) fn on_share(&self, script: &str) -> Result<()> {
        let name = format!("{LOOKS}-share");
        self.stays(&name, || {
            self.apply("", &self.share(&name))?;
            let by_name = json!({"storageClassName": "", "volumeName": name,
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}}});
            let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "labels": {"app": LOOKS}}, "spec": by_name});
            self.apply("default", &claim)?;
            let share = json!({"persistentVolumeClaim": {"claimName": name}});
            let mut pod = self.looker(&name, ("/share", share));
            // The other's power may be cut.
            pod["spec"]["nodeName"] = json!(self.workers()?.first());
            Ok(pod)
        })?;
        self.until_sh_within(FORGETS, "default", &name, script)
    }

    /// A pod that is made once and stays, as tests look often.
    fn stays(&self, name: &str, pod: impl FnOnce() -> Result<Value>) -> Result<()> {
        static ONE_MAKES_IT: Mutex<()> = Mutex::new(());
        let makes = ONE_MAKES_IT.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get("default", "pod", name)?.is_null() {
            self.apply("default", &pod()?)?;
        }
        drop(makes);
        self.until_phase("default", "pod", name, "Running")?;
        Ok(())
    }

    /// Deletes what stayed to look, and waits: the next run's tests make their own.
    pub(crate) fn look_no_more(&self) {
        let label = format!("app={LOOKS}");
        let all = "pods,persistentvolumeclaims,persistentvolumes";
        let delete = ["-n", "default", "delete", all, "-l", &label];
        undo(self, &[&delete[..], &["--timeout=120s"]].concat());
    }

    /// A volume of all that the NFS server exports.
    fn share(&self, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": {"app": LOOKS}},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
                "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
                "mountOptions": ["noac", "lookupcache=none"],
                "claimRef": {"namespace": "default", "name": name},
                "nfs": {"server": self.nfs_server, "path": "/export"}}})
    }

    fn looker(&self, name: &str, (path, mut volume): (&str, Value)) -> Value {
        let mut pod = self.pod(name, FOR_EVER, &[]);
        pod["metadata"]["labels"] = json!({"app": LOOKS});
        pod["spec"]["restartPolicy"] = json!("Always");
        volume["name"] = json!("looked-at");
        pod["spec"]["volumes"] = json!([volume]);
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "looked-at", "mountPath": path}]);
        pod
    }

    /// A pod that runs a shell script and has claims under /CLAIM.
    pub(crate) fn pod(&self, name: &str, script: &str, claims: &[&str]) -> Value {
        let volume =
            |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
        let mount = |claim: &&str| json!({"name": claim, "mountPath": format!("/{claim}")});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            // Else the shell is the first process of all and not ended by a signal, but after that time.
            "shareProcessNamespace": true,
            "containers": [{"name": "main", "image": self.pod_image,
                "command": ["sh", "-euc", script],
                "volumeMounts": claims.iter().map(mount).collect::<Vec<_>>()}],
            "volumes": claims.iter().map(volume).collect::<Vec<_>>()}})
    }
}

/// A namespace that goes with its test, also where the test fails.
pub(crate) struct Namespace<'a> {
    cluster: &'a Cluster,
    pub(crate) name: String,
}

impl<'a> Namespace<'a> {
    pub(crate) fn new(cluster: &'a Cluster, test: &str) -> Result<Self> {
        let name = format!("e2e-{test}");
        // What a run that was killed left.
        cluster.delete("default", "namespace", &name)?;
        cluster.kubectl(&["create", "namespace", &name])?;
        let account = "serviceaccount";
        cluster.until(&name, account, "default", "there", |found| !found.is_null())?;
        Ok(Self { cluster, name })
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", &self.name, "--wait=false"];
        undo(self.cluster, &delete);
    }
}

/// What is done at the end of a test, whatever came of it.
pub(crate) fn undo(cluster: &Cluster, arguments: &[&str]) {
    if let Err(error) = cluster.kubectl(arguments) {
        let _ = writeln!(std::io::stderr(), "{error:#}");
    }
}

/// A manifest of examples/.
pub(crate) fn example(path: &str) -> Result<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let file = format!("{folder}/{path}");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    Ok(serde_yaml_ng::from_str(&text)?)
}

/// Cells lie below the beginnings of their columns' names, which may hold spaces.
fn rows(table: &str) -> Vec<Value> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let mut columns = Vec::new();
    let mut rest = header;
    while !rest.is_empty() {
        let end = rest.find("   ").map_or(rest.len(), |end| end);
        let next = rest[end..]
            .find(|c| c != ' ')
            .map_or(rest.len(), |gap| end + gap);
        let start = header.len() - rest.len();
        columns.push((&rest[..end], start, start + next));
        rest = &rest[next..];
    }
    let row = |line: &str| {
        let cell = |&(name, start, end): &(&str, usize, usize)| {
            let end = if end == header.len() {
                line.len()
            } else {
                end.min(line.len())
            };
            let text = line.get(start..end).unwrap_or_default().trim();
            (name.to_owned(), json!(text))
        };
        Value::Object(columns.iter().map(cell).collect())
    };
    lines.map(row).collect()
}
