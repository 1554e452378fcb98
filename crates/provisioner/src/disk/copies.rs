//! Volumes that begin as copies of others at the same root.
//!
//! The data comes together in `.bitts/copying/NAME/data`, where no pod sees it, and is moved into its place
//! once it is whole and the record says so: a volume is never a part of what it is a copy of. A copy that is
//! cut off begins anew. Until it is whole its source is not taken away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitts_api::Name;
use bitts_mount::copy::{self, Progress};
use bitts_mount::dir::{Component, Dir};
use bitts_mount::sweep;

use super::records::{COPYING, Records};
use super::size::Entry;
use super::trash::DATA;
use super::{Disk, DiskError, Made, is_there, trash};
use crate::class::OnDelete;
use crate::task::{CopyOf, Record};

/// For how many seconds a copy stays in the trash that the API never had, as far as is known: what is not
/// empty is never removed at once on that ground alone.
const UNUSED: u64 = 24 * 60 * 60;

/// The copies that are made by this process, or are to be.
#[derive(Debug, Default)]
pub(super) struct Copies(Mutex<BTreeMap<Name, Arc<Copy>>>);

/// One of them.
#[derive(Debug)]
struct Copy {
    source: Name,
    progress: Progress,
    /// Whether it was begun.
    begun: AtomicBool,
    /// Why it did not come to be; told once, then it is begun anew when it is asked for again.
    failed: Mutex<Option<String>>,
}

impl Copy {
    fn failed(&self) -> MutexGuard<'_, Option<String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Copies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Copy>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a copy end. Whether it has: one that is being made takes until it notices.
    fn end(&self, volume: &Name) -> bool {
        let mut all = self.lock();
        if let Some(copy) = all.get(volume)
            && copy.begun.load(Ordering::Relaxed)
            && copy.failed().is_none()
        {
            copy.progress.stop();
            return false;
        }
        all.remove(volume);
        true
    }

    fn forget(&self, volume: &Name) {
        self.lock().remove(volume);
    }

    /// How far a copy is, which is begun with that where it was not.
    fn ask(&self, volume: &Name, source: &Name) -> Result<Made, String> {
        let mut all = self.lock();
        let copy = all.entry(volume.clone()).or_insert_with(|| {
            Arc::new(Copy {
                source: source.clone(),
                progress: Progress::default(),
                begun: AtomicBool::default(),
                failed: Mutex::default(),
            })
        });
        let failed = copy.failed().take();
        if let Some(why) = failed {
            all.remove(volume);
            return Err(why);
        }
        Ok(Made::Copying {
            bytes: copy.progress.bytes(),
            total: copy.progress.total(),
        })
    }

    /// One that is to be made.
    fn next(&self) -> Option<(Name, Arc<Copy>)> {
        let all = self.lock();
        let mut waiting = all.iter().filter(|(_, copy)| copy.failed().is_none());
        let (name, copy) = waiting.next()?;
        copy.begun.store(true, Ordering::Relaxed);
        Some((name.clone(), copy.clone()))
    }
}

impl Disk {
    /// Makes what is to be copied, one after the other, until nothing is left. It may take long.
    pub fn copy_all(&self) {
        while let Some((volume, copy)) = self.copies.next() {
            match self.copy(&volume, &copy.progress) {
                Ok(left_out) => {
                    tracing::info!(%volume, of = %copy.source, left_out, "copied");
                    self.copies.forget(&volume);
                }
                Err(why) => *copy.failed() = Some(why.to_string()),
            }
        }
    }

