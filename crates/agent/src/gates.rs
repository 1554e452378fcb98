//! Whether a pod's volume may be mounted: the gates of M2 and M16, in their order.

use bitts_api::machine::Cache;
use bitts_api::{
    AccessMode, Attachment, Claim, ClaimPhase, CsiDriver, CsiVolume, DriverWants, GroupPolicy,
    Name, Node, Pod, PodVolume, PodVolumeSource, Source, Volume, VolumeMode, names,
};

use crate::plugins::Plugin;
use crate::task::{Attached, ForDriver, Give, Group, Mount, MountKey, PodInfo, StageKey, Staging};

/// What the gates look at besides the pod.
pub struct World<'a> {
    /// The claims that pods wait for.
    pub claims: &'a Cache<Claim>,
    /// The volumes that pods wait for.
    pub volumes: &'a Cache<Volume>,
    /// The drivers of those volumes.
    pub csi_drivers: &'a Cache<CsiDriver>,
    /// What attaches a volume to the node.
    pub attachment: &'a dyn Fn(&CsiVolume) -> Option<&'a Attachment>,
    /// The node that the pod runs on.
    pub node: Option<&'a Node>,
    /// Whether another pod of this node has the volume.
    pub used_by_another: &'a dyn Fn(&Name) -> bool,
}

/// Why a pod's volume is not mounted now. Ends when one of the objects in question changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is known of the claim.
    #[error(
        "error processing PVC {0}: failed to fetch PVC from API server: persistentvolumeclaims {1:?} not found"
    )]
    NoClaim(String, Name),
    /// The claim is about to disappear and nothing holds it.
    #[error("error processing PVC {0}: PVC is being deleted")]
    ClaimDeleting(String),
    /// The claim waits for a volume, or lost its own.
    #[error("error processing PVC {0}: PVC is not bound")]
    ClaimNotBound(String),
    /// The claim's volume is not there.
    #[error(
        "error processing PVC {0}: failed to fetch PV {1:?} from API server: persistentvolumes {1:?} not found"
    )]
    NoVolume(String, Name),
    /// The claim's volume belongs to another claim.
    #[error(
        "error processing PVC {0}: PV {1:?} is bound to {2}, not to this PVC: it was created anew, or the PV given away"
    )]
    VolumeElsewhere(String, Name, String),
    /// The claim asks for another mode than its volume has.
    #[error("error processing PVC {0}: its volumeMode is {1}, that of PV {2:?} is {3}")]
    OtherMode(String, &'static str, Name, &'static str),
    /// A type that has no devices.
    #[error(
        "MapVolume.FindMapperPluginBySpec failed for volume {0:?} : volume type {1:?} has no block devices: use volumeMode Filesystem"
    )]
    NoDevice(Name, String),
    /// A claim that has the name of the one for a pod's ephemeral volume, and is not the pod's.
    #[error("error processing PVC {0}: PVC {0} was not created for pod {1} (pod is not owner)")]
    NotOfPod(String, String),
    /// A type that this agent does not mount.
    #[error(
        "MountVolume.NewMounter initialization failed for volume {0:?} : volume type {1:?} is not supported by this agent"
    )]
    Type(Name, String),
    /// A volume whose driver is for volumes without a claim only (M20).
    #[error(
        "MountVolume.SetUp failed for volume {0:?} : volume mode \"Persistent\" not supported by driver {1} (volumeLifecycleModes of its CSIDriver object)"
    )]
    NotPersistent(Name, Box<str>),
    /// A volume that asks for what this agent does not give its driver.
    #[error(
        "MountVolume.SetUp failed for volume {0:?} : it names a {1}, and this agent gives drivers no secrets yet: let a kubelet mount it"
    )]
    NeedsSecret(Name, &'static str),
    /// The volume could not be attached to the node.
    #[error("AttachVolume.Attach failed for volume {0:?} : {1}")]
    NotAttached(Name, Box<str>),
    /// Mount options for a type that has none (M16).
    #[error(
        "MountVolume.MountOptionSupport check failed for volume {0:?} : mount options are not supported for this volume type"
    )]
    MountOptions(Name),
    /// Nothing is known of the node itself.
    #[error(
        "MountVolume.NodeAffinity check failed for volume {0:?} : this node has no Node object; create it or start the agent with the right --node-name"
    )]
    NoNode(Name),
    /// The volume is on another node.
    #[error(
        "MountVolume.NodeAffinity check failed for volume {0:?} : no matching NodeSelectorTerms"
    )]
    OtherNode(Name),
    /// The volume is for one pod, and another one has it.
    #[error(
        "MountVolume.SetUp failed for volume {0:?} : volume uses the ReadWriteOncePod access mode and is already in use by another pod"
    )]
    InUse(Name),
}

