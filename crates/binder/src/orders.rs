//! Orders about one claim's data stand in annotations of the volume. One that was carried out, or is
//! no longer right, is taken back: it must not be carried out on the data of the next claim.

use bitts_api::machine::{Part, Target, Write};
use bitts_api::{Kind, Volume, VolumePhase, names};
use serde_json::{Map, Value, json};

use crate::known::{Known, is_to_be_recycled};
use crate::options::{Options, Recycle};
use crate::recycle::overlapping;

/// What the binder and an agent say to each other about a wipe (D8).
pub(crate) const OF_A_WIPE: [&str; 3] = [names::RECYCLE_ON, names::RECYCLED, names::RECYCLE_FAILED];

/// Removes the orders that count no more, if there are any.
pub(crate) fn withdraw(volume: &Volume, known: &Known, options: &Options) -> Option<Write> {
    let annotations = &volume.meta.annotations;
    let wiping = match options.recycle {
        Recycle::Off => false,
        Recycle::Unguarded => is_to_be_recycled(volume),
        Recycle::Guarded => {
            let at_it = annotations.has(names::RECYCLE_ON) && !annotations.has(names::RECYCLED);
            is_to_be_recycled(volume) && !(at_it && overlapping(volume, known).is_some())
        }
    };
    // An operator ended a hold: that was about the claim that it was held for (amended §13.13).
    let held = volume.phase == VolumePhase::Pending;
    let reclaim = (!held).then_some(names::RECLAIM);
    let of_a_wipe = OF_A_WIPE.into_iter().filter(|_| !wiping);
    let over: Map<String, Value> = of_a_wipe
        .chain(reclaim)
        .filter(|name| annotations.has(name))
        .map(|name| (name.to_owned(), Value::Null))
        .collect();
    (!over.is_empty()).then(|| Write {
        step: "withdraw-orders",
        target: Target::of(Kind::Volume, &volume.meta),
        part: Part::Main,
        patch: json!({"metadata": {"annotations": over}}),
    })
}
