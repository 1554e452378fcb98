//! The NFS server as a container on kind's network, and its busybox for the image of pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

use super::progress::output;
use super::{FOLDER, pods};
use crate::image;

const SERVER: &str = "bitts-e2e-nfs";
const NETWORK: &str = "kind";
const SOURCE: &str = "e2e/nfs-server";
/// What the Dockerfile starts from, and what stands in where that cannot be pulled.
const BASE: &str = "debian:bookworm-slim";
const OWN_BASE: &str = "bitts-e2e-debian:bookworm";

/// Builds the image, unless it was built from the same files.
pub(crate) fn image(sh: &Shell) -> Result<String> {
    let files = ["Dockerfile", "ganesha.conf", "start"];
    let mut digest = String::new();
    for file in files {
        digest.push_str(&image::sha256(sh, &Path::new(SOURCE).join(file))?[..8]);
    }
    let name = format!("{SERVER}:{digest}");
    if output(cmd!(sh, "docker image inspect {name}")).is_ok() {
        return Ok(name);
    }
    let base = base(sh)?;
    output(cmd!(
        sh,
        "docker build --tag {name} --build-arg BASE={base} {SOURCE}"
    ))?;
    Ok(name)
}

fn base(sh: &Shell) -> Result<&'static str> {
    let has = |image: &str| output(cmd!(sh, "docker image inspect {image}")).is_ok();
    if has(BASE) {
        return Ok(BASE);
    }
    if has(OWN_BASE) {
        return Ok(OWN_BASE);
    }
    let Err(pull) = output(cmd!(sh, "docker pull {BASE}")) else {
        return Ok(BASE);
    };
    if cmd!(sh, "debootstrap --version").quiet().output().is_err() {
        bail!(
            "{BASE} cannot be pulled. Without it the image is made from Debian packages, by root with \
             `apt-get install debootstrap`. {pull:#}"
        );
    }
    let packages = packages()?.join(",");
    let root = std::path::absolute(Path::new(FOLDER).join("debian"))?;
    sh.remove_path(&root)?;
    output(cmd!(
        sh,
        "debootstrap --variant=minbase --include={packages} bookworm {root}"
    ))
    .context("debootstrap must run as root")?;
    let import = "tar --directory \"$1\" --create . | docker import - \"$2\"";
    output(cmd!(sh, "sh -euc {import} sh {root} {OWN_BASE}"))?;
    sh.remove_path(&root)?;
    Ok(OWN_BASE)
}

/// What the Dockerfile installs.
fn packages() -> Result<Vec<String>> {
    let file = fs::read_to_string(Path::new(SOURCE).join("Dockerfile"))?;
    let line = file
        .lines()
        .find_map(|line| line.strip_prefix("ARG PACKAGES="));
    let line = line.context("the Dockerfile names no PACKAGES")?;
    Ok(line
        .trim_matches('"')
        .split(' ')
        .map(str::to_owned)
        .collect())
}

/// Starts the server, unless it runs from this image.
pub(crate) fn start(sh: &Shell, image: &str) -> Result<()> {
    let state = "{{.State.Running}} {{.Config.Image}}";
    let runs = output(cmd!(
        sh,
        "docker container inspect --format {state} {SERVER}"
    ));
    if runs.is_ok_and(|runs| runs == format!("true {image}")) {
        return Ok(());
    }
    stop(sh)?;
    // To open files by handle, as the server does, takes both.
    let may = ["--cap-add=SYS_ADMIN", "--cap-add=DAC_READ_SEARCH"];
    output(cmd!(
        sh,
        "docker run --detach --name {SERVER} --network {NETWORK} {may...} --volume {SERVER}:/export {image}"
    ))?;
    let wait = "for i in $(seq 100); do rpcinfo -t 127.0.0.1 nfs 4 && exit; sleep .1; done; exit 1";
    output(cmd!(sh, "docker exec {SERVER} sh -c {wait}")).with_context(|| {
        let log = output(cmd!(sh, "docker logs --tail 20 {SERVER}"));
        format!(
            "the NFS server does not answer: {}",
            log.unwrap_or_default()
        )
    })?;
    Ok(())
}

/// Its address, as the nodes see it.
pub(crate) fn address(sh: &Shell) -> Result<String> {
    let format = "{{.NetworkSettings.Networks.kind.IPAddress}}";
    let address = output(cmd!(
        sh,
        "docker container inspect --format {format} {SERVER}"
    ))
    .context("the NFS server is not there: `cargo xtask e2e up`")?;
    ensure!(
        !address.is_empty(),
        "the NFS server has ended: `cargo xtask e2e up`"
    );
    Ok(address)
}

/// An archive of the image for pods. Its busybox is the server's, so that nothing more has to be fetched.
pub(crate) fn pod_image(sh: &Shell, server: &str) -> Result<PathBuf> {
    let folder = sh.create_temp_dir()?;
    let busybox = folder.path().join("busybox");
    let cat = cmd!(sh, "docker run --rm --entrypoint cat {server} /bin/busybox");
    let status = Command::from(cat)
        .stdout(fs::File::create(&busybox)?)
        .status()?;
    ensure!(status.success(), "{server} has no /bin/busybox");
    cmd!(sh, "chmod 755 {busybox}").quiet().run()?;
    let archive = Path::new(FOLDER).join("pod.tar");
    pods::image(sh, &busybox, &archive, pods::IMAGE, &["sh"])?;
    Ok(archive)
}

pub(crate) fn logs(sh: &Shell, file: &Path) -> Result<()> {
    let both = "docker logs \"$1\" 2>&1";
    let log = output(cmd!(sh, "sh -c {both} sh {SERVER}"))?;
    Ok(sh.write_file(file, log)?)
}

/// The server and its files.
pub(crate) fn stop(sh: &Shell) -> Result<()> {
    output(cmd!(sh, "docker rm --force --volumes {SERVER}"))?;
    output(cmd!(sh, "docker volume rm --force {SERVER}"))?;
    Ok(())
}
