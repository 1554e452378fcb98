//! What a StorageClass says: its parameters, read and checked.

use bitts_api::{BindingMode, StorageClass};
use serde::{Deserialize, Serialize};

use crate::options::{Ground, LOCAL, NFS};
use crate::pattern::{Pattern, PatternError};
use crate::site::{self, Share, Site};
use crate::volume::{CSI_DRIVER, NODE_GONE};

/// How the volumes of a class are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Where they are made.
    pub site: Site,
    /// Where the directory lies.
    pub pattern: Pattern,
    /// Who may use the directory.
    pub access: Access,
    /// What becomes of the data of a volume that is deleted.
    pub on_delete: OnDelete,
    /// What the size that a claim asks for means.
    pub quota: Quota,
    /// How many seconds it stays in the trash; none for until somebody purges it.
    pub trash_for: Option<u64>,
    /// What becomes of a volume whose node is gone for good.
    pub node_gone: NodeGone,
}

/// Mode and owner of a volume's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The permission bits.
    pub mode: u32,
    /// The user; the provisioner's own where it says nothing.
    pub uid: Option<u32>,
    /// The group; the provisioner's own where it says nothing.
    pub gid: Option<u32>,
}

/// What becomes of the data of a volume that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays where it is.
    Retain,
    /// It is moved aside, and stays there for as long as the class says.
    Trash,
}

impl OnDelete {
    /// As classes spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Retain => "retain",
            Self::Trash => "trash",
        }
    }
}

/// What the size that a claim asks for means to a node's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// It has to be free when the volume is made.
    #[default]
    None,
    /// It is kept for the volume: no other is promised it. Nothing holds a writer to it.
    Soft,
    /// It is kept for the volume, and its file system refuses a writer more.
    Required,
}

/// What becomes of a volume whose node was deleted from the cluster, with the disk that it lies on. A node
/// that is merely not ready is not gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeGone {
    /// It stays, for the node that may come back.
    #[default]
    Keep,
    /// Its object goes with its claim: nobody can take its data away any more.
    Release,
    /// The same, and an operator may have its claim made anew, empty (`bitts recreate`).
    Recreate,
}

impl NodeGone {
    const ALL: [Self; 3] = [Self::Keep, Self::Release, Self::Recreate];

    /// As classes and volumes spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Release => "release",
            Self::Recreate => "recreate",
        }
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// Why no volumes are made for a class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// A parameter that there is none of.
    #[error("unknown parameter {name:?}; {}", hint(*nearest, all))]
    Unknown {
        /// Its name.
        name: String,
        /// The one that was meant, perhaps.
        nearest: Option<&'static str>,
        /// All that there are.
        all: Vec<&'static str>,
    },
    /// A parameter whose value means nothing.
    #[error("parameter {name}: {value:?} is {what}")]
    Value {
        /// Which.
        name: &'static str,
        /// What it says.
        value: String,
        /// What is wrong, and what would be right.
        what: &'static str,
    },
    /// A pattern that cannot be used.
    #[error("parameter pathPattern: {0}")]
    Pattern(#[from] PatternError),
    /// The class binds before a pod has a node.
    #[error(
        "volumeBindingMode Immediate: volumes on a node's own disk are made where the pod will run; \
         make the class anew with WaitForFirstConsumer"
    )]
    Immediate,
    /// A parameter without which nobody knows what is meant.
    #[error("parameter {0} is missing: name the NFS server and the share on it")]
    Missing(&'static str),
    /// The class keeps its volumes to some nodes.
    #[error(
        "allowedTopologies: a share is where its server is, not on some of the nodes; \
         make the class anew without"
    )]
    Topologies,
    /// A time for what never comes into the trash.
    #[error("parameter trashFor: only with onDelete: trash does anything come into the trash")]
    NoTrash,
    /// Options for a mount that there will not be.
    #[error("mountOptions: a directory on a node's disk is not mounted with options of its own")]
    MountOptions,
}

