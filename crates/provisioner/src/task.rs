//! What the machine asks of its worker, and what it is told.

use bitts_api::{ClassName, Name, ObjectKey, Uid};
use serde::{Deserialize, Serialize};

use crate::class::{Access, OnDelete, Quota};
use crate::pattern::Subpath;
use crate::site::Site;

/// The record of a volume, kept beside the volumes and never within one. It is written before the
/// directory is made, so that what was made is always found again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The volume's name.
    pub volume: Name,
    /// For which claim it was made.
    pub claim: Owner,
    /// Where its directory is, below the root.
    pub path: Subpath,
    /// Mode and owner of the directory.
    pub access: Access,
    /// What becomes of the data when the volume is deleted, whatever became of the class.
    pub on_delete: OnDelete,
    /// How long data in the trash stays there, in seconds; none for until somebody purges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash_for: Option<u64>,
    /// The class that it was made by; none in records from before this was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
    /// How many bytes were asked for.
    pub bytes: i64,
    /// What that means.
    #[serde(default)]
    pub quota: Quota,
    /// The number of the project that holds the volume to its size, chosen where it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
    /// What it begins with, if not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<CopyOf>,
    /// Whether the API is known to have had the volume. Until then nobody can have used it, and only
    /// its empty directory may be removed without being asked.
    #[serde(default)]
    pub confirmed: bool,
}

/// The volume that another begins as a copy of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOf {
    /// Its name. It lies at the same root.
    pub volume: Name,
    /// Whether everything is copied.
    #[serde(default)]
    pub whole: bool,
}

/// The claim that a volume was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its namespace.
    pub namespace: bitts_api::Namespace,
    /// Its name.
    pub name: Name,
    /// Which of that name.
    pub uid: Uid,
}

impl Owner {
    /// Where the claim is, or was.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::claim(self.namespace.clone(), self.name.clone())
    }
}

/// Work for the worker, and where it is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// Where.
    pub site: Site,
    /// What.
    pub task: Task,
}

/// What came of an [`Errand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where it was to be done.
    pub site: Site,
    /// What came of it.
    pub report: Report,
}

/// What is done at a site. Each is idempotent: doing it again after it was cut off anywhere is right.
/// At most one runs for a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Tell which volumes there are.
    Scan,
    /// Tell what there is room for.
    Survey,
    /// Make a volume.
    Make(Record),
    /// Note that the API has the volume.
    Confirm(Name, Uid),
    /// Undo the making of a volume that the API never had; what is in use stays.
    Discard(Name, Uid),
    /// Let a volume have more.
    Grow {
        /// Which.
        volume: Name,
        /// For which claim it was made.
        uid: Uid,
        /// How much in all.
        bytes: i64,
    },
    /// Do to the data of a volume what its record says.
    Remove {
        /// Which.
        volume: Name,
        /// For which claim it was made.
        uid: Uid,
        /// Where the API has it.
        path: Box<str>,
    },
}

/// What came of a [`Task`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// All records that are there.
    Scanned(Vec<Record>),
    /// The records cannot be read.
    ScanFailed(String),
    /// What there is room for.
    Surveyed(Survey),
    /// The volume is there, at this path.
    Made(Name, Box<str>),
    /// The volume is to be a copy, and is not whole yet: asking again tells how far it is.
    Copying {
        /// Which.
        volume: Name,
        /// How many bytes are copied.
        bytes: u64,
        /// Of how many; 0 before that is known.
        total: u64,
    },
    /// The volume is not there, or not whole.
    NotMade(Name, Trouble),
    /// It is noted that the API has the volume.
    Confirmed(Name),
    /// Nothing is left of a volume that the API never had.
    Discarded(Name),
    /// Nothing is left of the volume's data where it was.
    Removed(Name),
    /// The volume may have so much.
    Grown {
        /// Which.
        volume: Name,
        /// How much in all.
        bytes: i64,
        /// Whether its file system holds a writer to it.
        held: bool,
    },
    /// The volume may not have so much.
    NotGrown(Name, i64, Trouble),
    /// What was asked for was not done.
    Failed(Name, String),
    /// The site cannot be reached: what was asked for a volume there may have been done.
    Unreachable(Name, String),
}

/// What a node's disks have room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// How large a volume may be.
    pub free: u64,
    /// The same of one that is held to its size; else why none is.
    pub held: Result<u64, String>,
    /// How many bytes the volumes take, of which that is known.
    pub used: Vec<(Name, u64)>,
}

/// Why a volume was not made, or not grown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Why, and what to do.
    pub message: String,
    /// Whether another node may have what this one lacks (P12).
    pub elsewhere: bool,
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Scan a site again.
    Scan(Site),
    /// Ask for the disks' room again.
    Survey,
    /// Note that the API has volumes.
    Confirm,
    /// Tell who waits for volumes that they are being made, where they still are.
    Announce,
    /// Look at a volume again; stale unless it is the volume's latest try.
    Retry(Name, u32),
}
