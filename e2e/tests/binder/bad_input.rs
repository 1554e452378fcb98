//! Trouble from all sides: claims that nothing satisfies, annotations and references that mean nothing,
//! an API that throttles, rights that are missing. Each is told once, nothing is lost, nobody spins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_binder::Options;
use bitts_e2e::audit::Audit;
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::control_plane::Component;
use bitts_e2e::raw::text;
use bitts_e2e::real::RealApi;
use bitts_e2e::suite::{Manner, Suite};
use bitts_e2e::throttle::Throttle;
use bitts_runtime::Host;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use crate::scene::{claim, class, create, is_bound, of_class, until, until_told, until_within};

/// How many claims are never satisfied.
const CLAIMS: usize = 2_000;
/// How long nothing may be asked for once all is told.
const QUIET: Duration = Duration::from_secs(20);
const VOLUMES: &str = "/api/v1/persistentvolumes";

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own(
        "binder::what_nothing_satisfies_is_told_once",
        &[Kind::Real],
        |_| what_nothing_satisfies_is_told_once(),
    );
    suite.add_own(
        "binder::a_refused_write_is_told_and_heals",
        &[Kind::Real],
        |_| a_refused_write_is_told_and_heals(),
    );
    suite.add(
        "binder::a_throttled_bind_waits_as_long_as_asked",
        Kind::BOTH,
        Manner::Alone,
        a_throttled_bind_waits_as_long_as_asked,
    );
}

/// A real API that notes what it is asked for.
async fn audited() -> anyhow::Result<(Audit, Arc<Cluster>)> {
    let audit = Audit::new()?;
    let flags = audit.flags();
    let api = RealApi::start_with(&flags.each_ref().map(String::as_str)).await?;
    Ok((audit, Arc::new(Cluster::Real(Box::new(api)))))
}

/// What bitts has asked for, without watches, which are asked for again every two minutes.
fn asked(audit: &Audit) -> anyhow::Result<Vec<String>> {
    let all = audit.asked_by("bitts/")?.into_iter();
    Ok(all
        .filter(|one| one.verb != "watch")
        .map(|one| format!("{} {}: {}", one.verb, one.uri, one.status))
        .collect())
}

/// Section 13, weakness 48: thousands of claims and every kind of nonsense are told once each, and
/// then there is silence; another reason is one event more.
async fn what_nothing_satisfies_is_told_once() -> anyhow::Result<()> {
    let (audit, cluster) = audited().await?;
    let kubeconfig = cluster.kubeconfig().context("a real API has one")?;
    let mut binder = Component::binder(kubeconfig, &["--leader-elect=false"])?;
    let story = async {
        nonsense(&Scope::new(cluster.clone()).await?).await?;
        storm(&Scope::new(cluster.clone()).await?, &audit).await
    };
    story.await.map_err(|why| binder.explain(why))?;
    ensure!(binder.ended()?.is_none(), "it still runs");
    let printed = binder.printed();
    ensure!(!printed.contains("panicked"), "{printed}");
    Ok(())
}

async fn storm(api: &Scope, audit: &Audit) -> anyhow::Result<()> {
    const FEW: usize = 5;
    stream::iter(0..CLAIMS)
        .map(|n| {
            let base = if n < FEW { "few" } else { "missing" };
            async move { claim(api, &format!("c-{n:04}"), of_class(api, base)).await }
        })
        .buffer_unordered(16)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let told = told_in_the_end(api, CLAIMS).await?;
    let each_once = |told: &BTreeMap<String, Vec<String>>| {
        told.values()
            .all(|reasons| *reasons == ["ProvisioningFailed"])
    };
    ensure!(each_once(&told), "{told:?}");
    // What changes nothing for them: labels, and a volume that suits nobody.
    for n in 0..4 * FEW {
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        let path = api.claims(&format!("/c-{n:04}"));
        api.merge(&path, label).await?.expect(200)?;
    }
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": api.name("small")},
        "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": api.name("missing"), "persistentVolumeReclaimPolicy": "Retain",
            "nfs": {"server": "nfs.example", "path": "/"}}});
    create(api, VOLUMES, body).await?;
    let settled = silence(audit).await?;
    let after = told_in_the_end(api, CLAIMS).await?;
    ensure!(told == after, "told again");
    eprintln!("{CLAIMS} claims: {settled} requests, then none for {QUIET:?}");

    // A reason that changes for a few.
    class(api, "few", json!({"provisioner": "example.com/disk"})).await?;
    for n in 0..FEW {
        until_told(api, &format!("c-{n:04}"), "ExternalProvisioning").await?;
    }
    let told = told_in_the_end(api, CLAIMS + FEW).await?;
    let more = told
        .values()
        .filter(|reasons| **reasons == ["ProvisioningFailed", "ExternalProvisioning"]);
    ensure!(more.count() == FEW, "{told:?}");
    Ok(())
}

