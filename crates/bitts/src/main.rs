//! The bitts binary: roles on a cluster, a demo without one, an API for tests.
//!
//! Exit codes: 0 done, 1 failed (the message says what to do), 2 the command line is wrong. `explain`
//! has two more: 3 waiting, 4 no such object; `orphans` and `adopt` one: 3 there are some, 3 some were
//! left.

#[cfg(feature = "provisioner")]
mod adopt;
#[cfg(feature = "demo")]
mod apiserver;
#[cfg(feature = "attacher")]
mod attacher;
#[cfg(feature = "binder")]
mod binder;
mod cli;
#[cfg(feature = "attacher")]
mod cloud;
#[cfg(feature = "demo")]
mod demo;
#[cfg(feature = "binder")]
mod explain;
#[cfg(feature = "provisioner")]
mod orphans;
#[cfg(any(feature = "attacher", feature = "binder"))]
mod preflight;
#[cfg(any(feature = "attacher", feature = "binder"))]
mod rbac;
#[cfg(any(feature = "binder", feature = "provisioner"))]
mod read;
#[cfg(feature = "provisioner")]
mod recreate;
#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "provisioner"
))]
mod run;

#[cfg(feature = "provisioner")]
mod store;
#[cfg(feature = "provisioner")]
mod trash;

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command, LogFormat};

fn main() -> ExitCode {
    // Calls that may hang, or take long, are made by this program once more.
    #[cfg(feature = "provisioner")]
    bitts_mount::child::serve_with(&[bitts_provisioner::SERVICE]);
    #[cfg(all(feature = "agent", not(feature = "provisioner")))]
    bitts_mount::child::serve();
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bitts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let log = match (&cli.log, &cli.command) {
        (Some(filter), _) => filter.as_str(),
        // The demo's story is its output.
        #[cfg(feature = "demo")]
        (None, Command::Demo(_)) => "error",
        #[cfg(feature = "binder")]
        (None, Command::Explain(_)) => "error",
        #[cfg(feature = "provisioner")]
        (
            None,
            Command::Trash(_) | Command::Orphans(_) | Command::Adopt(_) | Command::Recreate(_),
        ) => "error",
        (None, _) => "info",
    };
    let format = match cli.log_format {
        LogFormat::Text => bitts_runtime::LogFormat::Text,
        LogFormat::Json => bitts_runtime::LogFormat::Json,
    };
    bitts_runtime::init_logging(format, log)?;
    match cli.command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(&args),
        #[cfg(any(
            feature = "agent",
            feature = "attacher",
            feature = "binder",
            feature = "provisioner"
        ))]
        Command::Run(args) => run::run(*args),
        #[cfg(feature = "binder")]
        Command::Explain(args) => explain::run(&args),
        #[cfg(any(feature = "attacher", feature = "binder"))]
        Command::Preflight(args) => preflight::run(&args),
        #[cfg(any(feature = "attacher", feature = "binder"))]
        Command::Rbac(args) => rbac::run(&args),
        #[cfg(feature = "provisioner")]
        Command::Trash(args) => trash::run(args),
        #[cfg(feature = "provisioner")]
        Command::Orphans(args) => orphans::run(args),
        #[cfg(feature = "provisioner")]
        Command::Adopt(args) => adopt::run(args),
        #[cfg(feature = "provisioner")]
        Command::Recreate(args) => recreate::run(&args),
        #[cfg(feature = "demo")]
        Command::Apiserver(args) => apiserver::run(args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "bitts", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