    /// Copies the data of a volume; returns how many sockets and devices are not in the copy.
    fn copy(&self, volume: &Name, progress: &Progress) -> Result<u64, DiskError> {
        let (root, records) = self.opened()?;
        // Undone meanwhile, or whole.
        let Some(record) = records.find(volume)? else {
            return Ok(0);
        };
        let Some(of) = record.copy_of.clone().filter(|of| !of.whole) else {
            return Ok(0);
        };
        let source = self.source(&root, &records, &of.volume)?;
        let entry = records.place(COPYING)?.make_child(&name_of(volume)?)?;
        let data = Component::new(DATA)?;
        sweep::remove(&entry, &data)?;
        let into = entry.make_child(&data)?;
        Self::hold(&root, &into, &record)?;
        let copied = copy::contents(&source, &into, progress)?;
        rustix::fs::syncfs(super::readable(&into)?)
            .map_err(DiskError::io(format!("syncing {}", into.path().display())))?;
        let whole = CopyOf { whole: true, ..of };
        let record = Record {
            copy_of: Some(whole),
            ..record
        };
        records.write(&record)?;
        self.lock().insert(record.path.clone(), Entry::of(&record));
        Ok(copied.left_out)
    }

    fn source(&self, root: &Dir, records: &Records, volume: &Name) -> Result<Dir, DiskError> {
        let missing = || DiskError::NoSource(volume.clone());
        let record = records.find(volume)?;
        let record = record.ok_or_else(missing)?;
        let place = self.existing(root, &record.path)?;
        let (parent, last) = place.ok_or_else(missing)?;
        parent.child(&last)?.ok_or_else(missing)
    }

    /// Puts a copy in its place once it is whole.
    pub(super) fn make_copy(
        &self,
        root: &Dir,
        records: &Records,
        record: &Record,
        of: &CopyOf,
    ) -> Result<Made, DiskError> {
        let path = self.path(&record.path);
        let copying = records.place(COPYING)?;
        let name = name_of(&record.volume)?;
        let taken = || DiskError::Taken(path.display().to_string());
        if !of.whole {
            if let Some((parent, last)) = self.existing(root, &record.path)?
                && is_there(&parent, &last)?
            {
                return Err(taken());
            }
            let asked = self.copies.ask(&record.volume, &of.volume);
            return asked.map_err(|why| DiskError::NotCopied(of.volume.clone(), why));
        }
        let (parent, last) = self.parent(root, &record.path, true)?;
        if let Some(entry) = copying.child(&name)? {
            if is_there(&entry, &Component::new(DATA)?)? {
                if is_there(&parent, &last)? {
                    return Err(taken());
                }
                let doing = format!("moving the copy to {}", path.display());
                rustix::fs::renameat(&entry, DATA, &parent, last.as_str())
                    .map_err(DiskError::io(doing))?;
                parent.sync()?;
            }
            trash::remove(&copying, &name)?;
        }
        match parent.child(&last)? {
            Some(_) => Ok(Made::Whole(path)),
            None => Err(DiskError::NoDirectory(path.display().to_string())),
        }
    }

    /// Undoes what was copied for a volume that the API never had, as far as is known.
    pub(super) fn discard_copy(
        &self,
        root: &Dir,
        records: &Records,
        record: &Record,
        of: &CopyOf,
    ) -> Result<(), DiskError> {
        if !self.copies.end(&record.volume) {
            return Err(DiskError::Stopping(record.volume.clone()));
        }
        let was_moved = !trash::abandon(records, &record.volume)?;
        // Before it was moved there, what has its place is somebody else's.
        if of.whole
            && was_moved
            && let Some((parent, last)) = self.existing(root, &record.path)?
            && is_there(&parent, &last)?
        {
            let kept = Record {
                on_delete: OnDelete::Trash,
                trash_for: Some(UNUSED),
                ..record.clone()
            };
            records.write(&kept)?;
            trash::take_data(records, &record.volume, &parent, &last)?;
            Self::lift(root, record)?;
            trash::take_record(records, &record.volume)?;
        } else {
            Self::lift(root, record)?;
            records.forget(&record.volume)?;
        }
        self.released(root, &record.path);
        Ok(())
    }
}

fn name_of(volume: &Name) -> Result<Component, DiskError> {
    Ok(Component::new(volume.as_str())?)
}
