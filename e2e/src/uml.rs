//! Tests in a Linux of their own: user-mode Linux, a kernel that runs as a program.
//!
//! It has what the machine's kernel may lack (an NFS client and server), and whatever a test leaves
//! in it, hung mounts included, is gone with it. Nobody has to be root for that.
//!
//! A guest is the test program once more: its first process ([`guest`]), then the case itself, as
//! root. It sees the host's files read-only and has tmpfs where it writes. [`server`] makes NFS
//! servers in it, each in a network of its own.
//!
//! ```no_run
//! use bitts_e2e::uml::{self, Case};
//!
//! const CASES: &[Case] = &[("the_kernel_is_another", || {
//!     anyhow::ensure!(std::fs::read_to_string("/proc/cpuinfo")?.contains("User Mode Linux"));
//!     Ok(())
//! })];
//!
//! fn main() -> std::process::ExitCode {
//!     uml::main(CASES)
//! }
//! ```

pub mod guest;
pub mod server;

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use libtest_mimic::{Arguments, Trial};

/// A case: its name, and what it does in its guest.
pub type Case = (&'static str, fn() -> anyhow::Result<()>);

/// The memory of a guest that runs a test.
const MEGABYTES: u64 = 384;
/// How long a test may take, boot included. The guest ends itself then.
const LIMIT: Duration = Duration::from_secs(150);
/// How much longer for each kill that a kill suite is asked for,
const LONGER: Duration = Duration::from_secs(10);
/// with the first of these variables, which the guest has from the host.
const KILLS: &str = "BITTS_E2E_KILLS";
const PASSED: &[&str] = &[KILLS, "BITTS_E2E_SEED"];
/// Where Debian has the modules of user-mode Linux.
const MODULES: &str = "/usr/lib/uml/modules";
/// What the guest's kernel says.
const CONSOLE: &str = "console";
/// What linux.uml does not know of today's processors (see there).
const PTRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/uml/ptrace.c");

/// What the guests need, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("linux.uml", "user-mode-linux"),
    ("modprobe", "kmod"),
    ("ip", "iproute2"),
    ("iptables-legacy", "iptables"),
    ("mount.nfs", "nfs-common"),
    ("rpcbind", "rpcbind"),
    ("rpcinfo", "rpcbind"),
    ("rpc.mountd", "nfs-kernel-server"),
    ("rpc.nfsd", "nfs-kernel-server"),
    ("nfsdcld", "nfs-kernel-server"),
    ("exportfs", "nfs-kernel-server"),
    ("blkid", "util-linux"),
    ("mount", "mount"),
    ("mke2fs", "e2fsprogs"),
    ("dmsetup", "dmsetup"),
    ("mkfs.xfs", "xfsprogs"),
];

/// Runs "$@" and ends it when standard input closes, which the kernel sees to however the tests end: all of
/// this shell's process group and of the session that a guest's processes make for themselves.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- & guest=$!
{ read -r _; kill -9 -$guest; kill -9 0; } <&3 & guard=$!
wait $guest
kill $guard 2>/dev/null
"#;

