//! `bitts recreate`: a claim whose data lies on a node that is gone, made anew and empty.
//!
//! The claim has to be deleted for that, and must not be lost when this is cut off: until it is there again
//! its volume says what it is to be. So the command may be run again at any time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bitts_api::{Kind, Name, Namespace, names};
use http::Method;
use kube::Client;
use serde_json::{Value, json};

use crate::read::collection;

/// How often it is looked whether the old claim is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often it is told what keeps it.
const TELL_AGAIN: u32 = 10;
/// Annotations that say how far the old claim came.
const OF_BINDING: [&str; 5] = [
    names::BIND_COMPLETED,
    names::BOUND_BY_CONTROLLER,
    names::SELECTED_NODE,
    names::STORAGE_PROVISIONER,
    names::BETA_STORAGE_PROVISIONER,
];

/// `bitts recreate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The claim: NAMESPACE/NAME.
    #[arg(value_name = "CLAIM", value_parser = claim)]
    claim: (Namespace, Name),

    /// Do it, instead of only telling what would be done. What is on the node's disk is given up.
    #[arg(long)]
    apply: bool,

    /// The cluster [default: KUBECONFIG, the usual file, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
}

fn claim(text: &str) -> Result<(Namespace, Name), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.into(), name.into()))
        }
        _ => Err("no NAMESPACE/NAME".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(recreate(args))
}

async fn recreate(args: &Args) -> Result<ExitCode> {
    let client = bitts_runtime::connect(args.kubeconfig.as_deref()).await?;
    let api = Api { client };
    let (namespace, name) = &args.claim;
    let path = format!("{}/{name}", collection(Kind::Claim, Some(namespace)));
    let claim = api.get(&path).await?;
    // What was begun goes first: by now its claim may be there again, and have another volume.
    let begun = api.volume_that_recreates(namespace, name).await?;
    let volume = match (begun, &claim) {
        (None, Some(claim)) => api.volume_of(claim).await?,
        (begun, _) => begun,
    };
    let volume = volume.with_context(|| match claim {
        Some(_) => format!("claim {namespace}/{name} has no volume: there is nothing to give up"),
        None => format!(
            "there is no claim {namespace}/{name}, and no volume from which it is to be made"
        ),
    })?;
    let node = gone_node(&api, &volume).await?;
    let volume_name = text(&volume, "/metadata/name");
    if !args.apply {
        println!(
            "{namespace}/{name}: its volume {volume_name} lies on node {node}, which is gone. The claim would be \
             deleted and made anew, empty.\n\n# Nothing was changed: --apply does it."
        );
        return Ok(ExitCode::SUCCESS);
    }
    let volume_path = format!("{}/{volume_name}", collection(Kind::Volume, None));
    let manifest = match volume["metadata"]["annotations"][names::RECREATES].as_str() {
        Some(begun) => serde_json::from_str(begun).context("what the volume says of its claim")?,
        None => {
            let claim = claim.as_ref().context("the claim went meanwhile")?;
            let manifest = anew(claim);
            let note = json!({names::RECREATES: manifest.to_string()});
            api.annotate(&volume_path, &volume, note).await?;
            manifest
        }
    };
    if let Some(claim) = claim.filter(|claim| is_of(&volume, claim)) {
        api.delete(&path, &claim).await?;
        api.until_gone(&path, namespace, name, &claim).await?;
        println!("{namespace}/{name}: deleted");
    }
    match api
        .create(&collection(Kind::Claim, Some(namespace)), &manifest)
        .await?
    {
        true => println!("{namespace}/{name}: made anew"),
        false => println!("{namespace}/{name}: somebody made it anew already"),
    }
    if let Some(volume) = api.get(&volume_path).await? {
        api.annotate(&volume_path, &volume, json!({names::RECREATES: null}))
            .await?;
    }
    println!("{volume_name}: given up; the role lost-nodes deletes it");
    Ok(ExitCode::SUCCESS)
}

/// The node that a volume lies on, if that is gone and the volume's class lets its claim be made anew.
async fn gone_node(api: &Api, volume: &Value) -> Result<String> {
    let annotations = &volume["metadata"]["annotations"];
    let name = text(volume, "/metadata/name");
    let node = annotations[names::PROVISIONED_ON].as_str();
    let node = node.with_context(|| format!("volume {name} was not made by bitts on a node"))?;
    let policy = annotations[names::NODE_GONE].as_str().unwrap_or("keep");
    ensure!(
        policy == "recreate",
        "the class of volume {name} says nodeGone: {policy}. If its data may be given up, say so first: \
         kubectl annotate pv {name} {}=recreate --overwrite",
        names::NODE_GONE
    );
    let there = api
        .get(&format!("{}/{node}", collection(Kind::Node, None)))
        .await?;
    if there.is_some() {
        bail!(
            "node {node}, on which volume {name} lies, is in the cluster: a node that is merely not ready is not \
             gone. If it never comes back, delete it first: kubectl delete node {node}"
        );
    }
    Ok(node.to_owned())
}

