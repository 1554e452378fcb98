//! A role killed in the middle of its work: what it began is done by the next process, once.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::class::{Class, Ground, claim, made_for, nothing_left, volume_of};
use crate::kubectl::{Cluster, Namespace};

/// How many claims are at work when it is killed.
const CLAIMS: usize = 8;
/// The class of volumes that nobody makes.
pub(crate) const BY_HAND: &str = "by-hand";

/// Killed on all nodes while claims become volumes, and again while volumes go.
pub(crate) fn provisioner(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "restart", Ground::Nodes)?;
    let namespace = Namespace::new(cluster, "restart")?;
    let namespace = namespace.name.as_str();
    let role = ("bitts-nodes", "provisioner");
    let names: Vec<String> = (0..CLAIMS).map(|n| format!("data-{n}")).collect();
    for name in &names {
        cluster.apply(namespace, &claim(name, &class.name))?;
        let pod = cluster.pod(name, &format!("date >/{name}/log; sleep 3600"), &[name]);
        cluster.apply(namespace, &pod)?;
        if *name == names[CLAIMS / 2] {
            kill(cluster, role)?;
        }
    }
    for name in &names {
        cluster.until_phase(namespace, "pod", name, "Running")?;
    }
    let delete = ["-n", namespace, "delete", "pods", "--all", "--wait=false"];
    cluster.kubectl(&[&delete[..], &["--grace-period=1"]].concat())?;
    go(cluster, namespace, &names, role, |name| {
        cluster.until_gone(namespace, "pod", name)
    })?;
    nothing_left(cluster, Ground::Nodes, namespace)
}

/// The leader and who waits to be it are killed while claims become volumes, and again while volumes go.
pub(crate) fn nfs_provisioner(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "nfs-restart", Ground::Share)?;
    let namespace = Namespace::new(cluster, "nfs-restart")?;
    let namespace = namespace.name.as_str();
    let role = ("bitts-nfs", "nfs-provisioner");
    let names: Vec<String> = (0..CLAIMS).map(|n| format!("data-{n}")).collect();
    for name in &names {
        cluster.apply(namespace, &claim(name, &class.name))?;
        if *name == names[CLAIMS / 2] {
            kill(cluster, role)?;
        }
    }
    go(cluster, namespace, &names, role, |_| Ok(()))?;
    nothing_left(cluster, Ground::Share, namespace)
}

/// Each claim has one volume, and goes; the role is killed when half of them are gone.
fn go(
    cluster: &Cluster,
    namespace: &str,
    claims: &[String],
    role: (&str, &str),
    before: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let mut volumes = Vec::new();
    for claim in claims {
        volumes.push(volume_of(cluster, namespace, claim)?);
    }
    let made = made_for(cluster, namespace)?.len();
    ensure!(
        made == claims.len(),
        "{} claims, but {made} volumes: some were made twice",
        claims.len()
    );
    for (n, claim) in claims.iter().enumerate() {
        before(claim)?;
        cluster.delete(namespace, "pvc", claim)?;
        if n == claims.len() / 2 {
            kill(cluster, role)?;
        }
    }
    volumes
        .iter()
        .try_for_each(|volume| cluster.until_gone("", "pv", volume))
}

/// The leader is killed while claims wait for volumes that come one by one, and while they go.
pub(crate) fn binder(cluster: &Cluster) -> Result<()> {
    let namespace = Namespace::new(cluster, "binder")?;
    let namespace = namespace.name.as_str();
    let role = ("bitts-system", "controllers");
    let names: Vec<String> = (0..CLAIMS).map(|n| format!("e2e-binder-{n}")).collect();
    for name in &names {
        cluster.delete("", "pv", name)?;
        cluster.apply(namespace, &claim(name, BY_HAND))?;
    }
    for name in &names {
        cluster.apply(namespace, &volume_by_hand(name))?;
        if *name == names[CLAIMS / 2] {
            kill(cluster, role)?;
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
    for (n, (name, volume)) in names.iter().zip(&volumes).enumerate() {
        // It may take until the next leader: claims are protected.
        let delete = ["-n", namespace, "delete", "pvc", name, "--wait=false"];
        cluster.kubectl(&delete)?;
        if n == CLAIMS / 2 {
            kill(cluster, role)?;
        }
        cluster.until_phase("", "pv", volume, "Released")?;
        cluster.delete("", "pv", volume)?;
    }
    Ok(())
}

/// A volume on any node, for a claim of that class.
pub(crate) fn volume_by_hand(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": "10Mi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": BY_HAND, "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/var/lib/by-hand", "type": "DirectoryOrCreate"}}})
}

/// All pods of a role at once, without a moment to say goodbye.
fn kill(cluster: &Cluster, (namespace, role): (&str, &str)) -> Result<()> {
    let label = format!("app.kubernetes.io/component={role}");
    let delete = ["-n", namespace, "delete", "pods", "-l", &label];
    let said = cluster.kubectl(&[&delete[..], &["--grace-period=0", "--force"]].concat())?;
    ensure!(
        said.contains("deleted"),
        "no pod of the {role} was there to kill"
    );
    Ok(())
}
