//! The shape of a role: a state machine without I/O.
//!
//! A [`Machine`] takes one [`Input`] at a time, updates what it knows and returns [`Effect`]s. A
//! runtime (or a simulator, or a test) executes the effects and feeds what came of them back. The
//! machine has no clock, no randomness and no I/O: the same inputs give the same effects in the
//! same order.
//!
//! What holds between a machine and whoever runs it:
//! - A machine decides nothing before every kind it watches was [`Input::Listed`] once (B2).
//! - After a [`Effect::Write`], [`Effect::Destroy`] or [`Effect::Create`] of an object, the machine
//!   emits no other for that object until [`Input::Finished`] came for it. Different objects go in
//!   parallel.
//! - Before `Finished`, the runner feeds what the write returned, or what it read live after a
//!   refusal, as [`Input::Seen`] or [`Input::Deleted`].
//! - A kind is watched or followed object by object ([`Effect::Follow`]), never both. Of a followed
//!   object nothing is known before [`Input::Found`] came for it, and nothing comes for it after
//!   [`Effect::Unfollow`], until it is followed anew.
//! - An effect may be executed and its result lost (the process died, another one took the lease):
//!   the next machine finds out from the objects. Hence every effect is idempotent and carries its
//!   precondition.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use crate::measure::{Durations, Measure, Reading};
use crate::{
    ClassName, Kind, Meta, Name, Namespace, NodeName, Object, ObjectKey, Recent, ResourceVersion,
    Uid,
};

/// A moment of the runner's own clock: time since it started. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl std::ops::Add<Duration> for Moment {
    type Output = Self;
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

/// A role's decisions.
pub trait Machine {
    /// Work that only this role does, e.g. a mount; [`std::convert::Infallible`] when there is none.
    type Task;
    /// What came of a task.
    type Report;
    /// What a timer is for.
    type Alarm;

    /// The objects this machine has to be told about.
    fn watches(&self) -> Vec<Watch>;

    /// Takes one input and says what is to be done. Takes microseconds.
    fn handle(
        &mut self,
        now: Moment,
        input: Input<Self::Report, Self::Alarm>,
    ) -> Vec<Effect<Self::Task, Self::Alarm>>;

    /// Which objects of a kind the machine knows, so that its runner can compare them with a list;
    /// `None` where it keeps none, or was not given the first list yet. It takes longer than an input.
    fn inventory(&self, kind: Kind) -> Option<Inventory> {
        let _ = kind;
        None
    }

    /// What the machine counts for whoever watches over it; asked for between two inputs, so it has
    /// to be kept up as inputs come. Those of one name come together.
    fn measures(&self) -> Vec<Measure> {
        Vec::new()
    }
}

/// Objects that a machine has to be told about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch {
    /// The kind.
    pub kind: Kind,
    /// Which of them.
    pub scope: Scope,
}

/// Which objects of a kind are watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All of them.
    All,
    /// The pods of one node.
    OnNode(NodeName),
    /// The one object of this name.
    Named(Name),
}

/// Something a machine learns.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<R, A> {
    /// All objects of a watch, from a consistent list: whatever else the machine knew of that kind
    /// is gone, and older versions than it knew are believed (an API restored from a backup).
    Listed(Kind, Vec<Object>),
    /// What is at the place of a followed object, from a consistent read: whatever else the machine
    /// knew of it is gone, and an older version than it knew is believed.
    Found(ObjectKey, Option<Object>),
    /// An object as it is now, from a watch, a write or a live read.
    Seen(Object),
    /// An object that is no more.
    Deleted(ObjectKey, Uid),
    /// A write, destruction or creation ended; what it left was fed before this.
    Finished(ObjectKey, Outcome),
    /// A task ended.
    Report(R),
    /// A timer went off.
    Alarm(A),
}

