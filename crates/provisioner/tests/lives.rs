//! Random lives of claims, with the process killed after any effect, writes lost, watches late and
//! tasks failing: what is left at the end is exactly one directory for each claim, with what its pod
//! wrote (P12, D10).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bitts_api::{Kind, ObjectKey};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use support::{Fate, NODE, Plant, World, claim};

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Deed {
    CreateClaim(u8),
    /// One that is to have a copy of another's data.
    CreateCopy(u8, u8),
    /// What is to be copied is.
    Copy,
    DeleteClaim(u8),
    DeleteVolume(u8),
    /// The scheduler chooses a node: this one or another.
    Place(u8, bool),
    Bind,
    /// Each pod writes to its volume.
    Write,
    Tell,
    Execute(u8, Fate),
    Wake,
    Kill,
}

fn deed() -> impl Strategy<Value = Deed> {
    let fate = prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::Touched),
        1 => Just(Fate::Lost),
        1 => Just(Fate::DeathAfter),
        1 => Just(Fate::DeathBefore),
    ];
    prop_oneof![
        3 => (0_u8..4).prop_map(Deed::CreateClaim),
        1 => (0_u8..4, 0_u8..4).prop_map(|(n, of)| Deed::CreateCopy(n, of)),
        1 => Just(Deed::Copy),
        2 => (0_u8..4).prop_map(Deed::DeleteClaim),
        1 => (0_u8..4).prop_map(Deed::DeleteVolume),
        2 => (0_u8..4, any::<bool>()).prop_map(|(n, here)| Deed::Place(n, here)),
        4 => Just(Deed::Bind),
        2 => Just(Deed::Write),
        8 => Just(Deed::Tell),
        12 => (any::<u8>(), fate).prop_map(|(n, fate)| Deed::Execute(n, fate)),
        2 => Just(Deed::Wake),
        1 => Just(Deed::Kill),
    ]
}

fn key(n: u8) -> ObjectKey {
    ObjectKey::claim("default", format!("c{n}"))
}

struct Life {
    world: World,
    /// How many claims there ever were: each has a uid of its own.
    born: u32,
    /// The volumes that are to be copies.
    copies: BTreeSet<String>,
}

impl Life {
    fn new(plant: Plant) -> Self {
        let mut world = World::new();
        world.plant = plant;
        world.start();
        Self {
            world,
            born: 0,
            copies: BTreeSet::new(),
        }
    }

    fn live(&mut self, deed: Deed) {
        let world = &mut self.world;
        match deed {
            Deed::CreateClaim(n) if !world.objects.contains_key(&key(n)) => {
                self.born += 1;
                let uid = format!("u{}", self.born);
                world.put(Kind::Claim, claim(&format!("c{n}"), &uid, "fast"));
            }
            Deed::CreateCopy(n, of) if !world.objects.contains_key(&key(n)) => {
                self.born += 1;
                let uid = format!("u{}", self.born);
                self.copies.insert(format!("pvc-{uid}"));
                let mut copy = claim(&format!("c{n}"), &uid, "fast");
                copy["spec"]["dataSource"] =
                    json!({"kind": "PersistentVolumeClaim", "name": format!("c{of}")});
                world.put(Kind::Claim, copy);
            }
            Deed::Copy => world.worker.copy_here(),
            Deed::DeleteClaim(n) => world.delete(&key(n)),
            Deed::DeleteVolume(n) => {
                let volumes = world.of_kind(Kind::Volume);
                if let Some(volume) = volumes.get(usize::from(n)) {
                    // Protected while it is bound, as a binder does.
                    if world.objects[volume]["status"]["phase"] != "Bound" {
                        return;
                    }
                    world.delete(&volume.clone());
                }
            }
            Deed::Place(n, here) => {
                let node = if here { NODE } else { "n2" };
                let placed = world.objects.get(&key(n)).is_some_and(|c| {
                    c["spec"]["volumeName"].is_null()
                        && c["metadata"]["deletionTimestamp"].is_null()
                });
                if placed {
                    let selected = json!({"metadata": {"annotations":
                        {"volume.kubernetes.io/selected-node": node}}});
                    world.edit(&key(n), &selected);
                }
            }
            Deed::Bind => world.bind(),
            Deed::Write => self.write(),
            Deed::Tell => drop(world.tell()),
            Deed::Execute(n, fate) if !world.queue.is_empty() => {
                world.execute(usize::from(n) % world.queue.len(), fate);
            }
            Deed::Wake => {
                for (_, alarm) in std::mem::take(&mut world.timers) {
                    world.feed(bitts_api::machine::Input::Alarm(alarm));
                }
            }
            Deed::Kill => world.start(),
            Deed::CreateClaim(_) | Deed::CreateCopy(..) | Deed::Execute(..) => {}
        }
    }

