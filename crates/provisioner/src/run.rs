//! The provisioner of a node on a cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bitts_api::Name;
use bitts_mount::sweep;
use bitts_runtime::{Host, RoleOptions, RuntimeError, Worker, run_role};

use crate::class::Quota;
use crate::disk::{Disk, DiskError, Made};
use crate::operator::{Order, Told};
use crate::task::{Errand, Record, Reply, Report, Survey, Task, Trouble};
use crate::{Options, Provisioner};

/// How many writes are under way at a time.
const WRITES_AT_ONCE: usize = 16;
/// How long one child sweeps before another goes on in its place.
const SWEEP: Duration = Duration::from_secs(600);
/// How often it is looked for what is to be kept in the trash no longer.
pub(crate) const SWEEP_ANYWAY: Duration = Duration::from_secs(600);
/// How long until what could not be swept is tried again.
const SWEEP_AGAIN: Duration = Duration::from_secs(60);

/// The time by which it is told what was kept for long enough.
#[expect(
    clippy::disallowed_methods,
    reason = "this is no machine: it compares times of files"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// How the provisioner of a node is run.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// What it is.
    pub options: Options,
    /// The directories in which it makes volumes, each on a disk of its own, as absolute paths.
    pub disks: Vec<PathBuf>,
}

/// Runs the provisioner of a node until the host shuts down.
///
/// # Errors
/// When something panicked: start again.
pub async fn run(host: &Host, config: LocalConfig) -> Result<(), RuntimeError> {
    let role = RoleOptions {
        name: "provisioner",
        event_source: "bitts-provisioner",
        lease: None,
        writes_at_once: WRITES_AT_ONCE,
    };
    let worker = LocalWorker::new(&config.disks);
    let machine = Provisioner::new(config.options);
    let sweeps = worker.clone().sweep_now_and_then();
    tokio::select! {
        ended = run_role(host, role, machine, worker) => ended,
        never = sweeps => match never {},
    }
}

/// Makes volumes on the disks of one node, or in one other directory.
#[derive(Clone, Debug)]
pub struct LocalWorker {
    disks: Arc<[Site]>,
}

#[derive(Debug)]
struct Site {
    root: PathBuf,
    /// Open once a scan found it as it should be.
    disk: std::sync::OnceLock<Disk>,
    /// One sweep at a time.
    sweeping: tokio::sync::Mutex<()>,
    /// One copy at a time.
    copying: std::sync::Mutex<()>,
}

impl LocalWorker {
    /// A worker for these directories.
    #[must_use]
    pub fn new(disks: &[PathBuf]) -> Self {
        let site = |root: &PathBuf| Site {
            root: root.clone(),
            disk: std::sync::OnceLock::new(),
            sweeping: tokio::sync::Mutex::default(),
            copying: std::sync::Mutex::default(),
        };
        Self {
            disks: disks.iter().map(site).collect(),
        }
    }

