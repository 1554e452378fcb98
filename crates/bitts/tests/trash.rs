//! `bitts trash` and `bitts orphans` as an operator runs them, on a disk and a cluster of their own.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(all(feature = "provisioner", feature = "demo"))]

use std::path::PathBuf;
use std::process::{Command, Output};

use bitts_apiserver::{ApiServer, Serve, Serving};
use bitts_provisioner::Record;
use bitts_provisioner::disk::Disk;
use serde_json::{Value, json};

struct Ground {
    temp: tempfile::TempDir,
    _serving: Serving,
    runtime: tokio::runtime::Runtime,
    disk: Disk,
}

impl Ground {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let options = Serve {
            listen: ([127, 0, 0, 1], 0).into(),
            insecure: false,
            write_kubeconfig: Some(temp.path().join("kubeconfig")),
        };
        let serving = runtime
            .block_on(ApiServer::default().serve(options))
            .unwrap();
        std::fs::create_dir(temp.path().join("disk")).unwrap();
        let disk = Disk::open(&temp.path().join("disk")).unwrap();
        let ground = Self {
            temp,
            _serving: serving,
            runtime,
            disk,
        };
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1",
            "labels": {"kubernetes.io/hostname": "host-1"}}});
        ground.post("/api/v1/nodes", &node);
        ground
    }

    fn kubeconfig(&self) -> PathBuf {
        self.temp.path().join("kubeconfig")
    }

    fn request(&self, request: http::Request<Vec<u8>>) -> kube::Result<Value> {
        self.runtime.block_on(async {
            let path = self.kubeconfig();
            let client = bitts_runtime::connect(Some(&path)).await.unwrap();
            client.request(request).await
        })
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(body).unwrap())
            .unwrap();
        self.request(request).unwrap()
    }

    fn get(&self, path: &str) -> Option<Value> {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        match self.request(request) {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn bitts(&self, arguments: &[&str], code: i32) -> (String, String) {
        let disk = format!("--disks={}", self.disk.root().display());
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_bitts"))
            .args(arguments)
            .args([&*disk, "--node-name=n1"])
            .env("KUBECONFIG", self.kubeconfig())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(stdout), text(stderr));
        assert_eq!(status.code(), Some(code), "{arguments:?}: {out}{err}");
        (out, err)
    }

    /// A volume that was made on the disk, with a file in it.
    fn made(&self, uid: &str, on_delete: &str) -> (Record, PathBuf) {
        let record = json!({"volume": format!("pvc-{uid}"), "path": format!("default-c-pvc-{uid}"),
            "claim": {"namespace": "default", "name": "c", "uid": uid}, "class": "local",
            "access": {"mode": 504, "uid": null, "gid": null}, "onDelete": on_delete,
            "bytes": 1 << 30});
        let record: Record = serde_json::from_value(record).unwrap();
        let path = self.disk.make(&record).unwrap().whole().unwrap();
        self.disk
            .confirm(&record.volume, &record.claim.uid)
            .unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
        (record, path)
    }

    fn deleted(&self, uid: &str) -> (Record, PathBuf) {
        let (record, path) = self.made(uid, "trash");
        let done = self.disk.remove(&record.volume, &record.claim.uid, &path);
        done.unwrap();
        assert!(!path.exists());
        (record, path)
    }
}

