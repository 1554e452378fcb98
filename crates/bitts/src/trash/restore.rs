//! `bitts trash restore`: data back in its place, and a volume that makes it usable again.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result, bail};
use bitts_api::{Kind, Name};
use bitts_provisioner::{Order, Record, Store, StoreError, Told};
use serde_json::Value;

use crate::read::collection;
use crate::store::Roots;

/// The label that a local volume's node affinity goes by.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// `bitts trash restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The volume, as `bitts trash list` has it.
    #[arg(value_name = "VOLUME", value_parser = crate::cli::object_name)]
    volume: String,

    /// Make the volume on the cluster, instead of printing it.
    #[arg(long)]
    apply: bool,

    /// The cluster, for --apply [default: KUBECONFIG, the usual file, or the pod's service account].
    #[arg(long, value_name = "FILE", requires = "apply")]
    kubeconfig: Option<std::path::PathBuf>,

    #[command(flatten)]
    roots: Roots,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let on_disks = matches!(args.roots.site(), bitts_provisioner::Site::Disks);
    // What is missing is said before anything is moved.
    let node = on_disks.then(|| args.roots.node()).transpose()?;
    let client = match args.apply {
        true => Some(bitts_runtime::connect(args.kubeconfig.as_deref()).await?),
        false => None,
    };
    let hostname = match (node, &client) {
        (Some(node), Some(client)) => Some(hostname(client, node).await?),
        (node, _) => node.map(str::to_owned),
    };
    let volume = Name::from(args.volume.as_str());
    let stores = args.roots.open_used().await?;
    let (store, record) = put_back(&stores, &volume).await?;
    let site = args.roots.site();
    let path = store.path(&record);
    let manifest = bitts_provisioner::restored(&record, &site, &path, hostname.as_deref());
    eprintln!("{volume}: its data is at {path} again, and stays there.");
    match client {
        Some(client) => create(&client, &manifest).await?,
        None => {
            let mut out = io::stdout().lock();
            out.write_all(serde_yaml_ng::to_string(&manifest)?.as_bytes())?;
            out.flush()?;
            eprintln!(
                "\nThat is its volume. The same command again with `| kubectl create -f -` behind it, or \
                 with --apply, makes it."
            );
        }
    }
    let class = record.class.as_ref().map_or("", |class| class.as_str());
    eprintln!(
        "It is reserved for the claim {}: make that anew with storageClassName {class:?}, volumeName \
         {volume:?} and at most {} to have it bound.",
        record.claim.key(),
        crate::store::bytes(record.bytes),
    );
    Ok(())
}

/// Has the one root put it back that has it.
async fn put_back<'a>(stores: &'a [Store], volume: &Name) -> Result<(&'a Store, Record)> {
    let mut absent = None;
    for store in stores {
        match store.ask(Order::Restore(volume.clone())).await {
            Ok(Told::Restored(record)) => return Ok((store, record)),
            Ok(other) => bail!("{other:?} was told: this is a bug in bitts"),
            Err(StoreError::Disk(bitts_provisioner::disk::DiskError::NotTrashed(_)))
                if stores.len() > 1 =>
            {
                absent = Some(store.name());
            }
            Err(why) => return Err(why.into()),
        }
    }
    let last = absent.unwrap_or_default();
    bail!("there is no {volume} in the trash of any disk, {last} being the last")
}

/// What the volumes of a node are tied to.
async fn hostname(client: &kube::Client, node: &str) -> Result<String> {
    let path = format!("{}/{node}", collection(Kind::Node, None));
    let request = http::Request::get(path).body(Vec::new())?;
    let found: Value = client.request(request).await.context("reading the node")?;
    let label = found["metadata"]["labels"][HOSTNAME].as_str();
    let label = label.with_context(|| format!("node {node} has no label {HOSTNAME}"))?;
    Ok(label.to_owned())
}

async fn create(client: &kube::Client, manifest: &Value) -> Result<()> {
    let request = http::Request::post(collection(Kind::Volume, None))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(manifest)?)?;
    match client.request::<Value>(request).await {
        Ok(_) => {
            eprintln!("Its volume was made.");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            eprintln!("Its volume was there.");
            Ok(())
        }
        Err(error) => Err(error).context("the volume cannot be made"),
    }
}
