//! Why things are as they are, and the words in which users are told (N10).

use std::fmt;

use bitts_api::machine::Severity;
use bitts_api::{ClassName, Name, names};

use crate::reclaim::NFS;

/// Why a volume cannot be given to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// Its claimRef denotes another claim (B15).
    Taken,
    /// Deletion was asked for.
    Deleting,
    /// A file system was asked for and this is a device, or the other way round.
    VolumeMode,
    /// It lacks an access mode that the claim asks for.
    AccessModes,
    /// Another VolumeAttributesClass.
    AttributesClass,
    /// It names no capacity, or one that is no quantity or out of range.
    NoCapacity,
    /// It holds less than the claim asks for.
    TooSmall,
    /// The class binds when the first consumer is scheduled; only a reserved volume is bound before.
    Delayed,
    /// Its phase is not Available.
    NotAvailable,
    /// Another storage class.
    Class,
    /// The claim's selector does not match its labels.
    Selector,
    /// Another claim that is served first gets it, or a better one was found.
    NotChosen,
}

impl Misfit {
    /// A name for scripts, which stays the same.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Deleting => "deleting",
            Self::VolumeMode => "volume-mode",
            Self::AccessModes => "access-modes",
            Self::AttributesClass => "attributes-class",
            Self::NoCapacity => "no-capacity",
            Self::TooSmall => "too-small",
            Self::Delayed => "waits-for-consumer",
            Self::NotAvailable => "not-available",
            Self::Class => "class",
            Self::Selector => "selector",
            Self::NotChosen => "not-chosen",
        }
    }

    /// The words of a `VolumeMismatch` event (B16).
    fn for_volume(self, volume: &Name) -> String {
        match self {
            Self::Deleting => format!("the volume is marked for deletion \"{volume}\""),
            Self::TooSmall => "requested PV is too small".into(),
            Self::Class => "storageClassName does not match".into(),
            Self::AttributesClass => "volumeAttributesClassName does not match".into(),
            Self::VolumeMode => "incompatible volumeMode".into(),
            Self::AccessModes => "incompatible accessMode".into(),
            Self::Taken
            | Self::NoCapacity
            | Self::Delayed
            | Self::NotAvailable
            | Self::Selector
            | Self::NotChosen => self.to_string(),
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "it belongs to another claim",
            Self::Deleting => "it is marked for deletion",
            Self::VolumeMode => "its volumeMode differs",
            Self::AccessModes => "it lacks an access mode that the claim asks for",
            Self::AttributesClass => "its volumeAttributesClassName differs",
            Self::NoCapacity => "its capacity is missing or cannot be read",
            Self::TooSmall => "it is too small",
            Self::Delayed => "its class waits for the first consumer",
            Self::NotAvailable => "its phase is not Available",
            Self::Class => "its storageClassName differs",
            Self::Selector => "the claim's selector does not match its labels",
            Self::NotChosen => "another volume or another claim came first",
        })
    }
}

/// Why a claim is not bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Its class waits for a pod, and there is none (B10.2).
    Consumer,
    /// Its class waits for a pod, and these have no node yet (B10.2).
    Pods(Vec<Name>),
    /// No class, and no volume fits (B10.4).
    NoVolume,
    /// No volume fits, and the class is unknown (P2).
    ClassMissing(ClassName),
    /// No volume fits, and nothing of this name makes one (P5).
    NoProvisioner(Box<str>),
    /// No volume fits, and what makes volumes of this class is switched off (P6).
    ProvisionerOff(Box<str>),
    /// Somebody else was asked to make a volume (P4).
    Provisioner(Box<str>),
    /// No volume fits, and making volumes is switched off (P1).
    ProvisioningOff,
    /// The volume it names does not exist (B16).
    NamedMissing(Name),
    /// The volume it names belongs to another claim (B16).
    NamedTaken(Name),
    /// The volume it names does not satisfy it (B16).
    NamedMisfit(Name, Misfit),
    /// Its volume says no capacity, so none can be reported (B20.4).
    NoCapacity(Name),
}

