//! What the machine learns: objects, what came of writes, and what the driver said.

use std::sync::Arc;

use bitts_api::machine::{Change, Effect, Outcome};
use bitts_api::{Attachment, CsiNode, Kind, Name, Object, ObjectKey, Uid, Volume};

use super::call::{Report, Task, Ticket, Trouble};
use super::unit::{Answer, Unit, back_off};
use super::{Driver, Publisher, PublisherAlarm};
use crate::csi_volume::of_driver;

impl Publisher {
    pub(super) fn list(&mut self, kind: Kind, objects: Vec<Object>) {
        match kind {
            Kind::Attachment => {
                let all = objects.into_iter().filter_map(|object| match object {
                    Object::Attachment(a) if a.driver == self.driver => Some(a),
                    _ => None,
                });
                let changes = self.attachments.replace(all);
                changes.into_iter().for_each(|c| self.attachment_changed(c));
            }
            Kind::Volume => {
                let all = objects.into_iter().filter_map(|object| match object {
                    Object::Volume(volume) if self.concerns(&volume) => Some(volume),
                    _ => None,
                });
                let all: Vec<_> = all.collect();
                let changes = self.volumes.replace(all);
                changes.into_iter().for_each(|c| self.volume_changed(c));
            }
            Kind::CsiNode => {
                let all = objects.into_iter().filter_map(|object| match object {
                    Object::CsiNode(node) => Some(node),
                    _ => None,
                });
                let changes = self.nodes.replace(all);
                changes.into_iter().for_each(|c| self.node_changed(&c));
            }
            _ => {}
        }
    }

    pub(super) fn see(&mut self, object: Object) {
        match object {
            Object::Attachment(a) if a.driver == self.driver => {
                let changes = self.attachments.see(a);
                changes.into_iter().for_each(|c| self.attachment_changed(c));
            }
            Object::Volume(volume) if self.concerns(&volume) => {
                let changes = self.volumes.see(volume);
                changes.into_iter().for_each(|c| self.volume_changed(c));
            }
            Object::CsiNode(node) => {
                let changes = self.nodes.see(node);
                changes.into_iter().for_each(|c| self.node_changed(&c));
            }
            _ => {}
        }
    }

    pub(super) fn delete(&mut self, key: ObjectKey, uid: &Uid) {
        let place = (key.namespace, key.name);
        match key.kind {
            Kind::Attachment => {
                let change = self.attachments.remove(&place, uid);
                change.into_iter().for_each(|c| self.attachment_changed(c));
            }
            Kind::Volume => {
                let change = self.volumes.remove(&place, uid);
                change.into_iter().for_each(|c| self.volume_changed(c));
            }
            Kind::CsiNode => {
                let change = self.nodes.remove(&place, uid);
                change.into_iter().for_each(|c| self.node_changed(&c));
            }
            _ => {}
        }
    }

    /// Whether a volume is the driver's, or was: then it is to be let go.
    fn concerns(&self, volume: &Volume) -> bool {
        of_driver(volume).is_some_and(|v| v.volume.driver == self.driver)
            || volume.meta.finalizers.contains(&self.finalizer)
    }

    fn attachment_changed(&mut self, change: Change<Attachment>) {
        match change {
            Change::Set { old, new } => {
                let name = new.meta.name.clone();
                let volume = new.volume.as_ref();
                let volume = volume.and_then(|v| self.volume(v)).cloned();
                let unit = self
                    .units
                    .entry(name.clone())
                    .or_insert_with(|| Unit::new(new.meta.uid.clone()));
                // What it failed at before says nothing about this.
                let was_deleting = old.as_ref().is_some_and(|old| old.meta.is_deleting());
                if new.meta.is_deleting() && !was_deleting {
                    unit.wake();
                    if matches!(unit.answer, Some(Answer::Failed { .. })) {
                        unit.answer = None;
                    }
                }
                let nodes = self.of_node.entry(new.node.clone()).or_default();
                nodes.insert(name.clone());
                if let Some(volume) = &new.volume {
                    let shelf = self.shelves.entry(volume.clone()).or_default();
                    shelf.attachments.insert(name.clone());
                }
                if let Some(volume) = volume {
                    self.give_volume(&name, &volume);
                }
                self.touch(&name);
            }
            Change::Removed(old) => self.attachment_gone(&old),
        }
    }

