//! The version that is installed: this one, or an earlier one to upgrade from.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::FOLDER;
use super::progress::output;
use crate::image::Build;

/// Sources, and the binary that is made of them.
pub(crate) struct Version {
    root: PathBuf,
    build: Build,
}

impl Version {
    /// What is here.
    pub(crate) fn this(sh: &Shell) -> Result<Self> {
        Ok(Self {
            root: PathBuf::from("."),
            build: Build::quick(sh)?,
        })
    }

    /// What git knows by this name.
    pub(crate) fn earlier(sh: &Shell, name: &str) -> Result<Self> {
        let root = Path::new(FOLDER).join("earlier");
        sh.remove_path(&root)?;
        sh.create_dir(&root)?;
        let unpack = "git archive --format=tar \"$1\" | tar --extract --directory \"$2\"";
        output(cmd!(sh, "bash -o pipefail -euc {unpack} sh {name} {root}"))
            .context("--earlier takes a tag or a commit")?;
        Ok(Self {
            build: Build::quick_in(sh, &root)?,
            root,
        })
    }

    /// Its binary, once it is built.
    pub(crate) fn binary(&mut self) -> Result<PathBuf> {
        self.build.finish()
    }

    /// One of its manifests in deploy/.
    pub(crate) fn manifest(&self, name: &str) -> PathBuf {
        self.root.join("deploy").join(name)
    }
}
