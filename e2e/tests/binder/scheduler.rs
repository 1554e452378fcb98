//! Delayed binding with the real kube-scheduler and the real bitts binary: S10 to S12 and P12 as both
//! sides keep them. Nodes are objects only; nothing runs the pods.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::control_plane::Component;
use bitts_e2e::raw::text;
use bitts_e2e::suite::Suite;
use serde_json::{Value, json};

use crate::provisioner::{HAND_OVER, Provisioner, SELECTED, on_node};
use crate::scene::{
    claim, class, create, events_about, is_bound, of_class, pods, until, until_told,
};

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own("binder::beside_the_real_scheduler", &[Kind::Real], |_| {
        beside_the_real_scheduler()
    });
}

/// Each story has a namespace, classes and nodes of its own; they run side by side on one API.
async fn beside_the_real_scheduler() -> anyhow::Result<()> {
    let cluster = std::sync::Arc::new(Cluster::start(Kind::Real).await?);
    let kubeconfig = cluster.kubeconfig().context("a real API has one")?;
    let mut binder = Component::binder(kubeconfig, &["--leader-elect=false"])?;
    let mut scheduler = Component::scheduler(kubeconfig, &[])?;
    let scope = async || Scope::new(cluster.clone()).await;
    let told = tokio::try_join!(
        named("the pod decides", the_pod_decides(scope().await?)),
        named("two for one volume", two_for_one_volume(scope().await?)),
        named("both on one node", both_on_one_node(scope().await?)),
        named("nowhere both", nowhere_both(scope().await?)),
        named("made for the pod", made_for_the_pod(scope().await?)),
        named("no room there", no_room_there(scope().await?)),
        named("one of each", one_of_each(scope().await?)),
    );
    let told = told.map_err(|why| scheduler.explain(binder.explain(why)));
    told.map(drop)
}

async fn named(story: &str, ends: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    ends.await.with_context(|| story.to_owned())
}

/// A node that is ready and takes the pods of the story, which name it by their label.
async fn node(api: &Scope, base: &str) -> anyhow::Result<String> {
    let name = api.name(base);
    let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
        "labels": {"kubernetes.io/hostname": name, "story": api.id()}}});
    create(api, "/api/v1/nodes", body).await?;
    let path = format!("/api/v1/nodes/{name}");
    let room = json!({"cpu": "8", "memory": "8Gi", "pods": "100"});
    let status = json!({"status": {"capacity": room, "allocatable": room, "conditions":
        [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "as a fake is"}]}});
    api.merge(&format!("{path}/status"), status)
        .await?
        .expect(200)?;
    // Given to each new node; a controller would take it away.
    let ready = json!({"spec": {"taints": null}});
    api.merge(&path, ready).await?.expect(200)?;
    Ok(name)
}

/// A local volume of a size on a node.
async fn volume(
    api: &Scope,
    base: &str,
    class: &str,
    size: &str,
    node: &str,
) -> anyhow::Result<String> {
    let name = api.name(base);
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": api.name(class), "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": "/data"}, "nodeAffinity": on_node(node)}});
    create(api, "/api/v1/persistentvolumes", body).await?;
    Ok(name)
}

/// A class whose volumes the scheduler chooses.
async fn waiting_class(api: &Scope, base: &str, provisioner: &str) -> anyhow::Result<()> {
    let rest = json!({"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
    class(api, base, rest).await.map(drop)
}

async fn local_class(api: &Scope, base: &str) -> anyhow::Result<()> {
    waiting_class(api, base, "kubernetes.io/no-provisioner").await
}

async fn pod(api: &Scope, name: &str, claims: &[&str]) -> anyhow::Result<()> {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}}))
        .collect();
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "nodeSelector": {"story": api.id()},
        "containers": [{"name": "c", "image": "none"}], "volumes": volumes}});
    create(api, &pods(api, ""), body).await.map(drop)
}

/// Waits until a pod has a node, and says which.
async fn placed(api: &Scope, name: &str) -> anyhow::Result<String> {
    let path = pods(api, &format!("/{name}"));
    let has_node = |pod: &Value| !text(pod, "/spec/nodeName").is_empty();
    let pod = until(api, &path, "it has a node", has_node).await?;
    Ok(text(&pod, "/spec/nodeName").to_owned())
}

/// Waits until the scheduler has said that it cannot place a pod.
async fn refused(api: &Scope, name: &str) -> anyhow::Result<()> {
    let path = pods(api, &format!("/{name}"));
    let is_refused = |pod: &Value| {
        text(pod, "/status/conditions/0/type") == "PodScheduled"
            && text(pod, "/status/conditions/0/status") == "False"
    };
    until(api, &path, "it cannot be placed", is_refused)
        .await
        .map(drop)
}

