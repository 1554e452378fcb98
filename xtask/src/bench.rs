//! `cargo xtask bench`: how fast the binding machine decides, and how much memory it takes.

use anyhow::Result;
use xshell::{Shell, cmd};

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many claims are bound to as many volumes in the run that shows time and memory in all.
    #[arg(long, default_value_t = 100_000)]
    pairs: u32,
    /// Passed on to criterion, e.g. the name of one bench or `--save-baseline NAME`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    criterion: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let Args { pairs, criterion } = args;
    let pairs = pairs.to_string();
    let sh = Shell::new()?;
    cmd!(
        sh,
        "cargo bench --package bitts-binder --no-default-features --bench '*' -- {criterion...}"
    )
    .run()?;
    cmd!(sh, "cargo run --release --package bitts-binder --no-default-features --example bind_many -- {pairs}")
        .run()?;
    Ok(())
}
