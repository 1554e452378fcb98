//! The records beside the volumes: one file each, replaced as a whole.

use std::fs::File;
use std::io::{Read as _, Write as _};

use bitts_api::Name;
use bitts_mount::dir::{Component, Dir};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::DiskError;
use crate::pattern::OWN;
use crate::task::Record;

pub(super) const VOLUMES: &str = "volumes";
pub(super) const RETAINED: &str = "retained";
pub(super) const TRASH: &str = "trash";
pub(super) const LEAVING: &str = "leaving";
pub(super) const RESTORING: &str = "restoring";
pub(super) const COPYING: &str = "copying";
const END: &str = ".json";
const NEW: &str = ".new";
/// After how many seconds nobody writes a record any more: more than clocks and servers may differ.
const UNFINISHED: i64 = 3_600;
/// More than any record has.
const MOST: u64 = 64 * 1024;

/// A volume's name, and its record if anybody can read it.
type Readable = (Name, Result<Record, DiskError>);

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
        let mut records = Vec::new();
        for (_, record) in self.each(place)? {
            match record {
                Ok(record) => records.push(record),
                Err(error) => tracing::error!(%error, "left out"),
            }
        }
        Ok(records)
    }

    /// The records of a place by the name of their volume, and those that nobody can read.
    pub(super) fn each(&self, place: &str) -> Result<Vec<Readable>, DiskError> {
        let dir = self.place(place)?;
        let mut all = Vec::new();
        for name in dir.names()? {
            let Some(volume) = name.as_str().strip_suffix(END) else {
                continue;
            };
            let volume = Name::from(volume);
            match read(&dir, name.as_str()) {
                Ok(Some(record)) if record.volume == volume => all.push((volume, Ok(record))),
                Ok(Some(record)) => {
                    let path = format!("{}/{name}", dir.path().display());
                    let why = format!("it is the record of {}", record.volume);
                    all.push((volume, Err(DiskError::Unreadable(path, why))));
                }
                // It went meanwhile.
                Ok(None) => {}
                Err(error) => all.push((volume, Err(error))),
            }
        }
        Ok(all)
    }

    /// When a record came to a place, or went.
    pub(super) fn changed(&self, place: &str) -> Result<(i64, u64), DiskError> {
        let dir = self.place(place)?;
        let doing = || format!("looking at {}", dir.path().display());
        let stat = rustix::fs::fstat(&dir).map_err(DiskError::io(doing()))?;
        Ok((stat.st_mtime, stat.st_mtime_nsec))
    }

    /// When the record of a volume was written.
    pub(super) fn written(&self, place: &str, volume: &Name) -> Result<Option<i64>, DiskError> {
        modified(&self.place(place)?, &file(volume)?)
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
            dir.sync()?;
        }
        Ok(())
    }

    /// Removes what processes left that died while they wrote a record, once nobody can be writing it.
    pub(super) fn clear_unfinished(&self, now: i64) -> Result<(), DiskError> {
        let dir = self.place(VOLUMES)?;
        for name in dir.names()? {
            let unfinished = name.as_str().ends_with(&format!("{END}{NEW}"));
            let written = modified(&dir, name.as_str())?;
            if unfinished && written.is_some_and(|at| now.saturating_sub(at) > UNFINISHED) {
                dir.delete_file(&name)?;
            }
        }
        Ok(())
    }

    /// Removes the record of a volume of which nothing is left.
    pub(super) fn forget(&self, volume: &Name) -> Result<(), DiskError> {
        let dir = self.place(VOLUMES)?;
        let name = file(volume)?;
        match rustix::fs::unlinkat(&dir, &*name, AtFlags::empty()) {
            Ok(()) => Ok(dir.sync()?),
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

    /// The same for a record that was in the trash.
    pub(super) fn retain_again(
        &self,
        volume: &Name,
        entry: &Dir,
        as_name: &str,
    ) -> Result<(), DiskError> {
        let to = self.place(RETAINED)?;
        rustix::fs::renameat(entry, as_name, &to, &*file(volume)?).map_err(DiskError::io(
            format!("moving {}/{as_name}", entry.path().display()),
        ))?;
        to.sync()?;
        Ok(entry.sync()?)
    }

    /// Moves a volume's record; one that is gone was moved before.
    pub(super) fn shift(&self, volume: &Name, to: &Dir, as_name: &str) -> Result<(), DiskError> {
        let from = self.place(VOLUMES)?;
        let name = file(volume)?;
        match rustix::fs::renameat(&from, &*name, to, as_name) {
            Ok(()) => {
                to.sync()?;
                Ok(from.sync()?)
            }
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(DiskError::io(format!(
                "moving {}/{name}",
                from.path().display()
            ))(e)),
        }
    }
}

/// When what has the name changed last, in seconds since 1970; none where nothing has it.
pub(super) fn modified(dir: &Dir, name: &str) -> Result<Option<i64>, DiskError> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.st_mtime)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(DiskError::io(format!(
            "looking at {}/{name}",
            dir.path().display()
        ))(e)),
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
