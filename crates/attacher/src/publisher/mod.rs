//! Has one CSI driver attach and detach what VolumeAttachments ask for, as the external-attacher does
//! beside the driver's controller (A23 to A28).
//!
//! [`Publisher`] is the decisions; [`step`] is what comes next for an attachment, [`limit`] how many calls the
//! driver is given at a time. What holds, whenever the process is killed:
//! - Attachment and volume have the finalizer `external-attacher/<driver>` before the driver is called
//!   (A26), and the attachment notes as what the driver knows the node. So whatever was attached is
//!   found again, and detached from where it was.
//! - An attachment lets go only when the driver said that the volume is detached: no error and no time
//!   is taken for that.
//! - A volume for one node is not published to a node while another attachment of it is held: it may
//!   be there, whatever its status says.
//! - One call at a time is under way for a volume.
//!
//! The volume's finalizer goes with its last attachment, and not only when the volume is deleted.

mod call;
mod comparing;
mod hearing;
mod limit;
mod measuring;
mod step;
mod unit;
mod writes;

#[cfg(feature = "run")]
mod run;
#[cfg(feature = "run")]
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitts_api::machine::{
    Cache, Effect, Input, Inventory, Machine, Measure, Moment, Scope, Watch, Write,
};
use bitts_api::{Attachment, CsiNode, Kind, Name, NodeName, Volume, VolumeMode, names};

use crate::csi_volume::of_driver;
use crate::wanted::is_single;

pub use call::{Because, Can, Context, Publish, Report, Task, Ticket, Trouble, Unpublish};
use comparing::Sighting;
pub(crate) use limit::Limit;
#[cfg(feature = "run")]
pub use run::{CsiConfig, run_csi};
use step::{Obstacle, Step, View, VolumeIs};
use unit::{Answer, Shelf, Unit};
use writes::LettingGo;

type Effects = Vec<Effect<Task, PublisherAlarm>>;

/// What is watched.
pub(crate) const KINDS: [Kind; 3] = [Kind::Attachment, Kind::Volume, Kind::CsiNode];

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublisherAlarm {
    /// Look at an attachment again.
    Attachment(Name),
    /// Look at a volume again.
    Volume(Name),
    /// Ask the driver again what it can do.
    Ask,
    /// Ask it where its volumes are.
    Compare,
}

/// What can be set about a [`Publisher`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherOptions {
    /// How many calls may be under way at a time at most.
    pub calls_at_once: usize,
    /// How often the driver is asked where its volumes are, if it can tell; never where absent.
    pub compare: Option<Duration>,
    /// The file system of volumes that name none.
    pub fs_type: Box<str>,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            calls_at_once: 100,
            compare: Some(Duration::from_secs(60)),
            fs_type: "".into(),
        }
    }
}

/// A call that is under way.
#[derive(Debug)]
struct Call {
    began: Moment,
}

/// What is known of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    /// It was not asked yet, or cannot be reached.
    Unknown,
    Known(Can),
}

/// Has one driver attach and detach.
#[derive(Debug)]
pub struct Publisher {
    driver: Box<str>,
    finalizer: Arc<str>,
    options: PublisherOptions,
    state: Driver,
    ask_failures: u32,
    /// Those of this driver only, as all that follows.
    attachments: Cache<Attachment>,
    volumes: Cache<Volume>,
    nodes: Cache<CsiNode>,
    units: BTreeMap<Name, Unit>,
    shelves: BTreeMap<Name, Shelf>,
    of_node: BTreeMap<NodeName, BTreeSet<Name>>,
    of_handle: BTreeMap<Box<str>, BTreeSet<Name>>,
    calls: BTreeMap<Box<str>, Call>,
    /// Those that wait for one of the calls under way to end.
    queue: VecDeque<Name>,
    limit: Limit,
    /// When the list that is under way was asked for.
    comparing: Option<Moment>,
    compares: bool,
    repairs: u64,
    /// What the driver has on nodes where no attachment is.
    unexplained: BTreeMap<(Box<str>, Box<str>), Sighting>,
    calls_ended: measuring::Calls,
    is_ready: bool,
    now: Moment,
    dirty: BTreeSet<Name>,
    dirty_volumes: BTreeSet<Name>,
    out: Effects,
}

