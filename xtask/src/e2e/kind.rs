//! The provider `kind`: one control-plane node and two workers as containers, the NFS server beside
//! them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::progress::{Progress, output};
use super::{Cluster, FOLDER, kubectl, needed, nfs};

const NAME: &str = "bitts-e2e";
const CONTROL_PLANE: &str = "bitts-e2e-control-plane";
const CONFIG: &str = "\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
- role: worker
- role: worker
";
/// Starting is seconds; pulling images is what takes long.
const PATIENCE: &str = "180s";

/// What is needed of this machine, found.
pub(crate) struct Kind {
    node_image: Option<String>,
    pub(crate) kubeconfig: PathBuf,
}

impl Kind {
    /// Says what is missing and how to get it.
    pub(crate) fn find(sh: &Shell, node_image: Option<String>) -> Result<Self> {
        needed(
            sh,
            "docker",
            &["info"],
            "Install it (Debian: `apt-get install docker.io`), start dockerd, and run this as a user \
             who may use it.",
        )?;
        needed(
            sh,
            "kind",
            &["version"],
            "Get it with `go install sigs.k8s.io/kind@v0.33.0` and put Go's bin folder into PATH.",
        )?;
        let kubectl = super::kubectl_program();
        needed(
            sh,
            &kubectl.to_string_lossy(),
            &["version", "--client"],
            "Put a kubectl of 1.32 or newer into PATH, or name its folder in KUBEBUILDER_ASSETS.",
        )?;
        Ok(Self {
            node_image,
            kubeconfig: Path::new(FOLDER).join("kubeconfig"),
        })
    }

    /// Makes what is not there.
    pub(crate) fn up(&self, sh: &Shell, progress: &mut Progress) -> Result<()> {
        if self.answers(sh) {
            progress.during("up: the cluster is there", || Ok(()))?;
        } else {
            progress.during("up: a cluster of three nodes", || self.create(sh))?;
        }
        let image = progress.during("up: the image of the NFS server", || nfs::image(sh))?;
        progress.during("up: the NFS server", || nfs::start(sh, &image))?;
        progress.during("up: an image for pods", || {
            let archive = nfs::pod_image(sh, &image)?;
            self.load(sh, &archive)
        })?;
        Ok(())
    }

    /// All nodes are ready.
    fn answers(&self, sh: &Shell) -> bool {
        let ready = [
            "wait",
            "nodes",
            "--all",
            "--for=condition=Ready",
            "--timeout=30s",
        ];
        self.kubeconfig.exists() && kubectl(sh, &self.kubeconfig, &ready).is_ok()
    }

    fn create(&self, sh: &Shell) -> Result<()> {
        // What an earlier run left half made.
        self.delete(sh)?;
        let kubeconfig = &self.kubeconfig;
        let mut create = cmd!(
            sh,
            "kind create cluster --name {NAME} --kubeconfig {kubeconfig} --wait {PATIENCE}"
        );
        if let Some(image) = &self.node_image {
            create = create.arg("--image").arg(image);
        }
        let config = Path::new(FOLDER).join("kind.yaml");
        sh.write_file(&config, CONFIG)?;
        output(create.arg("--config").arg(&config)).context(
            "Where no image can be pulled, --node-image names one that is there. \"unable to apply \
             caps\" means that root of this machine lacks a capability: docs/e2e.md says what to do",
        )?;
        let timeout = format!("--timeout={PATIENCE}");
        let ready = ["wait", "nodes", "--all", "--for=condition=Ready", &timeout];
        kubectl(sh, kubeconfig, &ready)?;
        Ok(())
    }

    pub(crate) fn cluster(&self, sh: &Shell) -> Result<Cluster> {
        Ok(Cluster {
            kubeconfig: std::path::absolute(&self.kubeconfig)?,
            nfs_server: nfs::address(sh)?,
            pod_image: nfs::POD_IMAGE.to_owned(),
        })
    }

    /// Puts an image into all nodes.
    pub(crate) fn load(&self, sh: &Shell, archive: &Path) -> Result<()> {
        output(cmd!(sh, "kind load image-archive {archive} --name {NAME}"))?;
        Ok(())
    }

    /// Runs a shell script on the control plane's node.
    pub(crate) fn on_control_plane(&self, sh: &Shell, script: &str) -> Result<String> {
        output(cmd!(sh, "docker exec {CONTROL_PLANE} sh -euc {script}"))
    }

    pub(crate) fn logs(&self, sh: &Shell, folder: &Path) -> Result<()> {
        output(cmd!(sh, "kind export logs {folder} --name {NAME}"))?;
        nfs::logs(sh, &folder.join("nfs-server.log"))
    }

    /// Nothing is left but images, which make the next time quicker.
    pub(crate) fn down(&self, sh: &Shell) -> Result<()> {
        let server = nfs::stop(sh);
        self.delete(sh).and(server)
    }

    fn delete(&self, sh: &Shell) -> Result<()> {
        let kubeconfig = &self.kubeconfig;
        output(cmd!(
            sh,
            "kind delete cluster --name {NAME} --kubeconfig {kubeconfig}"
        ))?;
        Ok(sh.remove_path(kubeconfig)?)
    }
}
