//! `bitts manifests`: what is applied to a cluster that a role is to run on. `deploy/` holds what it
//! prints by default, and tests see to it.

#[cfg(feature = "provisioner")]
mod provisioner;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use bitts_api::grant::{Grant, Place};
use clap::Args;
use serde_json::{Value, json};

use crate::cli::Role;
use crate::rbac;

const NAME: &str = "bitts-binder";
const PORT: u16 = 9590;

/// `bitts manifests`.
#[derive(Debug, Args)]
pub(crate) struct Manifests {
    /// The role.
    #[arg(long, value_enum, default_value_t)]
    role: Of,

    /// The namespace that it runs in; `kube-system` works for the binder [default: `bitts-system` for
    /// the binder, `bitts-nodes` for the provisioner].
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// The container image.
    #[arg(long, value_name = "IMAGE", default_value = concat!("bitts:", env!("CARGO_PKG_VERSION")))]
    image: String,

    /// The directories on each node in which the provisioner makes volumes, separated by commas.
    #[cfg(feature = "provisioner")]
    #[arg(
        long,
        value_name = "DIR",
        value_delimiter = ',',
        value_parser = crate::cli::absolute,
        default_value = "/var/lib/bitts"
    )]
    disks: Vec<std::path::PathBuf>,
}

/// The roles that there are manifests for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Of {
    /// Two replicas, one of which leads.
    #[default]
    Binder,
    /// One on each node.
    #[cfg(feature = "provisioner")]
    Provisioner,
}

impl Manifests {
    fn namespace(&self) -> &str {
        let usual = match self.role {
            Of::Binder => "bitts-system",
            #[cfg(feature = "provisioner")]
            Of::Provisioner => "bitts-nodes",
        };
        self.namespace.as_deref().unwrap_or(usual)
    }
}

pub(crate) fn run(args: &Manifests) -> Result<ExitCode> {
    std::io::stdout().write_all(text(args)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn text(args: &Manifests) -> Result<String> {
    let mut text = "# Printed by `bitts manifests`: change the code, not this file.\n".to_owned();
    let objects = match args.role {
        Of::Binder => objects(args),
        #[cfg(feature = "provisioner")]
        Of::Provisioner => provisioner::objects(args),
    };
    for (why, object) in objects {
        text.push_str("---\n");
        for line in why.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&serde_yaml_ng::to_string(&object)?);
    }
    Ok(text)
}

/// The objects in the order in which they are applied, and why there is each.
fn objects(args: &Manifests) -> Vec<(String, Value)> {
    let namespace = args.namespace();
    let grants = rbac::grants(&[Role::Binder]);
    let mut objects = Vec::new();
    let mut add = |why: &str, object: Value| objects.push((why.to_owned(), object));
    if namespace != "kube-system" {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        add(
            "Nothing here needs a privilege on the node.",
            json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "labels": labels}}),
        );
    }
    add(
        "Who the binder is.",
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(namespace)}),
    );
    access(namespace, &grants, &mut add);
    flow(namespace, &mut add);
    add(
        "Two replicas, one of which leads; the other takes over within 2 s of its end, or within\n\
         the lease's 15 s of its death.",
        deployment(args),
    );
    add(
        "A drain leaves one replica standing.",
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": meta(namespace),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": labels()}}}),
    );
    add(
        "Metrics of both replicas, under the stock names where there are such.",
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(namespace),
            "spec": {"clusterIP": "None", "selector": labels(),
                "ports": [{"name": "metrics", "port": PORT, "targetPort": "metrics"}]}}),
    );
    objects
}