    fn attachment_gone(&mut self, old: &Attachment) {
        let name = &old.meta.name;
        self.touch(name);
        if let Some(names) = self.of_node.get_mut(&old.node) {
            names.remove(name);
            if names.is_empty() {
                self.of_node.remove(&old.node);
            }
        }
        if let Some(volume) = &old.volume {
            if let Some(shelf) = self.shelves.get_mut(volume) {
                shelf.attachments.remove(name);
            }
            self.dirty_volumes.insert(volume.clone());
        }
        let unit = self.units.remove(name);
        if let Some(handle) = unit.and_then(|unit| unit.handle)
            && let Some(names) = self.of_handle.get_mut(&handle)
        {
            names.remove(name);
            if names.is_empty() {
                self.of_handle.remove(&handle);
            }
        }
    }

    /// An attachment's volume is known.
    fn give_volume(&mut self, name: &Name, volume: &Arc<Volume>) {
        let Some(of) = of_driver(volume).filter(|v| v.volume.driver == self.driver) else {
            return;
        };
        if let Some(unit) = self.units.get_mut(name) {
            unit.volume = Some(volume.clone());
            if unit.handle.is_none() {
                let handle = of.volume.handle.clone();
                unit.handle = Some(handle.clone());
                self.of_handle
                    .entry(handle)
                    .or_default()
                    .insert(name.clone());
            }
        }
    }

    fn volume_changed(&mut self, change: Change<Volume>) {
        let (volume, there, is_news) = match change {
            Change::Set { old, new } => {
                let is_news = old.is_none_or(|old| {
                    old.meta.is_deleting() != new.meta.is_deleting()
                        || old.meta.finalizers != new.meta.finalizers
                });
                (new, true, is_news)
            }
            Change::Removed(old) => (old, false, true),
        };
        let name = volume.meta.name.clone();
        let shelf = self.shelves.get(&name);
        let attachments = shelf.map(|shelf| shelf.attachments.clone());
        for attachment in attachments.unwrap_or_default() {
            if there {
                self.give_volume(&attachment, &volume);
            }
            if is_news {
                if let Some(unit) = self.units.get_mut(&attachment) {
                    unit.wake();
                }
                self.touch(&attachment);
            }
        }
        if is_news {
            self.shelves.entry(name.clone()).or_default();
            self.dirty_volumes.insert(name);
        }
    }

    fn node_changed(&mut self, change: &Change<CsiNode>) {
        let node = match change {
            Change::Set { old, new } => {
                if old.as_ref().is_some_and(|old| old.drivers == new.drivers) {
                    return;
                }
                new
            }
            Change::Removed(old) => old,
        };
        let names = self.of_node.get(node.meta.name.as_str()).cloned();
        for name in names.unwrap_or_default() {
            if let Some(unit) = self.units.get_mut(&name) {
                unit.wake();
            }
            self.touch(&name);
        }
    }

    /// An attachment is looked at, and those that may have waited for it.
    fn touch(&mut self, name: &Name) {
        let handle = self.units.get(name).and_then(|unit| unit.handle.as_ref());
        if let Some(names) = handle.and_then(|handle| self.of_handle.get(handle)) {
            self.dirty.extend(names.iter().cloned());
        }
        self.dirty.insert(name.clone());
    }

    pub(super) fn look_at_all(&mut self) {
        self.dirty.extend(self.units.keys().cloned());
        self.dirty_volumes.extend(self.shelves.keys().cloned());
    }

    /// A volume, and what waits for it to be held.
    pub(super) fn look_at_volume(&mut self, name: Name) {
        if let Some(shelf) = self.shelves.get(&name) {
            self.dirty.extend(shelf.attachments.iter().cloned());
        }
        self.dirty_volumes.insert(name);
    }

    pub(super) fn finished(&mut self, key: &ObjectKey, outcome: &Outcome) {
        match key.kind {
            Kind::Attachment => self.attachment_written(&key.name, outcome),
            Kind::Volume => self.volume_written(&key.name, outcome),
            _ => {}
        }
    }

    fn attachment_written(&mut self, name: &Name, outcome: &Outcome) {
        let now = self.now;
        if let Some(unit) = self.units.get_mut(name) {
            unit.writes = false;
            unit.holds = false;
            match outcome {
                // What was found was fed, and is decided on anew.
                Outcome::Conflict | Outcome::Spared | Outcome::Gone => {}
                // The answer is written down, unless it goes on to letting go.
                Outcome::Done if unit.answer == Some(Answer::Detached) => {}
                Outcome::Done => unit.answer = None,
                Outcome::Refused(_) | Outcome::Failed(_) => {
                    unit.fail(now);
                    // It is told again from what the driver says then.
                    unit.answer = None;
                }
            }
        }
        self.touch(name);
    }

