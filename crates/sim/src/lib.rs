//! The whole system in one thread, from one seed, under faults.
//!
//! A [`Life`] is data: what users, other components and faults do, made from a seed by [`life()`].
//! [`run`] leads it in a [`World`] (an API in memory, the binder, a scheduler, a provisioner),
//! checks the [`Invariant`]s at every write, lets all come to rest and checks the rest. Who fails
//! prints a seed and, by [`shrink`], a small life. A [`Bug`] can be planted, to see that an invariant
//! is able to fail.
//!
//! ```
//! let life = bitts_sim::life(7, 50);
//! let led = bitts_sim::run(&life, None, None).expect("no invariant is broken");
//! // Again, with the process dying after the first effect.
//! bitts_sim::run(&life, None, Some(1)).expect("a death breaks nothing either");
//! assert_eq!(led.trace, bitts_sim::run(&life, None, None).expect("as before").trace);
//! ```
//!
//! The binder is the only role so far. Another gets a place in `world.rs` beside it: a machine, a
//! queue, and whoever executes its tasks.

mod actors;
mod ends;
mod invariants;
mod life;
mod plant;
mod random;
mod store;
mod world;

pub use invariants::{Broken, Invariant};
pub use life::{Fate, Life, Pick, Step, life, shrink};
pub use plant::Bug;
pub use random::Random;
pub use store::{News, Store, Stored};
pub use world::{BinderEffect, BinderInput, World};

/// Leads a life to its end and to rest; `cut` kills the process after so many effects.
///
/// # Errors
/// The first invariant that did not hold.
pub fn run(life: &Life, bug: Option<Bug>, cut: Option<usize>) -> Result<World, Broken> {
    let led = lead(life, bug, cut, 0)?;
    if cut.is_none() && bug.is_some() {
        deterministic(life, bug, &led)?;
    }
    Ok(led)
}

/// What became of a life that was cut after each of its effects.
#[derive(Debug)]
pub struct Cuts {
    /// The world in which it was not cut.
    pub world: World,
    /// How many effects were executed in all worlds.
    pub effects: usize,
    /// How many ends were compared with that of the first world.
    pub ends: usize,
    /// In how many of these claims had other volumes.
    pub others: usize,
}

/// Leads a life once to its end and to rest, and once more for each of its effects, with the process
/// killed after it; what was before that is not led again.
///
/// Where the process is killed while all come to rest, it has to end as without that. Earlier that
/// means nothing: steps pick from what there is, so another life follows.
///
/// # Errors
/// The first invariant that did not hold, and the cut of the life in which it did not.
pub fn run_cut_everywhere(life: &Life, bug: Option<Bug>) -> Result<Cuts, (Option<usize>, Broken)> {
    let whole = |broken| (None, broken);
    let mut world = World::new(life, bug, None, 0).map_err(whole)?;
    let mut forks = Vec::new();
    for (n, step) in life.steps.iter().enumerate() {
        let before = matches!(step, Step::Execute(..)).then(|| world.clone());
        world.step(*step).map_err(whole)?;
        forks.extend(
            before
                .filter(|b| b.executed < world.executed)
                .map(|b| (n, b)),
        );
    }
    let before = world.clone();
    world.settle().map_err(whole)?;
    for _ in before.executed..world.executed {
        forks.push((life.steps.len(), before.clone()));
    }
    let (mut effects, mut ends, mut others) = (world.executed, 0, 0);
    for (cut, (at, mut fork)) in forks.into_iter().enumerate() {
        let cut = cut + 1;
        fork.cut(cut);
        let led = lead_on(&mut fork, &life.steps[at..]);
        led.map_err(|broken| (Some(cut), broken))?;
        effects += fork.executed;
        if at == life.steps.len() {
            let same = ends::compare(&world.store, &fork.store);
            others += usize::from(!same.map_err(|broken| (Some(cut), broken))?);
            ends += 1;
        }
    }
    Ok(Cuts {
        world,
        effects,
        ends,
        others,
    })
}

/// Leads a life a second time.
///
/// # Errors
/// When the same inputs gave other effects.
pub fn deterministic(life: &Life, bug: Option<Bug>, led: &World) -> Result<(), Broken> {
    if lead(life, bug, None, 1)?.trace != led.trace {
        return Err(Invariant::Deterministic.broken("the same inputs gave other effects"));
    }
    Ok(())
}

fn lead(life: &Life, bug: Option<Bug>, cut: Option<usize>, chance: u64) -> Result<World, Broken> {
    let mut world = World::new(life, bug, cut, chance)?;
    lead_on(&mut world, &life.steps)?;
    Ok(world)
}

fn lead_on(world: &mut World, steps: &[Step]) -> Result<(), Broken> {
    for step in steps {
        world.step(*step)?;
    }
    world.settle()
}
