//! Each check fails where there is reason to: somebody lies, and that is noticed.

use std::time::Duration;

use anyhow::ensure;
use bitts_csi::testing::{Fate, Turn};
use bitts_e2e::cluster::Kind;
use bitts_e2e::raw::text;
use bitts_e2e::suite::Suite;
use serde_json::json;

use crate::kubelets::{Lie, beside};
use crate::stage::{ATTACHMENTS, Stage};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own("attach::two_nodes_are_noticed", &[Kind::Served], |_| {
        two_nodes_are_noticed()
    });
    suite.add_own("attach::a_robbed_node_is_noticed", &[Kind::Served], |_| {
        a_robbed_node_is_noticed()
    });
    suite.add_own("attach::what_is_left_is_noticed", &[Kind::Served], |_| {
        what_is_left_is_noticed()
    });
}

/// A stage with two nodes, and a pod that runs on the first.
async fn with_a_pod(
    lie: Lie,
    then: impl AsyncFnOnce(&Stage, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stage = Stage::new(Kind::Served).await?;
    let mut bitts = stage.bitts()?;
    let story = async {
        let (first, second) = (stage.node("n0").await?, stage.node("n1").await?);
        stage.volume("v").await?;
        stage.pod("p", "v", Some(&first)).await?;
        let runs = async || stage.all_run(1).await;
        stage.until("the pod runs", PATIENCE, runs).await?;
        stage.check()?;
        then(&stage, &second).await
    };
    let ended = beside(&stage, lie, story).await;
    ended.map_err(|why| bitts.explain(why))
}

/// Somebody takes the finalizer off an attachment and deletes it while the volume is attached: nobody
/// can know of it then.
async fn two_nodes_are_noticed() -> anyhow::Result<()> {
    with_a_pod(Lie::None, async |stage, second| {
        let all = stage.list(ATTACHMENTS).await?;
        let path = format!("{ATTACHMENTS}/{}", text(&all[0], "/metadata/name"));
        let bare = json!({"metadata": {"finalizers": null}});
        // While it is there, bitts puts none back: it is attached.
        stage.api.merge(&path, bare).await?.expect(200)?;
        let now = json!({"gracePeriodSeconds": 0});
        stage.api.delete(&stage.pods("/p"), now).await?;
        stage.pod("q", "v", Some(second)).await?;
        let noticed = async || {
            let broken = stage.seen(|seen| seen.broken.clone());
            let found = broken.iter().any(|b| b.contains("and now on"));
            Ok((!found).then(|| format!("{broken:?}")))
        };
        stage
            .until("two nodes are noticed", PATIENCE, noticed)
            .await?;
        ensure!(stage.check().is_err());
        Ok(())
    })
    .await
}

/// A kubelet says that it does not use what it has mounted.
async fn a_robbed_node_is_noticed() -> anyhow::Result<()> {
    with_a_pod(Lie::KeepsAndHides, async |stage, _| {
        stage.delete_pod("p").await?;
        let noticed = async || {
            let broken = stage.seen(|seen| seen.broken.clone());
            let found = broken.iter().any(|b| b.contains("which uses it"));
            Ok((!found).then(|| format!("{broken:?}")))
        };
        stage
            .until("a robbed node is noticed", PATIENCE, noticed)
            .await?;
        ensure!(stage.check().is_err());
        Ok(())
    })
    .await
}

/// A driver says that it has detached, and has not.
async fn what_is_left_is_noticed() -> anyhow::Result<()> {
    with_a_pod(Lie::None, async |stage, _| {
        stage.disks.decide(|call| Turn {
            fate: (!call.attaches).then_some(Fate::OnlySays),
            ..Turn::default()
        });
        stage.delete_pod("p").await?;
        let gone = async || {
            let all = stage.list(ATTACHMENTS).await?;
            Ok((!all.is_empty()).then(|| format!("{} attachments", all.len())))
        };
        stage
            .until("the attachment is gone", PATIENCE, gone)
            .await?;
        let left = stage.left().await?.unwrap_or_default();
        ensure!(left.contains("attached {"), "{left}");
        Ok(())
    })
    .await
}