/// The reasons that each claim was told, once there are so many events; it fails if there are more.
async fn told_in_the_end(
    api: &Scope,
    events: usize,
) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let path = format!("/api/v1/namespaces/{}/events", api.namespace());
    let count = |all: &Value| all["items"].as_array().map_or(0, Vec::len);
    let all = until(api, &path, "all are told", |all| count(all) >= events).await?;
    ensure!(count(&all) == events, "{} events", count(&all));
    let mut told: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for event in all["items"].as_array().into_iter().flatten() {
        ensure!(event["count"] == json!(1), "{event}");
        let version = text(event, "/metadata/resourceVersion").parse()?;
        let about = text(event, "/involvedObject/name").to_owned();
        let reason = text(event, "/reason").to_owned();
        told.entry(about).or_default().push((version, reason));
    }
    let in_order = |mut reasons: Vec<(u64, String)>| {
        reasons.sort();
        reasons.into_iter().map(|(_, reason)| reason).collect()
    };
    Ok(told.into_iter().map(|(k, v)| (k, in_order(v))).collect())
}

/// Waits until bitts asks for nothing any more, and sees that it stays so. Returns how much it asked
/// for in all.
async fn silence(audit: &Audit) -> anyhow::Result<usize> {
    let mut before = asked(audit)?.len();
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = asked(audit)?.len();
        if now == before {
            break;
        }
        before = now;
    }
    tokio::time::sleep(QUIET).await;
    let all = asked(audit)?;
    ensure!(all.len() == before, "still asked for: {:?}", &all[before..]);
    Ok(before)
}

/// Every kind of nonsense that the API admits; others are bound meanwhile.
async fn nonsense(api: &Scope) -> anyhow::Result<()> {
    let volume = async |base: &str, annotations: Value, spec: Value| {
        let mut body = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": api.name(base), "annotations": annotations},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": api.name(base), "persistentVolumeReclaimPolicy": "Delete",
                "nfs": {"server": "nfs.example", "path": "/"}}});
        for (field, value) in spec.as_object().into_iter().flatten() {
            body["spec"][field] = value.clone();
        }
        create(api, VOLUMES, body).await
    };
    let asking = async |name: &str, annotations: Value, spec: Value| {
        let mut body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "annotations": annotations}, "spec": of_class(api, name)});
        for (field, value) in spec.as_object().into_iter().flatten() {
            body["spec"][field] = value.clone();
        }
        create(api, &api.claims(""), body).await
    };
    let phase = async |name: &str| -> anyhow::Result<String> {
        let found = api
            .get(&api.claims(&format!("/{name}")))
            .await?
            .expect(200)?;
        Ok(text(&found, "/status/phase").to_owned())
    };
    let none = || json!({});

    // B20.4: a size that is none is told, and the real one taken.
    let lots = json!({"volume.alpha.kubernetes.io/pre-resize-capacity": "lots"});
    volume("size", lots, none()).await?;
    asking("size", none(), none()).await?;
    // B15: a volume that is for a claim of another namespace.
    let elsewhere = json!({"claimRef": {"namespace": "elsewhere", "name": "theirs"}});
    volume("theirs", none(), elsewhere).await?;
    asking("theirs", none(), json!({"volumeName": api.name("theirs")})).await?;
    // B24: references that denote nothing, or somebody who never was.
    volume("uid-only", none(), json!({"claimRef": {"uid": "u"}})).await?;
    asking("uid-only", none(), none()).await?;
    volume(
        "name-only",
        none(),
        json!({"claimRef": {"name": "name-only"}}),
    )
    .await?;
    asking("name-only", none(), none()).await?;
    let wrong_uid =
        json!({"claimRef": {"namespace": api.namespace(), "name": "wrong-uid", "uid": "u"}});
    volume("wrong-uid", none(), wrong_uid).await?;
    asking("wrong-uid", none(), none()).await?;
    // B13: what says that it is bound, to nothing.
    for (name, value) in [
        ("odd-yes", "yes"),
        ("odd-maybe", "maybe"),
        ("odd-empty", ""),
    ] {
        asking(
            name,
            json!({"pv.kubernetes.io/bind-completed": value}),
            none(),
        )
        .await?;
    }
    // P12: annotations of others that say nothing.
    let empty = json!({"volume.kubernetes.io/storage-provisioner": "",
        "volume.beta.kubernetes.io/storage-provisioner": "", "pv.kubernetes.io/migrated-to": "",
        "volume.kubernetes.io/selected-node": ""});
    asking("empty", empty.clone(), none()).await?;
    let odd = json!({"pv.kubernetes.io/provisioned-by": "", "pv.kubernetes.io/migrated-to": "?",
        "pv.kubernetes.io/bound-by-controller": "maybe", "bitts.dev/recycle-on": "nowhere"});
    volume("odd", odd, none()).await?;
    asking("odd", empty, none()).await?;
    // One of those who did nothing wrong.
    volume("right", none(), none()).await?;
    asking("right", none(), none()).await?;

    for name in ["right", "size", "odd"] {
        until(
            api,
            &api.claims(&format!("/{name}")),
            "it is Bound",
            is_bound,
        )
        .await?;
    }
    let told = until_told(api, "theirs", "FailedBinding").await?;
    ensure!(told.len() == 1, "{told:?}");
    for name in ["odd-yes", "odd-maybe", "odd-empty"] {
        until_told(api, name, "ClaimLost").await?;
        ensure!(phase(name).await? == "Lost", "{name}");
    }
    for name in ["uid-only", "name-only", "wrong-uid", "empty"] {
        until_told(api, name, "ProvisioningFailed").await?;
        ensure!(phase(name).await? == "Pending", "{name}");
    }
    // Nothing was taken from whoever they are for, and each volume was told what is wrong with it.
    for base in ["theirs", "uid-only", "name-only", "wrong-uid"] {
        let found = api.get(&api.volume(base, "")).await?.expect(200)?;
        let phase = text(&found, "/status/phase");
        ensure!(["Available", "Pending"].contains(&phase), "{found}");
    }
    let path = "/api/v1/namespaces/default/events";
    for (base, reason) in [
        ("uid-only", "BittsBadClaimRef"),
        ("name-only", "BittsBadClaimRef"),
        ("wrong-uid", "BittsVolumeHeld"),
        ("size", "BittsBadAnnotation"),
    ] {
        let about = |all: &Value| {
            let all = all["items"].as_array().into_iter().flatten();
            let about = all.filter(|e| text(e, "/involvedObject/name") == api.name(base));
            about
                .map(|e| text(e, "/reason").to_owned())
                .collect::<Vec<_>>()
        };
        let told = until(api, path, reason, |all| !about(all).is_empty()).await?;
        ensure!(about(&told) == [reason], "{base}: {:?}", about(&told));
    }
    Ok(())
}