impl Refusal {
    /// Whether only another pod changes it: what it is about cannot be changed.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::OtherMode(..) | Self::NoDevice(..) | Self::Type(..) | Self::NeedsSecret(..)
        )
    }
}

/// The mount that a pod's volume asks for; `None` for a volume that has no claim and is none of
/// this agent's business.
///
/// # Errors
/// With the first gate that the volume does not pass.
pub fn plan(pod: &Pod, volume: &PodVolume, world: &World<'_>) -> Result<Option<Mount>, Refusal> {
    let PodVolumeSource::Claim {
        name,
        read_only,
        ephemeral,
    } = &volume.source
    else {
        return Ok(None);
    };
    let namespace = pod.meta.namespace.clone();
    let place = match &namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_string(),
    };
    let Some(claim) = world.claims.get(&(namespace, name.clone())) else {
        return Err(Refusal::NoClaim(place, name.clone()));
    };
    if *ephemeral && claim.meta.controller.as_ref() != Some(&pod.meta.uid) {
        return Err(Refusal::NotOfPod(
            place,
            match &pod.meta.namespace {
                Some(namespace) => format!("{namespace}/{}", pod.meta.name),
                None => pod.meta.name.to_string(),
            },
        ));
    }
    let held = claim
        .meta
        .finalizers
        .iter()
        .any(|f| **f == *names::CLAIM_PROTECTION);
    if claim.meta.is_deleting() && !held {
        return Err(Refusal::ClaimDeleting(place));
    }
    let bound_to = claim
        .volume_name
        .as_ref()
        .filter(|_| claim.phase == ClaimPhase::Bound);
    let Some(bound_to) = bound_to else {
        return Err(Refusal::ClaimNotBound(place));
    };
    let Some(found) = world.volumes.get(&(None, bound_to.clone())) else {
        return Err(Refusal::NoVolume(place, bound_to.clone()));
    };
    let owner = found.claim_ref.as_ref();
    if owner.and_then(|r| r.uid.as_ref()) != Some(&claim.meta.uid) {
        let owner = owner.map_or_else(|| "no claim".to_owned(), ToString::to_string);
        return Err(Refusal::VolumeElsewhere(place, bound_to.clone(), owner));
    }
    let mode = found.volume_mode;
    if claim.volume_mode != mode {
        let [asked, has] = [claim.volume_mode, mode].map(VolumeMode::as_str);
        return Err(Refusal::OtherMode(place, asked, bound_to.clone(), has));
    }
    let plugin = Plugin::of(&found.source).ok_or_else(|| {
        let name = found.source.type_name().to_owned();
        Refusal::Type(bound_to.clone(), name)
    })?;
    if mode == VolumeMode::Block && !plugin.volume_type().has_devices() {
        let name = found.source.type_name().to_owned();
        return Err(Refusal::NoDevice(bound_to.clone(), name));
    }
    let csi = for_driver(pod, found, world)?;
    let mount = Mount {
        key: MountKey {
            pod: pod.meta.uid.clone(),
            volume: bound_to.clone(),
            plugin,
            mode,
        },
        source: found.source.clone(),
        options: found.mount_options.clone(),
        read_only: *read_only || found.source.is_read_only(),
        group: None,
        staging: staging(found, plugin, csi.as_ref()).map(Box::new),
        csi: csi.map(Box::new),
    };
    let group = group(pod, found, &mount, world);
    let mount = Mount { group, ..mount };
    check_node(found, world)?;
    if !mount.options.is_empty() && !plugin.volume_type().has_mount_options() {
        return Err(Refusal::MountOptions(bound_to.clone()));
    }
    check_alone(found, world)?;
    Ok(Some(mount))
}

/// Only files of a volume that is written have a group of their pod's, and only where the type
/// lets them (M35, M38).
fn group(pod: &Pod, volume: &Volume, mount: &Mount, world: &World<'_>) -> Option<Group> {
    let key = &mount.key;
    let has_files = key.mode == VolumeMode::Filesystem && !mount.read_only;
    let asked = pod.fs_group.filter(|_| has_files)?;
    let managed = match &volume.source {
        Source::Csi(csi) => is_given(csi, volume, world),
        _ => key.plugin.volume_type().has_groups(),
    };
    managed.then_some(Group {
        gid: asked.gid,
        give: match asked.on_root_mismatch {
            true => Give::OnRootMismatch,
            false => Give::Always,
        },
    })
}

