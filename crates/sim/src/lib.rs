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
    for step in &life.steps {
        world.step(*step)?;
    }
    world.settle()?;
    Ok(world)
}