/// `Retry-After` is kept to, each write comes again until it is done, and no more often.
async fn a_throttled_bind_waits_as_long_as_asked(api: Scope) -> anyhow::Result<()> {
    const PAIRS: usize = 50;
    for n in 0..PAIRS {
        let body = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": api.name(&format!("v-{n}"))},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": api.name("class"), "persistentVolumeReclaimPolicy": "Retain",
                "nfs": {"server": "nfs.example", "path": "/"}}});
        create(&api, VOLUMES, body).await?;
        claim(&api, &format!("c-{n}"), of_class(&api, "class")).await?;
    }
    // Lists, looks and writes of each object are turned away once.
    let throttle = Throttle::new(api.client(), 1, Duration::from_secs(1));
    let host = Host::new(throttle.client());
    let binder = bitts_binder::run(&host, Options::default(), None);
    let story = async {
        let list = api.claims("");
        let all_bound = |all: &Value| {
            all["items"]
                .as_array()
                .is_some_and(|all| all.len() == PAIRS && all.iter().all(is_bound))
        };
        let ended = until(&api, &list, "all are Bound", all_bound).await;
        host.shutdown().cancel();
        ended
    };
    let (ran, ended) = tokio::join!(binder, story);
    ended?;
    ran?;
    let (passed, refused) = throttle.counts();
    eprintln!("{PAIRS} pairs: {passed} requests, {refused} were turned away first");
    ensure!(throttle.early().is_empty(), "{:?}", throttle.early());
    // Four writes of each pair, and Available before them; four paths of each pair are met.
    ensure!(refused >= 4 * PAIRS, "{refused}");
    ensure!((4 * PAIRS..=6 * PAIRS + 40).contains(&passed), "{passed}");
    Ok(())
}

