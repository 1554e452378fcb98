//! Random lives, each from a seed, with the process killed after every single effect: nothing is bound
//! twice, nothing that is wanted is lost, all that can be satisfied is, and a death while all come to
//! rest changes nothing of how they end (B1 to B28, X1 to X9).
//! `SIM_LIVES` sets how many, `SIM_SEED` where they start.

use bitts_sim::{Broken, Cuts, Life, deterministic, life, run_cut_everywhere, shrink};

const STEPS: usize = 50;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().expect("SIM_LIVES and SIM_SEED are numbers")
    })
}

/// Says what is wrong with a life, in the shortest that has it.
fn complain(life: &Life, cut: Option<usize>, broken: &Broken) -> ! {
    let lead = |less: &Life| run_cut_everywhere(less, None).err();
    let same = |less: &Life| lead(less).is_some_and(|(_, b)| b.invariant == broken.invariant);
    let least = shrink(life, same);
    panic!(
        "seed {} cut {cut:?}: {broken:#?}\n{:#?}\n{}",
        life.seed,
        lead(&least),
        serde_json::to_string(&least).expect("a life is data"),
    );
}

/// Leads the lives of these seeds; returns how many cuts and effects that took, how many ends were
/// compared, and in how many of these claims had other volumes.
fn lead(seeds: impl Iterator<Item = u64>) -> [usize; 4] {
    let mut sums = [0; 4];
    for seed in seeds {
        let life = life(seed, STEPS);
        let Cuts {
            world,
            effects,
            ends,
            others,
        } = run_cut_everywhere(&life, None)
            .unwrap_or_else(|(cut, broken)| complain(&life, cut, &broken));
        if seed % 10 == 0 {
            deterministic(&life, None, &world).expect("the same inputs give the same effects");
        }
        sums = add(sums, [world.executed, effects, ends, others]);
    }
    sums
}

fn add(one: [usize; 4], other: [usize; 4]) -> [usize; 4] {
    std::array::from_fn(|n| one[n] + other[n])
}

#[test]
fn every_life_goes_well() {
    let (lives, first) = (number("SIM_LIVES", 200), number("SIM_SEED", 0));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let seeds = |n| (first..first + lives).skip(n).step_by(cores);
    let [cuts, effects, ends, others] = std::thread::scope(|scope| {
        let started: Vec<_> = (0..cores)
            .map(|n| scope.spawn(move || lead(seeds(n))))
            .collect();
        let ended = started.into_iter().map(|lives| lives.join());
        ended.fold([0; 4], |sum, more| add(sum, more.expect("all went well")))
    });
    println!(
        "{lives} lives of {STEPS} steps, {cuts} cuts, {effects} effects; {ends} ends compared, \
         in {others} of them claims had other volumes"
    );
    assert!(others * 10 < ends.max(10), "most ends are the same");
}
