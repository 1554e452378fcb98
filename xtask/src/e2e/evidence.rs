//! What is kept of a failure: the nodes' logs, events, and the state of everything about volumes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use xshell::Shell;

use super::FOLDER;
use super::install::Role;
use super::provider::Provider;

const OBJECTS: &str = "persistentvolumes,persistentvolumeclaims,storageclasses,pods,nodes,\
    volumeattachments,csidrivers,csinodes,csistoragecapacities,leases,daemonsets,deployments";

/// Collects what can be had into a folder of its own.
pub(crate) fn collect(sh: &Shell, provider: &dyn Provider) -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let folder = Path::new(FOLDER).join(format!("failed-{}", now.as_secs()));
    sh.create_dir(&folder)?;
    let asked = [
        ("objects.yaml", vec!["get", OBJECTS, "-A", "-o", "yaml"]),
        ("objects.txt", vec!["get", OBJECTS, "-A", "-o", "wide"]),
        (
            "events.txt",
            vec!["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ),
    ];
    for (file, arguments) in asked {
        // One that fails leaves its error instead, and the others.
        let text = provider.kubectl().run(sh, &arguments);
        let text = text.unwrap_or_else(|error| format!("{error:#}"));
        sh.write_file(folder.join(file), text)?;
    }
    let namespaces: BTreeSet<&str> = Role::ALL.map(|role| role.workload().0).into();
    for namespace in namespaces {
        let label = "app.kubernetes.io/name=bitts";
        let logs = [
            "-n",
            namespace,
            "logs",
            "-l",
            label,
            "--prefix",
            "--tail=-1",
        ];
        let text = provider.kubectl().run(sh, &logs);
        let text = text.unwrap_or_else(|error| format!("{error:#}"));
        sh.write_file(folder.join(format!("{namespace}.log")), text)?;
    }
    if let Err(error) = provider.logs(sh, &folder) {
        sh.write_file(folder.join("nodes.error"), format!("{error:#}"))?;
    }
    Ok(folder)
}