impl Publisher {
    /// One for the driver of this name, that knows nothing yet.
    #[must_use]
    pub fn new(driver: &str, options: PublisherOptions) -> Self {
        Self {
            driver: driver.into(),
            finalizer: writes::finalizer(driver),
            limit: Limit::new(options.calls_at_once),
            options,
            state: Driver::Unknown,
            ask_failures: 0,
            attachments: Cache::default(),
            volumes: Cache::default(),
            nodes: Cache::default(),
            units: BTreeMap::new(),
            shelves: BTreeMap::new(),
            of_node: BTreeMap::new(),
            of_handle: BTreeMap::new(),
            calls: BTreeMap::new(),
            queue: VecDeque::new(),
            comparing: None,
            compares: false,
            repairs: 0,
            unexplained: BTreeMap::new(),
            calls_ended: measuring::Calls::default(),
            is_ready: false,
            now: Moment::default(),
            dirty: BTreeSet::new(),
            dirty_volumes: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    fn attachment(&self, name: &Name) -> Option<&Arc<Attachment>> {
        self.attachments.get(&(None, name.clone()))
    }

    fn volume(&self, name: &Name) -> Option<&Arc<Volume>> {
        self.volumes.get(&(None, name.clone()))
    }

    /// Decides what comes next for an attachment.
    fn decide(&mut self, name: &Name) {
        let Driver::Known(can) = self.state else {
            return;
        };
        let Some(attachment) = self.attachment(name).cloned() else {
            return;
        };
        let Some(unit) = self.units.get(name) else {
            return;
        };
        if unit.writes || unit.calls {
            return;
        }
        if let Some(answer) = unit.answer.clone() {
            return self.record(&attachment, &answer);
        }
        if let Some(until) = unit.rests_until(self.now) {
            let after = until.0.saturating_sub(self.now.0);
            let alarm = PublisherAlarm::Attachment(name.clone());
            return self.out.push(Effect::Wake(after, alarm));
        }
        let node_id = self.node_id(&attachment.node);
        let elsewhere = self.elsewhere(&attachment);
        let view = self.view(&attachment, can, node_id.as_deref(), elsewhere.as_ref());
        match view.step() {
            Step::Rest => {}
            Step::Trust => {
                let write = writes::attached(&attachment, &Context::new());
                self.write(name, write);
            }
            Step::Hold {
                volume,
                attachment: note,
            } => {
                let note: Option<Box<str>> = note.map(Into::into);
                self.hold(&attachment, volume, note.as_deref());
            }
            Step::Publish(node_id) => {
                let node_id = node_id.into();
                self.publish(&attachment, can, node_id);
            }
            Step::Unpublish(node_id) => {
                let node_id = node_id.into();
                self.unpublish(&attachment, node_id, Because::Deleted);
            }
            Step::Leave { before, now } => {
                let because = Because::Renamed {
                    node: attachment.node.clone(),
                    now: now.into(),
                };
                let before = before.into();
                self.unpublish(&attachment, before, because);
            }
            Step::LetGo => self.let_go(&attachment),
            Step::Stuck(obstacle) => {
                let message = self.stuck(&attachment, obstacle);
                let write = writes::failed(&attachment, &message, None);
                self.write(name, write);
            }
        }
    }

    fn view<'a>(
        &'a self,
        attachment: &'a Attachment,
        can: Can,
        node_id: Option<&'a str>,
        elsewhere: Option<&'a NodeName>,
    ) -> View<'a> {
        let unit = self.units.get(&attachment.meta.name);
        let volume = attachment.volume.as_ref();
        let volume = volume.and_then(|name| self.volume(name));
        let is_ours = |volume: &&Arc<Volume>| {
            of_driver(volume).is_some_and(|v| v.volume.driver == self.driver)
        };
        let remembered = unit.is_some_and(|unit| unit.volume.is_some());
        View {
            attachment,
            can,
            held: self.is_held(&attachment.meta),
            volume: match volume.filter(is_ours) {
                Some(volume) if volume.meta.is_deleting() => VolumeIs::Deleting,
                Some(_) => VolumeIs::There,
                None if remembered => VolumeIs::Gone,
                None => VolumeIs::Unknown,
            },
            // What is being let go is not held, whatever comes of that.
            volume_held: volume.is_some_and(|volume| {
                let shelf = self.shelves.get(&volume.meta.name);
                self.is_held(&volume.meta) && shelf.is_none_or(|shelf| !shelf.writes)
            }),
            node_id,
            published_as: attachment.meta.annotations.get(names::PUBLISHED_NODE_ID),
            elsewhere,
            doubted: unit.is_some_and(|unit| unit.doubted),
            left: unit.and_then(|unit| unit.left.as_deref()),
        }
    }

