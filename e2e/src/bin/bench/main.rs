//! The benches of whole programs on an API server: `cargo xtask bench bind`, for one.
//!
//! - [`setup`]: a fresh API server, volumes and claims on it, and what it costs (CPU, requests).
//! - [`contender`]: the programs that bind; [`limit`] is the one that does nothing but write.
//! - [`usage`]: what a process took, as the kernel counts it.
//! - [`way`]: where the time goes between a pod and its mount, from the agent's log.
//! - [`attach`], [`bind`], [`late`], [`idle`], [`image`], [`neighbour`], [`mount`], [`provision`], [`writes`]: one
//!   bench each.
//! - [`figures`]: what a bench found, as JSON or as a table.

mod attach;
mod bind;
mod contender;
mod figures;
mod idle;
mod image;
mod late;
mod limit;
mod mount;
mod neighbour;
mod provision;
mod setup;
mod usage;
mod way;
mod writes;

use std::process::ExitCode;

use anyhow::Result;
use bitts_e2e::uml;
use clap::{Parser, Subcommand};

/// Benches of the binder on a real API server.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Attach the volumes of many pods: bitts, the stock pair, and a client that does only the writes.
    Attach(attach::Args),
    /// Bind many claims: bitts, kube-controller-manager, and a client that does only the writes.
    Bind(bind::Args),
    /// How soon a claim is bound whose volume comes after it.
    LateVolume(late::Args),
    /// What bitts asks of an API server on which nothing happens.
    Idle(idle::Args),
    /// The image of the cluster's roles: its size, how soon each is ready, its memory at rest.
    Image(image::Args),
    /// What another client of the API server feels while claims are bound.
    Neighbour(neighbour::Args),
    /// Mount the volumes of many pods at once: the agent, one child for each, and bare system calls.
    Mount(mount::Args),
    /// Make volumes for many claims: bitts, the stock library, and a client that does nothing else.
    Provision(provision::Args),
    /// What each form of each write costs the API server.
    Writes(writes::Args),
    /// The contender `limit`, which the other benches start.
    #[command(hide = true)]
    Limit(limit::Args),
    /// The contender `limit` of `attach`.
    #[command(hide = true)]
    LimitAttach(attach::LimitArgs),
    /// The contender `limit` of `provision`.
    #[command(hide = true)]
    LimitProvision(provision::LimitArgs),
}

/// What is run in a Linux of its own, which has what this machine's may lack.
const CASES: &[uml::Case] = &[(provision::CASE, provision::serve)];

fn main() -> Result<ExitCode> {
    // Told by its variables, which the contenders in a guest inherit: those have arguments.
    let is_told_nothing = std::env::args_os().nth(1).is_none();
    if let Some(ended) = is_told_nothing.then(|| uml::guest_part(CASES)).flatten() {
        return Ok(ended);
    }
    let bench = Cli::parse().bench;
    if matches!(bench, Bench::Mount(_)) {
        mount::separate()?;
    }
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(run(bench))
}

async fn run(bench: Bench) -> Result<ExitCode> {
    match bench {
        Bench::Attach(args) => attach::run(args).await,
        Bench::LimitAttach(args) => attach::limit(args).await,
        Bench::Bind(args) => bind::run(args).await,
        Bench::LateVolume(args) => late::run(args).await,
        Bench::Idle(args) => idle::run(args).await,
        Bench::Image(args) => image::run(args).await,
        Bench::Neighbour(args) => neighbour::run(args).await,
        Bench::Mount(args) => mount::run(args).await,
        Bench::Provision(args) => provision::run(args).await,
        Bench::LimitProvision(args) => provision::limit(args).await,
        Bench::Writes(args) => writes::run(args).await,
        Bench::Limit(args) => limit::run(args).await,
    }
}
