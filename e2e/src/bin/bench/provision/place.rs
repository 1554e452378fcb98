//! Where volumes are made: on the disk of a node, or on a share.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bitts_e2e::uml::guest::run;
use bitts_e2e::uml::server::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CLASS, Maker, NODE};

const EXPORT: &str = "a";
const OPTIONS: &str = "vers=4.2";

/// A place that has no volumes yet.
pub(super) enum Place {
    Disk(TempDir),
    Share(Share),
}

/// A directory of a server, and where contenders that mount nothing themselves find it.
pub(super) struct Share {
    server: Server,
    mount: PathBuf,
}

impl Place {
    pub(super) fn disk() -> Result<Self> {
        let disk = tempfile::Builder::new()
            .prefix("bitts-bench-disk-")
            .tempdir()?;
        Ok(Self::Disk(disk))
    }

    /// On an NFS server in this guest.
    pub(super) fn share() -> Result<Self> {
        let server = Server::start(1, &[EXPORT])?;
        let mount = PathBuf::from("/mnt/share");
        fs::create_dir(&mount)?;
        let source = format!("{}:{}", server.address(), server.path(EXPORT, OPTIONS));
        let target = mount.display().to_string();
        run("mount", &["-t", "nfs4", "-o", OPTIONS, &source, &target])?;
        Ok(Self::Share(Share { server, mount }))
    }

    /// Where directories are made.
    pub(super) fn root(&self) -> &Path {
        match self {
            Self::Disk(disk) => disk.path(),
            Self::Share(share) => &share.mount,
        }
    }

    /// The class whose volumes a contender makes.
    pub(super) fn class(&self, maker: Maker) -> Value {
        let mut class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": CLASS}, "provisioner": self.provisioner(maker),
            "volumeBindingMode": "WaitForFirstConsumer"});
        if let Self::Share(share) = self {
            class["volumeBindingMode"] = json!("Immediate");
            if maker == Maker::Bitts {
                class["mountOptions"] = json!([OPTIONS]);
                class["parameters"] = json!({"server": share.server.address(),
                    "share": share.server.path(EXPORT, OPTIONS)});
            }
        }
        class
    }

    fn provisioner(&self, maker: Maker) -> &'static str {
        match (maker, self) {
            (Maker::Bitts, Self::Disk(_)) => "local.bitts.dev",
            (Maker::Bitts, Self::Share(_)) => "nfs.bitts.dev",
            (Maker::Limit, _) => super::LIMIT,
            (Maker::ExternalProvisioner | Maker::ExternalProvisioner100, _) => "bench.bitts.dev",
        }
    }

    /// What bitts is started with to make volumes here.
    pub(super) fn roles(&self) -> Vec<String> {
        match self {
            Self::Disk(disk) => vec![
                "run".to_owned(),
                "--roles=provisioner".to_owned(),
                format!("--node-name={NODE}"),
                format!("--disks={}", disk.path().display()),
            ],
            Self::Share(_) => ["run", "--roles=nfs-provisioner", "--leader-elect=false"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}
