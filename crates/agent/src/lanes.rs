//! A lane for each server: how many calls may wait for one that does not answer. What the node does by
//! itself has two, too: more threads than that would only take memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bitts_api::Source;
use bitts_mount::table::MountTable;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::plugins::Plugin;
use crate::task::{Staging, Task};
use crate::tree::Tree;

/// Tasks in one lane at a time: others wait their turn without a thread or a child.
const WIDTH: usize = 4;
/// The same for what the node takes down by itself: these mostly wait for a look at all its
/// processes, which they share.
const UNMOUNTS: usize = 32;

/// The lanes of all servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes(Arc<Mutex<BTreeMap<Lane, Arc<Semaphore>>>>);

/// Whom tasks wait for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// The node itself.
    Node,
    /// The node itself, for what it takes down.
    Unmounts,
    /// A server, or a device, by its name.
    Named(String),
}

impl Lane {
    fn width(&self) -> usize {
        match self {
            Self::Unmounts => UNMOUNTS,
            Self::Node | Self::Named(_) => WIDTH,
        }
    }
}

impl Lanes {
    /// Waits until the task may begin; it may go on until what is returned is dropped.
    pub(crate) async fn enter(&self, task: &Task, tree: &Tree) -> Option<OwnedSemaphorePermit> {
        let wanted = lane(task, tree)?;
        let lane = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody uses any more.
            lanes.retain(|name, lane| *name == wanted || Arc::strong_count(lane) > 1);
            let width = wanted.width();
            let new = || Arc::new(Semaphore::new(width));
            lanes.entry(wanted).or_insert_with(new).clone()
        };
        lane.acquire_owned().await.ok()
    }
}

/// Whom the task waits for.
fn lane(task: &Task, tree: &Tree) -> Option<Lane> {
    match task {
        // All its files may be looked at.
        Task::Mount(mount) if mount.group.is_some() => {
            let target = tree.target(&mount.key).display().to_string();
            Some(Lane::Named(target))
        }
        Task::Mount(mount) | Task::Renew(mount) => {
            if let Source::Csi(volume) = &mount.source {
                return Some(Lane::Named(volume.driver.to_string()));
            }
            let server = mount.key.plugin.volume_type().server(&mount.source);
            Some(server.map_or(Lane::Node, |name| Lane::Named(name.to_owned())))
        }
        Task::Unmount(key) if key.plugin == Plugin::Csi => {
            let driver = tree.driver_of(key)?;
            Some(Lane::Named(driver))
        }
        Task::Unmount(key) => match key.plugin.mounter().server_of() {
            Some(server_of) => {
                let table = MountTable::read().ok()?;
                let mounted = &table.at(&tree.target(key))?.source;
                server_of(mounted).map(|name| Lane::Named(name.to_owned()))
            }
            None => Some(Lane::Unmounts),
        },
        // A file system may take minutes to be made or checked.
        Task::Stage(Staging { key, .. }) | Task::Unstage(key) => Some(Lane::Named(key.to_string())),
        Task::RemovePodDirectory(_) => Some(Lane::Node),
        // One at a time as it is, and it must be told in time that a lane is full.
        Task::Scan | Task::Watch | Task::Probe { .. } | Task::Await(_) | Task::Leave(_) => None,
    }
}
