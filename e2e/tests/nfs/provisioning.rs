//! The provisioner of shares with the binder and the agent, on real NFS servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_e2e::raw::text;
use bitts_e2e::uml::guest::run;
use bitts_e2e::uml::server::Server;
use bitts_provisioner::ShareConfig;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::agent::{KUBELET, NODE, World, median, with_agent_and};

const PATIENCE: Duration = Duration::from_secs(4);
/// Nothing here takes as long; a test that waits for more fails.
const LONG: Duration = Duration::from_secs(60);

fn with_provisioner(
    test: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let provisioner = async |host: &bitts_runtime::Host| {
        let config = ShareConfig {
            patience: PATIENCE,
            ..ShareConfig::new()
        };
        Ok(bitts_provisioner::run_shares(host, config).await?)
    };
    with_agent_and(None, provisioner, test)
}

async fn class(
    world: &World,
    name: &str,
    server: &Server,
    export: &str,
    (options, more): (&str, Value),
) -> anyhow::Result<()> {
    let mut parameters = json!({"server": server.address(), "share": server.path(export, options)});
    let members = parameters.as_object_mut().context("no parameters")?;
    members.extend(more.as_object().cloned().unwrap_or_default());
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": name}, "provisioner": bitts_provisioner::NFS,
        "mountOptions": [options], "parameters": parameters});
    let path = "/apis/storage.k8s.io/v1/storageclasses";
    world.api.post(path, class).await?.expect(201).map(drop)
}

async fn claim(world: &World, name: &str, class: &str) -> anyhow::Result<()> {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"],
            "storageClassName": class, "resources": {"requests": {"storage": "1Ti"}}}});
    let path = world.api.claims("");
    world.api.post(&path, claim).await?.expect(201).map(drop)
}

