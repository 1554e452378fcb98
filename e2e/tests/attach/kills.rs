//! The bitts binary killed at random moments while volumes for one node move between nodes, beside a
//! driver that fails and dies: none is ever on two nodes or taken from a node that uses it, and in
//! the end nothing is left over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_csi::testing::Turn;
use bitts_e2e::cluster::Kind;
use bitts_e2e::control_plane::Component;
use bitts_e2e::suite::Suite;

use crate::coming::faults;
use crate::kubelets::{Lie, beside};
use crate::stage::{Chance, Stage};

/// How often it is killed unless BITTS_E2E_KILLS says otherwise.
const KILLS: u64 = 5;
const NODES: usize = 4;
const VOLUMES: usize = 12;
const PATIENCE: Duration = Duration::from_secs(240);
/// A life without calls ends after this.
const LIFE: Duration = Duration::from_secs(20);

pub(crate) fn add(suite: &mut Suite) {
    suite.add_own(
        "attach::killed_at_any_moment",
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
    let story = moves(&stage, &mut bitts, kills);
    let ended = beside(&stage, Lie::None, story).await;
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
    for n in 0..VOLUMES {
        let base = format!("v{n}");
        stage.volume(&base).await?;
        users.push((base, None));
    }
    faults(stage, 11);
    let mut chance = Chance(kills + 3);
    let (mut pods, mut killed) = (0, 0);
    // Each life calls the driver, or has nothing to lose: it dies a little after one of the first calls.
    let mut calls_before = 0;
    let mut lives_until = Instant::now() + LIFE;
    let mut doomed = None;
    while killed < kills {
        // A pod goes, and the next one of its volume comes to another node before it is off the first.
        let at = usize::try_from(chance.below(u64::try_from(VOLUMES)?))?;
        let (base, user) = &mut users[at];
        if let Some(user) = user.take() {
            stage.delete_pod(&user).await?;
        }
        if chance.below(4) > 0 {
            pods += 1;
            let name = format!("p{pods}");
            let node = chance.one_of(&nodes)?;
            stage.pod(&name, base, Some(node)).await?;
            *user = Some(name);
        }
        tokio::time::sleep(Duration::from_millis(chance.below(120))).await;
        if chance.below(30) == 0 {
            stage.crash_driver()?;
        }
        let now = Instant::now();
        let calls = stage.disks.calls().len() - calls_before;
        if doomed.is_none() && calls > usize::try_from(chance.below(8))? {
            doomed = Some(now + Duration::from_millis(chance.below(400)));
        }
        if doomed.is_some_and(|at| now >= at) || now > lives_until {
            bitts.restart()?; // SIGKILL first
            killed += 1;
            calls_before = stage.disks.calls().len();
            lives_until = Instant::now() + LIFE;
            doomed = None;
        }
    }
    let calls = stage.disks.calls().len();
    ensure!(
        calls >= usize::try_from(kills)?,
        "only {calls} calls in {kills} lives"
    );
    stage.disks.decide(|_| Turn::default());
    for (_, user) in &mut users {
        if let Some(user) = user.take() {
            stage.delete_pod(&user).await?;
        }
    }
    let left = async || stage.left().await;
    stage.until("nothing is left over", PATIENCE, left).await?;
    eprintln!(
        "killed {kills} times in {:?}: {pods} pods, {calls} calls to the driver",
        start.elapsed()
    );
    Ok(())
}
