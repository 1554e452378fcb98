//! The binder on both APIs: the seed's claim is bound, also when the API goes away and comes back in
//! the middle, and when someone else writes in between, at each of the four writes.

mod bad_input;
mod classes;
mod connection;
mod kills;
mod provisioner;
mod provisioning;
mod resync;
mod scene;
mod scheduler;
mod users;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_binder::Options;
use bitts_e2e::cluster::{Kind, Scope};
use bitts_e2e::outage::Site;
use bitts_e2e::raw::{Request, text};
use bitts_e2e::suite::{Manner, Suite};
use bitts_e2e::tripwire::{Passing, Timing, Tripwire};
use bitts_runtime::Host;
use serde_json::{Value, json};

/// The four writes of a bind, in their order (B20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    ReserveVolume,
    VolumeBound,
    ClaimNamesVolume,
    ClaimBound,
}

const STEPS: [Step; 4] = [
    Step::ReserveVolume,
    Step::VolumeBound,
    Step::ClaimNamesVolume,
    Step::ClaimBound,
];

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::ReserveVolume => "volume_reserved",
            Self::VolumeBound => "volume_bound",
            Self::ClaimNamesVolume => "claim_names_volume",
            Self::ClaimBound => "claim_bound",
        }
    }

    /// Which of the four a write is, if any.
    fn of(passing: &Passing) -> Option<Self> {
        let phase = text(&passing.body, "/status/phase");
        let path = passing.line.strip_prefix("PATCH ")?;
        match (
            path.contains("/persistentvolumeclaims/"),
            path.ends_with("/status"),
        ) {
            (false, false) => path
                .contains("/persistentvolumes/")
                .then_some(Self::ReserveVolume),
            (false, true) => (phase == "Bound").then_some(Self::VolumeBound),
            (true, false) => Some(Self::ClaimNamesVolume),
            (true, true) => (phase == "Bound").then_some(Self::ClaimBound),
        }
    }
}

fn main() {
    let mut suite = Suite::default();
    suite.add(
        "binder::the_seed_is_bound",
        Kind::ALL,
        Manner::Alone,
        the_seed_is_bound,
    );
    for step in STEPS {
        let name = format!("binder::a_conflict_at_{}", step.name());
        suite.add(&name, Kind::BOTH, Manner::Alone, move |scope| {
            a_conflict_at(step, scope)
        });
        for timing in [Timing::Before, Timing::After] {
            let when = if timing == Timing::Before {
                "before"
            } else {
                "after"
            };
            let name = format!("binder::an_outage_{when}_{}", step.name());
            suite.add_own(&name, &[Kind::Served, Kind::Real], move |kind| {
                an_outage_at(step, timing, kind)
            });
        }
    }
    bad_input::add(&mut suite);
    classes::add(&mut suite);
    connection::add(&mut suite);
    kills::add(&mut suite);
    provisioning::add(&mut suite);
    resync::add(&mut suite);
    scheduler::add(&mut suite);
    users::add(&mut suite);
    suite.run()
}

async fn the_seed_is_bound(api: Scope) -> anyhow::Result<()> {
    let wire = Tripwire::new(api.client(), Timing::Before, |_| false, async || ());
    let seed = Seed::create(&api.client(), api.namespace(), &api.name("cqh")).await?;
    seed.bind(&wire, async || Ok(())).await?;
    let steps: Vec<Step> = wire.passed().iter().filter_map(Step::of).collect();
    ensure!(steps == STEPS, "{steps:?}");
    let events = api
        .get(&format!("/api/v1/namespaces/{}/events", api.namespace()))
        .await?;
    ensure!(
        events.body["items"] == json!([]),
        "the stock binder sends no events (E3): {events}"
    );
    Ok(())
}

/// Someone else writes the object just before the binder does, so that its version is stale.
async fn a_conflict_at(step: Step, api: Scope) -> anyhow::Result<()> {
    let seed = Seed::create(&api.client(), api.namespace(), &api.name("cqh")).await?;
    let path = match step {
        Step::ReserveVolume | Step::VolumeBound => seed.volume_path(),
        Step::ClaimNamesVolume | Step::ClaimBound => seed.claim_path(),
    };
    let other = api.clone();
    let interfere = async move || {
        let body = json!({"metadata": {"labels": {"someone": "else"}}});
        // A failure leaves no label, which the test finds at its end.
        let _ = other.merge(&path, body).await;
    };
    let hit = move |passing: &Passing| Step::of(passing) == Some(step);
    let wire = Tripwire::new(api.client(), Timing::Before, hit, interfere);
    let (volume, claim) = seed.bind(&wire, async || Ok(())).await?;
    ensure!(wire.tripped(), "{step:?} was never written");
    let touched = match step {
        Step::ReserveVolume | Step::VolumeBound => volume,
        Step::ClaimNamesVolume | Step::ClaimBound => claim,
    };
    ensure!(
        text(&touched, "/metadata/labels/someone") == "else",
        "{touched}"
    );
    let tries = wire
        .passed()
        .iter()
        .filter(|passing| Step::of(passing) == Some(step))
        .count();
    ensure!(
        tries > 1,
        "{step:?} was not refused: every write must carry the version it was decided on"
    );
    Ok(())
}