fn staging(volume: &Volume, plugin: Plugin, csi: Option<&ForDriver>) -> Option<Staging> {
    plugin.stage_directory()?;
    if volume.volume_mode == VolumeMode::Block {
        return None;
    }
    let name = &volume.meta.name;
    let only_read = [AccessMode::ReadOnlyMany].into_iter().collect();
    Some(Staging {
        key: StageKey {
            plugin,
            name: plugin.volume_type().stage_name(&volume.source, name),
        },
        volume: name.clone(),
        source: volume.source.clone(),
        options: volume.mount_options.clone(),
        // A pod that only reads says nothing of the next one.
        read_only: volume.source.is_read_only() || volume.access_modes == only_read,
        csi: csi.map(|told| {
            Box::new(ForDriver {
                pod: None,
                ..told.clone()
            })
        }),
    })
}

/// What a driver asks of those who call it (A1).
pub(crate) fn wants(drivers: &Cache<CsiDriver>, name: &str) -> DriverWants {
    let driver = drivers.get(&(None, name.into()));
    driver.map_or_else(DriverWants::default, |driver| driver.wants)
}

/// Whether the agent gives the files of such a volume to a group (M37).
fn is_given(csi: &CsiVolume, volume: &Volume, world: &World<'_>) -> bool {
    let one_node = [AccessMode::ReadWriteOnce, AccessMode::ReadWriteOncePod];
    match wants(world.csi_drivers, &csi.driver).group_policy {
        GroupPolicy::None => false,
        GroupPolicy::File => true,
        GroupPolicy::OneNodeWithFsType => {
            let modes = volume.access_modes;
            csi.fs_type.is_some() && one_node.into_iter().any(|mode| modes.contains(mode))
        }
    }
}

/// What the driver of a volume is told besides its source.
fn for_driver(pod: &Pod, volume: &Volume, world: &World<'_>) -> Result<Option<ForDriver>, Refusal> {
    let Source::Csi(csi) = &volume.source else {
        return Ok(None);
    };
    let name = &volume.meta.name;
    let wants = wants(world.csi_drivers, &csi.driver);
    if !wants.persistent {
        return Err(Refusal::NotPersistent(name.clone(), csi.driver.clone()));
    }
    let secrets = [
        (&csi.stage_secret, "nodeStageSecretRef"),
        (&csi.publish_secret, "nodePublishSecretRef"),
    ];
    if let Some((_, field)) = secrets.into_iter().find(|(secret, _)| secret.is_some()) {
        return Err(Refusal::NeedsSecret(name.clone(), field));
    }
    let attached = match wants.attach {
        true => attached((world.attachment)(csi)),
        false => Attached::NotNeeded,
    };
    Ok(Some(ForDriver {
        modes: volume.access_modes,
        attached,
        gid: pod.fs_group.map(|group| group.gid),
        pod: wants.pod_info.then(|| PodInfo {
            name: pod.meta.name.clone(),
            namespace: match &pod.meta.namespace {
                Some(namespace) => namespace.as_str().into(),
                None => "".into(),
            },
            uid: pod.meta.uid.clone(),
            service_account: pod.service_account.clone(),
        }),
    }))
}

/// What an attachment says (M18).
fn attached(attachment: Option<&Attachment>) -> Attached {
    let Some(attachment) = attachment else {
        return Attached::Waits(None);
    };
    if attachment.meta.is_deleting() {
        let text = format!(
            "volume attachment {} is being deleted: it is attached anew after that",
            attachment.meta.name
        );
        return Attached::Waits(Some(text.into()));
    }
    match (attachment.is_attached, &attachment.attach_error) {
        (true, _) => Attached::Yes(attachment.context.clone()),
        (false, Some(error)) => Attached::Waits(Some(error.message.clone())),
        (false, None) => Attached::Waits(None),
    }
}

/// Why a volume that shall be mounted is not attached, where something is wrong.
pub(crate) fn attaching(mount: &Mount) -> Option<Refusal> {
    match &mount.csi.as_ref()?.attached {
        Attached::Waits(Some(why)) => {
            let volume = mount.key.volume.clone();
            Some(Refusal::NotAttached(volume, why.clone()))
        }
        Attached::Waits(None) | Attached::Yes(_) | Attached::NotNeeded => None,
    }
}

fn check_node(volume: &Volume, world: &World<'_>) -> Result<(), Refusal> {
    let name = &volume.meta.name;
    let node = world.node.ok_or_else(|| Refusal::NoNode(name.clone()))?;
    if !node.fits(volume.node_affinity.as_ref()) {
        return Err(Refusal::OtherNode(name.clone()));
    }
    Ok(())
}

fn check_alone(volume: &Volume, world: &World<'_>) -> Result<(), Refusal> {
    let name = &volume.meta.name;
    let one_pod = [AccessMode::ReadWriteOncePod].into_iter().collect();
    if volume.access_modes == one_pod && (world.used_by_another)(name) {
        return Err(Refusal::InUse(name.clone()));
    }
    Ok(())
}