/// The `main` of a test program whose cases each run in a guest of their own.
///
/// Where guests cannot be had, the cases count as ignored and what is missing is said.
pub fn main(cases: &'static [Case]) -> ExitCode {
    if let Some(ended) = guest_part(cases) {
        return ended;
    }
    let arguments = Arguments::from_args();
    let missing = missing();
    if let Some(missing) = &missing {
        eprintln!("skipped: tests in user-mode Linux: {missing}");
    }
    let trials = cases.iter().map(|(name, _)| {
        let run = move || Ok(run_in_guest(name).map_err(|error| format!("{error:#}"))?);
        Trial::test(format!("uml::{name}"), run).with_ignored_flag(missing.is_some())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// What a program does in a guest that it booted: the `main` of one that boots any begins with this.
/// `None` on the host.
#[must_use]
pub fn guest_part(cases: &[Case]) -> Option<ExitCode> {
    if guest::is_first_process() {
        guest::be_first_process();
    }
    if let Some(served) = server::be_server_if_asked() {
        return Some(exit_code(served));
    }
    guest::case().map(|name| run_here(cases, &name))
}

fn run_here(cases: &[Case], name: &str) -> ExitCode {
    let Some((_, case)) = cases.iter().find(|(known, _)| *known == name) else {
        eprintln!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    exit_code(case())
}

fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What keeps this machine from running guests, and what to do about it.
#[must_use]
pub fn missing() -> Option<String> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| program_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if !cfg!(target_arch = "x86_64") {
        return Some("Debian has it for x86-64 only".to_owned());
    }
    (!packages.is_empty()).then(|| format!("as root `apt-get install {}`", packages.join(" ")))
}

fn program_path(name: &str) -> Option<PathBuf> {
    guest::PATH
        .split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

fn run_in_guest(case: &str) -> anyhow::Result<()> {
    let passed = |name: &&'static str| Some((*name, std::env::var(name).ok()?));
    let guest = Guest {
        megabytes: MEGABYTES,
        limit: limit()?,
        variables: PASSED.iter().filter_map(passed).collect(),
        device: None,
    };
    let folder = tempfile::Builder::new().prefix("bitts-uml-").tempdir()?;
    let start = Instant::now();
    let ended = guest.boot(case, folder.path()).and_then(Booted::wait);
    let read = |name| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let (took, booted) = (start.elapsed().as_secs_f64(), read(guest::BOOTED));
    let output = read(guest::OUTPUT);
    println!("uml::{case}: {took:.1} s, of which boot {booted} s\n{output}");
    ended.map_err(|why| anyhow::anyhow!("{why:#}\n{output}"))
}

/// What a guest is given.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its memory.
    pub megabytes: u64,
    /// How long the case may take, boot included. The guest ends itself then.
    pub limit: Duration,
    /// Variables of the case; a value has no space.
    pub variables: Vec<(&'static str, String)>,
    /// The host's tap device that is its `eth0`.
    pub device: Option<&'static str>,
}

impl Guest {
    /// Boots it for a case of this program, in a folder that is the guest's `/mnt/host` and has what the case
    /// says in its file `output` from the beginning.
    ///
    /// # Errors
    /// When it cannot be booted.
    pub fn boot(&self, case: &str, shared: &Path) -> anyhow::Result<Booted> {
        let modules = newest(Path::new(MODULES))?;
        let program = std::env::current_exe()?;
        let paths = [&modules, &program, shared].map(|path: &Path| path.display().to_string());
        ensure!(
            paths.iter().all(|path| !path.contains([' ', '"'])),
            "a path with a space cannot be told to a kernel: {paths:?}"
        );
        let [modules, program, share] = paths;
        let console = File::create(shared.join(CONSOLE))?;
        let preload = format!("LD_PRELOAD={}", ptrace(shared)?.display());
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guest"]).args([
            "env".to_owned(),
            preload,
            "linux.uml".to_owned(),
            format!("mem={}M", self.megabytes),
            "umid=guest".to_owned(),
            format!("uml_dir={share}/"),
            "root=/dev/root rootfstype=hostfs rootflags=/ ro quiet".to_owned(),
            "con=null".to_owned(),
            "con0=null,fd:1".to_owned(),
            format!("init={program}"),
            format!("{}={case}", guest::CASE),
            format!("{}={share}", guest::SHARE),
            format!("{}={modules}", guest::MODULES),
            format!("{}={}", guest::LIMIT, self.limit.as_secs()),
        ]);
        if let Some(device) = self.device {
            command.arg(format!("eth0=tuntap,{device}"));
        }
        for (name, value) in &self.variables {
            command.arg(format!("{name}={value}"));
        }
        command
            .env("PATH", guest::PATH)
            .stdin(Stdio::piped())
            .stdout(console.try_clone()?)
            .stderr(console)
            .process_group(0);
        if !self.fits_in(Path::new("/dev/shm")) {
            command.env("TMPDIR", shared);
        }
        let mut guard = command.spawn().context("cannot start a shell")?;
        let open = guard.stdin.take();
        let shared = shared.to_owned();
        Ok(Booted {
            guard,
            open,
            shared,
        })
    }

    /// Whether there is room for its memory.
    fn fits_in(&self, folder: &Path) -> bool {
        rustix::fs::statvfs(folder)
            .is_ok_and(|stat| stat.f_bavail * stat.f_frsize > 2 * self.megabytes * 1024 * 1024)
    }
}

/// A guest that runs; it is ended when this is dropped.
#[derive(Debug)]
pub struct Booted {
    guard: Child,
    /// Closing it ends the guest.
    open: Option<ChildStdin>,
    shared: PathBuf,
}

impl Booted {
    /// Waits until its case ended.
    ///
    /// # Errors
    /// When the case failed.
    pub fn wait(mut self) -> anyhow::Result<()> {
        let ended = self.guard.wait()?;
        match fs::read_to_string(self.shared.join(guest::STATUS)) {
            Ok(text) => ensure!(text == "exit status: 0", "{text}"),
            Err(_) => {
                let console = fs::read(self.shared.join(CONSOLE)).unwrap_or_default();
                let console = String::from_utf8_lossy(&console);
                bail!("the guest ended without a word ({ended})\nconsole:\n{console}")
            }
        }
        Ok(())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.guard.try_wait()
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        drop(self.open.take());
        // One that ended by itself is no error.
        let _ = self.guard.wait();
    }
}

/// Compiles what is laid over linux.uml.
fn ptrace(shared: &Path) -> anyhow::Result<PathBuf> {
    let library = shared.join("ptrace.so");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", PTRACE, "-o"])
        .arg(&library)
        .output()
        .context("no C compiler")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cc: {said}");
    Ok(library)
}

fn limit() -> anyhow::Result<Duration> {
    let more: u32 = match std::env::var(KILLS) {
        Ok(text) => text.parse().context(KILLS)?,
        Err(_) => 0,
    };
    Ok(LIMIT + LONGER * more)
}

fn newest(folder: &Path) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.max().context("no modules of user-mode Linux")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a guest's processes do, it makes a session of its own.
    #[test]
    fn a_guest_ends_with_who_booted_it() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let id = folder.path().join("id");
        let script = format!("echo $$ >{}; exec sleep 100", id.display());
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guest", "setsid", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let start = std::time::Instant::now();
        let running = loop {
            let text = fs::read_to_string(&id).unwrap_or_default();
            if text.ends_with('\n') {
                break Path::new("/proc").join(text.trim());
            }
            ensure!(
                start.elapsed() < Duration::from_secs(30),
                "it did not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        ensure!(running.exists());
        drop(guard.stdin.take());
        guard.wait()?;
        while running.exists() {
            ensure!(start.elapsed() < Duration::from_secs(60), "it stays");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
