//! How long claims take to be bound, as far as this process can tell.
//!
//! A claim's creationTimestamp is in whole seconds of another machine's clock. What can be measured
//! honestly is the time from when a watch first told of a claim to the write that made it Bound.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::{ClaimPhase, Object, Uid};
use tokio::time::Instant;

use crate::watch::Told;

/// Claims that appeared while this process watched, and are not bound yet.
#[derive(Debug, Default)]
pub(crate) struct Binding(BTreeMap<Uid, Instant>);

impl Binding {
    /// A watch told this. Those of a list are older than that: nothing is known of their beginning.
    pub(crate) fn heard(&mut self, at: Instant, told: &Told) {
        match told {
            Told::Seen(Object::Claim(claim)) if claim.phase == ClaimPhase::Pending => {
                if claim.volume_name.is_none() {
                    self.0.entry(claim.meta.uid.clone()).or_insert(at);
                }
            }
            Told::Seen(Object::Claim(claim)) => drop(self.0.remove(&claim.meta.uid)),
            Told::Deleted(_, uid) => drop(self.0.remove(uid)),
            Told::Seen(_) | Told::Listed(..) | Told::Found(..) => {}
        }
    }

    /// A write of this process left this: how long the claim waited, where that made it Bound.
    pub(crate) fn wrote(&mut self, object: &Object) -> Option<Duration> {
        let Object::Claim(claim) = object else {
            return None;
        };
        let began = (claim.phase == ClaimPhase::Bound).then(|| self.0.remove(&claim.meta.uid));
        Some(began??.elapsed())
    }
}
