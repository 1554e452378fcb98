//! What is to be done for a claim (B8 to B19, P1 to P5).

use std::sync::Arc;

use bitts_api::{BindingMode, Claim, ClaimRef, ClassName, Name, Volume, names};

use crate::known::Known;
use crate::matching::{misfit, named_misfit};
use crate::migration;
use crate::options::{Difference, Options};
use crate::reason::{Loss, Misfit, Waiting};
use crate::reclaim::{HOST_PATH, IN_TREE};

/// What a claim needs now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Bind it to this volume, or go on binding.
    Bind {
        volume: Arc<Volume>,
        /// The binder chose the volume, nobody named it.
        chosen: bool,
    },
    /// Give it the default class (B10.1).
    TakeClass(ClassName),
    /// Ask this provisioner for a volume (P4).
    Ask {
        provisioner: Box<str>,
        /// The class waits for the first consumer.
        delayed: bool,
    },
    /// It has to wait.
    Wait(Wait),
    /// It is bound, and its volume is lost (B18).
    Lose(Loss),
}

impl Decision {
    /// Whether a volume that becomes free could make this decision unnecessary. A claim that waits
    /// for its first consumer is not given one.
    pub(crate) fn wants_any_volume(&self) -> bool {
        match self {
            Self::Wait(wait) => wait.any_volume,
            Self::Ask { delayed, .. } => !delayed,
            Self::TakeClass(_) => true,
            Self::Bind { .. } | Self::Lose(_) => false,
        }
    }
}

/// How a claim waits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wait {
    pub(crate) why: Waiting,
    /// Whose the volume is that it names.
    pub(crate) taken_by: Option<ClaimRef>,
    /// Volumes reserved for it that do not fit it.
    pub(crate) beside: Vec<(Name, Misfit)>,
    /// Its status says that it has nothing (B11); otherwise the status is left alone.
    pub(crate) pending: bool,
    /// The next free volume that matches is for it.
    pub(crate) any_volume: bool,
}

/// Decides for a claim from what is known. [`Known::prepare`] must have been called for it.
pub(crate) fn decide(claim: &Claim, known: &Known, options: &Options) -> Decision {
    if claim.bind_completed() {
        bound(claim, known)
    } else if let Some(name) = &claim.volume_name {
        named(claim, name, known)
    } else {
        unbound(claim, known, options)
    }
}

fn bind(volume: &Arc<Volume>, chosen: bool) -> Decision {
    Decision::Bind {
        volume: volume.clone(),
        chosen,
    }
}

/// Binding was completed once (B18, B19).
fn bound(claim: &Claim, known: &Known) -> Decision {
    let Some(name) = &claim.volume_name else {
        return Decision::Lose(Loss::Unnamed);
    };
    let Some(volume) = known.volume(name) else {
        return Decision::Lose(Loss::Gone);
    };
    match &volume.claim_ref {
        None => bind(volume, false),
        Some(r) if r.uid.as_ref() == Some(&claim.meta.uid) => bind(volume, false),
        Some(_) => Decision::Lose(Loss::Misbound),
    }
}

/// The claim names its volume (B16).
fn named(claim: &Claim, name: &Name, known: &Known) -> Decision {
    let wait = |why, pending, owner: Option<&ClaimRef>| {
        Decision::Wait(Wait {
            why,
            taken_by: owner.cloned(),
            beside: Vec::new(),
            pending,
            any_volume: false,
        })
    };
    let Some(volume) = known.volume(name) else {
        return wait(Waiting::NamedMissing(name.clone()), true, None);
    };
    if volume.is_for(claim) {
        return bind(volume, false);
    }
    if let Some(owner) = &volume.claim_ref {
        // With the annotation, somebody removed bind-completed by hand: the status stays.
        let by_controller = claim.meta.annotations.has(names::BOUND_BY_CONTROLLER);
        return wait(
            Waiting::NamedTaken(name.clone()),
            !by_controller,
            Some(owner),
        );
    }
    let rightful = known.rightful(volume);
    if let Some(owner) = rightful.filter(|owner| owner.meta.uid != claim.meta.uid) {
        let owner = owner.meta.namespace.clone().map(|namespace| ClaimRef {
            namespace,
            name: owner.meta.name.clone(),
            uid: Some(owner.meta.uid.clone()),
        });
        return wait(Waiting::NamedTaken(name.clone()), true, owner.as_ref());
    }
    match named_misfit(volume, claim) {
        Some(misfit) => wait(Waiting::NamedMisfit(name.clone(), misfit), true, None),
        None => bind(volume, false),
    }
}

