//! What pods are told while they wait.

use std::sync::Arc;

use bitts_api::Pod;
use bitts_api::machine::{Effect, Event};

use super::Attacher;
use crate::pair::Pair;
use crate::reason::{self, Hold, Holder};
use crate::verdict::{Act, Attachment, Health};

impl Attacher {
    /// The pods on a node are told that it is attached (A16).
    pub(super) fn tell_attached(&mut self, pair: &Pair) {
        for (place, volume) in self.pods(pair) {
            if let Some(pod) = self.known.pods.get(&place) {
                let event = reason::attached(pod, &volume);
                self.out.push(Effect::Event(event));
            }
        }
    }

    /// The API did not take what would have had it attached.
    pub(super) fn tell_failure(&mut self, pair: &Pair, why: &str) {
        self.tell(pair, |_, _, volume| Some(reason::not_attached(volume, why)));
    }

    /// Pods that wait are told what for, again and again while it lasts (section 13, weakness 28).
    pub(super) fn tell_waiting(&mut self, pair: &Pair) {
        let Some((act, since)) = self.units.get(pair).and_then(|unit| unit.waiting) else {
            return;
        };
        match act {
            Act::AwaitOther => self.tell(pair, |this, pod, volume| {
                this.why_elsewhere(pair, pod, volume)
            }),
            Act::AwaitAttach | Act::AwaitDetach => {
                let until = since + self.options.patience;
                let late = until <= self.now;
                if !late {
                    self.wake(pair, until);
                }
                let name = self.units.get(pair).map(|unit| unit.attachment.clone());
                let attachment = name.and_then(|name| self.known.attachment(&name).cloned());
                let Some(attachment) = attachment else {
                    return;
                };
                let why = if act == Act::AwaitAttach {
                    let error = attachment.attach_error.as_ref();
                    let error = error.map(|error| error.message.to_string());
                    error.or_else(|| late.then(|| reason::timed_out(pair)))
                } else {
                    let error = attachment.detach_error.as_ref().map(|e| &*e.message);
                    (late || error.is_some()).then(|| reason::still_detaching(pair, error))
                };
                if let Some(why) = why {
                    self.tell_failure(pair, &why);
                }
            }
            Act::Rest | Act::Attach | Act::Detach(_) | Act::AwaitNode => {}
        }
    }

    fn why_elsewhere(&self, pair: &Pair, pod: &Pod, volume: &bitts_api::Name) -> Option<String> {
        let Some(holder) = self.holders(pair).next() else {
            let node = self.direct_holder(pair)?;
            let hint = format!("Its cloud has it on node {node}, until that lets go of it");
            return Some(reason::elsewhere(pod, volume, &[], &hint));
        };
        let users = self.holders(pair).flat_map(|holder| self.pods(holder));
        let users: Vec<Arc<Pod>> = users
            .filter_map(|(place, _)| self.known.pods.get(&place).cloned())
            .collect();
        let users: Vec<&Pod> = users.iter().map(|pod| &**pod).collect();
        let hint = self.hold_of(holder).hint();
        Some(reason::elsewhere(pod, volume, &users, &hint))
    }

    /// Why a volume is still on a node.
    pub(crate) fn hold_of<'a>(&'a self, pair: &'a Pair) -> Holder<'a> {
        let attachment = self.units.get(pair).map(|unit| &unit.attachment);
        let attachment = attachment.and_then(|name| self.known.attachment(name));
        let error = attachment.and_then(|a| a.detach_error.as_ref());
        let state = match self.view(pair).map(|view| (view, view.verdict().act)) {
            Some((view, _)) if view.attachment == Attachment::Deleting => {
                Hold::Driver(error.map(|error| &*error.message))
            }
            Some((view, _)) if view.wanted => Hold::Pods,
            Some((view, Act::AwaitNode)) => match view.node {
                Health::Ready => Hold::Kubelet,
                Health::Unready => Hold::Down,
                Health::Gone => Hold::Gone,
            },
            None => Hold::Kubelet,
            Some(_) => Hold::Driver(None),
        };
        Holder { pair, state }
    }

    fn tell(&mut self, pair: &Pair, why: impl Fn(&Self, &Pod, &bitts_api::Name) -> Option<String>) {
        let (now, renew) = (self.now, self.options.renew);
        for (place, volume) in self.pods(pair) {
            let Some(pod) = self.known.pods.get(&place).cloned() else {
                continue;
            };
            let Some(message) = why(self, &pod, &volume) else {
                continue;
            };
            let unit = self.units.get_mut(pair);
            if unit.is_some_and(|unit| unit.tells(&place, &message, now, renew)) {
                let event: Event = reason::failed(&pod, message);
                self.out.push(Effect::Event(event));
            }
        }
        self.wake(pair, now + renew);
    }
}
