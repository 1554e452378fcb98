//! Why a volume is where it is, and whom it would serve.

use bitts_api::machine::Place;
use bitts_api::{Claim, ClaimRef, ObjectKey, ReclaimPolicy, Volume, VolumePhase, names};
use serde_json::json;

use super::claim::{is_delayed, no_binder};
use super::cluster::Cluster;
use super::deleting;
use super::kubectl::Kubectl;
use super::mend::offer_again;
use super::obstacle::{Groups, Obstacle};
use super::report::{Next, Report, State};
use crate::matching::{misfits, named_misfits};
use crate::reclaim::{Reclaim, reclaim};
use crate::volume::{Decision, decide};

pub(super) fn report(volume: &Volume, cluster: &Cluster) -> Report {
    let key = ObjectKey::volume(volume.meta.name.clone());
    let mut report = match &volume.claim_ref {
        None => nobodys(key, volume, cluster),
        Some(owner) => somebodys(key, volume, owner, cluster),
    };
    if let Some(owner) = volume.claim_ref.as_ref().filter(|r| r.lacks().is_none()) {
        report.partner = Some(ObjectKey::claim(
            owner.namespace.clone(),
            owner.name.clone(),
        ));
        report.pods = cluster.users(&place(owner));
    }
    if cluster.is_out_of_reach(volume)
        && let Some(affinity) = &volume.node_affinity
    {
        let text = format!("no node satisfies its node affinity, {affinity}: no pod can use it");
        report.fact("no-node", text);
    }
    if volume.meta.is_deleting() {
        let bound = volume.phase == VolumePhase::Bound;
        let has_claim = bound || cluster.known.is_named_by_its_claim(volume);
        return deleting::volume(volume, has_claim, report);
    }
    report
}

fn place(owner: &ClaimRef) -> Place {
    (Some(owner.namespace.clone()), owner.name.clone())
}

fn nobodys(key: ObjectKey, volume: &Volume, cluster: &Cluster) -> Report {
    let (serves, immediate, candidates) = demand(volume, cluster);
    let mut report = if volume.phase != VolumePhase::Available {
        let phase = volume.phase.as_str();
        Report::new(key, State::Pending)
            .waits(
                "binder",
                format!("the binder, to offer it: its phase is {phase} still"),
            )
            .next(no_binder("this"))
    } else if immediate {
        Report::new(key, State::Binding)
            .waits(
                "binder",
                format!("the binder, to give it to claim {}", serves[0]),
            )
            .next(no_binder("binding"))
    } else {
        Report::new(key, State::Available)
    };
    report.serves = serves;
    report.candidates = candidates;
    if volume.capacity.is_none() {
        let text =
            "it says no capacity that can be read, so it fits no claim: set spec.capacity.storage";
        report.fact("no-capacity", text);
    }
    report
}

/// The waiting claims that the volume would serve, whether one of them waits for nothing else, and
/// the others.
fn demand(volume: &Volume, cluster: &Cluster) -> (Vec<String>, bool, Vec<super::Group>) {
    let mut serves = Vec::new();
    let mut immediate = None;
    let mut groups = Groups::default();
    // Taken by the phase it will have: that the binder has not offered it yet is said elsewhere.
    let mut volume = volume.clone();
    volume.phase = VolumePhase::Available;
    for claim in &cluster.claims {
        let Some(claim) = unserved(claim, cluster) else {
            continue;
        };
        let named = claim.volume_name.as_ref() == Some(&volume.meta.name);
        let all: Vec<_> = if named {
            named_misfits(&volume, &claim).collect()
        } else {
            misfits(&volume, &claim, false).collect()
        };
        let name = format!("{}", crate::writes::claim_key(&claim));
        if let Some(first) = all.first() {
            let reason = Obstacle::of(*first, &volume);
            groups.add(reason, all.len() < 2, asks(reason, &volume, &claim), name);
        } else if named || !is_delayed(&claim, cluster) {
            immediate.get_or_insert(name);
        } else {
            serves.push(name);
        }
    }
    let now = immediate.is_some();
    serves.sort();
    serves.splice(..0, immediate);
    (serves, now, groups.finish())
}

