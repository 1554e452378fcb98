//! Random orders of everything that can happen, each from a seed: effects that overtake one another,
//! fail, conflict or take effect unheard; processes that die; watches that repeat old news; users
//! that come and go. Whatever happens, nothing is bound twice, and all that can be bound is bound
//! when things calm down.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use bitts_api::machine::Input;
use bitts_api::{Claim, Kind, Object, ObjectKey, Volume};
use bitts_binder::{Difference, misfit};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Fate, Store, World, claim, volume};

const FATES: [Fate; 12] = [
    Fate::Done,
    Fate::Done,
    Fate::Done,
    Fate::Done,
    Fate::Done,
    Fate::Done,
    Fate::Touched,
    Fate::Touched,
    Fate::Lost,
    Fate::AnswerLost,
    Fate::DeathBefore,
    Fate::DeathAfter,
];

/// What happens next.
#[derive(Clone, Debug)]
enum Happens {
    Execute { which: usize, fate: usize },
    OldNews(usize),
    Watch(usize),
    Timers,
    NewVolume(Value),
    NewClaim(Value),
    DeleteClaim(usize),
    DeleteVolume(usize),
    Label(usize),
}

fn size() -> impl Strategy<Value = String> {
    (1..4u8).prop_map(|n| format!("{n}Gi"))
}

fn a_volume() -> impl Strategy<Value = Value> {
    let all = (size(), any::<bool>(), any::<bool>(), any::<bool>(), 0..12u8);
    all.prop_map(|(size, class, label, wide, prebound)| {
        let mut v = volume("", &size);
        if class {
            v["spec"]["storageClassName"] = "gold".into();
        }
        if label {
            v["metadata"]["labels"] = json!({"app": "db"});
        }
        if wide {
            v["spec"]["accessModes"] = json!(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]);
        }
        if prebound < 3 {
            v["spec"]["claimRef"] =
                json!({"namespace": "default", "name": format!("c-{prebound}")});
        }
        v["status"]["phase"] = "Pending".into();
        v
    })
}

fn a_claim() -> impl Strategy<Value = Value> {
    let all = (size(), any::<bool>(), any::<bool>(), any::<bool>(), 0..12u8);
    all.prop_map(|(size, class, selects, wide, named)| {
        let mut c = claim("", &size);
        if class {
            c["spec"]["storageClassName"] = "gold".into();
        }
        if selects {
            c["spec"]["selector"] = json!({"matchLabels": {"app": "db"}});
        }
        if wide {
            c["spec"]["accessModes"] = json!(["ReadWriteMany"]);
        }
        if named < 3 {
            c["spec"]["volumeName"] = format!("v-{named}").into();
        }
        c
    })
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        12 => (any::<usize>(), 0..FATES.len())
            .prop_map(|(which, fate)| Happens::Execute { which, fate }),
        1 => any::<usize>().prop_map(Happens::OldNews),
        2 => any::<usize>().prop_map(Happens::Watch),
        1 => Just(Happens::Timers),
        3 => a_volume().prop_map(Happens::NewVolume),
        3 => a_claim().prop_map(Happens::NewClaim),
        1 => any::<usize>().prop_map(Happens::DeleteClaim),
        1 => any::<usize>().prop_map(Happens::DeleteVolume),
        1 => any::<usize>().prop_map(Happens::Label),
    ]
}

struct Story {
    world: World,
    /// Every version of every object that there was.
    history: Vec<Object>,
    made: usize,
}

impl Story {
    fn key(&self, kind: Option<Kind>, which: usize) -> Option<ObjectKey> {
        let fits = |key: &&ObjectKey| kind.is_none_or(|kind| key.kind == kind);
        let keys: Vec<_> = self.world.store.objects.keys().filter(fits).collect();
        (!keys.is_empty()).then(|| keys[which % keys.len()].clone())
    }

    fn add(&mut self, kind: Kind, prefix: &str, mut object: Value) {
        let name = (0..).map(|n| format!("{prefix}-{n}")).find(|name| {
            let taken = |key: &ObjectKey| key.kind == kind && key.name == **name;
            !self.world.store.objects.keys().any(taken)
        });
        self.made += 1;
        object["metadata"]["name"] = name.unwrap().into();
        object["metadata"]["uid"] = format!("uid-{}", self.made).into();
        self.world.create(kind, object);
    }

