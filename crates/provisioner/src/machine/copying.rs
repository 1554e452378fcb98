//! Claims that ask for a copy of another claim's data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitts_api::machine::{Effect, Place};
use bitts_api::{Claim, Kind, Name, Volume};

use super::Provisioner;
use crate::claim::{Refusal, wants};
use crate::options::Ground;
use crate::reason;
use crate::site::Site;
use crate::task::CopyOf;
use crate::unit::Disk;
use crate::volume::name_for;

/// When a copy is looked at that was just begun: many are small, or share their blocks.
const LOOK_FIRST: Duration = Duration::from_millis(250);
/// How often one is looked at that takes its time.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The claims that ask for copies, by the claim that is to be copied.
#[derive(Debug, Default)]
pub(super) struct Copies(BTreeMap<Place, BTreeSet<Name>>);

impl Copies {
    /// Notes what a claim asks for, or that it does not any more.
    pub(super) fn note(&mut self, claim: &Claim, waits: bool) {
        let Some(place) = place_of_source(claim) else {
            return;
        };
        let copy = name_for(&claim.meta.uid);
        if waits {
            self.0.entry(place).or_default().insert(copy);
        } else if let Some(copies) = self.0.get_mut(&place) {
            copies.remove(&copy);
            if copies.is_empty() {
                self.0.remove(&place);
            }
        }
    }

    /// The volumes that are to be copies of a claim's.
    pub(super) fn of(&self, source: &Place) -> Vec<Name> {
        let copies = self.0.get(source).into_iter().flatten();
        copies.cloned().collect()
    }
}

fn place_of_source(claim: &Claim) -> Option<Place> {
    let source = claim.data_source.as_ref()?;
    Some((claim.meta.namespace.clone(), source.name.clone()))
}

/// What a volume begins with.
pub(super) enum Beginning {
    /// A copy of what lies at the same site, or nothing.
    With(Option<CopyOf>),
    /// A copy of what lies on another node.
    Elsewhere(String),
}

impl Provisioner {
    /// What the volume of a claim begins with. What was begun goes on, whatever becomes of its source.
    pub(super) fn beginning(
        &self,
        volume: &Name,
        claim: &Claim,
        site: &Site,
    ) -> Result<Beginning, Refusal> {
        let Some(asked) = &claim.data_source else {
            return Ok(Beginning::With(None));
        };
        if let Some(begun) = self.begun_copy(volume) {
            return Ok(Beginning::With(Some(begun)));
        }
        if !asked.group.is_empty() || *asked.kind != *Kind::Claim.name() {
            return Err(Refusal::NoCopyOf(asked.kind.to_string()));
        }
        if asked.namespace.is_some() && asked.namespace != claim.meta.namespace {
            return Err(Refusal::OtherNamespace);
        }
        let name = || asked.name.clone();
        let source = place_of_source(claim).and_then(|place| self.claims.get(&place));
        let source = source.ok_or_else(|| Refusal::NoSource(name()))?;
        if source.meta.is_deleting() {
            return Err(Refusal::SourceGoes(name()));
        }
        let volume = source.volume_name.as_ref();
        let volume = volume.ok_or_else(|| Refusal::SourceUnbound(name()))?;
        let volume = self.volumes.get(&(None, volume.clone()));
        let volume = volume.filter(|volume| volume.is_for(source));
        let volume = volume.ok_or_else(|| Refusal::NoSource(name()))?;
        if let Some(has) = volume.capacity.filter(|has| claim.request < Some(*has)) {
            return Err(Refusal::Smaller { claim: name(), has });
        }
        self.lies_here(&name(), volume, site)
    }

    /// What a volume was begun as a copy of. Where it is not known whether it was, it counts as begun while
    /// there is something to copy: that may wait for the copy to be whole.
    fn begun_copy(&self, volume: &Name) -> Option<CopyOf> {
        let unit = self.units.get(volume)?;
        let of = unit.copy_of.clone()?;
        let was_begun = match unit.disk {
            Disk::Recorded { .. } | Disk::Made { .. } => true,
            Disk::Unsure => self.volumes.get(&(None, of.volume.clone())).is_some(),
            Disk::Absent | Disk::Removed => false,
        };
        was_begun.then_some(of)
    }

    fn lies_here(&self, source: &Name, volume: &Volume, site: &Site) -> Result<Beginning, Refusal> {
        let made_on = volume
            .meta
            .annotations
            .get(bitts_api::names::PROVISIONED_ON);
        let lies = made_on.unwrap_or("another provisioner's disk").to_owned();
        if let (Ground::Node(_), false) = (&self.options.ground, self.options.made(volume)) {
            let why =
                format!("the volume of claim {source}, which is to be copied, lies on {lies}");
            return Ok(Beginning::Elsewhere(why));
        }
        let here = self.options.site_of(volume);
        if !here.is_some_and(|here| here.holds_the_same(site)) {
            return Err(Refusal::SourceElsewhere {
                claim: source.clone(),
                lies,
                here: site.to_string(),
            });
        }
        Ok(Beginning::With(Some(CopyOf {
            volume: volume.meta.name.clone(),
            whole: false,
        })))
    }

    /// A claim changed: so did what those wait for that are to be copies of it.
    pub(super) fn copies_follow(&mut self, claim: &Arc<Claim>, there: bool) {
        let waits = there && wants(claim, &self.options);
        self.copies.note(claim, waits);
        for copy in self.copies.of(&claim.meta.place()) {
            self.resume(copy);
        }
    }

    /// The same of the volume of a claim.
    pub(super) fn copies_follow_volume(&mut self, volume: &Volume) {
        if let Some(owner) = &volume.claim_ref {
            let place = (Some(owner.namespace.clone()), owner.name.clone());
            for copy in self.copies.of(&place) {
                self.resume(copy);
            }
        }
    }

    /// A copy is being made.
    pub(super) fn is_copied(&mut self, volume: &Name, bytes: u64, total: u64) {
        let (unit, _) = self.landed(volume);
        unit.disk = Disk::Recorded { confirmed: false };
        let again = if bytes == 0 { LOOK_FIRST } else { LOOK_AGAIN };
        let (after, alarm) = unit.rest(volume, again);
        let tenths = (bytes * 10).checked_div(total).unwrap_or(0).min(10);
        let news = unit.tells(&format!("copied {tenths}"));
        self.out.push(Effect::Wake(after, alarm));
        if let (true, Some(claim)) = (news, self.claim(volume)) {
            let event = reason::copying(claim, bytes, total);
            self.out.push(Effect::Event(event));
        }
    }
}
