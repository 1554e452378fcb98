//! Disks that a cloud attaches to agents' nodes itself (`cloud`): what such a node lists is not asked of the
//! disk's CSI driver on another.

use std::collections::{BTreeMap, BTreeSet};

use bitts_api::{Node, NodeName};

use super::Attacher;
use crate::csi_volume::GCE;
use crate::pair::Pair;

/// What begins the name of such a disk in a node's status.
const PREFIX: &str = "kubernetes.io/gce-pd/";

/// Which nodes list which disks.
#[derive(Debug, Default)]
pub(super) struct Direct(BTreeMap<Box<str>, BTreeSet<NodeName>>);

fn disks(node: Option<&Node>) -> BTreeSet<&str> {
    let listed = node.map(|node| node.volumes_attached.iter());
    let listed = listed.into_iter().flatten();
    listed
        .filter_map(|name| name.as_str().strip_prefix(PREFIX))
        .collect()
}

impl Direct {
    /// A node was this and is that; returns the disks that it lists no more.
    fn update(&mut self, old: Option<&Node>, new: Option<&Node>) -> Vec<Box<str>> {
        let (before, now) = (disks(old), disks(new));
        let Some(node) = new.or(old) else {
            return Vec::new();
        };
        let node = NodeName::from(node.meta.name.as_str());
        for disk in &now {
            let nodes = self.0.entry((*disk).into()).or_default();
            nodes.insert(node.clone());
        }
        let gone: Vec<Box<str>> = before.difference(&now).map(|disk| (*disk).into()).collect();
        for disk in &gone {
            if let Some(nodes) = self.0.get_mut(disk) {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.0.remove(disk);
                }
            }
        }
        gone
    }

    /// A node that lists the disk that a driver's volume is.
    fn holder(&self, pair: &Pair) -> Option<&NodeName> {
        let (driver, handle) = pair.volume.csi()?;
        let disk = handle.rsplit('/').next().filter(|_| driver == GCE)?;
        self.0.get(disk)?.iter().find(|node| **node != pair.node)
    }
}

impl Attacher {
    /// Another node to which its cloud attached it.
    pub(super) fn direct_holder(&self, pair: &Pair) -> Option<&NodeName> {
        self.direct.holder(pair)
    }

    /// Who waits for a disk that a node lists no more is looked at.
    pub(super) fn direct_changed(&mut self, old: Option<&Node>, new: Option<&Node>) {
        for disk in self.direct.update(old, new) {
            let named = |pair: &&Pair| {
                let (driver, handle) = pair.volume.csi().unwrap_or_default();
                driver == GCE && handle.rsplit('/').next() == Some(&*disk)
            };
            let waiting = self.awaited.iter().flat_map(|(volume, nodes)| {
                nodes.iter().map(|node| Pair {
                    volume: volume.clone(),
                    node: node.clone(),
                })
            });
            let waiting: Vec<Pair> = waiting.filter(|pair| named(&pair)).collect();
            self.dirty.extend(waiting);
        }
    }
}
