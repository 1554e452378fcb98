//! How what was decided goes out, and what becomes of it: at most one write for an object at a time,
//! rests after those that failed, and who is decided again.

use std::convert::Infallible;

use bitts_api::machine::{
    Destroy, Destruction, Effect, Event, Evidence, Outcome, Place, Target, Write,
};
use bitts_api::{ClassName, Kind, Meta, ObjectKey, ResourceVersion, Uid, Volume};

use super::{Binder, Retry, event, pod_key};
use crate::flights::Sent;
use crate::protection::{self, Protection};
use crate::reason::Notice;
use crate::told::Topic;
use crate::{ephemeral, migration};

/// The writes without which everything else can go on.
pub(super) const UPKEEP: [&str; 4] = [
    migration::MARK_CLAIM,
    migration::MARK_VOLUME,
    protection::PROTECT_CLAIM,
    protection::PROTECT_VOLUME,
];

/// What says that a volume cannot be reclaimed.
pub(super) const FAIL_VOLUME: &str = "fail-volume";

impl Binder {
    pub(super) fn write(&mut self, write: Write) {
        self.write_then(write, None, Vec::new());
    }

    /// Sends a write, `for_claim` where that is another object, and tells `then` when it is done.
    /// Returns whether it was sent.
    pub(super) fn write_then(
        &mut self,
        write: Write,
        for_claim: Option<&Place>,
        then: Vec<Event>,
    ) -> bool {
        let sent = Sent {
            step: write.step,
            version: write.target.version,
            claim: for_claim.cloned(),
            class: None,
            then,
        };
        self.send(write.target.key.clone(), sent, Effect::Write(write))
    }

    /// Does to a volume what is only right while the evidence holds.
    pub(super) fn take(
        &mut self,
        step: &'static str,
        volume: &Volume,
        action: Destruction,
        evidence: Evidence,
        told: Option<Notice>,
    ) {
        self.take_on(step, volume, action, vec![evidence], told);
    }

    pub(super) fn take_on(
        &mut self,
        step: &'static str,
        volume: &Volume,
        action: Destruction,
        evidence: Vec<Evidence>,
        told: Option<Notice>,
    ) {
        let target = Target::of(Kind::Volume, &volume.meta);
        let told = told.map(|notice| event(target.key.clone(), &volume.meta.uid, notice));
        let destroy = Destroy {
            step,
            target,
            action,
            evidence,
        };
        self.destroy(destroy, told.into_iter().collect());
    }

    /// Adds or lifts what an object has to carry; returns whether that is on its way. What the API
    /// refused before has to wait for the rest.
    pub(super) fn keep_up(&mut self, due: Option<Protection>, later: &mut Vec<Write>) -> bool {
        match due {
            None => false,
            Some(Protection::Add(write)) => {
                let refused = (write.target.key.clone(), write.step);
                if self.upkeep.has_failed(&refused) {
                    later.push(write);
                    return false;
                }
                self.write_then(write, None, vec![])
            }
            Some(Protection::Lift(destroy)) => self.destroy(destroy, vec![]),
        }
    }

    /// Tries again what the API refused, now that nothing else is to be done.
    pub(super) fn catch_up(&mut self, later: Vec<Write>) {
        let ripe = |write: &Write| {
            let refused = (write.target.key.clone(), write.step);
            !self.upkeep.is_resting(&refused)
        };
        if let Some(write) = later.into_iter().find(ripe) {
            self.write(write);
        }
    }

    /// An addition was refused, or undone on its way: it rests, its object does not.
    pub(super) fn put_off(&mut self, key: &ObjectKey, step: &'static str) {
        let (delay, timer) = self.upkeep.begin((key.clone(), step));
        let retry = Retry(key.clone(), timer, Some(step));
        self.out.push(Effect::Wake(delay, retry));
    }

    pub(super) fn destroy(&mut self, destroy: Destroy, then: Vec<Event>) -> bool {
        let sent = Sent {
            step: destroy.step,
            version: destroy.target.version,
            claim: None,
            class: None,
            then,
        };
        self.send(destroy.target.key.clone(), sent, Effect::Destroy(destroy))
    }

    pub(super) fn send(
        &mut self,
        key: ObjectKey,
        sent: Sent,
        effect: Effect<Infallible, Retry>,
    ) -> bool {
        if self.flights.is_blocked(&key) {
            return false; // decided again when the other write landed
        }
        if key.kind == Kind::Volume {
            self.known.free.remove(&key.name);
        }
        if self.flights.was_rejected(&key, sent.step, sent.version) {
            self.back_off(&key);
            return false;
        }
        self.flights.start(key, sent);
        self.out.push(effect);
        true
    }

    pub(super) fn back_off(&mut self, key: &ObjectKey) {
        let (delay, timer) = self.flights.back_off(key);
        self.out
            .push(Effect::Wake(delay, Retry(key.clone(), timer, None)));
    }

