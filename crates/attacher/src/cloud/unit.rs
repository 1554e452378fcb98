//! What is remembered of a disk, and of a disk on a node. All of it may be lost: the cloud is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitts_api::machine::{Moment, Place};
use bitts_api::{Name, NodeName};

use super::place::Instance;
use crate::unit::back_off;
use crate::verdict::Act;

/// What the cloud is asked about a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Look,
    Attach(NodeName),
    Detach(NodeName, &'static str),
}

/// A disk.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Where it is wanted, listed, in use or attached.
    pub(super) nodes: BTreeMap<NodeName, OnNode>,
    /// The machines that have it, as the cloud said; absent where something may have changed since.
    pub(super) users: Option<BTreeSet<Instance>>,
    /// A driver may have moved it since a look that is under way began.
    pub(super) is_stale: bool,
    /// The machines that do not run, as the cloud said at the same time.
    pub(super) off: BTreeSet<Instance>,
    /// Where a detach was begun and not heard to end: it may still come true, so the disk is attached anew
    /// before it is listed again (A14).
    pub(super) leaving: BTreeSet<NodeName>,
    /// What is under way, and since when.
    pub(super) call: Option<(Call, Moment)>,
    /// It waits for its turn to call.
    pub(super) queued: bool,
    /// What last went wrong.
    pub(super) trouble: Option<String>,
    /// When the last call ended.
    pub(super) called_at: Option<Moment>,
    /// When the cloud is asked again where it is.
    pub(super) ask_at: Option<Moment>,
    /// How often it was asked so.
    pub(super) asks: u32,
    /// When it is looked at anew whatever happens.
    pub(super) wake_at: Option<Moment>,
    failures: u32,
    rests_until: Option<Moment>,
}

impl Unit {
    pub(super) fn rests_until(&self, now: Moment) -> Option<Moment> {
        self.rests_until.filter(|until| *until > now)
    }

    /// A call did not succeed. What came of it is not known before the cloud was asked.
    pub(super) fn fail(&mut self, now: Moment, message: Option<String>) {
        self.failures += 1;
        self.rests_until = Some(now + back_off(self.failures));
        self.users = None;
        if message.is_some() {
            self.trouble = message;
        }
    }

    pub(super) fn succeed(&mut self) {
        self.failures = 0;
        self.rests_until = None;
        self.trouble = None;
    }

    /// Something changed that it may have failed for.
    pub(super) fn hurry(&mut self) {
        self.rests_until = None;
    }

    /// Whether a call is under way that changes where it is for this node.
    pub(super) fn attaches_to(&self, node: &NodeName) -> bool {
        matches!(&self.call, Some((Call::Attach(to), _)) if to == node)
    }

    pub(super) fn detaches_from(&self, node: &NodeName) -> bool {
        matches!(&self.call, Some((Call::Detach(from, _), _)) if from == node)
    }
}

/// A disk on a node, there or wanted there.
#[derive(Debug, Default)]
pub(super) struct OnNode {
    /// The pods that ask for it, with the PersistentVolume by which they do.
    pub(super) pods: BTreeMap<Place, Name>,
    /// Whether the node's status shall list it.
    pub(super) report: bool,
    /// It was seen wanted and not attached: then that it is attached is news.
    pub(super) waited: bool,
    /// What it waits for, and since when.
    pub(super) waiting: Option<(Act, Moment)>,
    /// Since when no pod asks for it.
    pub(super) idle_since: Option<Moment>,
    told: BTreeMap<Place, (String, Moment)>,
}

impl OnNode {
    pub(super) fn listed(report: bool) -> Self {
        Self {
            report,
            ..Self::default()
        }
    }

    pub(super) fn leave(&mut self, pod: &Place) {
        self.pods.remove(pod);
        self.told.remove(pod);
    }

    /// Notes what it waits for.
    pub(super) fn wait(&mut self, now: Moment, act: Act) {
        if !matches!(self.waiting, Some((known, _)) if known == act) {
            self.waiting = Some((act, now));
        }
    }

    /// Whether a pod has yet to be told of this, or to be told again.
    pub(super) fn tells(
        &mut self,
        pod: &Place,
        message: &str,
        now: Moment,
        renew: Duration,
    ) -> bool {
        let known = self.told.get(pod);
        if known.is_some_and(|(told, at)| told == message && now < *at + renew) {
            return false;
        }
        self.told.insert(pod.clone(), (message.to_owned(), now));
        true
    }

    /// All is well: there is nothing to be told.
    pub(super) fn calm(&mut self) {
        self.waiting = None;
        self.told.clear();
    }
}