impl Waiting {
    /// A name for scripts, which stays the same.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Consumer => "first-consumer",
            Self::Pods(_) => "pod-scheduled",
            Self::NoVolume => "volume",
            Self::ClassMissing(_) => "class",
            Self::NoProvisioner(_) => "volume-no-provisioner",
            Self::ProvisionerOff(_) => "volume-provisioner-off",
            Self::Provisioner(_) => "provisioner",
            Self::ProvisioningOff => "volume-provisioning-off",
            Self::NamedMissing(_) => "named-volume",
            Self::NamedTaken(_) => "named-volume-taken",
            Self::NamedMisfit(..) => "named-volume-unfit",
            Self::NoCapacity(_) => "volume-capacity",
        }
    }

    /// What the user is told; `None` where Kubernetes says nothing either.
    #[must_use]
    pub fn notice(&self) -> Option<Notice> {
        let (severity, reason, message) = match self {
            Self::Consumer => (
                Severity::Normal,
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".into(),
            ),
            Self::Pods(pods) => (
                Severity::Normal,
                "WaitForPodScheduled",
                match &**pods {
                    [pod] => format!("waiting for pod {pod} to be scheduled"),
                    pods => format!("waiting for pods {} to be scheduled", list(pods)),
                },
            ),
            Self::NoVolume => (
                Severity::Normal,
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set".into(),
            ),
            Self::ClassMissing(class) => (
                Severity::Warning,
                "ProvisioningFailed",
                format!("storageclass.storage.k8s.io \"{class}\" not found"),
            ),
            Self::NoProvisioner(name) => (
                Severity::Warning,
                "ProvisioningFailed",
                match &**name {
                    NFS => "no provisionable volume plugin matched".into(),
                    name => format!("no volume plugin matched name: {name}"),
                },
            ),
            Self::ProvisionerOff(name) => (
                Severity::Warning,
                "ProvisioningFailed",
                format!(
                    "Failed to create provisioner: provisioning in volume plugin \"{name}\" is disabled"
                ),
            ),
            Self::Provisioner(name) => (
                Severity::Normal,
                "ExternalProvisioning",
                format!(
                    "Waiting for a volume to be created either by the external provisioner '{name}' \
                     or manually by the system administrator. If volume creation is delayed, please \
                     verify that the provisioner is running and correctly registered."
                ),
            ),
            Self::NamedTaken(volume) => (
                Severity::Warning,
                "FailedBinding",
                format!("volume \"{volume}\" already bound to a different claim."),
            ),
            Self::NamedMisfit(volume, misfit) => (
                Severity::Warning,
                "VolumeMismatch",
                format!(
                    "Cannot bind to requested volume \"{volume}\": {}",
                    misfit.for_volume(volume)
                ),
            ),
            Self::NoCapacity(volume) => (
                Severity::Warning,
                "VolumeMismatch",
                format!("volume \"{volume}\" has no spec.capacity.storage: set it"),
            ),
            Self::ProvisioningOff | Self::NamedMissing(_) => return None,
        };
        Some(Notice {
            severity,
            reason,
            message,
            source: None,
        })
    }
}

/// How a bound claim lost its volume (B18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It names no volume any more.
    Unnamed,
    /// Its volume does not exist.
    Gone,
    /// Its volume belongs to another claim.
    Misbound,
}

impl Loss {
    /// What the user is told.
    #[must_use]
    pub fn notice(self) -> Notice {
        let (reason, message) = match self {
            Self::Unnamed => (
                "ClaimLost",
                "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
            ),
            Self::Gone => (
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
            ),
            Self::Misbound => (
                "ClaimMisbound",
                "Two claims are bound to the same volume, this one is bound incorrectly",
            ),
        };
        Notice::warning(reason, message)
    }
}

/// The words of an event, before it is said what they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether something is wrong.
    pub severity: Severity,
    /// A reason users know.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
    /// Who says so (N9), where that is not the binder.
    pub source: Option<&'static str>,
}

