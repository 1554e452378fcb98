//! The provider `local`: no images and no network. The control plane's programs are processes, the
//! nodes and the NFS server are machines of user-mode Linux.

mod control_plane;
mod machine;
mod network;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

use self::control_plane::ControlPlane;
use self::machine::{MACHINES, Machine, Work, nodes};
use super::progress::{Progress, output, until};
use super::provider::{Cluster, Kubectl, Power, Provider};
use super::{FOLDER, needs, pods, stock};

/// Leads to the programs that the cluster was made with.
const PROGRAMS: &str = "programs";
/// Holds each pod's namespaces.
const SANDBOX_IMAGE: &str = "bitts-e2e-sandbox:1";
/// What is there once the NFS server serves.
const SERVES: &str = "serves";
const READY: &str = "180s";
/// How long a node without power may seem ready: four of its heartbeats, and the API's slowness.
const UNNOTICED: Duration = Duration::from_secs(120);

/// What the machines and the host need, and the Debian package that has it.
const NEEDED: &[(&str, &str)] = &[
    ("linux.uml", "user-mode-linux"),
    ("cc", "gcc"),
    ("modprobe", "kmod"),
    ("ip", "iproute2"),
    ("mkfs.ext4", "e2fsprogs"),
    ("setsid", "util-linux"),
    ("openssl", "openssl"),
    ("busybox", "busybox-static"),
    ("containerd", "containerd"),
    ("crun", "crun"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("mount.nfs", "nfs-common"),
    ("rpcbind", "rpcbind"),
    ("rpc.nfsd", "nfs-kernel-server"),
];

/// What is needed of this machine, found.
pub(crate) struct Local {
    /// Where everything of it is.
    folder: PathBuf,
    kubectl: Kubectl,
}

impl Local {
    /// Says what is missing, or installs it.
    pub(crate) fn find(sh: &Shell, install: bool) -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "user-mode Linux is there for x86-64 only"
        );
        let user = output(cmd!(sh, "id --user"))?;
        ensure!(
            user == "0",
            "the provider local makes networks and machines: run it as root"
        );
        needs::packages(sh, NEEDED, install)?;
        let folder = std::path::absolute(Path::new(FOLDER).join("local"))?;
        Ok(Self {
            kubectl: Kubectl {
                program: folder.join(PROGRAMS).join("kubectl"),
                kubeconfig: folder.join("kubeconfig"),
            },
            folder,
        })
    }

    fn control_plane<'a>(&'a self, programs: &'a Path) -> ControlPlane<'a> {
        ControlPlane {
            programs,
            folder: self.folder.join("control-plane"),
            kubectl: &self.kubectl,
        }
    }

    /// The programs that this cluster was made with.
    fn programs(&self) -> Result<PathBuf> {
        let link = self.folder.join(PROGRAMS);
        fs::read_link(link).context("there is no cluster: `cargo xtask e2e up --provider local`")
    }

    fn answers(&self, sh: &Shell) -> bool {
        self.kubectl.kubeconfig.exists()
            && MACHINES.iter().all(|machine| machine.has_power(sh))
            && self.kubectl.all_ready(sh, "30s").is_ok()
    }

    fn lay_out(&self, sh: &Shell, programs: &Path) -> Result<()> {
        sh.create_dir(&self.folder)?;
        std::os::unix::fs::symlink(programs, self.folder.join(PROGRAMS))?;
        machine::prepare(sh, &self.folder)?;
        for machine in MACHINES {
            machine.make(sh, &self.folder, programs, SANDBOX_IMAGE)?;
        }
        let look = "command -v busybox";
        let busybox = output(cmd!(sh, "sh -c {look}"))?;
        let busybox = Path::new(&busybox);
        let wait = ["/bin/busybox", "sleep", "2147483647"];
        let all = [(pods::IMAGE, &["sh"][..]), (SANDBOX_IMAGE, &wait[..])];
        for (name, command) in all {
            let archive = self.folder.join("image.tar");
            pods::image(sh, busybox, &archive, name, command)?;
            self.hand(sh, &archive)?;
        }
        network::make(sh, MACHINES.len())
    }

    /// Lays an image where the nodes look; gives the name of what they leave once it is loaded.
    fn hand(&self, sh: &Shell, archive: &Path) -> Result<String> {
        let name = format!("{}.tar", &crate::image::sha256(sh, archive)?[..12]);
        for node in nodes() {
            let images = node.folder(&self.folder).join("images");
            let there = images.join(&name);
            if !there.exists() {
                // The node must not see half of it.
                let half = images.join("unfinished");
                sh.copy_file(archive, &half)?;
                fs::rename(half, there)?;
            }
        }
        Ok(format!("images/{name}.loaded"))
    }

    fn lease_of_controllers(&self, sh: &Shell) -> String {
        let name = "kube-controller-manager";
        let holder = "jsonpath={.spec.holderIdentity} {.spec.renewTime}";
        let get = ["-n", "kube-system", "get", "lease", name, "-o", holder];
        self.kubectl.run(sh, &get).unwrap_or_default()
    }
}

