//! The volumes that pods come and go on, and the files that pods wrote there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_e2e::uml::server::Server;
use bitts_mount::device::{self, Options};
use bitts_mount::dir::{Component, Dir};
use bitts_mount::table::{self, Mount, MountId, MountTable};
use bitts_sim::Random;
use serde_json::{Value, json};

use crate::agent::{KUBELET, NODE};
use crate::disks::Disk;

/// Where local volumes' directories are.
const DISKS: &str = "/mnt/disks";
/// Where devices are mounted for all pods, in the kubelet's directory.
pub(super) const STAGED: &str = "plugins/kubernetes.io/local-volume/mounts";
/// The most bytes of a file.
const LONGEST: u32 = 20_000;
/// How long a look at a device may take.
const LOOK: Duration = Duration::from_secs(20);

/// A volume, and all that was written there.
pub(super) struct Volume {
    pub(super) name: String,
    /// The directory of its type in a pod's directory.
    plugin: &'static str,
    /// What of the object's spec tells it from other types' volumes.
    pub(super) spec: Value,
    /// Where its files lie, past all mounts of pods; of a device only while it is staged.
    files: PathBuf,
    /// The device, where it is one, and what its file system was called at first.
    disk: Option<Disk>,
    uuid: Option<String>,
    /// How often it was seen staged anew, and where last.
    pub(super) stagings: u32,
    staged: Option<MountId>,
    /// What a mount table says of it.
    shown: Shown,
    /// The seed of each file's content, by its name.
    written: BTreeMap<String, u32>,
}

/// What a mount table says of a volume.
enum Shown {
    /// Its directory, seen from the top of its file system.
    Root(PathBuf),
    /// Where it comes from.
    Source(String),
    /// Its number.
    Device(table::Device),
}

/// All of them: a new kind is one more line here, and a function like those below.
pub(super) fn all(calm: &Server, shaky: &Server) -> anyhow::Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for n in 0..4 {
        volumes.push(directory(n)?);
    }
    for n in 0..4 {
        volumes.push(device(n)?);
    }
    // Version 3 with locks is left to mount.nfs.
    let shares = [("a", "vers=4.2"), ("b", "vers=4.1"), ("c", "vers=3")];
    for (name, server) in [("calm", calm), ("shaky", shaky)] {
        for (export, options) in shares {
            volumes.push(share(name, server, export, options));
        }
    }
    Ok(volumes)
}

/// The exports of a server for [`all`].
pub(super) const EXPORTS: &[&str] = &["a", "b", "c"];

fn directory(n: u32) -> anyhow::Result<Volume> {
    let name = format!("disk-{n}");
    let files = Path::new(DISKS).join(&name);
    fs::create_dir_all(&files)?;
    Ok(Volume {
        spec: local(&files),
        plugin: "kubernetes.io~local-volume",
        shown: Shown::Root(Path::new("/disks").join(&name)),
        name,
        files,
        disk: None,
        uuid: None,
        stagings: 0,
        staged: None,
        written: BTreeMap::new(),
    })
}

/// A device without a file system, which the agent has to make.
pub(super) fn device(n: u32) -> anyhow::Result<Volume> {
    let name = format!("device-{n}");
    let disk = Disk::new(&name)?;
    Ok(Volume {
        spec: local(disk.device.path()),
        plugin: "kubernetes.io~local-volume",
        shown: Shown::Device(disk.device.number()),
        files: Path::new(KUBELET).join(STAGED).join(&name),
        name,
        disk: Some(disk),
        uuid: None,
        stagings: 0,
        staged: None,
        written: BTreeMap::new(),
    })
}

fn local(path: &Path) -> Value {
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]});
    json!({
        "local": {"path": path},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    })
}

pub(super) fn share(name: &str, server: &Server, export: &str, options: &str) -> Volume {
    let (address, path) = (server.address(), server.path(export, options));
    let spec = json!({
        "nfs": {"server": address, "path": path},
        "mountOptions": [options],
    });
    Volume {
        name: format!("{name}-{export}"),
        plugin: "kubernetes.io~nfs",
        shown: Shown::Source(format!("{address}:{path}")),
        spec,
        files: server.export(export),
        disk: None,
        uuid: None,
        stagings: 0,
        staged: None,
        written: BTreeMap::new(),
    }
}

