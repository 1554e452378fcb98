//! A disk of a cloud, all the way: attached by a Compute Engine API that gives loop devices their names,
//! formatted and mounted by the agent, and back.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_attacher::{CloudConfig, CloudOptions, ComputeEngine};
use bitts_e2e::compute::{Compute, Move, PROJECT, Turn, ZONE};
use bitts_e2e::uml::guest::run;
use bitts_mount::device::loops::{self, Access};
use bitts_mount::table::MountTable;
use serde_json::{Value, json};

use crate::agent::{DEVICES, NODE, World, with_agent_and};

const PATIENCE: Duration = Duration::from_secs(60);
const UNIQUE: &str = "kubernetes.io/gce-pd/data";

/// The file that is the disk.
fn image() -> PathBuf {
    "/tmp/cloud-data".into()
}

/// What the guest environment of a machine does when a disk comes or goes.
fn plug(step: &Move) -> anyhow::Result<()> {
    let link = Path::new(DEVICES).join(format!("disk/by-id/google-{}", step.device_name));
    let file = File::options().read(true).write(true).open(image())?;
    if step.attaches {
        let device = loops::attach(&file, &image(), Access::ReadWrite, PATIENCE)?;
        fs::create_dir_all(link.parent().context("a directory")?)?;
        symlink(device.path(), link)?;
        return Ok(());
    }
    let device = loops::find(&file, &image(), PATIENCE)?.context("it is no device")?;
    let table = MountTable::read()?;
    let mounts = table.iter().filter(|mount| mount.device == device.number());
    ensure!(
        mounts.count() == 0,
        "{} goes while it is mounted",
        step.disk
    );
    fs::remove_file(link)?;
    Ok(loops::detach(&device, PATIENCE)?)
}

