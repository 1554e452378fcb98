//! A lane for each server: how many calls may wait for one that does not answer. What the node does by
//! itself has a lane, too: more threads than that would only take memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bitts_mount::table::MountTable;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::task::{Staging, Task};
use crate::tree::Tree;

/// Tasks in one lane at a time: others wait their turn without a thread or a child.
const WIDTH: usize = 4;

/// The lanes of all servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes(Arc<Mutex<BTreeMap<String, Arc<Semaphore>>>>);

impl Lanes {
    /// Waits until the task may begin; it may go on until what is returned is dropped.
    pub(crate) async fn enter(&self, task: &Task, tree: &Tree) -> Option<OwnedSemaphorePermit> {
        let server = server(task, tree)?;
        let lane = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody uses any more.
            lanes.retain(|name, lane| *name == server || Arc::strong_count(lane) > 1);
            let new = || Arc::new(Semaphore::new(WIDTH));
            lanes.entry(server).or_insert_with(new).clone()
        };
        lane.acquire_owned().await.ok()
    }
}

/// Whom the task waits for; the node itself has no name.
fn server(task: &Task, tree: &Tree) -> Option<String> {
    match task {
        // All its files may be looked at.
        Task::Mount(mount) if mount.group.is_some() => {
            Some(tree.target(&mount.key).display().to_string())
        }
        Task::Mount(mount) | Task::Renew(mount) => {
            let server = mount.key.plugin.volume_type().server(&mount.source);
            Some(server.unwrap_or_default().to_owned())
        }
        Task::Unmount(key) => match key.plugin.mounter().server_of() {
            Some(server_of) => {
                let table = MountTable::read().ok()?;
                let mounted = &table.at(&tree.target(key))?.source;
                server_of(mounted).map(str::to_owned)
            }
            None => Some(String::new()),
        },
        // A file system may take minutes to be made or checked.
        Task::Stage(Staging { key, .. }) | Task::Unstage(key) => Some(key.to_string()),
        Task::RemovePodDirectory(_) => Some(String::new()),
        // One at a time as it is, and it must be told in time that a lane is full.
        Task::Scan | Task::Watch | Task::Probe { .. } => None,
    }
}
