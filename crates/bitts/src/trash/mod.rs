//! `bitts trash`: what was moved aside when volumes were deleted.

mod restore;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use bitts_api::Name;
use bitts_provisioner::disk::{Fate, Trashed};
use bitts_provisioner::{Order, Store};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::Output;
use crate::store::{Roots, ago, at, bytes, now};

/// `bitts trash`.
#[derive(Debug, Args)]
pub(crate) struct Trash {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What is there, whose it was, and until when it stays.
    List(List),
    /// Put the data of a volume back in its place, and print the volume that makes it usable again.
    Restore(restore::Args),
    /// Remove data for good.
    Purge(Purge),
}

#[derive(Debug, Args)]
struct List {
    /// Text for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t, env = "BITTS_OUTPUT")]
    output: Output,

    #[command(flatten)]
    roots: Roots,
}

#[derive(Debug, Args)]
struct Purge {
    /// The volumes, as `bitts trash list` has them.
    #[arg(value_name = "VOLUME", required_unless_present = "older_than")]
    volumes: Vec<String>,

    /// All that was deleted so long ago, such as `30d` or `12h`.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = crate::cli::age,
        conflicts_with = "volumes"
    )]
    older_than: Option<Duration>,

    #[command(flatten)]
    roots: Roots,
}

pub(crate) fn run(args: Trash) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args.action {
            Action::List(args) => list(args).await,
            Action::Restore(args) => restore::run(args).await,
            Action::Purge(args) => purge(args).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: List) -> Result<()> {
    let mut all = Vec::new();
    for store in args.roots.open_used().await? {
        let name = store.name();
        let entries = store.trashed().await?;
        all.extend(entries.into_iter().map(|entry| (name.clone(), entry)));
    }
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => {
            let items: Vec<Value> = all.iter().map(|(root, entry)| item(root, entry)).collect();
            writeln!(out, "{:#}", json!({ "items": items }))?;
        }
        Output::Text if all.is_empty() => eprintln!("The trash is empty."),
        Output::Text => out.write_all(table(&all, now()).as_bytes())?,
    }
    Ok(out.flush()?)
}

fn item(root: &str, entry: &Trashed) -> Value {
    json!({
        "root": root,
        "volume": entry.volume,
        "claim": entry.record.as_ref().map(|record| &record.claim),
        "class": entry.record.as_ref().and_then(|record| record.class.as_ref()),
        "path": entry.record.as_ref().map(|record| &record.path),
        "bytes": entry.record.as_ref().map(|record| record.bytes),
        "since": at(entry.since),
        "until": entry.until().and_then(at),
        "state": entry.fate,
    })
}

/// One line an entry, with a heading.
fn table(all: &[(String, Trashed)], now: i64) -> String {
    let mut lines =
        vec![["VOLUME", "CLAIM", "ASKED FOR", "DELETED", "STAYS", "AT"].map(str::to_owned)];
    for (root, entry) in all {
        let record = entry.record.as_ref();
        let stays = match (entry.fate, entry.until()) {
            (Fate::Leaving, _) => "no, it is being removed".to_owned(),
            (Fate::Restoring, _) => "restore it again: that was cut off".to_owned(),
            (Fate::Kept, None) => "until it is purged".to_owned(),
            (Fate::Kept, Some(until)) if until <= now => "no, it is removed next".to_owned(),
            // The time that is left: as if it were that long ago.
            (Fate::Kept, Some(until)) => format!("for {}", ago(now, until)),
        };
        lines.push([
            entry.volume.to_string(),
            record.map_or("unknown: no record".to_owned(), |r| {
                r.claim.key().to_string()
            }),
            record.map_or("-".to_owned(), |r| bytes(r.bytes)),
            format!("{} ago", ago(entry.since, now)),
            stays,
            root.clone(),
        ]);
    }
    let mut widths = [0; 6];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let row = |line: &[String; 6]| {
        let cells = line.iter().zip(widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        let row = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", row.trim_end())
    };
    lines.iter().map(row).collect()
}

async fn purge(args: Purge) -> Result<()> {
    let stores = args.roots.open_used().await?;
    let mut wanted: BTreeMap<usize, Vec<Name>> = BTreeMap::new();
    let mut missing: Vec<&String> = args.volumes.iter().collect();
    for (index, store) in stores.iter().enumerate() {
        for entry in store.trashed().await? {
            let named = args.volumes.iter().any(|volume| entry.volume == **volume);
            let is_old = args.older_than.is_some_and(|age| {
                let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
                // What has no record may be on its way here.
                entry.record.is_some() && now().saturating_sub(entry.since) >= age
            });
            if named || (is_old && entry.fate == Fate::Kept) {
                missing.retain(|volume| entry.volume != ***volume);
                wanted.entry(index).or_default().push(entry.volume);
            }
        }
    }
    if let Some(volume) = missing.first() {
        bail!("there is no {volume} in the trash: `bitts trash list` shows what there is");
    }
    for (index, volumes) in wanted {
        purge_at(&stores[index], &volumes).await?;
    }
    Ok(())
}

async fn purge_at(store: &Store, volumes: &[Name]) -> Result<()> {
    for (done, volume) in volumes.iter().enumerate() {
        store.ask(Order::Purge(volume.clone())).await?;
        store.swept(std::slice::from_ref(volume)).await?;
        eprintln!("{volume}: removed ({} of {})", done + 1, volumes.len());
    }
    Ok(())
}
