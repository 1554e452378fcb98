//! Volumes as directories below a root: made, undone, taken away.
//!
//! Everything that is bitts' own lies in `.bitts` at the root, where no pod sees it:
//!
//! | what | where |
//! | --- | --- |
//! | the record of each volume | `.bitts/volumes/NAME.json` |
//! | the same until the API is known to have the volume | `.bitts/begun/NAME.json`, a link whose text it is |
//! | that of a volume that is gone and whose data stays in its place | `.bitts/retained/NAME.json` |
//! | the data and the record of one that was moved aside | `.bitts/trash/NAME/{data,record.json}` |
//! | the same while it is swept away, or put back | `.bitts/leaving/NAME`, `.bitts/restoring/NAME` |
//! | what is copied for one that begins as a copy | `.bitts/copying/NAME/data` |
//!
//! Each step is one rename or one directory, made durable before the next. What a death leaves, and
//! what the next process makes of it:
//!
//! | died after | there is | next |
//! | --- | --- | --- |
//! | writing part of the record, where it is a file | as good as nothing | the record is written |
//! | writing the record | the record | the directory is made, or the record goes if no claim wants it |
//! | making the directory | both | the volume's object is made, or both go if no claim wants them |
//! | making the object | both, and the object | the record moves to `volumes`: it is confirmed |
//! | moving it | a link in `volumes` | it is read all the same |
//! | moving the data | the record, the data in the trash | the record follows |
//! | moving the record | all in the trash | the volume's object goes; the data is swept away |
//! | putting the data back | the record in `restoring`, the data in its place | `bitts trash restore` again |
//! | copying in part | the record, and part of the data in `copying` | it is copied anew |
//! | copying all of it | the record, which says that it is whole, the data in `copying` | the data is moved into its place |
//!
//! Only an empty directory is removed where the record is not confirmed: nobody can have used it. A copy
//! that is not confirmed is moved to the trash, for a day.

mod census;
mod copies;
mod keeping;
mod records;
mod size;
mod trash;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bitts_api::{Name, Uid};
use bitts_mount::SystemError;
use bitts_mount::dir::{Component, Dir, NameError, Removal};
use bitts_mount::quota::QuotaError;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid as Owner};

use crate::class::{Access, OnDelete};
use crate::pattern::Subpath;
use crate::task::Record;
pub use census::{Census, Found, Stray};
use copies::Copies;
use records::Records;
use size::{Entry, Index};
pub use trash::{Fate, Trashed};

