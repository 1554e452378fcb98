//! A claim that asks for more gets it while a pod uses it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::class::{Class, Ground, claim, volume_of};
use crate::kubectl::{Cluster, Namespace};

/// Of a node's room: the scheduler is told of changes that are worth a write, and not of each file.
const PART: f64 = 0.05;

/// The scheduler is told what is left when much was written.
pub(crate) fn on_nodes(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "grows", Ground::Nodes)?;
    let user = User::new(cluster, &class, "grows")?;
    let namespace = user.namespace.name.as_str();
    let pod = cluster.get(namespace, "pod", "user")?;
    let node = pod["spec"]["nodeName"].as_str().context("it runs")?;
    let told = told_of(cluster, &class.name, node)?;
    let before = room(&told).context("the scheduler was told of room")?;
    user.grows("1Gi")?;
    let written = before * PART;
    let write = format!("fallocate -l {written:.0} /data/much");
    cluster.sh(namespace, "user", &write)?;
    let name = |key: &str| told["metadata"][key].as_str().context("it has a name");
    let (kind, what) = ("csistoragecapacity", format!("of less than {before} bytes"));
    cluster.until(name("namespace")?, kind, name("name")?, &what, |told| {
        room(told).is_some_and(|now| now < before - written / 2.0)
    })?;
    user.goes()
}

pub(crate) fn on_nfs(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "grows-nfs", Ground::Share)?;
    let user = User::new(cluster, &class, "grows-nfs")?;
    user.grows("1Gi")?;
    user.goes()
}

/// A claim and the pod that uses it.
struct User<'a> {
    cluster: &'a Cluster,
    namespace: Namespace<'a>,
    volume: String,
}

impl<'a> User<'a> {
    fn new(cluster: &'a Cluster, class: &Class<'_>, test: &str) -> Result<Self> {
        let allow = json!({"allowVolumeExpansion": true}).to_string();
        cluster.kubectl(&["patch", "storageclass", &class.name, "-p", &allow])?;
        let namespace = Namespace::new(cluster, test)?;
        let name = namespace.name.as_str();
        cluster.apply(name, &claim("data", &class.name))?;
        let pod = cluster.pod("user", "date >/data/log; sleep 36000", &["data"]);
        cluster.apply(name, &pod)?;
        cluster.until_phase(name, "pod", "user", "Running")?;
        let volume = volume_of(cluster, name, "data")?;
        Ok(Self {
            cluster,
            namespace,
            volume,
        })
    }

    fn grows(&self, more: &str) -> Result<()> {
        let (cluster, namespace) = (self.cluster, self.namespace.name.as_str());
        let asked = json!({"spec": {"resources": {"requests": {"storage": more}}}}).to_string();
        cluster.kubectl(&["-n", namespace, "patch", "pvc", "data", "-p", &asked])?;
        let grown = |claim: &Value| {
            let conditions = claim["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            claim["status"]["capacity"]["storage"] == more
                && !conditions.any(|condition| condition["type"] == "Resizing")
        };
        cluster.until(namespace, "pvc", "data", "grown", grown)?;
        let volume = cluster.get("", "pv", &self.volume)?;
        let capacity = &volume["spec"]["capacity"]["storage"];
        ensure!(capacity == more, "the volume has {capacity}");
        cluster.sh(namespace, "user", "date >>/data/log")?;
        let user = cluster.get(namespace, "pod", "user")?;
        let restarts = &user["status"]["containerStatuses"][0]["restartCount"];
        ensure!(*restarts == 0, "the pod was restarted: {restarts}");
        Ok(())
    }

    fn goes(&self) -> Result<()> {
        let (cluster, namespace) = (self.cluster, self.namespace.name.as_str());
        cluster.delete(namespace, "pod", "user")?;
        cluster.delete(namespace, "pvc", "data")?;
        cluster.until_gone("", "pv", &self.volume)
    }
}

/// The object that tells the scheduler what room a class has on a node.
fn told_of(cluster: &Cluster, class: &str, node: &str) -> Result<Value> {
    let all = cluster.read(&["get", "csistoragecapacities", "--all-namespaces"])?;
    let mut all = all["items"].as_array().into_iter().flatten();
    let there = all.find(|told| {
        let host = &told["nodeTopology"]["matchLabels"]["kubernetes.io/hostname"];
        told["storageClassName"] == class && *host == node
    });
    let told = there.with_context(|| format!("nothing is told of {class} on {node}"))?;
    Ok(told.clone())
}

/// What it says, in bytes: bitts writes no suffix, and the API server only one of thousands.
fn room(told: &Value) -> Option<f64> {
    let text = told["capacity"].as_str()?;
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, suffix) = text.split_at(end.unwrap_or(text.len()));
    let thousands = ["", "k", "M", "G", "T"].iter().position(|s| *s == suffix)?;
    let digits: f64 = digits.parse().ok()?;
    Some(digits * 1000_f64.powi(i32::try_from(thousands).ok()?))
}