    /// A write ended; what it left was taken in before.
    pub(super) fn landed(&mut self, key: &ObjectKey, outcome: &Outcome) {
        let now = self.version(key);
        let Some(sent) = self.flights.land(key, outcome, now) else {
            return;
        };
        self.known.census.wrote(sent.step, outcome);
        let claim = sent.claim.as_ref().map(|place| ObjectKey {
            kind: Kind::Claim,
            namespace: place.0.clone(),
            name: place.1.clone(),
        });
        match outcome {
            Outcome::Done => {
                if sent.step == FAIL_VOLUME {
                    self.operations.fail(key);
                }
                self.out.extend(sent.then.into_iter().map(Effect::Event));
                let about = claim.as_ref().unwrap_or(key);
                self.told.clear(about, Topic::Refusal(sent.step));
                // Something undoes it on the way, a webhook for one: no use in doing it again at once.
                let undone = now == Some(sent.version);
                if undone && UPKEEP.contains(&sent.step) {
                    self.put_off(key, sent.step);
                } else if undone {
                    self.back_off(key);
                } else if UPKEEP.contains(&sent.step) {
                    self.upkeep.forget(&(key.clone(), sent.step));
                }
            }
            Outcome::Refused(text) if UPKEEP.contains(&sent.step) => {
                self.tell_refused(key, sent.step, text);
                self.put_off(key, sent.step);
            }
            Outcome::Failed(text) | Outcome::Refused(text) => {
                if matches!(outcome, Outcome::Refused(_)) {
                    let about = claim.as_ref().unwrap_or(key);
                    if !self.tell_refused(about, sent.step, text) && sent.step == ephemeral::CREATE
                    {
                        self.tell_makers(key, text);
                    }
                }
                for key in [key].into_iter().chain(&claim) {
                    // D14: a deletion fails where whoever is to delete does.
                    if key.kind == Kind::Claim {
                        self.operations.fail(key);
                    }
                    if !self.flights.is_blocked(key) {
                        self.back_off(key);
                    }
                }
            }
            Outcome::Gone | Outcome::Conflict | Outcome::Spared => {}
        }
        if let Some(class) = &sent.class {
            let (claims, offers) = self.looks.end(class, outcome);
            self.dirty.claims.extend(claims);
            self.offers.extend(offers);
        }
        if key.kind == Kind::Volume && self.known.coming.remove(&key.name) {
            self.dirty.claims.extend(self.hush.came(&key.name));
        }
        if let Some(place) = sent.claim {
            self.committed.remove(&place);
            if *outcome == Outcome::Done {
                self.started.insert(place);
            } else {
                self.dirty.claims.insert(place);
            }
        }
        self.look_again(key);
    }

    /// Tells that the API refuses a write; returns whether there was an object to tell of.
    pub(super) fn tell_refused(
        &mut self,
        about: &ObjectKey,
        step: &'static str,
        text: &str,
    ) -> bool {
        let uid = self.uid(about);
        if let Some(uid) = &uid {
            self.tell(
                about,
                Topic::Refusal(step),
                uid,
                Notice::refused(step, text),
            );
        }
        uid.is_some()
    }

    /// Tells the pod for which a claim could not be made.
    pub(super) fn tell_makers(&mut self, claim: &ObjectKey, text: &str) {
        let place = (claim.namespace.clone(), claim.name.clone());
        for pod in self.known.makers_of(&place) {
            let templates = pod.claim_templates.iter();
            for template in templates.filter(|t| t.claim == claim.name) {
                let notice = ephemeral::refused(template, text);
                let (pod_key, topic) =
                    (pod_key(&pod.meta.place()), Topic::Claim(claim.name.clone()));
                self.tell(&pod_key, topic, &pod.meta.uid, notice);
            }
        }
    }

    /// Everything that may have waited for this object to be writable again.
    pub(super) fn look_again(&mut self, key: &ObjectKey) {
        if key.kind == Kind::AttributesClass {
            let class = key.name.as_str().into();
            self.dirty.attributes_classes.insert(class);
            return;
        }
        if key.kind != Kind::Volume {
            let place = (key.namespace.clone(), key.name.clone());
            let makers = self.known.makers_of(&place);
            let makers = makers.iter().map(|pod| pod.meta.place());
            self.dirty.pods.extend(makers);
            self.dirty.claims.insert(place);
            return;
        }
        self.dirty.volumes.insert(key.name.clone());
        let claim_ref = self
            .known
            .volume(&key.name)
            .and_then(|v| v.claim_ref.as_ref());
        let reserved = claim_ref.map(|r| (Some(r.namespace.clone()), r.name.clone()));
        self.dirty.claims.extend(reserved);
        self.dirty
            .claims
            .extend(self.known.naming(&key.name).cloned());
    }

    /// Reserves a volume for a claim; where a class is to be looked for, only if there is none.
    /// Returns whether it was sent.
    pub(super) fn reserve(
        &mut self,
        write: Write,
        place: &Place,
        look: Option<ClassName>,
        then: Vec<Event>,
    ) -> bool {
        let Some(class) = look else {
            return self.write_then(write, Some(place), then);
        };
        let sent = Sent {
            step: write.step,
            version: write.target.version,
            claim: Some(place.clone()),
            class: Some(class.clone()),
            then,
        };
        let destroy = Destroy {
            step: write.step,
            target: write.target,
            action: Destruction::Patch(write.part, write.patch),
            evidence: vec![Evidence::ClassAbsent(class.clone())],
        };
        let key = destroy.target.key.clone();
        let is_sent = self.send(key, sent, Effect::Destroy(destroy));
        if is_sent {
            self.looks.begin(class, self.known.newest());
        }
        is_sent
    }

    pub(super) fn uid(&self, key: &ObjectKey) -> Option<Uid> {
        Some(self.meta(key)?.uid.clone())
    }

    pub(super) fn version(&self, key: &ObjectKey) -> Option<ResourceVersion> {
        Some(self.meta(key)?.resource_version)
    }

    pub(super) fn meta(&self, key: &ObjectKey) -> Option<&Meta> {
        if key.kind == Kind::Volume {
            return Some(&self.known.volume(&key.name)?.meta);
        }
        if key.kind == Kind::AttributesClass {
            let name = key.name.as_str().into();
            return Some(&self.known.attributes_class(&name)?.meta);
        }
        let place = (key.namespace.clone(), key.name.clone());
        Some(&self.known.claim(&place)?.meta)
    }
}
