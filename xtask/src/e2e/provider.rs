//! What makes a cluster, as the steps know it, and what they get of one.

use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::{Shell, cmd};

use super::progress::{Progress, output};

/// Makes a cluster and takes it away.
pub(crate) trait Provider {
    /// The cluster's kubectl.
    fn kubectl(&self) -> &Kubectl;

    /// Whether the nodes' kernel mounts NFS; else a program does, for the kubelet only.
    fn mounts_nfs(&self) -> bool;

    /// Makes what is not there of the cluster and its NFS server.
    fn up(&self, sh: &Shell, progress: &mut Progress) -> Result<()>;

    /// What tests are told.
    fn cluster(&self, sh: &Shell) -> Result<Cluster>;

    /// Puts an image into all nodes.
    fn load(&self, sh: &Shell, archive: &Path) -> Result<()>;

    /// Makes kube-controller-manager run with this flag, and waits until it does.
    fn set_controllers(&self, sh: &Shell, flag: &str) -> Result<()>;

    /// Cuts a node's power, or gives it back; its disk stays as it is.
    fn power(&self, sh: &Shell, node: &str, power: Power) -> Result<()>;

    /// Writes what the machines logged into a folder.
    fn logs(&self, sh: &Shell, folder: &Path) -> Result<()>;

    /// What the API server was asked for by service accounts, where it is written down.
    fn audit_log(&self) -> Option<PathBuf>;

    /// Takes everything away.
    fn down(&self, sh: &Shell) -> Result<()>;
}

/// Whether a machine has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Power {
    /// It is cut: nothing is written any more.
    Off,
    /// It is there again: the machine boots.
    On,
}

/// What tests are told of a cluster, whatever made it.
pub(crate) struct Cluster {
    /// The address of an NFS server that exports /export to all nodes.
    pub(crate) nfs_server: String,
    /// An image with a shell that the nodes have.
    pub(crate) pod_image: String,
    /// What not every cluster can show.
    pub(crate) abilities: Vec<&'static str>,
}

/// A kubectl, and the cluster that it talks to.
pub(crate) struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
}

impl Kubectl {
    /// What it prints.
    pub(crate) fn run(&self, sh: &Shell, arguments: &[&str]) -> Result<String> {
        let Self {
            program,
            kubeconfig,
        } = self;
        output(cmd!(
            sh,
            "{program} --kubeconfig {kubeconfig} {arguments...}"
        ))
    }

    /// Whether all nodes are ready, or are before long.
    pub(crate) fn all_ready(&self, sh: &Shell, timeout: &str) -> Result<()> {
        let timeout = format!("--timeout={timeout}");
        let ready = ["wait", "nodes", "--all", "--for=condition=Ready", &timeout];
        self.run(sh, &ready)?;
        Ok(())
    }
}
