//! What the agent knows of the volumes in its node's pods: what shall be, what is, what is under
//! way. All of it comes from the API and the scan; none is kept anywhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::{Name, ObjectKey, Uid};

use crate::task::{Mount, MountKey, back_off};

/// A kind of work on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Mount,
    Unmount,
}

/// What the node has of a volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Actual {
    /// Nothing.
    #[default]
    Absent,
    /// Something: a scan found it, or a mount failed on the way.
    Unsure,
    /// This mount.
    Mounted(Mount),
}

/// One volume in one pod.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Where the pod's object is, or was.
    pub(crate) pod: Option<ObjectKey>,
    pub(crate) desired: Option<Mount>,
    pub(crate) actual: Actual,
    pub(crate) running: Option<Job>,
    /// What failed and is tried again when its time has come.
    waiting: Option<Job>,
    failures: u32,
    /// Counts the timers, so that one that no longer counts is known.
    attempt: u32,
    /// The trouble that the user was told of last.
    told: Option<String>,
}

impl Record {
    /// What is to be done now, given whether the pod is over. Starts it.
    pub(crate) fn start(&mut self, pod_is_over: bool) -> Option<Job> {
        let job = match (&self.desired, &self.actual) {
            _ if self.running.is_some() => return None,
            (_, Actual::Absent) if pod_is_over => return None,
            _ if pod_is_over => Job::Unmount,
            // A volume stays as long as its pod runs, whatever became of the claim (M3), and as it was
            // mounted, whatever became of its options.
            (None, _) | (Some(_), Actual::Mounted(_)) => return None,
            (Some(_), Actual::Absent | Actual::Unsure) => Job::Mount,
        };
        if self.waiting == Some(job) {
            return None;
        }
        // Other work than what failed begins anew (N11).
        if self.waiting.take().is_some() {
            self.reset();
        }
        self.running = Some(job);
        Some(job)
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_over(&self, pod_is_over: bool) -> bool {
        self.running.is_none()
            && self.actual == Actual::Absent
            && (pod_is_over || self.desired.is_none())
    }

    /// Sets what shall be. A change is not made to wait for what failed before it.
    pub(crate) fn want(&mut self, mount: Mount) {
        if self.desired.as_ref() != Some(&mount) {
            self.desired = Some(mount);
            self.reset();
        }
    }

    /// The work ended well.
    pub(crate) fn succeed(&mut self, actual: Actual) {
        self.running = None;
        self.actual = actual;
        self.reset();
    }

    /// The work did not end well. Returns when to try again and the number of that try.
    pub(crate) fn fail(&mut self) -> (Duration, u32) {
        self.waiting = self.running.take();
        if self.actual == Actual::Absent {
            // It may have come halfway (M9); what is known to be mounted stays so (M10).
            self.actual = Actual::Unsure;
        }
        self.failures += 1;
        self.attempt += 1;
        (back_off(self.failures), self.attempt)
    }

    /// The time for a try has come.
    pub(crate) fn retry(&mut self, attempt: u32) {
        if attempt == self.attempt {
            self.waiting = None;
        }
    }

    /// Whether the user has yet to be told of this.
    pub(crate) fn tells(&mut self, message: &str) -> bool {
        let new = self.told.as_deref() != Some(message);
        self.told = Some(message.to_owned());
        new
    }

    fn reset(&mut self) {
        self.waiting = None;
        self.failures = 0;
        self.told = None;
    }
}

/// All volumes in pods that the node has or shall have.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<MountKey, Record>);

impl Ledger {
    pub(crate) fn get(&mut self, key: &MountKey) -> Option<&mut Record> {
        self.0.get_mut(key)
    }

    pub(crate) fn open(&mut self, key: MountKey) -> &mut Record {
        self.0.entry(key).or_default()
    }

    pub(crate) fn close(&mut self, key: &MountKey) {
        self.0.remove(key);
    }

    /// All volumes of all pods.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &MountKey> {
        self.0.keys()
    }

    pub(crate) fn of_pod(&self, pod: &Uid) -> Vec<MountKey> {
        let first = MountKey {
            pod: pod.clone(),
            volume: "".into(),
            plugin: crate::task::Plugin::Local,
        };
        self.0
            .range(first..)
            .map(|(key, _)| key)
            .take_while(|key| key.pod == *pod)
            .cloned()
            .collect()
    }

    pub(crate) fn has_pod(&self, pod: &Uid) -> bool {
        !self.of_pod(pod).is_empty()
    }

    /// Whether another pod than this has the volume, or is about to.
    pub(crate) fn has_other_pod(&self, volume: &Name, pod: &Uid) -> bool {
        self.0
            .keys()
            .any(|key| key.volume == *volume && key.pod != *pod)
    }
}
