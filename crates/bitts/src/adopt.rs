//! `bitts adopt`: volumes of nfs-subdir-external-provisioner and local-path-provisioner, taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use bitts_api::{Kind, Node, Object, ObjectKey, StorageClass, Volume};
use bitts_provisioner::{AdoptError, Adoption, Home, Order, Store, adopt, equivalent};
use kube::Client;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::read::{Reader, collection};
use crate::store::Roots;

/// Some volumes are not taken over.
const LEFT: u8 = 3;
/// What the images of the provisioners are called whose volumes are taken over.
const OLD: [&str; 2] = ["nfs-subdir-external-provisioner", "local-path-provisioner"];

/// `bitts adopt`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do it, instead of only telling what would be done. The provisioner that made the volumes must be
    /// off by then.
    #[arg(long)]
    apply: bool,

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
    runtime.block_on(take_over(args))
}

/// A volume, and what comes of it.
type Outcome = (Volume, Result<Adoption, AdoptError>);

async fn take_over(args: Args) -> Result<ExitCode> {
    let home = args.roots.home()?;
    let client = bitts_runtime::connect(args.kubeconfig.as_deref()).await?;
    if args.apply {
        nobody_else(&client).await?;
    }
    let stores = args.roots.open().await?;
    let tops: Vec<String> = match &home {
        Home::Node(_) => stores.iter().map(Store::name).collect(),
        Home::Share(share) => vec![share.path.to_string()],
    };
    let (outcomes, classes) = plan(&client, &home, &tops).await?;
    if args.apply {
        for (volume, outcome) in &outcomes {
            if let Ok(adoption) = outcome {
                apply(&client, &stores[adoption.root], adoption)
                    .await
                    .with_context(|| format!("taking over {}", volume.meta.name))?;
            }
        }
    }
    let used: BTreeSet<_> = outcomes
        .iter()
        .filter_map(|(v, _)| v.class.as_ref())
        .collect();
    let classes = used.iter().filter_map(|name| classes.get(name.as_str()));
    let classes: Vec<_> = classes.map(|class| equivalent(class, &home)).collect();
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{:#}", to_json(&outcomes, &classes, args.apply))?,
        Output::Text => out.write_all(to_text(&outcomes, &classes, args.apply)?.as_bytes())?,
    }
    out.flush()?;
    Ok(match outcomes.iter().all(|(_, outcome)| outcome.is_ok()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(LEFT),
    })
}

/// What would be done with the volumes that lie here, and all classes by their names.
async fn plan(
    client: &Client,
    home: &Home,
    tops: &[String],
) -> Result<(Vec<Outcome>, BTreeMap<String, StorageClass>)> {
    let mut reader = Reader::new(client);
    reader.list(Kind::Volume, None).await?;
    reader.list(Kind::StorageClass, None).await?;
    if let Home::Node(node) = home {
        let key = ObjectKey::node(&node.as_str().into());
        let there = reader.object(&key).await?;
        there.with_context(|| format!("there is no node {node}"))?;
    }
    if let Some(why) = reader.unread.first() {
        bail!("{why}");
    }
    let mut volumes = Vec::new();
    let mut classes = BTreeMap::new();
    let mut node: Option<Node> = None;
    for object in reader.objects {
        match object {
            Object::Volume(volume) => volumes.push((*volume).clone()),
            Object::StorageClass(class) => {
                classes.insert(class.meta.name.to_string(), (*class).clone());
            }
            Object::Node(found) => node = Some((*found).clone()),
            _ => {}
        }
    }
    let tops: Vec<&str> = tops.iter().map(String::as_str).collect();
    let outcomes = volumes.into_iter().filter_map(|volume| {
        let class = volume.class.as_ref();
        let class = class.and_then(|name| classes.get(name.as_str()));
        let outcome = adopt(&volume, class, home, &tops, node.as_ref())?;
        Some((volume, outcome))
    });
    Ok((outcomes.collect(), classes))
}

