//! A machine: user-mode Linux on the host's files, with a disk of its own. What it does is said by
//! e2e/node/init and, in its folder, by machine.conf.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

use super::network;
use crate::e2e::progress::{output, until};

const INIT: &str = "e2e/node/init";
/// What is laid over linux.uml (see there), and what is made of it.
const PTRACE: &str = "e2e/src/uml/ptrace.c";
const PRELOAD: &str = "ptrace.so";
/// Where Debian has the modules of user-mode Linux,
const MODULES: &str = "/usr/lib/uml/modules";
/// and the programs that connect pods.
pub(super) const CNI: &str = "/usr/lib/cni";
/// A file that grows to this.
const DISK: &str = "8G";
/// How long a boot may take until the machine does its work; on an idle one it is seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a machine is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Node,
    Nfs,
}

/// One of the machines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    pub(super) name: &'static str,
    pub(super) number: usize,
    pub(super) work: Work,
}

pub(super) const MACHINES: [Machine; 3] = [
    Machine {
        name: "worker-1",
        number: 1,
        work: Work::Node,
    },
    Machine {
        name: "worker-2",
        number: 2,
        work: Work::Node,
    },
    Machine {
        name: "nfs",
        number: 3,
        work: Work::Nfs,
    },
];

/// Those that take pods.
pub(super) fn nodes() -> impl Iterator<Item = Machine> {
    let all = MACHINES.into_iter();
    all.filter(|machine| machine.work == Work::Node)
}

impl Machine {
    /// A node, by its name.
    pub(super) fn node(name: &str) -> Result<Self> {
        let names: Vec<&str> = nodes().map(|node| node.name).collect();
        let found = nodes().find(|node| node.name == name);
        found.with_context(|| format!("there is no node {name}, but {}", names.join(" and ")))
    }

    /// What belongs to it on the host.
    pub(super) fn folder(self, all: &Path) -> PathBuf {
        all.join(self.name)
    }

    pub(super) fn address(self) -> String {
        network::address(self.number)
    }

    /// Lays out its folder and its disk, empty.
    pub(super) fn make(
        self,
        sh: &Shell,
        all: &Path,
        programs: &Path,
        sandbox_image: &str,
    ) -> Result<()> {
        let folder = self.folder(all);
        sh.create_dir(folder.join("images"))?;
        let drivers = drivers(sh, all)?;
        let Self { name, number, work } = self;
        let (address, pods) = (self.address(), network::pods(number));
        let (gateway, drivers) = (network::GATEWAY, drivers.display());
        let programs = programs.display();
        let role = match work {
            Work::Node => "be_node",
            Work::Nfs => "serve_nfs",
        };
        let told = format!(
            "NAME={name}\nROLE={role}\nADDRESS={address}\nGATEWAY={gateway}\nPODS={pods}\n\
             MACHINE_ID={number:032}\nDRIVERS={drivers}\nPROGRAMS={programs}\nCNI={CNI}\n\
             SANDBOX_IMAGE={sandbox_image}\n"
        );
        sh.write_file(folder.join("machine.conf"), told)?;
        let disk = folder.join("disk");
        let sparse = File::create(&disk)?;
        drop(sparse);
        output(cmd!(sh, "truncate --size={DISK} {disk}"))?;
        let lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        output(cmd!(sh, "mkfs.ext4 -q -F -E {lazy} {disk}")).map(drop)
    }

