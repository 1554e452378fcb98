//! `cargo xtask`: what is automated, one file a command.

mod bench;
mod chart;
mod contract;
mod e2e;
mod files;
mod fuzz;
mod image;
mod metrics;
mod release;
mod rust_text;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Automation of the bitts workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything that must pass: formatting, lints, every test, every feature alone, docs.
    Test(test::Args),
    /// Write docs/coverage.md: where the code names each rule of docs/contract.md, which test shows it.
    Contract(contract::Args),
    /// Write what is made of the Helm chart and of the code: the chart's rbac/ and the manifests in
    /// deploy/.
    Chart(chart::Args),
    /// Write docs/metrics.md: what is measured, by the code.
    Metrics(metrics::Args),
    /// Run a bench: how fast the binder decides, and how fast it binds on a real API server.
    Bench(bench::Args),
    /// Make what a release consists of: static binary, bill of materials, chart, checksums.
    Release(release::Args),
    /// Look for input that breaks what must always hold: mount tables, paths and links.
    Fuzz(fuzz::Args),
    /// Bring up a real cluster, install bitts on it, test it there and take it down.
    E2e(e2e::Args),
    /// Write the container image of the cluster's roles as an archive.
    Image(image::Args),
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let workspace = Workspace::load()?;
    match cli.command {
        Command::Test(args) => test::run(&workspace, args),
        Command::Contract(args) => contract::run(&workspace, args).map(|()| ExitCode::SUCCESS),
        Command::Chart(args) => chart::write(&workspace, &args).map(|()| ExitCode::SUCCESS),
        Command::Metrics(args) => metrics::write(&workspace, &args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(args),
        Command::Release(args) => release::run(&workspace, &args).map(|()| ExitCode::SUCCESS),
        Command::Fuzz(args) => fuzz::run(&workspace, args).map(|()| ExitCode::SUCCESS),
        Command::E2e(args) => e2e::run(&workspace, args).map(|()| ExitCode::SUCCESS),
        Command::Image(args) => image::run(&args).map(|()| ExitCode::SUCCESS),
    }
}
