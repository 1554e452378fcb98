//! 200 pods with volumes come to 10 nodes and go, beside a driver that fails, takes its time and dies:
//! all run, and nothing is left over.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bitts_csi::Code;
use bitts_csi::testing::{Fate, Turn};
use bitts_e2e::cluster::Kind;
use bitts_e2e::go;
use bitts_e2e::suite::Suite;
use serde_json::json;

use crate::kubelets::{Lie, beside};
use crate::stage::{ATTACHMENTS, Chance, Stage};

const PODS: usize = 200;
const NODES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own(
        "attach::pods_come_and_go",
        &[Kind::Served, Kind::Real],
        pods_come_and_go,
    );
    suite.add_own("attach::beside_the_stock_controller", &[Kind::Real], |_| {
        beside_the_stock_controller()
    });
    suite.add_own_unless(
        "attach::beside_the_stock_sidecar",
        &[Kind::Real],
        go::missing(),
        |_| beside_the_stock_sidecar(),
    );
}

/// One call in five fails, hangs or takes long.
pub(crate) fn faults(stage: &Stage, seed: u64) {
    let mut chance = Chance(seed);
    stage.disks.decide(move |_| {
        let fate = match chance.below(100) {
            0..6 => Some(Fate::Refuses(Code::Internal)),
            6..8 => Some(Fate::Refuses(Code::ResourceExhausted)),
            8..14 => Some(Fate::DoesAndFails(Code::Unavailable)),
            14..16 => Some(Fate::Hangs),
            _ => None,
        };
        let after = match chance.below(100) {
            0..5 => 300,
            _ => 10,
        };
        Turn {
            after: Duration::from_millis(after),
            fate,
        }
    });
}

async fn pods_come_and_go(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::new(kind).await?;
    let mut bitts = stage.bitts()?;
    let scheduler = match kind {
        Kind::Real => Some(stage.scheduler()?),
        _ => None,
    };
    let story = come_and_go(&stage, kind);
    let crashes = async {
        loop {
            tokio::time::sleep(Duration::from_millis(700)).await;
            stage.crash_driver()?;
        }
    };
    let both = async {
        tokio::select! {
            ended = story => ended,
            failed = crashes => failed,
        }
    };
    let ended = beside(&stage, Lie::None, both).await;
    drop(scheduler);
    ended
        .and_then(|()| stage.check())
        .map_err(|why| bitts.explain(why))
}

async fn come_and_go(stage: &Stage, kind: Kind) -> anyhow::Result<()> {
    faults(stage, 7);
    let mut nodes = Vec::new();
    for n in 0..NODES {
        nodes.push(stage.node(&format!("n{n}")).await?);
    }
    let start = Instant::now();
    for n in 0..PODS {
        let base = format!("v{n}");
        stage.volume(&base).await?;
        // Where there is no scheduler, somebody has to place them.
        let node = (kind != Kind::Real).then(|| nodes[n % NODES].as_str());
        stage.pod(&format!("p{n}"), &base, node).await?;
    }
    let all_run = async || stage.all_run(PODS).await;
    stage.until("all pods run", PATIENCE, all_run).await?;
    let ran = start.elapsed();
    let start = Instant::now();
    for n in 0..PODS {
        stage.delete_pod(&format!("p{n}")).await?;
    }
    let left = async || stage.left().await;
    stage.until("nothing is left over", PATIENCE, left).await?;
    let calls = stage.disks.calls().len();
    eprintln!(
        "{PODS} pods run after {ran:?}, all is gone {:?} after they were deleted; {calls} calls, up \
         to {} at a time",
        start.elapsed(),
        stage.disks.most_at_once()
    );
    Ok(())
}