async fn bound(api: &Scope, name: &str) -> anyhow::Result<Value> {
    let path = api.claims(&format!("/{name}"));
    until(api, &path, "it is Bound", is_bound).await
}

/// S10, S11: nothing is decided before a pod uses the claim; then it gets the volume of a node that can
/// take the pod, though another one would fit better.
async fn the_pod_decides(api: Scope) -> anyhow::Result<()> {
    let here = node(&api, "here").await?;
    local_class(&api, "class").await?;
    let better = volume(&api, "better", "class", "1Gi", "no-such-node").await?;
    let chosen = volume(&api, "chosen", "class", "5Gi", &here).await?;
    claim(&api, "c", of_class(&api, "class")).await?;
    let told = until_told(&api, "c", "WaitForFirstConsumer").await?;
    ensure!(told.len() == 1, "{told:?}");
    // Long enough for a binder that does not wait.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for name in [&better, &chosen] {
        let path = format!("/api/v1/persistentvolumes/{name}");
        let volume = api.get(&path).await?.expect(200)?;
        ensure!(volume["spec"]["claimRef"].is_null(), "{volume}");
        ensure!(text(&volume, "/status/phase") == "Available", "{volume}");
    }
    let waits = api.get(&api.claims("/c")).await?.expect(200)?;
    ensure!(text(&waits, "/status/phase") == "Pending", "{waits}");
    ensure!(events_about(&api, "c").await?.len() == 1, "told once");

    pod(&api, "p", &["c"]).await?;
    ensure!(placed(&api, "p").await? == here);
    let claim = bound(&api, "c").await?;
    ensure!(text(&claim, "/spec/volumeName") == chosen, "{claim}");
    let path = format!("/api/v1/persistentvolumes/{chosen}");
    let volume = api.get(&path).await?.expect(200)?;
    ensure!(
        volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"],
        "{volume}"
    );
    ensure!(text(&volume, "/status/phase") == "Bound", "{volume}");
    let by = "/metadata/annotations/pv.kubernetes.io~1bound-by-controller";
    ensure!(text(&volume, by) == "yes", "{volume}");
    let completed = "/metadata/annotations/pv.kubernetes.io~1bind-completed";
    ensure!(text(&claim, completed) == "yes", "{claim}");
    Ok(())
}

/// S12: one pod has the volume, the other waits, and its claim is as it was; with another volume it is
/// served.
async fn two_for_one_volume(api: Scope) -> anyhow::Result<()> {
    let here = node(&api, "here").await?;
    local_class(&api, "class").await?;
    volume(&api, "one", "class", "1Gi", &here).await?;
    for name in ["a", "b"] {
        claim(&api, name, of_class(&api, "class")).await?;
        pod(&api, name, &[name]).await?;
    }
    let list = api.claims("");
    let one = |all: &Value| {
        all["items"]
            .as_array()
            .is_some_and(|c| c.iter().any(is_bound))
    };
    let all = until(&api, &list, "one is Bound", one).await?;
    let first = &all["items"][0];
    let (winner, loser) = if is_bound(first) {
        ("a", "b")
    } else {
        ("b", "a")
    };
    ensure!(placed(&api, winner).await? == here);
    refused(&api, loser).await?;
    let claim = api
        .get(&api.claims(&format!("/{loser}")))
        .await?
        .expect(200)?;
    ensure!(text(&claim, "/status/phase") == "Pending", "{claim}");
    ensure!(text(&claim, "/spec/volumeName").is_empty(), "{claim}");
    ensure!(claim["metadata"]["annotations"].is_null(), "{claim}");
    let told = until_told(&api, loser, "WaitForPodScheduled").await?;
    ensure!(told.len() <= 2, "{told:?}");

    let other = volume(&api, "other", "class", "1Gi", &here).await?;
    ensure!(placed(&api, loser).await? == here);
    let claim = bound(&api, loser).await?;
    ensure!(text(&claim, "/spec/volumeName") == other, "{claim}");
    Ok(())
}

/// S10: of each claim's volumes the ones that are on one node, not the best of each.
async fn both_on_one_node(api: Scope) -> anyhow::Result<()> {
    let (left, right) = (node(&api, "left").await?, node(&api, "right").await?);
    local_class(&api, "fast").await?;
    local_class(&api, "large").await?;
    volume(&api, "best", "fast", "1Gi", &left).await?;
    let fast = volume(&api, "fast", "fast", "9Gi", &right).await?;
    let large = volume(&api, "large", "large", "1Gi", &right).await?;
    claim(&api, "f", of_class(&api, "fast")).await?;
    claim(&api, "l", of_class(&api, "large")).await?;
    pod(&api, "p", &["f", "l"]).await?;
    ensure!(placed(&api, "p").await? == right);
    ensure!(text(&bound(&api, "f").await?, "/spec/volumeName") == fast);
    ensure!(text(&bound(&api, "l").await?, "/spec/volumeName") == large);
    Ok(())
}

