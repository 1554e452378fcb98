//! Whether a volume is to be made for a claim, and which.

use bitts_api::{BindingMode, Claim, Name, Node, Quantity, StorageClass, VolumeMode, names};

use crate::class::ClassError;
use crate::options::Options;
use crate::pattern::PatternError;
use crate::site::Site;
use crate::task::{Owner, Record};
use crate::volume::{HOSTNAME, name_for};

/// Why no volume is made for a claim that asks for one here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("StorageClass {0:?} does not exist")]
    NoClass(String),
    #[error("the class's provisioner is {0:?} by now; make the claim anew")]
    OtherProvisioner(String),
    #[error(transparent)]
    Class(#[from] ClassError),
    #[error("pathPattern: {0}")]
    Pattern(#[from] PatternError),
    #[error("a claim with a selector asks for a volume that is there; remove spec.selector")]
    Selector,
    #[error("dataSource: volumes are made empty or as copies of other claims, not of a {0}")]
    NoCopyOf(String),
    #[error("dataSource: only a claim of the same namespace can be copied")]
    OtherNamespace,
    #[error(
        "dataSource: there is no claim {0:?} whose volume was made by this provisioner; it is copied once there is"
    )]
    NoSource(Name),
    #[error("dataSource: the claim {0:?} is not Bound; it is copied once it is")]
    SourceUnbound(Name),
    #[error("dataSource: the claim {0:?} is being deleted")]
    SourceGoes(Name),
    #[error(
        "dataSource: the volume of claim {claim} lies on {lies}, not on {here}: name a class that is made there"
    )]
    SourceElsewhere {
        claim: Name,
        lies: String,
        here: String,
    },
    #[error("dataSource: the volume of claim {claim} has {has}; ask for as much at least")]
    Smaller { claim: Name, has: Quantity },
    #[error("volumes are made as directories: volumeMode Block is not supported")]
    Block,
    #[error("the claim names no size above zero")]
    NoSize,
    #[error("the claim names no access mode that is known")]
    NoModes,
    #[error("node {0:?} has no label {HOSTNAME}: nothing could say that the volume is there")]
    NoHostname(String),
}

/// Whether the claim waits for a volume that is made here (P12).
pub(crate) fn wants(claim: &Claim, options: &Options) -> bool {
    is_served(claim, options)
        && claim.class.is_some()
        && claim.volume_name.is_none()
        && !claim.meta.is_deleting()
        && options.has(claim)
}

/// Whether the claim's first pod has yet to be placed (P12).
pub(crate) fn waits_for_its_pod(claim: &Claim, class: &StorageClass) -> bool {
    class.binding_mode == BindingMode::WaitForFirstConsumer
        && claim.meta.annotations.get(names::SELECTED_NODE).is_none()
}

/// Whether the claim was handed to a provisioner of this kind, on whichever node.
pub(crate) fn is_served(claim: &Claim, options: &Options) -> bool {
    let annotations = &claim.meta.annotations;
    let asked = annotations
        .get(names::STORAGE_PROVISIONER)
        .or_else(|| annotations.get(names::BETA_STORAGE_PROVISIONER));
    options.serves(asked)
}

/// What is to be made, and where; of the node, if it is made on one. What it begins with is decided
/// apart.
pub(crate) fn plan(
    claim: &Claim,
    class: Option<&StorageClass>,
    node: Option<&Node>,
    options: &Options,
) -> Result<(Site, Record), Refusal> {
    let class = class.ok_or_else(|| {
        let name = claim.class.as_ref().map(ToString::to_string);
        Refusal::NoClass(name.unwrap_or_default())
    })?;
    if !options.serves(Some(&class.provisioner)) {
        return Err(Refusal::OtherProvisioner(class.provisioner.to_string()));
    }
    let template = options.template(class)?;
    if claim.selector.is_some() {
        return Err(Refusal::Selector);
    }
    if claim.volume_mode == VolumeMode::Block {
        return Err(Refusal::Block);
    }
    if claim.access_modes.known().is_empty() || claim.access_modes != claim.access_modes.known() {
        return Err(Refusal::NoModes);
    }
    let bytes = claim.request.map_or(0, |request| request.value());
    if bytes <= 0 {
        return Err(Refusal::NoSize);
    }
    if let Some(node) = node.filter(|node| node.meta.labels.get(HOSTNAME).is_none()) {
        return Err(Refusal::NoHostname(node.meta.name.to_string()));
    }
    let volume = name_for(&claim.meta.uid);
    let record = Record {
        path: template.pattern.path(claim, &volume)?,
        volume,
        claim: Owner {
            namespace: claim.meta.namespace.clone().unwrap_or_else(|| "".into()),
            name: claim.meta.name.clone(),
            uid: claim.meta.uid.clone(),
        },
        access: template.access,
        on_delete: template.on_delete,
        trash_for: template.trash_for,
        class: claim.class.clone(),
        bytes,
        quota: template.quota,
        project: None,
        copy_of: None,
        confirmed: false,
    };
    Ok((template.site, record))
}