    fn go(&mut self, next: &Happens) {
        let world = &mut self.world;
        match next {
            Happens::Execute { which, fate } => {
                if !world.queue.is_empty() {
                    world.execute(which % world.queue.len(), FATES[*fate]);
                }
            }
            Happens::OldNews(which) => {
                // A watch does not bring back what is gone: only older versions of what is there.
                let old = (!self.history.is_empty())
                    .then(|| self.history[which % self.history.len()].clone());
                if let Some(old) = old
                    && world
                        .store
                        .get(&old.key())
                        .is_some_and(|o| o.uid() == old.uid())
                {
                    world.feed(Input::Seen(old));
                }
            }
            Happens::Watch(which) => {
                if let Some(key) = self.key(None, *which) {
                    self.world.see(&key);
                }
            }
            Happens::Timers => world.wake(),
            Happens::NewVolume(v) => self.add(Kind::Volume, "v", v.clone()),
            Happens::NewClaim(c) => self.add(Kind::Claim, "c", c.clone()),
            Happens::DeleteClaim(which) => {
                if let Some(key) = self.key(Some(Kind::Claim), *which) {
                    self.world.delete(&key);
                }
            }
            Happens::DeleteVolume(which) => {
                if let Some(key) = self.key(Some(Kind::Volume), *which) {
                    self.world.delete(&key);
                }
            }
            Happens::Label(which) => {
                if let Some(key) = self.key(None, *which) {
                    let label = json!({"metadata": {"labels": {"app": "db"}}});
                    self.world.edit(&key, &label);
                }
            }
        }
        self.no_volume_has_two_claims();
        let known = self.history.iter().map(Object::resource_version).max();
        let keys = self.world.store.objects.keys();
        let now = keys.filter_map(|key| self.world.store.get(key));
        self.history
            .extend(now.filter(|object| Some(object.resource_version()) > known));
    }

    fn volumes(&self) -> Vec<Volume> {
        let all = self.world.store.list(Kind::Volume);
        all.into_iter()
            .filter_map(|o| match o {
                Object::Volume(v) => Some(Volume::clone(&v)),
                _ => None,
            })
            .collect()
    }

    fn claims(&self) -> Vec<Claim> {
        let all = self.world.store.list(Kind::Claim);
        all.into_iter()
            .filter_map(|o| match o {
                Object::Claim(c) => Some(Claim::clone(&c)),
                _ => None,
            })
            .collect()
    }

    fn no_volume_has_two_claims(&self) {
        let mut taken = BTreeMap::new();
        for claim in self.claims() {
            let Some(name) = claim.volume_name.clone().filter(|_| claim.bind_completed()) else {
                continue;
            };
            // A deleted volume's name may come again; then the claim is lost, not bound.
            let owner = self.volumes().into_iter().find(|v| v.meta.name == name);
            let uid = owner.and_then(|v| v.claim_ref).and_then(|r| r.uid);
            if uid.as_ref() == Some(&claim.meta.uid) {
                assert_eq!(taken.insert(name, claim.meta.uid), None);
            }
        }
    }

    /// What must hold when nothing is left to do.
    fn all_is_well(&self) {
        let (volumes, claims) = (self.volumes(), self.claims());
        for claim in &claims {
            let has = |v: &&Volume| {
                let uid = v.claim_ref.as_ref().and_then(|r| r.uid.as_ref());
                uid == Some(&claim.meta.uid)
            };
            let own: Vec<_> = volumes.iter().filter(has).map(|v| &v.meta.name).collect();
            assert!(own.len() <= 1, "{} is on {own:?}", claim.meta.name);
            if claim.bind_completed() {
                let bound = claim.phase == bitts_api::ClaimPhase::Bound;
                assert_eq!(bound, own.len() == 1, "{claim:#?} {own:?}");
            } else if claim.volume_name.is_none() {
                let fits = |v: &&Volume| misfit(v, claim, false).is_none();
                let fitting: Vec<_> = volumes.iter().filter(fits).map(|v| &v.meta.name).collect();
                assert!(
                    fitting.is_empty(),
                    "{} could have {fitting:?}",
                    claim.meta.name
                );
            }
        }
        for volume in &volumes {
            assert_ne!(volume.phase, bitts_api::VolumePhase::Pending);
        }
    }
}

fn tell(story: &[Happens]) -> World {
    let mut world = World::new(Store::default());
    world.options.differences = world
        .options
        .differences
        .set(Difference::HoldRestored, false); // volumes whose claims go early are no restored ones
    world.start();
    let mut told = Story {
        world,
        history: Vec::new(),
        made: 0,
    };
    for next in story {
        told.go(next);
    }
    // The watches catch up, and nothing fails any more.
    let all: Vec<_> = told.world.store.objects.keys().cloned().collect();
    for key in all {
        told.world.see(&key);
    }
    told.world.settle();
    told.all_is_well();
    let before = told.world.steps.len();
    told.world.start();
    told.world.settle();
    assert_eq!(
        told.world.steps.len(),
        before,
        "a new process finds nothing to do"
    );
    told.world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(story in prop::collection::vec(happens(), 1..80)) {
        let first = tell(&story);
        let again = tell(&story);
        prop_assert_eq!(first.trace, again.trace, "the same inputs gave other effects");
    }
}
