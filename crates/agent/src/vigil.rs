//! Watches over what was mounted: which of it is no longer in the mount table.
//!
//! The kernel wakes whoever waits for the table; while nothing changes, nothing runs. Reading the
//! table asks no server.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
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
    more: Notify,
}

impl Vigil {
    /// Work begins: what it takes down is not missed.
    pub(crate) fn begin(&self, task: &Task) {
        if let Task::Unmount(key) = task {
            self.expected().retain(|_, expected| expected != key);
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

    /// Waits until something is not mounted that was expected to be, and expects it no longer.
    pub(crate) async fn missing(&self) -> io::Result<Vec<MountKey>> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe, as others' descriptors may be closed early; this one is owned"
        )]
        let table = AsyncFd::with_interest(
            Watcher::new().map_err(io::Error::other)?,
            Interest::PRIORITY,
        )?;
        loop {
            let vigil = self.clone();
            let missing = tokio::task::spawn_blocking(move || vigil.look());
            let missing = missing.await.map_err(io::Error::other)??;
            if !missing.is_empty() {
                return Ok(missing);
            }
            tokio::select! {
                changed = table.ready(Interest::PRIORITY) => changed?.clear_ready(),
                () = self.0.more.notified() => {}
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn look(&self) -> io::Result<Vec<MountKey>> {
        if self.expected().is_empty() {
            return Ok(Vec::new());
        }
        // What is expected before the table is read was mounted before.
        let mut missing = self.expected().clone();
        for mount in MountTable::read().map_err(io::Error::other)?.iter() {
            missing.remove(&mount.point);
        }
        let mut expected = self.expected();
        // What is taken down meanwhile is not missed.
        missing.retain(|place, key| expected.get(place) == Some(key));
        expected.retain(|place, _| !missing.contains_key(place));
        Ok(missing.into_values().collect())
    }

    fn expected(&self) -> MutexGuard<'_, BTreeMap<PathBuf, MountKey>> {
        self.0
            .expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