/// The API is killed just before a write reaches it, or just after the write took effect.
async fn an_outage_at(step: Step, timing: Timing, kind: Kind) -> anyhow::Result<()> {
    let site = Site::start(kind).await?;
    let client = site.client().await?;
    let seed = Seed::create(&client, "default", "cqh").await?;
    let doomed = site.clone();
    let hit = move |passing: &Passing| Step::of(passing) == Some(step);
    let wire = Tripwire::new(client, timing, hit, async move || doomed.kill().await);
    let watched = wire.clone();
    let bring_back = async || {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !watched.tripped() {
            ensure!(
                tokio::time::Instant::now() < deadline,
                "{step:?} was never written"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Long enough that some tries fail.
        tokio::time::sleep(Duration::from_millis(300)).await;
        site.restart().await
    };
    seed.bind(&wire, bring_back).await?;
    Ok(())
}

/// The seed: a node, a volume on it, and a claim.
struct Seed {
    client: kube::Client,
    namespace: String,
    volume: String,
    claim_uid: String,
}

impl Seed {
    async fn create(client: &kube::Client, namespace: &str, name: &str) -> anyhow::Result<Self> {
        // Without a node that can mount it, the binder warns.
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"cqh": "chenqionghe"}}});
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": {"pv": name}},
            "spec": {
                "capacity": {"storage": "100Mi"},
                "volumeMode": "Filesystem",
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": "local-storage",
                "local": {"path": "/data/pv"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "cqh", "operator": "In", "values": ["chenqionghe"]}]}]}},
            },
        });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "cqh"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "100Mi"}},
                "storageClassName": "local-storage",
                "selector": {"matchLabels": {"pv": name}},
            },
        });
        let send = async |path: &str, body: Value| {
            Request::new("POST", path, body)
                .send(client)
                .await?
                .expect(201)
        };
        send("/api/v1/nodes", node).await?;
        send("/api/v1/persistentvolumes", volume).await?;
        let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims");
        let claim = send(&path, claim).await?;
        Ok(Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            volume: name.to_owned(),
            claim_uid: text(&claim, "/metadata/uid").to_owned(),
        })
    }

    fn volume_path(&self) -> String {
        format!("/api/v1/persistentvolumes/{}", self.volume)
    }

    fn claim_path(&self) -> String {
        format!(
            "/api/v1/namespaces/{}/persistentvolumeclaims/cqh",
            self.namespace
        )
    }

    /// Runs the binder until the claim is bound, with `meanwhile` beside it, and checks the end.
    async fn bind(
        &self,
        wire: &Tripwire,
        meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<(Value, Value)> {
        let timing = bitts_runtime::Timing {
            watch_retry: Duration::from_millis(500),
            write_retry: Duration::from_millis(500),
            ..bitts_runtime::Timing::default()
        };
        let host = Host::with_timing(wire.client(), timing);
        let binder = bitts_binder::run(&host, Options::default(), None);
        let story = async {
            meanwhile().await?;
            let ended = self.bound().await;
            host.shutdown().cancel();
            ended
        };
        let (ran, ended) = tokio::join!(binder, story);
        ran?;
        let (volume, claim) = ended?;
        self.check(&volume, &claim)?;
        Ok((volume, claim))
    }

    /// Waits until both say Bound.
    async fn bound(&self) -> anyhow::Result<(Value, Value)> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let get = async |path: String| {
                Request::new("GET", &path, Value::Null)
                    .send(&self.client)
                    .await?
                    .expect(200)
            };
            let (volume, claim) = (
                get(self.volume_path()).await?,
                get(self.claim_path()).await?,
            );
            let phases = [
                text(&volume, "/status/phase"),
                text(&claim, "/status/phase"),
            ];
            if phases == ["Bound", "Bound"] {
                return Ok((volume, claim));
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "after 30 s: {phases:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end state of the seed (E3).
    fn check(&self, volume: &Value, claim: &Value) -> anyhow::Result<()> {
        let reference = volume["spec"]["claimRef"]
            .as_object()
            .context("no claimRef")?;
        ensure!(
            reference["kind"] == "PersistentVolumeClaim",
            "{reference:?}"
        );
        ensure!(reference["apiVersion"] == "v1", "{reference:?}");
        ensure!(
            reference["namespace"] == self.namespace.as_str(),
            "{reference:?}"
        );
        ensure!(reference["name"] == "cqh", "{reference:?}");
        ensure!(reference["uid"] == self.claim_uid.as_str(), "{reference:?}");
        ensure!(
            volume["metadata"]["annotations"]
                == json!({"pv.kubernetes.io/bound-by-controller": "yes"}),
            "{volume}"
        );
        ensure!(
            volume["metadata"]["finalizers"] == json!(["kubernetes.io/pv-protection"]),
            "{volume}"
        );
        ensure!(
            !text(volume, "/status/lastPhaseTransitionTime").is_empty(),
            "{volume}"
        );
        ensure!(
            claim["metadata"]["annotations"]
                == json!({
                    "pv.kubernetes.io/bind-completed": "yes",
                    "pv.kubernetes.io/bound-by-controller": "yes",
                }),
            "{claim}"
        );
        ensure!(
            claim["spec"]["volumeName"] == self.volume.as_str(),
            "{claim}"
        );
        ensure!(
            claim["status"]["accessModes"] == json!(["ReadWriteMany"]),
            "{claim}"
        );
        ensure!(
            claim["status"]["capacity"] == json!({"storage": "100Mi"}),
            "{claim}"
        );
        Ok(())
    }
}