/// How a write, destruction or creation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// The object is no longer there, or another one has its name.
    Gone,
    /// The object changed since it was read, or the one to be created is there already; the one that
    /// was found was fed.
    Conflict,
    /// The evidence for a destruction did not hold when it was read again; what was found was fed.
    Spared,
    /// The API refused for good (forbidden, invalid): the same write will not succeed later.
    Refused(String),
    /// The write may be sent again: the API could not be reached or failed, retries included.
    Failed(String),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<T, A> {
    /// Change an object.
    Write(Write),
    /// Something that loses data or takes it from a user when the reason is wrong. Its evidence is
    /// read live directly before.
    Destroy(Destroy),
    /// Make an object.
    Create(Create),
    /// Tell the user.
    Event(Event),
    /// Work of this role.
    Task(T),
    /// Tell of the object at this place, whether or not there is one, until [`Effect::Unfollow`]:
    /// [`Input::Found`] at first and whenever something may have been missed, then
    /// [`Input::Seen`] and [`Input::Deleted`]. Following what is followed changes nothing.
    Follow(ObjectKey),
    /// Tell of it no longer.
    Unfollow(ObjectKey),
    /// Give [`Input::Alarm`] after this long.
    Wake(Duration, A),
}

/// The object that an effect is meant for, as it was when the decision fell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it lives.
    pub key: ObjectKey,
    /// Which one it is.
    pub uid: Uid,
    /// The version that was decided on.
    pub version: ResourceVersion,
}

impl Target {
    /// The object as it was read.
    #[must_use]
    pub fn of(kind: Kind, meta: &Meta) -> Self {
        Self {
            key: ObjectKey {
                kind,
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
            },
            uid: meta.uid.clone(),
            version: meta.resource_version,
        }
    }
}

/// Which half of an object a write changes; the API ignores the other (V11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Metadata and spec.
    Main,
    /// The status.
    Status,
}

/// A change of one object, valid only for the version it was decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The write's name in traces, logs and metrics, e.g. `reserve-volume`.
    pub step: &'static str,
    /// The object.
    pub target: Target,
    /// The half that changes.
    pub part: Part,
    /// A JSON merge patch (RFC 7386) without the preconditions: whoever executes it adds the
    /// target's uid and version.
    pub patch: serde_json::Value,
}

/// In a patch or body, the value of a condition's `lastTransitionTime`, or of the `time` of an
/// attachment's error, that is to be the time of the write: machines have no clock, so whoever
/// executes the effect puts it there.
pub const NOW: &str = "(now)";

/// An object that is to be made where none of its name is. When its answer is lost and it is sent
/// again, it finds itself: whether what is there is what was wanted is for the machine to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// The step's name in traces, logs and metrics, e.g. `create-ephemeral-claim`.
    pub step: &'static str,
    /// The object.
    pub key: ObjectKey,
    /// The object as JSON: metadata and spec; whoever executes it adds kind, name and namespace.
    pub body: serde_json::Value,
}

/// A change that is executed only while its reasons still hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Destroy {
    /// The step's name in traces, logs and metrics, e.g. `release-volume`.
    pub step: &'static str,
    /// The object.
    pub target: Target,
    /// What is done to it.
    pub action: Destruction,
    /// What must still be true of other objects; each is read live, before anything is done: where
    /// the outcome is neither `Spared` nor `Failed`, all of it held. The target itself always is
    /// read too: it must still have its uid and version.
    pub evidence: Vec<Evidence>,
}

/// What a [`Destroy`] does.
#[derive(Clone, Debug, PartialEq)]
pub enum Destruction {
    /// Applies a merge patch, as [`Write`] does.
    Patch(Part, serde_json::Value),
    /// Deletes the object, with no time for it to end by itself.
    Delete,
}

