//! Where the demo happens: a private root with its own `/data/pv` and kubelet directory, so that
//! the host's are never touched and nothing is left behind.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
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
        let own = std::env::temp_dir().join(format!("bitts-demo-{}", std::process::id()));
        let shown = match asked {
            Some(path) => std::path::absolute(path)?,
            None => {
                fs::create_dir(&own).with_context(|| format!("creating {}", own.display()))?;
                own.join("kubeconfig")
            }
        };
        let parent = shown.parent().unwrap_or(Path::new("/"));
        let directory = File::open(parent)
            .with_context(|| format!("opening the kubeconfig's folder {}", parent.display()))?;
        let name = shown
            .file_name()
            .context("--write-kubeconfig must name a file")?
            .into();
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

    /// Removes the file, and the folder if the demo made it.
    pub(crate) fn remove(&self) -> Result<()> {
        fs::remove_file(self.path()).context("removing the kubeconfig")?;
        if self.own_directory
            && let Some(name) = self.shown.parent().and_then(Path::file_name)
        {
            fs::remove_dir(self.folder().join("..").join(name)).context("removing its folder")?;
        }
        Ok(())
    }
}
