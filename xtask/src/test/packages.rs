//! Programs that builds and tests need and that Debian has packages for.

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::{Report, Skip};

struct Program {
    name: &'static str,
    package: &'static str,
    needed_for: &'static str,
}

const PROGRAMS: [Program; 13] = [
    Program {
        name: "cc",
        package: "gcc",
        needed_for: "building the TLS library",
    },
    Program {
        name: "setpriv",
        package: "util-linux",
        needed_for: "running the demo as a user who is not root",
    },
    real_nfs("linux.uml", "user-mode-linux"),
    real_nfs("modprobe", "kmod"),
    real_nfs("ip", "iproute2"),
    real_nfs("iptables-legacy", "iptables"),
    real_nfs("mount.nfs", "nfs-common"),
    real_nfs("rpcbind", "rpcbind"),
    real_nfs("rpc.nfsd", "nfs-kernel-server"),
    devices("losetup", "mount"),
    devices("mke2fs", "e2fsprogs"),
    devices("dmsetup", "dmsetup"),
    devices("mkfs.xfs", "xfsprogs"),
];

const fn devices(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        needed_for: "making and checking file systems, in user-mode Linux",
    }
}

const fn real_nfs(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        needed_for: "mounting from a real NFS server, in user-mode Linux",
    }
}

pub(super) fn install() -> Result<Report> {
    let sh = Shell::new()?;
    let missing: Vec<&Program> = PROGRAMS
        .iter()
        .filter(|program| !is_there(&sh, program.name))
        .collect();
    if missing.is_empty() {
        return Ok(Report {
            note: "all there".to_owned(),
            ..Report::default()
        });
    }
    if is_root(&sh)? && is_there(&sh, "apt-get") {
        let packages = missing.iter().map(|program| program.package);
        let _quiet = sh.push_env("DEBIAN_FRONTEND", "noninteractive");
        cmd!(sh, "apt-get update --quiet").run()?;
        cmd!(
            sh,
            "apt-get install --yes --quiet --no-install-recommends {packages...}"
        )
        .run()
        .context("a package could not be installed")?;
        return Ok(Report::default());
    }
    let skipped = missing.iter().map(
        |Program {
             name,
             package,
             needed_for,
         }| Skip {
            reason: format!("{needed_for}: no `{name}` here; as root `apt-get install {package}`"),
            excused: false,
        },
    );
    Ok(Report {
        note: String::new(),
        skipped: skipped.collect(),
    })
}

fn is_there(sh: &Shell, program: &str) -> bool {
    let find = cmd!(sh, "sh -c 'command -v \"$0\"' {program}");
    find.quiet().ignore_stdout().ignore_stderr().run().is_ok()
}

fn is_root(sh: &Shell) -> Result<bool> {
    Ok(cmd!(sh, "id --user").quiet().read()? == "0")
}
