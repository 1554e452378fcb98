//! Has the cloud attach its disks to nodes whose volumes a bitts agent mounts, without a CSI driver:
//! `gcePersistentDisk`, as the in-tree plugin did (A13 to A20). There is no VolumeAttachment: a node's
//! status says what is attached, under the names that the plugin gave, and where a disk really is, the
//! cloud knows.
//!
//! [`CloudAttacher`] is the decisions, one disk at a time; what is to be done about a disk on a node is
//! the attacher's table (`verdict.rs`). What holds, whenever the process is killed:
//! - Nothing is believed but what the cloud says after all that was under way has ended: a new process
//!   waits for what an earlier one asked for, and the cloud is asked before the first decision about a
//!   disk, and after each call that failed.
//! - One call at a time is under way for a disk. A disk for one node is attached to a node only where the
//!   cloud says that no machine has it, no other node lists it, and no VolumeAttachment of it exists.
//! - It is attached to a node only when that node's agent asks for it in `status.volumesInUse`: so a mark
//!   that an agent left on a kubelet's node does no harm.
//! - A disk is taken from a node as A35 says: no pod asks for it, the agent does not use it, the node's
//!   list has it no more, a live look at the node says so too.
//! - What was attached by a process that died before it told anybody is found by a look at the machines.
//! - A machine that is no node here keeps what it has, and so does a node whose disks a CSI driver attaches.
//!
//! [`Cloud`] is what a cloud has to be able to do; `gce` is Google's.

mod call;
mod deciding;
mod hearing;
mod measuring;
mod place;
mod telling;
mod unit;

#[cfg(feature = "run")]
mod gce;
#[cfg(feature = "run")]
mod run;
#[cfg(feature = "run")]
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bitts_api::machine::{Effect, Input, Inventory, Machine, Measure, Moment, Place, Scope, Watch};
use bitts_api::{Kind, Name, NodeName};

use crate::known::{KINDS, Known};
use crate::node::NodeState;
use crate::options::Options;
use crate::publisher::Limit;

pub use call::{Attach, Because, Detach, Look, Looked, Report, Task, Trouble};
#[cfg(feature = "run")]
pub use gce::{ComputeEngine, DEFAULT_ENDPOINT, EndpointError, METADATA_HOST};
pub use place::{Disk, Instance, Location, Zone};
#[cfg(feature = "run")]
pub use run::{CloudConfig, run_cloud};
use unit::Unit;
#[cfg(feature = "run")]
pub use worker::{Cloud, CloudError, Machine as CloudMachine};

type Effects = Vec<Effect<Task, CloudAlarm>>;

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudAlarm {
    /// Look at a disk again.
    Disk(Disk),
    /// Look at what a node's status says again.
    Node(NodeName),
    /// Look at what the machines have.
    Sweep,
    /// Have what is under way in a zone end.
    Settle(Zone),
}

/// What can be set about a [`CloudAttacher`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudOptions {
    /// How many calls may be under way at a time at most.
    pub calls_at_once: usize,
    /// How often machines are looked at for disks that nobody knows of, or that are gone; only at the start
    /// where absent.
    pub sweep: Option<Duration>,
    /// How often it is asked again where a disk is that something unknown holds.
    pub ask_again: Duration,
    /// What the attacher is told, too.
    pub attach: Options,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            calls_at_once: 50,
            sweep: Some(Duration::from_secs(300)),
            ask_again: Duration::from_secs(15),
            attach: Options::default(),
        }
    }
}

/// A node, as far as disks of the cloud are concerned.
#[derive(Debug, Default)]
struct Host {
    state: NodeState,
    /// What the cloud calls it; kept when the node's object is gone.
    instance: Option<Instance>,
    /// Whether disks were attached to it directly when it was last seen.
    is_ours: bool,
    disks: BTreeSet<Disk>,
}

