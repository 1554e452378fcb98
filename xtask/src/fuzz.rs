//! `cargo xtask fuzz`: looks for input that breaks what must always hold, guided by coverage.
//!
//! cargo-fuzz without a sanitizer needs no nightly compiler, and there is no unsafe code that one
//! would watch.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::workspace::Workspace;

/// How long, and what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seconds each target may take.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Only these targets of fuzz/fuzz_targets.
    targets: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: Args) -> Result<()> {
    let Args {
        seconds,
        mut targets,
    } = args;
    if targets.is_empty() {
        targets = all(workspace)?;
    }
    fuzz(&targets, seconds)
}

/// The names of all targets.
pub(crate) fn all(workspace: &Workspace) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(workspace.root.join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        targets.extend(
            path.file_stem()
                .and_then(|name| Some(name.to_str()?.to_owned())),
        );
    }
    targets.sort();
    ensure!(!targets.is_empty(), "fuzz/fuzz_targets holds no target");
    Ok(targets)
}

/// Whether cargo-fuzz is there.
pub(crate) fn is_there() -> bool {
    let version = Command::new("cargo").args(["fuzz", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

/// Builds all, then runs all at once for so long.
pub(crate) fn fuzz(targets: &[String], seconds: u32) -> Result<()> {
    ensure!(
        is_there(),
        "cargo-fuzz is not there; get it with `cargo install cargo-fuzz --locked`"
    );
    let sh = Shell::new()?;
    for target in targets {
        cmd!(sh, "cargo fuzz build --sanitizer none {target}").run()?;
    }
    let runs: Vec<_> = targets
        .iter()
        .map(|target| {
            let target = target.clone();
            thread::spawn(move || run_target(&target, seconds))
        })
        .collect();
    for run in runs {
        run.join().ok().context("a thread of a target panicked")??;
    }
    Ok(())
}

fn run_target(target: &str, seconds: u32) -> Result<()> {
    // The first is where new input is kept, for the next run on this machine.
    let corpus = format!("fuzz/corpus/{target}");
    fs::create_dir_all(&corpus)?;
    let output = Command::new("cargo")
        .args(["fuzz", "run", "--sanitizer", "none", target, &corpus])
        .arg(format!("fuzz/seeds/{target}"))
        .args(["--", "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .output()
        .context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{said}\nfuzz target {target}: keep the input below fuzz/artifacts/{target} as a seed in \
         fuzz/seeds/{target}, where a test of bitts-mount runs it, and mend what it shows"
    );
    let runs = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs = runs.with_context(|| format!("fuzz target {target} ran nothing:\n{said}"))?;
    println!(
        "fuzz target {target}: {} inputs in {seconds} s",
        runs.trim()
    );
    Ok(())
}
