//! What was moved aside: kept, or swept away without haste.

use bitts_api::Name;
use bitts_mount::dir::{Component, Dir, Removal};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::records::{self, Records, TRASH};
use super::{DiskError, is_there, sync};
use crate::class::OnDelete;

const DATA: &str = "data";
const RECORD: &str = "record.json";

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
    sync(&entry)?;
    sync(parent)
}

/// Has the record follow its data.
pub(super) fn take_record(records: &Records, volume: &Name) -> Result<(), DiskError> {
    records.shift(volume, &entry(records, volume)?, RECORD)
}

/// The entries whose data nobody wants to keep.
pub(super) fn doomed(records: &Records) -> Result<Vec<Name>, DiskError> {
    let trash = records.place(TRASH)?;
    let mut doomed = Vec::new();
    for name in trash.children()? {
        let Some(entry) = trash.child(&name)? else {
            continue;
        };
        let volume = Name::from(name.as_str());
        match records::read(&entry, RECORD) {
            Ok(Some(record)) if record.on_delete == OnDelete::Delete => doomed.push(volume),
            Ok(Some(_)) => {}
            // An entry that was begun, or is nearly gone: its record is where it was, or was swept.
            Ok(None) => {
                let begun = records.read(records::VOLUMES, &volume)?.is_some();
                if !begun && !is_there(&entry, &Component::new(DATA)?)? {
                    doomed.push(volume);
                }
            }
            Err(error) => tracing::error!(%error, "stays in the trash"),
        }
    }
    Ok(doomed)
}

/// Removes the data, then the record, then the entry.
pub(super) fn sweep<E: std::fmt::Display>(
    records: &Records,
    volume: &Name,
    sweeper: impl FnOnce(&Dir, &Component) -> Result<(), E>,
) -> Result<(), DiskError> {
    let trash = records.place(TRASH)?;
    let name = Component::new(volume.as_str())?;
    let Some(entry) = trash.child(&name)? else {
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
    match trash.remove(&name)? {
        Removal::Removed | Removal::Absent => sync(&trash),
        Removal::NotEmpty => Err(DiskError::NotEmpty(entry.path().display().to_string())),
        Removal::MountPoint => Err(DiskError::Mounted(entry.path().display().to_string())),
    }
}

fn entry(records: &Records, volume: &Name) -> Result<Dir, DiskError> {
    let trash = records.place(TRASH)?;
    let entry = trash.make_child(&Component::new(volume.as_str())?)?;
    sync(&trash)?;
    Ok(entry)
}
