//! The driver's list of where its volumes are, against what attachments say.

use std::collections::{BTreeMap, BTreeSet};

use bitts_api::machine::{Effect, Event, Moment, Severity};
use bitts_api::names::{PUBLISHED_NODE_ID, reason};
use bitts_api::{Name, ObjectKey, Volume};

use super::call::{Task, Trouble};
use super::{Driver, Publisher, PublisherAlarm};
use crate::csi_volume::of_driver;

/// Volumes and the nodes that they are on, by the driver's names for both.
type Listed = BTreeMap<Box<str>, BTreeSet<Box<str>>>;

/// How often in a row a volume was seen where no attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    First,
    /// Somebody was told.
    Told,
}

impl Publisher {
    pub(super) fn compare(&mut self) {
        let lists = matches!(self.state, Driver::Known(can) if can.list);
        if lists && self.comparing.is_none() {
            self.comparing = Some(self.now);
            self.out.push(Effect::Task(Task::List));
        } else {
            self.compare_later();
        }
    }

    pub(super) fn compare_later(&mut self) {
        if let Some(interval) = self.options.compare {
            self.out
                .push(Effect::Wake(interval, PublisherAlarm::Compare));
        }
    }

    /// The driver said where its volumes are: what it does not know of is attached anew.
    pub(super) fn listed(&mut self, listed: Result<Listed, Trouble>) {
        let began = self.comparing.take().unwrap_or(self.now);
        self.compare_later();
        let Ok(listed) = listed else { return };
        self.explain(&listed);
        let mut missing = Vec::new();
        for (name, unit) in &self.units {
            let Some(attachment) = self.attachment(name) else {
                continue;
            };
            let settled = unit.called_at.is_none_or(|at: Moment| at < began);
            let busy = unit.calls || unit.writes || unit.answer.is_some() || !settled;
            if busy || !attachment.is_attached || attachment.meta.is_deleting() {
                continue;
            }
            let noted = attachment.meta.annotations.get(PUBLISHED_NODE_ID);
            let there = unit
                .handle
                .as_ref()
                .zip(noted)
                .is_none_or(|(handle, node)| {
                    listed.get(handle).is_some_and(|nodes| nodes.contains(node))
                });
            if !there {
                missing.push(name.clone());
            }
        }
        for name in missing {
            if let Some(unit) = self.units.get_mut(&name) {
                unit.doubted = true;
                self.repairs += 1;
            }
            self.dirty.insert(name);
        }
    }

    /// Looks for volumes that the driver has on nodes where no attachment is: it may have said that it
    /// detached them, and not have. Nothing is done to them, for others may have attached them; somebody
    /// is told, once, when two lists in a row say so: one may be older than a detach.
    fn explain(&mut self, listed: &Listed) {
        let names: BTreeMap<Box<str>, Name> = (self.volumes.iter())
            .filter_map(|volume| {
                let handle = of_driver(volume)?.volume.handle.clone();
                Some((handle, volume.meta.name.clone()))
            })
            .collect();
        let mut found = BTreeMap::new();
        for (handle, nodes) in listed {
            let volume = names.get(handle).and_then(|name| self.volume(name));
            let Some(volume) = volume.cloned() else {
                continue;
            };
            for node in nodes {
                if self.explains(handle, node) {
                    continue;
                }
                let place = (handle.clone(), node.clone());
                let before = self.unexplained.get(&place).copied();
                if before == Some(Sighting::First) {
                    self.out.push(Effect::Event(event(&volume, node)));
                }
                let sighting = match before {
                    None => Sighting::First,
                    Some(_) => Sighting::Told,
                };
                found.insert(place, sighting);
            }
        }
        self.unexplained = found;
    }

    /// Whether an attachment may be why the driver has a volume on a node.
    fn explains(&self, handle: &str, node: &str) -> bool {
        let names = self.of_handle.get(handle).into_iter().flatten();
        let mut attachments = names.filter_map(|name| self.attachment(name));
        attachments.any(|attachment| {
            let noted = &attachment.meta.annotations;
            noted
                .get(PUBLISHED_NODE_ID)
                .is_none_or(|noted| noted == node)
        })
    }

    /// How many volumes the driver has on nodes where no attachment is.
    pub(super) fn count_unexplained(&self) -> usize {
        let all = self.unexplained.values();
        all.filter(|sighting| **sighting == Sighting::Told).count()
    }
}

fn event(volume: &Volume, node: &str) -> Event {
    Event {
        about: ObjectKey::volume(volume.meta.name.clone()),
        uid: volume.meta.uid.clone(),
        severity: Severity::Warning,
        reason: reason::STILL_ATTACHED,
        message: format!(
            "the driver lists it on its node {node}, where no VolumeAttachment is: unless something else \
             attached it there, the driver said that it detached it and did not. Detach it there by \
             the means of the driver's storage before it is used on another node"
        ),
        source: None,
    }
}
