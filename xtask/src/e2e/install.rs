//! bitts on the cluster: its image built and loaded, and what deploy/ holds applied.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use xshell::Shell;

use super::kind::Kind;
use super::progress::Progress;
use super::{FOLDER, kubectl, kubectl_program, stock};
use crate::image;

/// What can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Binder,
    Provisioner,
}

impl Role {
    pub(super) const ALL: [Self; 2] = [Self::Binder, Self::Provisioner];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Binder => "binder",
            Self::Provisioner => "provisioner",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Self::Binder => "deploy/binder.yaml",
            Self::Provisioner => "deploy/provisioner.yaml",
        }
    }

    /// Its namespace, and what runs there.
    pub(super) fn workload(self) -> (&'static str, &'static str) {
        match self {
            Self::Binder => ("bitts-system", "deployment/bitts-binder"),
            Self::Provisioner => ("bitts-nodes", "daemonset/bitts-provisioner"),
        }
    }

    /// Whether controllers of kube-controller-manager must be off for it.
    fn replaces(self) -> bool {
        self == Self::Binder
    }
}

/// The roles that were asked for, where they go together with the rest.
pub(crate) fn chosen(asked: &[Role], replace_stock: bool) -> Result<Vec<Role>> {
    let usual = |role: &Role| replace_stock || !role.replaces();
    let roles: Vec<Role> = match asked {
        [] => Role::ALL.into_iter().filter(usual).collect(),
        asked => asked.to_vec(),
    };
    for role in &roles {
        ensure!(
            usual(role),
            "the {} does not run beside the stock controllers: add --replace-stock",
            role.name()
        );
    }
    ensure!(
        !replace_stock || roles.iter().any(|role| role.replaces()),
        "--replace-stock without the binder would leave the stock controllers' work to nobody"
    );
    Ok(roles)
}

pub(crate) fn install(
    sh: &Shell,
    kind: &Kind,
    roles: &[Role],
    replace_stock: bool,
    progress: &mut Progress,
) -> Result<()> {
    let binary = progress.during("install: the binary", || image::binary(sh))?;
    let name = progress.during("install: the image, into all nodes", || {
        // Named by its content: pods are replaced when it changed, and only then.
        let name = format!("bitts:e2e-{}", &image::sha256(sh, &binary)?[..12]);
        let archive = Path::new(FOLDER).join("bitts.tar");
        image::bitts(sh, &binary, &archive, &name)?;
        kind.load(sh, &archive)?;
        Ok(name)
    })?;
    progress.during("install: the stock controllers", || {
        stock::set(sh, kind, &binary, roles, replace_stock)
    })?;
    progress.during("install: the manifests", || {
        for role in Role::ALL {
            if roles.contains(&role) {
                apply(kind, &manifest(role, &name)?)?;
            } else {
                let gone = ["delete", "--ignore-not-found", "-f", role.manifest()];
                kubectl(sh, &kind.kubeconfig, &gone)?;
            }
        }
        for role in roles {
            let (namespace, workload) = role.workload();
            let ready = [
                "-n",
                namespace,
                "rollout",
                "status",
                workload,
                "--timeout=120s",
            ];
            kubectl(sh, &kind.kubeconfig, &ready)?;
        }
        Ok(())
    })
}

/// What deploy/ holds, with this image.
fn manifest(role: Role, image: &str) -> Result<String> {
    let file = role.manifest();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let mut named = 0;
    let lines = text
        .lines()
        .map(|line| match line.split_once("image: bitts:") {
            Some((before, _)) => {
                named += 1;
                format!("{before}image: {image}\n")
            }
            None => format!("{line}\n"),
        });
    let text = lines.collect();
    ensure!(named > 0, "{file} names no image of bitts");
    Ok(text)
}

fn apply(kind: &Kind, manifest: &str) -> Result<()> {
    let mut child = Command::new(kubectl_program())
        .arg("--kubeconfig")
        .arg(&kind.kubeconfig)
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has no input")?;
    stdin.write_all(manifest.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl apply: {said}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binder_comes_with_the_stock_controllers_off_only() {
        assert_eq!(chosen(&[], false).unwrap(), [Role::Provisioner]);
        assert_eq!(chosen(&[], true).unwrap(), Role::ALL);
        assert!(chosen(&[Role::Binder], false).is_err());
        assert!(chosen(&[Role::Provisioner], true).is_err());
    }
}
