//! A role killed in the middle of its work: what it began is done by the next process, once.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kubectl::{Cluster, Namespace};
use crate::local::{CLASS, claim, volume_of};

/// How many claims are at work when it is killed.
const CLAIMS: usize = 8;

/// Killed while claims become volumes, and again while volumes go.
pub(crate) fn provisioner(cluster: &Cluster) -> Result<()> {
    let namespace = Namespace::new(cluster, "restart")?;
    let namespace = namespace.name.as_str();
    let names: Vec<String> = (0..CLAIMS).map(|n| format!("data-{n}")).collect();
    let bitts = "bitts-nodes";
    for name in &names {
        cluster.apply(namespace, &claim(name, CLASS))?;
        let pod = cluster.pod(name, &format!("date >/{name}/log; sleep 3600"), &[name]);
        cluster.apply(namespace, &pod)?;
        if *name == names[CLAIMS / 2] {
            kill(cluster, bitts, "provisioner")?;
        }
    }
    let mut volumes = Vec::new();
    for name in &names {
        cluster.until_phase(namespace, "pod", name, "Running")?;
        volumes.push(volume_of(cluster, namespace, name)?);
    }
    // One volume for each claim: none was made twice.
    let made = made_for(cluster, namespace)?;
    ensure!(
        made.len() == CLAIMS,
        "{CLAIMS} claims, but the volumes {made:?}"
    );

    for (n, name) in names.iter().enumerate() {
        cluster.delete(namespace, "pod", name)?;
        cluster.delete(namespace, "pvc", name)?;
        if n == CLAIMS / 2 {
            kill(cluster, bitts, "provisioner")?;
        }
    }
    for volume in &volumes {
        cluster.until_gone("", "pv", volume)?;
    }
    Ok(())
}

/// The leader is killed while claims wait for volumes that come one by one.
pub(crate) fn binder(cluster: &Cluster) -> Result<()> {
    let namespace = Namespace::new(cluster, "binder")?;
    let namespace = namespace.name.as_str();
    let names: Vec<String> = (0..CLAIMS).map(|n| format!("e2e-binder-{n}")).collect();
    for name in &names {
        cluster.delete("", "pv", name)?;
        cluster.apply(namespace, &claim(name, "by-hand"))?;
    }
    for name in &names {
        let volume = serde_json::json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name}, "spec": {"capacity": {"storage": "10Mi"},
                "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/data/by-hand"}}});
        cluster.apply(namespace, &volume)?;
        if *name == names[CLAIMS / 2] {
            kill(cluster, "bitts-system", "controllers")?;
        }
    }
    let mut volumes = Vec::new();
    for name in &names {
        volumes.push(volume_of(cluster, namespace, name)?);
    }
    // Which volume a claim has is open: those that came while nobody bound are all as good.
    let mut taken = volumes.clone();
    taken.sort();
    ensure!(
        taken == names,
        "each claim has a volume of its own: {volumes:?}"
    );
    for (name, volume) in names.iter().zip(&volumes) {
        cluster.delete(namespace, "pvc", name)?;
        cluster.until_phase("", "pv", volume, "Released")?;
        cluster.delete("", "pv", volume)?;
    }
    Ok(())
}

/// All pods of a role at once, without a moment to say goodbye.
fn kill(cluster: &Cluster, namespace: &str, role: &str) -> Result<()> {
    let label = format!("app.kubernetes.io/component={role}");
    let delete = ["-n", namespace, "delete", "pods", "-l", &label];
    let said = cluster.kubectl(&[&delete[..], &["--grace-period=0", "--force"]].concat())?;
    ensure!(
        said.contains("deleted"),
        "no pod of the {role} was there to kill"
    );
    Ok(())
}

/// The names of the volumes that were made for claims of a namespace.
fn made_for(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let volumes = cluster.kubectl(&["get", "pv", "-o", "json"])?;
    let volumes: Value = serde_json::from_str(&volumes)?;
    let volumes = volumes["items"].as_array().context("a list")?;
    let ours = volumes
        .iter()
        .filter(|volume| volume["spec"]["claimRef"]["namespace"] == namespace);
    let names = ours.map(|volume| volume["metadata"]["name"].as_str().unwrap_or_default());
    Ok(names.map(str::to_owned).collect())
}
