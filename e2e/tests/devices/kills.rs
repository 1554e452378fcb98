//! Formats that are killed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_mount::device::{self, Contents, Device, DeviceError, FsType, Kind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{Disk, MIB, PATIENCE, Place, sum};

/// Makes this program format the device that the variable names and end.
const FORMATTER: &str = "bitts_guest_formatter";

pub(crate) fn be_formatter_if_asked() -> Option<ExitCode> {
    let text = std::env::var(FORMATTER).ok()?;
    let (path, fs) = text.split_once(' ')?;
    let device = Device::open(path.as_ref()).ok()?;
    let formatted = device::format(&device, FsType::named(fs)?, PATIENCE);
    Some(if formatted.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn formatter(disk: &Disk, fs: FsType) -> anyhow::Result<Child> {
    let path = disk.device.path().display();
    Command::new("/proc/self/exe")
        .env(FORMATTER, format!("{path} {fs}"))
        .spawn()
        .context("cannot start a formatter")
}

/// Amendment 12, issue 5: whenever a format is killed, the next one ends it, and none that was used
/// is formatted again.
pub(crate) fn a_killed_ext4_format_is_taken_up() -> anyhow::Result<()> {
    killed_formats(FsType::Ext4, 64 * MIB, 14)
}

/// The same of XFS.
pub(crate) fn a_killed_xfs_format_is_taken_up() -> anyhow::Result<()> {
    killed_formats(FsType::Xfs, 320 * MIB, 12)
}

fn killed_formats(fs: FsType, size: u64, times: u32) -> anyhow::Result<()> {
    let disk = Disk::new(size)?;
    let mut first = formatter(&disk, fs)?;
    let begun = wait_for_mark(&disk, &mut first)?;
    let start = Instant::now();
    ensure!(first.wait()?.success());
    let rest = start.elapsed();
    disk.ensure_carries(fs)?;
    disk.remove()?;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for time in 0..times {
        let disk = Disk::new(size)?;
        // Somewhere in a format that began to write, then anywhere in one that takes it up.
        let mut begins = formatter(&disk, fs)?;
        wait_for_mark(&disk, &mut begins)?;
        kill_at(begins, rest * time / times)?;
        *seen.entry(state(&disk)?).or_default() += 1;
        let moment = (begun + rest) * ((time * 7) % times) / times;
        kill_at(formatter(&disk, fs)?, moment)?;
        *seen.entry(state(&disk)?).or_default() += 1;
        ensure_whole(&disk, fs)?;
        disk.remove()?;
    }
    println!("{rest:?} after {begun:?} each; after a kill: {seen:?}");
    ensure!(seen.contains_key("interrupted"), "{seen:?}");
    Ok(())
}

/// Waits until the formatter wrote its first byte, or ended; for how long that was.
fn wait_for_mark(disk: &Disk, formatter: &mut Child) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let places = [0, MIB - 4096];
    let mut byte = [0];
    while formatter.try_wait()?.is_none() {
        for place in places {
            disk.file.read_exact_at(&mut byte, place)?;
            if byte != [0] {
                return Ok(start.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(start.elapsed())
}

fn state(disk: &Disk) -> anyhow::Result<&'static str> {
    Ok(match disk.identify()? {
        Contents::Blank => "blank",
        Contents::Interrupted => "interrupted",
        Contents::Filesystem(_) => "filesystem",
        Contents::Foreign(what) => anyhow::bail!("a killed format left {what}"),
    })
}

/// Kills it with all that it started.
fn kill_at(mut formatter: Child, moment: Duration) -> anyhow::Result<()> {
    std::thread::sleep(moment);
    // All but this process and the guest's first.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    formatter.wait()?;
    Ok(())
}

/// It can be formatted, mounted and written; then no format, killed or not, changes it.
fn ensure_whole(disk: &Disk, fs: FsType) -> anyhow::Result<()> {
    let place = Place::new()?;
    place.stage(disk, fs, "")?;
    let file = place.path.join("file");
    fs::write(&file, vec![7; 300_000])?;
    let before = sum(&file)?;
    place.unmount()?;
    let error = disk.format(fs).err().context("it was formatted again")?;
    ensure!(error.kind == Kind::NotBlank, "{error}");
    place.stage(disk, fs, "")?;
    ensure!(sum(&file)? == before, "the file is another");
    place.unmount()
}

/// Who comes after a killed agent, whose format goes on, is told so and then finds it done.
pub(crate) fn an_orphaned_format_is_waited_for() -> anyhow::Result<()> {
    let mut busy = 0;
    for time in 0..8_u32 {
        let disk = Disk::new(64 * MIB)?;
        let mut agent = formatter(&disk, FsType::Ext4)?;
        if time % 2 == 0 {
            std::thread::sleep(Duration::from_millis(u64::from(time) * 30));
        } else {
            wait_for_mark(&disk, &mut agent)?;
        }
        // What it started is frozen, and it is dead.
        kill(Pid::from_raw(-1), Signal::SIGSTOP)?;
        agent.kill()?;
        agent.wait()?;
        let first = disk.format(FsType::Ext4);
        busy += u32::from(first.as_ref().is_err_and(|e| e.kind == Kind::Busy));
        kill(Pid::from_raw(-1), Signal::SIGCONT)?;
        let start = Instant::now();
        let mut done = first;
        while let Err(error) = &done
            && error.kind == Kind::Busy
            && start.elapsed() < PATIENCE
        {
            done = disk.format(FsType::Ext4);
        }
        let is_done = |e: &DeviceError| e.kind == Kind::NotBlank;
        ensure!(done.as_ref().err().is_none_or(is_done), "{done:?}");
        ensure_whole(&disk, FsType::Ext4)?;
        disk.remove()?;
    }
    ensure!(busy > 0, "no format was met");
    println!("busy {busy} times");
    Ok(())
}
