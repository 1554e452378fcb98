//! What is at a root and not in the API, or the other way round. Pure: whoever asks reads both.

use std::collections::BTreeMap;
use std::path::Path;

use bitts_api::{Claim, Name, NodeName, Volume, names};
use serde::Serialize;

use crate::disk::Census;
use crate::site::Share;
use crate::task::{Owner, Record};
use crate::volume::path;

/// Whose roots were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// A node's: all its disks.
    Node(NodeName),
    /// A share.
    Share(Share),
}

/// Something without its other half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// Which half is there.
    pub kind: OrphanKind,
    /// Where, or where it should be; none for a volume that no root is known of.
    pub root: Option<String>,
    /// The volume's name; none for a directory that nothing is known of.
    pub volume: Option<Name>,
    /// The directory, below the root.
    pub path: Option<Box<str>>,
    /// The claim that it was made for.
    pub claim: Option<Owner>,
    /// Since when it is as it is at least, in seconds since 1970.
    pub since: Option<i64>,
    /// The same for people.
    pub text: String,
}

/// Which half of a volume is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrphanKind {
    /// Its record, with or without the directory, and no PersistentVolume.
    RecordWithoutVolume,
    /// A directory that no record speaks of.
    DirectoryWithoutRecord,
    /// A record that nobody can read.
    UnreadableRecord,
    /// A PersistentVolume that was made here, and no record.
    VolumeWithoutRecord,
    /// A PersistentVolume and its record, and no directory.
    VolumeWithoutDirectory,
    /// The record of data that was to stay, and no directory.
    RetainedWithoutDirectory,
}

/// Compares what lies at the roots of a home, each by its name, with all volumes and claims. What was
/// read while things changed may be wrong: what is found twice, some seconds apart, is so.
#[must_use]
pub fn orphans(
    home: &Home,
    roots: &[(String, Census)],
    volumes: &[Volume],
    claims: &[Claim],
) -> Vec<Orphan> {
    let by_name: BTreeMap<&Name, &Volume> = volumes.iter().map(|v| (&v.meta.name, v)).collect();
    let mut found = Vec::new();
    let mut recorded = BTreeMap::new();
    for (root, census) in roots {
        for entry in &census.volumes {
            let record = &entry.record;
            recorded.insert(&record.volume, record);
            let volume = by_name.get(&record.volume);
            let volume = volume.filter(|volume| is_of(volume, root, record));
            let (kind, text) = match (volume, entry.is_there) {
                (Some(_), true) => continue,
                (Some(volume), false) if is_leaving(volume) => continue,
                (Some(_), false) => {
                    let text = "its PersistentVolume is there, and its directory is not";
                    (OrphanKind::VolumeWithoutDirectory, text)
                }
                (None, _) if is_being_made(record, claims) => continue,
                (None, true) => {
                    let text = "its directory is there, and its PersistentVolume is not";
                    (OrphanKind::RecordWithoutVolume, text)
                }
                (None, false) => {
                    let text = "there is nothing but its record";
                    (OrphanKind::RecordWithoutVolume, text)
                }
            };
            found.push(Orphan {
                since: Some(entry.written),
                ..of_record(kind, root, record, text)
            });
        }
        for entry in census.retained.iter().filter(|entry| !entry.is_there) {
            let text = "its data was to stay, and is not there";
            let kind = OrphanKind::RetainedWithoutDirectory;
            found.push(Orphan {
                since: Some(entry.written),
                ..of_record(kind, root, &entry.record, text)
            });
        }
        for (volume, why) in &census.unreadable {
            found.push(Orphan {
                kind: OrphanKind::UnreadableRecord,
                root: Some(root.clone()),
                volume: Some(volume.clone()),
                path: None,
                claim: None,
                since: None,
                text: why.clone(),
            });
        }
    }
    let ours = volumes.iter().filter(|v| is_at(v, home) && !is_leaving(v));
    for volume in ours.filter(|v| !recorded.contains_key(&v.meta.name)) {
        found.push(without_record(volume, roots));
    }
    for (root, census) in roots {
        for stray in &census.strays {
            let whose = found.iter().any(|orphan| {
                orphan.root.as_ref() == Some(root) && orphan.path.as_ref() == Some(&stray.path)
            });
            if whose {
                continue; // told of its volume already
            }
            let what = if stray.is_empty { "an empty" } else { "a" };
            found.push(Orphan {
                kind: OrphanKind::DirectoryWithoutRecord,
                root: Some(root.clone()),
                volume: None,
                path: Some(stray.path.clone()),
                claim: None,
                since: Some(stray.changed),
                text: format!("{what} directory that no record speaks of"),
            });
        }
    }
    found.sort_by(|a, b| {
        let key = |o: &Orphan| (o.kind, o.root.clone(), o.volume.clone(), o.path.clone());
        key(a).cmp(&key(b))
    });
    found
}