/// Waits until an object is so; null where there is none.
pub(crate) async fn until(
    world: &World,
    path: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let start = Instant::now();
    loop {
        let answer = world.api.get(path).await?;
        let found = match answer.status {
            404 => Value::Null,
            _ => answer.expect(200)?,
        };
        if is_so(&found) {
            return Ok(found);
        }
        if start.elapsed() > LONG {
            let told = world.api.get("/api/v1/events").await?.expect(200)?;
            let told = told["items"].as_array().into_iter().flatten();
            let told: Vec<_> = told.map(|event| text(event, "/message")).collect();
            anyhow::bail!("{path}: not {what}: {found}\n{}", told.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The volume of a claim, once it is Bound.
pub(crate) async fn volume(world: &World, claim: &str) -> anyhow::Result<Value> {
    let path = world.api.claims(&format!("/{claim}"));
    let bound = |claim: &Value| text(claim, "/status/phase") == "Bound";
    let claim = until(world, &path, "Bound", bound).await?;
    let path = format!(
        "/api/v1/persistentvolumes/{}",
        text(&claim, "/spec/volumeName")
    );
    world.api.get(&path).await?.expect(200)
}

pub(crate) async fn delete(world: &World, claim: &str) -> anyhow::Result<()> {
    let path = world.api.claims(&format!("/{claim}"));
    let deleted = world.api.delete(&path, Value::Null).await?;
    deleted.expect(200).map(drop)
}

pub(crate) async fn gone(world: &World, volume: &Value) -> anyhow::Result<()> {
    let path = format!(
        "/api/v1/persistentvolumes/{}",
        text(volume, "/metadata/name")
    );
    until(world, &path, "gone", Value::is_null).await.map(drop)
}

/// Starts a pod that uses a claim; returns where its volume will be mounted.
async fn pod(world: &World, name: &str, claim: &str, volume: &Value) -> anyhow::Result<PathBuf> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "nodeName": NODE, "containers": [{"name": "main", "image": "none"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}});
    let made: Value = world.api.post(&world.pods(""), pod).await?.expect(201)?;
    let target = format!(
        "pods/{}/volumes/kubernetes.io~nfs/{}",
        text(&made, "/metadata/uid"),
        text(volume, "/metadata/name")
    );
    Ok(Path::new(KUBELET).join(target))
}

/// What is in a directory but bitts' own, sorted; nothing where there is none.
fn names(path: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != ".bitts");
    names.sort();
    Ok(names)
}

/// P12, D10: made, bound, mounted, written, deleted; with every version of the protocol, and each way
/// in which data is deleted.
pub(crate) fn a_claim_has_a_directory_on_a_share() -> anyhow::Result<()> {
    let server = Server::start(1, &["a", "b", "c"])?;
    with_provisioner(async |world| {
        let given = [
            ("a", "vers=4.2", json!({}), [false, false]),
            ("b", "vers=4.1", json!({"onDelete": "trash"}), [false, true]),
            (
                "c",
                "nfsvers=3",
                json!({"onDelete": "retain", "pathPattern": "${pvc.namespace}/${pv.name}",
                    "mode": "0750", "uid": "1000", "gid": "2000"}),
                [true, false],
            ),
        ];
        for (export, options, more, [stays, in_trash]) in given {
            class(world, export, &server, export, (options, more)).await?;
            let start = Instant::now();
            claim(world, export, export).await?;
            let made = volume(world, export).await?;
            println!("{options}: Bound after {:?}", start.elapsed());
            let export_path = server.export(export);
            let share = server.path(export, options);
            let path = text(&made, "/spec/nfs/path");
            let below = path.strip_prefix(&share).context("not on the share")?;
            let directory = export_path.join(below.trim_start_matches('/'));
            ensure!(directory.is_dir(), "{made}");
            ensure!(made["spec"]["mountOptions"] == json!([options]), "{made}");
            use std::os::unix::fs::MetadataExt as _;
            let meta = directory.metadata()?;
            let access = (meta.mode() & 0o7777, meta.uid(), meta.gid());
            let asked = match export {
                "c" => (0o750, 1000, 2000),
                _ => (0o777, 0, 0),
            };
            ensure!(access == asked, "{access:?}");

            let target = pod(world, export, export, &made).await?;
            world.mounted(&target).await?;
            fs::write(target.join("file"), "from the pod")?;
            ensure!(fs::read_to_string(directory.join("file"))? == "from the pod");
            world.end_pod(export).await?;
            world.unmounted(&target).await?;
            delete(world, export).await?;
            gone(world, &made).await?;
            ensure!(directory.exists() == stays, "{}", directory.display());
            let trash = export_path.join(".bitts/trash");
            let start = Instant::now();
            let data = trash.join(text(&made, "/metadata/name")).join("data/file");
            while !in_trash && !names(&trash)?.is_empty() {
                ensure!(start.elapsed() < LONG, "{:?}", names(&trash)?);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            ensure!(data.exists() == in_trash, "{}", data.display());
            for records in [".bitts/begun", ".bitts/volumes"] {
                ensure!(names(&export_path.join(records))?.is_empty());
            }
        }
        Ok(())
    })
}

/// A claim that asks for a copy of another's data has all of it, whichever way the protocol copies; what
/// both write later is their own.
pub(crate) fn a_claim_begins_as_a_copy() -> anyhow::Result<()> {
    let server = Server::start(1, &["a", "b"])?;
    with_provisioner(async |world| {
        for (export, options) in [("a", "vers=4.2"), ("b", "nfsvers=3")] {
            class(world, export, &server, export, (options, json!({}))).await?;
            claim(world, export, export).await?;
            let source = volume(world, export).await?;
            let directory = |volume: &Value| {
                let path = text(volume, "/spec/nfs/path").to_owned();
                let below = path.strip_prefix(&server.path(export, options));
                let below = below.unwrap_or_default().trim_start_matches('/');
                server.export(export).join(below)
            };
            let data: Vec<u8> = (0_u32..(5 << 20)).map(|n| (n % 251) as u8).collect();
            fs::create_dir(directory(&source).join("sub"))?;
            fs::write(directory(&source).join("sub/file"), &data)?;
            std::os::unix::fs::symlink("/etc", directory(&source).join("link"))?;
            let name = format!("copy-of-{export}");
            let copy = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"],
                    "storageClassName": export, "resources": {"requests": {"storage": "1Ti"}},
                    "dataSource": {"kind": "PersistentVolumeClaim", "name": export}}});
            let start = Instant::now();
            world
                .api
                .post(&world.api.claims(""), copy)
                .await?
                .expect(201)?;
            let copy = volume(world, &name).await?;
            println!("{options}: a copy is Bound after {:?}", start.elapsed());
            ensure!(directory(&copy) != directory(&source));
            ensure!(fs::read(directory(&copy).join("sub/file"))? == data);
            ensure!(fs::read_link(directory(&copy).join("link"))? == Path::new("/etc"));
            fs::write(directory(&copy).join("sub/file"), "its own")?;
            ensure!(fs::read(directory(&source).join("sub/file"))? == data);
            delete(world, export).await?;
            gone(world, &source).await?;
            ensure!(fs::read(directory(&copy).join("sub/file"))? == b"its own");
            delete(world, &name).await?;
            gone(world, &copy).await?;
            ensure!(names(&server.export(export))?.is_empty());
        }
        Ok(())
    })
}

