//! Volumes and claims by the million, without a detour through JSON.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by a benchmark and an example"
)]

use std::cell::Cell;
use std::convert::Infallible;

use bitts_api::machine::{Effect, Input, Machine, Moment};
use bitts_api::{Claim, Kind, Labels, Object, ResourceVersion, StorageClass, Uid, Volume};
use bitts_binder::{Binder, Options, Retry};
use serde_json::json;

pub type BinderEffect = Effect<Infallible, Retry>;

/// Sizes go from 1Gi to 1000Gi.
pub const SIZES: usize = 1_000;

pub struct Templates {
    volume: Volume,
    claim: Claim,
    sizes: Vec<bitts_api::Quantity>,
    /// The last number that was given out.
    used: Cell<u64>,
}

impl Templates {
    pub fn new() -> Self {
        let volume = json!({
            "metadata": {
                "name": "v",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["kubernetes.io/pv-protection"],
            },
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local-storage",
                "local": {"path": "/data"},
            },
            "status": {"phase": "Available"},
        });
        let claim = json!({
            "metadata": {
                "name": "c",
                "namespace": "default",
                "finalizers": ["kubernetes.io/pvc-protection"],
            },
            "spec": {
                "resources": {"requests": {"storage": "1Gi"}},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local-storage",
            },
        });
        let sizes = (1..=SIZES).map(|n| format!("{n}Gi").parse().unwrap());
        Self {
            volume: serde_json::from_value(volume).unwrap(),
            claim: serde_json::from_value(claim).unwrap(),
            sizes: sizes.collect(),
            used: Cell::new(100_000_000),
        }
    }

    /// The `n`th volume; its label `n` is its own, `rare` is on one in 10,000.
    pub fn volume(&self, n: usize) -> Volume {
        let mut volume = self.volume.clone();
        volume.meta.name = format!("pv-{n:07}").into();
        volume.meta.uid = format!("0000-volume-{n:07}").into();
        volume.meta.resource_version = ResourceVersion(n as u64 + 1);
        volume.capacity = Some(self.sizes[scatter(n) % SIZES]);
        let rare = if n.is_multiple_of(10_000) {
            "yes"
        } else {
            "no"
        };
        volume.meta.labels = Labels::from_iter([("rare", rare), ("zone", "a")]);
        volume
    }

    /// The volume of this name in a later version than any before.
    pub fn volume_again(&self, name: &str) -> Volume {
        let mut volume = self.volume(name["pv-".len()..].parse().unwrap());
        volume.meta.resource_version = ResourceVersion(self.next());
        volume
    }

    /// A uid that no object had before: what was deleted does not come back.
    pub fn new_uid(&self) -> Uid {
        format!("0000-new-{}", self.next()).into()
    }

    fn next(&self) -> u64 {
        self.used.set(self.used.get() + 1);
        self.used.get()
    }

    /// The `n`th claim.
    pub fn claim(&self, n: usize) -> Claim {
        let mut claim = self.claim.clone();
        claim.meta.name = format!("pvc-{n:07}").into();
        claim.meta.uid = format!("0000-claim-{n:07}").into();
        claim.meta.resource_version = ResourceVersion(n as u64 + 1);
        claim.request = Some(self.sizes[scatter(n) % SIZES]);
        claim
    }

    /// The `n`th claim, with a selector.
    pub fn selecting(&self, n: usize, key: &str, value: &str) -> Claim {
        let mut claim = self.claim(n);
        claim.request = Some(self.sizes[n % 100]);
        let selector = json!({"matchLabels": {key: value, "zone": "a"}});
        claim.selector = Some(serde_json::from_value(selector).unwrap());
        claim
    }
}

/// Spreads numbers evenly, the same way every time.
fn scatter(n: usize) -> usize {
    let mixed = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> 20).unwrap()
}

/// A binder that knows these objects, and what it wants done.
pub fn binder(volumes: Vec<Object>, claims: Vec<Object>) -> (Binder, Vec<BinderEffect>) {
    let mut binder = Binder::new(Options {
        protection: false, // the API's admission did it
        ..Options::default()
    });
    let mut effects = Vec::new();
    let class = json!({
        "metadata": {"name": "local-storage", "uid": "0000-class"},
        "provisioner": "kubernetes.io/no-provisioner",
    });
    let class: StorageClass = serde_json::from_value(class).unwrap();
    let all = [
        (Kind::StorageClass, vec![class.into()]),
        (Kind::Pod, vec![]),
        (Kind::Node, vec![]),
        (Kind::Volume, volumes),
        (Kind::Claim, claims),
    ];
    for (kind, all) in all {
        effects.extend(binder.handle(Moment::default(), Input::Listed(kind, all)));
    }
    (binder, effects)
}

/// The most memory that this process ever had, in MiB.
pub fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<usize>().ok());
    kib.map_or("unknown".to_owned(), |kib| format!("{} MiB", kib / 1024))
}