#[test]
fn what_was_deleted_is_listed_put_back_and_purged() {
    let ground = Ground::new();
    assert!(ground.bitts(&["trash", "list"], 0).1.contains("is empty"));
    let (_, path) = ground.deleted("u1");
    ground.deleted("u2");
    let (table, _) = ground.bitts(&["trash", "list"], 0);
    let line = table
        .lines()
        .find(|line| line.starts_with("pvc-u1"))
        .unwrap();
    for part in ["default/c", "1Gi", "until it is purged"] {
        assert!(line.contains(part), "{table}");
    }
    let (text, _) = ground.bitts(&["trash", "list", "-o", "json"], 0);
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all:#}");
    assert_eq!(all["items"][0]["state"], "kept");
    assert_eq!(all["items"][0]["claim"]["uid"], "u1");
    assert!(all["items"][0]["until"].is_null());

    // Printed, as often as one likes.
    for _again in 0..2 {
        let (manifest, told) = ground.bitts(&["trash", "restore", "pvc-u1"], 0);
        assert!(path.join("file").exists());
        let manifest: Value = serde_yaml_ng::from_str(&manifest).unwrap();
        assert_eq!(manifest["spec"]["local"]["path"], path.to_str().unwrap());
        assert_eq!(manifest["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert!(manifest["spec"]["claimRef"].get("uid").is_none());
        assert!(
            told.contains("default/c") && told.contains("pvc-u1"),
            "{told}"
        );
    }
    // Made on the cluster.
    assert!(ground.get("/api/v1/persistentvolumes/pvc-u1").is_none());
    let told = ground
        .bitts(&["trash", "restore", "pvc-u1", "--apply"], 0)
        .1;
    assert!(told.contains("volume was made"), "{told}");
    let volume = ground.get("/api/v1/persistentvolumes/pvc-u1").unwrap();
    let terms = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["host-1"]));
    assert_eq!(volume["spec"]["storageClassName"], "local");
    ground.bitts(&["trash", "restore", "pvc-u1", "--apply"], 0);
    ground.bitts(&["orphans"], 0);

    let (_, told) = ground.bitts(&["trash", "purge", "pvc-u1"], 1);
    assert!(told.contains("no pvc-u1 in the trash"), "{told}");
    ground.bitts(&["trash", "purge", "--older-than", "1h"], 0);
    assert_eq!(ground.disk.trashed().unwrap().len(), 1, "it is too young");
    ground.bitts(&["trash", "purge", "pvc-u2"], 0);
    assert!(ground.disk.trashed().unwrap().is_empty());
    assert!(path.join("file").exists());
    ground.deleted("u3");
    ground.bitts(&["trash", "purge", "--older-than", "0s"], 0);
    assert!(ground.disk.trashed().unwrap().is_empty());
    assert!(
        ground
            .bitts(&["trash", "restore", "pvc-u3"], 1)
            .1
            .contains("no pvc-u3 in the trash")
    );
}

#[test]
fn orphans_are_told_and_moved_to_the_trash_when_asked() {
    let ground = Ground::new();
    assert!(
        ground
            .bitts(&["orphans"], 0)
            .1
            .contains("Nothing is orphaned")
    );
    let (_, path) = ground.made("u1", "delete");
    let (text, _) = ground.bitts(&["orphans"], 3);
    for part in [
        "pvc-u1",
        "its PersistentVolume is not",
        "claim default/c (u1)",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let (text, _) = ground.bitts(&["orphans", "-o", "json"], 3);
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(all["items"][0]["kind"], "record-without-volume", "{all:#}");
    assert_eq!(all["items"][0]["claim"]["uid"], "u1");

    // Too young; then its claim lives, having been bound to it.
    let told = ground.bitts(&["orphans", "--remove"], 3).1;
    assert!(told.contains("not old enough"), "{told}");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "volumeName": "pvc-u1", "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = ground.post(claims, &claim);
    let uid = claim["metadata"]["uid"].as_str().unwrap();
    let file = ground.disk.root().join(".bitts/volumes/pvc-u1.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"u1\"", &format!("{uid:?}"))).unwrap();
    let remove = ["orphans", "--remove", "--older-than", "0s"];
    let told = ground.bitts(&remove, 3).1;
    assert!(told.contains("its claim exists"), "{told}");
    assert!(path.is_dir());
    std::fs::write(&file, text).unwrap();

    // Another's claim of that name is no reason to keep it.
    let told = ground.bitts(&remove, 0).1;
    assert!(told.contains("moved to the trash"), "{told}");
    assert!(!path.exists());
    assert_eq!(ground.disk.trashed().unwrap().len(), 1);
    ground.bitts(&["orphans"], 0);

    // What nothing is known of is told, and never removed.
    std::fs::create_dir(ground.disk.root().join("stray")).unwrap();
    let (text, told) = ground.bitts(&remove, 3);
    assert!(text.contains("no record speaks of"), "{text}");
    assert!(told.contains("by hand"), "{told}");
    assert!(ground.disk.root().join("stray").is_dir());
}

#[test]
fn what_is_missing_is_said_before_anything_is_done() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bitts"))
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let told = run(&["trash", "list"]);
    assert!(
        told.contains("--disks") && told.contains("--share"),
        "{told}"
    );
    let told = run(&["trash", "restore", "v", "--disks", "/nonexistent"]);
    assert!(told.contains("--node-name"), "{told}");
    let other = tempfile::tempdir().unwrap();
    let told = run(&["trash", "list", "--disks", other.path().to_str().unwrap()]);
    assert!(told.contains("made no volume there"), "{told}");
    assert!(!other.path().join(".bitts").exists());
    let told = run(&["trash", "list", "--share", "nas"]);
    assert!(told.contains("nas:/export"), "{told}");
    let told = run(&["trash", "purge", "--disks", "/nonexistent"]);
    assert!(told.contains("<VOLUME>"), "{told}");
}

