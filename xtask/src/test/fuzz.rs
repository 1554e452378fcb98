//! The fuzz targets, for a moment each.

use anyhow::{Context as _, Result};

use super::{Report, Skip};
use crate::fuzz;
use crate::workspace::Workspace;

/// How many seconds, where the variable `FUZZ_SECONDS` does not say; CI takes twenty.
const SECONDS: u32 = 10;

pub(super) fn run(workspace: &Workspace) -> Result<Report> {
    if !fuzz::is_there() {
        let skip = Skip {
            reason: "fuzz targets: cargo-fuzz is not there; get it with \
                     `cargo install cargo-fuzz --locked`"
                .to_owned(),
            excused: false,
        };
        return Ok(Report {
            skipped: vec![skip],
            ..Report::default()
        });
    }
    let seconds = match std::env::var("FUZZ_SECONDS") {
        Ok(text) => text.parse().context("FUZZ_SECONDS is no number")?,
        Err(_) => SECONDS,
    };
    let targets = fuzz::all(workspace)?;
    fuzz::fuzz(&targets, seconds)?;
    Ok(Report {
        note: format!("{} for {seconds} s", targets.join(" and ")),
        ..Report::default()
    })
}