    fn is_held(&self, meta: &bitts_api::Meta) -> bool {
        meta.finalizers.contains(&self.finalizer)
    }

    /// What the driver calls a node.
    fn node_id(&self, node: &NodeName) -> Option<Box<str>> {
        let node = self.nodes.get(&(None, node.as_str().into()))?;
        let mut drivers = node.drivers.iter();
        let on_it = drivers.find(|driver| driver.name == self.driver)?;
        (!on_it.node_id.is_empty()).then(|| on_it.node_id.clone())
    }

    /// The other node where a volume for one node may be (section 13, weakness 31).
    fn elsewhere(&self, attachment: &Attachment) -> Option<NodeName> {
        let unit = self.units.get(&attachment.meta.name)?;
        let volume = of_driver(unit.volume.as_ref()?)?;
        if !is_single(volume.modes) {
            return None;
        }
        let others = self.of_handle.get(unit.handle.as_ref()?)?;
        let other = others.iter().find_map(|name| {
            let other = self.attachment(name)?;
            let is_next = self.units.get(name).is_some_and(|unit| unit.holds);
            let may_be_there = self.is_held(&other.meta) || is_next;
            (other.node != attachment.node && may_be_there).then_some(other)
        });
        other.map(|other| other.node.clone())
    }

    fn stuck(&self, attachment: &Attachment, obstacle: Obstacle<'_>) -> String {
        let (driver, node) = (&self.driver, &attachment.node);
        let volume = attachment.volume.as_ref();
        match (obstacle, volume) {
            (Obstacle::NoVolume, None) => {
                "volumes that pods name without a PersistentVolume are not attached".to_owned()
            }
            (Obstacle::NoVolume, Some(volume)) => format!(
                "persistentvolume \"{volume}\" not found, or not one of driver {driver}: without it \
                 nobody knows what to detach or attach"
            ),
            (Obstacle::VolumeDeleting, _) => format!(
                "PersistentVolume {:?} is marked for deletion",
                volume.map_or("", Name::as_str)
            ),
            (Obstacle::NoNode, _) => format!(
                "CSINode {node} does not contain driver {driver}: see whether the driver's node plugin \
                 runs on that node and is registered"
            ),
            (Obstacle::Elsewhere(other), _) => format!(
                "the volume is for one node, and may still be on node {other}: it is attached to {node} \
                 when the driver has detached it from there"
            ),
        }
    }

