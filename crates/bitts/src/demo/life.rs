//! The story itself: the seed's volume, claim and pod from the first to the last step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::DeleteParams;
use kube::{Api, Client, ResourceExt as _};

use super::ground::Ground;
use super::story::{Moment, Step, Story};
use super::{manifests, table};

/// Where the seed's volume keeps its data.
const DATA: &str = "/data/pv";
const KUBELET: &str = "/var/lib/kubelet";
const FILE: &str = "hello";
const MESSAGE: &str = "written through the pod's directory\n";

const VOLUME: &str = "cqh";
const CLAIM: &str = "default/cqh";
const POD: &str = "default/cqh";

const fn volume(step: Step) -> Moment<'static> {
    Moment {
        step,
        kind: "PersistentVolume",
        name: VOLUME,
    }
}

const fn claim(step: Step) -> Moment<'static> {
    Moment {
        step,
        kind: "PersistentVolumeClaim",
        name: CLAIM,
    }
}

const fn pod(step: Step) -> Moment<'static> {
    Moment {
        step,
        kind: "Pod",
        name: POD,
    }
}

/// Tells the life of the seed's claim.
pub(crate) async fn tell(client: &Client, story: &Story, ground: &Ground) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());

    volumes
        .create(
            &Default::default(),
            &serde_json::from_value(manifests::volume()?)?,
        )
        .await?;
    story.wait(volume(Step::Available)).await?;
    claims
        .create(
            &Default::default(),
            &serde_json::from_value(manifests::claim()?)?,
        )
        .await?;
    story.wait(claim(Step::Bound)).await?;
    let created = pods
        .create(
            &Default::default(),
            &serde_json::from_value(manifests::pod()?)?,
        )
        .await?;
    story.wait(pod(Step::Mounted)).await?;

    if ground.is_real() {
        let uid = created.uid().context("the API gave the pod no uid")?;
        prove(story, &pod_directory(&uid))?;
    } else {
        story.say("Nothing was written: without the mount there is no directory to write to.")?;
    }

    story.say("")?;
    story.say(&table::get(client, "persistentvolumes").await?)?;
    story.say(&table::get(client, "namespaces/default/persistentvolumeclaims").await?)?;
    let bound = story.between(claim(Step::ClaimCreated), claim(Step::Bound));
    let mounted = story.between(pod(Step::PodCreated), pod(Step::Mounted));
    if let (Some(bound), Some(mounted)) = (bound, mounted) {
        let (bound, mounted) = (bound.as_secs_f64() * 1e3, mounted.as_secs_f64() * 1e3);
        story.say(&format!(
            "From claim created to bound: {bound:.1} ms; from pod created to mounted: {mounted:.1} ms.\n\
             Now the way back: the pod is deleted, then the claim.\n"
        ))?;
    }

    pods.delete(&created.name_any(), &DeleteParams::default())
        .await?;
    story.wait(pod(Step::Unmounted)).await?;
    claims.delete("cqh", &DeleteParams::default()).await?;
    story.wait(volume(Step::Released)).await?;
    let why = story.wait(volume(Step::Failed)).await?;
    let kept = ground.is_real().then(kept).transpose()?;
    story.step(Step::Done, "PersistentVolume", VOLUME, "the story is told")?;

    story.say("")?;
    story.say(&table::get(client, "persistentvolumes").await?)?;
    story.say(&afterword(&why, kept))?;
    Ok(())
}

/// Writes through the pod's directory and reads at the volume's path.
fn prove(story: &Story, directory: &Path) -> Result<()> {
    let written = directory.join(FILE);
    fs::write(&written, MESSAGE).with_context(|| format!("writing {}", written.display()))?;
    story.step(Step::Written, "Pod", POD, &written.display().to_string())?;
    let read = Path::new(DATA).join(FILE);
    let text = fs::read_to_string(&read).with_context(|| format!("reading {}", read.display()))?;
    ensure!(
        text == MESSAGE,
        "{} holds {text:?}, not what the pod wrote",
        read.display()
    );
    story.step(
        Step::Read,
        "PersistentVolume",
        VOLUME,
        &format!("{}: {}", read.display(), text.trim_end()),
    )?;
    Ok(())
}

fn pod_directory(uid: &str) -> PathBuf {
    [
        KUBELET,
        "pods",
        uid,
        "volumes/kubernetes.io~local-volume",
        VOLUME,
    ]
    .iter()
    .collect()
}

/// Checks that the data outlived the claim; gives its size in bytes.
fn kept() -> Result<u64> {
    let file = Path::new(DATA).join(FILE);
    let metadata = fs::metadata(&file);
    Ok(metadata
        .with_context(|| format!("{} did not outlive the claim", file.display()))?
        .len())
}

fn afterword(why: &str, kept: Option<u64>) -> String {
    let data = match kept {
        Some(bytes) => format!("{DATA}/{FILE} is still there, {bytes} bytes"),
        None => format!("{DATA} would be as the pod left it"),
    };
    format!(
        "\
What happened to the data: nothing. The claim is gone and the policy says Delete, but bitts did
not make this volume, so it does not touch what is in it: {data}.
The volume says: {why}.

What an operator can do next:
  keep the data, drop the volume     kubectl delete pv {VOLUME}
  offer the volume again, data and   kubectl patch pv {VOLUME} --type=json \\
  all, to whoever claims it next       -p '[{{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}}]'
A claim made anew under the same name does not get it back by itself: it is another claim."
    )
}
