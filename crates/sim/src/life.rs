//! A life: what users, other components and faults do, as data. It can be printed, kept, and made
//! smaller while it still fails.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Everything that happens in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Where it came from.
    pub seed: u64,
    /// Run with every difference to kube-controller-manager off.
    pub strict: bool,
    /// Admission adds the protection finalizers at creation (V8).
    pub admission: bool,
    /// Classes are made in the course of it; otherwise all are there from the start.
    pub late_classes: bool,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// A number that picks one of whatever there is when its step comes.
pub type Pick = u32;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it; `Pick` says which of them")]
pub enum Step {
    // Users.
    NewVolume(Pick),
    /// A volume that says it belongs to a claim that never was here.
    RestoredVolume(Pick),
    NewClaim(Pick),
    NewPod(Pick),
    DeleteClaim(Pick),
    DeleteVolume(Pick),
    DeletePod(Pick),
    PodEnds(Pick),
    Label(Pick),
    ChangePolicy(Pick),
    ClearClaimRef(Pick),
    DefaultClass(bool),
    NewClass(Pick),
    DeleteClass(Pick),
    // Other components.
    Schedule(Pick),
    Provision(Pick),
    CollectGarbage,
    // The machine's work.
    Execute(Pick, Fate),
    Deliver(Pick),
    Timers,
    // Faults.
    Repeat(Pick),
    Relist(Pick),
    Restart,
    /// Another process takes over; what this one had sent may land later.
    LoseLease,
    /// A request of a process that is no more lands.
    Late(Pick),
    BackUp,
    Restore,
}

/// What is done to an effect on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It is executed.
    Done,
    /// Somebody touches the object first.
    Touched,
    /// The API cannot be reached.
    Lost,
    /// It is executed, and the answer is lost.
    AnswerLost,
    /// The process dies before.
    DeathBefore,
    /// The process dies after.
    DeathAfter,
}

/// The life of a seed.
#[must_use]
pub fn life(seed: u64, steps: usize) -> Life {
    let mut random = Random::new(seed);
    let strict = random.once_in(3);
    let admission = !random.once_in(4);
    // Backups are rare: after one everything that was seen may be wrong.
    let disaster = random.once_in(8);
    let late_classes = random.once_in(4);
    let steps = (0..steps)
        .map(|_| match late_classes && random.once_in(12) {
            true => Step::NewClass(random.number()),
            false => step(&mut random, disaster),
        })
        .collect();
    Life {
        seed,
        strict,
        admission,
        late_classes,
        steps,
    }
}

fn step(random: &mut Random, disaster: bool) -> Step {
    let pick = random.number();
    match random.below(if disaster { 104 } else { 100 }) {
        0..8 => Step::NewVolume(pick),
        8 => Step::RestoredVolume(pick),
        9..18 => Step::NewClaim(pick),
        18..22 => Step::NewPod(pick),
        22..25 => Step::DeleteClaim(pick),
        25 => Step::DeleteVolume(pick),
        26..28 => Step::DeletePod(pick),
        28 => Step::PodEnds(pick),
        29 => Step::Label(pick),
        30 => Step::ChangePolicy(pick),
        31 => Step::ClearClaimRef(pick),
        32 => match pick % 4 {
            0 => Step::DefaultClass(true),
            1 => Step::DefaultClass(false),
            2 => Step::NewClass(pick / 4),
            _ => Step::DeleteClass(pick / 4),
        },
        33..37 => Step::Schedule(pick),
        37..40 => Step::Provision(pick),
        40 => Step::CollectGarbage,
        41..68 => Step::Execute(pick, fate(random)),
        68..88 => Step::Deliver(pick),
        88..90 => Step::Timers,
        90..93 => Step::Repeat(pick),
        93 | 94 => Step::Relist(pick),
        95 => Step::Restart,
        96 => Step::LoseLease,
        97..100 => Step::Late(pick),
        100 | 101 => Step::BackUp,
        _ => Step::Restore,
    }
}

fn fate(random: &mut Random) -> Fate {
    match random.below(24) {
        0 | 1 => Fate::Touched,
        2 => Fate::Lost,
        3 => Fate::AnswerLost,
        4 => Fate::DeathBefore,
        5 => Fate::DeathAfter,
        _ => Fate::Done,
    }
}

/// The smallest life found by leaving steps out that still fails.
pub fn shrink(life: &Life, mut fails: impl FnMut(&Life) -> bool) -> Life {
    let mut least = life.clone();
    let mut chunk = least.steps.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < least.steps.len() {
            let mut less = least.clone();
            less.steps.drain(at..(at + chunk).min(less.steps.len()));
            if fails(&less) {
                least = less;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    least
}
