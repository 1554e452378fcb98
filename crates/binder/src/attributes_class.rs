//! VolumeAttributesClasses stay while a volume or claim names them (X8).

use bitts_api::machine::{Destroy, Destruction, Evidence, Part, Target, Write};
use bitts_api::{AttributesClass, Kind, names};

use crate::protection::{Protection, holds, with, without};

/// Protects a class from its creation until nothing names it; `used` is what the volumes and claims
/// seen so far say. That none does is read again, live, before the finalizer goes: the original
/// believes its caches, and lets a class go under a claim that it did not hear of yet (section 13,
/// weakness 26).
pub(crate) fn protection(class: &AttributesClass, used: bool) -> Option<Protection> {
    const FINALIZER: &str = names::ATTRIBUTES_CLASS_PROTECTION;
    let target = Target::of(Kind::AttributesClass, &class.meta);
    match (class.meta.is_deleting(), holds(&class.meta, FINALIZER)) {
        (false, false) => Some(Protection::Add(Write {
            step: "protect-attributes-class",
            target,
            part: Part::Main,
            patch: with(&class.meta, FINALIZER),
        })),
        (true, true) if !used => Some(Protection::Lift(Destroy {
            step: "unprotect-attributes-class",
            target,
            action: Destruction::Patch(Part::Main, without(&class.meta, FINALIZER)),
            evidence: vec![Evidence::AttributesClassUnused(
                class.meta.name.as_str().into(),
            )],
        })),
        _ => None,
    }
}
