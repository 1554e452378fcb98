//! What is known of the places where volumes are made: nothing is decided for a volume at a site
//! before what lies there was seen (B2), or while the site cannot be reached.

use std::collections::BTreeMap;

use bitts_api::Name;
use bitts_api::machine::Effect;

use super::Provisioner;
use crate::site::Site;
use crate::task::{Errand, Task};
use crate::unit::Unit;

/// The sites that there are, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Sites(BTreeMap<Site, Sight>);

/// What is known of a site.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sight {
    /// It is looked at for the first time.
    Asked,
    /// What lies there was seen.
    Known,
    /// It cannot be reached; why, for whoever waits.
    Lost(String),
}

impl Sites {
    /// Notes that a site is needed; whether it has to be scanned for that.
    pub(super) fn is_new(&mut self, site: &Site) -> bool {
        if self.0.contains_key(site) {
            return false;
        }
        self.0.insert(site.clone(), Sight::Asked);
        true
    }

    pub(super) fn get(&self, site: &Site) -> Option<&Sight> {
        self.0.get(site)
    }

    /// Why it cannot be reached, where that is so.
    pub(super) fn why_lost(&self, site: &Site) -> Option<&str> {
        match self.0.get(site) {
            Some(Sight::Lost(why)) => Some(why),
            _ => None,
        }
    }

    /// A scan told what lies there.
    pub(super) fn found(&mut self, site: &Site) {
        self.0.insert(site.clone(), Sight::Known);
    }

    /// It cannot be reached; whether it was thought to be.
    pub(super) fn lost(&mut self, site: &Site, why: String) -> bool {
        let before = self.0.insert(site.clone(), Sight::Lost(why));
        before == Some(Sight::Known)
    }

    /// Nothing is wanted there any more.
    pub(super) fn forget(&mut self, site: &Site) {
        self.0.remove(site);
    }
}

impl Provisioner {
    /// Has a site scanned, unless that was done.
    pub(super) fn ask(&mut self, site: &Site) {
        if self.sites.is_new(site) {
            self.scan(site.clone());
        }
    }

    fn scan(&mut self, site: Site) {
        let task = Task::Scan;
        self.out.push(Effect::Task(Errand { site, task }));
    }

    /// Scans a site again that could not be reached, if somebody still needs it.
    pub(super) fn scan_again(&mut self, site: Site) {
        let of_unit =
            |unit: &Unit| unit.site.as_ref() == Some(&site) || unit.awaits.as_ref() == Some(&site);
        let needed = site == Site::Disks
            || self.units.values().any(of_unit)
            || !self.classes_of(&site).is_empty();
        if needed {
            self.scan(site);
        } else {
            self.sites.forget(&site);
        }
    }

    /// A site was scanned, or could not be: whoever waits for it is looked at.
    pub(super) fn seen(&mut self, site: &Site) {
        for (name, unit) in &mut self.units {
            if unit.awaits.as_ref() == Some(site) {
                unit.awaits = None;
                unit.retry(None);
                self.dirty.insert(name.clone());
            }
        }
    }

    /// Whether anything can be done at a site; else the volume waits for it, and why is told where that
    /// is known.
    pub(super) fn reach(&mut self, name: &Name, site: &Site) -> Result<(), Option<String>> {
        self.ask(site);
        let why = match self.sites.get(site) {
            Some(Sight::Known) => return Ok(()),
            Some(Sight::Lost(why)) => Some(why.clone()),
            Some(Sight::Asked) | None => None,
        };
        let unit = self.units.entry(name.clone()).or_default();
        unit.awaits = Some(site.clone());
        Err(why)
    }

    /// Sends what need not be told of while it waits.
    pub(super) fn send(&mut self, name: &Name, site: Site, task: Task) {
        if self.reach(name, &site).is_ok() {
            self.task(name, site, task);
        }
    }
}
