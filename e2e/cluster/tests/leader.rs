//! The leader of a role ends: it hands over, so that the next one need not wait for its lease to end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::class::{Class, Ground, claim, volume_of};
use crate::kubectl::{Cluster, Namespace};
use crate::restart::{BY_HAND, volume_by_hand};

/// What the chart gives a leader.
const LEASE: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn of_the_binder(cluster: &Cluster) -> Result<()> {
    hand_over(cluster, "bitts-system", "controllers", "bitts-binder")?;
    let namespace = Namespace::new(cluster, "leader")?;
    let name = "e2e-leader";
    cluster.delete("", "pv", name)?;
    cluster.apply("default", &volume_by_hand(name))?;
    cluster.apply(&namespace.name, &claim(name, BY_HAND))?;
    volume_of(cluster, &namespace.name, name)?;
    cluster.delete(&namespace.name, "pvc", name)?;
    cluster.until_phase("", "pv", name, "Released")?;
    cluster.delete("", "pv", name)
}

pub(crate) fn of_the_nfs_provisioner(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "leader", Ground::Share)?;
    hand_over(
        cluster,
        "bitts-nfs",
        "nfs-provisioner",
        "bitts-nfs-provisioner",
    )?;
    let namespace = Namespace::new(cluster, "nfs-leader")?;
    cluster.apply(&namespace.name, &claim("data", &class.name))?;
    let volume = volume_of(cluster, &namespace.name, "data")?;
    cluster.delete(&namespace.name, "pvc", "data")?;
    cluster.until_gone("", "pv", &volume)
}

/// Deletes the pod that leads; another takes over long before the lease would have ended.
fn hand_over(cluster: &Cluster, namespace: &str, component: &str, lease: &str) -> Result<()> {
    let held = |lease: &Value| !holder(lease).is_empty();
    let mut seen = cluster.until(namespace, "lease", lease, "held", held)?;
    let first = holder(&seen);
    let label = format!("app.kubernetes.io/component={component}");
    let pods = cluster.read(&["-n", namespace, "get", "pods", "-l", &label])?;
    // In its node's network a pod has the name of its node.
    let hosts = |pod: &Value| pod["spec"]["hostNetwork"] == true;
    let named = |pod: &Value| match hosts(pod) {
        true => pod["spec"]["nodeName"].clone(),
        false => pod["metadata"]["name"].clone(),
    };
    let mut pods = pods["items"].as_array().context("a list")?.iter();
    let leads = pods.find(|pod| {
        let name = named(pod);
        name.as_str()
            .is_some_and(|name| first.starts_with(&format!("{name}_")))
    });
    let leads = leads.and_then(|pod| pod["metadata"]["name"].as_str());
    let leads = leads.with_context(|| format!("{first} is a pod of the {component}"))?;

    cluster.kubectl(&["-n", namespace, "delete", "pod", leads, "--wait=false"])?;
    let start = Instant::now();
    loop {
        let now = cluster.get(namespace, "lease", lease)?;
        let holder = holder(&now);
        if !holder.is_empty() && holder != first {
            // Both times stand in the lease: how slow the machine is does not matter.
            let last: jiff::Timestamp = time(&seen, "renewTime")?;
            let took = time(&now, "acquireTime")?.duration_since(last);
            let took = Duration::try_from(took).unwrap_or_default();
            ensure!(
                took < LEASE * 2 / 3,
                "{holder} waited {took:?} for {first}: nobody handed over"
            );
            return Ok(());
        }
        if holder == first {
            seen = now;
        }
        ensure!(start.elapsed() < PATIENCE, "nobody leads after {first}");
    }
}

fn holder(lease: &Value) -> String {
    let holder = lease["spec"]["holderIdentity"].as_str();
    holder.unwrap_or_default().to_owned()
}

fn time(lease: &Value, member: &str) -> Result<jiff::Timestamp> {
    let text = lease["spec"][member].as_str();
    Ok(text.with_context(|| format!("no {member}"))?.parse()?)
}
