//! The real bitts binary, killed again and again in the middle of binding, reclaiming and deleting:
//! what it leaves is what one that was never killed leaves. And how soon another takes over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_e2e::cluster::Kind;
use bitts_e2e::control_plane::Component;
use bitts_e2e::raw::{Request, text};
use bitts_e2e::real::RealApi;
use bitts_e2e::suite::Suite;
use serde_json::{Value, json};

/// How many pairs live through it.
const PAIRS: usize = 200;
/// How often the binder is killed unless BITTS_E2E_KILLS says otherwise.
const KILLS: u64 = 10;
/// How long a life may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own("binder::killed_at_any_moment", &[Kind::Real], |_| {
        killed_at_any_moment()
    });
    suite.add_own("binder::another_takes_over", &[Kind::Real], |_| {
        another_takes_over()
    });
}

/// B22, D3: no write is the last one that a process may die after.
async fn killed_at_any_moment() -> anyhow::Result<()> {
    let kills = match std::env::var("BITTS_E2E_KILLS") {
        Ok(text) => text.parse().context("BITTS_E2E_KILLS")?,
        Err(_) => KILLS,
    };
    let api = RealApi::start().await?;
    let flags = ["--leader-elect=false"];
    let mut binder = Component::binder(api.kubeconfig(), &flags)?;
    let calm = life(&api, &mut binder, "calm", 0).await;
    let calm = calm.map_err(|why| binder.explain(why))?;
    as_expected(&calm)?;
    let wild = life(&api, &mut binder, "wild", kills).await;
    let wild = wild.map_err(|why| binder.explain(why))?;
    for (name, left) in &calm {
        ensure!(
            wild.get(name) == Some(left),
            "{name} ends as {:#?}, without kills as {left:#?}",
            wild.get(name)
        );
    }
    ensure!(calm.len() == wild.len(), "{:?}", wild.keys());
    eprintln!("killed {kills} times: {} objects end the same", calm.len());
    Ok(())
}

/// Creates pairs, deletes every third claim again, and kills the binder meanwhile. Returns what is
/// left by name, without what differs from life to life.
async fn life(
    api: &RealApi,
    binder: &mut Component,
    class: &str,
    kills: u64,
) -> anyhow::Result<BTreeMap<String, Value>> {
    let client = api.client().await?;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let volumes = "/api/v1/persistentvolumes";
    let mut chance = Chance(kills + 7);
    let rounds = usize::try_from(kills)?.max(1);
    let (mut next, mut doomed) = (0, 0);
    for round in 1..=rounds {
        let until = PAIRS * round / rounds;
        for at in next..until {
            // Each claim fits one volume only, so that the order in which they are served is no matter.
            let size = format!("{}Mi", at + 1);
            let policy = if at % 2 == 0 { "Retain" } else { "Delete" };
            let name = format!("{class}-{at:03}");
            let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": name, "labels": {"pair": name}},
                "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteMany"],
                    "storageClassName": class, "persistentVolumeReclaimPolicy": policy,
                    "nfs": {"server": "nfs.example", "path": format!("/{name}")}}});
            let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": {"resources": {"requests": {"storage": size}}, "storageClassName": class,
                    "accessModes": ["ReadWriteMany"],
                    "selector": {"matchLabels": {"pair": name}}}});
            post(&client, volumes, volume).await?;
            post(&client, claims, claim).await?;
        }
        next = until;
        if kills > 0 {
            tokio::time::sleep(Duration::from_millis(chance.below(700))).await;
            binder.restart()?; // SIGKILL first
        }
        // Claims that were bound by now are deleted while the next ones are being bound.
        while doomed < next.saturating_sub(PAIRS / rounds) {
            delete_bound(&client, &format!("{claims}/{class}-{doomed:03}")).await?;
            doomed += 3;
        }
    }
    while doomed < PAIRS {
        delete_bound(&client, &format!("{claims}/{class}-{doomed:03}")).await?;
        doomed += 3;
    }
    at_rest(&client, &[volumes, claims], class).await
}

/// Every third claim is gone, and its volume waits for the operator or could not be deleted; all others
/// are Bound.
fn as_expected(left: &BTreeMap<String, Value>) -> anyhow::Result<()> {
    for (name, object) in left {
        let at: usize = text(object, "/spec/capacity/storage")
            .trim_end_matches("Mi")
            .parse()
            .unwrap_or(1);
        let phase = match (at - 1) % 6 {
            0 => "Released",
            3 => "Failed",
            _ => "Bound",
        };
        let is_claim = object["spec"]["capacity"].is_null();
        let expected = if is_claim { "Bound" } else { phase };
        let found = text(object, "/status/phase");
        ensure!(found == expected, "{name} is {found}, not {expected}");
    }
    let gone = PAIRS.div_ceil(3);
    ensure!(left.len() == 2 * PAIRS - gone, "{} objects", left.len());
    Ok(())
}

