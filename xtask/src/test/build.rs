//! What the compiler, clippy, rustfmt and rustdoc say.

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use super::Report;
use crate::workspace::Workspace;

pub(super) fn fmt() -> Result<Report> {
    let sh = Shell::new()?;
    cmd!(sh, "cargo fmt --all -- --check -l")
        .run()
        .context("`cargo fmt --all` mends these files")?;
    Ok(Report::default())
}

pub(super) fn clippy() -> Result<Report> {
    let sh = Shell::new()?;
    cmd!(
        sh,
        "cargo clippy --workspace --all-targets --keep-going --locked -- --deny warnings"
    )
    .run()?;
    Ok(Report::default())
}

/// Building the workspace as a whole switches on every feature that any crate asks for, so a crate
/// that forgot one is found out only by itself.
pub(super) fn alone(workspace: &Workspace) -> Result<Report> {
    let sh = Shell::new()?;
    let mut builds = 0;
    let mut failed = Vec::new();
    for (name, package) in &workspace.packages {
        for features in package.feature_sets() {
            let features = features.join(",");
            // Clippy and not check: it refuses warnings without rebuilding the dependencies.
            let build = cmd!(
                sh,
                "cargo clippy --package {name} --no-default-features --features {features} --locked -- --deny warnings"
            );
            builds += 1;
            if build.run().is_err() {
                failed.push(format!("{name} with features [{features}]"));
            }
        }
    }
    ensure!(
        failed.is_empty(),
        "does not build alone: {}",
        failed.join("; ")
    );
    Ok(Report {
        note: format!("{builds} builds"),
        ..Report::default()
    })
}

pub(super) fn docs() -> Result<Report> {
    let sh = Shell::new()?;
    let _warnings = sh.push_env("RUSTDOCFLAGS", "--deny warnings");
    cmd!(sh, "cargo doc --workspace --no-deps --locked").run()?;
    Ok(Report::default())
}

/// `SIM_LIVES` lives, or ten thousand.
pub(super) fn lives() -> Result<Report> {
    let sh = Shell::new()?;
    let lives = std::env::var("SIM_LIVES").unwrap_or_else(|_| "10000".to_owned());
    cmd!(
        sh,
        "cargo test --locked --profile lives --package bitts-sim --tests"
    )
    .env("SIM_LIVES", &lives)
    .run()?;
    Ok(Report {
        note: format!("{lives} lives"),
        ..Report::default()
    })
}
