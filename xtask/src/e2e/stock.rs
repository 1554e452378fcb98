//! Which controllers of kube-controller-manager run: those whose work no installed role does.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use super::install::Role;
use super::progress::output;
use super::provider::Provider;

/// What kubeadm gives it,
const STOCK: &str = "*,bootstrapsigner,tokencleaner";
/// as a flag.
pub(crate) const ALL: &str = "--controllers=*,bootstrapsigner,tokencleaner";

/// Sets the flag as `bitts preflight` prints it, or back, and waits until the new process runs.
pub(crate) fn set(
    sh: &Shell,
    provider: &dyn Provider,
    bitts: &Path,
    roles: &[Role],
    replace: bool,
) -> Result<()> {
    if !replace {
        return provider.set_controllers(sh, ALL);
    }
    let roles = roles.iter().filter(|role| role.replaces());
    let roles: Vec<&str> = roles.map(|role| role.name()).collect();
    let roles = roles.join(",");
    let kubeconfig = &provider.kubectl().kubeconfig;
    let flag = output(cmd!(
        sh,
        "{bitts} preflight --kubeconfig {kubeconfig} --roles {roles} --print-kcm-flags --kcm-controllers {STOCK}"
    ))?;
    provider.set_controllers(sh, &flag)
}