/// N12: rights that are missing are named with the object, are not asked for all the time, and what
/// waited for them goes on when they are there. Each of the two writes of a pair lacks its right once;
/// an event that may not be written holds up nothing.
async fn a_refused_write_is_told_and_heals() -> anyhow::Result<()> {
    const PAIRS: usize = 20;
    let (audit, cluster) = audited().await?;
    let api = Scope::new(cluster.clone()).await?;
    let no_volumes_no_events = [
        grant("*", "*", &["get", "list", "watch"]),
        grant(
            "",
            "persistentvolumes/status persistentvolumeclaims persistentvolumeclaims/status",
            &["patch", "delete"],
        ),
        grant("authorization.k8s.io", "*", &["create"]),
    ];
    let no_claims = [
        grant("*", "*", &["get", "list", "watch", "create"]),
        grant(
            "",
            "persistentvolumes persistentvolumes/status persistentvolumeclaims/status events",
            &["patch", "delete"],
        ),
    ];
    let all = [grant("*", "*", &["*"])];
    create(&api, ROLES, limited(&no_volumes_no_events)).await?;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "limited"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole", "name": "limited"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "limited"}]});
    create(
        &api,
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        binding,
    )
    .await?;
    let may = async |rules: &[Value]| {
        let path = format!("{ROLES}/limited");
        api.put(&path, limited(rules)).await?.expect(200)
    };
    let mut config: Value = serde_json::from_str(cluster.kubeconfig().context("it has one")?)?;
    config["users"][0]["user"]["as"] = json!("limited");
    let mut binder = Component::binder(&config.to_string(), &["--leader-elect=false"])?;
    let story = async {
        let began = tokio::time::Instant::now();
        for n in 0..PAIRS {
            let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": api.name(&format!("v-{n}"))},
                "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                    "storageClassName": api.name("class"), "persistentVolumeReclaimPolicy": "Retain",
                    "nfs": {"server": "nfs.example", "path": "/"}}});
            create(&api, VOLUMES, volume).await?;
            claim(&api, &format!("c-{n}"), of_class(&api, "class")).await?;
        }
        tokio::time::sleep(QUIET).await;
        let volumes = refusals(&audit, "patch /api/v1/persistentvolumes/")?;
        let events = refusals(&audit, "create /api/v1/namespaces/")?;
        eprintln!("{PAIRS} pairs, {QUIET:?}: {volumes} volumes refused, {events} events");
        ensure!(
            (PAIRS..=8 * PAIRS).contains(&volumes),
            "{volumes} of {PAIRS}"
        );
        ensure!((PAIRS..=2 * PAIRS).contains(&events), "{events} of {PAIRS}");
        none_is_bound(&api).await?;

        may(&no_claims).await?;
        let refused = async || refusals(&audit, "patch /api/v1/namespaces/");
        let deadline = tokio::time::Instant::now() + 3 * QUIET;
        while refused().await? < PAIRS {
            ensure!(tokio::time::Instant::now() < deadline, "nobody goes on");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tokio::time::sleep(QUIET).await;
        let claims = refused().await?;
        eprintln!("then {claims} claims refused");
        ensure!(claims <= 8 * PAIRS, "{claims} of {PAIRS}");
        let told = until_told(&api, "c-0", "FailedBinding").await?;
        let named = "the API server refused bind-claim";
        ensure!(
            told.iter().any(|e| text(e, "/message").starts_with(named)),
            "{told:?}"
        );
        none_is_bound(&api).await?;

        may(&all).await?;
        let all_bound = |all: &Value| {
            all["items"]
                .as_array()
                .is_some_and(|all| all.iter().all(is_bound))
        };
        // Each rest is as long as all before it: on a machine that was slow until now, it is longer.
        let rest = began.elapsed() + Duration::from_secs(30);
        let start = std::time::Instant::now();
        until_within(rest, &api, &api.claims(""), "all are Bound", all_bound).await?;
        eprintln!(
            "all Bound {:?} after the rights were given",
            start.elapsed()
        );
        anyhow::Ok(())
    };
    story.await.map_err(|why| binder.explain(why))?;
    let printed = binder.printed();
    for named in [
        "may not patch persistentvolumes",
        "cannot patch resource \\\"persistentvolumes\\\"",
        "cannot patch resource \\\"persistentvolumeclaims\\\"",
        "an event could not be written",
    ] {
        ensure!(printed.contains(named), "{named}: {printed}");
    }
    Ok(())
}

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

/// The role of a user who may do just this.
fn limited(rules: &[Value]) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "limited"}, "rules": rules})
}

/// A rule; the resources stand with blanks between them.
fn grant(group: &str, resources: &str, verbs: &[&str]) -> Value {
    let resources: Vec<_> = resources.split(' ').collect();
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// How many requests were refused that begin like this.
fn refusals(audit: &Audit, begin: &str) -> anyhow::Result<usize> {
    let all = asked(audit)?.into_iter();
    let refused = all.filter(|one| one.starts_with(begin) && one.ends_with(": 403"));
    Ok(refused.count())
}

async fn none_is_bound(api: &Scope) -> anyhow::Result<()> {
    let claims = api.get(&api.claims("")).await?.expect(200)?;
    let all = claims["items"].as_array();
    ensure!(!all.is_some_and(|all| all.iter().any(is_bound)), "{claims}");
    Ok(())
}