    /// Where the claims' volumes are, for those that are bound.
    fn volumes(&self) -> Vec<(String, std::path::PathBuf)> {
        let world = &self.world;
        let claims = world.of_kind(Kind::Claim).into_iter();
        claims
            .filter_map(|key| {
                let claim = &world.objects[&key];
                let volume = ObjectKey::volume(claim["spec"]["volumeName"].as_str()?);
                let path = world.objects.get(&volume)?["spec"]["local"]["path"].as_str()?;
                let uid = claim["metadata"]["uid"].as_str()?;
                Some((uid.to_owned(), path.into()))
            })
            .collect()
    }

    fn write(&self) {
        for (uid, path) in self.volumes() {
            let file = path.join("data");
            assert!(
                path.is_dir(),
                "the volume of {uid} is gone while its claim lives"
            );
            std::fs::write(file, uid).unwrap();
        }
    }

    /// Lets everything come to rest, every claim placed here, and looks.
    fn end(mut self) {
        for _ in 0..10 {
            for n in 0..4 {
                self.live(Deed::Place(n, true));
            }
            self.world.copy();
            self.world.bind();
            self.world.settle();
        }
        // Nobody wrote to a copy before it was one: it has what its source had at the time, or nothing.
        self.write();
        let world = &self.world;
        let mut expected = Vec::new();
        let mut waiting = 0;
        for key in world.of_kind(Kind::Claim) {
            let claim = &world.objects[&key];
            let uid = claim["metadata"]["uid"].as_str().unwrap();
            if self.is_without_source(claim) {
                waiting += 1;
                continue;
            }
            assert_eq!(
                claim["spec"]["volumeName"],
                format!("pvc-{uid}"),
                "{key} has the volume made for it"
            );
            expected.push(format!("default-{}-pvc-{uid}", key.name));
        }
        expected.sort();
        assert_eq!(
            world.directories(),
            expected,
            "one directory for each claim"
        );
        let volumes = world.of_kind(Kind::Volume);
        assert_eq!(volumes.len(), expected.len(), "{volumes:?}");
        let records = world.records().len();
        assert!((expected.len()..=expected.len() + waiting).contains(&records));
        for (uid, path) in self.volumes() {
            let data = std::fs::read_to_string(path.join("data")).unwrap();
            assert_eq!(data, uid, "somebody else's data");
        }
        world.sweep();
        // A copy of which it was not known that nobody had it.
        assert!(world.trash().iter().all(|left| self.copies.contains(left)));
    }

    /// Whether a claim waits for what it is to be a copy of.
    fn is_without_source(&self, claim: &Value) -> bool {
        let Some(source) = claim["spec"]["dataSource"]["name"].as_str() else {
            return false;
        };
        let source = self.world.objects.get(&ObjectKey::claim("default", source));
        let bound = source.is_some_and(|source| source["spec"]["volumeName"].is_string());
        claim["spec"]["volumeName"].is_null() && !bound
    }
}

fn live(plant: Plant, deeds: &[Deed]) {
    let mut life = Life::new(plant);
    for deed in deeds {
        life.live(*deed);
    }
    life.end();
}

