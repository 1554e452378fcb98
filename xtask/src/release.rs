//! `cargo xtask release`: what a release consists of, but for the images, which are `cargo xtask image`'s.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::chart;
use crate::workspace::Workspace;

/// `cargo xtask release`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these parts; all otherwise.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// The tag that is released; it must be that of the workspace's version.
    #[arg(long)]
    tag: Option<String>,
    /// Where everything is put.
    #[arg(long, value_name = "DIR", default_value = "target/release-files")]
    out: PathBuf,
}

/// In the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The static binary for this machine's architecture.
    Binary,
    /// What the binary is made of, as CycloneDX.
    Sbom,
    /// The Helm chart as an archive, and the manifests.
    Chart,
    /// SHA-256 of all that is there.
    Checksums,
}

/// Makes the parts, and says where they are.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let version = &workspace.version;
    if let Some(tag) = &args.tag {
        ensure!(
            *tag == format!("v{version}"),
            "the tag is {tag}, the workspace's version {version}"
        );
    }
    let sh = Shell::new()?;
    let out = sh.create_dir(&args.out)?;
    for part in Part::value_variants() {
        if args.only.is_empty() || args.only.contains(part) {
            match part {
                Part::Binary => binary(&sh, version, &out)?,
                Part::Sbom => sbom(&sh, version, &out)?,
                Part::Chart => chart::package(&sh, &out)?,
                Part::Checksums => checksums(&sh, &out)?,
            }
        }
    }
    for file in sh.read_dir(&out)? {
        println!("{}", file.display());
    }
    Ok(())
}

/// Linked with musl, so that it runs on any Linux.
fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

fn binary(sh: &Shell, version: &str, out: &Path) -> Result<()> {
    let target = target();
    cmd!(
        sh,
        "cargo build --release --locked --package bitts --target {target}"
    )
    .run()
    .with_context(|| {
        format!(
            "it takes `rustup target add {target}` and a C compiler for musl (Debian: musl-tools)"
        )
    })?;
    let built = chart::target()?.join(&target).join("release");
    let archive = out.join(format!("bitts-{version}-{target}.tar.gz"));
    // The same files give the same archive.
    let same = [
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
    ];
    cmd!(
        sh,
        "tar --create --gzip --file {archive} {same...} --directory {built} bitts"
    )
    .env("GZIP", "-n")
    .run()?;
    Ok(())
}

fn sbom(sh: &Shell, version: &str, out: &Path) -> Result<()> {
    let target = target();
    let format = "{p}|{l}";
    let tree = cmd!(
        sh,
        "cargo tree --locked --package bitts --target {target} --edges normal,build --prefix none --format {format}"
    )
    .quiet()
    .read()?;
    let bill = bill(version, &tree);
    let is_empty = bill["components"].as_array().is_none_or(Vec::is_empty);
    ensure!(!is_empty, "`cargo tree` lists nothing:\n{tree}");
    let text = serde_json::to_string_pretty(&bill)?;
    sh.write_file(out.join(format!("bitts-{version}-{target}.cdx.json")), text)?;
    Ok(())
}

/// The bill of what `cargo tree` lists, a line `name vVERSION ...|licence` each.
fn bill(version: &str, tree: &str) -> Value {
    let component = |line: &str| {
        // What was listed before ends in a star.
        let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
        let mut words = package.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        // Ours have a path there, and are part of what is described.
        let ours = words.next().is_some_and(|word| word.starts_with("(/"));
        let licence = licence.replace(" / ", "/").replace('/', " OR ");
        (!ours).then(|| (name.to_owned(), version.to_owned(), licence))
    };
    let all: BTreeSet<_> = tree.lines().filter_map(component).collect();
    let components = all.into_iter().map(|(name, version, licence)| {
        json!({"type": "library", "name": name, "version": version,
            "purl": format!("pkg:cargo/{name}@{version}"),
            "licenses": [{"expression": licence}]})
    });
    json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "name": "bitts", "version": version,
            "licenses": [{"expression": "Apache-2.0"}]}},
        "components": components.collect::<Vec<_>>()})
}

fn checksums(sh: &Shell, out: &Path) -> Result<()> {
    let name = |path: PathBuf| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let mut files: Vec<_> = sh.read_dir(out)?.into_iter().filter_map(name).collect();
    files.retain(|file| file != "SHA256SUMS");
    ensure!(!files.is_empty(), "{} is empty", out.display());
    let _there = sh.push_dir(out);
    let sums = cmd!(sh, "sha256sum {files...}").quiet().read()?;
    sh.write_file("SHA256SUMS", format!("{sums}\n"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_names_what_others_wrote() {
        let tree = "bitts v0.1.0 (/src/crates/bitts)|Apache-2.0\n\
            serde v1.0.1|MIT OR Apache-2.0\nserde_derive v1.0.1 (proc-macro)|MIT/Apache-2.0\n\
            serde v1.0.1|MIT OR Apache-2.0 (*)\nserde_derive v1.0.1 (proc-macro)|MIT / Apache-2.0\n";
        let bill = bill("0.1.0", tree);
        let names: Vec<_> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| {
                (
                    c["purl"].as_str().unwrap(),
                    c["licenses"][0]["expression"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            names,
            [
                ("pkg:cargo/serde@1.0.1", "MIT OR Apache-2.0"),
                ("pkg:cargo/serde_derive@1.0.1", "MIT OR Apache-2.0"),
            ]
        );
    }
}
