//! What the agent knows of the volumes in its node's pods: what shall be, what is, what is under
//! way. All of it comes from the API and the scan; none is kept anywhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::{Name, ObjectKey, Uid, VolumeMode};

use crate::plugins::Plugin;
use crate::retry::Retry;
use crate::task::{Mount, MountKey, StageKey, Staging};

/// A kind of work on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Mount,
    /// Mounting anew what is there but of no more use.
    Renew,
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
    /// This mount, which only a new one can replace.
    Spoilt(Mount),
}

/// One volume in one pod.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Where the pod's object is, or was.
    pub(crate) pod: Option<ObjectKey>,
    pub(crate) desired: Option<Mount>,
    pub(crate) actual: Actual,
    pub(crate) running: Option<Job>,
    /// The device that a scan found mounted there.
    pub(crate) found_on: Option<StageKey>,
    pub(crate) retry: Retry<Job>,
    /// How far a kubelet is with it.
    pub(crate) kubelet: Kubelet,
}

/// What is known of a kubelet's mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kubelet {
    /// Nobody looks out for it.
    #[default]
    Unknown,
    /// The worker does.
    Awaited,
    /// It was seen to be there.
    Seen,
}

impl Record {
    /// What is to be done now, given whether the pod is over and whether what the mount needs is
    /// staged. Starts it.
    pub(crate) fn start(&mut self, pod_is_over: bool, is_staged: bool) -> Option<Job> {
        let job = match (&self.desired, &self.actual) {
            _ if self.running.is_some() => return None,
            (_, Actual::Absent) if pod_is_over => return None,
            _ if pod_is_over => Job::Unmount,
            // A volume stays as long as its pod runs, whatever became of the claim (M3), and as it was
            // mounted, whatever became of its options.
            (_, Actual::Mounted(_)) | (None, Actual::Absent | Actual::Unsure) => return None,
            (_, Actual::Spoilt(_)) => Job::Renew,
            (Some(_), Actual::Absent | Actual::Unsure) if !is_staged => return None,
            (Some(_), Actual::Absent | Actual::Unsure) => Job::Mount,
        };
        if !self.retry.allows(job) {
            return None;
        }
        self.running = Some(job);
        Some(job)
    }

    /// What is to be done now about a kubelet's mount: nothing before it was there. Starts it.
    pub(crate) fn mend(&mut self) -> Option<Job> {
        let job = match &self.actual {
            Actual::Unsure => Job::Mount,
            Actual::Spoilt(_) => Job::Renew,
            Actual::Absent | Actual::Mounted(_) => return None,
        };
        let was_there = self.kubelet == Kubelet::Seen;
        if !was_there || self.running.is_some() || !self.retry.allows(job) {
            return None;
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
            self.retry.reset();
        }
    }

    /// The device that the mount still needs.
    pub(crate) fn needs(&self, pod_is_over: bool) -> Option<&Staging> {
        let desired = self.desired.as_ref().filter(|_| !pod_is_over)?;
        let waits = matches!(self.actual, Actual::Absent | Actual::Unsure);
        desired.staging.as_deref().filter(|_| waits)
    }

    /// The devices that have to stay for it.
    pub(crate) fn stages(&self) -> impl Iterator<Item = StageKey> + use<'_> {
        let mounted = match &self.actual {
            Actual::Mounted(mount) | Actual::Spoilt(mount) => Some(mount),
            Actual::Absent | Actual::Unsure => None,
        };
        let mounts = self.desired.iter().chain(mounted);
        let stages = mounts.filter_map(|mount| mount.staging.as_deref());
        let stages = stages.map(|staging| &staging.key).chain(&self.found_on);
        stages.cloned()
    }

    /// The work ended well.
    pub(crate) fn succeed(&mut self, actual: Actual) {
        self.running = None;
        self.actual = actual;
        self.retry.reset();
    }

    /// The work did not end well. Returns when to try again and the number of that try.
    pub(crate) fn fail(&mut self) -> (Duration, u32) {
        let job = self.running.take();
        if self.actual == Actual::Absent {
            // It may have come halfway (M9); what is known to be mounted stays so (M10).
            self.actual = Actual::Unsure;
        }
        self.retry.fail(job)
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

    /// The volumes in pods for which a device has to stay.
    pub(crate) fn users(&self, stage: &StageKey) -> impl Iterator<Item = (&MountKey, &Record)> {
        let of_type = self.0.iter().filter(|(key, _)| key.plugin == stage.plugin);
        of_type.filter(|(_, record)| record.stages().any(|one| one == *stage))
    }

    /// All volumes of all pods.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &MountKey> {
        self.0.keys()
    }

    pub(crate) fn of_pod(&self, pod: &Uid) -> Vec<MountKey> {
        let first = MountKey {
            pod: pod.clone(),
            volume: "".into(),
            plugin: Plugin::Local,
            mode: VolumeMode::Filesystem,
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

    /// Whether another pod than this has the volume mounted, as far as is known.
    pub(crate) fn is_used_beside(&self, key: &MountKey) -> bool {
        self.0.iter().any(|(other, record)| {
            other.volume == key.volume && other.pod != key.pod && record.actual != Actual::Absent
        })
    }

    /// Whether another pod than this has the volume, or is about to.
    pub(crate) fn has_other_pod(&self, volume: &Name, pod: &Uid) -> bool {
        self.0
            .keys()
            .any(|key| key.volume == *volume && key.pod != *pod)
    }
}