/// The stock attach-detach controller decides, and bitts has the driver do it (A23 to A26); the driver is
/// given the secret that a volume names.
async fn beside_the_stock_controller() -> anyhow::Result<()> {
    const FEW: usize = 6;
    let stage = Stage::new(Kind::Real).await?;
    let mut bitts = stage.roles("binder,csi-attacher")?;
    let mut stock = stage.stock()?;
    let story = async {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"},
            "stringData": {"token": "sesame"}});
        let path = format!("/api/v1/namespaces/{}/secrets", stage.api.namespace());
        stage.create(&path, secret).await?;
        let nodes = [stage.node("n0").await?, stage.node("n1").await?];
        for n in 0..FEW {
            let base = format!("v{n}");
            stage.volume_with(&base, (n == 0).then_some("key")).await?;
            stage
                .pod(&format!("p{n}"), &base, Some(&nodes[n % 2]))
                .await?;
        }
        let all_run = async || stage.all_run(FEW).await;
        stage.until("all pods run", PATIENCE, all_run).await?;
        let first = stage.api.name("v0");
        for call in stage.disks.calls() {
            let token = call.secrets.get("token").map(String::as_str);
            let expected = (call.volume == first).then_some("sesame");
            ensure!(token == expected, "{call:?}");
        }
        for n in 0..FEW {
            stage.delete_pod(&format!("p{n}")).await?;
        }
        let left = async || stage.left().await;
        stage.until("nothing is left over", PATIENCE, left).await
    };
    let ended = beside(&stage, Lie::None, story).await;
    ended
        .and_then(|()| stage.check())
        .map_err(|why| stock.explain(bitts.explain(why)))
}

/// bitts decides, and the stock external-attacher has the driver do it.
async fn beside_the_stock_sidecar() -> anyhow::Result<()> {
    const FEW: usize = 6;
    let stage = Stage::new(Kind::Real).await?;
    let mut stock = stage.stock_sidecar()?;
    let mut bitts = stage.roles("binder,attacher")?;
    let story = async {
        let nodes = [stage.node("n0").await?, stage.node("n1").await?];
        for n in 0..FEW {
            let base = format!("v{n}");
            stage.volume(&base).await?;
            stage
                .pod(&format!("p{n}"), &base, Some(&nodes[n % 2]))
                .await?;
        }
        let all_run = async || stage.all_run(FEW).await;
        stage.until("all pods run", PATIENCE, all_run).await?;
        // Each volume to the other node.
        for n in 0..FEW {
            stage.delete_pod(&format!("p{n}")).await?;
            let node = Some(nodes[(n + 1) % 2].as_str());
            stage.pod(&format!("q{n}"), &format!("v{n}"), node).await?;
        }
        let moved = async || {
            let attached = stage.disks.attached();
            let on = |n: usize| {
                let volume = stage.api.name(&format!("v{n}"));
                attached.contains(&(volume, format!("id-{}", nodes[(n + 1) % 2])))
            };
            let all = attached.len() == FEW && (0..FEW).all(on);
            Ok((!all).then(|| format!("{attached:?}")))
        };
        stage.until("all have moved", PATIENCE, moved).await?;
        stage.until("all pods run", PATIENCE, all_run).await?;
        for n in 0..FEW {
            stage.delete_pod(&format!("q{n}")).await?;
        }
        // It lets go of volumes only when they are deleted.
        let gone = async || {
            let all = stage.list(ATTACHMENTS).await?;
            Ok((!all.is_empty()).then(|| format!("{} attachments", all.len())))
        };
        stage.until("attachments are gone", PATIENCE, gone).await?;
        for n in 0..FEW {
            let base = format!("v{n}");
            let claim = stage.api.claims(&format!("/{base}"));
            let volume = format!("/api/v1/persistentvolumes/{}", stage.api.name(&base));
            for path in [claim, volume] {
                stage.api.delete(&path, json!(null)).await?.expect(200)?;
            }
        }
        let left = async || stage.left().await;
        stage.until("nothing is left over", PATIENCE, left).await
    };
    let ended = beside(&stage, Lie::None, story).await;
    ended
        .and_then(|()| stage.check())
        .map_err(|why| stock.explain(bitts.explain(why)))
}
