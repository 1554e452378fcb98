//! What one claim, or one volume, costs the machine, whatever the number of the others.
//!
//! Each iteration is a whole round: an object appears, is matched (or not), and is withdrawn again,
//! so that the next iteration finds the machine as it was.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

mod support;

use std::hint::black_box;

use bitts_api::machine::{Effect, Input, Machine, Moment, Outcome};
use bitts_api::{Claim, Object, Volume};
use bitts_binder::Binder;
use criterion::{Criterion, criterion_group, criterion_main};
use support::{BinderEffect, Templates, binder, peak_memory};

const SMALL: usize = 1_000;
const LARGE: usize = 1_000_000;

fn feed(
    binder: &mut Binder,
    input: Input<std::convert::Infallible, bitts_binder::Retry>,
) -> Vec<BinderEffect> {
    binder.handle(Moment::default(), input)
}

/// A claim appears, gets a volume reserved (or not), and is deleted before the write landed; the
/// volume is free again. Returns whether a volume was found.
fn round_of_a_claim(binder: &mut Binder, templates: &Templates, mut claim: Claim) -> bool {
    claim.meta.uid = templates.new_uid();
    let object = Object::from(claim);
    let (key, uid) = (object.key(), object.uid().clone());
    let effects = feed(binder, Input::Seen(object));
    let reserved = effects.iter().find_map(|effect| match effect {
        Effect::Write(write) if write.step == "reserve-volume" => Some(write.target.key.clone()),
        _ => None,
    });
    let found = reserved.is_some();
    black_box(feed(binder, Input::Deleted(key, uid)));
    if let Some(volume) = reserved {
        let free = templates.volume_again(volume.name.as_str());
        black_box(feed(binder, Input::Seen(free.into())));
        black_box(feed(binder, Input::Finished(volume, Outcome::Done)));
    }
    found
}

/// A volume appears, is reserved for a claim that waits (or not), and is deleted.
fn round_of_a_volume(binder: &mut Binder, templates: &Templates, mut volume: Volume) -> bool {
    volume.meta.uid = templates.new_uid();
    let object = Object::from(volume);
    let (key, uid) = (object.key(), object.uid().clone());
    let effects = feed(binder, Input::Seen(object));
    let reserved = effects.iter().any(|e| matches!(e, Effect::Write(_)));
    black_box(feed(binder, Input::Deleted(key.clone(), uid)));
    if reserved {
        black_box(feed(binder, Input::Finished(key, Outcome::Gone)));
    }
    reserved
}

fn volumes(templates: &Templates, count: usize) -> Vec<Object> {
    (0..count).map(|n| templates.volume(n).into()).collect()
}

fn claims(c: &mut Criterion) {
    let templates = Templates::new();
    for (count, name) in [(SMALL, "1,000"), (LARGE, "1,000,000")] {
        let (mut machine, _) = binder(volumes(&templates, count), vec![]);
        let mut group = c.benchmark_group(format!("a claim among {name} volumes"));
        let mut n = 0;
        let mut round = |machine: &mut Binder, make: &dyn Fn(usize) -> Claim, finds: bool| {
            n += 1;
            assert_eq!(round_of_a_claim(machine, &templates, make(n % 100)), finds);
        };
        let plain = |n| templates.claim(n);
        group.bench_function("no selector", |b| {
            b.iter(|| round(&mut machine, &plain, true))
        });
        if count == LARGE {
            let rare = |n| templates.selecting(n, "rare", "yes");
            let none = |n| templates.selecting(n, "rare", "never");
            let unknown = |n| templates.selecting(n, "no-such-key", "x");
            group.bench_function("selector fits 1 in 10,000", |b| {
                b.iter(|| round(&mut machine, &rare, true));
            });
            group.bench_function("selector fits none", |b| {
                b.iter(|| round(&mut machine, &none, false));
            });
            group.bench_function("selector names an unknown label", |b| {
                b.iter(|| round(&mut machine, &unknown, false));
            });
        }
        group.finish();
    }
    println!("peak memory with 1,000,000 volumes: {}", peak_memory());
}

fn waiting(c: &mut Criterion) {
    let templates = Templates::new();
    let mut group = c.benchmark_group("a volume for 10,000 waiting claims");
    let listed = |make: &dyn Fn(usize) -> Claim| {
        let claims = (0..10_000).map(|n| make(n).into()).collect();
        binder(vec![], claims).0
    };
    let mut plain = listed(&|n| templates.claim(n));
    group.bench_function("one takes it", |b| {
        b.iter(|| {
            assert!(round_of_a_volume(
                &mut plain,
                &templates,
                templates.volume(7)
            ))
        });
    });
    let mut selecting = listed(&|n| templates.selecting(n, "own", &n.to_string()));
    group.bench_function("no selector fits it", |b| {
        b.iter(|| {
            assert!(!round_of_a_volume(
                &mut selecting,
                &templates,
                templates.volume(7)
            ))
        });
    });
    let mut shared = listed(&|n| templates.selecting(n, "rare", "never"));
    group.bench_function("the selector of all fits nothing", |b| {
        b.iter(|| {
            assert!(!round_of_a_volume(
                &mut shared,
                &templates,
                templates.volume(7)
            ))
        });
    });
    group.finish();
}

criterion_group!(benches, claims, waiting);
criterion_main!(benches);