/// A reason for a destruction, in a form that can be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// No claim of this uid exists at this place.
    ClaimGone(ObjectKey, Uid),
    /// The claim of this uid exists, is being deleted, and its binding was never completed.
    ClaimAbandoned(ObjectKey, Uid),
    /// The claim exists and names another volume than this.
    ClaimElsewhere(ObjectKey, Uid, Name),
    /// No volume of this name belongs to the claim of this uid: it is absent, or its claimRef says
    /// another uid or none. A volume that is nobody's proves nothing (B18).
    VolumeLost(Name, Uid),
    /// No scheduled pod of the claim's namespace uses the claim, whatever its phase
    /// ([`Pod::holds`](crate::Pod::holds); X3, X4).
    ClaimUnused(ObjectKey),
    /// No pod of the claim's namespace uses the claim and may still run, with a node or without
    /// ([`Pod::is_terminated`](crate::Pod::is_terminated); D8).
    ClaimAtRest(ObjectKey),
    /// No volume and no claim, in any namespace, names this VolumeAttributesClass, as the one that
    /// is wanted or the one that is in force (X8).
    AttributesClassUnused(ClassName),
    /// No pod of this uid exists at this place, or deletion was asked for and none of its
    /// containers is reported running.
    PodEnded(ObjectKey, Uid),
    /// No StorageClass of this name exists (B9).
    ClassAbsent(ClassName),
    /// The node of this uid exists and lists this volume neither as attached nor as in use (A35).
    NodeReleased(NodeName, Uid, Box<str>),
    /// No VolumeAttachment names this volume (A25).
    VolumeUnattached(Name),
    /// No node of this name exists.
    NodeAbsent(NodeName),
    /// The node of this uid exists, is not ready, does not list this volume as attached, and an
    /// operator tainted it as out of service (A13.5).
    NodeOutOfService(NodeName, Uid, Box<str>),
    /// The node does not exist, or is not ready and does not list this volume as attached.
    NodeDown(NodeName, Box<str>),
}

/// A message for the user, shown by `kubectl describe` on the object it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The object.
    pub about: ObjectKey,
    /// Which one.
    pub uid: Uid,
    /// Whether something is wrong.
    pub severity: Severity,
    /// A reason users know, from N10.
    pub reason: &'static str,
    /// What happened and what to do.
    pub message: String,
    /// Who says so (N9), where that is not what the role says for all its events.
    pub source: Option<&'static str>,
}

/// Whether an event tells of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// All is well.
    Normal,
    /// The user may have to act.
    Warning,
}

impl Severity {
    /// The value as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An object that a [`Cache`] can hold.
pub trait Cached {
    /// Its metadata.
    fn meta(&self) -> &Meta;
}

macro_rules! cached {
    ($($kind:ident),*) => {$(
        impl Cached for crate::$kind {
            fn meta(&self) -> &Meta {
                &self.meta
            }
        }
    )*};
}
cached!(
    Volume,
    Claim,
    StorageClass,
    AttributesClass,
    Node,
    Pod,
    Attachment,
    CsiDriver,
    CsiNode,
    StorageCapacity
);

/// A namespaced (or not) name, as a key.
pub type Place = (Option<Namespace>, Name);

/// What is known of the objects of one kind, by their places.
pub type Inventory = BTreeMap<Place, (Uid, ResourceVersion)>;

impl Meta {
    /// Where the object lives among those of its kind.
    #[must_use]
    pub fn place(&self) -> Place {
        (self.namespace.clone(), self.name.clone())
    }
}

/// What a machine knows of one kind, kept by the rules that make a watch safe: an older version
/// never replaces a newer one (B3), and what is gone stays gone, except where a consistent list says
/// so.
#[derive(Clone, Debug)]
pub struct Cache<T> {
    objects: BTreeMap<Place, Arc<T>>,
    listed: bool,
    /// What is gone, far more than there are reads under way: a live read that began before may
    /// come in after, and the only thing that would contradict it was heard already.
    gone: Recent<Uid, 4096>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listed: false,
            gone: Recent::default(),
        }
    }
}

/// One difference that an input made to a [`Cache`].
#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    /// The object is new, or replaces an earlier one of the same uid.
    Set {
        /// What was known before, if anything.
        old: Option<Arc<T>>,
        /// What is known now.
        new: Arc<T>,
    },
    /// The object is gone.
    Removed(Arc<T>),
}

