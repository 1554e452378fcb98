//! What is known of one volume: what is on the disk, what is under way, what failed.

use std::time::Duration;

use bitts_api::{Name, ObjectKey, ResourceVersion};

use crate::resize::Growth;
use crate::site::Site;
use crate::task::{Alarm, CopyOf, Record};

/// What the disk holds of a volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Disk {
    /// Nothing, as far as is known.
    #[default]
    Absent,
    /// Something may be there: a task did not end well.
    Unsure,
    /// A record, and perhaps a directory.
    Recorded { confirmed: bool },
    /// All of it, at this path.
    Made { path: Box<str>, confirmed: bool },
    /// Its data was taken away.
    Removed,
}

impl Disk {
    pub(crate) fn of(record: &Record) -> Self {
        Self::Recorded {
            confirmed: record.confirmed,
        }
    }

    /// Whether there is something that the API is not known to have had.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        match self {
            Self::Absent | Self::Removed => false,
            Self::Unsure => true,
            Self::Recorded { confirmed } | Self::Made { confirmed, .. } => !confirmed,
        }
    }

    pub(crate) fn confirm(&mut self) {
        match self {
            Self::Recorded { confirmed } | Self::Made { confirmed, .. } => *confirmed = true,
            Self::Unsure => *self = Self::Recorded { confirmed: true },
            Self::Absent | Self::Removed => {}
        }
    }
}

/// Work under way for a volume; one at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Flight {
    /// A task of the worker.
    Task,
    /// The volume's object is being made.
    Create,
    /// An object is being changed, decided on this version.
    Write(ObjectKey, ResourceVersion),
}

/// When it is noted that the API has a volume: once those that wait for volumes have theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Confirm {
    #[default]
    NotYet,
    /// In turn with all that are put off.
    Soon,
    Now,
}

/// One volume.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    pub(crate) disk: Disk,
    /// Where that is, once something may be there.
    pub(crate) site: Option<Site>,
    /// What it begins as a copy of.
    pub(crate) copy_of: Option<CopyOf>,
    /// What has to be known before anything can be done.
    pub(crate) awaits: Option<Site>,
    pub(crate) flight: Option<Flight>,
    /// Why this node cannot have the volume.
    pub(crate) misplaced: Option<String>,
    /// Whether it is to be noted that the API has it.
    pub(crate) confirm: Confirm,
    /// What is known of its growth.
    pub(crate) growth: Growth,
    /// The user is told that it is being made, should it take long.
    pub(crate) announced: bool,
    told: Option<String>,
    failures: u32,
    attempt: u32,
    resting: bool,
}

impl Unit {
    /// Whether it was made, and not at this path.
    pub(crate) fn is_made_elsewhere(&self, at: &str) -> bool {
        matches!(&self.disk, Disk::Made { path, .. } if **path != *at)
    }

    /// Whether nothing may be decided now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.flight.is_some() || self.resting
    }

    /// Something failed. Returns when to try again: 1 s, doubling to 5 minutes.
    pub(crate) fn fail(&mut self, volume: &Name) -> (Duration, Alarm) {
        const FIRST: Duration = Duration::from_secs(1);
        const MOST: Duration = Duration::from_secs(300);
        let after = (FIRST * (1 << self.failures.min(9))).min(MOST);
        self.failures += 1;
        self.attempt += 1;
        self.resting = true;
        (after, Alarm::Retry(volume.clone(), self.attempt))
    }

    /// It is under way elsewhere. Returns when to look at it again.
    pub(crate) fn rest(&mut self, volume: &Name, after: Duration) -> (Duration, Alarm) {
        self.attempt += 1;
        self.resting = true;
        (after, Alarm::Retry(volume.clone(), self.attempt))
    }

    /// Something that was tried succeeded.
    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
        self.told = None;
        self.resting = false;
    }

    /// A timer went off, or what it depends on changed.
    pub(crate) fn retry(&mut self, attempt: Option<u32>) {
        if attempt.is_none_or(|attempt| attempt == self.attempt) {
            self.resting = false;
        }
    }

    /// What could not be had before is asked for again.
    pub(crate) fn forget_refusal(&mut self) {
        if let (Growth::Refused(..), false) = (&self.growth, self.resting) {
            self.growth = Growth::Unknown;
        }
    }

    /// Whether the user has yet to be told of this.
    pub(crate) fn tells(&mut self, message: &str) -> bool {
        let new = self.told.as_deref() != Some(message);
        self.told = Some(message.to_owned());
        new
    }

    /// Whether the user knows why it is not there yet.
    pub(crate) fn has_told(&self) -> bool {
        self.told.is_some()
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_over(&self) -> bool {
        self.flight.is_none() && matches!(self.disk, Disk::Absent | Disk::Removed)
    }
}
