//! What is done now, how long each step took, and whether somebody pressed Ctrl-C.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
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

/// Ctrl-C ends the program that runs now, as it always does, but not this one, which cleans up.
pub(crate) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    pub(crate) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, flag.clone()).context("cannot watch for Ctrl-C")?;
        }
        Ok(Self(flag))
    }

    /// Whether it happened; what follows runs undisturbed.
    pub(crate) fn clear(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
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
