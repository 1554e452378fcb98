//! Kubelets, faked: they say what they use before they look at what is attached, mount what is listed,
//! and let go when their pods end (A35, M14, M15). One task is all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitts_e2e::raw::text;
use serde_json::{Value, json};

use crate::stage::Stage;

/// What is wrong with them, to show that a check notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lie {
    #[default]
    None,
    /// They keep what they mounted, and say that they do not use it.
    KeepsAndHides,
}

/// Runs the kubelets of all nodes until the story beside them ends.
pub(crate) async fn beside(
    stage: &Stage,
    lie: Lie,
    story: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let kubelets = async {
        loop {
            turn(stage, lie).await?;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    tokio::select! {
        ended = story => ended,
        failed = kubelets => failed,
    }
}

/// Each kubelet looks once at its pods and its node.
async fn turn(stage: &Stage, lie: Lie) -> anyhow::Result<()> {
    let nodes = format!("/api/v1/nodes?labelSelector=story%3D{}", stage.api.id());
    let pods = stage.list(&stage.pods("")).await?;
    for node in stage.list(&nodes).await? {
        let name = text(&node, "/metadata/name");
        let here = pods
            .iter()
            .filter(|pod| text(pod, "/spec/nodeName") == name);
        kubelet(stage, lie, &node, &here.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// The volume of a pod, by the name of its claim.
fn volume_of(stage: &Stage, pod: &Value) -> String {
    let claim = text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName");
    stage.api.name(claim)
}

fn is_ending(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

async fn kubelet(stage: &Stage, lie: Lie, node: &Value, pods: &[&Value]) -> anyhow::Result<()> {
    let name = text(node, "/metadata/name");
    let living = pods.iter().filter(|pod| !is_ending(pod));
    let wanted: BTreeSet<String> = living.map(|pod| volume_of(stage, pod)).collect();
    let attached = stage.disks.attached();
    let mounted: BTreeSet<String> = stage.seen(|seen| {
        if lie == Lie::None {
            seen.mounted
                .retain(|(v, n)| n != name || wanted.contains(v));
        }
        let here = seen.mounted.iter().filter(|(_, n)| n == name);
        here.map(|(v, _)| v.clone()).collect()
    });
    let uses: BTreeSet<String> = match lie {
        Lie::None => wanted.union(&mounted).map(|v| stage.unique(v)).collect(),
        Lie::KeepsAndHides => wanted.iter().map(|v| stage.unique(v)).collect(),
    };
    let says: BTreeSet<String> = strings(&node["status"]["volumesInUse"]);
    if uses != says {
        let status = json!({"status": {"volumesInUse": uses}});
        let path = format!("/api/v1/nodes/{name}/status");
        stage.api.merge(&path, status).await?.expect(200)?;
        return Ok(());
    }
    let entries = node["status"]["volumesAttached"].as_array();
    let listed: BTreeMap<&str, ()> = entries
        .into_iter()
        .flatten()
        .map(|entry| (text(entry, "/name"), ()))
        .collect();
    for volume in wanted.difference(&mounted) {
        if listed.contains_key(stage.unique(volume).as_str()) {
            let there = attached.contains(&(volume.clone(), format!("id-{name}")));
            stage.seen(|seen| {
                if !there {
                    let broken = format!("{name} mounts {volume}, which is not attached");
                    seen.broken.push(broken);
                }
                seen.mounted.insert((volume.clone(), name.to_owned()));
            });
        }
    }
    for pod in pods {
        let path = stage.pods(&format!("/{}", text(pod, "/metadata/name")));
        let volume = volume_of(stage, pod);
        let is_mounted = stage.seen(|seen| seen.mounted.contains(&(volume, name.to_owned())));
        if is_ending(pod) {
            let now = json!({"gracePeriodSeconds": 0});
            stage.api.delete(&path, now).await?;
        } else if is_mounted && text(pod, "/status/phase") != "Running" {
            let running = json!({"status": {"phase": "Running"}});
            // It may be gone by now.
            stage.api.merge(&format!("{path}/status"), running).await?;
        }
    }
    Ok(())
}

fn strings(list: &Value) -> BTreeSet<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
