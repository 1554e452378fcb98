//! Whether the node is as the API wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use bitts_mount::table::{Mount, MountTable};

use super::Story;
use super::process::Agent;
use crate::agent::KUBELET;

/// What was found.
pub(super) enum Settled {
    Yes,
    /// Something that an agent has yet to do.
    NotYet(String),
}

/// Looks at the node.
///
/// # Errors
/// On what must not be at any time: a volume that is mounted twice, or the wrong one, or not where a
/// running pod saw it; and whatever was mounted or unmounted outside the kubelet's directory.
pub(super) fn look(story: &mut Story, agent: &Agent) -> anyhow::Result<Settled> {
    let table = MountTable::read()?;
    let mut mounted: BTreeMap<&Path, Vec<&Mount>> = BTreeMap::new();
    let (below, beside): (Vec<_>, Vec<_>) = table
        .iter()
        .partition(|mount| mount.point.starts_with(KUBELET));
    let ids = |mounts: &mut dyn Iterator<Item = &Mount>| -> BTreeSet<_> {
        mounts
            .map(|mount| (mount.id, mount.point.clone()))
            .collect()
    };
    let (now, before) = (ids(&mut beside.into_iter()), ids(&mut story.before.iter()));
    ensure!(
        now == before,
        "mounted elsewhere: {:?}",
        now.symmetric_difference(&before)
    );
    for mount in below {
        mounted.entry(&mount.point).or_default().push(mount);
    }
    for (target, layers) in &mounted {
        let sources: Vec<_> = layers.iter().map(|layer| &layer.source).collect();
        ensure!(
            layers.len() == 1,
            "doubled: {sources:?} at {}",
            target.display()
        );
    }
    let mut amiss = Vec::new();
    let mut wanted = BTreeSet::new();
    for pod in story.pods.values_mut() {
        for (place, seen) in &mut pod.mounts {
            let volume = &story.volumes[*place];
            let target = volume.target(&pod.uid);
            let there = mounted
                .remove(&*target)
                .and_then(|layers| layers.first().copied());
            match (there, &seen) {
                (None, None) => amiss.push(format!("not mounted: {}", target.display())),
                (None, Some(_)) => bail!("taken from a running pod: {}", target.display()),
                (Some(mount), seen) => {
                    ensure!(volume.is(mount), "{mount:?} is not {}", volume.name);
                    let is_same = seen.is_none_or(|seen| seen == mount.id);
                    ensure!(is_same, "mounted anew: {}", target.display());
                }
            }
            *seen = there.map(|mount| mount.id);
            wanted.insert(target);
        }
    }
    let left = mounted
        .keys()
        .map(|point| format!("still mounted: {}", point.display()));
    amiss.extend(left);
    let found = leaves(&Path::new(KUBELET).join("pods"), 4)?;
    let odd = found.symmetric_difference(&wanted);
    amiss.extend(odd.map(|path| format!("left over or lacking: {}", path.display())));
    let orphans = agent.orphans()?;
    amiss.extend(
        orphans
            .iter()
            .map(|process| format!("left by a killed agent: {process:?}")),
    );
    Ok(if amiss.is_empty() {
        Settled::Yes
    } else {
        Settled::NotYet(amiss.join("\n"))
    })
}

/// The directories in which there are no others, at most so deep: no volume is entered.
fn leaves(top: &Path, deep: u32) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let entries = match fs::read_dir(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let below = if deep > 1 {
            leaves(&path, deep - 1)?
        } else {
            BTreeSet::new()
        };
        if below.is_empty() {
            found.insert(path);
        } else {
            found.extend(below);
        }
    }
    Ok(found)
}
