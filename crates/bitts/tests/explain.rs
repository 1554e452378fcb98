//! `bitts explain` as a user runs it: exit codes, JSON, no writes, and suggestions that work.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(all(feature = "binder", feature = "demo"))]

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bitts_apiserver::{ApiServer, Options, Serve};
use serde_json::{Value, json};
use support::Cluster;

fn explain(kubeconfig: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitts"))
        .arg("explain")
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn volume(name: &str, class: &str, size: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": [mode], "storageClassName": class,
                 "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/data/pv"}},
    })
}

fn claim(name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                 "resources": {"requests": {"storage": "2Gi"}}},
    })
}

impl Cluster {
    fn apply(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let kind = object["kind"].as_str().unwrap();
        let file = self.folder.path().join(format!("{kind}-{name}.json"));
        std::fs::write(&file, object.to_string()).unwrap();
        self.kubectl(&format!("apply -f {}", file.display()));
    }

    fn json(&self, kind: &str, name: &str) -> (Value, Option<i32>) {
        let output = explain(&self.kubeconfig(), &[kind, name, "--output", "json"]);
        let value = serde_json::from_slice(&output.stdout);
        let value = value.unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
        (value, output.status.code())
    }

    /// Waits until the explanation is what it is to be, and gives it.
    fn until(&self, kind: &str, name: &str, what: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let (told, code) = self.json(kind, name);
            if what(&told) {
                let fine = matches!(told["state"].as_str().unwrap(), "bound" | "available");
                assert_eq!(code, Some(if fine { 0 } else { 3 }), "{told:#}");
                return told;
            }
            assert!(Instant::now() < deadline, "{told:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn available(&self, volume: &str) {
        self.kubectl(&format!(
            "wait --for=jsonpath={{.status.phase}}=Available pv/{volume} --timeout=30s"
        ));
    }

    fn bound(&self, claim: &str) {
        self.kubectl(&format!(
            "wait --for=jsonpath={{.status.phase}}=Bound pvc/{claim} --timeout=30s"
        ));
        self.until("claim", claim, |told| told["state"] == "bound");
    }

    /// Pastes the suggested command into a shell.
    fn follow(&self, told: &Value) {
        let command = told["next"].as_str().unwrap();
        assert!(command.starts_with("kubectl "), "{told:#}");
        let folder = self.kubectl.parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("sh")
            .args(["-c", command])
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.folder.path().join("cache"))
            .env("PATH", format!("{}:{path}", folder.display()))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{command}: {}",
            text(&output.stderr)
        );
    }
}

/// The claim waits for the reason `reason`, one edit is suggested, and it binds after that edit.
fn is_cured(volume: &Value, claim: &Value, reason: &str) {
    let Some(cluster) = Cluster::with_binder() else {
        return;
    };
    cluster.apply(volume);
    cluster.available(volume["metadata"]["name"].as_str().unwrap());
    cluster.apply(claim);
    let name = claim["metadata"]["name"].as_str().unwrap();
    let told = cluster.until("claim", name, |told| told["waitingFor"] == "class");
    assert_eq!(told["candidates"][0]["reason"], reason, "{told:#}");
    assert_eq!(told["candidates"][0]["count"], 1, "{told:#}");
    cluster.follow(&told);
    cluster.bound(name);
}

#[test]
fn the_edit_of_a_class() {
    let claim = claim("data", "local");
    is_cured(
        &volume("v", "gold", "2Gi", "ReadWriteOnce"),
        &claim,
        "class",
    );
}

#[test]
fn the_edit_of_a_size() {
    let claim = claim("data", "local");
    is_cured(
        &volume("v", "local", "1Gi", "ReadWriteOnce"),
        &claim,
        "too-small",
    );
}

#[test]
fn the_edit_of_access_modes() {
    let claim = claim("data", "local");
    is_cured(
        &volume("v", "local", "2Gi", "ReadOnlyMany"),
        &claim,
        "access-modes",
    );
}

#[test]
fn the_edit_of_labels() {
    let mut claim = claim("data", "local");
    claim["spec"]["selector"] = json!({
        "matchLabels": {"example.com/disk": "ssd_1.0"},
        "matchExpressions": [{"key": "spare", "operator": "DoesNotExist"}],
    });
    let mut volume = volume("v", "local", "2Gi", "ReadWriteOnce");
    volume["metadata"]["labels"] = json!({"spare": "yes"});
    is_cured(&volume, &claim, "selector");
}

#[test]
fn the_edit_of_everything_at_once() {
    let mut claim = claim("data", "local");
    claim["spec"]["selector"] = json!({"matchLabels": {"disk": "ssd"}});
    is_cured(
        &volume("v", "gold", "1Gi", "ReadOnlyMany"),
        &claim,
        "access-modes",
    );
}

