//! What was moved aside: kept, swept away without haste, or put back.
//!
//! An entry is a directory of `.bitts/trash` with the data and the record of a volume. Whoever takes
//! it out of there does so by one rename, to `.bitts/leaving` or to `.bitts/restoring`: so what is swept
//! away is never put back in part, whichever process does either.

use bitts_api::Name;
use bitts_mount::dir::{Component, Dir, Removal};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::records::{self, COPYING, LEAVING, RESTORING, Records, TRASH, modified};
use super::{DiskError, is_there};
use crate::class::OnDelete;
use crate::task::Record;

pub(super) const DATA: &str = "data";
pub(super) const RECORD: &str = "record.json";

/// An entry of the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trashed {
    /// The volume's name.
    pub volume: Name,
    /// Its record; none where it cannot be read, or is still where it was.
    pub record: Option<Record>,
    /// Since when it is there, in seconds since 1970, by the clock of whoever has the disk.
    pub since: i64,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of an entry of the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It stays, as long as its record says.
    Kept,
    /// Its data is on its way out.
    Leaving,
    /// Putting it back was begun, and cut off where it goes on for long.
    Restoring,
}

impl Trashed {
    /// When it is swept away, in seconds since 1970; none for what is kept until somebody purges it.
    #[must_use]
    pub fn until(&self) -> Option<i64> {
        let record = self.record.as_ref()?;
        match record.on_delete {
            OnDelete::Delete => Some(self.since),
            OnDelete::Trash | OnDelete::Retain => {
                let kept = i64::try_from(record.trash_for?).unwrap_or(i64::MAX);
                Some(self.since.saturating_add(kept))
            }
        }
    }
}

/// Moves a volume's directory aside: one rename, however much is in it.
pub(super) fn take_data(
    records: &Records,
    volume: &Name,
    parent: &Dir,
    last: &Component,
) -> Result<(), DiskError> {
    let entry = entry(records, volume)?;
    let doing = format!("moving {}/{last} to the trash", parent.path().display());
    // It takes the place of an empty directory at most; NFS knows no flag that would forbid that too.
    rustix::fs::renameat(parent, last.as_str(), &entry, DATA).map_err(DiskError::io(doing))?;
    entry.sync()?;
    Ok(parent.sync()?)
}

/// Has the record follow its data.
pub(super) fn take_record(records: &Records, volume: &Name) -> Result<(), DiskError> {
    records.shift(volume, &entry(records, volume)?, RECORD)
}

/// All entries, those that are on their way out or back included.
pub(super) fn all(records: &Records) -> Result<Vec<Trashed>, DiskError> {
    let mut all = Vec::new();
    for (place, fate) in [
        (TRASH, Fate::Kept),
        (LEAVING, Fate::Leaving),
        (RESTORING, Fate::Restoring),
    ] {
        let dir = records.place(place)?;
        for name in dir.children()? {
            let (Some(entry), Some(since)) = (dir.child(&name)?, modified(&dir, name.as_str())?)
            else {
                continue; // it went meanwhile
            };
            all.push(Trashed {
                volume: name.as_str().into(),
                record: records::read(&entry, RECORD).unwrap_or_else(|error| {
                    tracing::warn!(%error, "a record in the trash");
                    None
                }),
                since,
                fate,
            });
        }
    }
    Ok(all)
}

/// Has the entries leave that nobody wants to keep, at this time; returns all that leave.
pub(super) fn doomed(records: &Records, now: i64) -> Result<Vec<Name>, DiskError> {
    let trash = records.place(TRASH)?;
    for name in trash.children()? {
        let Some(entry) = trash.child(&name)? else {
            continue;
        };
        let volume = Name::from(name.as_str());
        let leaves = match records::read(&entry, RECORD) {
            Ok(Some(record)) => {
                let since = modified(&trash, name.as_str())?.unwrap_or(now);
                let entry = Trashed {
                    volume: volume.clone(),
                    record: Some(record),
                    since,
                    fate: Fate::Kept,
                };
                entry.until().is_some_and(|until| until <= now)
            }
            // An entry that was begun, or is nearly gone: its record is where it was, or was swept.
            Ok(None) => {
                let begun = records.find(&volume)?.is_some();
                !begun && !is_there(&entry, &Component::new(DATA)?)?
            }
            Err(error) => {
                tracing::error!(%error, "stays in the trash");
                false
            }
        };
        if leaves {
            shift(records, &name, TRASH, LEAVING)?;
        }
    }
    let leaving = records.place(LEAVING)?.children()?;
    Ok(leaving.iter().map(|name| name.as_str().into()).collect())
}