/// The claim, with the class that counts, if it has no volume and may get this one.
fn unserved(claim: &Claim, cluster: &Cluster) -> Option<Claim> {
    if claim.bind_completed() || claim.meta.is_deleting() {
        return None;
    }
    let place = claim.meta.place();
    if cluster.known.reserved_for(&place).any(|v| v.is_for(claim)) {
        return None;
    }
    let mut claim = claim.clone();
    if !claim.class_is_set {
        claim.class = cluster.known.default_class();
    }
    Some(claim)
}

/// What the claim asks for that the volume is not.
fn asks(reason: Obstacle, volume: &Volume, claim: &Claim) -> String {
    match reason {
        Obstacle::Class => match &claim.class {
            Some(class) => format!("asks for class {class}"),
            None => "asks for no class".into(),
        },
        Obstacle::Selector => match &claim.selector {
            Some(selector) => format!("selects {selector}"),
            None => String::new(),
        },
        Obstacle::TooSmall => match claim.request {
            Some(size) => format!("asks for {size}"),
            None => "asks for more than can be said".into(),
        },
        Obstacle::AccessModes => format!("asks for {}", claim.access_modes),
        other => other.detail(volume, claim),
    }
}

fn somebodys(key: ObjectKey, volume: &Volume, owner: &ClaimRef, cluster: &Cluster) -> Report {
    if let Some(lacks) = owner.lacks() {
        let patch = json!({"spec": {"claimRef": null}});
        let next = Next::new("unreserve-volume", "this offers the volume to every claim");
        return Report::new(key.clone(), State::Reserved)
            .waits(
                "operator",
                format!("you: its claimRef has {lacks}, so it denotes no claim"),
            )
            .next(next.by(Kubectl::merge(&key, &patch)));
    }
    let claim = cluster.known.claim(&place(owner));
    let claim = claim.filter(|c| owner.uid.as_ref().is_none_or(|uid| *uid == c.meta.uid));
    match (claim, decide(volume, &cluster.known, &cluster.options)) {
        (None, _) if owner.uid.is_none() => reserved(key, volume, owner),
        (None, Decision::Hold(_)) => held(key, volume, owner, cluster),
        (None, decision) => {
            let mut report = orphaned(key, volume, owner, cluster);
            if let Decision::Tell(notice) = decision {
                report.fact("notice", notice.message);
            }
            report
        }
        (Some(claim), _) => owned(key, volume, owner, claim),
    }
}

/// Kept for a claim that does not exist.
fn reserved(key: ObjectKey, volume: &Volume, owner: &ClaimRef) -> Report {
    let patch = json!({"spec": {"claimRef": null}});
    let next = Next::new(
        "unreserve-volume",
        "create that claim, or offer the volume to every claim by this",
    )
    .by(Kubectl::merge(&key, &patch));
    let mut report = Report::new(key, State::Reserved)
        .waits(
            "claim",
            format!("claim {owner}, which it is reserved for and which does not exist"),
        )
        .next(next);
    if volume.phase == VolumePhase::Pending {
        report.fact(
            "binder",
            "no binder has looked at it yet: its phase is Pending still",
        );
    }
    report
}

