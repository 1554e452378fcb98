//! Volumes on devices, through the agent: loop devices in their stead.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_agent::tree::{Step, Stopped, Tree};
use bitts_agent::{Give, Group, Mount, MountKey, OnNode, Plugin, Report, StageKey, Staging, Task};
use bitts_api::{Source, VolumeMode};
use bitts_e2e::uml::guest::run;
use bitts_mount::device::loops::{self, Access};
use bitts_mount::device::{self, Contents, Device, FsType};
use bitts_mount::table::MountTable;
use serde_json::json;

use crate::agent::{DEVICES, KUBELET, World, with_agent};

const PATIENCE: Duration = Duration::from_secs(60);

/// A file of zeros as a disk.
pub(crate) struct Disk {
    path: PathBuf,
    pub(crate) device: Device,
}

impl Disk {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/tmp/disk-{name}"));
        if !Path::new("/sys/module/loop").exists() {
            run("modprobe", &["-d", "/run/drivers", "loop"])?;
        }
        let file = File::create_new(&path)?;
        file.set_len(48 << 20)?;
        let device = loops::attach(&file, &path, Access::ReadWrite, PATIENCE)?;
        Ok(Self { path, device })
    }

    /// What its file system is called: another one after it was made anew.
    pub(crate) fn uuid(&self) -> anyhow::Result<String> {
        rustix::fs::sync();
        match device::identify(&self.device, PATIENCE)? {
            Contents::Filesystem(found) => Ok(found.uuid.context("no uuid")?),
            other => anyhow::bail!("{other:?}"),
        }
    }

    fn mounts(&self) -> anyhow::Result<usize> {
        let table = MountTable::read()?;
        let of_this = table.iter().filter(|m| m.device == self.device.number());
        Ok(of_this.count())
    }
}

impl World {
    async fn staged(&mut self) -> anyhow::Result<OnNode> {
        self.report(|report| match report {
            Report::Staged { on_node, .. } => Some(on_node),
            _ => None,
        })
        .await
    }

    async fn unstaged(&mut self) -> anyhow::Result<()> {
        self.report(|report| matches!(report, Report::Unstaged { .. }).then_some(()))
            .await
    }
}

/// M40, M16, M23: a blank device gets its file system once, is mounted once for its pods, and is
/// free after them; what was written is there for the next.
pub(crate) fn the_life_of_a_local_device() -> anyhow::Result<()> {
    let disk = Disk::new("a")?;
    with_agent(async |world| {
        let path = disk.device.path().to_str().context("a name")?;
        let source = json!({"local": {"path": path, "fsType": "ext4"}});
        world.add_source("a", source, &["noatime"]).await?;
        let writer = world.add_pod("writer", "a", false).await?;
        let staged = world.staged().await?;
        ensure!(matches!(staged, OnNode::Device { warning: None, .. }));
        world.mounted(&writer).await?;
        let reader = world.add_pod("reader", "a", true).await?;
        world.mounted(&reader).await?;
        let global = Path::new(KUBELET).join("plugins/kubernetes.io/local-volume/mounts/a");
        let table = MountTable::read()?;
        let mount = table.at(&global).context("nothing is staged")?;
        ensure!(mount.fs_type == "ext4" && mount.device == disk.device.number());
        ensure!(disk.mounts()? == 3, "{} mounts", disk.mounts()?);
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let of_reader = mounts.lines().find(|line| line.contains("ro,noatime"));
        ensure!(of_reader.is_some(), "{mounts}");

        fs::write(writer.join("file"), "from the pod")?;
        ensure!(fs::read_to_string(reader.join("file"))? == "from the pod");
        let refused = fs::write(reader.join("file"), "no").map_err(|error| error.kind());
        ensure!(refused == Err(std::io::ErrorKind::ReadOnlyFilesystem));
        let uuid = disk.uuid()?;
        world.end_pod("writer").await?;
        world.unmounted(&writer).await?;
        ensure!(disk.mounts()? == 2, "{} mounts", disk.mounts()?);
        world.end_pod("reader").await?;
        world.unmounted(&reader).await?;
        world.unstaged().await?;
        ensure!(disk.mounts()? == 0 && !global.exists());

        let next = world.add_pod("next", "a", false).await?;
        world.mounted(&next).await?;
        ensure!(fs::read_to_string(next.join("file"))? == "from the pod");
        ensure!(disk.uuid()? == uuid, "it was formatted again");
        world.end_pod("next").await?;
        world.unstaged().await?;
        loops::detach(&disk.device, PATIENCE)?;
        fs::remove_file(&disk.path)?;
        Ok(())
    })
}

