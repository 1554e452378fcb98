//! The edit that makes a volume fit a claim.

use std::collections::BTreeMap;

use bitts_api::{
    AccessModes, Claim, Kind, Labels, Name, ObjectKey, Quantity, ReclaimPolicy, Volume,
    VolumePhase, names,
};
use serde_json::{Value, json};

use super::kubectl::Kubectl;
use super::report::Next;
use crate::matching::created;
use crate::options::Options;
use crate::reason::Misfit;
use crate::reclaim::{Reclaim, reclaim};

/// One merge patch of a volume after which it can be given to the claim.
pub(super) struct Mend {
    volume: Name,
    patch: Value,
    /// What it changes.
    changes: Vec<String>,
    /// When it is right.
    only_if: Vec<&'static str>,
    warning: Option<String>,
    /// How far-fetched it is, how much is missing, and then which volume goes first.
    rank: (u32, Option<Quantity>, Option<Quantity>, i64, Name),
}

/// More than this, and it would be another volume.
const FAR_FETCHED: u32 = 10;

impl Mend {
    /// What it takes to overcome these misfits; `None` where no patch does.
    pub(super) fn of(
        volume: &Volume,
        claim: &Claim,
        misfits: &[Misfit],
        options: &Options,
    ) -> Option<Self> {
        let name = &volume.meta.name;
        let asked = claim.request.filter(|asked| Some(*asked) > volume.capacity);
        let missing = asked.and_then(|asked| asked.checked_sub(volume.capacity?));
        let mut mend = Self {
            volume: name.clone(),
            patch: json!({}),
            changes: Vec::new(),
            only_if: Vec::new(),
            warning: None,
            rank: (
                0,
                missing,
                volume.capacity,
                created(&volume.meta),
                name.clone(),
            ),
        };
        let released = misfits.contains(&Misfit::Taken);
        let back_to_its_own = released && mend.give_back(volume, claim, options)?;
        for misfit in misfits {
            // What is reserved for the claim need not match it in these.
            if back_to_its_own && matches!(misfit, Misfit::Class | Misfit::Selector) {
                continue;
            }
            mend.overcome(*misfit, volume, claim)?;
        }
        (mend.rank.0 <= FAR_FETCHED).then_some(mend)
    }

    fn overcome(&mut self, misfit: Misfit, volume: &Volume, claim: &Claim) -> Option<()> {
        match misfit {
            Misfit::Taken | Misfit::NotAvailable | Misfit::Delayed => {}
            Misfit::Selector => {
                let selector = claim.selector.as_ref()?;
                let mut labels: BTreeMap<_, _> = volume.meta.labels.iter().collect();
                for term in selector.unmet(&volume.meta.labels) {
                    let (key, value) = term.cure()?;
                    self.patch["metadata"]["labels"][key] = json!(value);
                    match value {
                        Some(value) => labels.insert(key, value),
                        None => labels.remove(key),
                    };
                }
                // Terms may contradict each other.
                if !selector.matches(&Labels::from_iter(labels)) {
                    return None;
                }
                self.change(1, "labels".into());
            }
            Misfit::Class => {
                let class = claim.class.as_ref().map_or("", |c| c.as_str());
                if volume.meta.annotations.has(names::BETA_STORAGE_CLASS) {
                    self.patch["metadata"]["annotations"][names::BETA_STORAGE_CLASS] = class.into();
                }
                self.patch["spec"]["storageClassName"] = class.into();
                let to = claim.class.as_ref();
                self.change(2, format!("class to {}", to.map_or("none", |c| c.as_str())));
            }
            Misfit::AccessModes => {
                let both = volume.access_modes.iter().chain(claim.access_modes.iter());
                let both: AccessModes = both.collect();
                if !both.contains_all(claim.access_modes) {
                    return None;
                }
                self.patch["spec"]["accessModes"] = json!(both);
                self.only_if.push("its storage can be used so");
                self.change(3, format!("access modes to {both}"));
            }
            Misfit::TooSmall | Misfit::NoCapacity => {
                let size = claim.request?;
                self.patch["spec"]["capacity"]["storage"] = json!(size);
                self.only_if.push("its storage holds that much");
                self.change(4, format!("capacity to {size}"));
            }
            Misfit::Deleting | Misfit::VolumeMode | Misfit::AttributesClass | Misfit::NotChosen => {
                return None;
            }
        }
        Some(())
    }

