//! Pods' cgroups, as a container runtime makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::Context as _;
use bitts_e2e::uml::guest::run;

const ALL: &str = "/tmp/cgroups";

/// The cgroup of a pod. It goes with this, if nothing is in it.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// For the pod whose volume is here.
    pub(crate) fn of_pod(target: &Path) -> anyhow::Result<Self> {
        let uid = target.iter().nth(4).context("no pod")?.to_string_lossy();
        if !Path::new(ALL).join("cgroup.procs").exists() {
            fs::create_dir_all(ALL)?;
            run("mount", &["-t", "cgroup2", "none", ALL])?;
        }
        let folder = Path::new(ALL).join(format!("kubepods/pod{uid}"));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// Has a process run in it.
    pub(crate) fn take(&self, process: &Child) -> anyhow::Result<()> {
        let file = self.0.join("cgroup.procs");
        Ok(fs::write(file, process.id().to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The guest ends anyway.
        let _ = fs::remove_dir(&self.0);
    }
}