impl Provider for Local {
    fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    fn mounts_nfs(&self) -> bool {
        true
    }

    fn up(&self, sh: &Shell, progress: &mut Progress) -> Result<()> {
        if self.answers(sh) {
            return progress.during("up: the cluster is there", || Ok(()));
        }
        let programs =
            progress.during("up: the programs of Kubernetes", || needs::kubernetes(sh))?;
        let control_plane = self.control_plane(&programs);
        progress.during("up: disks, images, the network", || {
            // What an earlier run left half made.
            self.down(sh)?;
            self.lay_out(sh, &programs)
        })?;
        // The machines boot while the control plane starts: their kubelets wait for it.
        progress.during("up: the control plane", || {
            control_plane.credentials(sh, &self.folder)?;
            for machine in MACHINES {
                machine.boot(&self.folder)?;
            }
            control_plane.start(sh, stock::ALL)
        })?;
        progress.during("up: two nodes and the NFS server", || {
            for machine in MACHINES {
                if machine.work == Work::Nfs {
                    machine.until_there(sh, &self.folder, SERVES)?;
                }
            }
            until("the nodes to be known", Duration::from_secs(180), || {
                let names = self.kubectl.run(sh, &["get", "nodes", "-o", "name"])?;
                Ok(nodes().all(|node| names.contains(node.name)))
            })?;
            self.kubectl.all_ready(sh, READY)
        })
    }

    fn cluster(&self, _: &Shell) -> Result<Cluster> {
        let server = MACHINES
            .iter()
            .find(|machine| machine.work == Work::Nfs)
            .context("one machine serves NFS")?;
        Ok(Cluster {
            nfs_server: server.address(),
            pod_image: pods::IMAGE.to_owned(),
            abilities: vec!["kernel-nfs", "power"],
        })
    }

    fn load(&self, sh: &Shell, archive: &Path) -> Result<()> {
        let loaded = self.hand(sh, archive)?;
        nodes().try_for_each(|node| node.until_there(sh, &self.folder, &loaded))
    }

    fn set_controllers(&self, sh: &Shell, flag: &str) -> Result<()> {
        let programs = self.programs()?;
        self.control_plane(&programs).set_controllers(sh, flag)?;
        // It works once it leads, and leads while it renews.
        let before = self.lease_of_controllers(sh);
        until("kube-controller-manager", Duration::from_secs(60), || {
            let now = self.lease_of_controllers(sh);
            Ok(!now.is_empty() && now != before)
        })
    }

    fn power(&self, sh: &Shell, node: &str, power: Power) -> Result<()> {
        let node = Machine::node(node)?;
        match power {
            Power::Off => {
                node.cut(sh, &self.folder)?;
                let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
                let get = ["get", "node", node.name, "-o", ready];
                until("the cluster to notice", UNNOTICED, || {
                    Ok(self.kubectl.run(sh, &get)? != "True")
                })
            }
            Power::On => {
                if !node.has_power(sh) {
                    node.boot(&self.folder)?;
                }
                self.kubectl.all_ready(sh, READY)
            }
        }
    }

    fn logs(&self, sh: &Shell, folder: &Path) -> Result<()> {
        let mut folders: Vec<PathBuf> = MACHINES
            .iter()
            .map(|machine| machine.folder(&self.folder))
            .collect();
        folders.push(self.folder.join("control-plane"));
        for from in folders {
            let name = from.file_name().context("a folder has a name")?;
            let to = folder.join(name);
            sh.create_dir(&to)?;
            for file in sh.read_dir(&from)? {
                let is_log = file.extension().is_some_and(|extension| extension == "log");
                if is_log {
                    sh.copy_file(file, &to)?;
                }
            }
        }
        Ok(())
    }

    fn audit_log(&self) -> Option<PathBuf> {
        Some(self.folder.join("control-plane").join(control_plane::AUDIT))
    }

    fn down(&self, sh: &Shell) -> Result<()> {
        network::remove(sh)?;
        if let Err(error) = sh.remove_path(&self.folder) {
            bail!("{error}: is something mounted there?");
        }
        Ok(())
    }
}
