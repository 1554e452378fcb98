//! Helm and kubeconform: those on PATH, or built once with Go.

use std::path::PathBuf;

use anyhow::Result;
use xshell::{Cmd, Shell, cmd};

/// A program that is neither there nor can be built here.
#[derive(Debug)]
pub(crate) struct Missing(String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Where Go is there, what it did not get is a network's fault, or that of who asked.
pub(super) fn by_go(sh: &Shell, what: &str, command: Cmd<'_>) -> Result<String, Missing> {
    let go = cmd!(sh, "go version")
        .quiet()
        .ignore_stdout()
        .ignore_stderr();
    if go.run().is_err() {
        return Err(Missing(format!("{what}: install it, or Go to get it with")));
    }
    let got = command.quiet().read();
    got.map_err(|error| Missing(format!("{what}: {error}")))
}

pub(super) fn helm() -> Result<PathBuf> {
    find_or_build("helm", "helm.sh/helm/v3/cmd/helm@v3.22.0")
}

pub(super) fn kubeconform() -> Result<PathBuf> {
    find_or_build(
        "kubeconform",
        "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
    )
}

fn find_or_build(name: &str, module: &str) -> Result<PathBuf> {
    let sh = Shell::new()?;
    let there = cmd!(sh, "sh -c 'command -v \"$0\"' {name}");
    if let Ok(path) = there.quiet().ignore_stderr().read() {
        return Ok(path.into());
    }
    // The version is in the path: another one is built anew.
    let version = module.rsplit('@').next().unwrap_or_default();
    let folder = super::target()?
        .join("tools")
        .join(format!("{name}-{version}"));
    let program = folder.join(name);
    if program.is_file() {
        return Ok(program);
    }
    println!("building {name} {version} (a minute or two the first time) ...");
    let build = cmd!(sh, "go install -trimpath -ldflags '-s -w' {module}")
        .env("GOBIN", &folder)
        .env("CGO_ENABLED", "0");
    by_go(&sh, name, build)?;
    Ok(program)
}