impl Notice {
    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            reason,
            message: message.into(),
            source: None,
        }
    }

    /// Adds why volumes that are reserved for the claim do not help it: the original says nothing.
    pub(crate) fn beside(mut self, reserved: &[(Name, Misfit)]) -> Self {
        for (volume, misfit) in reserved.iter().take(NAMED) {
            self.message +=
                &format!("; volume \"{volume}\" is reserved for this claim, but {misfit}");
        }
        self
    }

    /// Adds whose the volume is that the claim names.
    pub(crate) fn taken_by(mut self, owner: Option<&impl fmt::Display>) -> Self {
        if let Some(owner) = owner {
            self.message += &format!(" It is for {owner}.");
        }
        self
    }

    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Normal,
            ..Self::warning(reason, message)
        }
    }

    /// A claim and the volume reserved for it cannot come together, told of the volume (B24.5).
    pub(crate) fn claim_mode_differs(claim: &Name) -> Self {
        Self::warning(
            "VolumeMismatch",
            format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{claim}\" due to \
                 incompatible volumeMode."
            ),
        )
    }

    /// The same, told of the claim.
    pub(crate) fn volume_mode_differs(volume: &Name) -> Self {
        Self::warning(
            "VolumeMismatch",
            format!(
                "Cannot bind PersistentVolume \"{volume}\" to requested PersistentVolumeClaim due to \
                 incompatible volumeMode."
            ),
        )
    }

    /// A volume that came from elsewhere with a claim that does not exist here.
    pub(crate) fn held(volume: &Name, claim: &impl fmt::Display) -> Self {
        Self::warning(
            "BittsVolumeHeld",
            format!(
                "This volume appeared already bound to claim \"{claim}\" with a uid that no claim \
                 here has, as after a restore from a backup. It is left alone, and nothing of it is \
                 deleted. To offer it to claims: kubectl patch pv {volume} --type=json \
                 -p '[{{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}}]'. \
                 To reclaim it by its policy: kubectl annotate pv {volume} {}=yes",
                names::RECLAIM
            ),
        )
    }

    /// A claimRef that denotes no claim at all (B15).
    pub(crate) fn incomplete_claim_ref(volume: &Name, lacks: &str) -> Self {
        Self::warning(
            "BittsBadClaimRef",
            format!(
                "spec.claimRef has {lacks}, so it denotes no claim: no claim gets this volume, and \
                 it is not reclaimed. Complete it, or offer the volume to every claim: kubectl \
                 patch pv {volume} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}}]'"
            ),
        )
    }

    /// Pods may still write to a volume that is to be wiped (D8).
    pub(crate) fn used_by_pods(pods: &[String]) -> Self {
        let message = format!("Volume is used by pods: {}", list(pods));
        Self::normal("VolumeFailedRecycle", message)
    }

    pub(crate) fn recycled() -> Self {
        Self::normal("VolumeRecycled", "Volume recycled")
    }

    /// What kube-controller-manager wipes by a pod of its own.
    pub(crate) fn no_recycler_pods() -> Self {
        Self::warning(
            "VolumeFailedRecycle",
            "bitts starts no recycler pods: the volume stays Released until its data was dealt with \
             and spec.claimRef is cleared",
        )
    }

    /// The object of a volume goes, its directory does not.
    pub(crate) fn object_dropped(path: &str) -> Self {
        Self::normal(
            "VolumeDelete",
            format!("the volume is deleted; {path} stays: bitts deletes nothing where it runs"),
        )
    }

    /// The capacity from before a resize cannot be read.
    pub(crate) fn unreadable_capacity(text: &str) -> Self {
        Self::warning(
            "BittsBadAnnotation",
            format!(
                "annotation {} is {text:?}, which is no quantity: the claim is told the volume's \
                 capacity instead",
                names::PRE_RESIZE_CAPACITY
            ),
        )
    }

    /// An Immediate claim gets a volume that no pod could use now (E7).
    pub(crate) fn unreachable(volume: &Name) -> Self {
        Self::warning(
            "BittsNoNodeForVolume",
            format!(
                "no node satisfies the node affinity of volume \"{volume}\": pods that use this claim \
                 will not be scheduled until one does"
            ),
        )
    }

    pub(crate) fn refused(step: &str, text: &str) -> Self {
        Self::warning(
            "FailedBinding",
            format!("the API server refused {step}: {text}"),
        )
    }
}

/// So many things are named in a message: more would be cut, and would change with each that comes.
const NAMED: usize = 8;

fn list(names: &[impl fmt::Display]) -> String {
    let named: Vec<_> = names.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if names.len() > NAMED {
        " and others"
    } else {
        ""
    };
    named.join(",") + more
}