/// Records the volume, then says on its object whose it is: after the first alone nothing has changed
/// for anybody.
async fn apply(client: &Client, store: &Store, adoption: &Adoption) -> Result<()> {
    store.ask(Order::Adopt(adoption.record.clone())).await?;
    let mut patch = adoption.patch.clone();
    patch["metadata"]["uid"] = json!(adoption.target.uid);
    patch["metadata"]["resourceVersion"] = json!(adoption.target.version.to_string());
    let path = format!(
        "{}/{}",
        collection(Kind::Volume, None),
        adoption.target.key.name
    );
    let request = http::Request::patch(path)
        .header("content-type", "application/merge-patch+json")
        .body(serde_json::to_vec(&patch)?)?;
    client.request::<Value>(request).await?;
    Ok(())
}

/// Two provisioners would both delete: refuses while the other one runs.
pub(crate) async fn nobody_else(client: &Client) -> Result<()> {
    let request = http::Request::get(collection(Kind::Pod, None)).body(Vec::new())?;
    let pods: Value = client
        .request(request)
        .await
        .context("looking for the provisioner that made the volumes")?;
    let runs = |pod: &&Value| {
        let ended = ["Succeeded", "Failed"].map(Value::from);
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut images = containers.filter_map(|container| container["image"].as_str());
        !ended.contains(&pod["status"]["phase"])
            && images.any(|image| OLD.iter().any(|old| image.contains(old)))
    };
    let found = pods["items"].as_array().into_iter().flatten().find(runs);
    if let Some(pod) = found {
        let name = |member: &str| pod["metadata"][member].as_str().unwrap_or_default();
        bail!(
            "the provisioner that made the volumes still runs, and would delete them too: scale it to 0 \
             first (pod {}/{})",
            name("namespace"),
            name("name")
        );
    }
    Ok(())
}

fn to_json(outcomes: &[Outcome], classes: &[(Value, Vec<String>)], applied: bool) -> Value {
    let volumes = outcomes.iter().map(|(volume, outcome)| {
        let adoption = outcome.as_ref().ok();
        json!({
            "volume": volume.meta.name,
            "claim": volume.claim_ref.as_ref().map(ToString::to_string),
            "adopted": applied && adoption.is_some(),
            "onDelete": adoption.map(|adoption| adoption.record.on_delete),
            "notes": adoption.map(|adoption| &adoption.notes),
            "refused": outcome.as_ref().err().map(ToString::to_string),
        })
    });
    let classes = classes
        .iter()
        .map(|(class, notes)| json!({"class": class, "notes": notes}));
    json!({
        "applied": applied,
        "items": volumes.collect::<Vec<_>>(),
        "classes": classes.collect::<Vec<_>>(),
    })
}

fn to_text(
    outcomes: &[Outcome],
    classes: &[(Value, Vec<String>)],
    applied: bool,
) -> Result<String> {
    if outcomes.is_empty() {
        return Ok("No volume of another provisioner lies here.\n".to_owned());
    }
    let mut text = String::new();
    for (volume, outcome) in outcomes {
        let name = &volume.meta.name;
        match outcome {
            Ok(adoption) => {
                let done = if applied {
                    "taken over"
                } else {
                    "would be taken over"
                };
                let on_delete = json!(adoption.record.on_delete);
                let on_delete = on_delete.as_str().unwrap_or_default();
                let claim = adoption.record.claim.key();
                text += &format!("{name} (claim {claim}): {done}; on deletion: {on_delete}\n");
                for note in &adoption.notes {
                    text += &format!("  note: {note}\n");
                }
            }
            Err(why) => text += &format!("{name}: left: {why}\n"),
        }
    }
    for (class, notes) in classes {
        text += "\n# A class cannot be changed: this one makes new volumes as the old one did.\n";
        for note in notes {
            text += &format!("# {note}\n");
        }
        text += &format!("---\n{}", serde_yaml_ng::to_string(class)?);
    }
    if !applied {
        text += "\n# Nothing was changed: --apply does it.\n";
    }
    Ok(text)
}
