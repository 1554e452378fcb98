//! Programs of others that run beside bitts, built with Go from the modules in this crate and kept in the
//! target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::programs::check_go;

/// Builds a package from one of the modules: for a moment only, where it was built before.
fn build(module: &str, package: &str, name: &str) -> anyhow::Result<PathBuf> {
    check_go().with_context(|| format!("{name} is built with Go"))?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| folder.join("../../target"), PathBuf::from);
    let program = target.join(module).join(name);
    let built = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(package)
        .current_dir(&folder)
        .status()?;
    anyhow::ensure!(built.success(), "go build in {}: {built}", folder.display());
    Ok(program)
}

/// A provisioner on the library of Kubernetes' external provisioners.
///
/// # Errors
/// When there is no Go that can build it.
pub fn external_provisioner() -> anyhow::Result<PathBuf> {
    build("external-provisioner", ".", "external-provisioner")
}

/// The stock sidecar that has a CSI driver attach.
///
/// # Errors
/// When there is no Go that can build it.
pub fn external_attacher() -> anyhow::Result<PathBuf> {
    let package = "github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher";
    build("external-attacher", package, "csi-attacher")
}

/// Why nothing can be built here, if that is so.
#[must_use]
pub fn missing() -> Option<String> {
    check_go().err().map(|why| format!("{why:#}"))
}