fn of_record(kind: OrphanKind, root: &str, record: &Record, text: &str) -> Orphan {
    Orphan {
        kind,
        root: Some(root.to_owned()),
        volume: Some(record.volume.clone()),
        path: Some(record.path.as_str().into()),
        claim: Some(record.claim.clone()),
        since: None,
        text: text.to_owned(),
    }
}

/// A volume that was made here and has no record.
fn without_record(volume: &Volume, roots: &[(String, Census)]) -> Orphan {
    let path = path(volume).unwrap_or_default();
    let place = roots.iter().find_map(|(root, census)| {
        let below = path.strip_prefix(top(root))?.trim_start_matches('/');
        let stray = census.strays.iter().any(|stray| *stray.path == *below);
        Some((root.clone(), below.into(), stray))
    });
    let (kind, text) = match place {
        Some((_, _, true)) => (
            OrphanKind::VolumeWithoutRecord,
            "its directory is there, and no record says for whom it was made",
        ),
        Some(_) => (
            OrphanKind::VolumeWithoutDirectory,
            "there is neither directory nor record",
        ),
        None => (
            OrphanKind::VolumeWithoutDirectory,
            "it lies in none of the directories that were looked at",
        ),
    };
    let claim = volume.claim_ref.as_ref().and_then(|owner| {
        Some(Owner {
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone()?,
        })
    });
    let (root, path) = place.map(|(root, path, _)| (root, path)).unzip();
    Orphan {
        kind,
        root,
        volume: Some(volume.meta.name.clone()),
        path,
        claim,
        since: None,
        text: text.to_owned(),
    }
}

/// Whether a volume is the one that a record at this root speaks of.
fn is_of(volume: &Volume, root: &str, record: &Record) -> bool {
    let owner = volume.claim_ref.as_ref().and_then(|r| r.uid.as_ref());
    let lies_there = path(volume).is_none_or(|path| {
        // Two spellings of a path are one path.
        Path::new(path) == Path::new(top(root)).join(record.path.as_str())
    });
    // One that an operator freed for others is the same volume still.
    lies_there && owner.is_none_or(|uid| *uid == record.claim.uid)
}

/// A root as volumes have it: of a share, `server:/path`, without the server.
fn top(root: &str) -> &str {
    root.find(":/").map_or(root, |colon| &root[colon + 1..])
}

/// Whether the volume is to go: its directory may be gone before it.
fn is_leaving(volume: &Volume) -> bool {
    volume.meta.is_deleting() || volume.meta.annotations.has(names::DELETING)
}

/// Whether a claim waits for what the record speaks of.
fn is_being_made(record: &Record, claims: &[Claim]) -> bool {
    let mut claims = claims.iter();
    claims.any(|claim| claim.meta.uid == record.claim.uid && claim.volume_name.is_none())
}

fn is_at(volume: &Volume, home: &Home) -> bool {
    match home {
        Home::Node(node) => {
            volume.meta.annotations.get(names::PROVISIONED_ON) == Some(node.as_str())
        }
        Home::Share(share) => {
            Share::of_volume(volume).is_some_and(|of| of.export() == share.export())
        }
    }
}
