//! What lies at a root, for whoever compares it with the API.

use std::collections::BTreeSet;

use bitts_api::Name;
use bitts_mount::dir::Dir;
use serde::{Deserialize, Serialize};

use super::records::{self, modified};
use super::{Disk, DiskError, is_empty};
use crate::pattern::OWN;
use crate::task::Record;

/// Directories that file systems and servers put at a root.
const NOT_OURS: [&str; 4] = [OWN, "lost+found", ".snapshot", ".snapshots"];
/// How deep volumes lie at most, and so what is none of them.
const DEEPEST: usize = 16;

/// What lies at a root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Volumes that the API should have.
    pub volumes: Vec<Found>,
    /// Those that are gone and whose data stays.
    pub retained: Vec<Found>,
    /// Records that nobody can read: of which volume, and why.
    pub unreadable: Vec<(Name, String)>,
    /// Directories that no record speaks of.
    pub strays: Vec<Stray>,
}

/// A record, and what there is of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What it says.
    pub record: Record,
    /// When it was written, in seconds since 1970.
    pub written: i64,
    /// Whether its directory is there.
    pub is_there: bool,
}

/// A directory that no record speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// Where it is, below the root.
    pub path: Box<str>,
    /// When something in it came or went last, in seconds since 1970.
    pub changed: i64,
    /// Whether nothing is in it.
    pub is_empty: bool,
}

impl Disk {
    /// Reads what lies at the root: records first, then directories.
    ///
    /// # Errors
    /// When something but a record cannot be read.
    pub fn census(&self) -> Result<Census, DiskError> {
        let (root, records) = self.opened()?;
        let mut census = Census::default();
        let retained = records.each(records::RETAINED)?.into_iter();
        let retained = retained.map(|one| (records::RETAINED, one));
        for (place, (volume, record)) in records.each_volume()?.into_iter().chain(retained) {
            let record = match record {
                Ok(record) => record,
                Err(why) => {
                    census.unreadable.push((volume, why.to_string()));
                    continue;
                }
            };
            let is_there = match self.existing(&root, &record.path)? {
                Some((parent, last)) => parent.child(&last)?.is_some(),
                None => false,
            };
            let into = match place {
                records::RETAINED => &mut census.retained,
                _ => &mut census.volumes,
            };
            into.push(Found {
                written: records.written(place, &volume)?.unwrap_or_default(),
                is_there,
                record,
            });
        }
        let all = census.volumes.iter().chain(&census.retained);
        let known = all.map(|found| found.record.path.as_str().to_owned());
        let known: BTreeSet<String> = known.collect();
        strays(&root, "", &known, &mut census.strays)?;
        Ok(census)
    }
}

/// Looks for directories that are neither volumes nor lead to one.
fn strays(
    dir: &Dir,
    above: &str,
    known: &BTreeSet<String>,
    found: &mut Vec<Stray>,
) -> Result<(), DiskError> {
    for name in dir.children()? {
        if above.is_empty() && NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{above}{name}");
        if known.contains(&path) {
            continue;
        }
        // It went meanwhile, or is no directory any more.
        let Ok(Some(child)) = dir.child(&name) else {
            continue;
        };
        let below = format!("{path}/");
        let mut within = known.range(below.clone()..);
        let leads_to_one = within.next().is_some_and(|next| next.starts_with(&below));
        if leads_to_one && path.split('/').count() < DEEPEST {
            strays(&child, &below, known, found)?;
        } else if !leads_to_one {
            found.push(Stray {
                changed: modified(dir, name.as_str())?.unwrap_or_default(),
                is_empty: is_empty(&child)?,
                path: path.into(),
            });
        }
    }
    Ok(())
}
