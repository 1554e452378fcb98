//! Pod: who uses claims.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::wire::or_default;
use crate::{Meta, Name, NodeName};

/// A Pod, as far as volumes care: where it runs, whether it still does, and its volumes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Pod {
    /// Name and uid.
    pub meta: Meta,
    /// The node it was scheduled to; `None` while it waits for one.
    pub node: Option<NodeName>,
    /// Where in its life it is.
    pub phase: PodPhase,
    /// Whether some container is reported running, whatever the phase says.
    pub has_running_container: bool,
    /// Its volumes, in order.
    pub volumes: Box<[PodVolume]>,
    /// What the claims of its generic ephemeral volumes are made from.
    pub claim_templates: Box<[ClaimTemplate]>,
    /// The group that shall own the files of its volumes.
    pub fs_group: Option<FsGroup>,
    /// Whom it is to the API; some CSI drivers are told (M20).
    pub service_account: Box<str>,
}

/// The group of the files of a pod's volumes (M35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsGroup {
    /// Its number.
    pub gid: u32,
    /// Whether to look at the volume's root only, where that is the group's already (M36).
    pub on_root_mismatch: bool,
}

impl Pod {
    /// Whether none of its containers can run any more: it succeeded or failed, or it is being
    /// deleted and no container is reported running (A9).
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
            || (self.meta.is_deleting() && !self.has_running_container)
    }

    /// Whether it keeps this claim from being deleted (X3): it was given a node and refers to the
    /// claim, whatever its phase. A claim of its own does not outlive it, hence is let go when the
    /// pod was shut down and only waits for whoever wants it to go after its claims.
    #[must_use]
    pub fn holds(&self, claim: &Name) -> bool {
        self.node.is_some()
            && self.volumes.iter().any(|volume| match &volume.source {
                PodVolumeSource::Claim {
                    name, ephemeral, ..
                } => name == claim && !(*ephemeral && self.is_shut_down()),
                PodVolumeSource::Other(_) => false,
            })
    }

    fn is_shut_down(&self) -> bool {
        self.meta.is_deleting() && self.meta.grace_is_over
    }

    /// The names of the claims it uses, those of generic ephemeral volumes included.
    pub fn claims(&self) -> impl Iterator<Item = &Name> {
        self.volumes.iter().filter_map(|v| match &v.source {
            PodVolumeSource::Claim { name, .. } => Some(name),
            PodVolumeSource::Other(_) => None,
        })
    }
}

/// What the claim of a generic ephemeral volume is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimTemplate {
    /// The pod's name for the volume.
    pub volume: Box<str>,
    /// The claim's name, `<pod>-<volume>`.
    pub claim: Name,
    /// `spec.volumes[].ephemeral.volumeClaimTemplate`: labels, annotations and spec, as they are.
    pub template: Value,
}

/// One entry of a pod's `spec.volumes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodVolume {
    /// The name that the pod's containers use.
    pub name: Box<str>,
    /// What it refers to.
    pub source: PodVolumeSource,
}

/// What a pod's volume refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodVolumeSource {
    /// A claim in the pod's namespace.
    Claim {
        /// The claim's name; for a generic ephemeral volume `<pod>-<volume>`.
        name: Name,
        /// Mounted read-only for every container.
        read_only: bool,
        /// Made for this pod alone and owned by it.
        ephemeral: bool,
    },
    /// Any other type, by its field name in the API.
    Other(Box<str>),
}

/// A pod's phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodPhase {
    /// Accepted, not all containers started.
    #[default]
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node cannot be asked; also any value this version does not know.
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    volumes: Vec<WireVolume>,
    #[serde(default, deserialize_with = "or_default")]
    security_context: SecurityContext,
    #[serde(default, deserialize_with = "or_default")]
    service_account_name: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    fs_group: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    fs_group_change_policy: Box<str>,
}

impl SecurityContext {
    fn fs_group(&self) -> Option<FsGroup> {
        let gid = self.fs_group?.try_into().ok()?;
        Some(FsGroup {
            gid,
            on_root_mismatch: &*self.fs_group_change_policy == "OnRootMismatch",
        })
    }
}

/// Read by hand: the type of a volume is the name of whichever field is left over.
#[derive(Default)]
struct WireVolume {
    name: Box<str>,
    claim: Option<WireClaimSource>,
    ephemeral: Option<WireEphemeral>,
    other: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEphemeral {
    #[serde(default)]
    volume_claim_template: Value,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    Name,
    PersistentVolumeClaim,
    Ephemeral,
    Other(Box<str>),
}

impl<'de> Deserialize<'de> for WireVolume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(VolumeVisitor)
    }
}

struct VolumeVisitor;

impl<'de> Visitor<'de> for VolumeVisitor {
    type Value = WireVolume;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a volume of a pod")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireVolume, A::Error> {
        let mut volume = WireVolume::default();
        while let Some(field) = map.next_key()? {
            match field {
                Field::Name => volume.name = map.next_value()?,
                Field::PersistentVolumeClaim => volume.claim = map.next_value()?,
                Field::Ephemeral => volume.ephemeral = map.next_value()?,
                Field::Other(name) => {
                    if map.next_value::<Option<IgnoredAny>>()?.is_some() {
                        volume.other = name;
                    }
                }
            }
        }
        Ok(volume)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireClaimSource {
    claim_name: Name,
    #[serde(default, deserialize_with = "or_default")]
    read_only: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "or_default")]
    phase: PodPhase,
    #[serde(default, deserialize_with = "or_default")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(default, deserialize_with = "or_default")]
    init_container_statuses: Vec<ContainerStatus>,
    #[serde(default, deserialize_with = "or_default")]
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    #[serde(default, deserialize_with = "or_default")]
    state: State,
}

#[derive(Default, Deserialize)]
struct State {
    running: Option<IgnoredAny>,
}

impl From<Wire> for Pod {
    fn from(
        Wire {
            metadata: meta,
            spec,
            status,
        }: Wire,
    ) -> Self {
        // X9
        let own_claim = |volume: &str| Name::from(format!("{}-{volume}", meta.name));
        let source = |v: &WireVolume| match &v.claim {
            Some(claim) => PodVolumeSource::Claim {
                name: claim.claim_name.clone(),
                read_only: claim.read_only,
                ephemeral: false,
            },
            None if v.ephemeral.is_some() => PodVolumeSource::Claim {
                name: own_claim(&v.name),
                read_only: false,
                ephemeral: true,
            },
            None => PodVolumeSource::Other(v.other.clone()),
        };
        let mut claim_templates = Vec::new();
        let mut volumes = Vec::new();
        for mut v in spec.volumes {
            let source = source(&v);
            if let (None, Some(ephemeral)) = (&v.claim, v.ephemeral.take()) {
                claim_templates.push(ClaimTemplate {
                    claim: own_claim(&v.name),
                    volume: v.name.clone(),
                    template: ephemeral.volume_claim_template,
                });
            }
            volumes.push(PodVolume {
                source,
                name: v.name,
            });
        }
        Self {
            fs_group: spec.security_context.fs_group(),
            service_account: spec.service_account_name,
            node: spec
                .node_name
                .filter(|n| !n.is_empty())
                .map(|n| (&*n).into()),
            phase: status.phase,
            has_running_container: status
                .container_statuses
                .iter()
                .chain(&status.init_container_statuses)
                .chain(&status.ephemeral_container_statuses)
                .any(|c| c.state.running.is_some()),
            volumes: volumes.into(),
            claim_templates: claim_templates.into(),
            meta,
        }
    }
}