#[test]
fn volumes_of_another_provisioner_are_taken_over() {
    let ground = Ground::new();
    let none = ground.bitts(&["adopt"], 0).0;
    assert!(none.contains("No volume"), "{none}");
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local-path"}, "provisioner": "rancher.io/local-path",
        "parameters": {"nodePath": "/opt"}});
    ground.post("/apis/storage.k8s.io/v1/storageclasses", &class);
    let path = ground.disk.root().join("pvc-u1_default_data");
    std::fs::create_dir(&path).unwrap();
    let volume = |name: &str, uid: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {
                "pv.kubernetes.io/provisioned-by": "rancher.io/local-path"}},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local-path", "hostPath": {"path": path},
                "claimRef": {"namespace": "default", "name": "data", "uid": uid},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["host-1"]}]}]}}}})
    };
    let volumes = "/api/v1/persistentvolumes";
    for (name, uid) in [("pvc-u1", "u1"), ("odd", "u2")] {
        ground.post(volumes, &volume(name, uid));
        let status = json!({"status": {"phase": "Bound"}});
        let request = http::Request::patch(format!("{volumes}/{name}/status"))
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(&status).unwrap());
        ground.request(request.unwrap()).unwrap();
    }
    // Told, and nothing done.
    let (text, _) = ground.bitts(&["adopt"], 3);
    for part in [
        "pvc-u1 (claim default/data): would be taken over; on deletion: delete",
        "odd: left: it is not named pvc-UID",
        "provisioner: local.bitts.dev",
        "# parameter nodePath means nothing here",
        "Nothing was changed",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(ground.disk.scan().unwrap().is_empty());
    let by = |name: &str| {
        let volume = ground.get(&format!("{volumes}/{name}")).unwrap();
        let annotations = &volume["metadata"]["annotations"];
        annotations["pv.kubernetes.io/provisioned-by"].clone()
    };
    assert_eq!(by("pvc-u1"), "rancher.io/local-path");

    // Not while the other one would delete too.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old"}, "spec": {
        "containers": [{"name": "c", "image": "rancher/local-path-provisioner:v0.0.30"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    ground.post(pods, &pod);
    let told = ground.bitts(&["adopt", "--apply"], 1).1;
    assert!(
        told.contains("still runs") && told.contains("default/old"),
        "{told}"
    );
    assert!(ground.disk.scan().unwrap().is_empty());
    let now = http::Request::delete(format!("{pods}/old?gracePeriodSeconds=0")).body(Vec::new());
    ground.request(now.unwrap()).unwrap();

    let (text, _) = ground.bitts(&["adopt", "--apply", "-o", "json"], 3);
    let told: Value = serde_json::from_str(&text).unwrap();
    let adopted = |item: &&Value| item["adopted"] == true;
    let items = told["items"].as_array().unwrap();
    assert_eq!(items.iter().filter(adopted).count(), 1, "{told:#}");
    assert_eq!(by("pvc-u1"), "local.bitts.dev");
    assert_eq!(by("odd"), "rancher.io/local-path");
    let records = ground.disk.scan().unwrap();
    assert_eq!(records.len(), 1);
    assert!(records[0].confirmed && records[0].claim.uid == *"u1");
    ground.bitts(&["orphans"], 0);
    // What is ours is left alone.
    let (text, _) = ground.bitts(&["adopt"], 3);
    assert!(!text.contains("pvc-u1"), "{text}");
}

#[test]
fn a_class_is_explained() {
    let ground = Ground::new();
    let explain = |name: &str, code: i32| {
        let output = Command::new(env!("CARGO_BIN_EXE_bitts"))
            .args(["explain", "class", name, "--output", "json"])
            .env("KUBECONFIG", ground.kubeconfig())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        serde_json::from_str::<Value>(&told).unwrap()
    };
    assert_eq!(explain("none", 4)["state"], "not-found");
    let mut class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "wrong"}, "provisioner": "local.bitts.dev",
        "volumeBindingMode": "WaitForFirstConsumer", "parameters": {"onDelet": "trash"}});
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    ground.post(classes, &class);
    let told = explain("wrong", 3);
    assert_eq!(told["state"], "invalid");
    let why = told["waitingForText"].as_str().unwrap();
    assert!(why.contains("did you mean \"onDelete\"?"), "{told:#}");
    class["metadata"]["name"] = json!("right");
    class["parameters"] = json!({"onDelete": "trash"});
    ground.post(classes, &class);
    assert_eq!(explain("right", 0)["state"], "valid");
}
