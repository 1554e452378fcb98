//! Which crate may depend on what: the invariants of ARCHITECTURE.md.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use super::Report;
use crate::workspace::Workspace;

/// The roles; only the binary (and those that test the whole) may know more than none of them.
const ROLES: [&str; 4] = [
    "bitts-agent",
    "bitts-attacher",
    "bitts-binder",
    "bitts-provisioner",
];
const KNOWS_ROLES: [&str; 3] = ["bitts", "bitts-e2e", "bitts-sim"];

/// What a crate may name in its `[dependencies]`, all of it.
const CLOSED: [(&str, &[&str]); 2] = [
    (
        "bitts-api",
        &["jiff", "serde", "serde_json", "thiserror", "uuid"],
    ),
    ("bitts-mount", &["nix", "procfs", "rustix", "thiserror"]),
];

/// What must be nowhere below a crate that is built without default features. A name that ends in
/// `*` stands for all that begin so.
const ABSENT: [(&str, &[&str]); 10] = [
    ("bitts-api", &["kube*", "k8s-openapi", "tokio*", "bitts-*"]),
    (
        "bitts-mount",
        &["kube*", "k8s-openapi", "tokio*", "bitts-*"],
    ),
    (
        "bitts-binder",
        &["kube*", "k8s-openapi", "tokio*", "hyper*", "bitts-runtime"],
    ),
    (
        "bitts-agent",
        &["kube*", "k8s-openapi", "tokio*", "hyper*", "bitts-runtime"],
    ),
    (
        "bitts-attacher",
        &["kube*", "k8s-openapi", "tokio*", "hyper*", "bitts-runtime"],
    ),
    (
        "bitts-provisioner",
        &["kube*", "k8s-openapi", "tokio*", "hyper*", "bitts-runtime"],
    ),
    ("bitts-csi", &["kube*", "k8s-openapi", "bitts-*"]),
    ("bitts-runtime", &["bitts-apiserver", "bitts-mount"]),
    (
        "bitts-sim",
        &["kube*", "k8s-openapi", "tokio*", "hyper*", "bitts-runtime"],
    ),
    (
        "bitts-apiserver",
        &["kube*", "bitts-runtime", "bitts-mount"],
    ),
];

pub(super) fn check(workspace: &Workspace) -> Result<Report> {
    let mut broken = direct(workspace);
    for (package, absent) in ABSENT {
        let below = below(package)?;
        let found = below
            .iter()
            .filter(|name| absent.iter().any(|wanted| matches(wanted, name)));
        broken.extend(found.map(|name| {
            format!("{package} without default features must know no {name}: see `cargo tree -p {package} --no-default-features -i {name}`")
        }));
    }
    if broken.is_empty() {
        return Ok(Report::default());
    }
    bail!(
        "boundaries that ARCHITECTURE.md draws are crossed:\n  {}",
        broken.join("\n  ")
    )
}

fn direct(workspace: &Workspace) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, package) in &workspace.packages {
        let closed = CLOSED.iter().find(|(closed, _)| closed == name);
        for dependency in &package.dependencies {
            if closed.is_some_and(|(_, allowed)| !allowed.contains(&dependency.as_str())) {
                broken.push(format!("{name} may not depend on {dependency}"));
            }
            let is_role = ROLES.contains(&dependency.as_str());
            if is_role && !KNOWS_ROLES.contains(&name.as_str()) {
                broken.push(format!("{name} may not know the role {dependency}"));
            }
        }
    }
    broken
}

/// The names of all packages that are linked into this one.
fn below(package: &str) -> Result<BTreeSet<String>> {
    let sh = Shell::new()?;
    let tree = cmd!(
        sh,
        "cargo tree --locked --package {package} --no-default-features --edges normal --prefix none"
    );
    let tree = tree.quiet().read()?;
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect())
}

fn matches(wanted: &str, name: &str) -> bool {
    wanted
        .strip_suffix('*')
        .map_or(wanted == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Package;

    #[test]
    fn a_crossed_boundary_is_found() {
        let depends_on = |names: &[&str]| Package {
            dependencies: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Package::default()
        };
        let packages = [
            ("bitts", depends_on(&["bitts-agent", "bitts-binder"])),
            ("bitts-api", depends_on(&["serde", "tokio"])),
            ("bitts-agent", depends_on(&["bitts-api", "bitts-binder"])),
        ];
        let packages = packages
            .map(|(name, package)| (name.to_owned(), package))
            .into();
        let workspace = Workspace {
            root: ".".into(),
            version: String::new(),
            packages,
        };
        assert_eq!(
            direct(&workspace),
            [
                "bitts-agent may not know the role bitts-binder",
                "bitts-api may not depend on tokio"
            ]
        );
    }
}
