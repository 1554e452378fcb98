//! What is kept of a node besides its object, and what its status shall say.

use std::collections::{BTreeMap, BTreeSet};

use bitts_api::machine::{Moment, Part, Target, Write};
use bitts_api::{DiskName, Kind, Meta, Node};
use serde_json::{Value, json};

use crate::pair::UniqueName;
use crate::unit::back_off;

/// What is kept of a node.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    /// The volumes that there is something to know about.
    pub(crate) units: BTreeSet<UniqueName>,
    /// Since when it is not ready, or gone.
    pub(crate) down_since: Option<Moment>,
    /// What nodes of this name used when they went. Believed until one of the name is ready: the same
    /// machine may still run under a new uid, and says so only when its kubelet is up.
    pub(crate) last_word: Option<LastWord>,
    pub(crate) in_flight: bool,
    pub(crate) rests_until: Option<Moment>,
    failures: u32,
}

/// What was known of a node when it went.
#[derive(Debug)]
pub(crate) struct LastWord {
    pub(crate) meta: Meta,
    pub(crate) in_use: BTreeSet<DiskName>,
}

impl NodeState {
    /// A node went.
    pub(crate) fn gone(&mut self, node: &Node, now: Moment) {
        let earlier = self.last_word.take().map(|word| word.in_use);
        let mut in_use = earlier.unwrap_or_default();
        in_use.extend(node.volumes_in_use.iter().cloned());
        self.last_word = Some(LastWord {
            meta: node.meta.clone(),
            in_use,
        });
        self.down_since.get_or_insert(now);
    }

    /// This is how the node is.
    pub(crate) fn seen(&mut self, node: &Node, now: Moment) {
        if node.is_ready {
            self.down_since = None;
            self.last_word = None;
        } else {
            self.down_since.get_or_insert(now);
        }
    }

    pub(crate) fn fail(&mut self, now: Moment) -> Moment {
        self.failures += 1;
        let until = now + back_off(self.failures);
        self.rests_until = Some(until);
        until
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
        self.rests_until = None;
    }
}

/// The write after which a node's status lists these of our volumes, and of others what it lists now
/// (A17): all that changed since the last one, in one write.
pub(crate) fn report(node: &Node, ours: &BTreeSet<&str>) -> Option<Write> {
    let path = |name: &&str| {
        let path = node.device_paths.get(*name).map_or("", |path| path);
        ((*name).to_owned(), path.to_owned())
    };
    let ours = ours.iter().map(path).collect();
    listing(node, &ours, |name| UniqueName::listed(name).is_some())
}

/// The same for volumes whose paths are known, among those that this is true of.
pub(crate) fn listing(
    node: &Node,
    ours: &BTreeMap<String, String>,
    is_ours: impl Fn(&str) -> bool,
) -> Option<Write> {
    let listed: BTreeSet<&str> = node.volumes_attached.iter().map(DiskName::as_str).collect();
    let others = listed.iter().copied().filter(|name| !is_ours(name));
    let list: BTreeSet<&str> = others.chain(ours.keys().map(String::as_str)).collect();
    if list == listed {
        return None;
    }
    let entry = |name: &&str| -> Value {
        let known = node.device_paths.get(*name).map(|path| &**path);
        let path = ours.get(*name).map(String::as_str).or(known);
        json!({"name": name, "devicePath": path.unwrap_or_default()})
    };
    let list: Vec<Value> = list.iter().map(entry).collect();
    Some(Write {
        step: "report-volumes-attached",
        target: Target::of(Kind::Node, &node.meta),
        part: Part::Status,
        patch: json!({"status": {"volumesAttached": list}}),
    })
}
