//! What is applied for the provisioner: one process on each node that has disks for it.

use bitts_api::grant::Place;
use serde_json::{Value, json};

use super::{Manifests, PORT};
use crate::cli::Role;
use crate::rbac;

const NAME: &str = "bitts-provisioner";

/// The objects in the order in which they are applied, and why there is each.
pub(super) fn objects(args: &Manifests) -> Vec<(String, Value)> {
    let namespace = args.namespace();
    let meta = json!({"name": NAME, "namespace": namespace, "labels": labels()});
    let cluster = json!({"name": NAME, "labels": labels()});
    let grants = rbac::grants(&[Role::Provisioner]);
    let why = |grant: &bitts_api::grant::Grant| {
        let verbs: Vec<_> = grant.verbs.iter().map(|verb| verb.name()).collect();
        format!("{}: {}: {}", grant.resource, verbs.join(", "), grant.why)
    };
    let why: Vec<_> = grants.iter().map(why).collect();
    let rbac = "rbac.authorization.k8s.io";
    vec![
        (
            "It writes to the nodes' disks, which the other profiles forbid.".to_owned(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace,
                "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
        ),
        (
            "Who the provisioner is.".to_owned(),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
        ),
        (
            why.join("\n"),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": cluster,
                "rules": rbac::rules(&grants, Place::Cluster)}),
        ),
        (
            String::new(),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding",
                "metadata": cluster,
                "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME}}),
        ),
        (
            "One on each node, with the disks under the path that they have there.".to_owned(),
            daemon_set(args, &meta),
        ),
        (
            "The class; docs/provisioner.md has its parameters.".to_owned(),
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                "metadata": {"name": "local", "labels": labels()},
                "provisioner": bitts_provisioner::LOCAL,
                "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"}),
        ),
    ]
}

fn daemon_set(args: &Manifests, meta: &Value) -> Value {
    let disks = || args.disks.iter().enumerate();
    let volume = |(n, disk): (usize, &std::path::PathBuf)| {
        json!({"name": format!("disk-{n}"),
            "hostPath": {"path": disk, "type": "DirectoryOrCreate"}})
    };
    let mount = |(n, disk): (usize, &std::path::PathBuf)| {
        json!({"name": format!("disk-{n}"), "mountPath": disk,
            "mountPropagation": "HostToContainer"})
    };
    let paths: Vec<_> = disks()
        .map(|(_, disk)| disk.display().to_string())
        .collect();
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "metrics"}});
    let container = json!({
        "name": "provisioner",
        "image": args.image,
        "args": ["run", "--roles=provisioner", format!("--disks={}", paths.join(",")),
            format!("--listen=0.0.0.0:{PORT}"), "--log-format=json"],
        "env": [{"name": "BITTS_NODE_NAME",
            "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "ports": [{"name": "metrics", "containerPort": PORT}],
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        // What it takes to hand directories to their users, and to remove what those wrote.
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "runAsUser": 0, "capabilities": {"drop": ["ALL"],
                "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]}},
        "volumeMounts": disks().map(mount).collect::<Vec<_>>(),
    });
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta,
        "spec": {
            "selector": {"matchLabels": labels()},
            "template": {
                "metadata": {"labels": labels()},
                "spec": {
                    "serviceAccountName": NAME,
                    "priorityClassName": "system-node-critical",
                    "terminationGracePeriodSeconds": 20,
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [container],
                    "volumes": disks().map(volume).collect::<Vec<_>>(),
                },
            },
        },
    })
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": "bitts", "app.kubernetes.io/component": "provisioner"})
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;

    #[test]
    fn deploy_holds_what_is_printed() {
        let file = include_str!("../../../../deploy/provisioner.yaml");
        assert_eq!(
            file,
            printed(&["--role", "provisioner"]),
            "`cargo run -- manifests --role provisioner > deploy/provisioner.yaml` writes it anew"
        );
    }

    #[test]
    fn each_disk_is_mounted_under_its_own_path() {
        let text = printed(&["--role", "provisioner", "--disks", "/data/a,/data/b"]);
        assert!(text.contains("--disks=/data/a,/data/b"), "{text}");
        for disk in ["/data/a", "/data/b"] {
            assert!(text.contains(&format!("mountPath: {disk}\n")), "{text}");
            assert!(text.contains(&format!("path: {disk}\n")), "{text}");
        }
    }
}
