//! `bitts explain`: why a claim, a volume, a pod's volumes or an attachment are where they are, and what
//! would unblock them; what is wrong with a class. Reads only.

#[cfg(feature = "attacher")]
mod attach;
#[cfg(feature = "provisioner")]
mod class;
mod fetch;
mod json;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod text;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use bitts_api::{Kind, ObjectKey};
use bitts_binder::Report;

use crate::cli::{Explain, ExplainKind, Output};

/// Somebody or something is waited for.
const WAITS: u8 = 3;
/// There is no such object.
const NOT_FOUND: u8 = 4;

/// Tells about one object.
pub(crate) fn run(args: &Explain) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tell(args))
}

async fn tell(args: &Explain) -> Result<ExitCode> {
    let client = bitts_runtime::connect(args.kubeconfig.as_deref()).await?;
    let key = match args.kind {
        #[cfg(feature = "attacher")]
        ExplainKind::Pod | ExplainKind::Attachment => return attach::tell(&client, args).await,
        #[cfg(feature = "provisioner")]
        ExplainKind::Class => return class::tell(&client, args).await,
        ExplainKind::Volume => ObjectKey::volume(&*args.name),
        ExplainKind::Claim => {
            let namespace = args.namespace.as_deref();
            ObjectKey::claim(namespace.unwrap_or(client.default_namespace()), &*args.name)
        }
    };
    let mut seen = fetch::around(&client, &key).await?;
    let report = match (&key.namespace, key.kind) {
        (Some(namespace), Kind::Claim) => seen.cluster.claim(namespace, &key.name),
        _ => seen.cluster.volume(&key.name),
    };
    let report = report.map(|report| same_cluster(report, args));
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => {
            let value = json::of(&key, report.as_ref(), &seen.unread);
            writeln!(out, "{value:#}")?;
        }
        Output::Text => {
            let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            if let Some(report) = &report {
                out.write_all(text::of(report, &seen.unread, colours).as_bytes())?;
            }
        }
    }
    out.flush()?;
    Ok(match report {
        None => {
            eprintln!("bitts: {} {key} does not exist", key.kind.name());
            ExitCode::from(NOT_FOUND)
        }
        Some(report) if report.state.is_fine() => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(WAITS),
    })
}

/// The command to type next goes to the cluster that was looked at.
fn same_cluster(mut report: Report, args: &Explain) -> Report {
    if let Some(file) = &args.kubeconfig
        && let Some(next) = &mut report.next
        && let Some(command) = next.command.take()
    {
        let file = file.to_string_lossy();
        next.command = Some(command.with("--kubeconfig", &file));
    }
    report
}
