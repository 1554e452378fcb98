//! `bitts orphans`: what is on disk and not in the API, or the other way round.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use bitts_api::{Claim, Kind, Object, ObjectKey, Volume};
use bitts_provisioner::{Order, Orphan, OrphanKind, Store, orphans};
use kube::Client;
use serde_json::json;

use crate::cli::Output;
use crate::read::Reader;
use crate::store::{Roots, ago, at, now};

/// Something is orphaned.
const FOUND: u8 = 3;
/// What is being made or deleted looks orphaned for a moment: it is looked at once more after this.
const SETTLES: Duration = Duration::from_secs(2);

/// `bitts orphans`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Move data and records without a volume to the trash, where neither the claim that a record names
    /// nor the volume exists. Nothing is deleted: `bitts trash purge` does that.
    #[arg(long)]
    remove: bool,

    /// Remove only what is so for this long.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = crate::cli::age,
        default_value = "1h",
        requires = "remove"
    )]
    older_than: Duration,

    /// Text for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t, env = "BITTS_OUTPUT")]
    output: Output,

    /// The cluster [default: KUBECONFIG, the usual file, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    #[command(flatten)]
    roots: Roots,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(find(args))
}

async fn find(args: Args) -> Result<ExitCode> {
    let client = bitts_runtime::connect(args.kubeconfig.as_deref()).await?;
    let stores = args.roots.open_used().await?;
    let mut found = look(&client, &stores, &args.roots).await?;
    if !found.is_empty() {
        tokio::time::sleep(SETTLES).await;
        let again = look(&client, &stores, &args.roots).await?;
        found.retain(|orphan| {
            let is_this = |o: &Orphan| {
                (o.kind, &o.root, &o.volume, &o.path)
                    == (orphan.kind, &orphan.root, &orphan.volume, &orphan.path)
            };
            again.iter().any(is_this)
        });
    }
    let mut left = Vec::new();
    for orphan in found {
        let outcome = match args.remove {
            true => remove(&client, &stores, &orphan, args.older_than).await?,
            false => Outcome::Left(None),
        };
        match &outcome {
            Outcome::Removed => eprintln!("{}: moved to the trash", line(&orphan)),
            Outcome::Left(Some(why)) => eprintln!("{}: left: {why}", line(&orphan)),
            Outcome::Left(None) => {}
        }
        if !matches!(outcome, Outcome::Removed) {
            left.push(orphan);
        }
    }
    print(args.output, &left)?;
    Ok(match left.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FOUND),
    })
}

/// Reads the roots, then the cluster: what is made meanwhile is on disk first.
async fn look(client: &Client, stores: &[Store], roots: &Roots) -> Result<Vec<Orphan>> {
    let home = roots.home()?;
    let mut censuses = Vec::new();
    for store in stores {
        censuses.push((store.name(), store.census().await?));
    }
    let mut reader = Reader::new(client);
    reader.list(Kind::Volume, None).await?;
    reader.list(Kind::Claim, None).await?;
    // An object that cannot be read may be the other half of anything.
    if let Some(why) = reader.unread.first() {
        bail!("{why}");
    }
    let (mut volumes, mut claims): (Vec<Volume>, Vec<Claim>) = (Vec::new(), Vec::new());
    for object in reader.objects {
        match object {
            Object::Volume(volume) => volumes.push((*volume).clone()),
            Object::Claim(claim) => claims.push((*claim).clone()),
            _ => {}
        }
    }
    Ok(orphans(&home, &censuses, &volumes, &claims))
}

enum Outcome {
    Removed,
    Left(Option<String>),
}

/// Moves what a record speaks of to the trash, if a live look agrees.
async fn remove(
    client: &Client,
    stores: &[Store],
    orphan: &Orphan,
    older_than: Duration,
) -> Result<Outcome> {
    let left = |why: &str| Ok(Outcome::Left(Some(why.to_owned())));
    let (OrphanKind::RecordWithoutVolume, Some(volume), Some(claim), Some(since)) =
        (orphan.kind, &orphan.volume, &orphan.claim, orphan.since)
    else {
        return left("no record says whose it is: look at it, and mend it by hand");
    };
    let age = i64::try_from(older_than.as_secs()).unwrap_or(i64::MAX);
    if now().saturating_sub(since) < age {
        return left("it is not old enough for --older-than");
    }
    let store = stores.iter().find(|s| Some(s.name()) == orphan.root);
    let Some(store) = store else {
        return left("its root was not looked at");
    };
    let mut reader = Reader::new(client);
    let there = reader.object(&ObjectKey::volume(volume.clone())).await?;
    if there.is_some() {
        return left("there is a PersistentVolume of its name");
    }
    let there = reader.object(&claim.key()).await?;
    if there.is_some_and(|object| *object.uid() == claim.uid) {
        return left("its claim exists");
    }
    let order = Order::SetAside(volume.clone(), claim.uid.clone());
    match store.ask(order).await {
        Ok(_) => Ok(Outcome::Removed),
        Err(why) => Ok(Outcome::Left(Some(why.to_string()))),
    }
}

fn line(orphan: &Orphan) -> String {
    let name = orphan.volume.as_ref().map(ToString::to_string);
    let place = match (&orphan.root, &orphan.path) {
        (Some(root), Some(path)) => format!("{}/{path}", root.trim_end_matches('/')),
        (Some(root), None) => root.clone(),
        (None, _) => "nowhere".to_owned(),
    };
    match name {
        Some(name) => format!("{name} ({place})"),
        None => place,
    }
}

fn print(output: Output, found: &[Orphan]) -> Result<()> {
    let mut out = io::stdout().lock();
    match output {
        Output::Json => {
            let items = found.iter().map(|orphan| {
                let mut item = json!(orphan);
                item["since"] = json!(orphan.since.and_then(at));
                item
            });
            let items: Vec<_> = items.collect();
            writeln!(out, "{:#}", json!({ "items": items }))?;
        }
        Output::Text if found.is_empty() => eprintln!("Nothing is orphaned."),
        Output::Text => {
            for orphan in found {
                write!(out, "{}: {}", line(orphan), orphan.text)?;
                if let Some(claim) = &orphan.claim {
                    write!(out, "; made for claim {} ({})", claim.key(), claim.uid)?;
                }
                if let Some(since) = orphan.since {
                    write!(out, ", {} ago", ago(since, now()))?;
                }
                writeln!(out)?;
            }
        }
    }
    Ok(out.flush()?)
}