/// M26 to M28: the pod has the device itself, and nothing is written to it but by the pod.
pub(crate) fn the_life_of_a_raw_device() -> anyhow::Result<()> {
    let disk = Disk::new("raw")?;
    with_agent(async |world| {
        let source = json!({"local": {"path": disk.device.path()}, "volumeMode": "Block"});
        world.add_source("raw", source, &[]).await?;
        let link = world.add_pod("p", "raw", false).await?;
        world.mounted(&link).await?;
        let map = fs::read_link(&link)?;
        ensure!(map.starts_with(Path::new(KUBELET).join("plugins/kubernetes.io~local-volume")));
        ensure!(Device::open(&link)?.number() == disk.device.number());
        fs::write(&link, "from the pod")?;
        let other = world.add_pod("q", "raw", false).await?;
        world.mounted(&other).await?;
        for (name, link) in [("p", &link), ("q", &other)] {
            ensure!(Device::open(link)?.number() == disk.device.number());
            world.end_pod(name).await?;
            world.unmounted(link).await?;
        }
        ensure!(!map.exists() && !map.parent().context("a directory")?.exists());
        rustix::fs::sync();
        ensure!(fs::read(&disk.path)?.starts_with(b"from the pod\0"));
        Ok(())
    })
}

/// Whatever an agent came to before it was killed, the next one gets to the same end: mounted once,
/// formatted once, and nothing left afterwards.
pub(crate) fn killed_anywhere_with_a_device() -> anyhow::Result<()> {
    fs::create_dir_all(KUBELET)?;
    let tree = tree();
    let disk = Disk::new("killed")?;
    let mut uuid = None;
    for mode in [VolumeMode::Filesystem, VolumeMode::Block] {
        let up = steps(&tree, &disk, mode, usize::MAX)?;
        let down = clear(&tree, usize::MAX)?;
        println!("{mode:?}: {up} steps up, {down} steps down");
        ensure!(up > 5 && down > 5, "{up} and {down} steps");
        for cut in 0..up.max(down) {
            steps(&tree, &disk, mode, cut)?;
            steps(&tree, &disk, mode, usize::MAX)?;
            if mode == VolumeMode::Filesystem {
                ensure!(
                    disk.mounts()? == 2,
                    "cut at {cut}: {} mounts",
                    disk.mounts()?
                );
                let now = disk.uuid()?;
                ensure!(*uuid.get_or_insert(now.clone()) == now, "formatted again");
            }
            clear(&tree, cut)?;
            // What is left is found by a scan alone.
            clear(&tree, usize::MAX)?;
            ensure!(
                disk.mounts()? == 0,
                "cut at {cut}: {} mounts",
                disk.mounts()?
            );
            let left = files(Path::new(KUBELET))?;
            ensure!(left.is_empty(), "cut at {cut}: {left:?} left");
        }
    }
    Ok(())
}