    /// Tells the API what the driver answered.
    fn record(&mut self, attachment: &Attachment, answer: &Answer) {
        let name = &attachment.meta.name;
        let write = match answer {
            // It has to be detached right away.
            Answer::Attached(_) if attachment.meta.is_deleting() => None,
            Answer::Attached(context) => writes::attached(attachment, context),
            Answer::Failed { message, code } => writes::failed(attachment, message, *code),
            Answer::Detached if !self.is_held(&attachment.meta) => None,
            Answer::Detached => match writes::detached(attachment, &self.finalizer) {
                Some(write) => Some(write),
                None => return self.let_go(attachment),
            },
        };
        if write.is_none() {
            if let Some(unit) = self.units.get_mut(name) {
                unit.answer = None;
            }
            self.dirty.insert(name.clone());
        }
        self.write(name, write);
    }

    fn write(&mut self, name: &Name, write: Option<Write>) {
        if let (Some(write), Some(unit)) = (write, self.units.get_mut(name)) {
            unit.writes = true;
            self.out.push(Effect::Write(write));
        }
    }

    /// A25, A26: in parallel, but both before the driver is called.
    fn hold(&mut self, attachment: &Attachment, volume: bool, note: Option<&str>) {
        if let Some(node_id) = note {
            let write = writes::hold_attachment(attachment, &self.finalizer, node_id);
            if let Some(unit) = self.units.get_mut(&attachment.meta.name) {
                unit.holds = true;
            }
            self.write(&attachment.meta.name, Some(write));
        }
        let volume = attachment.volume.as_ref().filter(|_| volume);
        if let Some(volume) = volume.and_then(|name| self.volume(name)).cloned() {
            let now = self.now;
            let shelf = self.shelves.entry(volume.meta.name.clone()).or_default();
            if !shelf.writes && !shelf.rests(now) {
                shelf.writes = true;
                let write = writes::hold_volume(&volume, &self.finalizer);
                self.out.push(Effect::Write(write));
            }
        }
    }

    fn let_go(&mut self, attachment: &Attachment) {
        if let Some(unit) = self.units.get_mut(&attachment.meta.name) {
            unit.writes = true;
            let destroy = writes::let_go_attachment(attachment, &self.finalizer);
            self.out.push(Effect::Destroy(destroy));
        }
    }

    fn publish(&mut self, attachment: &Attachment, can: Can, node_id: Box<str>) {
        let Some(volume) = self.callable(attachment) else {
            return;
        };
        let Some(of) = of_driver(&volume) else {
            return;
        };
        let fs_type = of.volume.fs_type.as_ref().unwrap_or(&self.options.fs_type);
        let publish = Publish {
            ticket: Ticket {
                attachment: attachment.meta.name.clone(),
                uid: attachment.meta.uid.clone(),
                handle: of.volume.handle.clone(),
            },
            node_id,
            read_only: of.volume.read_only && can.publish_read_only,
            modes: of.modes,
            one_writer: can.one_writer,
            is_block: volume.volume_mode == VolumeMode::Block,
            fs_type: fs_type.clone(),
            mount_options: volume.mount_options.clone(),
            attributes: of.volume.attributes.clone(),
            secret: of.volume.attach_secret.clone(),
        };
        self.call(&publish.ticket.clone(), Task::Publish(Box::new(publish)));
    }

    fn unpublish(&mut self, attachment: &Attachment, node_id: Box<str>, because: Because) {
        let Some(volume) = self.callable(attachment) else {
            return;
        };
        let Some(of) = of_driver(&volume) else {
            return;
        };
        let unpublish = Unpublish {
            ticket: Ticket {
                attachment: attachment.meta.name.clone(),
                uid: attachment.meta.uid.clone(),
                handle: of.volume.handle.clone(),
            },
            node_id,
            because,
            secret: of.volume.attach_secret.clone(),
        };
        let ticket = unpublish.ticket.clone();
        self.call(&ticket, Task::Unpublish(Box::new(unpublish)));
    }

