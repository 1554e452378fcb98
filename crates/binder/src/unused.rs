//! Since when no pod refers to a claim: its condition `Unused` (X5).
//!
//! What is said comes from the pods that the watch told of, not from a list of pods for each claim
//! (section 13, weakness 25). A claim that becomes Bound is told with the write that says so, which
//! costs nothing; only a change of that is a write of its own.

use bitts_api::machine::{NOW, Part, Target, Write};
use bitts_api::{Claim, ClaimPhase, Kind, Unused};
use serde_json::{Value, json};

/// Adds to a write of the claim's status what its pods are to it, where that is news.
pub(crate) fn join(write: &mut Write, claim: &Claim, used: bool) {
    if let Some(conditions) = conditions(claim, used) {
        write.patch["status"]["conditions"] = conditions;
    }
}

/// The write that a bound claim needs for that alone, if any.
pub(crate) fn note(claim: &Claim, used: bool) -> Option<Write> {
    let conditions = conditions(claim, used).filter(|_| claim.phase == ClaimPhase::Bound)?;
    Some(Write {
        step: if used {
            "mark-claim-used"
        } else {
            "mark-claim-unused"
        },
        target: Target::of(Kind::Claim, &claim.meta),
        part: Part::Status,
        patch: json!({"status": {"conditions": conditions}}),
    })
}

/// All conditions of the claim, this one renewed; `None` where it says so already.
fn conditions(claim: &Claim, used: bool) -> Option<Value> {
    let now = if used { Unused::False } else { Unused::True };
    if claim.unused == now || claim.meta.is_deleting() {
        return None;
    }
    let mut condition = now.condition()?;
    condition["lastTransitionTime"] = json!(NOW);
    let mut all = claim.other_conditions.to_vec();
    all.push(condition);
    Some(all.into())
}
