//! The same random lives of volumes and claims under kube-controller-manager and under bitts, compared
//! after every step once nothing changes any more.
//!
//! `LIVES_SEED` is the seed of the first life, `LIVES_COUNT` how many there are, `LIVES_STEPS` how long each
//! is. Lives of one batch go on side by side in the same clusters, so that they wait together.

mod excuses;
mod life;
mod side;
mod state;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bitts_e2e::cluster::Kind;
use bitts_e2e::suite::Suite;
use futures::future::try_join_all;

use crate::excuses::Around;
use crate::life::Life;
use crate::side::{Keeper, Side};
use crate::state::State;

/// Lives that go on side by side.
const BATCH: u64 = 16;
/// kube-controller-manager makes a full pass every second: after two without a change nothing is left
/// to do.
const STOCK_RESTS: Duration = Duration::from_millis(2300);
/// bitts has no passes.
const BITTS_RESTS: Duration = Duration::from_millis(800);
/// How long a step may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let mut suite = Suite::default();
    suite.add_own("lives::end_in_the_same_states", &[Kind::Real], |_| {
        lives_end_in_the_same_states()
    });
    suite.run()
}

fn setting(name: &str, otherwise: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(otherwise),
    }
}

/// What happened in all lives.
#[derive(Default)]
struct Tally {
    lives: u64,
    steps: u64,
    refused: u64,
    compared: usize,
    /// Volumes by phase, after all steps.
    phases: BTreeMap<String, u64>,
    excused: BTreeMap<&'static str, u64>,
    reports: Vec<String>,
}

async fn lives_end_in_the_same_states() -> anyhow::Result<()> {
    let seed = setting("LIVES_SEED", 1)?;
    let count = setting("LIVES_COUNT", BATCH)?;
    let steps = setting("LIVES_STEPS", 8)?;
    let keepers = [Keeper::Stock, Keeper::Strict, Keeper::Default];
    let mut sides = try_join_all(keepers.map(Side::start)).await?;
    let mut tally = Tally::default();
    let end = seed + count;
    for first in (seed..end).step_by(BATCH as usize) {
        let seeds = first..end.min(first + BATCH);
        let lived = live(&mut sides, seeds, steps, &mut tally).await;
        if let Err(why) = lived {
            let all = sides.iter_mut();
            return Err(all.fold(why, |why, side| side.explain(why)));
        }
    }
    eprintln!(
        "{} lives, {} steps ({} refused by the API), {} comparisons of objects; volumes as seen: {:?}; \
         {} differences; ended by what docs/differences.md says: {:?}",
        tally.lives,
        tally.steps,
        tally.refused,
        tally.compared,
        tally.phases,
        tally.reports.len(),
        tally.excused,
    );
    if !tally.reports.is_empty() {
        for side in &sides {
            eprintln!("--- {:?}\n{}", side.keeper, side.log());
        }
        bail!("{}", tally.reports.join("\n"));
    }
    Ok(())
}

/// A life in one of the clusters of bitts, as long as it goes on there.
struct Alive {
    strict: bool,
    default: bool,
    /// What there was before the last step.
    before: State,
}

/// Some lives side by side.
async fn live(
    sides: &mut [Side],
    seeds: std::ops::Range<u64>,
    steps: u64,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    try_join_all(sides.iter_mut().map(Side::clear)).await?;
    let mut lives: Vec<(Life, Alive)> = seeds
        .map(|seed| {
            (
                Life::new(seed, seed % BATCH == 0),
                Alive {
                    strict: true,
                    default: true,
                    before: State::new(),
                },
            )
        })
        .collect();
    for (life, _) in &lives {
        for step in life.birth() {
            act(sides, &life.name, &step).await?;
        }
    }
    rest(sides).await?;
    tally.lives += lives.len() as u64;
    for _ in 0..steps {
        lives.retain(|(_, alive)| alive.strict || alive.default);
        let mut answers = Vec::new();
        for (life, alive) in &mut lives {
            alive.before = sides[0].state(&life.name);
            let step = life.next(&alive.before);
            answers.push(act(sides, &life.name, &step).await?);
        }
        tally.steps += lives.len() as u64;
        rest(sides).await?;
        let differs = |sides: &[Side]| {
            lives.iter().any(|(life, _)| {
                let stock = sides[0].state(&life.name);
                sides[1..]
                    .iter()
                    .any(|side| side.state(&life.name) != stock)
            })
        };
        if differs(sides) {
            // A busy machine: one more chance.
            tokio::time::sleep(STOCK_RESTS).await;
            rest(sides).await?;
        }
        for ((life, alive), answers) in lives.iter_mut().zip(answers) {
            compare(sides, life, alive, &answers, tally);
        }
    }
    Ok(())
}

/// Does one step in all clusters.
async fn act(sides: &mut [Side], life: &str, step: &life::Step) -> anyhow::Result<Vec<u16>> {
    try_join_all(sides.iter_mut().map(|side| side.act(life, step))).await
}

/// Waits until nothing changes any more in any of the clusters.
async fn rest(sides: &mut [Side]) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        try_join_all(sides.iter_mut().map(Side::look)).await?;
        let rests = sides.iter().all(|side| {
            let needed = if side.keeper == Keeper::Stock {
                STOCK_RESTS
            } else {
                BITTS_RESTS
            };
            side.changed().elapsed() > needed
        });
        if rests {
            return Ok(());
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "no rest after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

fn compare(sides: &[Side], life: &Life, alive: &mut Alive, answers: &[u16], tally: &mut Tally) {
    let stock = sides[0].state(&life.name);
    tally.refused += u64::from(answers[0] >= 400);
    for volume in stock.values() {
        if let (Some(_), Some(phase)) = (volume.get("policy"), volume["phase"].as_str()) {
            *tally.phases.entry(phase.to_owned()).or_default() += 1;
        }
    }
    for (side, answer) in sides.iter().zip(answers).skip(1) {
        let goes_on = match side.keeper {
            Keeper::Strict => &mut alive.strict,
            _ => &mut alive.default,
        };
        if !*goes_on {
            continue;
        }
        let bitts = side.state(&life.name);
        tally.compared += stock.len();
        if stock == bitts && *answer == answers[0] {
            continue;
        }
        *goes_on = false;
        let around = Around {
            before: &alive.before,
            stock: &stock,
            bitts: &bitts,
        };
        let excuse = excuses::find(&around).filter(|_| side.keeper == Keeper::Default);
        if let Some(row) = excuse {
            *tally.excused.entry(row).or_default() += 1;
            continue;
        }
        let steps: Vec<String> = life.steps.iter().map(|step| format!("  {step}")).collect();
        let report = format!(
            "life {} after step {}, stock / {:?}, answers {} / {answer}:\n{}\nsteps:\n{}\n",
            life.name,
            steps.len(),
            side.keeper,
            answers[0],
            state::difference(&stock, &bitts),
            steps.join("\n"),
        );
        eprintln!("{report}");
        tally.reports.push(report);
    }
}
