//! The limit: a client that has each pod's volume attached without deciding anything. The writes are those
//! of bitts and of the stock pair: the VolumeAttachment; the finalizers of it and of the volume, at the same
//! time; its status, when the driver has answered; the node's list, one write at a time for each node
//! with all that came meanwhile; and an event for the pod, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bitts_csi::{Driver, v1};
use bitts_e2e::raw::{Request, text};
use bitts_e2e::real::client_for;
use futures::{TryStreamExt as _, stream};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::world::{DRIVER, PODS, patch};
use crate::setup::{VOLUMES, post};

const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const FINALIZER: &str = "external-attacher/bench-bitts-dev";
/// As few as keep the API server busy while some wait for the driver.
const AT_ONCE: usize = 64;

/// The client.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    socket: PathBuf,
    #[arg(long, default_value_t = AT_ONCE)]
    at_once: usize,
}

/// What a node is to list.
#[derive(Default)]
struct Node {
    volumes: BTreeSet<String>,
    is_news: bool,
    is_written: bool,
}

struct Attaching {
    client: Client,
    driver: Driver,
    nodes: Mutex<BTreeMap<String, Node>>,
    events: mpsc::UnboundedSender<Value>,
}

/// Attaches as pods come, until it is killed.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = client_for(&std::fs::read_to_string(&args.kubeconfig)?).await?;
    let driver = Driver::connect(&args.socket, Duration::from_secs(15)).await?;
    let (events, mut told) = mpsc::unbounded_channel();
    let attaching = Arc::new(Attaching {
        client: client.clone(),
        driver,
        nodes: Mutex::default(),
        events,
    });
    let telling = async {
        while let Some(event) = told.recv().await {
            post(&client, EVENTS, event).await?;
        }
        Ok(())
    };
    let path = format!("{PODS}?watch=1");
    let watch = Request::new("GET", &path, Value::Null)
        .watch(&client)
        .await?;
    let lines = stream::try_unfold(watch, async |mut watch| {
        anyhow::Ok(watch.next_line().await?.map(|line| (line, watch)))
    });
    let pods = lines.try_filter_map(async |line: Vec<u8>| {
        if !line.starts_with(br#"{"type":"ADDED""#) {
            return Ok(None);
        }
        let mut event: Value = serde_json::from_slice(&line)?;
        Ok(Some(event["object"].take()))
    });
    let all = pods.try_for_each_concurrent(args.at_once, |pod| {
        let attaching = attaching.clone();
        async move { tokio::spawn(async move { attaching.attach(&pod).await }).await? }
    });
    tokio::try_join!(all, telling)?;
    anyhow::bail!("the watch ended");
}

impl Attaching {
    async fn attach(&self, pod: &Value) -> Result<()> {
        let (name, node) = (text(pod, "/metadata/name"), text(pod, "/spec/nodeName"));
        let volume = name.replacen('p', "v", 1);
        let attachment = format!("csi-{volume}");
        let path = format!("{ATTACHMENTS}/{attachment}");
        let body = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
            "metadata": {"name": attachment}, "spec": {"attacher": DRIVER, "nodeName": node,
                "source": {"persistentVolumeName": volume}}});
        post(&self.client, ATTACHMENTS, body).await?;
        let node_id = format!("id-{node}");
        let held = json!({"metadata": {"finalizers": [FINALIZER],
            "annotations": {"csi.alpha.kubernetes.io/node-id": node_id}}});
        let volume_path = format!("{VOLUMES}/{volume}");
        let volume_held = json!({"metadata":
            {"finalizers": ["kubernetes.io/pv-protection", FINALIZER]}});
        tokio::try_join!(
            patch(&self.client, &path, held),
            patch(&self.client, &volume_path, volume_held),
        )?;
        let context = self.driver.attach(publish(&volume, &node_id)).await?;
        let attached = json!({"status": {"attached": true, "attachmentMetadata": context}});
        patch(&self.client, &format!("{path}/status"), attached).await?;
        self.list(node, &volume).await?;
        let event = event(pod, &volume);
        self.events.send(event).context("nobody writes events")
    }

    /// Has the node list it: with the write that this does, or with one that is about to be done.
    async fn list(&self, node: &str, volume: &str) -> Result<()> {
        let begins = self.of(node, |state| {
            state
                .volumes
                .insert(format!("kubernetes.io/csi/{DRIVER}^{volume}"));
            state.is_news = true;
            !std::mem::replace(&mut state.is_written, true)
        });
        if !begins {
            return Ok(());
        }
        while let Some(volumes) = self.of(node, |state| {
            state.is_written = std::mem::take(&mut state.is_news);
            state.is_written.then(|| state.volumes.clone())
        }) {
            let entry = |name| json!({"name": name, "devicePath": ""});
            let list: Vec<_> = volumes.into_iter().map(entry).collect();
            let status = json!({"status": {"volumesAttached": list}});
            patch(
                &self.client,
                &format!("/api/v1/nodes/{node}/status"),
                status,
            )
            .await?;
        }
        Ok(())
    }

    fn of<T>(&self, node: &str, look: impl FnOnce(&mut Node) -> T) -> T {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        look(nodes.entry(node.to_owned()).or_default())
    }
}

fn publish(volume: &str, node_id: &str) -> v1::ControllerPublishVolumeRequest {
    use v1::volume_capability::access_mode::Mode;
    use v1::volume_capability::{AccessMode, AccessType, MountVolume};
    v1::ControllerPublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node_id.to_owned(),
        volume_capability: Some(v1::VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        }),
        ..Default::default()
    }
}

fn event(pod: &Value, volume: &str) -> Value {
    let name = text(pod, "/metadata/name");
    json!({"apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{name}.attached"), "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "default",
            "name": name, "uid": text(pod, "/metadata/uid")},
        "type": "Normal", "reason": "SuccessfulAttachVolume",
        "message": format!("AttachVolume.Attach succeeded for volume \"{volume}\" "),
        "source": {"component": "limit"}, "count": 1})
}