fn lives() -> u32 {
    let asked = std::env::var("PROVISIONER_LIVES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(150)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

/// P12, D10: after any life, one directory a claim.
#[test]
fn one_directory_a_claim_whatever_happens() {
    let deeds = prop::collection::vec(deed(), 0..120);
    runner(lives())
        .run(&deeds, |deeds| {
            live(Plant::Nothing, &deeds);
            Ok(())
        })
        .unwrap();
}

/// The simplest life, killed after each of its effects.
#[test]
fn death_after_every_single_effect() {
    let story = |cut: usize| {
        let mut life = Life::new(Plant::Nothing);
        let mut done = 0;
        let mut run = |life: &mut Life| {
            loop {
                if life.world.queue.is_empty() {
                    if !life.world.tell() && !life.world.confirm() {
                        return;
                    }
                    continue;
                }
                let fate = if done == cut {
                    Fate::DeathAfter
                } else {
                    Fate::Done
                };
                done += 1;
                life.world.execute(0, fate);
            }
        };
        for n in 0..2 {
            life.live(Deed::CreateClaim(n));
        }
        run(&mut life);
        life.live(Deed::Bind);
        run(&mut life);
        life.write();
        life.live(Deed::DeleteClaim(0));
        life.live(Deed::Bind);
        run(&mut life);
        life.end();
        done
    };
    let whole = story(usize::MAX);
    assert!(whole >= 11, "{whole}");
    for cut in 0..whole + 2 {
        story(cut);
    }
}

/// What the lives look for is found where it is planted.
#[test]
fn planted_bugs_are_found() {
    let expected = [
        "one directory for each claim",
        "gone while its claim lives",
        // Taken away before it was bound, and never made anew for a claim known to be gone.
        "has the volume made for it",
    ];
    for plant in [Plant::MakesAnew, Plant::NoEvidence] {
        let deeds = prop::collection::vec(deed(), 0..120);
        let mut runner = TestRunner::new(Config {
            cases: 400,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Config::default()
        });
        let found = runner.run(&deeds, |deeds| {
            let lived = catch_unwind(AssertUnwindSafe(|| {
                // Released by somebody's mistake while the claim lives.
                let mut life = Life::new(plant);
                for (n, deed) in deeds.iter().enumerate() {
                    life.live(*deed);
                    if n % 40 == 39 {
                        for volume in life.world.of_kind(Kind::Volume) {
                            life.world
                                .edit(&volume, &json!({"status": {"phase": "Released"}}));
                        }
                    }
                }
                life.end();
            }));
            lived.map_err(|why| {
                let why = why.downcast_ref::<String>().cloned();
                TestCaseError::fail(why.unwrap_or_default())
            })
        });
        let why = found.expect_err("not noticed").to_string();
        let known = expected.iter().any(|expected| why.contains(expected));
        assert!(known, "{plant:?}: {why}");
    }
}

/// The same mistake, where the evidence is looked at: nothing is lost.
#[test]
fn released_by_mistake_is_spared() {
    let deeds = prop::collection::vec(deed(), 0..120);
    runner(lives() / 3)
        .run(&deeds, |deeds| {
            let mut life = Life::new(Plant::Nothing);
            for (n, deed) in deeds.iter().enumerate() {
                life.live(*deed);
                if n % 40 == 39 {
                    for volume in life.world.of_kind(Kind::Volume) {
                        life.world
                            .edit(&volume, &json!({"status": {"phase": "Released"}}));
                    }
                }
            }
            life.end();
            Ok(())
        })
        .unwrap();
}

/// A claim that is made anew under its name while its volume is released, and the watch is late: nothing
/// is made again for the first (P12, B3).
#[test]
fn a_claim_of_the_same_name_leaves_nothing_of_the_first() {
    let mut life = Life::new(Plant::Nothing);
    let done = Deed::Execute(0, Fate::Done);
    for deed in [
        Deed::CreateClaim(0),
        Deed::Kill,
        done,
        done,
        done,
        Deed::Bind,
        Deed::DeleteClaim(0),
        done,
        Deed::CreateClaim(0),
        Deed::Bind,
    ] {
        life.live(deed);
    }
    life.world.settle();
    let made = |step: &&String| *step == "make pvc-u1";
    assert_eq!(life.world.steps.iter().filter(made).count(), 1);
    life.end();
}

/// Found by a random life: the copy is not known to be begun, its source waits for it to be whole, and the
/// claim that would say what is copied is gone.
#[test]
fn a_copy_whose_making_failed_goes_on_without_its_sources_claim() {
    use Deed::{Bind, CreateClaim, CreateCopy, DeleteClaim, Execute, Kill, Tell, Wake};
    let done = Execute(0, Fate::Done);
    let dies = Execute(0, Fate::DeathAfter);
    let made_and_bound = [CreateClaim(2), Kill, done, done, dies, Bind];
    let copy_begun = [CreateCopy(0, 2), done, Tell, Tell, Tell];
    let source_gone = [DeleteClaim(2), Execute(5, Fate::Done), Wake, dies];
    let not_made = [done, Execute(0, Fate::Lost)];
    live(
        Plant::Nothing,
        &[&made_and_bound[..], &copy_begun, &source_gone, &not_made].concat(),
    );
}
