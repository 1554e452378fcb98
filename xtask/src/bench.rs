//! `cargo xtask bench`: roles on a real API server, and the machine that decides alone.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::image;

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// How fast the binding machine decides, and how much memory it takes.
    Matching(Matching),
    /// Attach the volumes of many pods: bitts, the stock pair, and a client that does only the writes.
    #[command(disable_help_flag = true)]
    Attach(Passed),
    /// Bind many claims: bitts, kube-controller-manager, and a client that does only the writes.
    #[command(disable_help_flag = true)]
    Bind(Passed),
    /// How soon a claim is bound whose volume comes after it.
    #[command(disable_help_flag = true)]
    LateVolume(Passed),
    /// What bitts asks of an API server on which nothing happens.
    #[command(disable_help_flag = true)]
    Idle(Passed),
    /// The image of the cluster's roles: its size, how soon each is ready, its memory at rest.
    #[command(disable_help_flag = true)]
    Image(Passed),
    /// What another client of the API server feels while claims are bound.
    #[command(disable_help_flag = true)]
    Neighbour(Passed),
    /// Mount the volumes of many pods at once: the agent, one child for each, and bare system calls.
    #[command(disable_help_flag = true)]
    Mount(Passed),
    /// Make volumes for many claims: bitts, the stock library, and a client that does nothing else.
    #[command(disable_help_flag = true)]
    Provision(Passed),
    /// What each form of each write costs the API server.
    #[command(disable_help_flag = true)]
    Writes(Passed),
}

/// Passed on to the bench, which also has a `--help`.
#[derive(clap::Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

#[derive(clap::Args)]
struct Matching {
    /// How many claims are bound to as many volumes in the run that shows time and memory in all.
    #[arg(long, default_value_t = 100_000)]
    pairs: u32,
    /// Passed on to criterion, e.g. the name of one bench or `--save-baseline NAME`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    criterion: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.bench {
        Bench::Matching(args) => matching(args).map(|()| ExitCode::SUCCESS),
        Bench::Attach(passed) => on_an_api("attach", passed),
        Bench::Bind(passed) => on_an_api("bind", passed),
        Bench::LateVolume(passed) => on_an_api("late-volume", passed),
        Bench::Idle(passed) => on_an_api("idle", passed),
        Bench::Image(passed) => of_the_image(passed),
        Bench::Neighbour(passed) => on_an_api("neighbour", passed),
        Bench::Mount(passed) => on_an_api("mount", passed),
        Bench::Provision(passed) => on_an_api("provision", passed),
        Bench::Writes(passed) => on_an_api("writes", passed),
    }
}

fn matching(args: Matching) -> Result<()> {
    let Matching { pairs, criterion } = args;
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

/// Runs a bench of the crate e2e, which lays the released binary beside itself first.
fn on_an_api(bench: &str, passed: Passed) -> Result<ExitCode> {
    let sh = Shell::new()?;
    // All of cargo's words go to standard error: what the bench prints is for scripts.
    cmd!(sh, "cargo build --release --package bitts").run()?;
    let status = command(&["--release"], bench, passed).status();
    status.context("cannot run cargo").map(exit_code)
}

/// The same with what the image holds.
fn of_the_image(mut passed: Passed) -> Result<ExitCode> {
    let sh = Shell::new()?;
    let binary = std::path::absolute(image::binary(&sh)?)?;
    let archive = Path::new("target/image/bitts-bench.tar");
    image::bitts(&sh, &binary, archive, "bitts:bench")?;
    let given = ["--archive".into(), archive.into()];
    passed.arguments.splice(0..0, given);
    // What is measured was built for release; who measures it need not be.
    let status = command(&[], "image", passed)
        .env("BITTS_E2E_BINARY", binary)
        .status();
    status.context("cannot run cargo").map(exit_code)
}

fn command(profile: &[&str], bench: &str, passed: Passed) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["run", "--quiet", "--package", "bitts-e2e"])
        .args(profile)
        .args(["--bin", "bench", "--", bench])
        .args(passed.arguments);
    command
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}