    /// The volume of an attachment, if the driver may be called for it now. Otherwise it waits for its
    /// turn, or for the volume's call that is under way.
    fn callable(&mut self, attachment: &Attachment) -> Option<Arc<Volume>> {
        let unit = self.units.get_mut(&attachment.meta.name)?;
        let handle = unit.handle.as_ref()?;
        if self.calls.contains_key(handle) {
            return None;
        }
        if self.calls.len() >= self.limit.allowed() {
            if !unit.queued {
                unit.queued = true;
                self.queue.push_back(attachment.meta.name.clone());
            }
            return None;
        }
        unit.volume.clone()
    }

    fn call(&mut self, ticket: &Ticket, task: Task) {
        if let Some(unit) = self.units.get_mut(&ticket.attachment) {
            unit.calls = true;
            let call = Call { began: self.now };
            self.calls.insert(ticket.handle.clone(), call);
            self.out.push(Effect::Task(task));
        }
    }

    /// The finalizer goes from volumes that nothing attaches any more.
    fn decide_volume(&mut self, name: &Name) {
        let now = self.now;
        let volume = self.volume(name).cloned();
        let Some(shelf) = self.shelves.get_mut(name) else {
            return;
        };
        if shelf.writes || shelf.rests(now) || !shelf.attachments.is_empty() {
            return;
        }
        match volume {
            Some(volume) if volume.meta.finalizers.contains(&self.finalizer) => {
                shelf.writes = true;
                self.out
                    .push(match writes::let_go_volume(&volume, &self.finalizer) {
                        LettingGo::Harmless(write) => Effect::Write(write),
                        LettingGo::Last(destroy) => Effect::Destroy(destroy),
                    });
            }
            _ => drop(self.shelves.remove(name)),
        }
    }

    fn settle(&mut self) {
        loop {
            if let Some(name) = self.dirty.pop_first() {
                self.decide(&name);
            } else if let Some(name) = self.dirty_volumes.pop_first() {
                self.decide_volume(&name);
            } else if self.calls.len() < self.limit.allowed()
                && let Some(name) = self.queue.pop_front()
            {
                if let Some(unit) = self.units.get_mut(&name) {
                    unit.queued = false;
                }
                self.decide(&name);
            } else {
                return;
            }
        }
    }
}

impl Machine for Publisher {
    type Task = Task;
    type Report = Report;
    type Alarm = PublisherAlarm;

    fn watches(&self) -> Vec<Watch> {
        let watch = |kind| Watch {
            kind,
            scope: Scope::All,
        };
        KINDS.into_iter().map(watch).collect()
    }

    fn handle(&mut self, now: Moment, input: Input<Report, PublisherAlarm>) -> Effects {
        self.now = now;
        match input {
            Input::Listed(kind, objects) => self.list(kind, objects),
            Input::Found(_, Some(object)) | Input::Seen(object) => self.see(object),
            Input::Found(_, None) => {} // it follows nothing
            Input::Deleted(key, uid) => self.delete(key, &uid),
            Input::Finished(key, outcome) => self.finished(&key, &outcome),
            Input::Report(report) => self.reported(report),
            Input::Alarm(PublisherAlarm::Attachment(name)) => drop(self.dirty.insert(name)),
            Input::Alarm(PublisherAlarm::Volume(name)) => self.look_at_volume(name),
            Input::Alarm(PublisherAlarm::Ask) => self.ask(),
            Input::Alarm(PublisherAlarm::Compare) => self.compare(),
        }
        let listed = self.attachments.is_listed() && self.volumes.is_listed();
        if !self.is_ready && listed && self.nodes.is_listed() {
            self.is_ready = true;
            self.look_at_all();
            self.ask();
        }
        if self.is_ready {
            self.settle();
        }
        std::mem::take(&mut self.out)
    }

    /// Of attachments and volumes only those of the driver are kept, which says nothing of the others.
    fn inventory(&self, kind: Kind) -> Option<Inventory> {
        match kind {
            Kind::CsiNode => self.nodes.inventory(),
            _ => None,
        }
    }

    fn measures(&self) -> Vec<Measure> {
        self.count()
    }
}
