//! The safety net below the watches: what they lost is found, and nothing is found where nothing was.

use std::time::Duration;

use anyhow::ensure;
use bitts_apiserver::faults::{Fault, Faults, Rule};
use bitts_binder::Options;
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::suite::{Manner, Suite};
use bitts_e2e::tripwire::{self, Tripwire};
use bitts_runtime::{Host, Timing};
use serde_json::{Value, json};

use crate::scene::{claim, create, is_bound, of_class, until};

const VOLUMES: &str = "/api/v1/persistentvolumes";

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own("binder::a_lost_event_is_found", &[Kind::Embedded], |_| {
        a_lost_event_is_found()
    });
    suite.add(
        "binder::nothing_is_found_where_nothing_was_lost",
        Kind::BOTH,
        Manner::Alone,
        nothing_is_found_where_nothing_was_lost,
    );
}

/// Runs the binder, comparing each second, beside a story; returns its metrics at the end.
async fn comparing(
    client: kube::Client,
    story: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let timing = Timing {
        resync: Some(Duration::from_secs(1)),
        ..Timing::default()
    };
    let host = Host::with_timing(client, timing);
    let binder = bitts_binder::run(&host, Options::default(), None);
    let story = async {
        let ended = story().await;
        let metrics = host.metrics_text().await;
        host.shutdown().cancel();
        ended.map(|()| metrics)
    };
    let (ran, ended) = tokio::join!(binder, story);
    let metrics = ended?;
    ran?;
    Ok(metrics)
}

async fn volume(api: &Scope, name: &str) -> anyhow::Result<Value> {
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": api.name(name)},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": api.name("class"), "persistentVolumeReclaimPolicy": "Retain",
            "nfs": {"server": "nfs.example", "path": "/"}}});
    create(api, VOLUMES, body).await
}

fn repairs(metrics: &str) -> Vec<&str> {
    let lines = metrics.lines();
    lines
        .filter(|line| line.starts_with("bitts_resync_repairs_total{"))
        .collect()
}

/// B2: a claim that no watch told of is bound all the same.
async fn a_lost_event_is_found() -> anyhow::Result<()> {
    let server = bitts_apiserver::ApiServer::default();
    let api = Scope::new(Cluster::Embedded(server.clone()).into()).await?;
    let metrics = comparing(api.client(), async || {
        claim(&api, "first", of_class(&api, "class")).await?;
        volume(&api, "first").await?;
        until(&api, &api.claims("/first"), "it is Bound", is_bound).await?;
        let lost = Rule::on("watch", "persistentvolumeclaims").name("lost");
        server.set_faults(Faults::scripted([lost.nth(1).then(Fault::DropEvent)]));
        claim(&api, "lost", of_class(&api, "class")).await?;
        volume(&api, "second").await?;
        until(&api, &api.claims("/lost"), "it is Bound", is_bound).await?;
        Ok(())
    })
    .await?;
    let claims = "bitts_resync_repairs_total{role=\"binder\",kind=\"PersistentVolumeClaim\"} 1";
    ensure!(repairs(&metrics) == [claims], "{:?}", repairs(&metrics));
    Ok(())
}

/// B3: a list is ahead of the watch, or the machine's own writes are ahead of both; that is no loss.
async fn nothing_is_found_where_nothing_was_lost(api: Scope) -> anyhow::Result<()> {
    const PAIRS: usize = 60;
    let wire = Tripwire::new(
        api.client(),
        tripwire::Timing::Before,
        |_| false,
        async || (),
    );
    let metrics = comparing(wire.client(), async || {
        for n in 0..PAIRS {
            volume(&api, &format!("v-{n}")).await?;
            claim(&api, &format!("c-{n}"), of_class(&api, "class")).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if n % 3 == 0 {
                api.delete(&api.claims(&format!("/c-{n}")), Value::Null)
                    .await?;
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    })
    .await?;
    let lists = format!("GET {VOLUMES}");
    let lists = wire.reads().iter().filter(|line| **line == lists).count();
    ensure!(
        lists > 3,
        "{lists} lists and watches of volumes: none compared"
    );
    ensure!(repairs(&metrics).is_empty(), "{:?}", repairs(&metrics));
    Ok(())
}
