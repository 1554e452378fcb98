//! What operators do by hand: put back what was moved aside, set aside what is nobody's, and take over
//! what another provisioner made.

use std::path::{Path, PathBuf};

use bitts_api::{Name, Uid};
use bitts_mount::dir::{Component, Dir};

use super::records::{self, Records};
use super::size::Entry;
use super::{Disk, DiskError, Trashed, is_there, trash};
use crate::class::OnDelete;
use crate::task::Record;

impl Disk {
    /// What is in the trash.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn trashed(&self) -> Result<Vec<Trashed>, DiskError> {
        trash::all(&self.opened()?.1)
    }

    /// Puts the data and the record of a volume back, as those of one that is gone and whose data stays.
    /// Again is right, whether it was cut off or done.
    ///
    /// # Errors
    /// When the trash has no data of it, or its place was taken; then it stays in the trash.
    pub fn restore(&self, volume: &Name) -> Result<(Record, PathBuf), DiskError> {
        let (root, records) = self.opened()?;
        if records.find(volume)?.is_some() {
            return Err(DiskError::Unfinished(volume.clone()));
        }
        let Some(entry) = trash::take_back(&records, volume)? else {
            let done = records.read(records::RETAINED, volume)?;
            let record = done.ok_or_else(|| DiskError::NotTrashed(volume.clone()))?;
            let path = self.path(&record.path);
            return Ok((record, path));
        };
        let kept = records::read(&entry, trash::RECORD);
        let moved = kept.and_then(|record| {
            let record = match record {
                Some(record) => record,
                None => records
                    .read(records::RETAINED, volume)?
                    .ok_or_else(|| DiskError::NoRecord(entry.path().display().to_string()))?,
            };
            self.move_back(&root, &records, &entry, &record)?;
            Ok(record)
        });
        let record = match moved {
            Ok(record) => record,
            Err(why) => {
                trash::leave_be(&records, volume)?;
                return Err(why);
            }
        };
        if is_there(&entry, &Component::new(trash::RECORD)?)? {
            records.retain_again(volume, &entry, trash::RECORD)?;
        }
        trash::put_back(&records, volume)?;
        let stays = Entry::of_retained(&record);
        self.lock().insert(record.path.clone(), stays);
        let path = self.path(&record.path);
        Ok((record, path))
    }

    /// Moves the data of an entry to where its record says, unless that was done.
    fn move_back(
        &self,
        root: &Dir,
        records: &Records,
        entry: &Dir,
        record: &Record,
    ) -> Result<(), DiskError> {
        let data = Component::new(trash::DATA)?;
        let in_place = |found: Option<(Dir, Component)>| match found {
            Some((parent, last)) => is_there(&parent, &last),
            None => Ok(false),
        };
        let there = in_place(self.existing(root, &record.path)?)?;
        let path = self.path(&record.path).display().to_string();
        match (is_there(entry, &data)?, there) {
            (false, true) => return Ok(()),
            (false, false) => return Err(DiskError::NoData(record.volume.clone())),
            (true, true) => return Err(DiskError::Taken(path)),
            (true, false) => {}
        }
        self.learn_retained(records, &record.path)?;
        self.reserve(&mut self.lock(), record)?;
        let moved = self.parent(root, &record.path, true).and_then(|to| {
            let (parent, last) = to;
            rustix::fs::renameat(entry, trash::DATA, &parent, last.as_str())
                .map_err(DiskError::io(format!("moving the data to {path}")))?;
            parent.sync()?;
            Ok(entry.sync()?)
        });
        if moved.is_err() {
            self.lock().remove(&record.path);
        }
        moved
    }

    /// Has the data of a volume in the trash leave; [`Disk::sweep`] removes it.
    ///
    /// # Errors
    /// When the trash has none of it.
    pub fn purge(&self, volume: &Name) -> Result<(), DiskError> {
        trash::purge(&self.opened()?.1, volume)
    }

    /// Moves what a record says to the trash, whatever its class said of its deletion, where it stays
    /// until somebody purges it. Who asks has to know that neither claim nor volume exists.
    ///
    /// # Errors
    /// As [`Disk::remove`].
    pub fn set_aside(&self, volume: &Name, uid: &Uid) -> Result<(), DiskError> {
        let records = self.opened()?.1;
        let Some(record) = records.find(volume)? else {
            return Ok(());
        };
        self.same(&record, uid)?;
        let path = self.path(&record.path);
        let kept = Record {
            on_delete: OnDelete::Trash,
            trash_for: None,
            ..record
        };
        records.write(&kept)?;
        self.remove(volume, uid, &path)
    }

    /// Writes the record of a volume whose directory is there and was made by somebody else.
    ///
    /// # Errors
    /// When the directory is not there, or the record of another volume says that it is its.
    pub fn adopt(&self, record: &Record) -> Result<(), DiskError> {
        let (root, records) = self.opened()?;
        if let Some(known) = records.find(&record.volume)? {
            self.same(&known, &record.claim.uid)?;
            if known.path != record.path {
                return Err(DiskError::Elsewhere {
                    recorded: self.path(&known.path).display().to_string(),
                    asked: self.path(&record.path).display().to_string(),
                });
            }
            return Ok(());
        }
        let there = match self.existing(&root, &record.path)? {
            Some((parent, last)) => parent.child(&last)?.is_some(),
            None => false,
        };
        if !there {
            let path = self.path(&record.path);
            return Err(DiskError::NoDirectory(path.display().to_string()));
        }
        self.learn_retained(&records, &record.path)?;
        self.reserve(&mut self.lock(), record)?;
        let written = records.write(record);
        if written.is_err() {
            self.lock().remove(&record.path);
        }
        written
    }

    /// Whether a path lies at this root, and where below it.
    #[must_use]
    pub fn below<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix(self.root()).ok()
    }
}
