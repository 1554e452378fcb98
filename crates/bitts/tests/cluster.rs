//! bitts on a real kube-apiserver with RBAC: what `deploy/` grants is enough and no more, and a
//! stock controller that does the same work is found.
//!
//! Needs the programs of Kubernetes 1.37 (KUBEBUILDER_ASSETS or PATH); without them each test is
//! skipped and says so, and fails where CI is set.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bitts_e2e::process::Process;
use bitts_e2e::programs::Source;
use bitts_e2e::raw::{Request, text};
use bitts_e2e::real::RealApi;
use serde_json::{Value, json};

const BITTS: &str = env!("CARGO_BIN_EXE_bitts");
const NAMESPACE: &str = "bitts-system";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const OFF: &str = "*,-persistentvolume-binder-controller,-persistentvolumeclaim-protection-controller,\
    -persistentvolume-protection-controller,-ephemeral-volume-controller,\
    -volumeattributesclass-protection-controller";

/// A real API and what runs beside it.
struct Site {
    api: RealApi,
    client: kube::Client,
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Site {
    /// `None` where there are no programs.
    async fn start() -> Option<Self> {
        let programs = match Source::locate() {
            Ok(source) => source.programs().unwrap(),
            Err(missing) => {
                assert!(std::env::var_os("CI").is_none(), "{missing}");
                let _ = writeln!(std::io::stderr(), "skipped: {missing}");
                return None;
            }
        };
        let api = RealApi::start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("admin"), api.kubeconfig()).unwrap();
        Some(Self {
            client: api.client().await.unwrap(),
            programs: programs.apiserver().parent().unwrap().to_owned(),
            api,
            folder,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kubectl apply -f deploy/replace-stock.yaml`, validated by the server.
    fn deploy(&self) {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/replace-stock.yaml");
        let applied = Command::new(self.programs.join("kubectl"))
            .args(["apply", "--validate=strict", "-f"])
            .arg(deploy)
            .env("KUBECONFIG", self.file("admin"))
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        assert!(applied.status.success(), "{}", said(&applied));
    }

    /// A kubeconfig of the service account that the binder is deployed with.
    async fn account(&self) -> PathBuf {
        self.account_of(NAMESPACE, "bitts-controllers").await
    }

    async fn account_of(&self, namespace: &str, name: &str) -> PathBuf {
        let spec = json!({"expirationSeconds": 3600});
        self.token(namespace, name, spec).await
    }

    /// A kubeconfig of a service account as a pod on this node has it: its token names the node.
    async fn account_on(&self, node: &str, namespace: &str, name: &str) -> PathBuf {
        let nodes = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}}});
        self.post("/api/v1/nodes", nodes).await;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": node},
            "spec": {"nodeName": node, "serviceAccountName": name,
                "containers": [{"name": "c", "image": "none"}]}});
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let pod = self.post(&pods, pod).await;
        let spec = json!({"expirationSeconds": 3600, "boundObjectRef":
            {"kind": "Pod", "apiVersion": "v1", "name": node, "uid": pod["metadata"]["uid"]}});
        self.token(namespace, name, spec).await
    }

    async fn token(&self, namespace: &str, name: &str, spec: Value) -> PathBuf {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": spec});
        let token = self.post(&path, request).await;
        let mut config: Value = serde_json::from_str(self.api.kubeconfig()).unwrap();
        config["users"][0]["user"] = json!({"token": token["status"]["token"]});
        let file = self.file(&format!("account-{name}"));
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let mut request = Request::new(method, path, body);
        if method == "PATCH" {
            request.content_type = Some("application/merge-patch+json".to_owned());
        }
        let answer = request.send(&self.client).await.unwrap();
        assert!(answer.status < 300, "{method} {path}: {answer}");
        answer.body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call("POST", path, body).await
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let answer = Request::new("GET", path, Value::Null)
            .send(&self.client)
            .await
            .unwrap();
        (answer.status == 200).then_some(answer.body)
    }

    /// Waits until an object is as it should be; `None` is one that is gone.
    async fn until(&self, path: &str, what: &str, holds: impl Fn(Option<&Value>) -> bool) {
        let start = Instant::now();
        loop {
            let found = self.get(path).await;
            if holds(found.as_ref()) {
                return;
            }
            let log = std::fs::read_to_string(self.file("bitts.log")).unwrap_or_default();
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{path} never was {what}: {found:?}\n{log}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn phase(&self, path: &str, phase: &str) {
        let is = |object: Option<&Value>| object.is_some_and(|o| o["status"]["phase"] == phase);
        self.until(path, phase, is).await;
    }

    /// `bitts run --roles binder` as the deployed account.
    fn binder(&self, kubeconfig: &Path) -> Process {
        let arguments = [
            "run",
            "--roles=binder",
            "--listen=127.0.0.1:0",
            &format!("--lease-namespace={NAMESPACE}"),
            &format!("--kubeconfig={}", kubeconfig.display()),
        ]
        .map(str::to_owned);
        Process::start(Path::new(BITTS), &arguments, self.folder.path()).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("bitts.log")).unwrap_or_default()
    }

    /// The names of the metrics that the binder serves, as docs/metrics.md has them.
    fn metrics(&self) -> Vec<String> {
        let log = self.log();
        let address = log.split("address=").nth(1).expect("where it serves them");
        let address = address.split_whitespace().next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: bitts\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let types = answer.lines().filter_map(|l| l.strip_prefix("# TYPE "));
        let name = |line: &str| {
            let (name, kind) = line.split_once(' ').unwrap();
            let ending = if kind == "counter" { "_total" } else { "" };
            format!("{name}{ending}")
        };
        types.map(name).collect()
    }

    async fn until_logged(&self, what: &str) {
        let start = Instant::now();
        while !self.log().contains(what) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "never {what}:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn stock(&self, controllers: &str) -> Process {
        let arguments = [
            format!("--kubeconfig={}", self.file("admin").display()),
            format!("--controllers={controllers}"),
            "--leader-elect=true".to_owned(),
            "--use-service-account-credentials=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        let program = self.programs.join("kube-controller-manager");
        Process::start(&program, &arguments, self.folder.path()).unwrap()
    }

    /// Runs bitts to its end as the administrator.
    fn bitts(&self, arguments: &[&str]) -> Output {
        Command::new(BITTS)
            .args(arguments)
            .arg("--kubeconfig")
            .arg(self.file("admin"))
            .output()
            .unwrap()
    }

    async fn volume(&self, name: &str, policy: &str) {
        self.post(
            VOLUMES,
            json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": policy, "storageClassName": "by-hand",
                "nfs": {"server": "nowhere", "path": "/"}}}),
        )
        .await;
    }

    async fn claim(&self, name: &str) {
        self.post(
            CLAIMS,
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
                "resources": {"requests": {"storage": "1Gi"}}}}),
        )
        .await;
    }

    /// A pod with an ephemeral volume. Nobody runs it.
    async fn pod(&self, name: &str) {
        self.post(
            "/api/v1/namespaces/default/pods",
            json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "none",
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
                "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec":
                    {"accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
                     "resources": {"requests": {"storage": "1Gi"}}}}}}]}}),
        )
        .await;
    }
}

fn said(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{}{err}", String::from_utf8_lossy(&output.stdout))
}

fn has_finalizer(object: Option<&Value>) -> bool {
    object.is_some_and(|o| text(o, "/metadata/finalizers/0").starts_with("kubernetes.io/"))
}

/// N12: a life in which the binder writes everything that it can write, with what `deploy/` grants.
#[tokio::test]
async fn what_is_deployed_is_enough() {
    let Some(site) = Site::start().await else {
        return;
    };
    site.deploy();
    let account = site.account().await;
    let _binder = site.binder(&account);
    let classes = "/apis/storage.k8s.io/v1/volumeattributesclasses";
    site.post(
        classes,
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
        "metadata": {"name": "gold"}, "driverName": "nobody", "parameters": {"iops": "1"}}),
    )
    .await;
    let class = format!("{classes}/gold");
    site.until(&class, "protected", has_finalizer).await;

    // Bind, protect, create for a pod.
    site.volume("kept", "Retain").await;
    site.claim("data").await;
    let claim = format!("{CLAIMS}/data");
    site.phase(&claim, "Bound").await;
    site.phase(&format!("{VOLUMES}/kept"), "Bound").await;
    site.volume("scratch", "Retain").await;
    site.pod("worker").await;
    let made = format!("{CLAIMS}/worker-scratch");
    site.phase(&made, "Bound").await;

    // Finalizers that are missing are added, and taken off where nothing is used.
    site.call("PATCH", &claim, json!({"metadata": {"finalizers": null}}))
        .await;
    site.until(&claim, "protected again", has_finalizer).await;
    site.call("DELETE", &claim, Value::Null).await;
    site.until(&claim, "gone", |claim| claim.is_none()).await;
    site.phase(&format!("{VOLUMES}/kept"), "Released").await;
    site.call("DELETE", &format!("{VOLUMES}/kept"), Value::Null)
        .await;
    site.until(&format!("{VOLUMES}/kept"), "gone", |volume| {
        volume.is_none()
    })
    .await;
    site.call("DELETE", &class, Value::Null).await;
    site.until(&class, "gone", |class| class.is_none()).await;

    // An event: Delete without anyone who could.
    site.volume("lost", "Delete").await;
    site.claim("short").await;
    site.phase(&format!("{CLAIMS}/short"), "Bound").await;
    site.call("DELETE", &format!("{CLAIMS}/short"), Value::Null)
        .await;
    site.phase(&format!("{VOLUMES}/lost"), "Failed").await;
    site.until("/api/v1/namespaces/default/events", "told", |events| {
        events.is_some_and(|events| events.to_string().contains("VolumeFailedDelete"))
    })
    .await;
    let served = site.metrics();
    assert!(served.len() >= 20, "{served:?}");
    for name in served {
        let row = format!("| `{name}` |");
        assert!(
            include_str!("../../../docs/metrics.md").contains(&row),
            "{row}"
        );
    }
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/bitts-binder");
    let renewed = site.get(&lease).await.expect("the lease")["spec"]["renewTime"].clone();
    site.until(&lease, "renewed", |lease| {
        lease.is_some_and(|l| l["spec"]["renewTime"] != renewed)
    })
    .await;
    let log = site.log();
    assert!(
        !log.contains("orbidden") && !log.contains("may not"),
        "{log}"
    );
}

/// N12, P12: a life in which the provisioner writes everything that it can write, with what `deploy/`
/// grants.
#[tokio::test]
async fn what_is_deployed_is_enough_for_the_provisioner() {
    let Some(site) = Site::start().await else {
        return;
    };
    site.deploy();
    let _binder = site.binder(&site.account().await);
    let account = site
        .account_on("n1", "bitts-nodes", "bitts-provisioner")
        .await;
    let disk = site.file("disk");
    std::fs::create_dir(&disk).unwrap();
    let arguments = [
        "run".to_owned(),
        "--roles=provisioner".to_owned(),
        "--node-name=n1".to_owned(),
        format!("--disks={}", disk.display()),
        // In a pod it is the pod's own.
        "--lease-namespace=bitts-nodes".to_owned(),
        format!("--kubeconfig={}", account.display()),
    ];
    let folder = site.folder.path();
    let provisioner =
        Process::start_as("provisioner", Path::new(BITTS), &arguments, folder).unwrap();
    for (name, size) in [("small", "1Mi"), ("large", "4Ei")] {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name,
                "annotations": {"volume.kubernetes.io/selected-node": "n1"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "bitts-local",
                "resources": {"requests": {"storage": size}}}});
        site.post(CLAIMS, claim).await;
    }
    // Given back to the scheduler, and told.
    let large = format!("{CLAIMS}/large");
    site.until(&large, "given back", |claim| {
        claim.is_some_and(|c| {
            !c.to_string()
                .contains("\"volume.kubernetes.io/selected-node\":")
        })
    })
    .await;
    site.until("/api/v1/namespaces/default/events", "told", |events| {
        events.is_some_and(|events| events.to_string().contains("bytes free"))
    })
    .await;
    // Made, held or not as the policy says, and taken away.
    let small = format!("{CLAIMS}/small");
    site.phase(&small, "Bound").await;
    let claim = site.get(&small).await.unwrap();
    let volume = format!("{VOLUMES}/{}", text(&claim, "/spec/volumeName"));
    site.phase(&volume, "Bound").await;
    for policy in ["Retain", "Delete"] {
        let body = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
        site.call("PATCH", &volume, body).await;
        site.until(&volume, policy, |volume| {
            let held = volume.is_some_and(|v| v.to_string().contains("external-provisioner"));
            held == (policy == "Delete")
        })
        .await;
    }
    site.call("DELETE", &small, Value::Null).await;
    site.until(&volume, "gone", |volume| volume.is_none()).await;
    let log = provisioner.printed();
    assert!(
        !log.contains("orbidden") && !log.contains("may not"),
        "{log}"
    );
}

/// A directory of a node as the provisioner records it.
fn on_node(name: &str, says: &str, affinity: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"bitts.dev/provisioned-on": says}},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "bitts-local",
            "local": {"path": "/var/lib/bitts/a"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [affinity]}]}]}}}})
}

/// The token of one node's provisioner, stolen, writes nothing that is another node's; a token that
/// names no node writes nothing.
#[tokio::test]
async fn a_stolen_token_is_of_no_use_against_other_nodes() {
    let Some(site) = Site::start().await else {
        return;
    };
    site.deploy();
    let stolen = site
        .account_on("n1", "bitts-nodes", "bitts-provisioner")
        .await;
    let stolen = bitts_runtime::connect(Some(&stolen)).await.unwrap();
    let homeless = site.account_of("bitts-nodes", "bitts-provisioner").await;
    let homeless = bitts_runtime::connect(Some(&homeless)).await.unwrap();
    let status = async |client: &kube::Client, method: &str, path: &str, body: &Value| {
        let mut request = Request::new(method, path, body.clone());
        if method == "PATCH" {
            request.content_type = Some("application/merge-patch+json".to_owned());
        }
        let answer = request.send(client).await.unwrap();
        (answer.status, answer.body.to_string())
    };
    // A policy holds a moment after it was made.
    let start = Instant::now();
    let probe = on_node("probe", "n2", "n2");
    let dry = format!("{VOLUMES}?dryRun=All");
    while status(&stolen, "POST", &dry, &probe).await.0 != 422 {
        assert!(start.elapsed() < Duration::from_secs(60), "no policy");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let theirs = format!("{VOLUMES}/theirs");
    let ours = format!("{VOLUMES}/ours");
    site.post(VOLUMES, on_node("theirs", "n2", "n2")).await;
    for (name, node) in [("theirs", "n2"), ("ours", "n1")] {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "annotations": {"volume.kubernetes.io/selected-node": node}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "bitts-local",
                "resources": {"requests": {"storage": "1Gi"}}}});
        site.post(CLAIMS, claim).await;
    }
    let mut everything = on_node("all", "n1", "n1");
    everything["spec"]["local"] = Value::Null;
    everything["spec"]["hostPath"] = json!({"path": "/"});
    let mut anywhere = on_node("anywhere", "n1", "n1");
    anywhere["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["operator"] =
        json!("NotIn");
    let note = json!({"metadata": {"labels": {"a": "b"}}});
    let taken = json!({"metadata": {"annotations": {"bitts.dev/provisioned-on": "n1"}}});
    let given = json!({"metadata": {"annotations": {"bitts.dev/provisioned-on": "n2"}}});
    let back = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": null}}});
    let grown = json!({"status": {"allocatedResources": {"storage": "1Gi"}}});
    let room = |name: &str, node: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity",
            "metadata": {"name": name}, "storageClassName": "bitts-local", "capacity": "1Gi",
            "nodeTopology": {"matchLabels": {"kubernetes.io/hostname": node}}})
    };
    let rooms = "/apis/storage.k8s.io/v1/namespaces/bitts-nodes/csistoragecapacities";
    site.post(rooms, room("theirs", "n2")).await;
    let (made, changed, done) = (201, 200, 200);
    let refused = 422;
    for (client, method, path, body, expected, words) in [
        (
            &homeless,
            "POST",
            VOLUMES,
            &on_node("a", "n1", "n1"),
            refused,
            "names no node",
        ),
        (
            &stolen,
            "POST",
            VOLUMES,
            &on_node("a", "n2", "n1"),
            refused,
            "not one of node n1",
        ),
        (
            &stolen,
            "POST",
            VOLUMES,
            &on_node("a", "n1", "n2"),
            refused,
            "only node n1 has",
        ),
        (
            &stolen,
            "POST",
            VOLUMES,
            &everything,
            refused,
            "only node n1 has",
        ),
        (
            &stolen,
            "POST",
            VOLUMES,
            &anywhere,
            refused,
            "only node n1 has",
        ),
        (
            &stolen,
            "POST",
            VOLUMES,
            &on_node("ours", "n1", "n1"),
            made,
            "",
        ),
        (
            &stolen,
            "PATCH",
            &theirs,
            &note,
            refused,
            "not one of node n1",
        ),
        (
            &stolen,
            "PATCH",
            &theirs,
            &taken,
            refused,
            "not one of node n1",
        ),
        (
            &stolen,
            "DELETE",
            &theirs,
            &Value::Null,
            refused,
            "not one of node n1",
        ),
        (
            &stolen,
            "PATCH",
            &ours,
            &given,
            refused,
            "not one of node n1",
        ),
        (&stolen, "PATCH", &ours, &note, changed, ""),
        (
            &stolen,
            "POST",
            rooms,
            &room("a", "n2"),
            refused,
            "not what node n1 has room for",
        ),
        (&stolen, "POST", rooms, &room("ours", "n1"), made, ""),
        (
            &stolen,
            "PATCH",
            &format!("{rooms}/theirs"),
            &json!({"capacity": "0"}),
            refused,
            "not what node n1 has room for",
        ),
        (
            &stolen,
            "PATCH",
            &format!("{CLAIMS}/theirs/status"),
            &grown,
            refused,
            "not given to node n1",
        ),
        (
            &stolen,
            "PATCH",
            &format!("{CLAIMS}/ours/status"),
            &grown,
            changed,
            "",
        ),
        (
            &stolen,
            "PATCH",
            &format!("{CLAIMS}/theirs"),
            &back,
            refused,
            "not given to node n1",
        ),
        (
            &stolen,
            "PATCH",
            &format!("{CLAIMS}/ours"),
            &back,
            changed,
            "",
        ),
        (&stolen, "DELETE", &ours, &Value::Null, done, ""),
    ] {
        let (status, said) = status(client, method, path, body).await;
        assert_eq!(status, expected, "{method} {path} {body}: {said}");
        assert!(said.contains(words), "{method} {path} {body}: {said}");
    }
}

/// Whatever rule is taken away, the log names it, and the binder goes on with the rest.
#[tokio::test]
async fn a_rule_that_is_missing_is_named() {
    let Some(site) = Site::start().await else {
        return;
    };
    site.deploy();
    let account = site.account().await;
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/bitts-binder";
    let whole = site.get(role).await.unwrap();
    let rules = whole["rules"].as_array().unwrap();
    assert!(rules.len() >= 10, "{rules:?}");
    for (n, rule) in rules.iter().enumerate() {
        let mut fewer = rules.clone();
        fewer.remove(n);
        site.call("PATCH", role, json!({"rules": fewer})).await;
        // The authorizer learns of it from a watch of its own.
        let output = loop {
            let output = Command::new(BITTS)
                .args([
                    "preflight",
                    "--roles=binder",
                    "--namespace",
                    NAMESPACE,
                    "--output=json",
                ])
                .arg("--kubeconfig")
                .arg(&account)
                .output()
                .unwrap();
            if output.status.code() == Some(3) {
                break output;
            }
        };
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        for verb in rule["verbs"].as_array().unwrap() {
            let what = format!(
                "may not {} {},",
                verb.as_str().unwrap(),
                rule["resources"][0].as_str().unwrap()
            );
            assert!(report.to_string().contains(&what), "{what}: {report}");
        }
        site.call("PATCH", role, json!({"rules": rules})).await;
        loop {
            let allowed = Command::new(BITTS)
                .args(["preflight", "--roles=binder", "--namespace", NAMESPACE])
                .arg("--kubeconfig")
                .arg(&account)
                .output()
                .unwrap();
            if allowed.status.success() {
                break;
            }
        }
    }

    // One that the binder runs into: what it may not write stays, and is said.
    let status = "persistentvolumeclaims/status";
    let fewer: Vec<_> = rules
        .iter()
        .filter(|r| r["resources"][0] != status)
        .collect();
    site.call("PATCH", role, json!({"rules": fewer})).await;
    let mut binder = site.binder(&account);
    site.until_logged("may not patch persistentvolumeclaims/status")
        .await;
    site.volume("kept", "Retain").await;
    site.claim("data").await;
    site.phase(&format!("{VOLUMES}/kept"), "Bound").await;
    site.until_logged("cannot patch resource \\\"persistentvolumeclaims/status\\\"")
        .await;
    binder.check_running().unwrap();
    site.call("PATCH", role, json!({"rules": rules})).await;
    site.phase(&format!("{CLAIMS}/data"), "Bound").await;
}

/// Section 12, N2: with the stock binder on bitts refuses and says which flag to set; with that flag
/// it starts.
#[tokio::test]
async fn a_stock_binder_is_found_and_one_that_is_off_is_not() {
    let Some(site) = Site::start().await else {
        return;
    };
    site.deploy();
    let account = site.account().await;
    let lease =
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
    let held = |lease: Option<&Value>| lease.is_some_and(|l| l["spec"]["holderIdentity"] != "");
    let canary = format!("/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/bitts-canary");
    {
        let _stock = site.stock("persistentvolume-binder-controller");
        site.until(lease, "held", held).await;
        // Without a canary nothing shows, and nothing is written.
        let asked = site.bitts(&["preflight", "--roles=binder", "--namespace", NAMESPACE]);
        assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));
        assert!(said(&asked).contains("cannot be known"), "{}", said(&asked));
        let seen = site.bitts(&[
            "preflight",
            "--roles=binder",
            "--namespace",
            NAMESPACE,
            "--canary",
        ]);
        assert_eq!(seen.status.code(), Some(3), "{}", said(&seen));
        let mut refused = site.binder(&account);
        site.until_logged(&format!("--controllers={OFF}")).await;
        let start = Instant::now();
        while refused.check_running().is_ok() {
            assert!(start.elapsed() < Duration::from_secs(30), "{}", site.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(site.get(&canary).await, None, "the canary is deleted");
        let anyway = Command::new(BITTS)
            .args(["run", "--help"])
            .output()
            .unwrap();
        assert!(said(&anyway).contains("--allow-stock-controllers"));
    }
    // Its lease ends before another takes it.
    site.call("DELETE", lease, Value::Null).await;
    std::fs::write(site.file("bitts.log"), "").unwrap();
    let _stock = site.stock("*,-persistentvolume-binder-controller,-persistentvolumeclaim-protection-controller,-persistentvolume-protection-controller,-ephemeral-volume-controller,-volumeattributesclass-protection-controller,-service-cidr-controller");
    site.until(lease, "held", held).await;
    let _binder = site.binder(&account);
    site.until_logged("got the lease").await;
    assert!(
        site.log().contains("the stock binder is off"),
        "{}",
        site.log()
    );
    assert_eq!(site.get(&canary).await, None, "the canary is deleted");
}

/// N2: a pod of kube-system shows its flags; the flag that is printed keeps what is there, and a gap
/// is refused.
#[tokio::test]
async fn the_flags_of_a_static_pod_are_read() {
    let Some(site) = Site::start().await else {
        return;
    };
    let start = |flag: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kcm"},
            "spec": {"containers": [{"name": "kcm", "image": "none",
                "command": ["kube-controller-manager", flag]}]}})
    };
    let pods = "/api/v1/namespaces/kube-system/pods";
    site.post(pods, start("--controllers=*,bootstrapsigner"))
        .await;
    let found = site.bitts(&["preflight", "--roles=binder", "--output=json"]);
    assert_eq!(found.status.code(), Some(3), "{}", said(&found));
    let refused = site.bitts(&["run", "--roles=binder"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let printed = site.bitts(&["preflight", "--roles=binder", "--print-kcm-flags"]);
    let flag = format!(
        "--controllers=*,bootstrapsigner,{}",
        OFF.trim_start_matches("*,")
    );
    assert_eq!(String::from_utf8_lossy(&printed.stdout).trim(), flag);
    // Beside the stock attach-detach controller no flag has the attacher run (A35).
    let anyway = ["run", "--roles=attacher", "--allow-stock-controllers"];
    let refused = site.bitts(&anyway);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let attach = "-persistentvolume-attach-detach-controller";
    let flag = format!("--controllers=*,bootstrapsigner,{attach}");
    assert!(said(&refused).contains(&flag), "{}", said(&refused));
    let both = ["preflight", "--roles=binder,attacher", "--print-kcm-flags"];
    let printed = site.bitts(&both);
    let flags = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(flags.contains(attach), "{}", said(&printed));
    // What only calls a driver replaces nothing of kube-controller-manager.
    let alone = site.bitts(&["preflight", "--roles=csi-attacher"]);
    assert_eq!(alone.status.code(), Some(0), "{}", said(&alone));
    site.call(
        "DELETE",
        &format!("{pods}/kcm?gracePeriodSeconds=0"),
        Value::Null,
    )
    .await;
    site.post(pods, start(&format!("--controllers={OFF},-attachdetach")))
        .await;
    let gap = site.bitts(&["preflight", "--roles=binder", "--print-kcm-flags"]);
    assert_eq!(gap.status.code(), Some(1), "{}", said(&gap));
    assert!(
        said(&gap).contains("persistentvolume-attach-detach-controller"),
        "{}",
        said(&gap)
    );
}
