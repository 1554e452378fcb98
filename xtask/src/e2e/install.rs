//! bitts on the cluster: its image built and loaded, and what deploy/ holds applied.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize as _;
use serde_json::{Value, json};
use xshell::Shell;

use super::progress::Progress;
use super::provider::{Kubectl, Provider};
use super::version::Version;
use super::{FOLDER, stock};
use crate::image;

/// What is applied beside the stock controllers, and instead of them.
const BESIDE: &str = "beside-stock.yaml";
const REPLACE: &str = "replace-stock-attach.yaml";

/// On an idle machine it is seconds.
const ROLLOUT: &str = "--timeout=600s";

/// What can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Binder,
    Attacher,
    LostNodes,
    Agent,
    Provisioner,
    NfsProvisioner,
}

impl Role {
    pub(super) const ALL: [Self; 6] = [
        Self::Binder,
        Self::Attacher,
        Self::LostNodes,
        Self::Agent,
        Self::Provisioner,
        Self::NfsProvisioner,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Binder => "binder",
            Self::Attacher => "attacher",
            Self::LostNodes => "lost-nodes",
            Self::Agent => "agent",
            Self::Provisioner => "provisioner",
            Self::NfsProvisioner => "nfs-provisioner",
        }
    }

    /// How its objects are labelled.
    fn components(self) -> &'static [&'static str] {
        match self {
            Self::Binder => &["binder", "controllers"],
            Self::Attacher => &["attacher", "controllers"],
            Self::LostNodes => &["lost-nodes", "controllers"],
            Self::Agent => &["agent"],
            Self::Provisioner => &["provisioner"],
            Self::NfsProvisioner => &["nfs-provisioner"],
        }
    }

    /// Its namespace, and what runs there.
    pub(super) fn workload(self) -> (&'static str, &'static str) {
        match self {
            Self::Binder | Self::Attacher | Self::LostNodes => {
                ("bitts-system", "deployment/bitts-controllers")
            }
            Self::Agent => ("bitts-nodes", "daemonset/bitts-agent"),
            Self::Provisioner => ("bitts-nodes", "daemonset/bitts-provisioner"),
            Self::NfsProvisioner => ("bitts-nfs", "deployment/bitts-nfs-provisioner"),
        }
    }

    /// Who it is for the API.
    pub(super) fn account(self) -> &'static str {
        match self {
            Self::Binder | Self::Attacher | Self::LostNodes => {
                "system:serviceaccount:bitts-system:bitts-controllers"
            }
            Self::Agent => "system:serviceaccount:bitts-nodes:bitts-agent",
            Self::Provisioner => "system:serviceaccount:bitts-nodes:bitts-provisioner",
            Self::NfsProvisioner => "system:serviceaccount:bitts-nfs:bitts-nfs-provisioner",
        }
    }

    /// Whether controllers of kube-controller-manager must be off for it.
    pub(super) fn replaces(self) -> bool {
        matches!(self, Self::Binder | Self::Attacher)
    }

    /// Whether it is among what runs beside the stock controllers.
    fn is_beside(self) -> bool {
        matches!(self, Self::Agent | Self::Provisioner | Self::NfsProvisioner)
    }

    /// Whether it has nothing to do where the nodes' kernel mounts no NFS.
    fn mounts_nfs(self) -> bool {
        matches!(self, Self::Agent | Self::NfsProvisioner)
    }
}

/// The roles that were asked for, where they go together with the rest.
pub(crate) fn chosen(asked: &[Role], replace_stock: bool, nfs: bool) -> Result<Vec<Role>> {
    let usual = |role: &Role| replace_stock || role.is_beside();
    let possible = |role: &Role| nfs || !role.mounts_nfs();
    let roles: Vec<Role> = match asked {
        [] => Role::ALL
            .into_iter()
            .filter(usual)
            .filter(possible)
            .collect(),
        asked => asked.to_vec(),
    };
    for role in &roles {
        let name = role.name();
        ensure!(
            usual(role),
            "the {name} is not installed beside the stock controllers: add --replace-stock"
        );
        ensure!(
            possible(role),
            "the {name} mounts NFS, which the kernel of these nodes cannot: --provider local"
        );
    }
    ensure!(
        !replace_stock || roles.iter().any(|role| role.replaces()),
        "--replace-stock without the binder or the attacher would switch off nothing"
    );
    Ok(roles)
}

pub(crate) fn install(
    sh: &Shell,
    provider: &dyn Provider,
    mut version: Version,
    roles: &[Role],
    replace_stock: bool,
    progress: &mut Progress,
) -> Result<()> {
    let binary = progress.during("install: the binary", || version.binary())?;
    let tag = progress.during("install: the images, into all nodes", || {
        // Named by its content: pods are replaced when it changed, and only then.
        let tag = format!("e2e-{}", &image::sha256(sh, &binary)?[..12]);
        let archive = Path::new(FOLDER).join("bitts.tar");
        image::bitts(sh, &binary, &archive, &format!("bitts:{tag}"))?;
        provider.load(sh, &archive)?;
        if roles.contains(&Role::Agent) {
            let archive = Path::new(FOLDER).join("bitts-agent.tar");
            image::agent(sh, &binary, &archive, &format!("bitts-agent:{tag}"))?;
            provider.load(sh, &archive)?;
        }
        Ok(tag)
    })?;
    progress.during("install: the stock controllers", || {
        stock::set(sh, provider, &binary, roles, replace_stock)
    })?;
    progress.during("install: the manifests", || {
        let chosen = |object: &Value| belongs(object, roles);
        let gone = objects(&version.manifest(REPLACE), &tag, roles)?
            .into_iter()
            .filter(|object| !chosen(object));
        let kubectl = provider.kubectl();
        give(kubectl, &["delete", "--ignore-not-found"], gone)?;
        let file = version.manifest(if replace_stock { REPLACE } else { BESIDE });
        let applied = objects(&file, &tag, roles)?.into_iter().filter(chosen);
        give(kubectl, &["apply"], applied)?;
        for role in roles {
            let (namespace, workload) = role.workload();
            let ready = ["-n", namespace, "rollout", "status", workload, ROLLOUT];
            kubectl.run(sh, &ready)?;
        }
        Ok(())
    })
}

