//! The guest's side: its first process, and how a case finds itself there.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::mount::MountFlags;
use rustix::process::{Pid, WaitOptions};

/// What the kernel is told and the guest finds among its variables: the case,
pub(super) const CASE: &str = "bitts_guest_case";
/// the host's folder that the guest may write,
pub(super) const SHARE: &str = "bitts_guest_share";
/// the host's folder of kernel modules,
pub(super) const MODULES: &str = "bitts_guest_modules";
/// and after how many seconds the guest ends itself.
pub(super) const LIMIT: &str = "bitts_guest_limit";

/// Where programs are.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the host's folder is seen,
pub const HOST: &str = "/mnt/host";
/// the file of it that takes what the case says,
pub const OUTPUT: &str = "output";
/// the one that says how it ended,
pub(super) const STATUS: &str = "status";
/// and the one that says how long the boot took in seconds.
pub(super) const BOOTED: &str = "booted";

/// Where a guest writes: nothing of that is on the host.
const SCRATCH: &[&str] = &["/mnt", "/run", "/srv", "/tmp", "/var/lib/nfs"];

/// In this order: each after those that it needs, which `modprobe` would find as well.
const DRIVERS: &[&str] = &["nfsv3", "nfsv4", "nfsd", "veth", "iptable_filter"];

/// Whether this is the first process of a guest.
pub(super) fn is_first_process() -> bool {
    std::process::id() == 1 && std::env::var_os(CASE).is_some()
}

/// The case to run in this process.
pub(super) fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

/// Sets the guest up, runs the case in a process of its own and turns the guest off.
pub(super) fn be_first_process() -> ! {
    if let Err(error) = set_up().and_then(|()| run_case()) {
        // Goes to the console, which the host's side quotes where there is no status.
        eprintln!("{error:#}");
    }
    rustix::fs::sync();
    let off = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    unreachable!("a guest that cannot be turned off: {off:?}")
}

fn set_up() -> anyhow::Result<()> {
    mount("proc", "/proc", "")?;
    mount("sysfs", "/sys", "")?;
    for folder in SCRATCH {
        mount("tmpfs", folder, "mode=755")?;
    }
    fs::create_dir(HOST)?;
    mount("hostfs", HOST, &variable(SHARE)?)?;
    let modules = variable(MODULES)?;
    let version = Path::new(&modules)
        .file_name()
        .context("modules of no version")?;
    fs::create_dir_all("/run/drivers/lib/modules")?;
    symlink(
        &modules,
        Path::new("/run/drivers/lib/modules").join(version),
    )?;
    run(
        "modprobe",
        &[&["-d", "/run/drivers", "-a"], DRIVERS].concat(),
    )?;
    run("ip", &["link", "set", "lo", "up"])?;
    // What mount.nfs starts for locks of version 3, statd, lives with these.
    for folder in ["sm", "sm.bak"] {
        fs::create_dir(Path::new("/var/lib/nfs").join(folder))?;
    }
    run("rpcbind", &[])
}

fn run_case() -> anyhow::Result<()> {
    let host = Path::new(HOST);
    let uptime = fs::read_to_string("/proc/uptime")?;
    let booted = uptime.split(' ').next().unwrap_or_default();
    fs::write(host.join(BOOTED), booted)?;
    let output = File::create(host.join(OUTPUT))?;
    let limit = Duration::from_secs(variable(LIMIT)?.parse()?);
    let start = Instant::now();
    let case = Command::new("/proc/self/exe")
        .env("PATH", PATH)
        .env("RUST_BACKTRACE", "0")
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start the case")?;
    let case = Pid::from_raw(case.id().cast_signed()).context("no such process")?;
    let ended = loop {
        // The first process is told of the end of every one whose parent is gone.
        match rustix::process::wait(WaitOptions::NOHANG)? {
            Some((pid, status)) if pid == case => {
                break ExitStatus::from_raw(status.as_raw()).to_string();
            }
            Some(_) => continue,
            None => {}
        }
        if start.elapsed() > limit {
            break format!("no end after {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    fs::write(host.join(STATUS), ended)?;
    Ok(())
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("the kernel was not told {name}"))
}

/// Mounts a file system that has no device.
pub(super) fn mount(kind: &str, target: &str, options: &str) -> anyhow::Result<()> {
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount(kind, target, kind, MountFlags::empty(), &*options)
        .with_context(|| format!("mounting {kind} at {target}"))
}

/// Runs a program to its end.
///
/// # Errors
/// With what it said, when it fails.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(program)
        .args(arguments)
        .env("PATH", PATH)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status: ExitStatus = done.status;
    ensure!(
        status.success(),
        "{program} {arguments:?}: {status}\n{}{}",
        text(&done.stdout),
        text(&done.stderr)
    );
    Ok(())
}