    /// Takes a volume that is Released or Failed from a claim that is gone; says whether it is for
    /// the claim of the same name.
    fn give_back(&mut self, volume: &Volume, claim: &Claim, options: &Options) -> Option<bool> {
        let over = matches!(volume.phase, VolumePhase::Released | VolumePhase::Failed);
        let owner = volume.claim_ref.as_ref()?;
        if !over || reclaim(volume, options) == Reclaim::LeaveToMaker {
            return None;
        }
        let own = owner.name == claim.meta.name
            && Some(&owner.namespace) == claim.meta.namespace.as_ref();
        self.patch["spec"]["claimRef"] = if own {
            json!({"uid": null, "resourceVersion": null})
        } else {
            Value::Null
        };
        // Nobody else may have taken it meanwhile.
        self.patch["metadata"]["resourceVersion"] = volume.meta.resource_version.to_string().into();
        let whose = if own { "the earlier claim" } else { "claim" };
        self.warning = Some(if own {
            format!("the claim gets the data of {whose} of the same name")
        } else {
            format!("the pods of this claim get the data of {whose} {owner} to see")
        });
        self.change(if own { 2 } else { 5 }, "claimRef".into());
        Some(own)
    }

    /// Also reserves the volume, so that no pod and no scheduler is needed.
    pub(super) fn reserve(mut self, claim: &Claim) -> Self {
        self.patch["spec"]["claimRef"] = json!({
            "apiVersion": "v1",
            "kind": Kind::Claim.name(),
            "namespace": claim.meta.namespace,
            "name": claim.meta.name,
        });
        self.change(0, "claimRef".into());
        self
    }

    fn change(&mut self, cost: u32, what: String) {
        self.rank.0 += cost;
        if !self.changes.contains(&what) {
            self.changes.push(what);
        }
    }

    /// Whether nothing has to be changed.
    pub(super) fn is_nothing(&self) -> bool {
        self.changes.is_empty()
    }

    /// The better of two.
    pub(super) fn better(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.rank < self.rank => other,
            _ => self,
        }
    }

    pub(super) fn next(self) -> Next {
        let volume = &self.volume;
        let mut text = format!(
            "volume {volume} comes closest: this changes its {}",
            self.changes.join(" and ")
        );
        if !self.only_if.is_empty() {
            text += &format!("; right only if {}", self.only_if.join(" and "));
        }
        let key = ObjectKey::volume(volume.clone());
        let code = if self.warning.is_some() {
            "release-volume"
        } else {
            "edit-volume"
        };
        let next = Next::new(code, text).by(Kubectl::merge(&key, &self.patch));
        match self.warning {
            Some(warning) => next.beware(warning),
            None => next,
        }
    }
}

/// Gives a volume of a claim that is gone to whoever asks next, and to nobody who came meanwhile.
pub(super) fn offer_again(volume: &Volume) -> Next {
    let whose = volume.claim_ref.as_ref();
    let whose = whose.map_or_else(String::new, |r| format!(" of claim {r}"));
    let mut text = "this offers the volume again, with its data".to_owned();
    if volume.reclaim_policy == ReclaimPolicy::Delete {
        text += "; its policy is still Delete when the next claim goes";
    }
    Next::new("release-volume", text)
        .by(Kubectl::merge(
            &ObjectKey::volume(volume.meta.name.clone()),
            &json!({
                "metadata": {"resourceVersion": volume.meta.resource_version.to_string()},
                "spec": {"claimRef": null},
            }),
        ))
        .beware(format!(
            "the next claim that fits gets the data{whose} to see"
        ))
}
