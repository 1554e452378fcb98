//! The provider `kind`: one control-plane node and two workers as containers, the NFS server beside
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use super::progress::{Progress, output, until};
use super::provider::{Cluster, Kubectl, Power, Provider};
use super::{FOLDER, needs, nfs, pods};

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
/// How long the kubelet may take to restart a program of the control plane.
const RESTART: Duration = Duration::from_secs(120);

/// What is needed of this machine, found.
pub(crate) struct Kind {
    node_image: Option<String>,
    kubectl: Kubectl,
}

impl Kind {
    /// Says what is missing and how to get it.
    pub(crate) fn find(sh: &Shell, node_image: Option<String>) -> Result<Self> {
        needs::program(
            sh,
            "docker",
            &["info"],
            "Install it (Debian: `apt-get install docker.io`), start dockerd, and run this as a user \
             who may use it.",
        )?;
        needs::program(
            sh,
            "kind",
            &["version"],
            "Get it with `go install sigs.k8s.io/kind@v0.33.0` and put Go's bin folder into PATH.",
        )?;
        let kubectl = needs::kubectl();
        needs::program(
            sh,
            &kubectl.to_string_lossy(),
            &["version", "--client"],
            "Put a kubectl of 1.32 or newer into PATH, or name its folder in KUBEBUILDER_ASSETS.",
        )?;
        Ok(Self {
            node_image,
            kubectl: Kubectl {
                program: kubectl,
                kubeconfig: Path::new(FOLDER).join("kubeconfig"),
            },
        })
    }

    /// All nodes are ready.
    fn answers(&self, sh: &Shell) -> bool {
        self.kubectl.kubeconfig.exists() && self.kubectl.all_ready(sh, "30s").is_ok()
    }

    fn create(&self, sh: &Shell) -> Result<()> {
        // What an earlier run left half made.
        self.delete(sh)?;
        let kubeconfig = &self.kubectl.kubeconfig;
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
        self.kubectl.all_ready(sh, PATIENCE)
    }

    /// Runs a shell script on the control plane's node.
    fn on_control_plane(&self, sh: &Shell, script: &str) -> Result<String> {
        output(cmd!(sh, "docker exec {CONTROL_PLANE} sh -euc {script}"))
    }

    fn delete(&self, sh: &Shell) -> Result<()> {
        let kubeconfig = &self.kubectl.kubeconfig;
        output(cmd!(
            sh,
            "kind delete cluster --name {NAME} --kubeconfig {kubeconfig}"
        ))?;
        Ok(sh.remove_path(kubeconfig)?)
    }
}

impl Provider for Kind {
    fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The nodes' kernel is this machine's.
    fn mounts_nfs(&self) -> bool {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        known.lines().any(|line| line.trim() == "nodev\tnfs4")
    }

    fn up(&self, sh: &Shell, progress: &mut Progress) -> Result<()> {
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

    fn cluster(&self, sh: &Shell) -> Result<Cluster> {
        Ok(Cluster {
            nfs_server: nfs::address(sh)?,
            pod_image: pods::IMAGE.to_owned(),
            abilities: if self.mounts_nfs() {
                vec!["kernel-nfs"]
            } else {
                Vec::new()
            },
        })
    }

    fn load(&self, sh: &Shell, archive: &Path) -> Result<()> {
        output(cmd!(sh, "kind load image-archive {archive} --name {NAME}"))?;
        Ok(())
    }

    fn set_controllers(&self, sh: &Shell, flag: &str) -> Result<()> {
        // Written in one go: the kubelet takes any other file in that folder for a pod of its own.
        self.on_control_plane(
            sh,
            &format!(
                "file=/etc/kubernetes/manifests/kube-controller-manager.yaml\n\
                 sed 's/- --controllers=.*/- {flag}/' $file >/tmp/new.yaml\n\
                 cmp -s /tmp/new.yaml $file || cp /tmp/new.yaml $file"
            ),
        )?;
        let look = [
            "-n",
            "kube-system",
            "get",
            "pods",
            "-l",
            "component=kube-controller-manager",
            "-o",
            "jsonpath={.items[*].spec.containers[*].command} {.items[*].status.containerStatuses[*].ready}",
        ];
        let what = format!("kube-controller-manager with {flag}");
        until(&what, RESTART, || {
            let runs = self.kubectl.run(sh, &look)?;
            Ok(runs.contains(&format!("\"{flag}\"")) && runs.ends_with(" true"))
        })
    }

    fn power(&self, _: &Shell, _: &str, _: Power) -> Result<()> {
        bail!("a container has no power to cut: --provider local has machines")
    }

    fn logs(&self, sh: &Shell, folder: &Path) -> Result<()> {
        output(cmd!(sh, "kind export logs {folder} --name {NAME}"))?;
        nfs::logs(sh, &folder.join("nfs-server.log"))
    }

    fn audit_log(&self) -> Option<PathBuf> {
        None
    }

    /// Nothing is left but images, which make the next time quicker.
    fn down(&self, sh: &Shell) -> Result<()> {
        let server = nfs::stop(sh);
        self.delete(sh).and(server)
    }
}
