//! Volumes that a node's file system holds to their size, with the binder and the agent: ext4 and XFS
//! with project quota.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_e2e::raw::text;
use bitts_e2e::records;
use bitts_e2e::uml::guest::run;
use bitts_mount::device::loops::{self, Access};
use bitts_mount::dir::Dir;
use bitts_mount::quota::{self, Project};
use bitts_provisioner::disk::Disk;
use bitts_provisioner::{LOCAL, LocalConfig, Options, Record};
use serde_json::{Value, json};

use super::agent::{KUBELET, NODE, World, with_agent_and};
use super::provisioning::{delete, gone, until, volume};

const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);
const DISK: &str = "/mnt/disk";

#[derive(Clone, Copy, PartialEq)]
enum Fs {
    Ext4,
    Ext4Uncounted,
    Xfs,
}

/// Mounts a new file system at [`DISK`], with quota or without.
fn mounted(fs: Fs, options: &str) -> anyhow::Result<()> {
    run(
        "modprobe",
        &["-d", "/run/drivers", "-a", "loop", "quota_v2"],
    )?;
    let path = PathBuf::from("/tmp/quota-disk");
    let file = File::create_new(&path)?;
    file.set_len(match fs {
        Fs::Ext4 | Fs::Ext4Uncounted => 96 * MIB,
        Fs::Xfs => 320 * MIB,
    })?;
    let device = loops::attach(&file, &path, Access::ReadWrite, PATIENCE)?;
    let device = device.path().to_str().context("a name")?.to_owned();
    let with = ["-q", "-O", "project,quota", "-E", "quotatype=prjquota"];
    match fs {
        Fs::Ext4 => run("mke2fs", &[&["-t", "ext4"], &with[..], &[&device]].concat())?,
        Fs::Ext4Uncounted => run("mke2fs", &["-t", "ext4", "-q", &device])?,
        Fs::Xfs => run("mkfs.xfs", &["-q", &device])?,
    }
    fs::create_dir_all(DISK)?;
    let kind = if fs == Fs::Xfs { "xfs" } else { "ext4" };
    run("mount", &["-t", kind, "-o", options, &device, DISK])
}

fn with_provisioner(
    test: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let provisioner = async |host: &bitts_runtime::Host| {
        let config = LocalConfig {
            options: Options::new(NODE.into()),
            disks: vec![DISK.into()],
        };
        Ok(bitts_provisioner::run(host, config).await?)
    };
    with_agent_and(None, provisioner, async |world| {
        let path = format!("/api/v1/nodes/{NODE}");
        let labels = json!({"metadata": {"labels": {"kubernetes.io/hostname": NODE}}});
        world.api.merge(&path, labels).await?.expect(200)?;
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "held"}, "provisioner": LOCAL, "allowVolumeExpansion": true,
            "volumeBindingMode": "WaitForFirstConsumer",
            "parameters": {"quota": "required", "mode": "0777"}});
        let path = "/apis/storage.k8s.io/v1/storageclasses";
        world.api.post(path, class).await?.expect(201)?;
        test(world).await
    })
}

async fn claim(world: &World, name: &str, size: &str) -> anyhow::Result<()> {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": {"volume.kubernetes.io/selected-node": NODE}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "held",
            "resources": {"requests": {"storage": size}}}});
    let path = world.api.claims("");
    world.api.post(&path, claim).await?.expect(201).map(drop)
}

async fn pod(world: &World, claim: &str, volume: &Value) -> anyhow::Result<PathBuf> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": claim}, "spec": {
        "nodeName": NODE, "containers": [{"name": "main", "image": "none"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}});
    let made: Value = world.api.post(&world.pods(""), pod).await?.expect(201)?;
    let target = format!(
        "pods/{}/volumes/kubernetes.io~local-volume/{}",
        text(&made, "/metadata/uid"),
        text(volume, "/metadata/name")
    );
    Ok(Path::new(KUBELET).join(target))
}