fn hint(nearest: Option<&'static str>, all: &[&'static str]) -> String {
    match nearest {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("there are {}", all.join(", ")),
    }
}

const PARAMETERS: [&str; 6] = ["gid", "mode", "onDelete", "pathPattern", "trashFor", "uid"];
/// Those that only nodes' disks have.
const OF_DISKS: [&str; 2] = [NODE_GONE, "quota"];
/// Those that say where volumes are made.
const OF_SHARES: [&str; 3] = [CSI_DRIVER, "server", "share"];

impl Template {
    /// Reads a class by what its provisioner is usually called; none for one of somebody else.
    #[must_use]
    pub fn of_any(class: &StorageClass) -> Option<Result<Self, ClassError>> {
        match &*class.provisioner {
            LOCAL => Some(Self::of_local(class)),
            NFS => Some(Self::of_share(class)),
            _ => None,
        }
    }

    /// Reads a class of a provisioner that makes volumes there.
    ///
    /// # Errors
    /// At the first thing that is wrong with it.
    pub fn read(class: &StorageClass, ground: &Ground) -> Result<Self, ClassError> {
        match ground {
            Ground::Node(_) => Self::of_local(class),
            Ground::Shares => Self::of_share(class),
        }
    }

    /// Reads a class whose volumes are directories on nodes' disks.
    ///
    /// # Errors
    /// At the first thing that is wrong with it.
    pub fn of_local(class: &StorageClass) -> Result<Self, ClassError> {
        let mut template = Self::with(class, Site::Disks, 0o770, &OF_DISKS)?;
        if let Some(value) = class.parameters.get("quota") {
            template.quota = quota(value)?;
        }
        if let Some(value) = class.parameters.get(NODE_GONE) {
            template.node_gone = NodeGone::parse(value).ok_or_else(|| ClassError::Value {
                name: NODE_GONE,
                value: value.to_string(),
                what: "none of keep, release and recreate",
            })?;
        }
        if class.binding_mode == BindingMode::Immediate {
            return Err(ClassError::Immediate);
        }
        if !class.mount_options.is_empty() {
            return Err(ClassError::MountOptions);
        }
        Ok(template)
    }

    /// Reads a class whose volumes are directories on a share. Everybody may use them unless it says
    /// otherwise: nothing gives a directory on NFS to the pod's user or group later.
    ///
    /// # Errors
    /// At the first thing that is wrong with it.
    pub fn of_share(class: &StorageClass) -> Result<Self, ClassError> {
        let wrong = |name, value: &str, what| ClassError::Value {
            name,
            value: value.to_owned(),
            what,
        };
        let asked = |name| {
            let value = class.parameters.get(name);
            value.ok_or(ClassError::Missing(name))
        };
        // A name that is misspelt is told before the one that it leaves missing.
        let nowhere = Share {
            server: "".into(),
            path: "".into(),
            options: class.mount_options.clone(),
        };
        let mut template = Self::with(class, Site::Share(nowhere.clone()), 0o777, &OF_SHARES)?;
        let (server, path) = (asked("server")?, asked("share")?);
        template.site = Site::Share(Share {
            server: site::server(server)
                .ok_or_else(|| wrong("server", server, "no name or address of a server"))?,
            path: site::share(path).ok_or_else(|| {
                wrong(
                    "share",
                    path,
                    "no absolute path without `..`, as \"/export\" is",
                )
            })?,
            ..nowhere
        });
        if let Some(driver) = class.parameters.get(CSI_DRIVER)
            && !is_driver(driver)
        {
            return Err(wrong(
                CSI_DRIVER,
                driver,
                "no name of a CSI driver, as \"nfs.csi.k8s.io\" is",
            ));
        }
        if class.allowed_topologies.is_some() {
            return Err(ClassError::Topologies);
        }
        Ok(template)
    }

