//! The stock controllers' work given to bitts and back: whoever binds, what is bound stays so.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::class::{Class, Ground, claim, volume_of};
use crate::kubectl::{Cluster, Namespace};
use crate::restart::{BY_HAND, volume_by_hand};

const BOUND: usize = 3;

/// Claims bound by either side keep their volumes, their uids and their phase under the other, pods
/// that use them run on, and the other side binds, protects and releases.
pub(crate) fn and_back(cluster: &Cluster) -> Result<()> {
    let namespace = Namespace::new(cluster, "handover")?;
    let namespace = namespace.name.as_str();
    let class = Class::new(cluster, "handover", Ground::Nodes)?;
    cluster.apply(namespace, &claim("made", &class.name))?;
    let pod = cluster.pod("user", "date >/made/log; sleep 36000", &["made"]);
    cluster.apply(namespace, &pod)?;
    cluster.until_phase(namespace, "pod", "user", "Running")?;
    for n in 0..BOUND {
        bind(cluster, namespace, &format!("e2e-handover-{n}"))?;
    }

    let there = ["install", "--replace-stock"];
    let (there, back) = match cluster.has("binder") {
        false => (&there[..], &there[..1]),
        true => (&there[..1], &there[..]),
    };
    let before = all(cluster)?;
    cluster.change(there)?;
    same(&before, &all(cluster)?)?;
    works(cluster, namespace, "e2e-handover-there")?;
    let before = all(cluster)?;
    cluster.change(back)?;
    same(&before, &all(cluster)?)?;
    works(cluster, namespace, "e2e-handover-back")?;

    cluster.sh(namespace, "user", "test -s /made/log")?;
    let user = cluster.get(namespace, "pod", "user")?;
    let restarts = &user["status"]["containerStatuses"][0]["restartCount"];
    ensure!(*restarts == 0, "the pod was restarted: {restarts}");
    cluster.delete(namespace, "pod", "user")?;
    let made = volume_of(cluster, namespace, "made")?;
    cluster.delete(namespace, "pvc", "made")?;
    cluster.until_gone("", "pv", &made)?;
    let more = ["there", "back"].map(str::to_owned);
    let names = (0..BOUND).map(|n| n.to_string()).chain(more);
    for name in names.map(|name| format!("e2e-handover-{name}")) {
        cluster.delete(namespace, "pvc", &name)?;
        cluster.until_phase("", "pv", &name, "Released")?;
        cluster.delete("", "pv", &name)?;
    }
    Ok(())
}

/// A volume by hand and its claim.
pub(crate) fn bind(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    cluster.delete("", "pv", name)?;
    cluster.apply(namespace, &volume_by_hand(name))?;
    let mut claim = claim(name, BY_HAND);
    claim["spec"]["volumeName"] = name.into();
    cluster.apply(namespace, &claim)?;
    volume_of(cluster, namespace, name)?;
    Ok(())
}

/// Whoever has the work does it: binds, and protects a claim that a pod uses.
fn works(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    bind(cluster, namespace, name)?;
    let in_use = format!("{name}-in-use");
    bind(cluster, namespace, &in_use)?;
    let pod = cluster.pod("short", "sleep 3600", &[&in_use]);
    cluster.apply(namespace, &pod)?;
    cluster.until_phase(namespace, "pod", "short", "Running")?;
    cluster.kubectl(&["-n", namespace, "delete", "pvc", &in_use, "--wait=false"])?;
    cluster.until(namespace, "pvc", &in_use, "terminating", |claim| {
        !claim["metadata"]["deletionTimestamp"].is_null()
    })?;
    cluster.delete(namespace, "pod", "short")?;
    cluster.until_gone(namespace, "pvc", &in_use)?;
    cluster.until_phase("", "pv", &in_use, "Released")?;
    cluster.delete("", "pv", &in_use)
}

/// Every claim and volume of the cluster: its uid, phase and partner.
pub(crate) fn all(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let objects = cluster.read(&["get", "pv,pvc", "--all-namespaces"])?;
    let objects = objects["items"].as_array().cloned().unwrap_or_default();
    let told = objects.iter().map(|object| {
        let (meta, spec) = (&object["metadata"], &object["spec"]);
        let name = format!("{} {} {}", object["kind"], meta["namespace"], meta["name"]);
        let phase = &object["status"]["phase"];
        let partner = match &spec["claimRef"] {
            Value::Null => &spec["volumeName"],
            reference => &reference["uid"],
        };
        (name, format!("{} {phase} {partner}", meta["uid"]))
    });
    Ok(told.collect())
}

pub(crate) fn same(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<()> {
    let changed: Vec<_> = before
        .iter()
        .filter(|(name, was)| after.get(*name) != Some(*was))
        .map(|(name, was)| format!("{name} was {was}, is {:?}", after.get(name)))
        .collect();
    ensure!(changed.is_empty(), "{}", changed.join("\n"));
    let bound = before.values().filter(|told| told.contains("\"Bound\""));
    ensure!(
        bound.count() > 2 * BOUND,
        "too little was bound: {before:?}"
    );
    Ok(())
}