    /// A worker for what is open already.
    pub(crate) fn on(disk: Disk) -> Self {
        let site = Site {
            root: disk.root().to_owned(),
            disk: std::sync::OnceLock::from(disk),
            sweeping: tokio::sync::Mutex::default(),
            copying: std::sync::Mutex::default(),
        };
        Self {
            disks: [site].into(),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Disk> {
        self.disks.iter().filter_map(|site| site.disk.get())
    }

    /// Does a task, on this thread.
    #[must_use]
    pub fn perform_here(&self, task: Task) -> Report {
        match task {
            Task::Scan => match self.scan() {
                Ok(records) => Report::Scanned(records),
                Err(error) => Report::ScanFailed(error.to_string()),
            },
            Task::Survey => Report::Surveyed(self.survey()),
            Task::Make(record) => {
                let volume = record.volume.clone();
                match self.make(&record) {
                    Ok(Made::Whole(path)) => Report::Made(volume, path.to_string_lossy().into()),
                    Ok(Made::Copying { bytes, total }) => Report::Copying {
                        volume,
                        bytes,
                        total,
                    },
                    // What it is a copy of is here alone.
                    Err(error) if record.copy_of.is_some() => {
                        Report::NotMade(volume, lasting(&error))
                    }
                    Err(error) => Report::NotMade(volume, trouble(&error)),
                }
            }
            Task::Confirm(volume, uid) => {
                let done = self.keeper(&volume).and_then(|disk| match disk {
                    Some(disk) => disk.confirm(&volume, &uid),
                    None => Ok(()),
                });
                told(volume, done, Report::Confirmed)
            }
            Task::Discard(volume, uid) => {
                let done = self.keeper(&volume).and_then(|disk| match disk {
                    Some(disk) => disk.discard(&volume, &uid),
                    None => Ok(()),
                });
                told(volume, done, Report::Discarded)
            }
            Task::Grow { volume, uid, bytes } => {
                let grown = self.keeper(&volume).and_then(|disk| match disk {
                    Some(disk) => disk.grow(&volume, &uid, bytes),
                    None => Err(DiskError::NoRecord(volume.to_string())),
                });
                match grown {
                    Ok(held) => Report::Grown {
                        volume,
                        bytes,
                        held,
                    },
                    Err(error) => Report::NotGrown(volume, bytes, trouble(&error)),
                }
            }
            Task::Remove { volume, uid, path } => {
                let done = self.remove(&volume, &uid, Path::new(&*path));
                told(volume, done, Report::Removed)
            }
        }
    }

    /// What there is room for, on the disk that has most.
    fn survey(&self) -> Survey {
        let room = |quota| {
            let mut most = Err("there is no disk".to_owned());
            for disk in self.all() {
                most = match (most, disk.room(quota)) {
                    (Ok(most), Ok(room)) => Ok(room.max(most)),
                    (Ok(most), Err(_)) => Ok(most),
                    (Err(_), room) => room.map_err(|error| error.to_string()),
                };
            }
            most
        };
        Survey {
            free: room(Quota::None).unwrap_or(0),
            held: room(Quota::Required),
            used: self.all().flat_map(Disk::used).collect(),
        }
    }

    fn scan(&self) -> Result<Vec<Record>, DiskError> {
        let mut records = Vec::new();
        for site in self.disks.iter() {
            let disk = match site.disk.get() {
                Some(disk) => disk,
                None => {
                    let disk = Disk::open(&site.root)?;
                    site.disk.get_or_init(|| disk)
                }
            };
            records.extend(disk.scan()?);
        }
        Ok(records)
    }

    /// The disk that has the record of a volume.
    fn of(&self, volume: &Name) -> Result<Option<&Disk>, DiskError> {
        for disk in self.all() {
            if disk.find(volume)?.is_some() {
                return Ok(Some(disk));
            }
        }
        Ok(None)
    }

    /// The disk that has the record of a volume, or is the only one that could have it: that looks itself.
    fn keeper(&self, volume: &Name) -> Result<Option<&Disk>, DiskError> {
        match &*self.disks {
            [only] => Ok(only.disk.get()),
            _ => self.of(volume),
        }
    }

    /// Makes a volume where it was begun, else where there is most room; a copy where its source is.
    fn make(&self, record: &Record) -> Result<Made, DiskError> {
        if let Some(disk) = self.keeper(&record.volume)? {
            return disk.make(record);
        }
        if let Some(of) = &record.copy_of {
            let disk = self.of(&of.volume)?;
            return match disk {
                Some(disk) => disk.make(record),
                None => Err(DiskError::NoSource(of.volume.clone())),
            };
        }
        let mut disks: Vec<(u64, &Disk)> = Vec::new();
        let mut refused = DiskError::Full {
            root: "no disk".to_owned(),
            free: 0,
            asked: record.bytes,
        };
        for disk in self.all() {
            match disk.room(record.quota) {
                Ok(room) => disks.push((room, disk)),
                Err(error) if error.is_of_this_node() => refused = error,
                Err(error) => return Err(error),
            }
        }
        disks.sort_by_key(|(room, _)| std::cmp::Reverse(*room));
        for (_, disk) in disks {
            match disk.make(record) {
                // Somebody else had what was left; the next has less, but perhaps enough.
                Err(error @ DiskError::Full { .. }) => refused = error,
                done => return done,
            }
        }
        Err(refused)
    }

    fn remove(&self, volume: &Name, uid: &bitts_api::Uid, path: &Path) -> Result<(), DiskError> {
        let disk = match self.of(volume)? {
            Some(disk) => Some(disk),
            None => self.all().find(|disk| path.starts_with(disk.root())),
        };
        match disk {
            Some(disk) => disk.remove(volume, uid, path),
            None => Err(DiskError::NoRecord(path.display().to_string())),
        }
    }

    /// Makes what is to be copied, on this thread, unless another does so. One that comes just as that ends
    /// waits until it is asked for again.
    pub fn copy_here(&self) {
        for site in self.disks.iter() {
            if let (Ok(_one), Some(disk)) = (site.copying.try_lock(), site.disk.get()) {
                disk.copy_all();
            }
        }
    }

    /// Does what an operator asks of a root, on this thread.
    pub(crate) fn obey(&self, order: Order) -> Result<Told, DiskError> {
        let disk = self.all().next().ok_or_else(|| DiskError::Io {
            doing: "looking for a disk".to_owned(),
            error: std::io::ErrorKind::NotFound.into(),
        })?;
        order.perform(disk)
    }

    /// Sweeps away what is in the trash of all disks.
    fn sweep(&self) {
        (0..self.disks.len()).for_each(|site| self.sweep_site(site));
    }

    /// The same whenever some of it may have been kept for long enough.
    async fn sweep_now_and_then(self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(SWEEP_ANYWAY).await;
            // Those that are swept already find it by themselves.
            for (index, site) in self.disks.iter().enumerate() {
                if site.sweeping.try_lock().is_ok() {
                    self.sweep_site(index);
                }
            }
        }
    }

    fn sweep_site(&self, site: usize) {
        let worker = self.clone();
        tokio::spawn(async move {
            let site = &worker.disks[site];
            let _one = site.sweeping.lock().await;
            while !worker.sweep_once(&site.root).await {
                tokio::time::sleep(SWEEP_AGAIN).await;
            }
        });
    }

    /// Returns whether nothing is left to be swept.
    async fn sweep_once(&self, root: &Path) -> bool {
        let (worker, root) = (self.clone(), root.to_owned());
        let swept = tokio::task::spawn_blocking(move || {
            let Some(disk) = worker.all().find(|disk| disk.root() == root) else {
                return Ok(());
            };
            loop {
                let volumes = disk.to_sweep(now())?;
                if volumes.is_empty() {
                    return Ok(());
                }
                for volume in volumes {
                    disk.sweep(&volume, |dir, name| {
                        sweep::remove_in_child(dir, name, SWEEP)
                    })?;
                    tracing::info!(%volume, root = %root.display(), "swept away");
                }
            }
        });
        match swept.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                let error: DiskError = error;
                tracing::warn!(%error, "something stays in the trash for now");
                false
            }
            Err(error) => {
                tracing::error!(%error, "the sweep panicked: this is a bug in bitts");
                false
            }
        }
    }
}

