//! `cargo xtask test`: everything that must pass, step by step, with a summary that hides nothing.

mod boundaries;
mod build;
mod chart;
mod deny;
mod examples;
mod fuzz;
mod packages;
mod source;
mod suite;

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::contract;
use crate::metrics;
use crate::workspace::Workspace;

/// Which steps are run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these.
    #[arg(long, value_enum, value_name = "STEP", value_delimiter = ',')]
    only: Vec<Step>,
    /// Leave these out.
    #[arg(long, value_enum, value_name = "STEP", value_delimiter = ',')]
    skip: Vec<Step>,
    /// Fail when anything is skipped that a package or a setting of this machine could provide.
    /// On when the variable CI is set.
    #[arg(long)]
    strict: bool,
}

/// The steps, in the order in which they are run: what is quick and often wrong comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Install Debian packages that the tests need, where this machine lets us.
    Packages,
    /// Formatting.
    Fmt,
    /// Rules for sources that neither the compiler nor clippy knows.
    Source,
    /// Every rule number leads into docs/contract.md; docs/coverage.md is fresh.
    Contract,
    /// docs/metrics.md is what the code measures; dashboard and alerts name nothing else.
    Metrics,
    /// The manifests in examples/ are what they seem.
    Examples,
    /// The Helm chart is sound, deploy/ is what it renders, and the API's schemas know all of it.
    Chart,
    /// Which crate may depend on what (ARCHITECTURE.md).
    Boundaries,
    /// Licences, bans, sources and advisories of every dependency.
    Deny,
    /// Lints of all targets, warnings refused.
    Clippy,
    /// Each crate by itself, each feature by itself.
    Alone,
    /// Every test, doc tests included.
    Tests,
    /// Ten thousand random lives of the machines, and each invariant's planted bug.
    Lives,
    /// The fuzz targets, for ten seconds or as many as `FUZZ_SECONDS` says.
    Fuzz,
    /// The documentation, warnings refused.
    Docs,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Step {
    fn run(self, workspace: &Workspace) -> Result<Report> {
        match self {
            Self::Packages => packages::install(),
            Self::Fmt => build::fmt(),
            Self::Source => source::check(workspace),
            Self::Contract => contract::check(workspace).map(|()| Report::default()),
            Self::Metrics => metrics::check(workspace).map(|count| Report {
                note: format!("{count} metrics"),
                ..Report::default()
            }),
            Self::Examples => examples::check(workspace),
            Self::Chart => chart::check(workspace),
            Self::Boundaries => boundaries::check(workspace),
            Self::Deny => deny::check(),
            Self::Clippy => build::clippy(),
            Self::Alone => build::alone(workspace),
            Self::Tests => suite::run(),
            Self::Lives => build::lives(),
            Self::Fuzz => fuzz::run(workspace),
            Self::Docs => build::docs(),
        }
    }
}

/// What a step that did not fail has to say.
#[derive(Debug, Default)]
struct Report {
    note: String,
    skipped: Vec<Skip>,
}

/// Something that was not checked.
#[derive(Debug)]
struct Skip {
    /// What, why, and what to do about it.
    reason: String,
    /// Nothing on this machine can provide it, e.g. a network.
    excused: bool,
}

struct Done {
    step: Step,
    took: Duration,
    result: Result<Report>,
}

pub(crate) fn run(workspace: &Workspace, args: Args) -> Result<ExitCode> {
    let strict = args.strict || std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
    let chosen = |step: &Step| {
        !args.skip.contains(step) && (args.only.is_empty() || args.only.contains(step))
    };
    let mut done = Vec::new();
    for step in Step::value_variants().iter().copied().filter(chosen) {
        println!("\n==> {step}");
        let start = Instant::now();
        let result = step.run(workspace);
        if let Err(error) = &result {
            println!("{error:#}");
        }
        done.push(Done {
            step,
            took: start.elapsed(),
            result,
        });
    }
    if done.is_empty() {
        bail!("no step is left to run");
    }
    let left_out: Vec<Step> = Step::value_variants()
        .iter()
        .copied()
        .filter(|step| !chosen(step))
        .collect();
    let passed = summary(&done, &left_out, strict);
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints what was found; whether all is well.
fn summary(done: &[Done], left_out: &[Step], strict: bool) -> bool {
    println!("\n==> summary");
    for Done { step, took, result } in done {
        let (verdict, note) = match result {
            Ok(report) => ("ok", report.note.as_str()),
            Err(_) => ("FAILED", "see above"),
        };
        let line = format!(
            "{verdict:<6}  {step:<10}  {:>6.1} s  {note}",
            took.as_secs_f64()
        );
        println!("{}", line.trim_end());
    }
    if !left_out.is_empty() {
        let names: Vec<String> = left_out.iter().map(Step::to_string).collect();
        println!("left out by --only or --skip: {}", names.join(", "));
    }
    let skips = || {
        done.iter()
            .flat_map(|d| d.result.iter().flat_map(|report| &report.skipped))
    };
    for skip in skips() {
        println!("skipped: {}", skip.reason);
    }
    let failed = done.iter().filter(|d| d.result.is_err()).count();
    let missing = skips().filter(|skip| !skip.excused).count();
    if failed > 0 {
        println!("{failed} of {} steps failed", done.len());
    }
    if strict && missing > 0 {
        println!("{missing} checks were skipped that this machine should be able to make");
    }
    failed == 0 && (!strict || missing == 0)
}
