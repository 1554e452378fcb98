//! What the machine has its cloud asked for, and what it is told.

use std::collections::{BTreeMap, BTreeSet};

use bitts_api::{Node, NodeName, Uid};

use super::place::{Disk, Instance, Zone};

/// Work for the worker: calls to the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Have all that is under way in this zone of a project end: a process before this one may have asked
    /// for it.
    Settle(Zone),
    /// Where is a disk?
    Look(Look),
    /// Attach it.
    Attach(Attach),
    /// Detach it, if what speaks for that still holds when it is looked at.
    Detach(Detach),
    /// Which disks does this machine have?
    Sweep(Instance),
}

/// What has to be known of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The disk.
    pub disk: Disk,
    /// What is under way on these machines ends first: it may be about this disk.
    pub around: Vec<Instance>,
    /// Which of these run?
    pub silent: Vec<Instance>,
}

/// A disk that shall be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The disk.
    pub disk: Disk,
    /// The machine.
    pub instance: Instance,
    /// Never to be written there.
    pub read_only: bool,
}

/// A disk that shall be detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detach {
    /// The disk.
    pub disk: Disk,
    /// The machine.
    pub instance: Instance,
    /// The node that it is in the API, or was.
    pub node: NodeName,
    /// What speaks for it; looked at live directly before.
    pub because: Because,
}

/// What speaks for taking a disk from a node (amendments of A13: no time and no deletion of an object
/// proves that a machine does not write).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// The node of this uid lists it neither as attached nor as in use.
    Released(Uid),
    /// The node is gone, and did not use it when it went.
    Gone,
    /// The node is not ready or gone, and the cloud says that the machine does not run.
    Off,
    /// The node of this uid is not ready, and an operator says that it is off.
    OutOfService(Uid),
    /// The node is not ready or gone, and was given its time.
    Overdue,
}

impl Because {
    /// Whether it still holds of the node as it is now. `runs`: whether the cloud says that its machine
    /// does.
    #[must_use]
    pub fn holds(&self, disk: &Disk, node: Option<&Node>, runs: bool) -> bool {
        let name = disk.unique();
        let down = || node.is_none_or(|node| !node.is_ready && !node.lists(&name));
        let same = |uid: &Uid| node.filter(|node| node.meta.uid == *uid);
        match self {
            Self::Released(uid) => same(uid).is_some_and(|node| node.released(&name)),
            Self::Gone => node.is_none(),
            Self::Off => down() && !runs,
            Self::OutOfService(uid) => {
                same(uid).is_some_and(|node| node.is_out_of_service && down())
            }
            Self::Overdue => down(),
        }
    }
}

/// What came of a [`Task`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nothing is under way in a zone that was before.
    Settled(Zone, Result<(), Trouble>),
    /// Where a disk is.
    Looked(Disk, Result<Looked, Trouble>),
    /// It is attached to the machine.
    Attached(Disk, Instance, Result<(), Trouble>),
    /// It is not attached to the machine.
    Detached(Disk, Instance, Result<(), Trouble>),
    /// What spoke for detaching does not hold: nothing was done.
    Spared(Disk, Instance),
    /// The disks that a machine has, but for the one that it started from; and whether under the name by
    /// which its node finds it.
    Swept(Instance, Result<BTreeMap<Disk, bool>, Trouble>),
}

/// Where a disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// The machines that have it.
    pub users: BTreeSet<Instance>,
    /// Those of the silent machines that do not run.
    pub off: BTreeSet<Instance>,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened and what to do.
    pub message: String,
    /// In a word, for metrics.
    pub code: &'static str,
    /// The cloud has too much to do, or is asked too much.
    pub overload: bool,
}