fn owned(key: ObjectKey, volume: &Volume, owner: &ClaimRef, claim: &Claim) -> Report {
    match &claim.volume_name {
        Some(name) if *name == volume.meta.name => {
            if volume.phase == VolumePhase::Bound && claim.bind_completed() {
                return Report::new(key, State::Bound);
            }
            Report::new(key, State::Binding)
                .waits(
                    "binder",
                    format!("the binder, to finish binding it to claim {owner}"),
                )
                .next(no_binder("binding"))
        }
        Some(other) => Report::new(key, State::Released)
            .waits(
                "binder",
                format!("the binder, to take it back: claim {owner} has volume {other}"),
            )
            .next(no_binder("this")),
        None => match misfits(volume, claim, false).next() {
            None => Report::new(key, State::Binding)
                .waits("binder", format!("the binder, to bind it to claim {owner}"))
                .next(no_binder("binding")),
            Some(misfit) => {
                let reason = Obstacle::of(misfit, volume);
                let text = format!(
                    "a claim that it fits: it is reserved for claim {owner}, but {}",
                    reason.detail(volume, claim)
                );
                let patch = json!({"spec": {"claimRef": null}});
                let next = Next::new("unreserve-volume", "this offers the volume to every claim");
                let next = next.by(Kubectl::merge(&key, &patch));
                Report::new(key, State::Reserved)
                    .waits(reason.code(), text)
                    .next(next)
            }
        },
    }
}

/// It came from elsewhere.
fn held(key: ObjectKey, volume: &Volume, owner: &ClaimRef, cluster: &Cluster) -> Report {
    let again = cluster.known.claim(&place(owner)).is_some();
    let text = format!(
        "you: it came bound to a claim {owner} that never was here, as after a restore from a backup, \
         so its data is left alone (kube-controller-manager would release it, and perhaps delete it)"
    );
    let (what, there) = if again {
        (
            "this gives it to the claim of that name that is here now",
            "",
        )
    } else {
        (
            "this keeps it for the claim of that name",
            ", once it is created",
        )
    };
    let patch = json!({
        "metadata": {"resourceVersion": volume.meta.resource_version.to_string()},
        "spec": {"claimRef": {"uid": null, "resourceVersion": null}},
    });
    let next = Next::new("adopt-volume", format!("{what}{there}"))
        .by(Kubectl::merge(&key, &patch))
        .beware(format!("pods that use claim {owner} get the data to see"));
    Report::new(key, State::Held)
        .waits("operator", text)
        .next(next)
}

/// Its claim is gone.
fn orphaned(key: ObjectKey, volume: &Volume, owner: &ClaimRef, cluster: &Cluster) -> Report {
    let gone = format!("its claim {owner} is gone");
    match volume.phase {
        VolumePhase::Failed => {
            let mut report = Report::new(key, State::Failed)
                .waits("operator", format!("you: {gone}, and reclaiming it failed"))
                .next(offer_again(volume));
            if !volume.message.is_empty() {
                report.fact("failure", &*volume.message);
            }
            report
        }
        VolumePhase::Released => {
            let report = Report::new(key.clone(), State::Released);
            match reclaim(volume, &cluster.options) {
                Reclaim::Keep => report
                    .waits(
                        "operator",
                        format!(
                            "you: {gone}, and its policy {} keeps the data",
                            policy(volume)
                        ),
                    )
                    .next(offer_again(volume)),
                Reclaim::LeaveToMaker => {
                    let annotations = &volume.meta.annotations;
                    let maker = annotations
                        .get(names::PROVISIONED_BY)
                        .unwrap_or_else(|| volume.source.type_name());
                    report
                        .waits("provisioner", format!("{maker}, to delete it: {gone}"))
                        .next(
                            Next::new(
                                "check-provisioner",
                                "what hinders it stands in the volume's events. If there is none from \
                                 it, it does not run",
                            )
                            .by(Kubectl::on("describe", &key)),
                        )
                }
                _ => report
                    .waits(
                        "binder",
                        format!(
                            "the binder, to reclaim it: {gone}, policy {}",
                            policy(volume)
                        ),
                    )
                    .next(offer_again(volume)),
            }
        }
        VolumePhase::Pending | VolumePhase::Available | VolumePhase::Bound => {
            Report::new(key, State::Released)
                .waits("binder", format!("the binder, to release it: {gone}"))
                .next(no_binder("this"))
        }
    }
}

fn policy(volume: &Volume) -> &str {
    match &volume.reclaim_policy {
        ReclaimPolicy::Other(text) => text,
        known => known.as_str(),
    }
}
