//! What is done now, how long each step took, and whether somebody pressed Ctrl-C.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use xshell::Cmd;

/// How much of what a failed program said is quoted.
const QUOTED: usize = 30;

/// What was done, and the time that it took.
pub(crate) struct Progress {
    start: Instant,
    took: Vec<(String, Duration)>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
            took: Vec::new(),
        }
    }

    /// Does something that is told and timed.
    pub(crate) fn during<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let since = start - self.start;
        eprintln!("[{:6.1} s] {what}", since.as_secs_f32());
        let result = work().with_context(|| format!("while: {what}"));
        self.took.push((what.to_owned(), start.elapsed()));
        result
    }

    pub(crate) fn summary(&self) {
        eprintln!();
        for (what, took) in &self.took {
            eprintln!("{:8.1} s  {what}", took.as_secs_f32());
        }
        eprintln!("{:8.1} s  all", self.start.elapsed().as_secs_f32());
    }
}

/// Whether somebody pressed Ctrl-C and nobody asked yet.
static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on Ctrl-C ends the program that runs now, as it always does, but not this one, which
/// cleans up.
pub(crate) fn survive_interrupts() -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, INTERRUPTED.clone()).context("cannot watch for Ctrl-C")?;
    }
    Ok(())
}

/// Whether it happened; what follows runs undisturbed.
pub(crate) fn clear_interrupt() -> bool {
    INTERRUPTED.swap(false, Ordering::Relaxed)
}

/// Waits until something is so, looking often.
pub(crate) fn until(
    what: &str,
    patience: Duration,
    mut is: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !is()? {
        ensure!(
            !INTERRUPTED.load(Ordering::Relaxed),
            "interrupted while waiting for: {what}"
        );
        ensure!(
            start.elapsed() < patience,
            "waited {} s in vain for: {what}",
            patience.as_secs()
        );
        sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// What a program prints; when it fails, the end of all that it said.
pub(crate) fn output(command: Cmd<'_>) -> Result<String> {
    let text = command.to_string();
    let mut command = Command::from(command);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{text}`"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().chain(errors.lines()).collect();
        let end = &lines[lines.len().saturating_sub(QUOTED)..];
        bail!("`{text}` ended with {}:\n{}", output.status, end.join("\n"));
    }
    Ok(said.trim_end().to_owned())
}