/// A node of a cloud with an agent, the part that attaches, and one blank disk.
fn with_cloud(
    test: impl AsyncFnOnce(&mut World, &Compute) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    run("modprobe", &["-d", "/run/drivers", "loop"])?;
    File::create_new(image())?.set_len(48 << 20)?;
    let cloud: Arc<OnceLock<Compute>> = Arc::default();
    let here = cloud.clone();
    let attacher = async move |host: &bitts_runtime::Host| {
        let compute = Compute::start().await?;
        compute.add_instance("vm-1");
        compute.add_disk("data");
        compute.take(Duration::from_millis(300));
        compute.on_move(plug);
        let metadata = compute.metadata_host();
        let api = ComputeEngine::new(&compute.endpoint(), &metadata, PATIENCE)?;
        ensure!(here.set(compute).is_ok());
        let config = CloudConfig {
            options: CloudOptions::default(),
            lease: None,
        };
        Ok(bitts_attacher::run_cloud(host, config, api).await?)
    };
    with_agent_and(None, attacher, async |world| {
        let compute = loop {
            match cloud.get() {
                Some(compute) => break compute,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let node = json!({
            "metadata": {"annotations":
                {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "spec": {"providerID": format!("gce://{PROJECT}/{ZONE}/vm-1")},
        });
        world.api.merge(&node_path(""), node).await?.expect(200)?;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        world
            .api
            .merge(&node_path("/status"), ready)
            .await?
            .expect(200)?;
        let disk = json!({"gcePersistentDisk": {"pdName": "data", "fsType": "ext4"}});
        world.add_source("pd", disk, &[]).await?;
        test(world, compute).await?;
        ensure!(compute.broken().is_empty(), "{:#?}", compute.broken());
        Ok(())
    })
}

fn node_path(rest: &str) -> String {
    format!("/api/v1/nodes/{NODE}{rest}")
}

async fn node(world: &World) -> anyhow::Result<Value> {
    world.api.get(&node_path("")).await?.expect(200)
}

/// The disk is nowhere, and nothing says otherwise.
async fn gone(world: &World, compute: &Compute) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let status = node(world).await?["status"].clone();
        let is_empty = |list: &str| status[list].as_array().is_none_or(Vec::is_empty);
        if compute.users("data").is_empty()
            && is_empty("volumesAttached")
            && is_empty("volumesInUse")
        {
            break;
        }
        ensure!(start.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(fs::read_dir(Path::new(DEVICES).join("disk/by-id"))?.count() == 0);
    let file = File::open(image())?;
    ensure!(loops::find(&file, &image(), PATIENCE)?.is_none());
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    let attachments: Value = world.api.get(attachments).await?.expect(200)?;
    ensure!(attachments["items"] == json!([]), "{attachments}");
    Ok(())
}

/// A35, A16: attached though the cloud turns it away, fails late and cannot be heard for a while; listed,
/// formatted, mounted, written; unmounted, off the list, detached. The next pod finds what was written.
pub(crate) fn the_life_of_a_cloud_disk() -> anyhow::Result<()> {
    with_cloud(async |world, compute| {
        let (mut attaches, mut waits) = (0, 0);
        compute.decide(move |call| match call {
            _ if call.contains("attachDisk") => {
                attaches += 1;
                match attaches {
                    1 => Turn::Refused(429, "rateLimitExceeded"),
                    2 => Turn::FailsLate("INTERNAL_ERROR"),
                    _ => Turn::Fine,
                }
            }
            _ if call.ends_with("/wait") => {
                waits += 1;
                match waits {
                    1 => Turn::Refused(503, "backendError"),
                    2 => Turn::Lost,
                    _ => Turn::Fine,
                }
            }
            _ => Turn::Fine,
        });
        let writer = world.add_pod("writer", "pd", false).await?;
        world.mounted(&writer).await?;
        let on_node = node(world).await?;
        ensure!(on_node["metadata"]["annotations"]["bitts.dev/mounted-by"] == "bitts-agent");
        let listed = json!([{"name": UNIQUE, "devicePath": "/dev/disk/by-id/google-data"}]);
        ensure!(on_node["status"]["volumesAttached"] == listed, "{on_node}");
        ensure!(compute.users("data") == ["vm-1"]);
        let told = world.events("writer").await?;
        println!("{told:#?}");
        for part in [
            "rateLimitExceeded",
            "INTERNAL_ERROR",
            "AttachVolume.Attach succeeded",
        ] {
            ensure!(told.iter().any(|event| event.contains(part)), "{told:?}");
        }
        fs::write(writer.join("file"), "from the pod")?;
        world.end_pod("writer").await?;
        world.unmounted(&writer).await?;
        gone(world, compute).await?;

        let reader = world.add_pod("reader", "pd", true).await?;
        world.mounted(&reader).await?;
        ensure!(fs::read_to_string(reader.join("file"))? == "from the pod");
        world.end_pod("reader").await?;
        gone(world, compute).await?;
        let requests = compute.requests();
        let moves = |what| {
            requests
                .iter()
                .filter(|request| request.contains(what))
                .count()
        };
        println!("{} requests", requests.len());
        ensure!(
            (moves("attachDisk"), moves("detachDisk")) == (4, 2),
            "{requests:#?}"
        );
        Ok(())
    })
}

/// A15: what another machine has waits, its pod is told who has it, and it is taken when it is free.
pub(crate) fn a_cloud_disk_that_something_else_has_is_told() -> anyhow::Result<()> {
    with_cloud(async |world, compute| {
        compute.add_instance("by-hand");
        compute.give("data", "by-hand", true);
        let place = world.add_pod("waits", "pd", false).await?;
        let told = world.event("FailedAttachVolume").await?;
        println!("{told}");
        for part in [
            "instances/by-hand",
            "gcloud compute instances detach-disk by-hand",
        ] {
            ensure!(told.contains(part), "{told}");
        }
        let asked = compute.requests();
        ensure!(
            !asked.iter().any(|call| call.contains("attachDisk")),
            "{asked:#?}"
        );
        compute.give("data", "by-hand", false);
        world.mounted(&place).await?;
        world.end_pod("waits").await?;
        gone(world, compute).await
    })
}