/// Deletes a claim once it is bound.
async fn delete_bound(client: &kube::Client, path: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let get = Request::new("GET", path, Value::Null);
        let claim = get.send(client).await?.expect(200)?;
        if text(&claim, "/status/phase") == "Bound" {
            break;
        }
        ensure!(start.elapsed() < PATIENCE, "not Bound in time: {claim:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let delete = Request::new("DELETE", path, Value::Null);
    delete.send(client).await?.expect(200).map(drop)
}

async fn post(client: &kube::Client, path: &str, body: Value) -> anyhow::Result<()> {
    let request = Request::new("POST", path, body);
    request.send(client).await?.expect(201).map(drop)
}

/// What is left when nothing has changed for two seconds and all pairs are through.
async fn at_rest(
    client: &kube::Client,
    paths: &[&str],
    class: &str,
) -> anyhow::Result<BTreeMap<String, Value>> {
    let start = Instant::now();
    let mut before = None;
    loop {
        let mut all = BTreeMap::new();
        for path in paths {
            let list = Request::new("GET", path, Value::Null);
            let list = list.send(client).await?.expect(200)?;
            let items = list["items"].as_array().context("a list has items")?;
            let ours = items
                .iter()
                .filter(|o| o["spec"]["storageClassName"] == class);
            for object in ours {
                let name = text(object, "/metadata/name").replacen(class, "life", 1);
                all.insert(format!("{path} {name}"), object.clone());
            }
        }
        let under_way = |o: &Value| {
            let phase = text(o, "/status/phase");
            phase == "Pending"
                || phase == "Available"
                || !o["metadata"]["deletionTimestamp"].is_null()
        };
        if before.as_ref() == Some(&all) && !all.values().any(under_way) {
            let owners = uids(&all);
            return Ok(all
                .into_iter()
                .map(|(name, object)| (name, essence(&object, class, &owners)))
                .collect());
        }
        let late = all.values().find(|o| under_way(o));
        ensure!(start.elapsed() < PATIENCE, "no rest; {late:#?}");
        before = Some(all);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Whose uid is whose.
fn uids(all: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    all.iter()
        .map(|(name, o)| (text(o, "/metadata/uid").to_owned(), name.clone()))
        .collect()
}

/// An object without versions, times and the name of its life.
fn essence(object: &Value, class: &str, owners: &BTreeMap<String, String>) -> Value {
    let mut left = json!({
        "annotations": object["metadata"]["annotations"],
        "finalizers": object["metadata"]["finalizers"],
        "spec": object["spec"],
        "status": object["status"],
    });
    if let Some(status) = left["status"].as_object_mut() {
        status.remove("lastPhaseTransitionTime");
        for condition in status
            .get_mut("conditions")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            condition["lastTransitionTime"] = Value::Null;
        }
    }
    if let Some(owner) = left["spec"]["claimRef"].as_object_mut() {
        owner.remove("resourceVersion");
        let uid = owner["uid"].as_str().unwrap_or_default();
        let whose = owners.get(uid).map_or("one that is gone", String::as_str);
        owner.insert("uid".to_owned(), whose.into());
    }
    let text = left.to_string().replace(class, "life");
    serde_json::from_str(&text).unwrap_or(left)
}

/// Delays that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// How long a lease lasts from its last renewal.
const LEASE: Duration = Duration::from_secs(15);

/// B31: with the lease, one binds and the other waits; it takes over when the first ends or dies. One
/// that ends gives the lease back: the other need not wait until it has run out.
async fn another_takes_over() -> anyhow::Result<()> {
    let api = RealApi::start().await?;
    let flags = ["--lease-namespace=default"];
    let mut first = Component::binder(api.kubeconfig(), &flags)?;
    bound(&api, "a").await.map_err(|why| first.explain(why))?;
    let mut second = Component::binder(api.kubeconfig(), &flags)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let printed = second.printed();
    let waits = printed.contains("waiting for the lease") && !printed.contains("got the lease");
    ensure!(waits, "one at a time: {printed}");
    let start = Instant::now();
    first.terminate()?;
    let status = first.wait(PATIENCE).await?;
    ensure!(status.success(), "SIGTERM ends it with {status}");
    bound(&api, "b").await.map_err(|why| second.explain(why))?;
    let handed_over = start.elapsed();
    first.restart()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let start = Instant::now();
    second.kill();
    bound(&api, "c").await.map_err(|why| first.explain(why))?;
    let taken = start.elapsed();
    eprintln!("after SIGTERM a claim is bound in {handed_over:?}, after SIGKILL in {taken:?}");
    ensure!(
        handed_over < LEASE / 2,
        "SIGTERM handed over after {handed_over:?} only"
    );
    // A try to take it comes each second.
    ensure!(taken < 2 * LEASE, "taken over after {taken:?}");
    Ok(())
}

/// Creates a pair and waits until it is bound.
async fn bound(api: &RealApi, name: &str) -> anyhow::Result<()> {
    let client = api.client().await?;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "over"});
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name}, "spec": spec});
    volume["spec"]["capacity"] = json!({"storage": "1Gi"});
    volume["spec"]["nfs"] = json!({"server": "nfs.example", "path": "/"});
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name}, "spec": spec});
    claim["spec"]["resources"] = json!({"requests": {"storage": "1Gi"}});
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    post(&client, "/api/v1/persistentvolumes", volume).await?;
    post(&client, claims, claim).await?;
    let path = format!("{claims}/{name}");
    let start = Instant::now();
    loop {
        let get = Request::new("GET", &path, Value::Null);
        let claim = get.send(&client).await?.expect(200)?;
        if text(&claim, "/status/phase") == "Bound" {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "not Bound in time: {claim:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
