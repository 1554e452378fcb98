//! The words in which users are told (N10).

use bitts_api::machine::{Event, Severity};
use bitts_api::names::reason;
use bitts_api::{Claim, ClassName, Kind, ObjectKey, StorageClass, Uid, Volume, VolumePhase};

use crate::task::Owner;

fn event(
    about: ObjectKey,
    uid: &Uid,
    severity: Severity,
    reason: &'static str,
    message: String,
) -> Event {
    Event {
        about,
        uid: uid.clone(),
        severity,
        reason,
        message,
        source: None,
    }
}

fn about(claim: &Claim) -> ObjectKey {
    ObjectKey {
        kind: Kind::Claim,
        namespace: claim.meta.namespace.clone(),
        name: claim.meta.name.clone(),
    }
}

pub(crate) fn provisioning(claim: &Claim) -> Event {
    let key = about(claim);
    let message = format!("External provisioner is provisioning volume for claim \"{key}\"");
    event(
        key,
        &claim.meta.uid,
        Severity::Normal,
        reason::PROVISIONING,
        message,
    )
}

pub(crate) fn succeeded(claim: &Claim, volume: &str) -> Event {
    event(
        about(claim),
        &claim.meta.uid,
        Severity::Normal,
        reason::PROVISIONING_SUCCEEDED,
        format!("Successfully provisioned volume {volume}"),
    )
}

/// How far the copy is that a claim asks for.
pub(crate) fn copying(claim: &Claim, bytes: u64, total: u64) -> Event {
    const MIB: u64 = 1 << 20;
    let source = claim
        .data_source
        .as_ref()
        .map_or("", |source| source.name.as_str());
    let (done, all) = (bytes / MIB, total.div_ceil(MIB));
    event(
        about(claim),
        &claim.meta.uid,
        Severity::Normal,
        reason::PROVISIONING,
        format!("copying the data of claim \"{source}\": {done} of {all} MiB"),
    )
}

pub(crate) fn failed(claim: &Claim, why: &str) -> Event {
    let class = claim.class.as_ref().map_or("", ClassName::as_str);
    event(
        about(claim),
        &claim.meta.uid,
        Severity::Warning,
        reason::PROVISIONING_FAILED,
        format!("failed to provision volume with StorageClass \"{class}\": {why}"),
    )
}

/// What is wrong with a class.
pub(crate) fn class_invalid(class: &StorageClass, why: &str) -> Event {
    event(
        ObjectKey::storage_class(&class.meta.name.as_str().into()),
        &class.meta.uid,
        Severity::Warning,
        reason::CLASS_INVALID,
        format!("no volumes are made for it: {why}"),
    )
}

/// A class is as it should be, and its server is not.
pub(crate) fn server_unreachable(class: &StorageClass, why: &str) -> Event {
    event(
        ObjectKey::storage_class(&class.meta.name.as_str().into()),
        &class.meta.uid,
        Severity::Warning,
        reason::SERVER_UNREACHABLE,
        format!("no volumes are made for it while this is so: {why}"),
    )
}

/// The claim's class is one that no node can serve.
pub(crate) fn refused_everywhere(claim: &Claim, why: &str) -> Event {
    Event {
        reason: reason::CLASS_INVALID,
        ..failed(claim, why)
    }
}

pub(crate) fn not_cleaned(owner: &Owner, why: &str) -> Event {
    event(
        owner.key(),
        &owner.uid,
        Severity::Warning,
        reason::PROVISIONING_CLEANUP_FAILED,
        format!("what was made for the claim stays: {why}"),
    )
}

pub(crate) fn not_deleted(volume: &Volume, why: &str) -> Event {
    event(
        ObjectKey::volume(volume.meta.name.clone()),
        &volume.meta.uid,
        Severity::Warning,
        reason::VOLUME_FAILED_DELETE,
        why.to_owned(),
    )
}

pub(crate) fn grown(claim: &Claim, held: bool) -> Event {
    let message = match held {
        true => "Resize volume succeeded",
        false => "Resize volume succeeded: the size is recorded, and nothing holds a writer to it",
    };
    event(
        about(claim),
        &claim.meta.uid,
        Severity::Normal,
        reason::VOLUME_RESIZE_SUCCESSFUL,
        message.to_owned(),
    )
}

pub(crate) fn not_grown(claim: &Claim, why: &str) -> Event {
    event(
        about(claim),
        &claim.meta.uid,
        Severity::Warning,
        reason::VOLUME_RESIZE_FAILED,
        format!("the volume cannot be grown: {why}"),
    )
}

/// The scheduler keeps pods away from the node, so no claim is ever told.
pub(crate) fn no_room(class: &StorageClass, node: &str, why: &str) -> Event {
    event(
        ObjectKey::storage_class(&class.meta.name.as_str().into()),
        &class.meta.uid,
        Severity::Warning,
        reason::PROVISIONING_FAILED,
        format!("node {node} can have no volume of this class: {why}"),
    )
}

/// The node that a volume lies on was deleted: told on the claim, where there is one.
pub(crate) fn node_gone(volume: &Volume, message: String) -> Event {
    let claim = volume.claim_ref.as_ref().and_then(|owner| {
        let key = ObjectKey::claim(owner.namespace.clone(), owner.name.clone());
        Some((key, owner.uid.clone()?))
    });
    let claim = claim.filter(|_| volume.phase != VolumePhase::Released);
    let (about, uid) = claim.unwrap_or_else(|| {
        let key = ObjectKey::volume(volume.meta.name.clone());
        (key, volume.meta.uid.clone())
    });
    event(about, &uid, Severity::Warning, reason::NODE_GONE, message)
}

pub(crate) fn waits_for_node(node: &str) -> String {
    format!(
        "its data lies on node {node}, which was deleted from the cluster: it is there again once a node of \
         that name is, with its disks; to give the data up, delete the claim and make it anew"
    )
}

pub(crate) fn may_be_recreated(node: &str, volume: &Volume) -> String {
    let claim = volume.claim_ref.as_ref();
    let claim = claim.map(|owner| format!("{}/{}", owner.namespace, owner.name));
    format!(
        "its data lies on node {node}, which was deleted from the cluster; `bitts recreate {}` gives it up and \
         has the claim made anew, empty",
        claim.unwrap_or_default()
    )
}

pub(crate) fn data_stays(node: &str) -> String {
    format!(
        "its claim is gone, and node {node} with its data was deleted from the cluster: it stays for a node \
         of that name; to give it up, delete it and take the finalizer {} off",
        bitts_api::names::EXTERNAL_PROVISIONER
    )
}
