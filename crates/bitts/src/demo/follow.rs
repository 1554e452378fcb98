//! Watches the demo's objects and mounts, and tells what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use bitts_agent::{How, Report};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::story::{Step, Story};

/// Tells every change of a phase until the API ends.
pub(crate) async fn objects(client: Client, names: Names, story: Story) -> Result<()> {
    tokio::try_join!(
        volumes(Api::all(client.clone()), &story),
        claims(Api::all(client.clone()), &story),
        pods(Api::all(client), &names, &story),
    )?;
    Ok(())
}

/// Objects as they change; what a watch needs to go on after a break is the watcher's business.
fn changes<K>(api: Api<K>) -> impl Stream<Item = (K, bool)>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    watcher(api, watcher::Config::default()).filter_map(async |event| match event {
        Ok(Event::Apply(object) | Event::InitApply(object)) => Some((object, true)),
        Ok(Event::Delete(object)) => Some((object, false)),
        Ok(Event::Init | Event::InitDone) => None,
        Err(error) => {
            tracing::warn!(%error, "the demo's watch broke; it goes on");
            None
        }
    })
}

async fn volumes(api: Api<PersistentVolume>, story: &Story) -> Result<()> {
    let mut phases = BTreeMap::new();
    let mut changes = std::pin::pin!(changes(api));
    while let Some((volume, exists)) = changes.next().await {
        let name = volume.name_any();
        if !exists {
            phases.remove(&name);
            continue;
        }
        let status = volume.status.unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let step = match phase.as_str() {
            "Available" => Step::Available,
            "Released" => Step::Released,
            "Failed" => Step::Failed,
            _ => {
                phases.insert(name, phase);
                continue;
            }
        };
        if phases.insert(name.clone(), phase.clone()).as_ref() != Some(&phase) {
            let detail = status
                .message
                .filter(|m| !m.is_empty())
                .unwrap_or_else(|| match step {
                    Step::Available => "free to be bound".to_owned(),
                    _ => "its claim is gone; the data is still there".to_owned(),
                });
            story.step(step, "PersistentVolume", &name, &detail)?;
        }
    }
    Ok(())
}

async fn claims(api: Api<PersistentVolumeClaim>, story: &Story) -> Result<()> {
    let mut phases = BTreeMap::new();
    let mut changes = std::pin::pin!(changes(api));
    while let Some((claim, exists)) = changes.next().await {
        let name = place(&claim);
        if !exists {
            phases.remove(&name);
            continue;
        }
        let spec = claim.spec.unwrap_or_default();
        let phase = claim.status.and_then(|s| s.phase).unwrap_or_default();
        let before = phases.insert(name.clone(), phase.clone());
        if before.is_none() {
            let asked = spec.resources.and_then(|r| r.requests).unwrap_or_default();
            let asked = asked
                .get("storage")
                .map(|q| q.0.as_str())
                .unwrap_or("nothing")
                .to_owned();
            let modes = spec.access_modes.unwrap_or_default().join(",");
            let class = spec.storage_class_name.unwrap_or_default();
            let detail = format!("asks for {asked} {modes} {class}");
            story.step(
                Step::ClaimCreated,
                "PersistentVolumeClaim",
                &name,
                detail.trim_end(),
            )?;
        }
        if before.as_deref() != Some("Bound") && phase == "Bound" {
            let detail = format!("to volume {}", spec.volume_name.unwrap_or_default());
            story.step(Step::Bound, "PersistentVolumeClaim", &name, &detail)?;
        }
        if before.as_deref() != Some("Lost") && phase == "Lost" {
            let detail = "the volume that held its data is gone";
            story.step(Step::Failed, "PersistentVolumeClaim", &name, detail)?;
        }
    }
    Ok(())
}

async fn pods(api: Api<Pod>, names: &Names, story: &Story) -> Result<()> {
    let mut told = BTreeSet::new();
    let mut changes = std::pin::pin!(changes(api));
    while let Some((pod, exists)) = changes.next().await {
        let name = place(&pod);
        let uid = pod.uid().unwrap_or_default();
        if exists && told.insert(uid.clone()) {
            let detail = match pod.spec.and_then(|s| s.node_name) {
                Some(node) => format!("on node {node}"),
                None => "goes to the node once its claims are bound".to_owned(),
            };
            story.step(Step::PodCreated, "Pod", &name, &detail)?;
            names.learn(uid, name);
        }
    }
    Ok(())
}

/// Tells every mount that the agent makes or takes down.
pub(crate) async fn mounts(
    mut reports: UnboundedReceiver<Report>,
    pods: Names,
    story: Story,
) -> Result<()> {
    while let Some(report) = reports.recv().await {
        let (step, pod, detail) = match report {
            Report::Mounted {
                mount, target, how, ..
            } => {
                let command = format!("mount --bind {} {}", mount.source, target.display());
                let detail = match how {
                    How::Now | How::Anew => command,
                    How::Before => format!("{command} (was there already)"),
                    How::Shown => format!("{command} (shown, not done)"),
                };
                (Step::Mounted, mount.key.pod, detail)
            }
            Report::MountFailed { mount, message, .. } => (Step::Failed, mount.key.pod, message),
            Report::Unmounted {
                key,
                target,
                was_mounted,
            } => {
                let detail = match was_mounted {
                    true => format!("umount {}", target.display()),
                    false => format!("nothing was mounted at {}", target.display()),
                };
                (Step::Unmounted, key.pod, detail)
            }
            Report::Kept {
                key,
                target,
                holders,
            } => (
                Step::Failed,
                key.pod,
                format!("{} stays: {holders}", target.display()),
            ),
            Report::UnmountFailed { key, message } => (Step::Failed, key.pod, message),
            // The demo's volumes are directories: nothing is staged.
            Report::Scanned { .. }
            | Report::ScanFailed(_)
            | Report::PodDirectoryRemoved(_)
            | Report::NeedsDevice(_)
            | Report::Staged { .. }
            | Report::StageFailed { .. }
            | Report::Unstaged { .. }
            | Report::UnstageFailed { .. }
            // Nor does anything go bad.
            | Report::Missing(_)
            | Report::Appeared(_)
            | Report::Left(_)
            | Report::Probed { .. } => continue,
        };
        let name = pods.of(&pod.to_string()).await;
        story.step(step, "Pod", &name, &detail)?;
    }
    // The agent ends with the demo, not before.
    std::future::pending().await
}

/// The names of the pods told of so far: the agent knows a pod by its uid.
#[derive(Clone, Default)]
pub(crate) struct Names(watch::Sender<BTreeMap<String, String>>);

impl Names {
    fn learn(&self, uid: String, name: String) {
        self.0.send_modify(|names| {
            names.insert(uid, name);
        });
    }

    /// Waits until the pod was told of: the agent may be faster than the watch here.
    async fn of(&self, uid: &str) -> String {
        let mut names = self.0.subscribe();
        let known = names.wait_for(|names| names.contains_key(uid));
        match tokio::time::timeout(Duration::from_secs(2), known).await {
            Ok(Ok(names)) => names[uid].clone(),
            // Its object was gone before this watch began.
            Ok(Err(_)) | Err(_) => uid.to_owned(),
        }
    }
}

fn place(object: &impl kube::ResourceExt) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}