fn is_of(volume: &Value, claim: &Value) -> bool {
    volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
}

/// The claim as it was asked for, without what became of it.
fn anew(claim: &Value) -> Value {
    let meta = &claim["metadata"];
    let mut annotations = meta["annotations"].clone();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.retain(|key, _| !OF_BINDING.contains(&key.as_str()));
    }
    let mut spec = claim["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("volumeName");
    }
    let mut manifest = json!({
        "apiVersion": "v1",
        "kind": Kind::Claim.name(),
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
        "spec": spec,
    });
    for (member, value) in [
        ("labels", meta["labels"].clone()),
        ("annotations", annotations),
        ("ownerReferences", meta["ownerReferences"].clone()),
    ] {
        if !value.is_null() {
            manifest["metadata"][member] = value;
        }
    }
    manifest
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The few calls that this takes, on whole objects.
struct Api {
    client: Client,
}

impl Api {
    async fn call(&self, method: Method, path: &str, body: &Value) -> kube::Result<Value> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = match body {
            Value::Null => Vec::new(),
            body => serde_json::to_vec(body).map_err(kube::Error::SerdeError)?,
        };
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("content-type", kind).body(body);
        self.client
            .request(request.map_err(kube::Error::HttpError)?)
            .await
    }

    async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.call(Method::GET, path, &Value::Null).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {path}")),
        }
    }

    async fn volume_of(&self, claim: &Value) -> Result<Option<Value>> {
        let name = text(claim, "/spec/volumeName");
        if name.is_empty() {
            return Ok(None);
        }
        let path = format!("{}/{name}", collection(Kind::Volume, None));
        Ok(self.get(&path).await?.filter(|volume| is_of(volume, claim)))
    }

    /// The volume that says what the claim is to be.
    async fn volume_that_recreates(
        &self,
        namespace: &Namespace,
        name: &Name,
    ) -> Result<Option<Value>> {
        let all = self
            .get(&collection(Kind::Volume, None))
            .await?
            .unwrap_or_default();
        let mut all = all["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
            .into_iter();
        Ok(all.find(|volume| {
            let owner = &volume["spec"]["claimRef"];
            volume["metadata"]["annotations"][names::RECREATES].is_string()
                && owner["namespace"] == namespace.as_str()
                && owner["name"] == name.as_str()
        }))
    }

    async fn annotate(&self, path: &str, volume: &Value, annotations: Value) -> Result<()> {
        let meta = &volume["metadata"];
        let patch = json!({"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"],
            "annotations": annotations}});
        let done = self.call(Method::PATCH, path, &patch).await;
        done.context("noting on the volume what becomes of its claim: run it again")
            .map(drop)
    }

    async fn delete(&self, path: &str, claim: &Value) -> Result<()> {
        let options = json!({"preconditions": {"uid": claim["metadata"]["uid"]}});
        match self.call(Method::DELETE, path, &options).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).context("deleting the claim: run it again"),
        }
    }

    /// Waits for the old claim to go, and tells what keeps it.
    async fn until_gone(
        &self,
        path: &str,
        namespace: &Namespace,
        name: &Name,
        claim: &Value,
    ) -> Result<()> {
        let same = |now: &Value| now["metadata"]["uid"] == claim["metadata"]["uid"];
        for tries in 0_u32.. {
            if !self.get(path).await?.as_ref().is_some_and(same) {
                break;
            }
            if tries % TELL_AGAIN == TELL_AGAIN - 1 {
                let pods = self.users(namespace, name).await?.join(", ");
                let pods = if pods.is_empty() { "none" } else { &pods };
                eprintln!("{namespace}/{name}: waits to be deleted; pods that use it: {pods}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn users(&self, namespace: &Namespace, name: &Name) -> Result<Vec<String>> {
        let pods = self
            .get(&collection(Kind::Pod, Some(namespace)))
            .await?
            .unwrap_or_default();
        let uses = |pod: &&Value| {
            let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            volumes.any(|volume| volume["persistentVolumeClaim"]["claimName"] == name.as_str())
        };
        let pods = pods["items"].as_array().into_iter().flatten().filter(uses);
        Ok(pods
            .map(|pod| text(pod, "/metadata/name").to_owned())
            .collect())
    }

    /// Whether it was not there.
    async fn create(&self, path: &str, object: &Value) -> Result<bool> {
        match self.call(Method::POST, path, object).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).context("making the claim anew: run it again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_made_anew_as_it_was_asked_for() {
        let old = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-0", "namespace": "db", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "db"}, "finalizers": ["kubernetes.io/pvc-protection"],
                "annotations": {"pv.kubernetes.io/bind-completed": "yes", "note": "mine",
                    "volume.kubernetes.io/selected-node": "n1"}},
            "spec": {"storageClassName": "local", "volumeName": "pvc-u", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound"}});
        assert_eq!(
            anew(&old),
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data-0", "namespace": "db", "labels": {"app": "db"},
                    "annotations": {"note": "mine"}},
                "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}}}})
        );
    }
}