/// A file of this name in a volume's directory: its data is not taken away.
pub const PROTECTED: &str = ".bitts-protected";

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The disk has less free space than the claim asks for.
    #[error("{root} has {free} bytes free for new volumes, and {asked} are asked for")]
    Full {
        /// Which.
        root: String,
        /// How many there are.
        free: u64,
        /// How many are asked for.
        asked: i64,
    },
    /// Somebody else's directory.
    #[error(
        "{0} is there already and no record says that bitts made it: remove it, or choose another \
         pathPattern"
    )]
    Taken(String),
    /// It would lie within another volume, or another one within it.
    #[error("the directory {path} would overlap that of volume {other}")]
    Overlaps {
        /// Where it would lie.
        path: Subpath,
        /// Whose directory is there.
        other: Name,
    },
    /// The record says another claim.
    #[error(
        "its record names claim {recorded}, not {asked}: nothing was touched; see \
         .bitts/volumes at {root}"
    )]
    Foreign {
        /// Which root.
        root: String,
        /// What the record says.
        recorded: Uid,
        /// What was asked for.
        asked: Uid,
    },
    /// The API says another path than the record.
    #[error("its record says {recorded}, not {asked}: nothing was touched")]
    Elsewhere {
        /// What the record says.
        recorded: String,
        /// What was asked for.
        asked: String,
    },
    /// There is data and no record.
    #[error("{0} has no record that says for whom it was made: nothing was touched")]
    NoRecord(String),
    /// A record that nobody can read.
    #[error("the record {0} cannot be read: {1}")]
    Unreadable(String, String),
    /// The user wants it to stay.
    #[error("{0} holds a file {PROTECTED}: remove that file to have the data deleted")]
    Protected(String),
    /// There is something in it.
    #[error("{0} was never a volume, but is not empty: look at it, and remove it by hand")]
    NotEmpty(String),
    /// The API had it.
    #[error("{0} was a volume: its data stays")]
    Used(String),
    /// The file system does not hold a volume to its size.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// Each number of a project is taken.
    #[error("there is no project left that nothing on the disk has")]
    NoProject,
    /// Something is mounted there.
    #[error("something is mounted at {0}: unmount it first")]
    Mounted(String),
    /// The trash has no such entry.
    #[error("there is no {0} in the trash: `bitts trash list` shows what there is")]
    NotTrashed(Name),
    /// What is to be copied is not there.
    #[error("{0}, which it is to be a copy of, is not here any more")]
    NoSource(Name),
    /// A copy did not come to be.
    #[error("copying {0}: {1}")]
    NotCopied(Name, String),
    /// The copy of a volume is being made.
    #[error("it is being copied to {0}: it goes when that is done")]
    BeingCopied(Name),
    /// A copy is not wanted any more.
    #[error("the copy that was being made for {0} is stopped")]
    Stopping(Name),
    /// There is nothing to take over.
    #[error("{0} is no directory here: nothing was recorded")]
    NoDirectory(String),
    /// It is on its way into the trash.
    #[error("{0} is on its way into the trash: try again once its PersistentVolume is gone")]
    Unfinished(Name),
    /// The trash has the record of a volume that had no directory.
    #[error("the trash has no data of {0}, only its record")]
    NoData(Name),
    /// A name that leads elsewhere.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The kernel refused.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The kernel refused.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        error: io::Error,
    },
}

impl DiskError {
    /// Whether another node may have what this one lacks.
    #[must_use]
    pub fn is_of_this_node(&self) -> bool {
        use QuotaError::{Ext4, None, Xfs};
        matches!(
            self,
            Self::Full { .. } | Self::Quota(Ext4 { .. } | Xfs(_) | None(_))
        )
    }

    fn io(doing: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io {
            doing: doing.into(),
            error: errno.into(),
        }
    }
}

/// How far the making of a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is there, at this path.
    Whole(PathBuf),
    /// It is to be a copy: [`Disk::copy_all`] makes those.
    Copying {
        /// How many bytes are copied.
        bytes: u64,
        /// Of how many; 0 before that is known.
        total: u64,
    },
}

impl Made {
    /// Where it is, if it is there.
    #[must_use]
    pub fn whole(self) -> Option<PathBuf> {
        match self {
            Self::Whole(path) => Some(path),
            Self::Copying { .. } => None,
        }
    }
}

/// A directory whose subdirectories are volumes.
#[derive(Debug)]
pub struct Disk {
    root: Root,
    /// Where volumes lie, so that none comes to lie within another, and what they were promised.
    index: Mutex<Index>,
    copies: Copies,
    /// When the directory of retained records changed, as far as it was read: another process may put
    /// one there (`bitts trash restore`).
    seen: Mutex<Option<(i64, u64)>>,
}

/// The directory that volumes lie in.
#[derive(Debug)]
enum Root {
    /// Whatever has this path at the time: nothing is kept from being unmounted.
    At(PathBuf),
    /// This one, which nobody else can see, and on which nothing promises a claim its size; with bitts' own
    /// directories in it, which a server need not be asked for each time.
    Open(Dir, Records),
}

