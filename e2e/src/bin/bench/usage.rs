//! What a process took, as the kernel counts it.

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{Process, all_processes};

/// A running program.
pub(crate) struct Running(Process);

impl Running {
    /// The one process whose program has this name and whose arguments have this one among them.
    pub(crate) fn find(name: &str, argument: &str) -> Result<Self> {
        let found = all_processes()?.flatten().find(|process| {
            // One that just ended has none.
            let line = process.cmdline().unwrap_or_default();
            let program = line.first().is_some_and(|path| path.ends_with(name));
            program && line.iter().any(|one| one == argument)
        });
        found
            .map(Self)
            .with_context(|| format!("no process {name} {argument}"))
    }

    /// The processes that it started, as far as they run.
    pub(crate) fn children(&self) -> Result<Vec<Self>> {
        let all = all_processes()?.flatten();
        let own = all.filter(|one| one.stat().is_ok_and(|stat| stat.ppid == self.0.pid()));
        Ok(own.map(Self).collect())
    }

    /// Holds it until [`Running::go_on`].
    pub(crate) fn stop(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.0.pid()), Signal::SIGSTOP)?)
    }

    pub(crate) fn go_on(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.0.pid()), Signal::SIGCONT)?)
    }

    /// What follows `flag` among its arguments.
    pub(crate) fn argument(&self, flag: &str) -> Result<String> {
        let line = self.0.cmdline()?;
        let value = line.iter().find_map(|one| one.strip_prefix(flag));
        Ok(value.with_context(|| format!("no {flag}"))?.to_owned())
    }

    /// The CPU time that it used so far, in ms.
    pub(crate) fn cpu_ms(&self) -> Result<f64> {
        let stat = self.0.stat()?;
        let ticks = stat.utime + stat.stime;
        Ok(ticks as f64 * 1000.0 / procfs::ticks_per_second() as f64)
    }

    /// The most memory that it ever had, in MB of 10^6 bytes.
    pub(crate) fn peak_mb(&self) -> Result<f64> {
        let peak = self.0.status()?.vmhwm.context("no VmHWM")?;
        Ok(peak as f64 * 1024.0 / 1e6)
    }

    /// The memory that it has now, in MB of 10^6 bytes.
    pub(crate) fn held_mb(&self) -> Result<f64> {
        let held = self.0.status()?.vmrss.context("no VmRSS")?;
        Ok(held as f64 * 1024.0 / 1e6)
    }

    /// The part of it that is pages of files: the program itself, which others share.
    pub(crate) fn held_of_files_mb(&self) -> Result<f64> {
        let held = self.0.status()?.rssfile.context("no RssFile")?;
        Ok(held as f64 * 1024.0 / 1e6)
    }

    /// How often its threads that are there now went to sleep by themselves so far.
    pub(crate) fn woken(&self) -> Result<u64> {
        let tasks = self.0.tasks()?.flatten();
        // One that ended meanwhile is not there any more.
        let statuses = tasks.filter_map(|task| task.status().ok());
        Ok(statuses
            .filter_map(|status| status.voluntary_ctxt_switches)
            .sum())
    }
}

/// The share of the machine that others used in the last minute, as `uptime` tells it.
pub(crate) fn load() -> Result<f64> {
    use procfs::Current as _;
    Ok(f64::from(procfs::LoadAverage::current()?.one))
}