#[test]
fn the_edits_of_a_released_volume() {
    let Some(cluster) = Cluster::with_binder() else {
        return;
    };
    cluster.apply(&volume("v", "local", "2Gi", "ReadWriteOnce"));
    cluster.apply(&claim("first", "local"));
    cluster.bound("first");
    let told = cluster.until("volume", "v", |told| told["state"] == "bound");
    assert_eq!(told["partner"]["name"], "first");

    // To another claim.
    cluster.kubectl("delete pvc first --timeout=30s");
    cluster.apply(&claim("second", "local"));
    let told = cluster.until("claim", "second", |told| told["waitingFor"] == "class");
    let told = if told["candidates"][0]["reason"] == "released" {
        told
    } else {
        cluster.until("claim", "second", |told| {
            told["candidates"][0]["reason"] == "released"
        })
    };
    assert!(
        told["advice"]["warning"]
            .as_str()
            .unwrap()
            .contains("default/first"),
        "{told:#}"
    );
    cluster.follow(&told);
    cluster.bound("second");

    // To a claim of the same name.
    cluster.kubectl("delete pvc second --timeout=30s");
    cluster.until("volume", "v", |told| {
        told["state"] == "released" && told["waitingFor"] == "operator"
    });
    cluster.apply(&claim("second", "local"));
    let told = cluster.until("claim", "second", |told| told["waitingFor"] == "class");
    cluster.follow(&told);
    cluster.bound("second");

    // To whoever asks.
    cluster.kubectl("delete pvc second --timeout=30s");
    let told = cluster.until("volume", "v", |told| told["waitingFor"] == "operator");
    cluster.follow(&told);
    cluster.available("v");
    cluster.apply(&claim("third", "local"));
    cluster.bound("third");
}

/// S15.
#[test]
fn the_edit_for_a_pod_past_the_scheduler() {
    let Some(cluster) = Cluster::with_binder() else {
        return;
    };
    cluster.apply(&json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local"},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
    }));
    cluster.apply(&volume("v", "local", "2Gi", "ReadWriteOnce"));
    cluster.available("v");
    cluster.apply(&claim("data", "local"));
    let told = cluster.until("claim", "data", |told| {
        told["waitingFor"] == "first-consumer"
    });
    assert_eq!(told["advice"]["code"], "create-pod");
    assert_eq!(told["candidates"][0]["reason"], "waits-for-consumer");
    assert_eq!(told["classes"][0]["bindingMode"], "WaitForFirstConsumer");
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "c"}],
                 "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]},
    }));
    let told = cluster.until("claim", "data", |told| {
        told["advice"]["code"] == "reserve-volume"
    });
    cluster.follow(&told);
    cluster.bound("data");

    // And who holds it when it is deleted.
    cluster.kubectl("delete pvc data --wait=false");
    let told = cluster.until("claim", "data", |told| told["state"] == "deleting");
    assert_eq!(told["waitingFor"], "pods");
    assert!(
        told["next"].as_str().unwrap().contains("pod/web"),
        "{told:#}"
    );
}

/// Every request is a get or a list, whatever is explained.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written() {
    let api = ApiServer::new(Options {
        trace: 1_000,
        ..Options::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let serving = api
        .serve(Serve {
            listen: "127.0.0.1:0".parse().unwrap(),
            insecure: false,
            write_kubeconfig: Some(kubeconfig.clone()),
        })
        .await
        .unwrap();
    let client = kube::Client::new(api.service(), "default");
    for (path, object) in [
        (
            "/api/v1/persistentvolumes",
            volume("v", "gold", "1Gi", "ReadWriteOnce"),
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            claim("data", "local"),
        ),
    ] {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        client.request_text(request).await.unwrap();
    }
    let (before, asked) = (api.revision(), api.trace().len());
    let codes = tokio::task::spawn_blocking(move || {
        [
            vec!["claim", "data"],
            vec!["pvc", "data", "-n", "default", "-o", "json"],
            vec!["volume", "v"],
            vec!["volume", "none"],
            vec!["claim", "none", "--output", "json"],
            vec!["claim", "data", "-n", "none"],
        ]
        .map(|arguments| {
            let output = explain(&kubeconfig, &arguments);
            assert!(!output.stdout.contains(&0x1b), "colours without a terminal");
            output.status.code().unwrap()
        })
    })
    .await
    .unwrap();
    assert_eq!(codes, [3, 3, 3, 4, 4, 4]);
    assert_eq!(api.revision(), before);
    let trace: Vec<_> = api.trace().split_off(asked);
    assert!(
        trace.iter().all(|t| matches!(t.verb, "get" | "list")),
        "{trace:#?}"
    );
    assert!(
        trace
            .iter()
            .any(|t| t.verb == "list" && t.resource == "persistentvolumes")
    );
    serving.stop().await;
}

#[test]
fn a_cluster_that_cannot_be_read() {
    let output = explain(Path::new("/nonexistent/config"), &["claim", "data"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nonexistent/config"));
}

#[test]
fn a_name_that_no_object_has() {
    let output = explain(Path::new("/nonexistent/config"), &["claim", "../secrets/x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("lower-case"));
}