impl Disk {
    /// Opens a root, and reads what is on it. It must exist.
    ///
    /// # Errors
    /// When it is no directory, or cannot be written to.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        Self::with(Root::At(root.to_owned()))
    }

    /// Reads what is in an open directory, of which no claim is denied for its size: it is a server's,
    /// and what is free there is for its administrator to say.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn within(root: Dir) -> Result<Self, DiskError> {
        let records = Records::open(&root)?;
        Self::with(Root::Open(root, records))
    }

    fn with(root: Root) -> Result<Self, DiskError> {
        let disk = Self {
            root,
            index: Mutex::default(),
            copies: Copies::default(),
            seen: Mutex::default(),
        };
        disk.scan()?;
        Ok(disk)
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        match &self.root {
            Root::At(path) => path,
            Root::Open(dir, _) => dir.path(),
        }
    }

    /// Whether it can be reached.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn probe(&self) -> Result<(), DiskError> {
        let (root, records) = self.opened()?;
        rustix::fs::fstatvfs(root).map_err(DiskError::io(self.name()))?;
        records.probe()
    }

    /// All records of volumes. One that cannot be read is left out: it keeps its volume from being
    /// made or taken away, and no other.
    ///
    /// # Errors
    /// When the directory of records cannot be read.
    pub fn scan(&self) -> Result<Vec<Record>, DiskError> {
        let (root, own) = self.opened()?;
        let volumes = own.all_volumes()?;
        let retained = own.all(records::RETAINED)?;
        Self::hold_all(&root, &volumes);
        let here = volumes.iter().map(|r| (r.path.clone(), Entry::of(r)));
        let stays = retained.iter();
        let stays = stays.map(|r| (r.path.clone(), Entry::of_retained(r)));
        *self.lock() = stays.chain(here).collect();
        Ok(volumes)
    }

    /// The record of a volume.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn find(&self, volume: &Name) -> Result<Option<Record>, DiskError> {
        self.opened()?.1.find(volume)
    }

    /// Makes a volume's directory. What the record on the disk says goes before what is asked for: an
    /// earlier process may have begun.
    ///
    /// # Errors
    /// When it cannot be made; what came to be before that is undone by [`Self::discard`].
    pub fn make(&self, asked: &Record) -> Result<Made, DiskError> {
        let (root, records) = self.opened()?;
        self.learn_retained(&records, &asked.path)?;
        let known = match self.may_know(&asked.volume) {
            true => records.find(&asked.volume)?,
            false => None,
        };
        let record = match known {
            Some(known) => {
                self.same(&known, &asked.claim.uid)?;
                self.reserve(&mut self.lock(), &known)?;
                known
            }
            None => self.begin(&root, &records, asked)?,
        };
        if let Some(of) = &record.copy_of {
            return self.make_copy(&root, &records, &record, of);
        }
        let path = self.path(&record.path);
        let (parent, last) = self.parent(&root, &record.path, true)?;
        let new = match rustix::fs::mkdirat(&parent, last.as_str(), born_with(record.access)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(e) => return Err(DiskError::io(format!("making {}", path.display()))(e)),
        };
        let dir = parent
            .child(&last)?
            .ok_or_else(|| DiskError::io(path.display().to_string())(rustix::io::Errno::NOENT))?;
        if !record.confirmed {
            if !new && !is_empty(&dir)? {
                return Err(DiskError::Taken(path.display().to_string()));
            }
            give(&dir, record.access)?;
        }
        Self::hold(&root, &dir, &record)?;
        parent.sync()?;
        Ok(Made::Whole(path))
    }

    /// Writes the record of a volume whose directory is not there yet.
    fn begin(&self, root: &Dir, records: &Records, asked: &Record) -> Result<Record, DiskError> {
        let record = {
            let mut index = self.lock();
            self.has_room(root, &index, asked.bytes)?;
            let record = Self::with_project(root, &index, asked)?;
            self.reserve(&mut index, &record)?;
            record
        };
        let begun = self.write_first(root, records, &record);
        if begun.as_ref().is_ok_and(|begun| *begun == record) {
            return begun;
        }
        self.lock().remove(&record.path);
        // Another process began it.
        let known = begun?;
        self.same(&known, &asked.claim.uid)?;
        self.reserve(&mut self.lock(), &known)?;
        Ok(known)
    }

    /// Returns the record that the volume has then.
    fn write_first(
        &self,
        root: &Dir,
        records: &Records,
        record: &Record,
    ) -> Result<Record, DiskError> {
        if let Ok((parent, last)) = self.parent(root, &record.path, false)
            && is_there(&parent, &last)?
        {
            let path = self.path(&record.path);
            let known = records.find(&record.volume)?;
            return known.ok_or_else(|| DiskError::Taken(path.display().to_string()));
        }
        records.begin(record)
    }

    /// Whether a volume may have a record, but one that another process began meanwhile.
    fn may_know(&self, volume: &Name) -> bool {
        match self.root {
            // Another disk may be mounted there since it was read.
            Root::At(_) => true,
            Root::Open(..) => self.lock().values().any(|entry| entry.volume == *volume),
        }
    }

    /// Notes that the API has the volume. Where that is lost, it is noted again.
    ///
    /// # Errors
    /// When the record names another claim, or cannot be written.
    pub fn confirm(&self, volume: &Name, uid: &Uid) -> Result<(), DiskError> {
        let (_, records) = self.opened()?;
        let of_volume = |entry: &&Entry| entry.volume == *volume;
        let owner = self
            .lock()
            .values()
            .find(of_volume)
            .map(|e| e.owner.clone());
        let owner = match owner {
            Some(owner) => owner,
            None => match records.find(volume)? {
                Some(record) => record.claim.uid,
                None => return Ok(()),
            },
        };
        self.is_of(&owner, uid)?;
        if records.confirm(volume)? {
            return Ok(());
        }
        match records.find(volume)? {
            // Written where it lies, as records once were.
            Some(record) if !record.confirmed => records.write(&Record {
                confirmed: true,
                ..record
            }),
            _ => Ok(()),
        }
    }

    /// Undoes the making of a volume that the API never had.
    ///
    /// # Errors
    /// When the API may have had it, or there is something in it: then it stays.
    pub fn discard(&self, volume: &Name, uid: &Uid) -> Result<(), DiskError> {
        let (root, records) = self.opened()?;
        let Some(record) = records.find(volume)? else {
            return Ok(());
        };
        self.same(&record, uid)?;
        let path = self.path(&record.path).display().to_string();
        if record.confirmed {
            return Err(DiskError::Used(path));
        }
        if let Some(of) = &record.copy_of {
            return self.discard_copy(&root, &records, &record, of);
        }
        if let Some((parent, last)) = self.existing(&root, &record.path)? {
            match parent.remove(&last)? {
                Removal::Removed | Removal::Absent => parent.sync()?,
                Removal::NotEmpty => return Err(DiskError::NotEmpty(path)),
                Removal::MountPoint => return Err(DiskError::Mounted(path)),
            }
        }
        Self::lift(&root, &record)?;
        records.forget(volume)?;
        self.released(&root, &record.path);
        Ok(())
    }

    /// Does to a volume's data what its record says. What goes is in the trash then: [`Self::sweep`]
    /// takes its time.
    ///
    /// # Errors
    /// When the record does not say that this is the volume, or the user wants the data to stay.
    pub fn remove(&self, volume: &Name, uid: &Uid, path: &Path) -> Result<(), DiskError> {
        let (root, records) = self.opened()?;
        let Some(record) = records.find(volume)? else {
            // Done before, or never here.
            if self.has(&root, path)? {
                let retained = records.read(records::RETAINED, volume)?;
                let known = retained.filter(|r| r.claim.uid == *uid);
                return known
                    .map(drop)
                    .ok_or_else(|| DiskError::NoRecord(path.display().to_string()));
            }
            return Ok(());
        };
        self.same(&record, uid)?;
        let copy_of_it = |entry: &&Entry| entry.copies.as_ref() == Some(volume);
        if let Some(copy) = self.lock().values().find(copy_of_it) {
            return Err(DiskError::BeingCopied(copy.volume.clone()));
        }
        let recorded = self.path(&record.path);
        if recorded != path {
            return Err(DiskError::Elsewhere {
                recorded: recorded.display().to_string(),
                asked: path.display().to_string(),
            });
        }
        if let Some((parent, last)) = self.existing(&root, &record.path)?
            && let Some(dir) = parent.child(&last)?
        {
            if is_there(&dir, &Component::new(PROTECTED)?)? {
                return Err(DiskError::Protected(recorded.display().to_string()));
            }
            if parent.is_mount_point(&last)? {
                return Err(DiskError::Mounted(recorded.display().to_string()));
            }
            if record.on_delete != OnDelete::Retain {
                trash::take_data(&records, volume, &parent, &last)?;
            }
        }
        Self::lift(&root, &record)?;
        match record.on_delete {
            OnDelete::Retain => {
                records.retain(volume)?;
                let stays = Entry::of_retained(&record);
                self.lock().insert(record.path.clone(), stays);
            }
            OnDelete::Delete | OnDelete::Trash => {
                trash::take_record(&records, volume)?;
                self.released(&root, &record.path);
            }
        }
        Ok(())
    }

    /// Volumes whose data is to be swept away: nobody wants to keep it, or not any more at this time.
    ///
    /// # Errors
    /// When the trash cannot be read.
    pub fn to_sweep(&self, now: SystemTime) -> Result<Vec<Name>, DiskError> {
        let records = self.opened()?.1;
        records.clear_unfinished(seconds(now))?;
        trash::doomed(&records, seconds(now))
    }

    /// Sweeps away the data of such a volume. `sweeper` removes a directory with all that is in it.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn sweep<E: std::fmt::Display>(
        &self,
        volume: &Name,
        sweeper: impl FnOnce(&Dir, &Component) -> Result<(), E>,
    ) -> Result<(), DiskError> {
        trash::sweep(&self.opened()?.1, volume, sweeper)
    }

    fn top(&self) -> Result<Dir, DiskError> {
        Ok(match &self.root {
            Root::At(path) => Dir::open(path)?,
            Root::Open(dir, _) => dir.clone(),
        })
    }

    /// The root, and bitts' own directories in it.
    fn opened(&self) -> Result<(Dir, Records), DiskError> {
        let root = self.top()?;
        let records = match &self.root {
            Root::At(_) => Records::open(&root)?,
            Root::Open(_, records) => records.clone(),
        };
        Ok((root, records))
    }

    fn name(&self) -> String {
        self.root().display().to_string()
    }

    fn path(&self, below: &Subpath) -> PathBuf {
        self.root().join(below.as_str())
    }

    /// Whether anything may have this path in the root.
    fn has(&self, root: &Dir, path: &Path) -> Result<bool, DiskError> {
        let Ok(below) = path.strip_prefix(self.root()) else {
            return Ok(false);
        };
        let text = below.to_str().map(Box::<str>::from);
        let Some(below) = text.and_then(|text| Subpath::try_from(text).ok()) else {
            return Ok(true);
        };
        match self.existing(root, &below)? {
            Some((parent, last)) => is_there(&parent, &last),
            None => Ok(false),
        }
    }

    fn same<'a>(&self, record: &'a Record, uid: &Uid) -> Result<&'a Record, DiskError> {
        self.is_of(&record.claim.uid, uid).map(|()| record)
    }

    fn is_of(&self, recorded: &Uid, asked: &Uid) -> Result<(), DiskError> {
        if recorded == asked {
            return Ok(());
        }
        Err(DiskError::Foreign {
            root: self.name(),
            recorded: recorded.clone(),
            asked: asked.clone(),
        })
    }

    /// Reads what another process may have put back since, where a volume could come to lie in it.
    fn learn_retained(&self, records: &Records, path: &Subpath) -> Result<(), DiskError> {
        // A path of one name lies in another only where something has the name already.
        if path.names().nth(1).is_none() {
            return Ok(());
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = records.changed(records::RETAINED)?;
        if *seen != Some(changed) {
            for record in records.all(records::RETAINED)? {
                let entry = Entry::of_retained(&record);
                self.lock().entry(record.path).or_insert(entry);
            }
            *seen = Some(changed);
        }
        Ok(())
    }

    /// Keeps the path for the volume, where no other has one on the way to it or below it.
    fn reserve(&self, index: &mut Index, record: &Record) -> Result<(), DiskError> {
        let other = index
            .iter()
            .find(|(path, entry)| entry.volume != record.volume && path.overlaps(&record.path));
        if let Some((_, other)) = other {
            return Err(DiskError::Overlaps {
                path: record.path.clone(),
                other: other.volume.clone(),
            });
        }
        index.insert(record.path.clone(), Entry::of(record));
        Ok(())
    }

    /// The path is free again; directories on the way to it that are empty go.
    fn released(&self, root: &Dir, path: &Subpath) {
        self.lock().remove(path);
        let names: Vec<&str> = path.names().collect();
        for depth in (1..names.len()).rev() {
            let above: Box<str> = names[..depth].join("/").into();
            let gone = Subpath::try_from(above)
                .ok()
                .and_then(|above| self.existing(root, &above).ok().flatten())
                .and_then(|(parent, last)| parent.remove(&last).ok());
            // Nothing depends on it: what stays is an empty directory, or another volume's parent.
            if gone != Some(Removal::Removed) {
                break;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory in which a volume's lies, and its name there.
    fn parent(
        &self,
        root: &Dir,
        path: &Subpath,
        make: bool,
    ) -> Result<(Dir, Component), DiskError> {
        let mut names = path.names().rev();
        let last = Component::new(names.next().unwrap_or_default())?;
        let mut dir = root.clone();
        for name in names.rev() {
            let name = Component::new(name)?;
            dir = if make {
                dir.make_child(&name)?
            } else {
                dir.child(&name)?.ok_or_else(|| {
                    DiskError::io(format!("{} in {}", name, dir.path().display()))(
                        rustix::io::Errno::NOENT,
                    )
                })?
            };
        }
        Ok((dir, last))
    }

    fn existing(&self, root: &Dir, path: &Subpath) -> Result<Option<(Dir, Component)>, DiskError> {
        match self.parent(root, path, false) {
            Ok(found) => Ok(Some(found)),
            Err(DiskError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Since 1970; before that there was no trash.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A directory for the calls that a mere handle is not enough for.
fn readable(dir: &Dir) -> Result<rustix::fd::OwnedFd, DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::empty())
        .map_err(DiskError::io(format!("opening {}", dir.path().display())))
}

fn is_empty(dir: &Dir) -> Result<bool, DiskError> {
    let doing = || format!("reading {}", dir.path().display());
    let entries = rustix::fs::Dir::new(readable(dir)?).map_err(DiskError::io(doing()))?;
    for entry in entries {
        let entry = entry.map_err(DiskError::io(doing()))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether anything has the name, a link that leads nowhere included.
fn is_there(dir: &Dir, name: &Component) -> Result<bool, DiskError> {
    match rustix::fs::statat(dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(e) => Err(DiskError::io(format!(
            "looking at {}/{name}",
            dir.path().display()
        ))(e)),
    }
}

/// The mode that a directory is made with: not open to others before it has its owner.
fn born_with(access: Access) -> Mode {
    match access {
        Access {
            mode,
            uid: None,
            gid: None,
        } => Mode::from_raw_mode(mode),
        _ => Mode::RWXU,
    }
}

/// Hands the directory to its users, as far as it was not made so.
fn give(dir: &Dir, access: Access) -> Result<(), DiskError> {
    let doing = || format!("setting mode and owner of {}", dir.path().display());
    let stat = rustix::fs::fstat(dir).map_err(DiskError::io(doing()))?;
    let owned = access.uid.is_none_or(|uid| uid == stat.st_uid)
        && access.gid.is_none_or(|gid| gid == stat.st_gid);
    if owned && stat.st_mode & 0o7777 == access.mode {
        return Ok(());
    }
    let fd = readable(dir)?;
    if !owned {
        let (uid, gid) = (
            access.uid.map(Owner::from_raw),
            access.gid.map(Gid::from_raw),
        );
        rustix::fs::fchown(&fd, uid, gid).map_err(DiskError::io(doing()))?;
    }
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(access.mode)).map_err(DiskError::io(doing()))
}

#[cfg(test)]
mod tests;