/// Has an entry leave, whatever its record says.
pub(super) fn purge(records: &Records, volume: &Name) -> Result<(), DiskError> {
    let name = Component::new(volume.as_str())?;
    if records.find(volume)?.is_some() {
        return Err(DiskError::Unfinished(volume.clone()));
    }
    if shift(records, &name, TRASH, LEAVING)? || is_there(&records.place(LEAVING)?, &name)? {
        return Ok(());
    }
    Err(DiskError::NotTrashed(volume.clone()))
}

/// Removes the data of an entry that leaves, then the record, then the entry.
pub(super) fn sweep<E: std::fmt::Display>(
    records: &Records,
    volume: &Name,
    sweeper: impl FnOnce(&Dir, &Component) -> Result<(), E>,
) -> Result<(), DiskError> {
    let leaving = records.place(LEAVING)?;
    let name = Component::new(volume.as_str())?;
    let Some(entry) = leaving.child(&name)? else {
        return Ok(());
    };
    let data = Component::new(DATA)?;
    sweeper(&entry, &data).map_err(|error| DiskError::Io {
        doing: format!("emptying {}", entry.path().display()),
        error: std::io::Error::other(error.to_string()),
    })?;
    match rustix::fs::unlinkat(&entry, RECORD, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => {
            let doing = format!("removing {}/{RECORD}", entry.path().display());
            return Err(DiskError::io(doing)(e));
        }
    }
    remove(&leaving, &name)
}

/// Takes an entry to put it back, or one whose putting back was begun; none where there is neither.
pub(super) fn take_back(records: &Records, volume: &Name) -> Result<Option<Dir>, DiskError> {
    let name = Component::new(volume.as_str())?;
    let restoring = records.place(RESTORING)?;
    if !is_there(&restoring, &name)? && !shift(records, &name, TRASH, RESTORING)? {
        return Ok(None);
    }
    Ok(restoring.child(&name)?)
}

/// Leaves an entry in the trash after all.
pub(super) fn leave_be(records: &Records, volume: &Name) -> Result<(), DiskError> {
    let name = Component::new(volume.as_str())?;
    shift(records, &name, RESTORING, TRASH).map(drop)
}

/// Ends putting an entry back: it is empty.
pub(super) fn put_back(records: &Records, volume: &Name) -> Result<(), DiskError> {
    let restoring = records.place(RESTORING)?;
    remove(&restoring, &Component::new(volume.as_str())?)
}

/// Moves an entry; whether it was there.
fn shift(records: &Records, name: &Component, from: &str, to: &str) -> Result<bool, DiskError> {
    let (from, to) = (records.place(from)?, records.place(to)?);
    match rustix::fs::renameat(&from, name.as_str(), &to, name.as_str()) {
        Ok(()) => {
            to.sync()?;
            from.sync()?;
            Ok(true)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(e) => {
            let doing = format!("moving {}/{name}", from.path().display());
            Err(DiskError::io(doing)(e))
        }
    }
}

/// Has what was copied for a volume leave, which never was in its place; whether there was anything.
pub(super) fn abandon(records: &Records, volume: &Name) -> Result<bool, DiskError> {
    let name = Component::new(volume.as_str())?;
    let entry = records.place(COPYING)?.child(&name)?;
    let data = Component::new(DATA)?;
    let is_anything = entry.map_or(Ok(false), |entry| is_there(&entry, &data))?;
    shift(records, &name, COPYING, LEAVING)?;
    Ok(is_anything)
}

pub(super) fn remove(dir: &Dir, name: &Component) -> Result<(), DiskError> {
    let path = || dir.path().join(name.as_str()).display().to_string();
    match dir.remove(name)? {
        Removal::Removed | Removal::Absent => Ok(dir.sync()?),
        Removal::NotEmpty => Err(DiskError::NotEmpty(path())),
        Removal::MountPoint => Err(DiskError::Mounted(path())),
    }
}

fn entry(records: &Records, volume: &Name) -> Result<Dir, DiskError> {
    let trash = records.place(TRASH)?;
    let entry = trash.make_child(&Component::new(volume.as_str())?)?;
    trash.sync()?;
    Ok(entry)
}