    fn volume_written(&mut self, name: &Name, outcome: &Outcome) {
        let now = self.now;
        let Some(shelf) = self.shelves.get_mut(name) else {
            return;
        };
        shelf.writes = false;
        match outcome {
            Outcome::Done | Outcome::Gone => shelf.succeed(),
            Outcome::Conflict => {}
            Outcome::Spared | Outcome::Refused(_) | Outcome::Failed(_) => {
                let until = shelf.fail(now);
                let after = until.0.saturating_sub(now.0);
                let alarm = PublisherAlarm::Volume(name.clone());
                self.out.push(Effect::Wake(after, alarm));
            }
        }
        self.look_at_volume(name.clone());
    }

    pub(super) fn ask(&mut self) {
        self.out.push(Effect::Task(Task::Ask));
    }

    pub(super) fn reported(&mut self, report: Report) {
        match report {
            Report::Can(Ok(can)) => {
                if !self.compares {
                    self.compares = true;
                    self.compare_later();
                }
                self.ask_failures = 0;
                self.state = Driver::Known(can);
                self.look_at_all();
            }
            Report::Can(Err(_)) => {
                self.ask_failures += 1;
                let after = back_off(self.ask_failures.min(4));
                self.out.push(Effect::Wake(after, PublisherAlarm::Ask));
            }
            Report::Published(ticket, result) => {
                let trouble = result.as_ref().err().cloned();
                self.called("ControllerPublishVolume", &ticket, trouble.as_ref());
                self.published(&ticket, result);
            }
            Report::Unpublished(ticket, result) => {
                self.called("ControllerUnpublishVolume", &ticket, result.as_ref().err());
                self.unpublished(&ticket, result);
            }
            Report::Spared(ticket) => {
                self.called("ControllerUnpublishVolume", &ticket, None);
                let now = self.now;
                if let Some(unit) = self.unit_of(&ticket) {
                    unit.fail(now);
                }
            }
            Report::Listed(listed) => self.listed(listed),
        }
    }

    /// The attachment that a call was for, if it still is that one.
    fn unit_of(&mut self, ticket: &Ticket) -> Option<&mut Unit> {
        let unit = self.units.get_mut(&ticket.attachment)?;
        (unit.uid == ticket.uid).then_some(unit)
    }

    /// A call ended, whatever came of it.
    fn called(&mut self, method: &'static str, ticket: &Ticket, trouble: Option<&Trouble>) {
        let now = self.now;
        let full = !self.queue.is_empty() || self.calls.len() >= self.limit.allowed();
        if let Some(call) = self.calls.remove(&ticket.handle) {
            let overload = trouble.is_some_and(|trouble| trouble.overload);
            self.limit.ended(call.began, now, overload, full);
            self.calls_ended
                .add(method, trouble, now.0.saturating_sub(call.began.0));
        }
        if let Some(unit) = self.unit_of(ticket) {
            unit.calls = false;
            unit.called_at = Some(now);
        }
        if let Some(names) = self.of_handle.get(&ticket.handle) {
            self.dirty.extend(names.iter().cloned());
        }
        self.dirty.insert(ticket.attachment.clone());
        // It may be another driver when it is back.
        if trouble.is_some_and(|trouble| trouble.lost) && self.state != Driver::Unknown {
            self.state = Driver::Unknown;
            self.ask_failures = 1;
            self.ask();
        }
    }

    fn published(&mut self, ticket: &Ticket, result: Result<super::Context, Trouble>) {
        let now = self.now;
        if let Some(unit) = self.unit_of(ticket) {
            match result {
                Ok(context) => {
                    unit.succeed();
                    unit.doubted = false;
                    unit.left = None;
                    unit.answer = Some(Answer::Attached(context));
                }
                Err(trouble) => unit.failed(now, trouble),
            }
        }
    }

    fn unpublished(&mut self, ticket: &Ticket, result: Result<(), Trouble>) {
        let now = self.now;
        let Some(attachment) = self.attachment(&ticket.attachment).cloned() else {
            return;
        };
        let Some(unit) = self.unit_of(ticket) else {
            return;
        };
        match result {
            Ok(()) if attachment.meta.is_deleting() => {
                unit.succeed();
                unit.answer = Some(Answer::Detached);
            }
            // From the node's earlier name.
            Ok(()) => {
                let before = &attachment.meta.annotations;
                let before = before.get(bitts_api::names::PUBLISHED_NODE_ID);
                unit.succeed();
                unit.left = before.map(Into::into);
            }
            Err(trouble) => unit.failed(now, trouble),
        }
    }
}
