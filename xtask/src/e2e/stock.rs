//! Which controllers of kube-controller-manager run: those whose work no installed role does.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use super::install::Role;
use super::kind::Kind;
use super::kubectl;
use super::progress::output;

/// What kubeadm gives it.
const STOCK: &str = "*,bootstrapsigner,tokencleaner";
const PATIENCE: Duration = Duration::from_secs(120);

/// Sets the flag as `bitts preflight` prints it, or back, and waits until the new process runs.
pub(crate) fn set(
    sh: &Shell,
    kind: &Kind,
    bitts: &Path,
    roles: &[Role],
    replace: bool,
) -> Result<()> {
    let flag = if replace {
        let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        let roles = roles.join(",");
        let kubeconfig = &kind.kubeconfig;
        output(cmd!(
            sh,
            "{bitts} preflight --kubeconfig {kubeconfig} --roles {roles} --print-kcm-flags --kcm-controllers {STOCK}"
        ))?
    } else {
        format!("--controllers={STOCK}")
    };
    // Written in one go: the kubelet takes any other file in that folder for a pod of its own.
    kind.on_control_plane(
        sh,
        &format!(
            "file=/etc/kubernetes/manifests/kube-controller-manager.yaml\n\
             sed 's/- --controllers=.*/- {flag}/' $file >/tmp/new.yaml\n\
             cmp -s /tmp/new.yaml $file || cp /tmp/new.yaml $file"
        ),
    )?;
    let start = Instant::now();
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
    loop {
        let runs = kubectl(sh, &kind.kubeconfig, &look)?;
        if runs.contains(&format!("\"{flag}\"")) && runs.ends_with(" true") {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "kube-controller-manager does not run with {flag}: {runs}"
        );
        sleep(Duration::from_millis(500));
    }
}