/// Has root without `CAP_SYS_RESOURCE`, as containers have it, append to a file; says how it ended.
fn append(file: &Path, bytes: u64) -> anyhow::Result<String> {
    let count = (bytes / MIB).to_string();
    let done = Command::new("setpriv")
        .args(["--bounding-set", "-sys_resource", "dd"])
        .args(["if=/dev/zero", "bs=1M", "oflag=append", "conv=notrunc"])
        .arg(format!("count={count}"))
        .arg(format!("of={}", file.display()))
        .env("LC_ALL", "C")
        .output()?;
    Ok(String::from_utf8_lossy(&done.stderr).into_owned())
}

fn record(volume: &Value) -> anyhow::Result<Record> {
    let name = text(volume, "/metadata/name");
    let at = |place| Path::new(DISK).join(format!(".bitts/{place}/{name}.json"));
    let text = records::text(&at("begun")).or_else(|_| records::text(&at("volumes")))?;
    Ok(serde_json::from_slice(&text)?)
}

/// P12: a writer is held to the claim's size, and nothing of that is left after the claim.
fn a_writer_is_held(fs: Fs, refusal: &str) -> anyhow::Result<()> {
    mounted(fs, "prjquota")?;
    let disk = Dir::open(DISK.as_ref())?;
    quota::check(&disk)?;
    with_provisioner(async |world| {
        claim(world, "data", "16Mi").await?;
        let made = volume(world, "data").await?;
        let target = pod(world, "data", &made).await?;
        world.mounted(&target).await?;
        let recorded = record(&made)?;
        let project = recorded.project.and_then(Project::new).context("none")?;
        let seen = rustix::fs::statvfs(&target)?;
        let size = seen.f_blocks * seen.f_frsize;
        ensure!(size == 16 * MIB, "`df` in the pod shows {size} bytes");

        let file = target.join("file");
        let said = append(&file, 24 * MIB)?;
        println!("{said}");
        ensure!(said.contains(refusal), "{said}");
        let written = file.metadata()?.len();
        ensure!((15 * MIB..=16 * MIB).contains(&written), "{written}");
        let usage = quota::usage(&disk, project)?;
        ensure!(
            usage.limit == Some(16 * MIB) && usage.bytes <= 16 * MIB,
            "{usage:?}"
        );

        // A process that has CAP_SYS_RESOURCE, as this one.
        let refused = fs::write(target.join("root"), vec![1; 4 << 20]);
        let kind = refused.as_ref().err().map(io::Error::kind);
        println!("root: {refused:?}");
        match fs {
            Fs::Xfs => ensure!(kind == Some(io::ErrorKind::StorageFull), "{refused:?}"),
            _ => ensure!(kind.is_none(), "{refused:?}"),
        }
        if target.join("root").exists() {
            fs::remove_file(target.join("root"))?;
        }

        // R5: the claim asks for more, and the writer goes on.
        let grown = json!({"spec": {"resources": {"requests": {"storage": "24Mi"}}}});
        let path = world.api.claims("/data");
        world.api.merge(&path, grown).await?.expect(200)?;
        let start = Instant::now();
        let has = |claim: &Value| text(claim, "/status/capacity/storage") == "24Mi";
        let seen = until(world, &path, "grown", has).await?;
        println!("grown after {:?}: {}", start.elapsed(), seen["status"]);
        ensure!(
            seen["status"]["allocatedResourceStatuses"].is_null(),
            "{seen}"
        );
        let said = append(&file, 6 * MIB)?;
        ensure!(!said.contains(refusal), "{said}");
        ensure!(append(&file, 6 * MIB)?.contains(refusal));
        let written = file.metadata()?.len();
        ensure!((23 * MIB..=24 * MIB).contains(&written), "{written}");
        let told = world.event("VolumeResizeSuccessful").await?;
        ensure!(told == "Resize volume succeeded", "{told}");

        // Another volume has its own.
        claim(world, "other", "4Mi").await?;
        let other = volume(world, "other").await?;
        let number = record(&other)?.project;
        ensure!(number.is_some() && number != recorded.project, "{number:?}");
        let path = Path::new(text(&other, "/spec/local/path"));
        let said = append(&path.join("file"), 2 * MIB)?;
        ensure!(!said.contains(refusal), "{said}");

        // What is promised is not promised again: more than the disk has goes back to the scheduler.
        let room = Disk::open(DISK.as_ref())?.room(recorded.quota)?;
        let asked = format!("{}", room + MIB);
        claim(world, "large", &asked).await?;
        let path = world.api.claims("/large");
        let selected = "/metadata/annotations/volume.kubernetes.io~1selected-node";
        let back = |claim: &Value| claim.pointer(selected).is_none();
        until(world, &path, "given back", back).await?;
        delete(world, "large").await?;

        world.end_pod("data").await?;
        world.unmounted(&target).await?;
        delete(world, "data").await?;
        gone(world, &made).await?;
        let start = Instant::now();
        while !quota::usage(&disk, project)?.is_none() {
            ensure!(
                start.elapsed() < LONG,
                "{:?}",
                quota::usage(&disk, project)?
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
}

pub(crate) fn ext4_holds_a_writer_to_the_claims_size() -> anyhow::Result<()> {
    a_writer_is_held(Fs::Ext4, "Disk quota exceeded")
}

pub(crate) fn xfs_holds_a_writer_to_the_claims_size() -> anyhow::Result<()> {
    a_writer_is_held(Fs::Xfs, "No space left on device")
}

/// A copy has a limit of its own, which holds for what it has from its source, too; `is_shared` says whether
/// both have the same blocks on the disk until one of them writes.
fn a_copy_is_held(fs: Fs, refusal: &str, is_shared: bool) -> anyhow::Result<()> {
    const DATA: u64 = 8 * MIB;
    mounted(fs, "prjquota")?;
    let disk = Dir::open(DISK.as_ref())?;
    let free = || -> anyhow::Result<u64> {
        rustix::fs::syncfs(File::open(DISK)?)?;
        let stat = rustix::fs::statvfs(DISK)?;
        Ok(stat.f_bfree * stat.f_frsize)
    };
    with_provisioner(async |world| {
        claim(world, "data", "16Mi").await?;
        let source = volume(world, "data").await?;
        let source_file = Path::new(text(&source, "/spec/local/path")).join("file");
        let data: Vec<u8> = (0..DATA).map(|n| (n % 251) as u8).collect();
        fs::write(&source_file, &data)?;
        let before = free()?;

        let copy = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "copy",
                "annotations": {"volume.kubernetes.io/selected-node": NODE}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "held",
                "dataSource": {"kind": "PersistentVolumeClaim", "name": "data"},
                "resources": {"requests": {"storage": "16Mi"}}}});
        let claims = world.api.claims("");
        world.api.post(&claims, copy).await?.expect(201)?;
        let copy = volume(world, "copy").await?;
        let taken = before.saturating_sub(free()?);
        println!("a copy of {DATA} bytes takes {taken} of the disk");
        ensure!((taken < DATA / 2) == is_shared, "{taken} of the disk");
        let file = Path::new(text(&copy, "/spec/local/path")).join("file");
        ensure!(fs::read(&file)? == data);

        let number = |volume: &Value| anyhow::Ok(record(volume)?.project.and_then(Project::new));
        let (of_source, of_copy) = (number(&source)?, number(&copy)?);
        ensure!(of_copy.is_some() && of_copy != of_source, "{of_copy:?}");
        for project in [of_source, of_copy].into_iter().flatten() {
            let usage = quota::usage(&disk, project)?;
            ensure!(usage.limit == Some(16 * MIB), "{usage:?}");
            ensure!((DATA..DATA + MIB).contains(&usage.bytes), "{usage:?}");
        }
        let said = append(&file, 10 * MIB)?;
        ensure!(said.contains(refusal), "{said}");
        let written = file.metadata()?.len();
        ensure!((15 * MIB..=16 * MIB).contains(&written), "{written}");
        // What both write is their own.
        ensure!(fs::read(&source_file)? == data);
        ensure!(!append(&source_file, 4 * MIB)?.contains(refusal));

        delete(world, "data").await?;
        gone(world, &source).await?;
        ensure!(fs::read(&file)?.starts_with(&data));
        Ok(())
    })
}

pub(crate) fn a_copy_on_ext4_is_held_to_its_size() -> anyhow::Result<()> {
    a_copy_is_held(Fs::Ext4, "Disk quota exceeded", false)
}

pub(crate) fn a_copy_on_xfs_shares_blocks_and_is_held_to_its_size() -> anyhow::Result<()> {
    a_copy_is_held(Fs::Xfs, "No space left on device", true)
}

/// A claim that cannot be held to its size is told what would help; with `soft` it would be made.
pub(crate) fn a_disk_without_quota_is_told() -> anyhow::Result<()> {
    mounted(Fs::Ext4Uncounted, "noatime")?;
    with_provisioner(async |world| {
        claim(world, "data", "16Mi").await?;
        let said = world.event("ProvisioningFailed").await?;
        println!("{said}");
        for word in [DISK, "tune2fs -O project,quota", "prjquota"] {
            ensure!(said.contains(word), "{said}");
        }
        for records in [".bitts/begun", ".bitts/volumes"] {
            ensure!(Path::new(DISK).join(records).read_dir()?.next().is_none());
        }
        Ok(())
    })
}

/// What a death between record, limit and directory leaves is made whole, and a number that a file
/// carries is not given out again.
pub(crate) fn a_death_leaves_no_volume_without_its_limit() -> anyhow::Result<()> {
    mounted(Fs::Ext4, "prjquota")?;
    let root = Dir::open(DISK.as_ref())?;
    let asked: Record = serde_json::from_value(json!({"volume": "pvc-u",
        "claim": {"namespace": "default", "name": "c", "uid": "u"}, "path": "d-pvc-u",
        "access": {"mode": 0o777, "uid": null, "gid": null}, "onDelete": "trash",
        "bytes": 8 * MIB, "quota": "required"}))?;
    let disk = Disk::open(DISK.as_ref())?;
    let path = disk.make(&asked)?.whole().context("not whole")?;
    let made = disk.find(&asked.volume)?.context("no record")?;
    let project = made.project.and_then(Project::new).context("none")?;
    let whole = |what: &str| {
        let usage = quota::usage(&root, project)?;
        ensure!(usage.limit == Some(8 * MIB), "{what}: {usage:?}");
        let carried = quota::project(&Dir::open(&path)?)?;
        ensure!(carried == Some(project), "{what}: {carried:?}");
        anyhow::Ok(())
    };
    whole("made")?;
    // After the record; after the limit; after the directory.
    for (limit, directory) in [(false, false), (true, false), (true, true), (false, true)] {
        fs::remove_dir(&path)?;
        if directory {
            fs::create_dir(&path)?;
        }
        let bytes = limit.then_some(8 * MIB);
        quota::set_limit(&root, project, bytes)?;
        let again = Disk::open(DISK.as_ref())?;
        again.make(&asked)?;
        let found = again.find(&asked.volume)?.context("no record")?;
        ensure!(found.project == made.project, "{:?}", found.project);
        whole(&format!("limit {limit}, directory {directory}"))?;
    }
    // In the trash the data keeps its number, without a limit, and nobody else is given that.
    disk.confirm(&asked.volume, &asked.claim.uid)?;
    fs::write(path.join("file"), "x")?;
    disk.remove(&asked.volume, &asked.claim.uid, &path)?;
    let usage = quota::usage(&root, project)?;
    ensure!(usage.limit.is_none() && usage.files == 2, "{usage:?}");
    // The same claim would begin with the same number.
    disk.make(&asked)?;
    let second = disk.find(&asked.volume)?.context("no record")?;
    ensure!(second.project != made.project, "{:?}", second.project);
    // Undone, it leaves nothing.
    disk.discard(&asked.volume, &asked.claim.uid)?;
    let left = second.project.and_then(Project::new).context("none")?;
    let usage = quota::usage(&root, left)?;
    ensure!(usage.is_none(), "{usage:?}");
    Ok(())
}
