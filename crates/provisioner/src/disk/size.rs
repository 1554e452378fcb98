//! What a disk has room for, and what holds each volume to its size.
//!
//! A volume of a class with `quota` was promised its size: nothing that was promised is promised again,
//! whether it was written yet or not. Where the class says `required`, the directory has a project
//! ([`bitts_mount::quota`]), whose number is in the record before anything carries it. A number is given
//! out only while no record has it and no file carries it, so that what lies in the trash or was left
//! behind keeps its own.

use std::collections::BTreeMap;

use bitts_api::{Name, Uid};
use bitts_mount::dir::Dir;
use bitts_mount::quota::{self, Project};

use super::{Disk, DiskError, Root};
use crate::class::Quota;
use crate::pattern::Subpath;
use crate::task::Record;

/// The volumes of a disk, by where they lie.
pub(super) type Index = BTreeMap<Subpath, Entry>;

/// What is known of a volume.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) volume: Name,
    /// The claim that it was made for.
    pub(super) owner: Uid,
    /// The volume that it is to be a copy of, and is not yet.
    pub(super) copies: Option<Name>,
    promise: Option<Promise>,
}

/// How much a volume was promised.
#[derive(Clone, Copy, Debug)]
struct Promise {
    bytes: u64,
    project: Option<Project>,
}

impl Entry {
    pub(super) fn of(record: &Record) -> Self {
        let promise = (record.quota != Quota::None).then(|| Promise {
            bytes: bytes(record),
            project: project(record),
        });
        let unfinished = record.copy_of.as_ref().filter(|of| !of.whole);
        Self {
            volume: record.volume.clone(),
            owner: record.claim.uid.clone(),
            copies: unfinished.map(|of| of.volume.clone()),
            promise,
        }
    }

    /// Of a volume that is gone and whose data stays: nothing is written to it any more.
    pub(super) fn of_retained(record: &Record) -> Self {
        Self {
            volume: record.volume.clone(),
            owner: record.claim.uid.clone(),
            copies: None,
            promise: None,
        }
    }
}

fn bytes(record: &Record) -> u64 {
    u64::try_from(record.bytes).unwrap_or(0)
}

fn project(record: &Record) -> Option<Project> {
    record.project.and_then(Project::new)
}

/// How much of a disk is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    /// How many bytes were promised to volumes,
    promised: u64,
    /// and how many of those are known to be unwritten.
    unwritten: u64,
}

/// What may still be promised of a disk of this size with so much free.
///
/// What a volume without a project wrote is not known: it counts as nothing in `free`, but in whole in
/// `size`.
fn left(size: u64, free: u64, taken: Taken) -> u64 {
    let unpromised = size.saturating_sub(taken.promised);
    free.saturating_sub(taken.unwritten).min(unpromised)
}

impl Disk {
    /// How many bytes a new volume of such a class may ask for.
    ///
    /// # Errors
    /// When the disk cannot hold it to that, or the kernel does not say.
    pub fn room(&self, quota: Quota) -> Result<u64, DiskError> {
        let root = self.top()?;
        if quota == Quota::Required {
            quota::check(&root)?;
        }
        self.left(&root, &self.lock())
    }

    /// How many bytes the volumes take, of which the file system counts that.
    #[must_use]
    pub fn used(&self) -> Vec<(Name, u64)> {
        let Ok(root) = self.top() else {
            return Vec::new();
        };
        let index = self.lock().clone();
        let counted = index.into_values().filter_map(|entry| {
            let usage = quota::usage(&root, entry.promise?.project?).ok()?;
            Some((entry.volume, usage.bytes))
        });
        counted.collect()
    }

    fn left(&self, root: &Dir, index: &Index) -> Result<u64, DiskError> {
        let stat = rustix::fs::fstatvfs(root).map_err(DiskError::io(self.name()))?;
        let of = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        // What is kept for root is no room for volumes.
        let size = of(stat.f_blocks.saturating_sub(stat.f_bfree - stat.f_bavail));
        let mut taken = Taken::default();
        for promise in index.values().filter_map(|entry| entry.promise) {
            taken.promised = taken.promised.saturating_add(promise.bytes);
            if let Some(project) = promise.project {
                let written = quota::usage(root, project)?.bytes;
                taken.unwritten += promise.bytes.saturating_sub(written);
            }
        }
        Ok(left(size, of(stat.f_bavail), taken))
    }

    /// Refuses so many bytes more, where they are not there.
    pub(super) fn has_room(&self, root: &Dir, index: &Index, asked: i64) -> Result<(), DiskError> {
        if let Root::Open(..) = self.root {
            return Ok(());
        }
        let free = self.left(root, index)?;
        if u64::try_from(asked).is_ok_and(|asked| asked > free) {
            return Err(DiskError::Full {
                root: self.name(),
                free,
                asked,
            });
        }
        Ok(())
    }

