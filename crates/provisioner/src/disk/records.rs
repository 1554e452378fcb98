//! The records beside the volumes: one file each.
//!
//! Where a record lies says how far its volume is: in `begun` until the API is known to have it, then in
//! `volumes`. It comes to `begun` before anything else of the volume is made, as a link that leads nowhere and
//! whose text is the record: a claim waits for it, and to make a link is one call to a server where a file takes
//! three. Where a link cannot be it is a file: one that is torn is of a volume of which there is nothing, and
//! counts as none. Anywhere else a record is replaced as a whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};

use bitts_api::Name;
use bitts_mount::dir::{Component, Dir};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::DiskError;
use crate::pattern::OWN;
use crate::task::Record;

pub(super) const VOLUMES: &str = "volumes";
pub(super) const BEGUN: &str = "begun";
pub(super) const RETAINED: &str = "retained";
pub(super) const TRASH: &str = "trash";
pub(super) const LEAVING: &str = "leaving";
pub(super) const RESTORING: &str = "restoring";
pub(super) const COPYING: &str = "copying";
const END: &str = ".json";
const NEW: &str = ".new";
/// After how many seconds nobody writes a record any more: more than clocks and servers may differ.
const UNFINISHED: i64 = 3_600;
/// How often it is looked again at what another process changes meanwhile.
const TRIES: usize = 3;
/// More than any record has.
const MOST: u64 = 64 * 1024;

/// A volume's name, and its record if anybody can read it.
pub(super) type Readable = (Name, Result<Record, DiskError>);

/// bitts' own directory at a root, and those of it that are needed each time.
#[derive(Clone, Debug)]
pub(super) struct Records {
    own: Dir,
    begun: Dir,
    volumes: Dir,
}

impl Records {
    pub(super) fn open(root: &Dir) -> Result<Self, DiskError> {
        let own = root.make_child(&Component::new(OWN)?)?;
        let begun = own.make_child(&Component::new(BEGUN)?)?;
        let volumes = own.make_child(&Component::new(VOLUMES)?)?;
        Ok(Self {
            own,
            begun,
            volumes,
        })
    }

    /// Whether they are where they were opened: a directory that was removed stays open, of no use.
    pub(super) fn probe(&self) -> Result<(), DiskError> {
        for dir in [&self.begun, &self.volumes] {
            let path = || dir.path().display().to_string();
            let stat = rustix::fs::fstat(dir).map_err(DiskError::io(path()))?;
            if stat.st_nlink == 0 {
                return Err(DiskError::io(path())(Errno::STALE));
            }
        }
        Ok(())
    }

    pub(super) fn place(&self, place: &str) -> Result<Dir, DiskError> {
        Ok(self.own.make_child(&Component::new(place)?)?)
    }

    /// The record of a volume.
    pub(super) fn find(&self, volume: &Name) -> Result<Option<Record>, DiskError> {
        let name = file(volume)?;
        // In this order: it may move on meanwhile, and never comes back.
        match read_begun(&self.begun, &name)? {
            Some(record) => Ok(Some(record)),
            None => read(&self.volumes, &name),
        }
    }

    /// The records of all volumes, with the place where each lies, and those that nobody can read.
    pub(super) fn each_volume(&self) -> Result<Vec<(&'static str, Readable)>, DiskError> {
        // In this order, as in `find`; what moved on meanwhile is there twice.
        let begun = each(&self.begun, read_begun)?;
        let volumes = each(&self.volumes, read)?;
        let moved: BTreeSet<Name> = volumes.iter().map(|(name, _)| name.clone()).collect();
        let begun = begun.into_iter().filter(|(name, _)| !moved.contains(name));
        let begun = begun.map(|one| (BEGUN, one));
        Ok(begun
            .chain(volumes.into_iter().map(|one| (VOLUMES, one)))
            .collect())
    }

    /// The records of all volumes.
    pub(super) fn all_volumes(&self) -> Result<Vec<Record>, DiskError> {
        let all = self.each_volume()?.into_iter().map(|(_, one)| one);
        Ok(readable(all))
    }

    /// The records of a place.
    pub(super) fn all(&self, place: &str) -> Result<Vec<Record>, DiskError> {
        Ok(readable(self.each(place)?))
    }

