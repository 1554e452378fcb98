//! The agent's part of healing: which mounts are looked at, and what follows from it.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Effect, Event, Moment};
use bitts_api::{Kind, ObjectKey};

use super::{Agent, Effects};
use crate::heal::{Ailment, Notice, Remedy, server};
use crate::ledger::Actual;
use crate::task::{Alarm, Mount, MountKey, Task};

impl Agent {
    /// Has it notice mounts that vanish, and ask each server at this interval, if any, whether its
    /// mounts are well.
    #[must_use]
    pub fn healing(mut self, interval: Option<Duration>) -> Self {
        self.wards.interval = interval;
        self.watch = Some(Task::Watch);
        self
    }

    /// These are not in the mount table.
    pub(super) fn missing(&mut self, now: Moment, keys: Vec<MountKey>, out: &mut Effects) {
        self.watch = Some(Task::Watch);
        for key in keys {
            self.lost(now, key, out);
        }
    }

    fn lost(&mut self, now: Moment, key: MountKey, out: &mut Effects) {
        let Some(mount) = self.believed(&key) else {
            return;
        };
        // What is being mounted anew, or taken down, will be looked at then.
        if self.is_busy(&key) || self.is_over(&key.pod) {
            self.doubt(&key);
            return;
        }
        let notice = self.wards.found(&mount, Ailment::Lost);
        self.tell(&key, notice, out);
        match self.wards.lost(now, &key) {
            Duration::ZERO => self.doubt(&key),
            later => out.push(Effect::Wake(later, Alarm::Heal(key))),
        }
    }

    /// The time has come to mount again what vanished.
    pub(super) fn heal(&mut self, key: &MountKey) {
        if self.wards.ailment(key) == Some(&Ailment::Lost) {
            self.doubt(key);
        }
    }

    /// Asks all servers of mounts that are expected to be well.
    pub(super) fn probe(&mut self, out: &mut Effects) {
        self.wards.is_armed = false;
        let mut by_server = BTreeMap::<Box<str>, Vec<MountKey>>::new();
        let keys: Vec<_> = self.ledger.keys().cloned().collect();
        for key in keys {
            let server = self.believed(&key).and_then(|mount| server(&mount));
            if let Some(server) = server
                && !self.is_busy(&key)
                && !self.is_over(&key.pod)
            {
                by_server.entry(server).or_default().push(key);
            }
        }
        if !by_server.is_empty() {
            self.arm(out);
        }
        for (server, mounts) in by_server {
            if self.wards.asked.insert(server.clone()) {
                out.push(Effect::Task(Task::Probe { server, mounts }));
            }
        }
    }

    /// What a server said, or that it did not.
    pub(super) fn probed(
        &mut self,
        now: Moment,
        server: &str,
        found: Vec<(MountKey, Option<Ailment>)>,
        out: &mut Effects,
    ) {
        self.wards.asked.remove(server);
        for (key, ailment) in found {
            // What is being mounted anew was asked of too early.
            if self.is_busy(&key) || self.is_over(&key.pod) {
                continue;
            }
            let Some(mount) = self.believed(&key) else {
                continue;
            };
            match ailment {
                None => {
                    let notice = self.wards.well(&mount, false);
                    self.tell(&key, notice, out);
                    self.trust(&key, mount);
                }
                Some(Ailment::Lost) if self.wards.ailment(&key) == Some(&Ailment::Lost) => {}
                Some(Ailment::Lost) => self.lost(now, key, out),
                Some(ailment) => {
                    let remedy = ailment.remedy();
                    let notice = self.wards.found(&mount, ailment);
                    self.tell(&key, notice, out);
                    if remedy == Remedy::Renew {
                        self.spoil(key, mount);
                    }
                }
            }
        }
    }

    /// A volume was mounted.
    pub(super) fn mounted_well(&mut self, mount: &Mount, out: &mut Effects) {
        let notice = self.wards.well(mount, true);
        self.tell(&mount.key, notice, out);
        if server(mount).is_some() {
            self.arm(out);
        }
    }

    fn arm(&mut self, out: &mut Effects) {
        if let Some(interval) = self.wards.interval
            && !self.wards.is_armed
        {
            self.wards.is_armed = true;
            out.push(Effect::Wake(interval, Alarm::Probe));
        }
    }

    /// The mount that the node is believed to have.
    fn believed(&mut self, key: &MountKey) -> Option<Mount> {
        match &self.ledger.get(key)?.actual {
            Actual::Mounted(mount) | Actual::Spoilt(mount) => Some(mount.clone()),
            Actual::Absent | Actual::Unsure => None,
        }
    }

    fn is_busy(&mut self, key: &MountKey) -> bool {
        let record = self.ledger.get(key);
        record.is_some_and(|record| record.running.is_some())
    }

    /// Nobody knows any more whether it is mounted: it is mounted again, which changes nothing
    /// where it is.
    fn doubt(&mut self, key: &MountKey) {
        if let Some(record) = self.ledger.get(key) {
            record.actual = Actual::Unsure;
            self.volumes_to_look_at.insert(key.clone());
        }
    }

    /// Only a new mount helps.
    fn spoil(&mut self, key: MountKey, mount: Mount) {
        if let Some(record) = self.ledger.get(&key) {
            record.actual = Actual::Spoilt(mount);
            self.volumes_to_look_at.insert(key);
        }
    }

    /// It became well by itself.
    fn trust(&mut self, key: &MountKey, mount: Mount) {
        if let Some(record) = self.ledger.get(key)
            && matches!(record.actual, Actual::Spoilt(_))
        {
            record.succeed(Actual::Mounted(mount));
        }
    }

    fn tell(&self, key: &MountKey, notice: Option<Notice>, out: &mut Effects) {
        let Some(notice) = notice else {
            return;
        };
        // Without its object nobody reads what is said of a pod.
        let Some((namespace, name)) = self.by_uid.get(&key.pod).cloned() else {
            return;
        };
        out.push(Effect::Event(Event {
            about: ObjectKey {
                kind: Kind::Pod,
                namespace,
                name,
            },
            uid: key.pod.clone(),
            severity: notice.severity,
            reason: notice.reason,
            message: notice.text,
            source: None,
        }));
    }
}