fn access(namespace: &str, grants: &[Grant], add: &mut impl FnMut(&str, Value)) {
    let subject = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]);
    // Two roles of one name in one namespace would be one; the other gets a name of its own.
    for (place, kind, home, name) in [
        (Place::Cluster, "ClusterRole", None, NAME),
        (Place::Own, "Role", Some(namespace), NAME),
        (
            Place::System,
            "Role",
            Some("kube-system"),
            "bitts-binder-start",
        ),
    ] {
        let mut metadata = json!({"name": name, "labels": labels()});
        if let Some(home) = home {
            metadata["namespace"] = json!(home);
        }
        let mut why = Vec::new();
        for grant in grants.iter().filter(|grant| grant.place == place) {
            let verbs: Vec<_> = grant.verbs.iter().map(|verb| verb.name()).collect();
            why.push(format!(
                "{}: {}: {}",
                grant.resource,
                verbs.join(", "),
                grant.why
            ));
        }
        add(
            &why.join("\n"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
                "metadata": metadata, "rules": rbac::rules(grants, place)}),
        );
        add(
            "",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
                "metadata": metadata, "subjects": subject,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}}),
        );
    }
}

/// No priority level of its own: seats given to it would be taken from everybody else. The stock
/// controllers share `workload-high` and `leader-election`; what stands in for them belongs there.
fn flow(namespace: &str, add: &mut impl FnMut(&str, Value)) {
    let subjects = json!([{"kind": "ServiceAccount",
        "serviceAccount": {"name": NAME, "namespace": namespace}}]);
    let schema = |name: &str, level: &str, precedence: u32, rule: Value| {
        json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
            "metadata": {"name": name, "labels": labels()},
            "spec": {"priorityLevelConfiguration": {"name": level},
                "matchingPrecedence": precedence,
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{"subjects": subjects, "resourceRules": [rule]}]}})
    };
    add(
        "The lease is renewed even where the API server is busy: else a leader would step down\n\
         because of its own writes.",
        schema(
            "bitts-binder-lease",
            "leader-election",
            200,
            json!({"verbs": ["get", "create", "patch"], "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"], "namespaces": [namespace]}),
        ),
    );
    add(
        "The priority level of the controllers that the binder stands in for. Without it the\n\
         binder would wait in workload-low behind everybody's operators; a level of its own would\n\
         take seats from all others even where no claim waits.",
        schema(
            NAME,
            "workload-high",
            850,
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true,
                "namespaces": ["*"]}),
        ),
    );
}

fn deployment(args: &Manifests) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "metrics"}});
    let container = json!({
        "name": "binder",
        "image": args.image,
        "args": ["run", "--roles=binder", format!("--listen=0.0.0.0:{PORT}"), "--log-format=json"],
        "ports": [{"name": "metrics", "containerPort": PORT}],
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]}},
    });
    let apart = json!([{"weight": 1, "podAffinityTerm": {
        "topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels()}}}]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(args.namespace()),
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels()},
            "template": {
                "metadata": {"labels": labels()},
                "spec": {
                    "serviceAccountName": NAME,
                    // It exists on every cluster; without it workloads could push out what binds
                    // their volumes.
                    "priorityClassName": "system-cluster-critical",
                    "terminationGracePeriodSeconds": 20,
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"}},
                    "tolerations": [{"key": "node-role.kubernetes.io/control-plane",
                        "operator": "Exists", "effect": "NoSchedule"}],
                    "affinity": {"podAntiAffinity":
                        {"preferredDuringSchedulingIgnoredDuringExecution": apart}},
                    "containers": [container],
                },
            },
        },
    })
}

fn meta(namespace: &str) -> Value {
    json!({"name": NAME, "namespace": namespace, "labels": labels()})
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": "bitts", "app.kubernetes.io/component": "binder"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        manifests: Manifests,
    }

    pub(super) fn printed(flags: &[&str]) -> String {
        let line = Line::try_parse_from(["bitts"].iter().chain(flags)).unwrap();
        text(&line.manifests).unwrap()
    }

    #[test]
    fn deploy_holds_what_is_printed() {
        let file = include_str!("../../../deploy/binder.yaml");
        assert_eq!(
            file,
            printed(&[]),
            "`cargo run -- manifests > deploy/binder.yaml` writes it anew"
        );
    }

    #[test]
    fn another_namespace_is_named_everywhere() {
        let text = printed(&["--namespace", "kube-system", "--image", "here/bitts:1"]);
        assert!(
            !text.contains("bitts-system") && !text.contains("kind: Namespace"),
            "{text}"
        );
        assert!(text.contains("image: here/bitts:1"), "{text}");
    }
}