/// S10: where no node has both, neither is bound.
async fn nowhere_both(api: Scope) -> anyhow::Result<()> {
    let (left, right) = (node(&api, "left").await?, node(&api, "right").await?);
    local_class(&api, "fast").await?;
    local_class(&api, "large").await?;
    let volumes = [
        volume(&api, "fast", "fast", "1Gi", &left).await?,
        volume(&api, "large", "large", "1Gi", &right).await?,
    ];
    claim(&api, "f", of_class(&api, "fast")).await?;
    claim(&api, "l", of_class(&api, "large")).await?;
    pod(&api, "p", &["f", "l"]).await?;
    refused(&api, "p").await?;
    for name in volumes {
        let path = format!("/api/v1/persistentvolumes/{name}");
        let volume = api.get(&path).await?.expect(200)?;
        ensure!(volume["spec"]["claimRef"].is_null(), "{volume}");
    }
    // The volume that was missing comes.
    volume(&api, "more", "large", "1Gi", &left).await?;
    ensure!(placed(&api, "p").await? == left);
    bound(&api, "f").await?;
    bound(&api, "l").await?;
    Ok(())
}

/// S10, P12: the scheduler selects a node, bitts hands the claim over, the provisioner makes the volume
/// there.
async fn made_for_the_pod(api: Scope) -> anyhow::Result<()> {
    let here = node(&api, "here").await?;
    let name = "example.com/disk";
    waiting_class(&api, "class", name).await?;
    claim(&api, "c", of_class(&api, "class")).await?;
    until_told(&api, "c", "WaitForFirstConsumer").await?;
    let waits = api.get(&api.claims("/c")).await?.expect(200)?;
    ensure!(waits["metadata"]["annotations"].is_null(), "{waits}");
    pod(&api, "p", &["c"]).await?;
    let path = api.claims("/c");
    let handed = until(&api, &path, "it is handed over", |claim| {
        HAND_OVER.iter().all(|at| text(claim, at) == name)
    });
    ensure!(text(&handed.await?, SELECTED) == here);
    let provisioner = Provisioner::new(&api, name, true);
    tokio::select! {
        served = provisioner.serve(None) => served,
        node = placed(&api, "p") => {
            ensure!(node? == here);
            let claim = bound(&api, "c").await?;
            ensure!(text(&claim, SELECTED) == here, "S12: it stays: {claim}");
            let told = events_about(&api, "c").await?;
            let handed = told.iter().filter(|e| e["reason"] == "ExternalProvisioning");
            ensure!(handed.count() == 1, "{told:?}");
            Ok(())
        }
    }
}

/// S10, S12, P12: the provisioner gives the claim back, and the pod goes to another node.
async fn no_room_there(api: Scope) -> anyhow::Result<()> {
    let full = node(&api, "full").await?;
    let name = "example.com/disk";
    waiting_class(&api, "class", name).await?;
    claim(&api, "c", of_class(&api, "class")).await?;
    pod(&api, "p", &["c"]).await?;
    let path = api.claims("/c");
    until(&api, &path, "its node is selected", |c| {
        text(c, SELECTED) == full
    })
    .await?;
    let free = node(&api, "free").await?;
    // Or the scheduler might try it again and again.
    let cordon = json!({"spec": {"unschedulable": true}});
    api.merge(&format!("/api/v1/nodes/{full}"), cordon)
        .await?
        .expect(200)?;
    let provisioner = Provisioner::new(&api, name, true);
    tokio::select! {
        served = provisioner.serve(Some(&full)) => served,
        node = placed(&api, "p") => {
            ensure!(node? == free);
            let claim = bound(&api, "c").await?;
            ensure!(text(&claim, SELECTED) == free, "{claim}");
            Ok(())
        }
    }
}

/// S10: a volume that is there and one that is made, for one pod.
async fn one_of_each(api: Scope) -> anyhow::Result<()> {
    let (left, right) = (node(&api, "left").await?, node(&api, "right").await?);
    let name = "example.com/disk";
    local_class(&api, "local").await?;
    waiting_class(&api, "made", name).await?;
    let there = volume(&api, "there", "local", "1Gi", &right).await?;
    claim(&api, "l", of_class(&api, "local")).await?;
    claim(&api, "m", of_class(&api, "made")).await?;
    pod(&api, "p", &["l", "m"]).await?;
    let provisioner = Provisioner::new(&api, name, true);
    tokio::select! {
        served = provisioner.serve(Some(&left)) => served,
        node = placed(&api, "p") => {
            ensure!(node? == right);
            ensure!(text(&bound(&api, "l").await?, "/spec/volumeName") == there);
            ensure!(text(&bound(&api, "m").await?, SELECTED) == right);
            Ok(())
        }
    }
}
