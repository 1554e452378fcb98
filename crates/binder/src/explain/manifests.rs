//! Which claim would get which volume, as if all of them were created now.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitts_api::machine::Place;
use bitts_api::{
    BindingMode, Claim, ClaimRef, Kind, Name, Object, ResourceVersion, StorageClass, Uid, Volume,
    VolumePhase,
};

use crate::claim::{Decision, decide};
use crate::known::{Dirty, Known};
use crate::matching::{created, misfit, named_misfit};
use crate::options::Options;
use crate::reason::{Loss, Misfit, Waiting};

/// What becomes of a claim, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The claim's namespace and name.
    pub claim: Place,
    /// Whether it gets a volume.
    pub outlook: Outlook,
    /// Every volume that it does not get, by the reason.
    pub candidates: Vec<Candidates>,
}

/// Whether a claim gets a volume.
#[derive(Clone, Debug, PartialEq)]
pub enum Outlook {
    /// It has one.
    Bound(Name),
    /// It gets this one.
    Gets(Name),
    /// It waits.
    Waits(Waiting),
    /// It was bound, and lost its volume.
    Lost(Loss),
}

impl Outlook {
    /// A name for scripts, which stays the same.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Bound(_) => "bound",
            Self::Gets(_) => "binds",
            Self::Waits(_) => "waits",
            Self::Lost(_) => "lost",
        }
    }
}

/// Volumes that a claim does not get, all for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Why not.
    pub reason: Misfit,
    /// How many.
    pub count: usize,
    /// Their names, in order.
    pub names: Vec<Name>,
}

/// Says for each claim which volume it gets and why not the others, as if all of them were created
/// now and the oldest claim was served first. New volumes count as Available.
///
/// Works on objects from a cluster and on manifests that no API has seen.
#[must_use]
pub fn explain(volumes: &[Volume], claims: &[Claim], classes: &[StorageClass]) -> Vec<Explanation> {
    let mut known = Known::default();
    let mut dirty = Dirty::default();
    let volumes = volumes.iter().cloned().map(as_offered).map(Object::from);
    let mut claims: Vec<_> = claims.iter().cloned().map(identified).collect();
    let classes = classes.iter().cloned().map(Object::from);
    known.list(Kind::Volume, volumes.collect(), &mut dirty);
    known.list(Kind::StorageClass, classes.collect(), &mut dirty);
    let all = claims.iter().cloned().map(Object::from);
    known.list(Kind::Claim, all.collect(), &mut dirty);
    let free: Vec<_> = known.offerable().cloned().collect();
    free.into_iter().for_each(|v| known.free.insert(v));

    claims.sort_by_key(|claim| (created(&claim.meta), claim.meta.place()));
    claims
        .into_iter()
        .map(|claim| serve(claim, &mut known))
        .collect()
}

/// Decides for one claim, and takes its volume out of the others' reach.
fn serve(mut claim: Claim, known: &mut Known) -> Explanation {
    known.prepare(&claim);
    let options = Options::default();
    let mut decision = decide(&claim, known, &options);
    if let Decision::TakeClass(class) = decision {
        claim.class = Some(class);
        claim.class_is_set = true;
        decision = decide(&claim, known, &options);
    }
    let mut own = None;
    let outlook = match decision {
        Decision::Bind { volume, .. } => {
            let name = volume.meta.name.clone();
            own = Some(name.clone());
            take(&volume, &claim, known);
            if claim.bind_completed() {
                Outlook::Bound(name)
            } else {
                Outlook::Gets(name)
            }
        }
        Decision::Wait(wait) => Outlook::Waits(wait.why),
        Decision::Ask { provisioner, .. } => Outlook::Waits(Waiting::Provisioner(provisioner)),
        Decision::TakeClass(class) => Outlook::Waits(Waiting::ClassMissing(class)),
        Decision::Lose(loss) => Outlook::Lost(loss),
    };
    let class = claim.class.as_ref().and_then(|name| known.class(name));
    let delayed = class.is_some_and(|c| c.binding_mode == BindingMode::WaitForFirstConsumer);
    let mut by_reason: BTreeMap<Misfit, Vec<Name>> = BTreeMap::new();
    for volume in known.all_volumes() {
        let name = &volume.meta.name;
        if own.as_ref() == Some(name) {
            continue;
        }
        let named = claim.volume_name.as_ref() == Some(name) && volume.claim_ref.is_none();
        let reason = if named {
            named_misfit(volume, &claim)
        } else {
            misfit(volume, &claim, delayed)
        };
        by_reason
            .entry(reason.unwrap_or(Misfit::NotChosen))
            .or_default()
            .push(name.clone());
    }
    Explanation {
        claim: claim.meta.place(),
        outlook,
        candidates: by_reason
            .into_iter()
            .map(|(reason, names)| Candidates {
                reason,
                count: names.len(),
                names,
            })
            .collect(),
    }
}

/// The volume as it is once the binder reserved it.
fn take(volume: &Arc<Volume>, claim: &Claim, known: &mut Known) {
    let mut reserved = Volume::clone(volume);
    if let Some(namespace) = &claim.meta.namespace {
        reserved.claim_ref = Some(ClaimRef {
            namespace: namespace.clone(),
            name: claim.meta.name.clone(),
            uid: Some(claim.meta.uid.clone()),
        });
    }
    reserved.meta.resource_version = ResourceVersion(volume.meta.resource_version.0 + 1);
    known.free.remove(&volume.meta.name);
    known.see(reserved.into(), &mut Dirty::default());
}

/// A new volume as the binder offers it.
fn as_offered(mut volume: Volume) -> Volume {
    if volume.phase == VolumePhase::Pending {
        volume.phase = VolumePhase::Available;
    }
    volume
}

/// A manifest has no uid; two claims of different places must differ all the same. Nor has it a
/// namespace unless it says so.
fn identified(mut claim: Claim) -> Claim {
    let namespace = claim.meta.namespace.get_or_insert_with(|| "default".into());
    if claim.meta.uid.is_empty() {
        claim.meta.uid = Uid::from(format!("{namespace}/{}", claim.meta.name));
    }
    claim
}