/// Decides where disks are attached, and asks the cloud for it.
#[derive(Debug)]
pub struct CloudAttacher {
    options: CloudOptions,
    known: Known,
    units: BTreeMap<Disk, Unit>,
    hosts: BTreeMap<NodeName, Host>,
    /// Which nodes machines are.
    machines: BTreeMap<Instance, NodeName>,
    /// What each pod asks for.
    asked: BTreeMap<Place, Vec<(Disk, NodeName)>>,
    /// The PersistentVolumes by the names of their disks.
    volumes: BTreeMap<Box<str>, BTreeSet<Name>>,
    /// The VolumeAttachments of the CSI driver that took such disks over, by their PersistentVolumes.
    attachments: BTreeMap<Name, BTreeSet<Name>>,
    /// What pods were told that ask for what cannot be.
    refused: BTreeMap<Place, (String, Moment)>,
    calls: usize,
    /// Those that wait for one of the calls under way to end.
    queue: VecDeque<Disk>,
    limit: Limit,
    /// Where a process before this one may have something under way: nothing is decided before that ended.
    settling: BTreeSet<Zone>,
    /// The machines that are looked at next, and the one that is.
    sweep: VecDeque<Instance>,
    sweeping: Option<(Instance, Moment)>,
    /// The next round is waited for.
    sweeps: bool,
    found: u64,
    forced: BTreeMap<&'static str, u64>,
    calls_ended: measuring::Calls,
    is_ready: bool,
    now: Moment,
    dirty_pods: BTreeSet<Place>,
    dirty: BTreeSet<Disk>,
    dirty_nodes: BTreeSet<NodeName>,
    out: Effects,
}

impl CloudAttacher {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(options: CloudOptions) -> Self {
        Self {
            limit: Limit::new(options.calls_at_once),
            options,
            known: Known::default(),
            units: BTreeMap::new(),
            hosts: BTreeMap::new(),
            machines: BTreeMap::new(),
            asked: BTreeMap::new(),
            volumes: BTreeMap::new(),
            attachments: BTreeMap::new(),
            refused: BTreeMap::new(),
            calls: 0,
            queue: VecDeque::new(),
            settling: BTreeSet::new(),
            sweep: VecDeque::new(),
            sweeping: None,
            sweeps: false,
            found: 0,
            forced: BTreeMap::new(),
            calls_ended: measuring::Calls::default(),
            is_ready: false,
            now: Moment::default(),
            dirty_pods: BTreeSet::new(),
            dirty: BTreeSet::new(),
            dirty_nodes: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    fn settle(&mut self) {
        while let Some(pod) = self.dirty_pods.pop_first() {
            self.ask(&pod);
        }
        if !self.settling.is_empty() {
            return;
        }
        loop {
            if let Some(disk) = self.dirty.pop_first() {
                self.decide(&disk);
            } else if let Some(node) = self.dirty_nodes.pop_first() {
                self.report_of(&node);
            } else if self.calls < self.limit.allowed()
                && let Some(disk) = self.queue.pop_front()
            {
                if let Some(unit) = self.units.get_mut(&disk) {
                    unit.queued = false;
                }
                self.decide(&disk);
            } else {
                return;
            }
        }
    }
}

impl Machine for CloudAttacher {
    type Task = Task;
    type Report = Report;
    type Alarm = CloudAlarm;

    fn watches(&self) -> Vec<Watch> {
        let watch = |kind| Watch {
            kind,
            scope: Scope::All,
        };
        KINDS.into_iter().map(watch).collect()
    }

    fn handle(&mut self, now: Moment, input: Input<Report, CloudAlarm>) -> Effects {
        self.now = now;
        let news = match input {
            Input::Listed(kind, objects) => self.known.list(kind, objects),
            Input::Found(_, Some(object)) | Input::Seen(object) => self.known.see(object),
            Input::Found(_, None) => Vec::new(), // it follows nothing
            Input::Deleted(key, uid) => self.known.delete(key, &uid),
            Input::Finished(key, outcome) => {
                if key.kind == Kind::Node {
                    self.node_finished(&key.name, &outcome);
                }
                Vec::new()
            }
            Input::Report(report) => {
                self.reported(report);
                Vec::new()
            }
            Input::Alarm(CloudAlarm::Disk(disk)) => {
                self.ring(&disk);
                Vec::new()
            }
            Input::Alarm(CloudAlarm::Node(node)) => {
                self.dirty_nodes.insert(node);
                Vec::new()
            }
            Input::Alarm(CloudAlarm::Settle(zone)) => {
                self.out.push(Effect::Task(Task::Settle(zone)));
                Vec::new()
            }
            Input::Alarm(CloudAlarm::Sweep) => {
                self.sweeps = false;
                self.sweep_all();
                Vec::new()
            }
        };
        news.into_iter().for_each(|news| self.take(news));
        if !self.is_ready && self.known.is_listed() {
            self.begin();
        }
        if self.is_ready {
            self.settle();
        }
        std::mem::take(&mut self.out)
    }

    fn inventory(&self, kind: Kind) -> Option<Inventory> {
        self.known.inventory(kind)
    }

    fn measures(&self) -> Vec<Measure> {
        self.count()
    }
}
