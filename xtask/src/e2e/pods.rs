//! The image that pods of the tests run: a busybox.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;
use xshell::{Shell, cmd};

use super::progress::output;
use crate::image;

/// Its name.
pub(crate) const IMAGE: &str = "bitts-e2e-pod:1";

/// Writes an image whose programs are all this busybox, linked statically.
pub(crate) fn image(
    sh: &Shell,
    busybox: &Path,
    archive: &Path,
    name: &str,
    command: &[&str],
) -> Result<()> {
    let tree = sh.create_temp_dir()?;
    let bin = tree.path().join("bin");
    sh.create_dir(&bin)?;
    let copy = bin.join("busybox");
    sh.copy_file(busybox, &copy)?;
    let applets = output(cmd!(sh, "{copy} --list"))
        .with_context(|| format!("{} is not busybox", busybox.display()))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    let config = json!({"Env": ["PATH=/bin"], "Cmd": command});
    image::write(sh, tree.path(), archive, name, &config)
}