    fn with(
        class: &StorageClass,
        site: Site,
        mode_else: u32,
        others: &[&'static str],
    ) -> Result<Self, ClassError> {
        let mut template = Self {
            site,
            pattern: Pattern::default(),
            access: Access {
                mode: mode_else,
                uid: None,
                gid: None,
            },
            on_delete: OnDelete::default(),
            quota: Quota::default(),
            trash_for: None,
            node_gone: NodeGone::default(),
        };
        for (name, value) in &class.parameters {
            match &**name {
                "gid" => template.access.gid = Some(id("gid", value)?),
                "uid" => template.access.uid = Some(id("uid", value)?),
                "mode" => template.access.mode = mode(value)?,
                "onDelete" => template.on_delete = on_delete(value)?,
                "pathPattern" => template.pattern = Pattern::read(value)?,
                "trashFor" => template.trash_for = Some(seconds("trashFor", value)?),
                other if others.contains(&other) => {}
                unknown => return Err(no_such(unknown, others)),
            }
        }
        if template.trash_for.is_some() && template.on_delete != OnDelete::Trash {
            return Err(ClassError::NoTrash);
        }
        Ok(template)
    }
}

/// As the API has it for CSIDrivers.
fn is_driver(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 63
        && name.chars().all(inner)
        && outer(name.chars().next())
        && outer(name.chars().last())
}

fn no_such(name: &str, others: &[&'static str]) -> ClassError {
    let all = [&PARAMETERS, others].concat();
    let lower = name.to_lowercase();
    let distance =
        |known: &&'static str| strsim::damerau_levenshtein(&lower, &known.to_lowercase());
    let nearest = all.iter().copied().min_by_key(distance);
    ClassError::Unknown {
        name: name.to_owned(),
        nearest: nearest.filter(|known| distance(known) <= 1 + known.len() / 3),
        all,
    }
}

fn id(name: &'static str, value: &str) -> Result<u32, ClassError> {
    // The last number means "leave it" to the kernel.
    let number = value.parse().ok().filter(|id| *id != u32::MAX);
    number.ok_or_else(|| ClassError::Value {
        name,
        value: value.to_owned(),
        what: "no number of a user or group",
    })
}

fn mode(value: &str) -> Result<u32, ClassError> {
    let bits = u32::from_str_radix(value, 8).ok();
    let digits = value.chars().all(|c| c.is_digit(8));
    let good = bits.filter(|bits| digits && *bits <= 0o7777 && bits & 0o700 != 0);
    good.ok_or_else(|| ClassError::Value {
        name: "mode",
        value: value.to_owned(),
        what: "no mode in octal digits that lets anybody in, as \"0770\" is",
    })
}

/// A time of a minute or more, a day having 24 hours.
fn seconds(name: &'static str, value: &str) -> Result<u64, ClassError> {
    let span = value.parse::<jiff::Span>().ok();
    let time = span.and_then(|span| {
        span.to_duration(jiff::SpanRelativeTo::days_are_24_hours())
            .ok()
    });
    let seconds = time.map(|time| time.as_secs()).filter(|s| *s >= 60);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.ok_or_else(|| ClassError::Value {
        name,
        value: value.to_owned(),
        what: "no time of a minute or more, as \"12h\" or \"30d\" is",
    })
}

fn on_delete(value: &str) -> Result<OnDelete, ClassError> {
    Ok(match value {
        "delete" => OnDelete::Delete,
        "retain" => OnDelete::Retain,
        // What the peers call it.
        "trash" | "archive" => OnDelete::Trash,
        other => {
            return Err(ClassError::Value {
                name: "onDelete",
                value: other.to_owned(),
                what: "none of delete, retain and trash",
            });
        }
    })
}

fn quota(value: &str) -> Result<Quota, ClassError> {
    Ok(match value {
        "none" => Quota::None,
        "soft" => Quota::Soft,
        "required" => Quota::Required,
        other => {
            return Err(ClassError::Value {
                name: "quota",
                value: other.to_owned(),
                what: "none of none, soft and required",
            });
        }
    })
}