/// A server that refuses, hangs or dies while it is worked on: whoever waits is told, another server's
/// claims are made as ever, and when it is back all is made and deleted.
pub(crate) fn a_dead_server_is_told_to_who_waits() -> anyhow::Result<()> {
    let well = Server::start(1, &["a"])?;
    let mut ill = Server::start(2, &["a"])?;
    with_provisioner(async |world| {
        class(world, "well", &well, "a", ("vers=4.2", json!({}))).await?;
        class(world, "ill", &ill, "a", ("vers=4.2", json!({}))).await?;
        // Ahead of the trouble, so that it is met in the middle.
        claim(world, "before", "ill").await?;
        let before = volume(world, "before").await?;
        let troubles = [("hung", true), ("dead", false)];
        for (trouble, hangs) in troubles {
            match hangs {
                true => ill.drop_packets(true)?,
                false => ill.kill()?,
            }
            let start = Instant::now();
            let waits = format!("waits-{trouble}");
            claim(world, &waits, "ill").await?;
            for n in 0..10 {
                claim(world, &format!("{trouble}-{n}"), "well").await?;
            }
            for n in 0..10 {
                volume(world, &format!("{trouble}-{n}")).await?;
            }
            let took = start.elapsed();
            println!("{trouble}: ten claims of the other server after {took:?}");
            ensure!(took < PATIENCE, "they waited: {took:?}");
            let told = loop {
                let told = world.events(&waits).await?;
                let address = ill.address();
                let about = told.iter().find(|t| t.contains("failed to provision"));
                if let Some(about) = about.filter(|t| t.contains(&address)) {
                    break about.clone();
                }
                ensure!(start.elapsed() < LONG, "never told: {told:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            println!("{trouble}: told after {:?}: {told}", start.elapsed());
            if hangs {
                delete(world, "before").await?;
                tokio::time::sleep(PATIENCE).await;
            }
            match hangs {
                true => ill.drop_packets(false)?,
                false => ill.start_again()?,
            }
            let start = Instant::now();
            volume(world, &waits).await?;
            println!("{trouble}: made {:?} after it was back", start.elapsed());
        }
        gone(world, &before).await?;
        let left = names(&ill.export("a"))?;
        ensure!(left.len() == 2, "two claims are left: {left:?}");
        Ok(())
    })
}

/// How many claims come at once where it is measured.
const AT_ONCE: usize = 100;
/// How many times as long it may take as the least that has to be done,
const MOST: f64 = 2.0;
/// and how many calls to the server for each: a look whether the directory is there, the record as a link, the
/// directory made.
const CALLS: usize = 5;
/// Later, that the API has a volume: the link moved and read, the record written as a file and put in its place.
const CALLS_LATER: usize = 8;

/// How long a hundred volumes on a share take at once: the provisioner, beside a client that makes each
/// directory on a mount of its own, and the volume's object, and does nothing else. The binder binds for both.
pub(crate) fn a_hundred_claims_at_once() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    let options = "vers=4.2";
    let mount = Path::new("/mnt/limit");
    fs::create_dir_all(mount)?;
    let source = format!("{}:{}", server.address(), server.path("a", options));
    let mount_path = mount.display().to_string();
    run(
        "mount",
        &["-t", "nfs4", "-o", options, &source, &mount_path],
    )?;
    with_provisioner(async |world| {
        class(world, "nfs", &server, "a", (options, json!({}))).await?;
        let by_hand = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "limit"}, "provisioner": "limit.bitts.dev"});
        let path = "/apis/storage.k8s.io/v1/storageclasses";
        world.api.post(path, by_hand).await?.expect(201)?;
        let at = server.path("a", options);
        let (mut bitts, mut limit) = (Vec::new(), Vec::new());
        for round in 0..3 {
            let before = calls()?;
            let took =
                at_once(world, &format!("bitts-{round}"), "nfs", async |_, _| Ok(())).await?;
            let called = calls()? - before;
            let start = Instant::now();
            let begun = server.export("a").join(".bitts/begun");
            while !names(&begun)?.is_empty() {
                ensure!(start.elapsed() < LONG, "{:?}", names(&begun)?);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let later = calls()? - before - called;
            let least = at_once(
                world,
                &format!("limit-{round}"),
                "limit",
                async |claim, uid| {
                    let name = format!("pvc-{uid}");
                    let directory = mount.join(&name);
                    tokio::task::spawn_blocking(move || fs::create_dir(directory)).await??;
                    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
                    "metadata": {"name": name,
                        "annotations": {"pv.kubernetes.io/provisioned-by": "limit.bitts.dev"}},
                    "spec": {"capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteMany"],
                        "storageClassName": "limit", "persistentVolumeReclaimPolicy": "Retain",
                        "nfs": {"server": server.address(), "path": format!("{at}/{name}")},
                        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                            "namespace": world.api.namespace(), "name": claim, "uid": uid}}});
                    let path = "/api/v1/persistentvolumes";
                    world.api.post(path, volume).await?.expect(201).map(drop)
                },
            )
            .await?;
            // The first of both mounts and looks around.
            if round > 0 {
                println!("{called} calls to the server, {later} later");
                ensure!(called <= CALLS * AT_ONCE, "{called} calls to the server");
                ensure!(later <= CALLS_LATER * AT_ONCE, "{later} calls later");
                bitts.push(took);
                limit.push(least);
            }
        }
        let (bitts, limit) = (
            median(&mut bitts).as_secs_f64(),
            median(&mut limit).as_secs_f64(),
        );
        let ratio = bitts / limit;
        println!(
            "{AT_ONCE} claims: {bitts:.3} s, the least {limit:.3} s: {ratio:.2} times as long"
        );
        ensure!(ratio <= MOST, "{ratio:.2} times as long as the least");
        Ok(())
    })
}

