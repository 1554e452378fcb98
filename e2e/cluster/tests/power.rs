//! A node that loses its power and gets it back: what is elsewhere goes on meanwhile, and nothing that
//! was on its disk is lost.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::class::{Class, Ground, Place, claim, volume_of};
use crate::kubectl::{Cluster, Namespace};

pub(crate) fn lost_and_back(cluster: &Cluster) -> Result<()> {
    let nodes = Class::new(cluster, "power-nodes", Ground::Nodes)?;
    let share = Class::new(cluster, "power-nfs", Ground::Share)?;
    let namespace = Namespace::new(cluster, "power")?;
    let namespace = namespace.name.as_str();
    let [other, node] = <[String; 2]>::try_from(cluster.workers()?)
        .ok()
        .context("two nodes take pods")?;
    let on = |mut pod: Value, node: &str| {
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        pod["spec"]["restartPolicy"] = json!("Always");
        pod
    };

    for (name, class) in [("disk", &nodes), ("shared", &share), ("late", &nodes)] {
        cluster.apply(namespace, &claim(name, &class.name))?;
    }
    let both = ["disk", "shared"];
    let script = "echo start | tee -a /disk/log >>/shared/log; sync; sleep 3600";
    let writer = on(cluster.pod("writer", script, &both), &node);
    cluster.apply(namespace, &writer)?;
    cluster.until_phase(namespace, "pod", "writer", "Running")?;
    let starts = |n: usize| {
        format!("test $(wc -l </disk/log) = {n} && test $(wc -l </shared/log) = {n} && sync")
    };
    cluster.until_sh(namespace, "writer", &starts(1))?;
    let before = both.map(|claim| volume_of(cluster, namespace, claim));

    cluster.change(&["power", "off", &node])?;
    // What is on the server is reached from elsewhere, and more of it is made.
    let read = "test -s /shared/log; date >>/more/log; sleep 3600";
    cluster.apply(namespace, &claim("more", &share.name))?;
    let reader = on(cluster.pod("reader", read, &["shared", "more"]), &other);
    cluster.apply(namespace, &reader)?;
    cluster.until_phase(namespace, "pod", "reader", "Running")?;
    cluster.until_sh(namespace, "reader", "test -s /more/log")?;
    // What only the lost node can make waits for it.
    let late = on(
        cluster.pod("late", "date >/late/log; sleep 3600", &["late"]),
        &node,
    );
    cluster.apply(namespace, &late)?;

    cluster.change(&["power", "on", &node])?;
    cluster.until_sh(namespace, "writer", &starts(2))?;
    let after = both.map(|claim| volume_of(cluster, namespace, claim));
    for (before, after) in before.into_iter().zip(after) {
        let (before, after) = (before?, after?);
        ensure!(before == after, "{before} became {after}");
    }
    cluster.until_phase(namespace, "pod", "late", "Running")?;
    let volume = volume_of(cluster, namespace, "late")?;
    cluster.until_sh(namespace, "late", "test -s /late/log")?;
    let place = Place::of(cluster, &volume)?;
    place.sh(cluster, "test -s $DATA/log")?;

    for (pod, claim) in [("writer", "disk"), ("late", "late"), ("reader", "more")] {
        let volume = volume_of(cluster, namespace, claim)?;
        cluster.delete(namespace, "pod", pod)?;
        cluster.delete(namespace, "pvc", claim)?;
        cluster.until_gone("", "pv", &volume)?;
    }
    place.sh(cluster, "test ! -e $DATA")
}
