//! The agent's part beside a kubelet (`docs/healing.md`): which of the kubelet's mounts it watches over,
//! and when one is mended. It never makes a first mount, and never takes one away.

use std::collections::BTreeSet;

use bitts_api::Pod;
use bitts_api::machine::{Effect, Place};

use super::{Agent, Effects};
use crate::heal::server;
use crate::ledger::{Actual, Job, Kubelet};
use crate::task::{Mount, MountKey, Task};

/// Whether a kubelet's mount of this volume is watched over: one that a server answers for.
pub(crate) fn is_watched_over(mount: &Mount) -> bool {
    server(mount).is_some()
}

/// The kubelet may be taking its volumes down.
fn is_leaving(pod: &Pod) -> bool {
    pod.is_terminated() || pod.meta.is_deleting()
}

impl Agent {
    /// Does what piled up, and forgets what is a kubelet's to do.
    pub(super) fn settle_beside(&mut self, out: &mut Effects) {
        self.stages_to_look_at.clear();
        self.empty_to_remove.clear();
        loop {
            if let Some(place) = self.pods_to_look_at.pop_first() {
                self.watch_over_pod(&place, out);
            } else if let Some(key) = self.volumes_to_look_at.pop_first() {
                self.watch_over_volume(key, out);
            } else {
                return;
            }
        }
    }

    fn watch_over_pod(&mut self, place: &Place, out: &mut Effects) {
        let pod = self.pods.get(place).cloned();
        match pod {
            Some(pod) if !is_leaving(&pod) => self.plan_pod(place, &pod, out),
            pod => {
                self.follow(place, BTreeSet::new(), out);
                let keys = pod.map(|pod| self.ledger.of_pod(&pod.meta.uid));
                self.volumes_to_look_at.extend(keys.into_iter().flatten());
            }
        }
    }

    fn watch_over_volume(&mut self, key: MountKey, out: &mut Effects) {
        let is_over = self.pod(&key.pod).is_none_or(|pod| is_leaving(pod));
        let Some(record) = self.ledger.get(&key) else {
            return;
        };
        if is_over {
            // What is under way ends first.
            if record.running.is_none() {
                self.ledger.close(&key);
                self.wards.forget(&key);
                out.push(Effect::Task(Task::Leave(key)));
            }
            return;
        }
        let job = record.mend();
        let task = match (job, &record.actual, &record.desired) {
            (Some(Job::Renew), Actual::Spoilt(mount), _) => Task::Renew(mount.clone()),
            (Some(Job::Mount), _, Some(mount)) => Task::Mount(mount.clone()),
            (None, Actual::Absent, Some(_)) if record.kubelet == Kubelet::Unknown => {
                record.kubelet = Kubelet::Awaited;
                Task::Await(key)
            }
            _ => return,
        };
        out.push(Effect::Task(task));
    }

    /// A kubelet has mounted these.
    pub(super) fn appeared(&mut self, keys: Vec<MountKey>, out: &mut Effects) {
        self.watch = Some(Task::Watch);
        for key in keys {
            let Some(record) = self.ledger.get(&key) else {
                continue;
            };
            let Some(mount) = record.desired.clone() else {
                continue;
            };
            record.succeed(Actual::Mounted(mount.clone()));
            record.kubelet = Kubelet::Seen;
            // The API has nothing to tell of it any more.
            let pod = self.by_uid.get(&key.pod).cloned();
            self.pods_to_look_at.extend(pod);
            self.mounted_well(&mount, out);
        }
    }

    /// A volume is the kubelet's alone.
    pub(super) fn left(&mut self, key: MountKey) {
        if let Some(record) = self.ledger.get(&key)
            && record.running.is_some()
        {
            record.succeed(Actual::Absent);
            self.wards.forget(&key);
            self.volumes_to_look_at.insert(key);
        }
    }
}
