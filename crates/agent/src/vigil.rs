//! Watches over what was mounted: which of it is no longer in the mount table, and, beside a kubelet,
//! what of it the kubelet has mounted.
//!
//! The kernel wakes whoever waits for the table; while nothing changes, nothing runs. Reading the
//! table asks no server.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitts_api::VolumeMode;
use bitts_mount::table::{MountTable, Watcher};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::task::{How, MountKey, Report, Task};
use crate::tree::Tree;

/// Many mounts at once are one look at the table.
const SETTLE: Duration = Duration::from_millis(250);

/// What is expected to be mounted: what this agent was told to have, from when it reported so until
/// it is told to take it down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vigil(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// By the place as the mount table has it.
    expected: Mutex<BTreeMap<PathBuf, MountKey>>,
    /// What a kubelet is to mount.
    awaited: Mutex<BTreeSet<MountKey>>,
    more: Notify,
}

/// What the mount table says.
#[derive(Debug)]
pub(crate) enum News {
    /// These were expected to be mounted and are not. They are expected no longer.
    Missing(Vec<MountKey>),
    /// These were awaited, and are mounted. They are expected to be from now on.
    Appeared(Vec<MountKey>),
}

impl Vigil {
    /// Work begins: what it takes down is not missed.
    pub(crate) fn begin(&self, task: &Task) {
        match task {
            Task::Unmount(key) => self.expected().retain(|_, expected| expected != key),
            Task::Leave(key) => {
                self.expected().retain(|_, expected| expected != key);
                self.awaited().remove(key);
            }
            Task::Await(key) => {
                self.awaited().insert(key.clone());
                self.0.more.notify_one();
            }
            _ => {}
        }
    }

    /// Work ended.
    pub(crate) fn end(&self, tree: &Tree, report: &Report) {
        if let Report::Mounted { mount, how, .. } = report
            && *how != How::Shown
            && mount.key.mode == VolumeMode::Filesystem
            && mount.key.plugin.mounter().is_mounted()
            && let Some(place) = tree.place(&mount.key)
        {
            self.expected().insert(place, mount.key.clone());
            // It may have vanished before it was expected.
            self.0.more.notify_one();
        }
    }

    /// Waits until something is not mounted that was expected to be, or is that was awaited.
    pub(crate) async fn news(&self, tree: &Tree) -> io::Result<News> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe, as others' descriptors may be closed early; this one is owned"
        )]
        let table = AsyncFd::with_interest(
            Watcher::new().map_err(io::Error::other)?,
            Interest::PRIORITY,
        )?;
        loop {
            let (vigil, tree) = (self.clone(), tree.clone());
            let look = tokio::task::spawn_blocking(move || vigil.look(&tree));
            if let Some(news) = look.await.map_err(io::Error::other)?? {
                return Ok(news);
            }
            tokio::select! {
                changed = table.ready(Interest::PRIORITY) => changed?.clear_ready(),
                () = self.0.more.notified() => {}
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn look(&self, tree: &Tree) -> io::Result<Option<News>> {
        let awaited = self.awaited().clone();
        // What is expected before the table is read was mounted before.
        let mut missing = self.expected().clone();
        if missing.is_empty() && awaited.is_empty() {
            return Ok(None);
        }
        let table = MountTable::read().map_err(io::Error::other)?;
        for mount in table.iter() {
            missing.remove(&mount.point);
        }
        let appeared: Vec<_> = (awaited.into_iter())
            .filter_map(|key| Some((tree.place(&key)?, key)))
            .filter(|(place, key)| is_mounted(&table, place, key))
            .collect();
        let mut expected = self.expected();
        if !appeared.is_empty() {
            let mut awaited = self.awaited();
            // What was left meanwhile is looked after no more.
            let appeared = appeared.into_iter().filter(|(_, key)| awaited.remove(key));
            let appeared: Vec<_> = appeared.collect();
            expected.extend(appeared.iter().cloned());
            let keys = appeared.into_iter().map(|(_, key)| key);
            return Ok(Some(News::Appeared(keys.collect())));
        }
        // What is taken down meanwhile is not missed.
        missing.retain(|place, key| expected.get(place) == Some(key));
        expected.retain(|place, _| !missing.contains_key(place));
        Ok((!missing.is_empty()).then(|| News::Missing(missing.into_values().collect())))
    }

    fn expected(&self) -> MutexGuard<'_, BTreeMap<PathBuf, MountKey>> {
        self.0
            .expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeSet<MountKey>> {
        self.0
            .awaited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what is mounted there is of the volume's type, as far as its source tells.
fn is_mounted(table: &MountTable, place: &Path, key: &MountKey) -> bool {
    let server_of = key.plugin.mounter().server_of();
    let there = table.at(place);
    there.is_some_and(|mount| server_of.is_none_or(|of| of(&mount.source).is_some()))
}
