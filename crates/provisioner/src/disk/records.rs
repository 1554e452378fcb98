//! The records beside the volumes: one file each, replaced as a whole.

use std::fs::File;
use std::io::{Read as _, Write as _};

use bitts_api::Name;
use bitts_mount::dir::{Component, Dir};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{DiskError, readable, sync};
use crate::pattern::OWN;
use crate::task::Record;

pub(super) const VOLUMES: &str = "volumes";
pub(super) const RETAINED: &str = "retained";
pub(super) const TRASH: &str = "trash";
const END: &str = ".json";
const NEW: &str = ".new";
/// More than any record has.
const MOST: u64 = 64 * 1024;

/// bitts' own directory at a root.
pub(super) struct Records {
    own: Dir,
}

impl Records {
    pub(super) fn open(root: &Dir) -> Result<Self, DiskError> {
        let own = root.make_child(&Component::new(OWN)?)?;
        Ok(Self { own })
    }

    pub(super) fn place(&self, place: &str) -> Result<Dir, DiskError> {
        Ok(self.own.make_child(&Component::new(place)?)?)
    }

    /// All records of a place.
    pub(super) fn all(&self, place: &str) -> Result<Vec<Record>, DiskError> {
        let dir = self.place(place)?;
        let doing = || format!("reading {}", dir.path().display());
        let entries = rustix::fs::Dir::new(readable(&dir)?).map_err(DiskError::io(doing()))?;
        let mut records = Vec::new();
        for entry in entries {
            let entry = entry.map_err(DiskError::io(doing()))?;
            let name = entry.file_name().to_str().ok();
            let Some(volume) = name.and_then(|name| name.strip_suffix(END)) else {
                continue;
            };
            match read(&dir, &format!("{volume}{END}")) {
                Ok(Some(record)) if record.volume == *volume => records.push(record),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "left out"),
            }
        }
        records.sort_by(|a, b| a.volume.cmp(&b.volume));
        Ok(records)
    }

    pub(super) fn read(&self, place: &str, volume: &Name) -> Result<Option<Record>, DiskError> {
        read(&self.place(place)?, &file(volume)?)
    }

    /// Writes a volume's record; `lasting` waits until it would survive a power failure.
    pub(super) fn write(&self, record: &Record, lasting: bool) -> Result<(), DiskError> {
        let dir = self.place(VOLUMES)?;
        let name = file(&record.volume)?;
        let new = format!("{name}{NEW}");
        let doing = || format!("writing {}/{name}", dir.path().display());
        let io = |error: std::io::Error| DiskError::Io {
            doing: doing(),
            error,
        };
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir, &*new, flags, Mode::RUSR | Mode::WUSR)
            .map_err(DiskError::io(doing()))?;
        let mut file = File::from(fd);
        let text = serde_json::to_vec_pretty(record).map_err(|e| io(e.into()))?;
        file.write_all(&text).map_err(io)?;
        if lasting {
            file.sync_all().map_err(io)?;
        }
        rustix::fs::renameat(&dir, &*new, &dir, &*name).map_err(DiskError::io(doing()))?;
        if lasting {
            sync(&dir)?;
        }
        Ok(())
    }

    /// Removes the record of a volume of which nothing is left.
    pub(super) fn forget(&self, volume: &Name) -> Result<(), DiskError> {
        let dir = self.place(VOLUMES)?;
        let name = file(volume)?;
        match rustix::fs::unlinkat(&dir, &*name, AtFlags::empty()) {
            Ok(()) => sync(&dir),
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(DiskError::io(format!(
                "removing {}/{name}",
                dir.path().display()
            ))(e)),
        }
    }

    /// Notes that a volume is gone and its data stays.
    pub(super) fn retain(&self, volume: &Name) -> Result<(), DiskError> {
        self.shift(volume, &self.place(RETAINED)?, &file(volume)?)
    }

    /// Moves a volume's record; one that is gone was moved before.
    pub(super) fn shift(&self, volume: &Name, to: &Dir, as_name: &str) -> Result<(), DiskError> {
        let from = self.place(VOLUMES)?;
        let name = file(volume)?;
        match rustix::fs::renameat(&from, &*name, to, as_name) {
            Ok(()) => {
                sync(to)?;
                sync(&from)
            }
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(DiskError::io(format!(
                "moving {}/{name}",
                from.path().display()
            ))(e)),
        }
    }
}

fn file(volume: &Name) -> Result<String, DiskError> {
    let name = format!("{volume}{END}");
    Component::new(&name)?;
    Ok(name)
}

pub(super) fn read(dir: &Dir, name: &str) -> Result<Option<Record>, DiskError> {
    let path = || format!("{}/{name}", dir.path().display());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(DiskError::Unreadable(path(), e.to_string())),
    };
    let mut text = Vec::new();
    File::from(fd)
        .take(MOST)
        .read_to_end(&mut text)
        .map_err(|e| DiskError::Unreadable(path(), e.to_string()))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| DiskError::Unreadable(path(), e.to_string()))
}