impl Volume {
    /// Where it is mounted for a pod.
    pub(super) fn target(&self, pod: &str) -> PathBuf {
        let (plugin, name) = (self.plugin, &self.name);
        Path::new(KUBELET).join(format!("pods/{pod}/volumes/{plugin}/{name}"))
    }

    /// Writes one more file, as a pod does where its volume is mounted.
    pub(super) fn write_at(&mut self, target: &Path, chance: &mut Random) -> anyhow::Result<()> {
        let (seed, name) = (chance.number(), format!("file-{}", self.written.len()));
        let path = target.join(&name);
        let doing = || format!("writing {}", path.display());
        let mut file = File::create_new(&path).with_context(doing)?;
        file.write_all(&content(seed)).with_context(doing)?;
        // What no server got may be lost with the pod.
        file.sync_all().with_context(doing)?;
        self.written.insert(name, seed);
        Ok(())
    }

    /// Where it is mounted for all pods, if it is.
    pub(super) fn stage(&self) -> Option<&Path> {
        self.disk.is_some().then_some(&*self.files)
    }

    /// Whether every file that was ever written is there as it was, and no other. Those of a device can
    /// only be seen while it is mounted.
    pub(super) fn ensure_whole(&mut self) -> anyhow::Result<()> {
        if let Some(disk) = &self.disk {
            let staged = MountTable::read()?.at(&self.files).map(|mount| mount.id);
            let is_new = staged.is_some() && staged != self.staged;
            (self.staged, self.stagings) = (staged, self.stagings + u32::from(is_new));
            if staged.is_none() {
                return Ok(());
            }
            let now = disk.uuid()?;
            let first = self.uuid.get_or_insert_with(|| now.clone());
            ensure!(now == *first, "{} was formatted again", self.name);
        }
        self.ensure_whole_at(&self.files)
    }

    /// The same when no agent works any more.
    pub(super) fn ensure_whole_at_rest(&mut self) -> anyhow::Result<()> {
        let (Some(disk), Some(first)) = (&self.disk, &self.uuid) else {
            return self.ensure_whole();
        };
        ensure!(disk.uuid()? == *first, "{} was formatted again", self.name);
        let (top, name) = (Dir::open("/mnt".as_ref())?, Component::new("look")?);
        let here = top.make_child(&name)?;
        let options = Options::default().read_only();
        device::mount(&disk.device, "ext4", &here, &options, LOOK)?;
        self.ensure_whole_at("/mnt/look".as_ref())?;
        drop(here);
        Ok(top.unmount(&name)?)
    }

    fn ensure_whole_at(&self, files: &Path) -> anyhow::Result<()> {
        for (name, seed) in &self.written {
            let path = files.join(name);
            let found = fs::read(&path).with_context(|| format!("lost: {}", path.display()))?;
            ensure!(found == content(*seed), "changed: {}", path.display());
        }
        let entries = fs::read_dir(files)?.collect::<Result<Vec<_>, _>>()?;
        let own = entries
            .iter()
            .filter(|entry| entry.file_name() != "lost+found");
        ensure!(
            own.count() == self.written.len(),
            "{} has {entries:?}",
            self.name
        );
        Ok(())
    }

    /// Whether this is what is mounted.
    pub(super) fn is(&self, mount: &Mount) -> bool {
        match &self.shown {
            Shown::Root(root) => mount.root == *root,
            Shown::Source(source) => mount.source == *source,
            Shown::Device(number) => mount.device == *number,
        }
    }

    pub(super) fn file_count(&self) -> usize {
        self.written.len()
    }
}

/// A file's bytes: what the seed gives is what a sum would stand for.
fn content(seed: u32) -> Vec<u8> {
    let mut bytes = Random::new(seed.into());
    let length = bytes.below(LONGEST);
    (0..length)
        .map(|_| bytes.number().to_le_bytes()[0])
        .collect()
}
