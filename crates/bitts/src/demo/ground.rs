//! Where the demo happens: a private root with its own `/data/pv` and kubelet directory, so that
//! the host's are never touched and nothing is left behind.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bitts_agent::Mounter;
use bitts_mount::sandbox::{self, Sandbox, SandboxError};

/// The demo's own root, or the reason there is none.
pub(crate) enum Ground {
    Private(Sandbox),
    /// The kernel allows no namespaces: mounts are shown, not made.
    Shown(SandboxError),
}

impl Ground {
    pub(crate) fn enter() -> Self {
        sandbox::enter().map_or_else(Self::Shown, Self::Private)
    }

    pub(crate) fn is_real(&self) -> bool {
        matches!(self, Self::Private(_))
    }

    pub(crate) fn mounter(&self) -> Mounter {
        match self {
            Self::Private(_) => Mounter::System,
            Self::Shown(_) => Mounter::DryRun,
        }
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Private(sandbox) => format!("Mounts are real: {sandbox}.\n"),
            Self::Shown(why) => format!("Mounts are only shown, not made: {why}.\n"),
        }
    }
}

/// The kubeconfig's place on the host, which stays reachable after the move into the private root.
pub(crate) struct KubeconfigFile {
    directory: File,
    name: PathBuf,
    shown: PathBuf,
    /// Made by the demo, so removed with the file.
    own_directory: bool,
}

impl KubeconfigFile {
    /// Opens the folder that the file will be in.
    pub(crate) fn prepare(asked: Option<&Path>) -> Result<Self> {
        let shown = match asked {
            Some(path) => std::path::absolute(path)?,
            None => {
                let own = tempfile::Builder::new().prefix("bitts-demo-").tempdir();
                let own = own.context("making a folder for the kubeconfig")?;
                own.keep().join("kubeconfig")
            }
        };
        ensure!(
            !shown.exists(),
            "{} exists, and the demo removes its kubeconfig at the end: name another file",
            shown.display()
        );
        let parent = shown.parent().unwrap_or(Path::new("/"));
        let directory = File::open(parent)
            .with_context(|| format!("opening the kubeconfig's folder {}", parent.display()))?;
        let name = shown.file_name();
        let name = name.context("--write-kubeconfig must name a file")?.into();
        Ok(Self {
            directory,
            name,
            shown,
            own_directory: asked.is_none(),
        })
    }

    /// The path as it is on the host.
    pub(crate) fn shown(&self) -> String {
        self.shown.display().to_string()
    }

    /// The path as it works from inside the private root: through the open folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder().join(&self.name)
    }

    fn folder(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.directory.as_raw_fd()).into()
    }
}

impl Drop for KubeconfigFile {
    /// Removes the file, and the folder if the demo made it, however the demo ended.
    fn drop(&mut self) {
        let mut removed = match fs::remove_file(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // it was not written yet
            result => result,
        };
        if self.own_directory
            && let Some(name) = self.shown.parent().and_then(Path::file_name)
        {
            removed = removed.and(fs::remove_dir(self.folder().join("..").join(name)));
        }
        if let Err(error) = removed {
            eprintln!("bitts: {} is left behind: {error}", self.shown.display());
        }
    }
}