    /// The record with a project for the volume, where its class asks for one.
    pub(super) fn with_project(
        root: &Dir,
        index: &Index,
        record: &Record,
    ) -> Result<Record, DiskError> {
        let mut record = record.clone();
        record.project = match record.quota {
            Quota::None | Quota::Soft => None,
            Quota::Required => {
                quota::check(root)?;
                Some(choose(root, index, &record.claim.uid)?.number())
            }
        };
        Ok(record)
    }

    /// Holds a volume's directory to its size, if that was asked for.
    pub(super) fn hold(root: &Dir, dir: &Dir, record: &Record) -> Result<(), DiskError> {
        let Some(project) = project(record) else {
            return Ok(());
        };
        // The limit first: nothing is written without one.
        set_limit(root, project, Some(bytes(record)))?;
        if quota::project(dir)? != Some(project) {
            quota::assign(dir, Some(project))?;
        }
        Ok(())
    }

    /// Sets the limits of volumes that lack them, as after they were restored.
    pub(super) fn hold_all(root: &Dir, all: &[Record]) {
        for record in all {
            let held = project(record).map(|p| set_limit(root, p, Some(bytes(record))));
            if let Some(Err(error)) = held {
                tracing::error!(volume = %record.volume, %error, "nothing holds it to its size");
            }
        }
    }

    /// Lifts the limit of a volume that is gone. What is left of its data keeps the project.
    pub(super) fn lift(root: &Dir, record: &Record) -> Result<(), DiskError> {
        project(record).map_or(Ok(()), |project| set_limit(root, project, None))
    }

    /// Raises a volume to so many bytes; whether its file system holds a writer to them. What the
    /// record says holds, whenever this is cut off.
    ///
    /// # Errors
    /// When there is no room for that, or the record names another claim.
    pub fn grow(&self, volume: &Name, uid: &Uid, to: i64) -> Result<bool, DiskError> {
        let (root, records) = self.opened()?;
        let known = records.find(volume)?;
        let known = known.ok_or_else(|| DiskError::NoRecord(volume.to_string()))?;
        let mut record = self.same(&known, uid)?.clone();
        if to > record.bytes {
            let mut index = self.lock();
            if record.quota != Quota::None {
                self.has_room(&root, &index, to - record.bytes)?;
            }
            record.bytes = to;
            records.write(&record)?;
            index.insert(record.path.clone(), Entry::of(&record));
        }
        let project = project(&record);
        if let Some(project) = project {
            set_limit(&root, project, Some(bytes(&record)))?;
        }
        Ok(project.is_some())
    }
}

fn set_limit(root: &Dir, project: Project, bytes: Option<u64>) -> Result<(), DiskError> {
    let same = |usage: &quota::Usage| usage.limit == bytes.map(|b| b.next_multiple_of(1024));
    if bytes.is_some() && quota::usage(root, project).is_ok_and(|usage| same(&usage)) {
        return Ok(());
    }
    Ok(quota::set_limit(root, project, bytes)?)
}

/// The first of these numbers: others (the kubelet, operators with `/etc/projects`) count from below.
const FIRST: u32 = 1 << 30;
const NUMBERS: u32 = 1 << 30;

/// A project that nothing has. It begins with a number made of the claim's uid, so that two processes
/// with directories on one disk do not choose the same at one moment.
fn choose(root: &Dir, index: &Index, claim: &Uid) -> Result<Project, DiskError> {
    let recorded = |project: Project| {
        let mut promises = index.values().filter_map(|entry| entry.promise);
        promises.any(|promise| promise.project == Some(project))
    };
    let start = spread(claim.to_string().as_bytes());
    for step in 0..NUMBERS {
        let number = FIRST + (start.wrapping_add(step)) % NUMBERS;
        let Some(project) = Project::new(number).filter(|p| !recorded(*p)) else {
            continue;
        };
        if quota::usage(root, project)?.is_none() {
            return Ok(project);
        }
    }
    Err(DiskError::NoProject)
}

/// FNV-1a: the same for the same text, in every version.
fn spread(text: &[u8]) -> u32 {
    text.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_promised_is_not_promised_again() {
        let taken = |promised, unwritten| Taken {
            promised,
            unwritten,
        };
        // (size, free, taken) and what is left
        for (size, free, taken, expected) in [
            (100, 100, taken(0, 0), 100),
            (100, 30, taken(0, 0), 30),
            // Promised and unwritten, as a new one with a project is.
            (100, 100, taken(60, 60), 40),
            // Written in full: it is gone from what is free.
            (100, 40, taken(60, 0), 40),
            // Nobody knows what a soft one wrote.
            (100, 100, taken(60, 0), 40),
            // Files that are no volumes.
            (100, 50, taken(60, 30), 20),
            (100, 10, taken(60, 30), 0),
            (100, 100, taken(u64::MAX, 0), 0),
        ] {
            assert_eq!(left(size, free, taken), expected, "{size} {free} {taken:?}");
        }
    }

    #[test]
    fn numbers_begin_apart_and_stay() {
        assert_eq!(spread(b"u1"), spread(b"u1"));
        assert_ne!(spread(b"u1"), spread(b"u2"));
    }
}
