//! The Helm chart: `cargo xtask chart` writes what is made of it and of the code, `cargo xtask test`
//! checks it.

mod schemas;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

pub(crate) use tools::Missing;

use crate::workspace::Workspace;

const CHART: &str = "deploy/chart/bitts";

/// `cargo xtask chart`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// A manifest in deploy/, which is the chart with these values.
struct Rendered {
    name: &'static str,
    about: &'static str,
    values: &'static [&'static str],
}

const RENDERED: [Rendered; 3] = [
    Rendered {
        name: "beside-stock",
        about: "bitts beside kube-controller-manager and the kubelets as they are",
        values: &[],
    },
    Rendered {
        name: "replace-stock",
        about: "bitts instead of the volume controllers of kube-controller-manager, which must be off",
        values: &["roles.binder=true"],
    },
    Rendered {
        name: "replace-stock-attach",
        about: "the same, and instead of the attach-detach controller, which must be off too; with the role lost-nodes",
        values: &[
            "roles.binder=true",
            "roles.attacher=true",
            "roles.csi-attacher=true",
            "roles.lost-nodes=true",
        ],
    },
];

/// All that can be switched on, so that all of it is looked at.
const EVERYTHING: [&str; 14] = [
    "roles.binder=true",
    "roles.lost-nodes=true",
    "roles.attacher=true",
    "roles.csi-attacher=true",
    "roles.cloud-attacher=true",
    "csiAttacher.accounts[0].name=disk-controller",
    "csiAttacher.accounts[0].namespace=kube-system",
    "image.pullSecrets[0].name=registry",
    "controllers.flags={--strict-compat}",
    "controllers.nodeSelector.disk=fast",
    "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
    "monitoring.serviceMonitor=true",
    "monitoring.alerts=true",
    "monitoring.dashboard=true",
];

/// What the schema of the values refuses.
const REFUSED: [&str; 7] = [
    "csiAttacher.accounts[0].name=disk-controller",
    "roles.juggler=true",
    "roles.binder=perhaps",
    "controllers.replicas=0",
    "agent.flags={beside-kubelet}",
    "provisioner.disks={data}",
    "replicas=2",
];

/// Writes rbac/ of the chart by what the code says, and deploy/ by the chart.
pub(crate) fn write(workspace: &Workspace, _: &Args) -> Result<()> {
    let sh = Shell::new()?;
    let helm = tools::helm()?;
    for role in roles()? {
        let text = cmd!(
            sh,
            "cargo run --locked --quiet --package bitts -- rbac {role}"
        )
        .read()?;
        sh.write_file(format!("{CHART}/rbac/{role}.yaml"), format!("{text}\n"))?;
    }
    for rendered in &RENDERED {
        let file = rendered.file(workspace);
        fs::write(&file, rendered.text(&sh, &helm)?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Whether the chart is sound, deploy/ is what it renders, and all of it is what the API knows.
/// Returns how many manifests the API's schemas were held against.
pub(crate) fn check(workspace: &Workspace) -> Result<String> {
    let sh = Shell::new()?;
    let helm = tools::helm()?;
    versions(workspace)?;
    cmd!(sh, "{helm} lint --quiet --strict {CHART}").run()?;
    for value in REFUSED {
        let refused = cmd!(
            sh,
            "{helm} template bitts {CHART} --kube-version 1.33 --set {value}"
        )
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run();
        ensure!(
            refused.is_err(),
            "values.schema.json does not refuse {value}"
        );
    }
    for rendered in &RENDERED {
        let file = rendered.file(workspace);
        let there = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        ensure!(
            there == rendered.text(&sh, &helm)?,
            "{} is not what the chart renders: `cargo xtask chart` writes it anew",
            file.display()
        );
    }
    let everything = target()?.join("everything.yaml");
    sh.write_file(&everything, template(&sh, &helm, &EVERYTHING)?)?;
    let schemas = schemas::write(workspace)?;
    let conform = tools::kubeconform()?;
    let kind = format!(
        "{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        schemas.display()
    );
    let files = RENDERED.iter().map(|rendered| rendered.file(workspace));
    let summary = cmd!(
        sh,
        "{conform} -schema-location {kind} -summary examples {everything} {files...}"
    )
    .ignore_status()
    .output()?;
    let said = String::from_utf8_lossy(&summary.stdout);
    if !summary.status.success() {
        bail!(
            "the API's schemas refuse:\n{said}{}",
            String::from_utf8_lossy(&summary.stderr)
        );
    }
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

/// Puts the chart as an archive, and the manifests, where a release is gathered.
pub(crate) fn package(sh: &Shell, out: &Path) -> Result<()> {
    let helm = tools::helm()?;
    cmd!(sh, "{helm} package {CHART} --destination {out}").run()?;
    for rendered in &RENDERED {
        sh.copy_file(format!("deploy/{}.yaml", rendered.name), out)?;
    }
    Ok(())
}

impl Rendered {
    fn file(&self, workspace: &Workspace) -> PathBuf {
        workspace.root.join(format!("deploy/{}.yaml", self.name))
    }

    fn text(&self, sh: &Shell, helm: &Path) -> Result<String> {
        let objects = template(sh, helm, self.values)?;
        Ok(format!(
            "# {}.\n# Rendered from deploy/chart by `cargo xtask chart`: change that, not this file.\n{objects}",
            self.about
        ))
    }
}

fn template(sh: &Shell, helm: &Path, values: &[&str]) -> Result<String> {
    let set = values.iter().flat_map(|value| ["--set", value]);
    let text = cmd!(
        sh,
        "{helm} template bitts {CHART} --namespace bitts-system --kube-version 1.33 --set createNamespace=true {set...}"
    )
    .quiet()
    .read()?;
    // From which template something comes is of no use to who applies it.
    let lines = text.lines().filter(|line| !line.starts_with("# Source: "));
    Ok(lines.flat_map(|line| [line, "\n"]).collect())
}

/// The roles that the chart knows.
fn roles() -> Result<Vec<String>> {
    let values = yaml(&format!("{CHART}/values.yaml"))?;
    let roles = values["roles"]
        .as_object()
        .context("values.yaml has no roles")?;
    Ok(roles.keys().cloned().collect())
}

/// The chart is released with the workspace.
fn versions(workspace: &Workspace) -> Result<()> {
    let chart = yaml(&format!("{CHART}/Chart.yaml"))?;
    for field in ["version", "appVersion"] {
        ensure!(
            chart[field] == workspace.version,
            "Chart.yaml: {field} is {}, the workspace's is {}",
            chart[field],
            workspace.version
        );
    }
    Ok(())
}

fn yaml(path: &str) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    serde_yaml_ng::from_str(&text).with_context(|| path.to_owned())
}

/// Where cargo builds, and what is built beside it.
pub(crate) fn target() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(std::path::absolute(target)?)
}