/// M35, M36, M38: a pod's group may use what others wrote, and nothing is followed out of the volume.
pub(crate) fn files_are_given_to_a_group() -> anyhow::Result<()> {
    fs::create_dir_all(KUBELET)?;
    let tree = tree();
    let volume = Path::new("/mnt/volume");
    fs::create_dir_all(volume)?;
    let disk = Disk::new("group")?;
    device::format(&disk.device, FsType::Ext4, PATIENCE)?;
    let path = disk.device.path().to_str().context("a name")?;
    run("mount", &[path, "/mnt/volume"])?;
    fs::create_dir_all(volume.join("a/b"))?;
    fs::write(volume.join("a/file"), "x")?;
    fs::write("/mnt/outside", "x")?;
    symlink("/mnt/outside", volume.join("link"))?;
    fs::create_dir_all(volume.join("mounted"))?;
    run("mount", &["-t", "tmpfs", "none", "/mnt/volume/mounted"])?;
    for path in ["/mnt/volume/a/file", "/mnt/outside"] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    let mount = |pod: &str, gid: u32, give: Give| {
        let mut mount = mount(volume, VolumeMode::Filesystem);
        mount.key.pod = pod.into();
        mount.group = Some(Group { gid, give });
        let report = tree.perform(Task::Mount(mount), &mut |_: Step<'_>| Ok(()));
        match report {
            Report::Mounted { warning, .. } => Ok(warning.map(|warning| warning.message)),
            other => anyhow::bail!("{other:?}"),
        }
    };
    ensure!(mount("p", 2000, Give::Always)?.is_none());
    let shown = |path: &str| {
        let meta = fs::symlink_metadata(path)?;
        anyhow::Ok((meta.gid(), meta.mode() & 0o7777))
    };
    ensure!(shown("/mnt/volume/a/file")? == (2000, 0o660));
    ensure!(shown("/mnt/volume/a/b")? == (2000, 0o2775));
    ensure!(shown("/mnt/volume")?.0 == 2000);
    ensure!(shown("/mnt/volume/link")?.0 == 2000);
    ensure!(shown("/mnt/outside")? == (0, 0o600), "it left the volume");
    ensure!(shown("/mnt/volume/mounted")?.0 == 0, "it entered a mount");

    // The root is right, so nothing is looked at.
    fs::write(volume.join("new"), "x")?;
    fs::set_permissions(volume.join("new"), fs::Permissions::from_mode(0o600))?;
    ensure!(mount("q", 2000, Give::OnRootMismatch)?.is_none());
    ensure!(shown("/mnt/volume/new")?.1 == 0o600);
    // Another group's pod is told, and takes nothing from the first.
    let told = mount("r", 3000, Give::Never)?.context("not told")?;
    ensure!(
        told.contains("fsGroup is 3000") && told.contains("GID 2000"),
        "{told}"
    );
    ensure!(shown("/mnt/volume/a/file")?.0 == 2000);
    // What cannot be changed is told.
    run("chattr", &["+i", "/mnt/volume/a/file"])?;
    let told = mount("s", 4000, Give::Always)?;
    run("chattr", &["-i", "/mnt/volume/a/file"])?;
    let told = told.context("not told")?;
    println!("{told}");
    ensure!(
        told.contains("1 files") && told.contains("a/file"),
        "{told}"
    );
    ensure!(shown("/mnt/volume")?.0 == 2000, "it says that all is done");
    Ok(())
}

fn tree() -> Tree {
    Tree {
        kubelet_dir: KUBELET.into(),
        local_root: "/".into(),
        devices: DEVICES.into(),
        patience: PATIENCE,
    }
}

/// All that a volume needs for a pod, until the agent is killed before this step. Returns the steps.
fn steps(tree: &Tree, disk: &Disk, mode: VolumeMode, cut: usize) -> anyhow::Result<usize> {
    let mount = mount(disk.device.path(), mode);
    let staging = mount.staging.as_deref().cloned();
    let stage = staging.map(Task::Stage);
    perform(tree, stage.into_iter().chain([Task::Mount(mount)]), cut)
}

fn mount(path: &Path, mode: VolumeMode) -> Mount {
    let source = Source::Local {
        path: path.display().to_string().into(),
        fs_type: None,
    };
    let staging = Staging {
        key: StageKey {
            plugin: Plugin::Local,
            name: "v".into(),
        },
        volume: "v".into(),
        source: source.clone(),
        options: [].into(),
        read_only: false,
        csi: None,
    };
    let has_stage = mode == VolumeMode::Filesystem;
    Mount {
        key: MountKey {
            pod: "p".into(),
            volume: "v".into(),
            plugin: Plugin::Local,
            mode,
        },
        source,
        options: [].into(),
        read_only: false,
        group: None,
        staging: has_stage.then(|| Box::new(staging)),
        csi: None,
    }
}

/// Takes down what a scan finds.
fn clear(tree: &Tree, cut: usize) -> anyhow::Result<usize> {
    let scanned = tree.perform(Task::Scan, &mut |_: Step<'_>| Ok(()));
    let Report::Scanned {
        volumes,
        stages,
        empty,
    } = scanned
    else {
        anyhow::bail!("{scanned:?}")
    };
    let volumes = volumes.into_iter().map(|found| Task::Unmount(found.key));
    let stages = stages.into_iter().map(Task::Unstage);
    let empty = empty.into_iter().map(Task::RemovePodDirectory);
    perform(tree, volumes.chain(stages).chain(empty), cut)
}

fn perform(tree: &Tree, tasks: impl Iterator<Item = Task>, cut: usize) -> anyhow::Result<usize> {
    let mut done = 0;
    for task in tasks {
        let report = tree.perform(task, &mut |_: Step<'_>| {
            if done == cut {
                return Err(Stopped);
            }
            done += 1;
            Ok(())
        });
        if done == cut {
            break;
        }
        let failed = matches!(
            report,
            Report::StageFailed { .. }
                | Report::MountFailed { .. }
                | Report::NeedsDevice(_)
                | Report::UnmountFailed { .. }
                | Report::UnstageFailed { .. }
                | Report::Kept { .. }
        );
        ensure!(!failed, "{report:?}");
    }
    Ok(done)
}

/// The files below a directory; directories do not count.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => found.extend(files(&entry.path())?),
            false => found.push(entry.path()),
        }
    }
    Ok(found)
}

