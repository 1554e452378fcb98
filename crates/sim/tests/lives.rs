//! Random lives, each from a seed, with the process killed after every single effect: nothing is bound
//! twice, nothing that is wanted is lost, and all that can be satisfied is (B1 to B28, X1 to X9).
//! `SIM_LIVES` sets how many, `SIM_SEED` where they start.

use bitts_sim::{Bug, Life, deterministic, life, run, shrink};

const STEPS: usize = 50;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().expect("SIM_LIVES and SIM_SEED are numbers")
    })
}

fn check(life: &Life, cut: Option<usize>) -> usize {
    let none: Option<Bug> = None;
    let broken = match run(life, none, cut) {
        Ok(world) => return world.executed,
        Err(broken) => broken,
    };
    let same = |less: &Life| run(less, none, cut).is_err_and(|b| b.invariant == broken.invariant);
    let least = shrink(life, same);
    let found = run(&least, none, cut).err();
    panic!(
        "seed {} cut {cut:?}: {:?}\n{found:#?}\n{}",
        life.seed,
        broken.invariant,
        serde_json::to_string(&least).expect("a life is data"),
    );
}

#[test]
fn every_life_goes_well() {
    let (lives, first) = (number("SIM_LIVES", 200), number("SIM_SEED", 0));
    let (mut cuts, mut effects) = (0, 0);
    for seed in first..first + lives {
        let life = life(seed, STEPS);
        let executed = check(&life, None);
        effects += executed;
        for cut in 1..executed + 1 {
            effects += check(&life, Some(cut));
            cuts += 1;
        }
        if seed % 10 == 0 {
            let led = run(&life, None, None).expect("it went well before");
            deterministic(&life, None, &led).expect("the same inputs give the same effects");
        }
    }
    println!("{lives} lives of {STEPS} steps, {cuts} cuts, {effects} effects");
}
