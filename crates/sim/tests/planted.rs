//! Each invariant fails when the bug is planted that it guards against, and holds without it.

use bitts_sim::{Bug, Invariant, life, run, run_cut_everywhere};

const LIVES: u64 = 2_000;

/// The lives are led with the bug until the invariant is broken; the one that broke it goes well
/// without the bug.
fn found(bug: Bug, invariant: Invariant) {
    let mut others = std::collections::BTreeMap::new();
    for seed in 0..LIVES {
        let life = life(seed, 200);
        let Err(broken) = run(&life, Some(bug), None) else {
            continue;
        };
        if broken.invariant == invariant {
            let without = run(&life, None, None).err();
            assert_eq!(without, None, "seed {seed} fails without {bug:?}");
            return;
        }
        *others.entry(broken.invariant).or_insert(0) += 1;
    }
    panic!("{bug:?} breaks no {invariant:?} in {LIVES} lives, only {others:?}");
}

/// A life ends elsewhere when its process dies on the way to rest.
#[test]
fn another_end_after_a_death() {
    let broken = (0..LIVES).find_map(|seed| {
        let life = life(seed, 50);
        let (_, broken) = run_cut_everywhere(&life, Some(Bug::NextIsOlder)).err()?;
        (broken.invariant == Invariant::SameEnd).then(|| run_cut_everywhere(&life, None))
    });
    let without = broken.expect("the bug is found");
    assert!(without.is_ok(), "{without:?}");
}

macro_rules! planted {
    ($($name:ident: $bug:ident, $invariant:ident;)*) => {$(
        #[test]
        fn $name() {
            found(Bug::$bug, Invariant::$invariant);
        }
    )*};
}

planted! {
    a_volume_of_two_claims: NoPreconditions, OneClaimEach;
    data_that_is_wanted: BelieveCacheAboutClaims, DataWanted;
    a_volume_given_back_too_early: BelieveCacheAboutClaims, GivenBack;
    a_claim_called_lost: BelieveCacheAboutVolumes, NotLost;
    a_claim_let_go_in_use: BelieveCacheAboutPods, Protected;
    a_delayed_claim_served: NeverDelay, Delayed;
    a_claim_with_two_volumes: KeepSurplus, OneVolumeEach;
    a_class_overlooked: BelieveCacheAboutClasses, Delayed;
    a_restored_volume_released: TrustRestored, Restored;
    a_reservation_released: KeepReservations, NeverBound;
    a_retained_volume_deleted: IgnoreRetain, Retained;
    two_effects_in_flight: SayTwice, OneInFlight;
    an_event_storm: RepeatEvents, ToldOnce;
    a_claim_overlooked: OverlookClaims, Satisfied;
    a_leak: ForgetReleases, NothingLeaked;
    no_rest: Restless, Quiet;
    another_order: AnyOrder, Deterministic;
}
