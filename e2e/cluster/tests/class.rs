//! Classes that a test makes for itself, the volumes that come of them, and where their data lies.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::kubectl::{Cluster, undo};

/// Where volumes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// On the disks of nodes, by the role provisioner.
    Nodes,
    /// On the NFS server, by the role nfs-provisioner.
    Share,
}

/// A class that goes with its test.
pub(crate) struct Class<'a> {
    cluster: &'a Cluster,
    pub(crate) name: String,
}

impl<'a> Class<'a> {
    /// One that deletes volumes with their claims.
    pub(crate) fn new(cluster: &'a Cluster, name: &str, ground: Ground) -> Result<Self> {
        Self::with(cluster, name, ground, "Delete", &[])
    }

    pub(crate) fn with(
        cluster: &'a Cluster,
        name: &str,
        ground: Ground,
        reclaim: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Self> {
        let name = format!("e2e-{name}");
        cluster.delete("", "storageclass", &name)?;
        let mut class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": name}, "reclaimPolicy": reclaim, "parameters": {}});
        match ground {
            Ground::Nodes => {
                class["provisioner"] = json!("local.bitts.dev");
                class["volumeBindingMode"] = json!("WaitForFirstConsumer");
            }
            Ground::Share => {
                class["provisioner"] = json!("nfs.bitts.dev");
                class["parameters"]["server"] = json!(cluster.nfs_server);
                class["parameters"]["share"] = json!("/export");
            }
        }
        for (key, value) in parameters {
            class["parameters"][*key] = json!(value);
        }
        cluster.apply("default", &class)?;
        Ok(Self { cluster, name })
    }
}

impl Drop for Class<'_> {
    fn drop(&mut self) {
        undo(self.cluster, &["delete", "storageclass", &self.name]);
    }
}

pub(crate) fn claim(name: &str, class: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Mi"}}}})
}

/// The volume that a claim is bound to.
pub(crate) fn volume_of(cluster: &Cluster, namespace: &str, claim: &str) -> Result<String> {
    let claim = cluster.until_phase(namespace, "pvc", claim, "Bound")?;
    let volume = claim["spec"]["volumeName"].as_str();
    Ok(volume.context("a bound claim names its volume")?.to_owned())
}

/// The volumes that are there for claims of a namespace.
pub(crate) fn made_for(cluster: &Cluster, namespace: &str) -> Result<Vec<Value>> {
    let volumes = cluster.read(&["get", "pv"])?;
    let volumes = volumes["items"].as_array().context("a list")?;
    let ours = volumes.iter();
    let ours = ours.filter(|volume| volume["spec"]["claimRef"]["namespace"] == namespace);
    Ok(ours.cloned().collect())
}

/// Where a volume's data lies, looked at past the volume.
pub(crate) struct Place {
    node: Option<String>,
    path: String,
    top: &'static str,
}

impl Place {
    pub(crate) fn of(cluster: &Cluster, volume: &str) -> Result<Self> {
        let volume = cluster.get("", "pv", volume)?;
        let spec = &volume["spec"];
        if let Some(path) = spec["nfs"]["path"].as_str() {
            let below = path.strip_prefix("/export").context("it is exported")?;
            return Ok(Self {
                node: None,
                path: format!("/share{below}"),
                top: "/share",
            });
        }
        let path = spec["local"]["path"].as_str().context("it has a path")?;
        let node =
            spec.pointer("/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0");
        let node = node.and_then(Value::as_str).context("it has a node")?;
        Ok(Self {
            node: Some(node.to_owned()),
            path: format!("/node{path}"),
            top: "/node/var/lib/bitts",
        })
    }

    /// Runs a shell script there: `$DATA` is the volume's directory, `$TOP` that of all volumes.
    pub(crate) fn sh(&self, cluster: &Cluster, script: &str) -> Result<()> {
        let script = format!("DATA='{}' TOP={}; {script}", self.path, self.top);
        match &self.node {
            Some(node) => cluster.on_node(node, &script),
            None => cluster.on_share(&script),
        }
    }
}

/// No directory of a volume of this namespace is left anywhere.
pub(crate) fn nothing_left(cluster: &Cluster, ground: Ground, namespace: &str) -> Result<()> {
    // They are named so where a class says nothing else.
    match ground {
        Ground::Share => cluster.on_share(&format!("! ls -d /share/{namespace}-*")),
        Ground::Nodes => cluster.workers()?.iter().try_for_each(|node| {
            cluster.on_node(node, &format!("! ls -d /node/var/lib/bitts/{namespace}-*"))
        }),
    }
}