fn trouble(error: &DiskError) -> Trouble {
    Trouble {
        elsewhere: error.is_of_this_node(),
        ..lasting(error)
    }
}

/// What no other node would do better.
fn lasting(error: &DiskError) -> Trouble {
    Trouble {
        elsewhere: false,
        message: error.to_string(),
    }
}

fn told(volume: Name, done: Result<(), DiskError>, well: fn(Name) -> Report) -> Report {
    match done {
        Ok(()) => well(volume),
        Err(error) => Report::Failed(volume, error.to_string()),
    }
}

impl Worker for LocalWorker {
    type Task = Errand;
    type Report = Reply;

    async fn perform(&self, Errand { site, task }: Errand) -> Reply {
        let (worker, copy) = (self.clone(), task.clone());
        let done = tokio::task::spawn_blocking(move || worker.perform_here(copy)).await;
        let report = done.unwrap_or_else(|error| failed(task, error.to_string()));
        log(&site, &report);
        if matches!(report, Report::Removed(_) | Report::Scanned(_)) {
            self.sweep();
        }
        if let Report::Copying { .. } = report {
            let worker = self.clone();
            // What fails is told by who asks for the copy next.
            drop(tokio::task::spawn_blocking(move || worker.copy_here()));
        }
        Reply { site, report }
    }
}

/// A task that ended in a way of its own: a bug, told like any other failure so that it is tried
/// again.
pub(crate) fn failed(task: Task, message: String) -> Report {
    match task {
        Task::Scan => Report::ScanFailed(message),
        Task::Survey => Report::Surveyed(Survey {
            free: 0,
            held: Err(message),
            used: Vec::new(),
        }),
        Task::Make(record) => Report::NotMade(
            record.volume,
            Trouble {
                message,
                elsewhere: false,
            },
        ),
        Task::Confirm(volume, _)
        | Task::Discard(volume, _)
        | Task::Grow { volume, .. }
        | Task::Remove { volume, .. } => Report::Failed(volume, message),
    }
}

pub(crate) fn log(site: &crate::Site, report: &Report) {
    match report {
        Report::Scanned(records) => tracing::info!(%site, volumes = records.len(), "scanned"),
        Report::Surveyed(survey) => tracing::debug!(%site, free = survey.free, "surveyed"),
        Report::ScanFailed(error) => tracing::error!(%site, error, "cannot scan"),
        Report::Made(volume, path) => tracing::info!(%volume, %path, "made"),
        Report::Copying {
            volume,
            bytes,
            total,
        } => tracing::debug!(%volume, bytes, total, "being copied"),
        Report::NotMade(volume, trouble) => {
            tracing::warn!(%volume, error = trouble.message, "not made");
        }
        Report::Confirmed(volume) => tracing::debug!(%volume, "confirmed"),
        Report::Discarded(volume) => tracing::info!(%volume, "undone"),
        Report::Removed(volume) => tracing::info!(%volume, "taken away"),
        Report::Grown { volume, bytes, .. } => tracing::info!(%volume, bytes, "grown"),
        Report::NotGrown(volume, bytes, trouble) => {
            tracing::warn!(%volume, bytes, error = trouble.message, "not grown");
        }
        Report::Failed(volume, error) => tracing::warn!(%volume, error, "stays"),
        Report::Unreachable(volume, error) => tracing::warn!(%volume, error, "out of reach"),
    }
}