/// What a manifest of deploy/ holds, with this tag for the images; what runs several roles runs those.
fn objects(file: &Path, tag: &str, roles: &[Role]) -> Result<Vec<Value>> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let mut object = Value::deserialize(document).with_context(|| name.to_string())?;
        let containers = object.pointer_mut("/spec/template/spec/containers");
        let containers = containers.and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            let (name, _) = image.split_once(':').unwrap_or_default();
            if ["bitts", "bitts-agent"].contains(&name) {
                container["image"] = json!(format!("{name}:{tag}"));
            }
            let arguments = container["args"].as_array_mut();
            for argument in arguments.into_iter().flatten() {
                if let Some(all) = argument
                    .as_str()
                    .and_then(|arg| arg.strip_prefix("--roles="))
                {
                    let known = |name: &&str| roles.iter().any(|role| role.name() == *name);
                    let run: Vec<&str> = all.split(',').filter(known).collect();
                    *argument = json!(format!("--roles={}", run.join(",")));
                }
            }
        }
        objects.push(object);
    }
    Ok(objects)
}

/// Whether an object is there for one of these roles, or for any.
fn belongs(object: &Value, roles: &[Role]) -> bool {
    let component = object["metadata"]["labels"]["app.kubernetes.io/component"].as_str();
    let mut ours = roles.iter().flat_map(|role| role.components());
    component.is_none_or(|component| ours.any(|name| *name == component))
}

/// Gives objects to kubectl.
fn give(kubectl: &Kubectl, command: &[&str], objects: impl Iterator<Item = Value>) -> Result<()> {
    let items: Vec<Value> = objects.collect();
    if items.is_empty() {
        return Ok(());
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let mut child = Command::new(&kubectl.program)
        .arg("--kubeconfig")
        .arg(&kubectl.kubeconfig)
        .args(command)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has no input")?;
    stdin.write_all(list.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {command:?}: {said}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_applied_belongs_to_the_roles_and_names_the_image() {
        let root = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../",
            "deploy/replace-stock-attach.yaml"
        );
        let objects = objects(Path::new(root), "test", &[Role::Binder, Role::LostNodes]).unwrap();
        let kinds = |roles: &[Role]| -> Vec<String> {
            let ours = objects.iter().filter(|object| belongs(object, roles));
            ours.map(|object| object["kind"].as_str().unwrap().to_owned())
                .collect()
        };
        assert!(kinds(&[Role::Binder]).contains(&"Deployment".to_owned()));
        assert!(!kinds(&[Role::Binder]).contains(&"DaemonSet".to_owned()));
        assert!(kinds(&[]).iter().all(|kind| {
            let any = ["CSIDriver", "Namespace", "NetworkPolicy", "StorageClass"];
            any.contains(&kind.as_str()) || kind.starts_with("ValidatingAdmissionPolicy")
        }));
        let named = objects.iter().filter(|object| {
            let image = object.pointer("/spec/template/spec/containers/0/image");
            image.is_some_and(|image| image == "bitts:test" || image == "bitts-agent:test")
        });
        let workloads: BTreeSet<_> = Role::ALL.iter().map(|role| role.workload()).collect();
        assert_eq!(named.count(), workloads.len());
        let controllers = objects.iter().find(|object| {
            object["kind"] == "Deployment" && object["metadata"]["name"] == "bitts-controllers"
        });
        let arguments =
            controllers.and_then(|it| it.pointer("/spec/template/spec/containers/0/args/1"));
        assert_eq!(arguments.unwrap(), "--roles=binder,lost-nodes");
        assert!(
            objects
                .iter()
                .all(|object| object["kind"] != "Namespace" || object.pointer("/spec").is_none())
        );
    }

    #[test]
    fn what_replaces_comes_with_the_stock_controllers_off_only() {
        let beside = [Role::Agent, Role::Provisioner, Role::NfsProvisioner];
        assert_eq!(chosen(&[], false, true).unwrap(), beside);
        assert_eq!(chosen(&[], true, true).unwrap(), Role::ALL);
        assert!(chosen(&[Role::Binder], false, true).is_err());
        assert!(chosen(&[Role::Provisioner], true, true).is_err());
        assert!(chosen(&[Role::LostNodes], false, true).is_err());
    }

    #[test]
    fn what_mounts_nfs_needs_a_kernel_that_can() {
        assert_eq!(chosen(&[], false, false).unwrap(), [Role::Provisioner]);
        assert!(chosen(&[Role::NfsProvisioner], false, false).is_err());
    }
}
