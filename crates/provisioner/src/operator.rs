//! What an operator asks of a root where volumes lie, from a process of its own: `bitts trash`,
//! `bitts orphans` and `bitts adopt`. The provisioner may work there meanwhile: each step is one rename
//! or one file, as all that is done at a root.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitts_api::{Name, Uid};
use bitts_mount::sweep;
use serde::{Deserialize, Serialize};

use crate::disk::{Census, Disk, DiskError, Fate, Trashed};
use crate::run::now;
use crate::share::{Keeper, Outcome, Work};
use crate::site::Share;
use crate::task::Record;

/// How long one child sweeps before another goes on in its place.
const SWEEP: Duration = Duration::from_secs(600);
/// How often a share is asked whether its child is done.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// What is in the trash?
    Trashed,
    /// What lies there?
    Census,
    /// Put a volume's data and record back.
    Restore(Name),
    /// Have the data of a volume in the trash leave.
    Purge(Name),
    /// Move what was made for this claim to the trash.
    SetAside(Name, Uid),
    /// Record a volume that another provisioner made.
    Adopt(Record),
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// What is in the trash.
    Trash(Vec<Trashed>),
    /// What lies there.
    Census(Census),
    /// It was put back, as this says.
    Restored(Record),
    /// It was done.
    Done,
}

impl Order {
    /// Does it, on this thread.
    pub(crate) fn perform(self, disk: &Disk) -> Result<Told, DiskError> {
        Ok(match self {
            Self::Trashed => Told::Trash(disk.trashed()?),
            Self::Census => Told::Census(disk.census()?),
            Self::Restore(volume) => Told::Restored(disk.restore(&volume)?.0),
            Self::Purge(volume) => {
                disk.purge(&volume)?;
                Told::Done
            }
            Self::SetAside(volume, uid) => {
                disk.set_aside(&volume, &uid)?;
                Told::Done
            }
            Self::Adopt(record) => {
                disk.adopt(&record)?;
                Told::Done
            }
        })
    }
}

/// Why an operator is not answered.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or what is asked of it.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The server, or what is asked of its share.
    #[error("{0}: {1}")]
    Share(Share, String),
    /// A bug.
    #[error("{0}: this is a bug in bitts")]
    Bug(String),
}

/// A root where volumes lie.
#[derive(Debug)]
pub struct Store(Root);

#[derive(Debug)]
enum Root {
    /// A directory on a disk of this node.
    Disk(Arc<Disk>),
    /// A share, kept by a child of this process, and how long its server may take.
    Share {
        share: Share,
        keeper: Keeper,
        patience: Duration,
    },
}

impl Store {
    /// Opens a directory on a disk.
    ///
    /// # Errors
    /// When it is no directory, or cannot be written to.
    pub fn disk(root: &Path) -> Result<Self, StoreError> {
        Ok(Self(Root::Disk(Arc::new(Disk::open(root)?))))
    }

    /// Has a share mounted by a child: the program's `main` must begin as for
    /// [`run_shares`](crate::run_shares).
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub async fn share(share: Share, patience: Duration) -> Result<Self, StoreError> {
        let keeper = Keeper::start(&share, patience).await;
        let keeper = keeper.map_err(|why| StoreError::Share(share.clone(), why))?;
        Ok(Self(Root::Share {
            share,
            keeper,
            patience,
        }))
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.0 {
            Root::Disk(disk) => disk.root().display().to_string(),
            Root::Share { share, .. } => share.to_string(),
        }
    }

    /// Where a volume's directory is, as the API has it.
    #[must_use]
    pub fn path(&self, record: &Record) -> String {
        match &self.0 {
            Root::Disk(disk) => disk.root().join(record.path.as_str()).display().to_string(),
            Root::Share { share, .. } => {
                format!("{}/{}", share.path.trim_end_matches('/'), record.path)
            }
        }
    }

    /// Asks something of it.
    ///
    /// # Errors
    /// When it was not done; why.
    pub async fn ask(&self, order: Order) -> Result<Told, StoreError> {
        match &self.0 {
            Root::Disk(disk) => {
                let disk = disk.clone();
                let told = tokio::task::spawn_blocking(move || order.perform(&disk)).await;
                Ok(told.map_err(|panic| StoreError::Bug(panic.to_string()))??)
            }
            Root::Share {
                share,
                keeper,
                patience,
            } => {
                let failed = |why| StoreError::Share(share.clone(), why);
                // A census looks at each volume.
                let deadline = match order {
                    Order::Census => *patience * 10,
                    _ => *patience,
                };
                match keeper.call(Work::Order(order), deadline).await {
                    Ok(Outcome::Told(told)) => told.map_err(failed),
                    Ok(Outcome::Report(report)) => Err(StoreError::Bug(format!("{report:?}"))),
                    Err(why) => Err(failed(why)),
                }
            }
        }
    }

    /// What is in the trash.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub async fn trashed(&self) -> Result<Vec<Trashed>, StoreError> {
        match self.ask(Order::Trashed).await? {
            Told::Trash(all) => Ok(all),
            other => Err(StoreError::Bug(format!("{other:?}"))),
        }
    }

    /// What lies there.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub async fn census(&self) -> Result<Census, StoreError> {
        match self.ask(Order::Census).await? {
            Told::Census(census) => Ok(census),
            other => Err(StoreError::Bug(format!("{other:?}"))),
        }
    }

    /// Returns once nothing of these volumes leaves the trash any more: it is removed.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn swept(&self, volumes: &[Name]) -> Result<(), StoreError> {
        match &self.0 {
            Root::Disk(disk) => {
                let (disk, volumes) = (disk.clone(), volumes.to_vec());
                let swept = tokio::task::spawn_blocking(move || {
                    let leaving = disk.to_sweep(now())?;
                    for volume in leaving.iter().filter(|leaving| volumes.contains(leaving)) {
                        disk.sweep(volume, |dir, name| sweep::remove_in_child(dir, name, SWEEP))?;
                    }
                    Ok::<_, DiskError>(())
                });
                let swept = swept.await;
                Ok(swept.map_err(|panic| StoreError::Bug(panic.to_string()))??)
            }
            // Its child sweeps what it was told to.
            Root::Share { .. } => loop {
                let all = self.trashed().await?;
                let leaves = |e: &Trashed| e.fate == Fate::Leaving && volumes.contains(&e.volume);
                if !all.iter().any(leaves) {
                    return Ok(());
                }
                tokio::time::sleep(ASK_AGAIN).await;
            },
        }
    }
}