impl<T: Cached> Cache<T> {
    /// Whether a consistent list was taken in: before that, an absent object means nothing.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// How many objects are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether no object is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The object at a place.
    #[must_use]
    pub fn get(&self, place: &Place) -> Option<&Arc<T>> {
        self.objects.get(place)
    }

    /// All objects in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values()
    }

    /// Which objects are known, in which versions; `None` before the first list.
    #[must_use]
    pub fn inventory(&self) -> Option<Inventory> {
        let all = self.objects.iter().map(|(place, object)| {
            let meta = object.meta();
            (place.clone(), (meta.uid.clone(), meta.resource_version))
        });
        self.listed.then(|| all.collect())
    }

    /// Takes in an object as it is now. Returns what changed, in order: nothing for a version that
    /// is not newer than the known one or for an object that is gone, and a removal first where
    /// another uid takes the place.
    pub fn see(&mut self, new: Arc<T>) -> Vec<Change<T>> {
        let meta = new.meta();
        if self.gone.contains(&meta.uid) {
            return Vec::new();
        }
        match self.objects.entry(meta.place()) {
            Entry::Vacant(place) => {
                place.insert(new.clone());
                vec![Change::Set { old: None, new }]
            }
            Entry::Occupied(mut place) => {
                let known = place.get().meta();
                if meta.resource_version <= known.resource_version {
                    return Vec::new();
                }
                let same = meta.uid == known.uid;
                let old = place.insert(new.clone());
                if same {
                    vec![Change::Set {
                        old: Some(old),
                        new,
                    }]
                } else {
                    self.gone.insert(old.meta().uid.clone());
                    vec![Change::Removed(old), Change::Set { old: None, new }]
                }
            }
        }
    }

    /// Takes in that an object is no more; nothing changes when another one has its place.
    pub fn remove(&mut self, place: &Place, uid: &Uid) -> Option<Change<T>> {
        self.gone.insert(uid.clone());
        if self.objects.get(place)?.meta().uid != *uid {
            return None;
        }
        self.objects.remove(place).map(Change::Removed)
    }

    /// Takes in what a consistent read found at one place: it is the truth, whatever version was
    /// known. Returns what changed, a removal first.
    pub fn find(&mut self, place: &Place, found: Option<Arc<T>>) -> Vec<Change<T>>
    where
        T: PartialEq,
    {
        let old = self.objects.remove(place);
        let Some(new) = found else {
            return old.map(Change::Removed).into_iter().collect();
        };
        if self.gone.contains(&new.meta().uid) {
            self.gone.clear();
        }
        self.objects.insert(place.clone(), new.clone());
        match old {
            Some(old) if old == new => Vec::new(),
            Some(old) if old.meta().uid != new.meta().uid => {
                vec![Change::Removed(old), Change::Set { old: None, new }]
            }
            old => vec![Change::Set { old, new }],
        }
    }

    /// Drops an object that nothing is told of any more: it is not gone, it is not known.
    pub fn forget(&mut self, place: &Place) {
        self.objects.remove(place);
    }

    /// Takes in a consistent list: it is the truth, whatever versions were known. Returns what
    /// changed, removals first. An equal version is no proof of an equal object: an API restored
    /// from a backup gives its numbers out again.
    pub fn replace(&mut self, list: impl IntoIterator<Item = Arc<T>>) -> Vec<Change<T>>
    where
        T: PartialEq,
    {
        self.listed = true;
        self.gone.clear();
        let mut before = std::mem::take(&mut self.objects);
        let mut set = Vec::new();
        let mut removed = Vec::new();
        for new in list {
            let place = new.meta().place();
            match before.remove(&place) {
                Some(old) if old.meta().uid != new.meta().uid => {
                    removed.push(Change::Removed(old));
                    set.push(Change::Set {
                        old: None,
                        new: new.clone(),
                    });
                }
                Some(old) if old == new => {}
                old => set.push(Change::Set {
                    old,
                    new: new.clone(),
                }),
            }
            self.objects.insert(place, new);
        }
        removed.extend(before.into_values().map(Change::Removed));
        removed.extend(set);
        removed
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key.kind.name(), self.key)
    }
}
