//! What is remembered of one volume on one node. All of it may be lost: it is about when, not about
//! what.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Moment, Place};
use bitts_api::{ClassName, Name};

use crate::verdict::{Act, Grounds};
use crate::wanted::Ask;

/// A write that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flight {
    Create,
    Delete(Grounds),
}

/// One volume on one node.
#[derive(Debug)]
pub(crate) struct Unit {
    /// The name of its VolumeAttachment.
    pub(crate) attachment: Name,
    /// The pods that ask for it, in order, with the PersistentVolume by which they do. Mostly one: a map
    /// takes ten times the memory.
    pub(crate) pods: Vec<(Place, Name)>,
    pub(crate) single: bool,
    pub(crate) class: Option<ClassName>,
    /// What is under way with its VolumeAttachment.
    pub(crate) flight: Option<Flight>,
    /// Whether the node's status shall list it.
    pub(crate) report: bool,
    /// It was seen wanted and not attached: then that it is attached is news.
    pub(crate) waited: bool,
    /// What it waits for, and since when.
    pub(crate) waiting: Option<(Act, Moment)>,
    /// Since when no pod asks for it.
    pub(crate) idle_since: Option<Moment>,
    /// When it is looked at anew whatever happens.
    pub(crate) wake_at: Option<Moment>,
    told: BTreeMap<Place, (String, Moment)>,
    failures: u32,
    rests_until: Option<Moment>,
}

impl Unit {
    pub(crate) fn new(attachment: Name) -> Self {
        Self {
            attachment,
            pods: Vec::new(),
            single: false,
            class: None,
            flight: None,
            report: false,
            waited: false,
            waiting: None,
            idle_since: None,
            wake_at: None,
            told: BTreeMap::new(),
            failures: 0,
            rests_until: None,
        }
    }

    pub(crate) fn ask(&mut self, pod: Place, ask: Ask) {
        self.pods.retain(|(other, _)| *other != pod);
        let at = self.pods.partition_point(|(other, _)| *other < pod);
        self.pods.reserve_exact(1);
        self.pods.insert(at, (pod, ask.volume));
        self.single = ask.single;
        self.class = ask.class;
    }

    pub(crate) fn leave(&mut self, pod: &Place) {
        self.pods.retain(|(other, _)| other != pod);
        self.told.remove(pod);
    }

    pub(crate) fn rests_until(&self, now: Moment) -> Option<Moment> {
        self.rests_until.filter(|until| *until > now)
    }

    /// Something failed: it rests for a while that grows (A16). One conflict is no failure.
    pub(crate) fn fail(&mut self, now: Moment, conflict: bool) {
        self.failures += 1;
        if conflict && self.failures == 1 {
            return;
        }
        self.rests_until = Some(now + back_off(self.failures));
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
        self.rests_until = None;
    }

    /// Notes what it waits for; returns since when.
    pub(crate) fn wait(&mut self, now: Moment, act: Act) -> Moment {
        match self.waiting {
            Some((known, since)) if known == act => since,
            _ => {
                self.waiting = Some((act, now));
                now
            }
        }
    }

    /// Whether a pod has yet to be told of this, or to be told again.
    pub(crate) fn tells(
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
    pub(crate) fn calm(&mut self) {
        self.told.clear();
    }
}

/// 500 ms, doubling to 2 m 2 s (A16).
pub(crate) fn back_off(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(122);
    let doublings = failures.saturating_sub(1).min(8);
    (FIRST * 2_u32.pow(doublings)).min(MOST)
}