    /// The records of a place by the name of their volume, and those that nobody can read.
    pub(super) fn each(&self, place: &str) -> Result<Vec<Readable>, DiskError> {
        each(&self.place(place)?, read)
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

    /// Writes the record of a volume of which there is nothing yet, where it has none; returns the one that it
    /// has then. It is a link whose text it is, and which is never followed: that takes one call, of which
    /// nothing is left half done.
    pub(super) fn begin(&self, record: &Record) -> Result<Record, DiskError> {
        let name = file(&record.volume)?;
        let io = |error| DiskError::Io {
            doing: format!("writing {}/{name}", self.begun.path().display()),
            error,
        };
        let text = serde_json::to_string(&as_known(record)).map_err(|e| io(e.into()))?;
        for _ in 0..TRIES {
            match rustix::fs::symlinkat(&*text, &self.begun, &*name) {
                Ok(()) => {
                    self.begun.sync()?;
                    return Ok(record.clone());
                }
                Err(Errno::EXIST) => {}
                // XFS takes 1,024 bytes, others 4,095, and some servers have no links, each with an error
                // of its own: whether the file can be is told then.
                Err(_) => break,
            }
            if let Some(known) = read_begun(&self.begun, &name)? {
                return Ok(known);
            }
            match linked(&self.begun, &name)? {
                // A power failure can leave one without its text.
                Linked::Text(_) => remove(&self.begun, &name)?,
                Linked::Nothing => {}
                Linked::NoLink => break,
            }
        }
        self.begin_file(record, &name)
    }

    /// The same where it cannot be a link, or where a torn file is in its way.
    fn begin_file(&self, record: &Record, name: &str) -> Result<Record, DiskError> {
        let io = |error| DiskError::Io {
            doing: format!("writing {}/{name}", self.begun.path().display()),
            error,
        };
        // Not exclusively, which would cost a server one more call: an empty file is a torn record.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let new =
            rustix::fs::openat(&self.begun, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| {
                match e {
                    Errno::LOOP | Errno::ISDIR | Errno::NXIO => unreadable(&self.begun, name, e),
                    e => io(e.into()),
                }
            })?;
        let stat = rustix::fs::fstat(&new).map_err(|e| io(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(unreadable(&self.begun, name, "it is no file"));
        }
        if stat.st_size != 0 {
            if let Some(known) = read_begun(&self.begun, name)? {
                return Ok(known);
            }
            self.write(record)?;
        } else if let Err(error) = fill(File::from(new), record) {
            // What stays is torn: nothing depends on this.
            let _ = rustix::fs::unlinkat(&self.begun, name, AtFlags::empty());
            return Err(io(error));
        } else {
            self.begun.sync()?;
        }
        Ok(record.clone())
    }

    /// Writes a volume's record in the place of the one that it has, and waits until it would survive a power
    /// failure.
    pub(super) fn write(&self, record: &Record) -> Result<(), DiskError> {
        let dir = if record.confirmed {
            &self.volumes
        } else {
            &self.begun
        };
        let name = file(&record.volume)?;
        let new = format!("{name}{NEW}");
        let doing = || format!("writing {}/{name}", dir.path().display());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, &*new, flags, Mode::RUSR | Mode::WUSR)
            .map_err(DiskError::io(doing()))?;
        fill(File::from(fd), record).map_err(|error| DiskError::Io {
            doing: doing(),
            error,
        })?;
        rustix::fs::renameat(dir, &*new, dir, &*name).map_err(DiskError::io(doing()))?;
        Ok(dir.sync()?)
    }

    /// Notes that the API has a volume; whether it had a record that did not say so. Where that is lost, it is
    /// noted again.
    pub(super) fn confirm(&self, volume: &Name) -> Result<bool, DiskError> {
        let name = file(volume)?;
        // One process succeeds. Should it die then, what lies there is a link, and read all the same.
        match rustix::fs::renameat(&self.begun, &*name, &self.volumes, &*name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => {
                let doing = format!("moving {}/{name}", self.begun.path().display());
                return Err(DiskError::io(doing)(e));
            }
        }
        if let Linked::Text(text) = linked(&self.volumes, &name)? {
            let record = serde_json::from_slice(&text);
            let record = record.map_err(|e| unreadable(&self.volumes, &name, e));
            // As where the disk is full.
            if let Err(error) = record.and_then(|record| self.write(&record)) {
                tracing::warn!(%volume, %error, "its record stays a link");
            }
        }
        Ok(true)
    }

    /// Removes what processes left that died while they wrote a record, once nobody can be writing it.
    pub(super) fn clear_unfinished(&self, now: i64) -> Result<(), DiskError> {
        let new = format!("{END}{NEW}");
        for dir in [&self.begun, &self.volumes] {
            for name in dir.names()? {
                let is_new = name.as_str().ends_with(&new);
                if !is_new && std::ptr::eq(dir, &self.volumes) {
                    continue; // replaced as a whole
                }
                let written = modified(dir, name.as_str())?;
                let is_left = written.is_some_and(|at| now.saturating_sub(at) > UNFINISHED);
                // One that nobody can read is for somebody to look at.
                if is_left && (is_new || matches!(read_begun(dir, name.as_str()), Ok(None))) {
                    dir.delete_file(&name)?;
                }
            }
        }
        Ok(())
    }

    /// Removes the record of a volume of which nothing is left. An earlier version may have left it in both
    /// places.
    pub(super) fn forget(&self, volume: &Name) -> Result<(), DiskError> {
        let name = file(volume)?;
        remove(&self.volumes, &name)?;
        remove(&self.begun, &name)
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

    /// Moves a volume's record; one that is gone was moved before. Of two, as in [`Self::find`], the first.
    pub(super) fn shift(&self, volume: &Name, to: &Dir, as_name: &str) -> Result<(), DiskError> {
        let name = file(volume)?;
        for from in [&self.begun, &self.volumes] {
            match rustix::fs::renameat(from, &*name, to, as_name) {
                Ok(()) => {
                    to.sync()?;
                    from.sync()?;
                    return match std::ptr::eq(from, &self.begun) {
                        true => remove(&self.volumes, &name),
                        false => Ok(()),
                    };
                }
                Err(Errno::NOENT) => {}
                Err(e) => {
                    let doing = format!("moving {}/{name}", from.path().display());
                    return Err(DiskError::io(doing)(e));
                }
            }
        }
        Ok(())
    }
}

/// As it is written: that it is yet to be confirmed is told by its place.
fn as_known(record: &Record) -> Record {
    Record {
        confirmed: true,
        ..record.clone()
    }
}

fn readable(all: impl IntoIterator<Item = Readable>) -> Vec<Record> {
    let mut records = Vec::new();
    for (_, record) in all {
        match record {
            Ok(record) => records.push(record),
            Err(error) => tracing::error!(%error, "left out"),
        }
    }
    records
}

type Read = fn(&Dir, &str) -> Result<Option<Record>, DiskError>;

fn each(dir: &Dir, read: Read) -> Result<Vec<Readable>, DiskError> {
    let mut all = Vec::new();
    for name in dir.names()? {
        let Some(volume) = name.as_str().strip_suffix(END) else {
            continue;
        };
        let volume = Name::from(volume);
        match read(dir, name.as_str()) {
            Ok(Some(record)) if record.volume == volume => all.push((volume, Ok(record))),
            Ok(Some(record)) => {
                let path = format!("{}/{name}", dir.path().display());
                let why = format!("it is the record of {}", record.volume);
                all.push((volume, Err(DiskError::Unreadable(path, why))));
            }
            // It went meanwhile, or never was whole.
            Ok(None) => {}
            Err(error) => all.push((volume, Err(error))),
        }
    }
    Ok(all)
}

fn fill(mut file: File, record: &Record) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(&as_known(record))?;
    file.write_all(&text)?;
    file.sync_all()
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

/// Reads the record of a volume that the API is not known to have; one that is torn counts as none.
fn read_begun(dir: &Dir, name: &str) -> Result<Option<Record>, DiskError> {
    let record = text(dir, name)?.and_then(|text| match serde_json::from_slice(&text) {
        Ok(record) => Some(Ok(Record {
            confirmed: false,
            ..record
        })),
        // A power failure can leave its length and none of its bytes.
        Err(e) if e.is_eof() || text.iter().all(|byte| *byte == 0) => None,
        Err(e) => Some(Err(unreadable(dir, name, e))),
    });
    record.transpose()
}

pub(super) fn read(dir: &Dir, name: &str) -> Result<Option<Record>, DiskError> {
    let text = text(dir, name)?;
    text.map(|text| serde_json::from_slice(&text))
        .transpose()
        .map_err(|e| unreadable(dir, name, e))
}

fn text(dir: &Dir, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => {
                let mut text = Vec::new();
                let read = File::from(fd).take(MOST).read_to_end(&mut text);
                return match read {
                    Ok(_) => Ok(Some(text)),
                    Err(e) => Err(unreadable(dir, name, e)),
                };
            }
            Err(Errno::NOENT) => return Ok(None),
            // It leads nowhere: its text is the record, and is never followed.
            Err(Errno::LOOP) => match linked(dir, name)? {
                Linked::Text(text) => return Ok(Some(text)),
                Linked::Nothing => return Ok(None),
                Linked::NoLink => {} // a file took its place meanwhile
            },
            Err(e) => return Err(unreadable(dir, name, e)),
        }
    }
    Err(unreadable(dir, name, "it changes all the time"))
}

/// What a link says.
enum Linked {
    Text(Vec<u8>),
    /// Nothing has the name,
    Nothing,
    /// or something else.
    NoLink,
}

fn linked(dir: &Dir, name: &str) -> Result<Linked, DiskError> {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(text) => Ok(Linked::Text(text.into_bytes())),
        Err(Errno::NOENT) => Ok(Linked::Nothing),
        Err(Errno::INVAL) => Ok(Linked::NoLink),
        Err(e) => Err(unreadable(dir, name, e)),
    }
}

/// Removes a record, if there is one.
fn remove(dir: &Dir, name: &str) -> Result<(), DiskError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => Ok(dir.sync()?),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => {
            let doing = format!("removing {}/{name}", dir.path().display());
            Err(DiskError::io(doing)(e))
        }
    }
}

fn unreadable(dir: &Dir, name: &str, why: impl ToString) -> DiskError {
    let path = format!("{}/{name}", dir.path().display());
    DiskError::Unreadable(path, why.to_string())
}