/// Any volume will do that fits (B9, B10).
fn unbound(claim: &Claim, known: &Known, options: &Options) -> Decision {
    let place = claim.meta.place();
    let class = claim.class.as_ref().and_then(|name| known.class(name));
    let delayed = class.is_some_and(|c| c.binding_mode == BindingMode::WaitForFirstConsumer);

    let (fit, unfit): (Vec<_>, Vec<_>) = known
        .reserved_for(&place)
        .filter(|volume| volume.is_for(claim))
        .map(|volume| (volume, misfit(volume, claim, delayed)))
        .partition(|(_, misfit)| misfit.is_none());
    // A reserved volume goes first, whatever group it is in (§13.7); to be exact, only within its
    // group, and groups with fewer modes go before (B12, B14).
    let anywhere = options.differs(Difference::ReservedFirst);
    let preference = |volume: &Volume| {
        let has_uid = volume.claim_ref.as_ref().is_some_and(|r| r.uid.is_some());
        let modes = volume.access_modes;
        (
            anywhere && !has_uid,
            modes.len(),
            modes,
            !has_uid,
            volume.capacity,
        )
    };
    let reserved = fit.into_iter().map(|(volume, _)| volume);
    let reserved = reserved.min_by_key(|v| preference(v));
    let free = known.free.best(claim).filter(|_| !delayed);
    match (reserved, free) {
        (Some(volume), free) => {
            let fewer = |free: &&Arc<Volume>| free.access_modes.len() < volume.access_modes.len();
            return match free.filter(fewer) {
                Some(free) if !anywhere => bind(free, true),
                _ => bind(volume, false),
            };
        }
        (None, Some(free)) => return bind(free, true),
        (None, None) => {}
    }

    let beside = unfit
        .into_iter()
        .filter_map(|(volume, misfit)| Some((volume.meta.name.clone(), misfit?)))
        .collect();
    let wait = |why, pending| {
        Decision::Wait(Wait {
            why,
            taken_by: None,
            beside,
            pending,
            any_volume: !delayed,
        })
    };
    if !claim.class_is_set
        && let Some(default) = known.default_class()
    {
        return Decision::TakeClass(default);
    }
    if delayed && !claim.meta.annotations.has(names::SELECTED_NODE) {
        let pods = known.pods_without_node(&place);
        let why = if pods.is_empty() {
            Waiting::Consumer
        } else {
            Waiting::Pods(pods)
        };
        return wait(why, true);
    }
    let Some(name) = &claim.class else {
        return wait(Waiting::NoVolume, true);
    };
    let why = match class {
        _ if !options.provisioning => Waiting::ProvisioningOff,
        None => Waiting::ClassMissing(name.clone()),
        Some(class) => {
            let provisioner = &*class.provisioner;
            let driver = migration::driver(provisioner);
            let asked = driver.unwrap_or(provisioner); // P4
            let built_in = driver.is_none() && provisioner.starts_with(IN_TREE);
            if built_in && provisioner != HOST_PATH {
                Waiting::NoProvisioner(provisioner.into())
            } else if claim.meta.annotations.get(names::STORAGE_PROVISIONER) != Some(asked) {
                return Decision::Ask {
                    provisioner: asked.into(),
                    delayed,
                };
            } else if built_in {
                Waiting::ProvisionerOff(provisioner.into())
            } else {
                Waiting::Provisioner(asked.into())
            }
        }
    };
    wait(why, false)
}
