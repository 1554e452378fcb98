//! `bitts preflight`, and the check at the start of `bitts run`: may these roles run here?
//!
//! `collect` asks, `judge` decides from the `facts`. `canary` is the only one that writes.

mod canary;
mod collect;
mod facts;
mod judge;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use bitts_api::StockController;
use bitts_api::grant::{Grant, Place, Verb};
use clap::Args;
use kube::Client;
use serde_json::json;

use self::facts::{Controllers, StockLease};
use self::judge::{Finding, Verdict};
use crate::cli::{Output, Role, role};
use crate::rbac;

/// The exit code when something must be mended first.
const REFUSED: u8 = 3;

/// `bitts preflight`.
#[derive(Debug, Args)]
pub(crate) struct Preflight {
    /// The roles that are to run, separated by commas.
    #[arg(long, required = true, value_delimiter = ',', value_name = "LIST", value_parser = role,
        env = "BITTS_ROLES")]
    roles: Vec<Role>,

    /// Only print the flag with which kube-controller-manager is to be started; fails when it would
    /// leave work that nobody does.
    #[arg(long, conflicts_with_all = ["canary", "output"])]
    print_kcm_flags: bool,

    /// What `--controllers` of kube-controller-manager is now [default: as its pods say].
    #[arg(
        long,
        value_name = "LIST",
        requires = "print_kcm_flags",
        allow_hyphen_values = true
    )]
    kcm_controllers: Option<String>,

    /// Also make a claim, see whether a stock binder answers, and delete it.
    #[arg(long)]
    canary: bool,

    /// The namespace that bitts is to run in [default: that of the kubeconfig or of the pod].
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Text for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t, env = "BITTS_OUTPUT")]
    output: Output,

    /// The cluster [default: KUBECONFIG, the usual file, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// What the check at the start takes, beyond what the roles may do anyway.
pub(crate) fn grants() -> Vec<Grant> {
    let why = "at the start it shows whether kube-controller-manager runs";
    vec![
        Grant::new("coordination.k8s.io", "leases", &[Verb::Get], why)
            .at(Place::System)
            .named(collect::STOCK_LEASE),
    ]
}

/// What it takes where the role is the binder.
#[cfg(feature = "binder")]
pub(crate) fn canary_grants() -> [Grant; 2] {
    canary::grants()
}

pub(crate) fn run(args: &Preflight) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if args.print_kcm_flags {
            print_flags(args).await
        } else {
            check(args).await
        }
    })
}

async fn check(args: &Preflight) -> Result<ExitCode> {
    let client = bitts_runtime::connect(args.kubeconfig.as_deref()).await?;
    let namespace = args
        .namespace
        .as_deref()
        .unwrap_or(client.default_namespace());
    let mut facts = collect::collect(&client, &rbac::grants(&args.roles), namespace, true).await;
    if args.canary {
        facts.stock.canary = Some(canary::fly(&client, namespace).await);
    }
    let findings = judge::judge(&facts, &rbac::stands_in_for(&args.roles));
    let worst = worst(&findings);
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => {
            let report = json!({"verdict": worst, "findings": findings});
            writeln!(out, "{report}")?;
        }
        Output::Text => {
            for Finding {
                check,
                verdict,
                message,
                remedy,
            } in &findings
            {
                let verdict = match verdict {
                    Verdict::Ok => "ok",
                    Verdict::Unknown => "unknown",
                    Verdict::Warning => "warning",
                    Verdict::Refused => "REFUSED",
                };
                writeln!(out, "{verdict:<8} {check:<18} {message}")?;
                if let Some(remedy) = remedy {
                    writeln!(out, "{:<27} -> {remedy}", "")?;
                }
            }
        }
    }
    Ok(match worst {
        Verdict::Refused => ExitCode::from(REFUSED),
        _ => ExitCode::SUCCESS,
    })
}

fn worst(findings: &[Finding]) -> Verdict {
    findings
        .iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Verdict::Ok)
}

async fn print_flags(args: &Preflight) -> Result<ExitCode> {
    let current = match &args.kcm_controllers {
        Some(list) => Controllers::parse(list),
        None => {
            // People set this before there is a cluster, too.
            let found = match bitts_runtime::connect(args.kubeconfig.as_deref()).await {
                Ok(client) => {
                    let facts = collect::collect(&client, &[], "default", false).await;
                    judge::current(&facts.stock)
                }
                Err(_) => None,
            };
            if found.is_none() {
                tracing::warn!(
                    "which controllers kube-controller-manager has now does not show; give \
                     --kcm-controllers where it has a --controllers flag"
                );
            }
            found.unwrap_or_default()
        }
    };
    let replaced = rbac::stands_in_for(&args.roles);
    let gaps = judge::gaps(&current, &replaced);
    if !gaps.is_empty() {
        bail!(
            "{} is off in kube-controller-manager and no chosen role does its work: switch it on \
             again first",
            judge::names(&gaps)
        );
    }
    let flag = current.without(&replaced).flag();
    writeln!(std::io::stdout(), "{flag}")?;
    Ok(ExitCode::SUCCESS)
}

/// The check at the start of roles: refuses only what is certain, and says the rest in the log.
/// A canary is made where kube-controller-manager runs and nothing shows what it does.
pub(crate) async fn at_start(
    client: &Client,
    roles: &[Role],
    namespace: &str,
    allow_stock: bool,
) -> Result<()> {
    let mut facts = collect::collect(client, &rbac::grants(roles), namespace, false).await;
    let stock = &facts.stock;
    let pods_show = stock.pods.as_ref().is_ok_and(|pods| !pods.is_empty());
    let runs = stock.lease == Ok(StockLease::Renewed);
    let replaced = rbac::stands_in_for(roles);
    // Only a binder answers to it.
    let asks = replaced.contains(&StockController::Binder);
    if asks && runs && !pods_show && stock.wrote.is_empty() && !allow_stock {
        facts.stock.canary = Some(canary::fly(client, namespace).await);
    }
    for finding in judge::judge(&facts, &replaced) {
        let Finding {
            check,
            verdict,
            message,
            remedy,
        } = finding;
        let remedy = remedy.unwrap_or_default();
        match verdict {
            Verdict::Ok => tracing::debug!(check, message, "start-up check"),
            Verdict::Unknown => tracing::info!(check, message, remedy, "start-up check"),
            Verdict::Refused
                if check == judge::ATTACH || (check == judge::STOCK && !allow_stock) =>
            {
                bail!("{message}. To go on, {remedy}");
            }
            Verdict::Warning | Verdict::Refused => {
                tracing::warn!(check, message, remedy, "start-up check");
            }
        }
    }
    Ok(())
}
