//! A fresh API server, volumes and claims on it, and what it costs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitts_e2e::raw::Request;
use bitts_e2e::real::RealApi;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::usage::Running;

pub(crate) const VOLUMES: &str = "/api/v1/persistentvolumes";
pub(crate) const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
pub(crate) const ALL_CLAIMS: &str = "/api/v1/persistentvolumeclaims";

/// How many objects are created at a time.
pub(crate) const CREATING: usize = 16;

/// A fresh API server with its etcd, and nothing on it but a class.
pub(crate) struct Fresh {
    pub(crate) api: RealApi,
    pub(crate) client: Client,
    apiserver: Running,
    etcd: Running,
}

impl Fresh {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// With more flags for kube-apiserver.
    pub(crate) async fn start_with(flags: &[&str]) -> Result<Self> {
        let api = RealApi::start_with(flags).await?;
        let client = api.client().await?;
        let kubeconfig: Value = serde_json::from_str(api.kubeconfig())?;
        let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str();
        let port = server.and_then(|server| server.rsplit(':').next());
        let port = port.context("the kubeconfig names no port")?;
        let apiserver = Running::find("kube-apiserver", &format!("--secure-port={port}"))?;
        let storage = apiserver.argument("--etcd-servers=")?;
        let etcd = Running::find("etcd", &format!("--listen-client-urls={storage}"))?;
        let class = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "bench"},
            "provisioner": "kubernetes.io/no-provisioner",
        });
        post(&client, "/apis/storage.k8s.io/v1/storageclasses", class).await?;
        Ok(Self {
            api,
            client,
            apiserver,
            etcd,
        })
    }

    /// The CPU time of kube-apiserver and etcd so far, in ms.
    pub(crate) fn cpu_ms(&self) -> Result<f64> {
        Ok(self.apiserver.cpu_ms()? + self.etcd.cpu_ms()?)
    }

    /// Creates volumes `v-FROM` to `v-(TO - 1)`.
    pub(crate) async fn create_volumes(&self, numbers: std::ops::Range<u32>) -> Result<()> {
        let all = stream::iter(numbers).map(|n| post(&self.client, VOLUMES, volume(n)));
        all.buffer_unordered(CREATING).try_collect().await
    }

    /// Creates claims `c-FROM` to `c-(TO - 1)`; returns when each was created.
    pub(crate) async fn create_claims(
        &self,
        numbers: std::ops::Range<u32>,
    ) -> Result<BTreeMap<String, Instant>> {
        let all = stream::iter(numbers).map(async |n| {
            post(&self.client, CLAIMS, claim(n)).await?;
            anyhow::Ok((format!("c-{n}"), Instant::now()))
        });
        all.buffer_unordered(CREATING).try_collect().await
    }

    /// Waits until so many volumes are in a phase.
    pub(crate) async fn volumes_are(&self, phase: &str, count: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let all = list(&self.client, VOLUMES).await?;
            let there = all.iter().filter(|v| v["status"]["phase"] == phase).count();
            if there >= count {
                return Ok(());
            }
            let patience = Duration::from_secs(60) + Duration::from_millis(50) * count as u32;
            anyhow::ensure!(
                began.elapsed() < patience,
                "{there} of {count} volumes are {phase} after {patience:?}"
            );
            // Rarely: a list of all is work for the API server.
            tokio::time::sleep(Duration::from_millis(1000)).await;
        }
    }
}

/// POST, of something that is not there yet.
pub(crate) async fn post(client: &Client, path: &str, body: Value) -> Result<()> {
    let answer = Request::new("POST", path, body).send(client).await?;
    answer.expect(201).map(drop)
}

/// All objects of a collection.
pub(crate) async fn list(client: &Client, path: &str) -> Result<Vec<Value>> {
    let answer = Request::new("GET", path, Value::Null).send(client).await?;
    match answer.expect(200)?["items"].take() {
        Value::Array(items) => Ok(items),
        _ => anyhow::bail!("{path} has no items"),
    }
}

pub(crate) fn volume(n: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": format!("v-{n}")},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": format!("/data/v-{n}")},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "bench",
        },
    })
}

pub(crate) fn claim(n: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": format!("c-{n}"), "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "bench",
        },
    })
}