/// A device with something on it is told and stays as it is; the volumes beside it are mounted.
pub(crate) fn a_foreign_device_stays_as_it_is() -> anyhow::Result<()> {
    let (foreign, blank) = (Disk::new("foreign")?, Disk::new("blank")?);
    // The beginning of nothing that is known.
    fs::write(&foreign.path, [7; 4096])?;
    File::options()
        .write(true)
        .open(&foreign.path)?
        .set_len(48 << 20)?;
    let before = fs::read(&foreign.path)?;
    with_agent(async |world| {
        for (name, disk) in [("foreign", &foreign), ("blank", &blank)] {
            let source = json!({"local": {"path": disk.device.path()}});
            world.add_source(name, source, &[]).await?;
        }
        world.add_pod("waits", "foreign", false).await?;
        let runs = world.add_pod("runs", "blank", false).await?;
        let (mut refused, mut mounted) = (None, false);
        while refused.is_none() || !mounted {
            let next = world.report(|report| match report {
                Report::StageFailed { message, .. } => Some(Some(message)),
                Report::Mounted { target, .. } if target == runs => Some(None),
                _ => None,
            });
            match next.await? {
                Some(message) => refused = Some(message),
                None => mounted = true,
            }
        }
        let refused = refused.context("never refused")?;
        println!("{refused}");
        ensure!(refused.contains("not formatted"), "{refused}");
        let told = tokio::time::timeout(PATIENCE, async {
            loop {
                let events = world.events("waits").await?;
                if let Some(event) = events.iter().find(|event| event.contains(&refused)) {
                    return anyhow::Ok(event.clone());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let told = told.await.context("the pod has no event")??;
        ensure!(
            told.starts_with("MountVolume.MountDevice failed for volume \"foreign\" : "),
            "{told}"
        );
        rustix::fs::sync();
        ensure!(fs::read(&foreign.path)? == before, "something was written");
        Ok(())
    })
}

/// Disks of a cloud and of a target are found by their names, and told where they are not there.
pub(crate) fn disks_are_found_by_name() -> anyhow::Result<()> {
    let (pd, lun) = (Disk::new("pd")?, Disk::new("lun")?);
    let target = "ip-10.0.0.9:3260-iscsi-iqn.2003-01.org:disk-lun-3";
    let links = [
        (&pd, "disk/by-id/google-data".to_owned()),
        (&lun, format!("disk/by-path/{target}")),
    ];
    with_agent(async |world| {
        let sources = [
            json!({"gcePersistentDisk": {"pdName": "data", "fsType": "ext4"}}),
            json!({"iscsi": {"targetPortal": "10.0.0.9", "iqn": "iqn.2003-01.org:disk", "lun": 3}}),
        ];
        for ((name, source), (disk, link)) in ["pd", "lun"].into_iter().zip(sources).zip(links) {
            world.add_source(name, source, &[]).await?;
            let place = world.add_pod(name, name, false).await?;
            let absent = world.report(|report| match report {
                Report::StageFailed { message, .. } => Some(message),
                _ => None,
            });
            let absent = absent.await?;
            ensure!(absent.contains(&link), "{absent}");
            // Now it is attached, and found at the next try.
            let link = Path::new(DEVICES).join(link);
            fs::create_dir_all(link.parent().context("a directory")?)?;
            symlink(disk.device.path(), &link)?;
            world.mounted(&place).await?;
            // M15: of the two only the disk of the cloud is attached by somebody.
            let in_use: &[&str] = match name {
                "pd" => &["kubernetes.io/gce-pd/data"],
                _ => &[],
            };
            ensure!(world.volumes_in_use().await? == in_use);
            fs::write(place.join("file"), "data")?;
            world.end_pod(name).await?;
            world.unstaged().await?;
            ensure!(disk.mounts()? == 0);
            while !world.volumes_in_use().await?.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            disk.uuid()?;
        }
        Ok(())
    })
}
