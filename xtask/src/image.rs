//! `cargo xtask image`: the container image of the cluster's roles, from a static binary and nothing
//! else. Written as an archive without a container engine, and the same bytes each time.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

/// The roles that run without helpers from a distribution.
const FEATURES: &str = "attacher,binder,provisioner";
/// Nobody's, as in the manifests; who must be root says so there.
const USER: &str = "65532:65532";

/// What is written.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The name in the archive.
    #[arg(long, default_value = concat!("bitts:", env!("CARGO_PKG_VERSION")), value_name = "IMAGE")]
    name: String,
    /// The archive, as `docker load` takes it.
    #[arg(long, default_value = "target/image/bitts.tar", value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let sh = Shell::new()?;
    let binary = binary(&sh)?;
    bitts(&sh, &binary, &args.output, &args.name)?;
    let size = fs::metadata(&args.output)?.len();
    println!(
        "{}: {}, {:.1} MB; `docker load --input` takes it",
        args.output.display(),
        args.name,
        size as f64 / 1e6
    );
    Ok(())
}

/// Builds the binary: with musl, else with the C library of this machine, linked statically as well.
pub(crate) fn binary(sh: &Shell) -> Result<PathBuf> {
    let gnu = format!("{ARCH}-unknown-linux-gnu");
    let musl = format!("{ARCH}-unknown-linux-musl");
    let flags = ["--release", "--locked", "--package", "bitts"];
    let target = match has_musl(sh, &musl) {
        Ok(()) => {
            cmd!(
                sh,
                "cargo build {flags...} --no-default-features --features {FEATURES} --target {musl}"
            )
            .run()?;
            musl
        }
        Err(why) => {
            eprintln!(
                "{why:#}.\nUsing {gnu}, linked statically: good for tests, not for a release."
            );
            // Its own folder: other flags would build everything anew each time.
            let folder = target_folder().join("static");
            cmd!(
                sh,
                "cargo build {flags...} --no-default-features --features {FEATURES} --target {gnu}"
            )
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_TARGET_DIR", &folder)
            .run()?;
            return Ok(folder.join(gnu).join("release/bitts"));
        }
    };
    Ok(target_folder().join(target).join("release/bitts"))
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}

fn has_musl(sh: &Shell, target: &str) -> Result<()> {
    let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read()?;
    if !Path::new(&sysroot)
        .join("lib/rustlib")
        .join(target)
        .exists()
    {
        bail!("no Rust for {target}: get it with `rustup target add {target}`");
    }
    let c = std::env::var(format!("CC_{}", target.replace('-', "_")))
        .unwrap_or_else(|_| "musl-gcc".to_owned());
    cmd!(sh, "{c} --version")
        .quiet()
        .output()
        .with_context(|| format!("no {c}: get it with `apt-get install musl-tools`"))?;
    Ok(())
}

/// The image of bitts: one file.
pub(crate) fn bitts(sh: &Shell, binary: &Path, archive: &Path, name: &str) -> Result<()> {
    let tree = sh.create_temp_dir()?;
    sh.copy_file(binary, tree.path())?;
    write(
        sh,
        tree.path(),
        archive,
        name,
        &json!({"Entrypoint": ["/bitts"], "User": USER}),
    )
}

/// Writes what is below `tree` as an image of one layer, owned by root and without times, so that the
/// same files always give the same bytes.
pub(crate) fn write(
    sh: &Shell,
    tree: &Path,
    archive: &Path,
    name: &str,
    config: &Value,
) -> Result<()> {
    let folder = sh.create_temp_dir()?;
    let layer = folder.path().join("layer.tar");
    tar(sh, tree, &layer)?;
    let arch = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let diff = sha256(sh, &layer)?;
    let config = json!({
        "architecture": arch, "os": "linux", "created": "1970-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask image"}],
    });
    sh.write_file(folder.path().join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    sh.write_file(folder.path().join("manifest.json"), manifest.to_string())?;
    if let Some(parent) = archive.parent() {
        sh.create_dir(parent)?;
    }
    tar(sh, folder.path(), archive)
}

fn tar(sh: &Shell, tree: &Path, archive: &Path) -> Result<()> {
    let same = [
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ];
    let access = "--mode=u=rwX,go=rX";
    cmd!(
        sh,
        "tar --create --file {archive} --format=ustar {same...} {access} --directory {tree} ."
    )
    .quiet()
    .run()
    .context("GNU tar is needed")
}

/// The digest of a file's content.
pub(crate) fn sha256(sh: &Shell, file: &Path) -> Result<String> {
    let line = cmd!(sh, "sha256sum {file}").quiet().read()?;
    let digest = line.split_whitespace().next();
    Ok(digest.context("sha256sum printed nothing")?.to_owned())
}
