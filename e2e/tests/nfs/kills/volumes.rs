//! The volumes that pods come and go on, and the files that pods wrote there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bitts_e2e::uml::server::Server;
use bitts_mount::table::Mount;
use bitts_sim::Random;
use serde_json::{Value, json};

use crate::agent::{KUBELET, NODE};

/// Where local volumes' directories are.
const DISKS: &str = "/mnt/disks";
/// The most bytes of a file.
const LONGEST: u32 = 20_000;

/// A volume, and all that was written there.
pub(super) struct Volume {
    pub(super) name: String,
    /// The directory of its type in a pod's directory.
    plugin: &'static str,
    /// What of the object's spec tells it from other types' volumes.
    pub(super) spec: Value,
    /// Where its files lie, past all mounts of pods.
    files: PathBuf,
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
}

/// All of them: a new kind is one more line here, and a function like those below.
pub(super) fn all(calm: &Server, shaky: &Server) -> anyhow::Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for n in 0..4 {
        volumes.push(directory(n)?);
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
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]});
    Ok(Volume {
        spec: json!({
            "local": {"path": files},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        }),
        plugin: "kubernetes.io~local-volume",
        shown: Shown::Root(Path::new("/disks").join(&name)),
        name,
        files,
        written: BTreeMap::new(),
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

    /// Whether every file that was ever written is there as it was, and no other.
    pub(super) fn ensure_whole(&self) -> anyhow::Result<()> {
        for (name, seed) in &self.written {
            let path = self.files.join(name);
            let found = fs::read(&path).with_context(|| format!("lost: {}", path.display()))?;
            ensure!(found == content(*seed), "changed: {}", path.display());
        }
        let count = fs::read_dir(&self.files)?.count();
        ensure!(
            count == self.written.len(),
            "{} has {count} files",
            self.files.display()
        );
        Ok(())
    }

    /// Whether this is what is mounted.
    pub(super) fn is(&self, mount: &Mount) -> bool {
        match &self.shown {
            Shown::Root(root) => mount.root == *root,
            Shown::Source(source) => mount.source == *source,
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