/// How many calls the kernel's client made so far.
fn calls() -> anyhow::Result<usize> {
    let counted = fs::read_to_string("/proc/net/rpc/nfs")?;
    let mut lines = counted.lines();
    let calls = lines.find_map(|line| line.strip_prefix("rpc ")?.split(' ').next());
    Ok(calls.context("no calls are counted")?.parse()?)
}

/// Has claims made at once, and what makes their volumes beside the provisioner; how long until all are Bound.
async fn at_once(
    world: &World,
    prefix: &str,
    class: &str,
    make: impl AsyncFn(&str, &str) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let all = stream::iter(0..AT_ONCE).map(|n| {
        let (name, make) = (format!("{prefix}-{n}"), &make);
        async move {
            let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"],
                    "storageClassName": class, "resources": {"requests": {"storage": "1Ti"}}}});
            let made = world
                .api
                .post(&world.api.claims(""), claim)
                .await?
                .expect(201)?;
            make(&name, text(&made, "/metadata/uid")).await
        }
    });
    all.buffer_unordered(32).try_collect::<Vec<()>>().await?;
    let path = world.api.claims("");
    until(world, &path, "all Bound", |list| {
        let claims = list["items"].as_array().into_iter().flatten();
        let of_this = claims.filter(|c| text(c, "/metadata/name").starts_with(prefix));
        of_this
            .filter(|c| text(c, "/status/phase") == "Bound")
            .count()
            == AT_ONCE
    })
    .await?;
    Ok(start.elapsed())
}
