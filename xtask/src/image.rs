//! `cargo xtask image`: the container image of the cluster's roles, from a static binary and nothing
//! else, and that of the agent, which has the programs beside it that it calls. Written as archives without
//! a container engine, and the same bytes each time.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

/// The roles that run without helpers from a distribution,
const CLUSTER: &str = "attacher,binder,provisioner";
/// what runs on each node,
const AGENT: &str = "agent";
/// and what tests take for both: it is built once, and quickly: without optimizations in a third of the time.
/// What is shipped is built with the profiles `ship` and `release`, whose last steps alone take minutes.
const EVERYTHING: &str = "agent,attacher,binder,provisioner";
const QUICK: [&str; 4] = [
    "profile.e2e.inherits='release'",
    "profile.e2e.opt-level=0",
    "profile.e2e.lto='off'",
    "profile.e2e.codegen-units=16",
];
/// What the agent calls where a kubelet is beside it, and what that reads.
const HELPERS: [(&str, &str); 2] = [
    ("/sbin/mount.nfs", "nfs-common"),
    ("/etc/netconfig", "libtirpc-common"),
];
/// Nobody's, as in the manifests; who must be root says so there.
const USER: &str = "65532:65532";

/// What is written.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What stands before the images' names, such as `registry.example/storage/`.
    #[arg(long, default_value = "", value_name = "TEXT")]
    prefix: String,
    /// The images' tag.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"), value_name = "TEXT")]
    tag: String,
    /// Where the archives are written, bitts.tar and bitts-agent.tar, as `docker load` takes them.
    #[arg(long, default_value = "target/image", value_name = "FOLDER")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args {
        prefix,
        tag,
        output,
    } = args;
    let sh = Shell::new()?;
    let images = [
        ("bitts", "ship", CLUSTER, bitts as Write),
        ("bitts-agent", "release", AGENT, agent),
    ];
    for (image, profile, roles, write) in images {
        let binary = Build::shipped(&sh, profile, roles)?.finish()?;
        let archive = output.join(format!("{image}.tar"));
        let name = format!("{prefix}{image}:{tag}");
        write(&sh, &binary, &archive, &name)?;
        let size = fs::metadata(&archive)?.len();
        println!(
            "{}: {name}, {:.1} MB; `docker load --input` takes it",
            archive.display(),
            size as f64 / 1e6
        );
    }
    Ok(())
}

type Write = fn(&Shell, &Path, &Path, &str) -> Result<()>;

/// Builds the binary with the roles of the cluster.
pub(crate) fn binary(sh: &Shell) -> Result<PathBuf> {
    Build::shipped(sh, "ship", CLUSTER)?.finish()
}

/// A build of the binary that is under way: with musl, else with the C library of this machine, linked
/// statically as well. cargo is ended when nobody waits for it any more.
pub(crate) struct Build {
    cargo: Child,
    binary: PathBuf,
}

impl Build {
    /// As it is shipped.
    fn shipped(sh: &Shell, profile: &str, roles: &str) -> Result<Self> {
        let features = ["--no-default-features", "--features", roles];
        Self::start(sh, Path::new("."), &target_folder(), profile, &features)
    }

    /// For tests.
    pub(crate) fn quick(sh: &Shell) -> Result<Self> {
        let features = ["--no-default-features", "--features", EVERYTHING];
        Self::start(sh, Path::new("."), &target_folder(), "e2e", &features)
    }

    /// The same of other sources, with whatever roles these have.
    pub(crate) fn quick_in(sh: &Shell, root: &Path) -> Result<Self> {
        // cargo takes packages of two checkouts for the same where they lie alike in them.
        Self::start(sh, root, &target_folder().join("earlier"), "e2e", &[])
    }

    fn start(
        sh: &Shell,
        root: &Path,
        folder: &Path,
        profile: &str,
        features: &[&str],
    ) -> Result<Self> {
        let musl = format!("{ARCH}-unknown-linux-musl");
        let mut cargo = Command::new("cargo");
        let (target, folder) = match has_musl(sh, &musl) {
            Ok(()) => (musl, folder.to_owned()),
            Err(why) => {
                let gnu = format!("{ARCH}-unknown-linux-gnu");
                eprintln!(
                    "{why:#}.\nUsing {gnu}, linked statically: good for tests, not for a release."
                );
                cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
                // Its own folder: other flags would build everything anew each time.
                (gnu, folder.join("static"))
            }
        };
        let folder = std::path::absolute(folder)?;
        // What cargo told whoever started this would have it build anew what looks at that.
        for (name, _) in std::env::vars_os() {
            let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_"];
            let name = name.to_string_lossy();
            if of_package.iter().any(|start| name.starts_with(start)) {
                cargo.env_remove(&*name);
            }
        }
        cargo
            .args(["build", "--locked", "--package", "bitts"])
            .args(["--profile", profile])
            .args(QUICK.iter().flat_map(|setting| ["--config", setting]))
            .args(features)
            .args(["--target", &target])
            .env("CARGO_TARGET_DIR", &folder)
            .current_dir(root)
            .stdin(Stdio::null());
        Ok(Self {
            cargo: cargo.spawn().context("cannot start cargo")?,
            binary: folder.join(target).join(profile).join("bitts"),
        })
    }

    /// Waits for it; gives the binary's path.
    pub(crate) fn finish(&mut self) -> Result<PathBuf> {
        let status = self.cargo.wait()?;
        ensure!(status.success(), "the binary was not built ({status})");
        Ok(self.binary.clone())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // One that ended by itself is no error.
        let _ = self.cargo.kill();
        let _ = self.cargo.wait();
    }
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

/// The image of the agent: one file, and Debian's programs that it calls with the libraries that those
/// load, as they are on this machine.
pub(crate) fn agent(sh: &Shell, binary: &Path, archive: &Path, name: &str) -> Result<()> {
    let tree = sh.create_temp_dir()?;
    sh.copy_file(binary, tree.path())?;
    for (file, package) in HELPERS {
        let file = Path::new(file);
        ensure!(
            file.exists(),
            "{} belongs into the agent's image: get it with `apt-get install {package}`",
            file.display()
        );
        add(sh, tree.path(), file)?;
        for library in libraries(sh, file)? {
            add(sh, tree.path(), &library)?;
        }
    }
    // Who runs it is root: it mounts.
    write(
        sh,
        tree.path(),
        archive,
        name,
        &json!({"Entrypoint": ["/bitts"]}),
    )
}

/// Copies a file of this machine to its place in the tree.
fn add(sh: &Shell, tree: &Path, file: &Path) -> Result<()> {
    let place = tree.join(file.strip_prefix("/")?);
    sh.create_dir(place.parent().unwrap_or(tree))?;
    Ok(sh.copy_file(file, place)?)
}

/// What a program loads; nothing where it is no program.
fn libraries(sh: &Shell, program: &Path) -> Result<BTreeSet<PathBuf>> {
    let said = cmd!(sh, "ldd {program}")
        .quiet()
        .ignore_status()
        .ignore_stderr();
    let said = said.read().context("no ldd")?;
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
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
