//! What is needed of this machine: found, installed, or named with the way to get it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use xshell::{Shell, cmd};

use super::progress::output;

/// Where Debian has programs, for users whose PATH lacks some of these.
const FOLDERS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

const KUBERNETES: [&str; 6] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
];

/// A program that is there and answers, or how to get it.
pub(crate) fn program(sh: &Shell, program: &str, look: &[&str], get: &str) -> Result<()> {
    let found = cmd!(sh, "{program} {look...}")
        .quiet()
        .ignore_stderr()
        .read();
    if found.is_err() {
        bail!("{program} is missing or does not answer. {get}");
    }
    Ok(())
}

/// Programs that are there, or the Debian packages that have them.
pub(crate) fn packages(sh: &Shell, needed: &[(&str, &str)], install: bool) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    ensure!(
        install,
        "packages are missing: as root `apt-get install {packages}`, or --install-packages"
    );
    eprintln!("installing {packages}");
    output(cmd!(sh, "apt-get update --quiet"))?;
    output(
        cmd!(
            sh,
            "apt-get install --yes --quiet --no-install-recommends {missing...}"
        )
        .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    let missing = self::missing(needed);
    ensure!(
        missing.is_empty(),
        "installed, but not what was expected of {}",
        missing.join(" ")
    );
    Ok(())
}

fn missing<'a>(needed: &[(&str, &'a str)]) -> Vec<&'a str> {
    let is_there = |program: &str| {
        FOLDERS
            .iter()
            .any(|at| Path::new(at).join(program).exists())
    };
    let missing = needed.iter().filter(|(program, _)| !is_there(program));
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// The folder of the Kubernetes programs, which are built first where there are none.
pub(crate) fn kubernetes(sh: &Shell) -> Result<PathBuf> {
    // To ask the crate that builds them takes building that crate.
    if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
        && KUBERNETES.iter().all(|name| folder.join(name).exists())
    {
        return Ok(folder.canonicalize()?);
    }
    let cargo = ["--quiet", "--package", "bitts-e2e", "--bin", "kubernetes"];
    let folder = cmd!(sh, "cargo run {cargo...}").quiet().read()?;
    Ok(Path::new(&folder).canonicalize()?)
}

/// From the folder of Kubernetes programs, else from PATH.
pub(crate) fn kubectl() -> PathBuf {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let there = folder.map(|folder| folder.join("kubectl"));
    there
        .filter(|program| program.exists())
        .unwrap_or_else(|| "kubectl".into())
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn each_missing_package_is_named_once() {
        let needed = [
            ("sh", "dash"),
            ("no-such-program", "nothing"),
            ("no-such-other", "nothing"),
            ("/no/such/file", "more"),
        ];
        assert_eq!(missing(&needed), ["nothing", "more"]);
    }
}
