//! A claim that asks for more than it has: what comes next for it, until it has that (R4 to R7).
//!
//! The steps are those of the external-resizer, in its order, each found missing by what the claim, the
//! volume and the disk say, so that a death anywhere is gone on after:
//!
//! 1. the claim says which size is asked of the disk (R5.1): whatever becomes of it, the claim's share of
//!    a quota on requests is not less (R6);
//! 2. the disk has it;
//! 3. the volume has it;
//! 4. the claim has it.
//!
//! There is no step on a node: a directory has no file system of its own to grow.

use bitts_api::machine::{NOW, Part, Target, Write};
use bitts_api::{Claim, ClaimPhase, Kind, Quantity, Volume, names};
use serde_json::{Value, json};

/// What is known of a growth under way.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Growth {
    /// Nothing.
    #[default]
    Unknown,
    /// The disk has so many bytes for the volume.
    Done {
        bytes: i64,
        /// Whether the file system holds a writer to them.
        held: bool,
    },
    /// It cannot have so many; and why.
    Refused(i64, String),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// Nothing: the claim has what it asks for.
    Rest,
    /// It has it now; whether a writer is held to it.
    Tell { held: bool },
    /// An object is to say so.
    Write(Write),
    /// The disk is to have so many bytes for it.
    Grow(i64),
    /// What was refused is tried again later.
    Wait,
}

/// What comes next for a claim and the volume that was made for it.
pub(crate) fn next(claim: &Claim, volume: &Volume, growth: &Growth) -> Next {
    let has = claim.status_capacity.unwrap_or(Quantity::ZERO);
    let (Some(asked), Some(held)) = (claim.request, volume.capacity) else {
        return Next::Rest;
    };
    let is_bound = claim.phase == ClaimPhase::Bound
        && claim.volume_name.as_ref() == Some(&volume.meta.name)
        && volume.is_for(claim);
    if !is_bound || claim.meta.is_deleting() || volume.meta.is_deleting() || asked <= has {
        return match growth {
            Growth::Done { held, .. } if is_bound => Next::Tell { held: *held },
            _ => Next::Rest,
        };
    }
    let state = claim.resize.as_ref().map_or("", |resize| &*resize.state);
    let allocated = claim.resize.as_ref().and_then(|resize| resize.allocated);
    let size = size(asked, held, state, allocated.filter(|before| *before > has));
    let begun = allocated == Some(size);
    match growth {
        _ if !begun || state.is_empty() => Next::Write(begin(claim, volume, size)),
        Growth::Done { bytes, .. } if *bytes >= size.value() => match held < size {
            true => Next::Write(grow_volume(volume, size)),
            false => Next::Write(finish(claim, size)),
        },
        Growth::Refused(bytes, why) if *bytes == size.value() => {
            match state == names::RESIZE_INFEASIBLE {
                true => Next::Wait,
                false => Next::Write(refuse(claim, why)),
            }
        }
        _ => Next::Grow(size.value()),
    }
}

/// Which size is asked of the disk (R4): the one that was asked before, while it is not known that the
/// disk does not have it; then a claim that asks for less again does not get out of step with the disk.
fn size(asked: Quantity, held: Quantity, state: &str, allocated: Option<Quantity>) -> Quantity {
    let before = match (held < asked, state) {
        (true, "" | names::RESIZE_INFEASIBLE) => None,
        _ => allocated,
    };
    before.unwrap_or(asked)
}

/// R5.1
fn begin(claim: &Claim, volume: &Volume, size: Quantity) -> Write {
    let by = volume.meta.annotations.get(names::PROVISIONED_BY);
    let mut write = status(
        claim,
        "begin-resize",
        Some(json!({"type": "Resizing", "status": "True", "lastTransitionTime": NOW})),
        json!({
            "allocatedResources": {"storage": size},
            "allocatedResourceStatuses": {"storage": names::RESIZE_IN_PROGRESS},
        }),
    );
    write.patch["metadata"] = json!({"annotations": {names::STORAGE_RESIZER: by}});
    write
}

/// R5.3
fn grow_volume(volume: &Volume, size: Quantity) -> Write {
    Write {
        step: "grow-volume",
        target: Target::of(Kind::Volume, &volume.meta),
        part: Part::Main,
        patch: json!({"spec": {"capacity": {"storage": size}}}),
    }
}

/// R5.4b
fn finish(claim: &Claim, size: Quantity) -> Write {
    let done = json!({
        "capacity": {"storage": size},
        "allocatedResourceStatuses": Value::Null,
    });
    status(claim, "finish-resize", None, done)
}

/// R7
fn refuse(claim: &Claim, why: &str) -> Write {
    status(
        claim,
        "refuse-resize",
        Some(
            json!({"type": "ControllerResizeError", "status": "True", "message": why,
                "lastTransitionTime": NOW}),
        ),
        json!({"allocatedResourceStatuses": {"storage": names::RESIZE_INFEASIBLE}}),
    )
}

/// A write of the status in which no other condition tells of a change of the size.
fn status(claim: &Claim, step: &'static str, condition: Option<Value>, mut status: Value) -> Write {
    let told = |c: &&Value| {
        let kind = c["type"].as_str().unwrap_or_default();
        !names::RESIZE_CONDITIONS.contains(&kind)
    };
    let others = claim.other_conditions.iter().filter(told).cloned();
    let all: Vec<Value> = others
        .chain(claim.unused_condition())
        .chain(condition)
        .collect();
    status["conditions"] = json!(all);
    Write {
        step,
        target: Target::of(Kind::Claim, &claim.meta),
        part: Part::Status,
        patch: json!({ "status": status }),
    }
}
