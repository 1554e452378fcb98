//! `cargo xtask bench`: how fast the binding machine decides.

use anyhow::Result;
use xshell::{Shell, cmd};

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to criterion, e.g. the name of one bench or `--save-baseline NAME`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    criterion: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let criterion = args.criterion;
    let sh = Shell::new()?;
    cmd!(
        sh,
        "cargo bench --package bitts-binder --benches -- {criterion...}"
    )
    .run()?;
    Ok(())
}
