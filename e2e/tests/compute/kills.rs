//! The bitts binary killed at random moments while disks for one node move between nodes of a cloud that
//! fails: none is ever asked for on two nodes or taken from a node that uses it, and in the end nothing is
//! left over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_e2e::cluster::Kind;
use bitts_e2e::compute::Turn;
use bitts_e2e::control_plane::Component;
use bitts_e2e::suite::Suite;

use crate::stage::{Chance, Stage};

/// How often it is killed unless BITTS_E2E_KILLS says otherwise.
const KILLS: u64 = 5;
const NODES: u64 = 3;
const DISKS: u64 = 6;
const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own(
        "compute::killed_at_any_moment",
        &[Kind::Served, Kind::Real],
        killed_at_any_moment,
    );
}

async fn killed_at_any_moment(kind: Kind) -> anyhow::Result<()> {
    let kills = match std::env::var("BITTS_E2E_KILLS") {
        Ok(text) => text.parse().context("BITTS_E2E_KILLS")?,
        Err(_) => KILLS,
    };
    let stage = Stage::new(kind).await?;
    let mut bitts = stage.bitts()?;
    let ended = stage.beside(moves(&stage, &mut bitts, kills)).await;
    ended
        .and_then(|()| stage.check())
        .map_err(|why| bitts.explain(why))
}

async fn moves(stage: &Stage, bitts: &mut Component, kills: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut nodes = Vec::new();
    for n in 0..NODES {
        nodes.push(stage.node(&format!("n{n}")).await?);
    }
    let mut users: Vec<(String, Option<String>)> = Vec::new();
    for n in 0..DISKS {
        let base = format!("v{n}");
        stage.volume(&base).await?;
        users.push((base, None));
    }
    stage.compute.take(Duration::from_millis(150));
    faults(stage, kills);
    let mut chance = Chance(kills + 5);
    let (mut pods, mut killed) = (0, 0);
    while killed < kills {
        let until = Instant::now() + Duration::from_millis(2500 + chance.below(2500));
        while Instant::now() < until {
            // A pod goes, and the next one of its volume comes to another node before it is off the first.
            let at = usize::try_from(chance.below(DISKS))?;
            let (base, user) = &mut users[at];
            if let Some(user) = user.take() {
                stage.delete_pod(&user).await?;
            }
            if chance.below(4) > 0 {
                pods += 1;
                let name = format!("p{pods}");
                let node = &nodes[usize::try_from(chance.below(NODES))?];
                stage.pod(&name, base, node).await?;
                *user = Some(name);
            }
            tokio::time::sleep(Duration::from_millis(chance.below(300))).await;
        }
        bitts.restart()?; // SIGKILL first
        killed += 1;
    }
    stage.compute.decide(|_| Turn::Fine);
    // All that a pod still wants is mounted in the end.
    let waits = async || {
        let mounted = stage.mounted.all();
        let missing = users.iter().filter(|(base, user)| {
            let name = stage.api.name(base);
            user.is_some() && !mounted.iter().any(|(disk, _)| *disk == name)
        });
        let missing: Vec<&String> = missing.map(|(base, _)| base).collect();
        Ok((!missing.is_empty()).then(|| format!("{missing:?} are not")))
    };
    stage
        .until("all disks are mounted", PATIENCE, waits)
        .await?;
    for (_, user) in &mut users {
        if let Some(user) = user.take() {
            stage.delete_pod(&user).await?;
        }
    }
    let disks: Vec<String> = users.into_iter().map(|(base, _)| base).collect();
    let left = async || stage.left(&disks).await;
    stage.until("nothing is left over", PATIENCE, left).await?;
    let requests = stage.compute.requests();
    let moves = |what| {
        requests
            .iter()
            .filter(|request| request.contains(what))
            .count()
    };
    let (attached, detached) = (moves("attachDisk"), moves("detachDisk"));
    ensure!(attached > 0 && detached > 0, "nothing moved");
    eprintln!(
        "killed {killed} times in {:?}: {pods} pods, {attached} attachDisk, {detached} detachDisk of {} requests",
        start.elapsed(),
        requests.len()
    );
    Ok(())
}

/// One request in ten goes wrong in some way.
fn faults(stage: &Stage, seed: u64) {
    let mut chance = Chance(seed);
    stage.compute.decide(move |call| {
        let moves = call.contains("tachDisk");
        match chance.below(40) {
            0 => Turn::Refused(429, "rateLimitExceeded"),
            1 => Turn::Refused(503, "backendError"),
            2 => Turn::Lost,
            3 if moves => Turn::FailsLate("INTERNAL_ERROR"),
            4 if moves => Turn::Refused(400, "resourceNotReady"),
            _ => Turn::Fine,
        }
    });
}
