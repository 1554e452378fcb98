//! Whether the node is as the API wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use bitts_mount::table::{Mount, MountTable};

use super::process::Agent;
use super::volumes::{STAGED, Volume};
use super::{Pod, Story};
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
/// On what must not be at any time: a volume that is mounted twice, or the wrong one, or taken from a
/// running pod that saw it; and whatever was mounted or unmounted outside the kubelet's directory.
pub(super) fn look(story: &mut Story, agent: &Agent) -> anyhow::Result<Settled> {
    let table = MountTable::read()?;
    let (now, before) = (beside(&table), beside(&story.before));
    let change = now.symmetric_difference(&before);
    ensure!(now == before, "mounted elsewhere: {change:?}");
    let mut look = Look {
        mounted: once_each(&table)?,
        wanted: BTreeSet::new(),
        amiss: Vec::new(),
    };
    for pod in story.pods.values_mut() {
        look.at_pod(pod, &story.volumes)?;
    }
    for (place, volume) in story.volumes.iter().enumerate() {
        let pods = story.pods.values();
        let users: Vec<_> = pods.filter_map(|pod| pod.mounts.get(&place)).collect();
        if let Some(stage) = volume.stage().filter(|_| !users.is_empty()) {
            look.at_stage(volume, stage, users.iter().any(|seen| seen.is_some()))?;
        }
    }
    look.at_the_rest(agent)?;
    Ok(if look.amiss.is_empty() {
        Settled::Yes
    } else {
        Settled::NotYet(look.amiss.join("\n"))
    })
}

/// What is mounted outside the kubelet's directory.
fn beside(table: &MountTable) -> BTreeSet<String> {
    let beside = table
        .iter()
        .filter(|mount| !mount.point.starts_with(KUBELET));
    beside
        .map(|mount| format!("{:?} {}", mount.id, mount.point.display()))
        .collect()
}

/// The mounts in the kubelet's directory by their places, of which none has two.
fn once_each(table: &MountTable) -> anyhow::Result<BTreeMap<&Path, &Mount>> {
    let mut mounted = BTreeMap::new();
    for mount in table
        .iter()
        .filter(|mount| mount.point.starts_with(KUBELET))
    {
        let other = mounted.insert(&*mount.point, mount);
        ensure!(other.is_none(), "doubled: {mount:?} on {other:?}");
    }
    Ok(mounted)
}

struct Look<'a> {
    /// What is mounted and not yet accounted for.
    mounted: BTreeMap<&'a Path, &'a Mount>,
    /// The places that there should be.
    wanted: BTreeSet<PathBuf>,
    amiss: Vec<String>,
}

impl Look<'_> {
    fn at_pod(&mut self, pod: &mut Pod, volumes: &[Volume]) -> anyhow::Result<()> {
        for (place, seen) in &mut pod.mounts {
            let volume = &volumes[*place];
            let target = volume.target(&pod.uid);
            let there = self.mounted.remove(&*target);
            match (there, &seen) {
                (None, None) => self
                    .amiss
                    .push(format!("not mounted: {}", target.display())),
                (None, Some(_)) => bail!("taken from a running pod: {}", target.display()),
                (Some(mount), seen) => {
                    ensure!(volume.is(mount), "{mount:?} is not {}", volume.name);
                    let is_same = seen.is_none_or(|seen| seen == mount.id);
                    ensure!(is_same, "mounted anew: {}", target.display());
                }
            }
            *seen = there.map(|mount| mount.id);
            self.wanted.insert(target);
        }
        Ok(())
    }

    /// Of a device that some pods use, and maybe see.
    fn at_stage(&mut self, volume: &Volume, stage: &Path, is_seen: bool) -> anyhow::Result<()> {
        match self.mounted.remove(stage) {
            Some(mount) => ensure!(volume.is(mount), "{mount:?} is not {}", volume.name),
            None if is_seen => bail!("{} was taken from its pods", volume.name),
            None => self.amiss.push(format!("not staged: {}", volume.name)),
        }
        self.wanted.insert(stage.to_owned());
        Ok(())
    }

    /// What should not be there, and directories that should.
    fn at_the_rest(&mut self, agent: &Agent) -> anyhow::Result<()> {
        let points = self.mounted.keys();
        let left = points.map(|point| format!("still mounted: {}", point.display()));
        self.amiss.extend(left);
        let mut found = leaves(&Path::new(KUBELET).join("pods"), 4)?;
        found.extend(leaves(&Path::new(KUBELET).join(STAGED), 1)?);
        let odd = found.symmetric_difference(&self.wanted);
        let odd = odd.map(|path| format!("left over or lacking: {}", path.display()));
        self.amiss.extend(odd);
        let orphans = agent.orphans()?;
        let orphans = orphans.iter().map(|process| process.pid);
        self.amiss
            .extend(orphans.map(|pid| format!("left by a killed agent: process {pid}")));
        Ok(())
    }
}

/// The directories in which there are no others, at most so deep: no volume is entered.
fn leaves(top: &Path, deep: u32) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let entries = match fs::read_dir(top) {
        // An agent removes them meanwhile.
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