    /// Gives it power.
    pub(super) fn boot(self, all: &Path) -> Result<()> {
        let Self { name, number, work } = self;
        let folder = self.folder(all);
        let (share, umid) = (folder.display(), all.join("umid"));
        let init = std::path::absolute(INIT)?;
        let paths = [&folder, &init].map(|path: &PathBuf| path.display().to_string());
        ensure!(
            paths.iter().all(|path| !path.contains([' ', '"', ','])),
            "a path with such a character cannot be told to a kernel: {paths:?}"
        );
        let memory = match work {
            Work::Node => "1536M",
            Work::Nfs => "256M",
        };
        // What it logs goes on: a machine that lost its power has more to tell than the next boot.
        let console = folder.join("console.log");
        let console = File::options().create(true).append(true).open(&console)?;
        let mut command = Command::new("setsid");
        command
            .args(["ip", "netns", "exec", network::NAMESPACE, "env"])
            .args([
                format!("LD_PRELOAD={}", all.join(PRELOAD).display()),
                "linux.uml".to_owned(),
                format!("mem={memory}"),
                format!("umid={name}"),
                format!("uml_dir={}/", umid.display()),
                "root=/dev/root".to_owned(),
                "rootfstype=hostfs".to_owned(),
                "rootflags=/".to_owned(),
                "ro".to_owned(),
                "quiet".to_owned(),
                format!("init={}", init.display()),
                format!("ubda={share}/disk"),
                format!(
                    "eth0=tuntap,{},02:90:00:00:00:{number:02}",
                    network::device(number)
                ),
                "con=null".to_owned(),
                "con0=null,fd:1".to_owned(),
                format!("bitts_share={share}"),
            ])
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console);
        if !has_room(Path::new("/dev/shm")) {
            command.env("TMPDIR", &folder);
        }
        command.spawn().context("cannot start setsid")?;
        Ok(())
    }

    /// Cuts its power.
    pub(super) fn cut(self, sh: &Shell, all: &Path) -> Result<()> {
        network::end(sh, "KILL", &self.mark())?;
        // It says that a machine of this name runs.
        Ok(sh.remove_path(all.join("umid").join(self.name))?)
    }

    pub(super) fn has_power(self, sh: &Shell) -> bool {
        let mark = self.mark();
        network::processes(sh)
            .iter()
            .any(|(_, line)| line.contains(&mark))
    }

    /// What its command line says and no other's.
    fn mark(self) -> String {
        format!(" umid={} ", self.name)
    }

    /// Waits until it did something, which lies in its folder then.
    pub(super) fn until_there(self, sh: &Shell, all: &Path, file: &str) -> Result<()> {
        let folder = self.folder(all);
        let name = self.name;
        until(&format!("{file} of {name}"), PATIENCE, || {
            let failed = folder.join(file.replace(".loaded", ".failed"));
            if file.ends_with(".loaded") && failed.exists() {
                bail!("{name}: {}", fs::read_to_string(failed)?);
            }
            let there = folder.join(file).exists();
            if !there && !self.has_power(sh) {
                bail!(
                    "the machine {name} ended: see {}/console.log",
                    folder.display()
                );
            }
            Ok(there)
        })
    }
}

/// Makes what all machines need on the host.
pub(super) fn prepare(sh: &Shell, all: &Path) -> Result<()> {
    let library = all.join(PRELOAD);
    output(cmd!(sh, "cc -shared -fPIC -O2 {PTRACE} -o {library}")).map(drop)
}

/// The modules as modprobe looks for them.
fn drivers(sh: &Shell, all: &Path) -> Result<PathBuf> {
    let drivers = all.join("drivers");
    let modules = drivers.join("lib/modules");
    sh.create_dir(&modules)?;
    for version in sh.read_dir(MODULES)? {
        let link = modules.join(version.file_name().context("a folder has a name")?);
        if !link.exists() {
            std::os::unix::fs::symlink(&version, link)?;
        }
    }
    Ok(drivers)
}

/// Whether the machines' memory fits in here.
fn has_room(folder: &Path) -> bool {
    let free = Command::new("df")
        .args(["--output=avail", "--block-size=1G"])
        .arg(folder)
        .output();
    let free = free.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let gigabytes = free.unwrap_or_default();
    let gigabytes = gigabytes.lines().nth(1).map(str::trim).map(str::parse);
    matches!(gigabytes, Some(Ok(4_u64..)))
}
