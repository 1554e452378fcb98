//! What the node says it uses (M14, M15): a disk is in `status.volumesInUse` before it is mounted, and
//! stays there until it is known to be unmounted, so that nobody detaches it meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use bitts_api::machine::{Outcome, Part, Target, Write};
use bitts_api::{DiskName, Kind, Node, ResourceVersion, names};
use serde_json::json;

use crate::plugins::Plugin;
use crate::retry::Retry;

/// The write of the list.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    /// The node as it was when the write that is under way, or was the last, was decided on.
    written: Option<ResourceVersion>,
    in_flight: bool,
    retry: Retry<()>,
}

/// What follows from the end of a write that failed.
#[derive(Debug, PartialEq)]
pub(crate) struct Failed {
    /// When to try again,
    pub(crate) delay: Duration,
    /// with this number.
    pub(crate) attempt: u32,
    /// What the user has yet to be told.
    pub(crate) news: Option<String>,
}

impl InUse {
    /// What has to be written so that the node lists these. What others put there stays.
    pub(crate) fn write(&mut self, node: &Node, wanted: &BTreeSet<String>) -> Option<Write> {
        let listed: BTreeSet<&str> = node.volumes_in_use.iter().map(DiskName::as_str).collect();
        let of_others = listed.iter().copied().filter(|name| !is_ours(name));
        let list: BTreeSet<&str> = of_others.chain(wanted.iter().map(String::as_str)).collect();
        // Whoever attaches has to know who mounts before a disk is asked for.
        let unmarked = node.is_attached_to() && !node.is_mounted_by_agent();
        if list == listed && !unmarked {
            self.retry.reset();
            return None;
        }
        let version = node.meta.resource_version;
        if self.in_flight || self.written == Some(version) || !self.retry.allows(()) {
            return None;
        }
        self.in_flight = true;
        self.written = Some(version);
        let mut patch = json!({"status": {"volumesInUse": list}});
        if unmarked {
            patch["metadata"] = json!({"annotations": {names::MOUNTED_BY: names::BITTS_AGENT}});
        }
        Some(Write {
            step: "report-volumes-in-use",
            target: Target::of(Kind::Node, &node.meta),
            part: Part::Status,
            patch,
        })
    }

    /// A write ended.
    pub(crate) fn ended(&mut self, outcome: Outcome) -> Option<Failed> {
        self.in_flight = false;
        let message = match outcome {
            // Decided on again when the node was told anew.
            Outcome::Done | Outcome::Gone | Outcome::Conflict | Outcome::Spared => return None,
            Outcome::Refused(message) | Outcome::Failed(message) => message,
        };
        self.written = None;
        let news = self.retry.tells(&message).then_some(message);
        let (delay, attempt) = self.retry.fail(Some(()));
        Some(Failed {
            delay,
            attempt,
            news,
        })
    }

    /// The time for a try has come.
    pub(crate) fn wake(&mut self, attempt: u32) {
        self.retry.wake(attempt);
    }
}

/// Whether an entry of the list is of a type that the agent mounts.
fn is_ours(name: &str) -> bool {
    let mut prefixes = Plugin::ALL
        .iter()
        .filter_map(|plugin| plugin.volume_type().attachable_prefix());
    prefixes.any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(version: u32, in_use: &[&str]) -> Node {
        let json = json!({
            "metadata": {"name": "n", "uid": "u", "resourceVersion": version.to_string()},
            "status": {"volumesInUse": in_use},
        });
        match Kind::Node.read(json.to_string().as_bytes()) {
            Ok(bitts_api::Object::Node(node)) => (*node).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn list(write: Option<Write>) -> Option<serde_json::Value> {
        write.map(|write| write.patch["status"]["volumesInUse"].clone())
    }

    const DISK: &str = "kubernetes.io/gce-pd/data";
    const OTHER: &str = "kubernetes.io/azure-disk/x";

    #[test]
    fn one_write_at_a_time_and_what_others_wrote_stays() {
        let (mut in_use, wanted) = (InUse::default(), BTreeSet::from([DISK.to_owned()]));
        assert_eq!(
            list(in_use.write(&node(1, &[OTHER]), &wanted)),
            Some(json!([OTHER, DISK]))
        );
        assert_eq!(in_use.write(&node(2, &[OTHER]), &wanted), None, "under way");
        assert_eq!(in_use.ended(Outcome::Conflict), None);
        assert_eq!(
            list(in_use.write(&node(2, &[]), &wanted)),
            Some(json!([DISK]))
        );
        assert_eq!(in_use.ended(Outcome::Done), None);
        assert_eq!(
            in_use.write(&node(2, &[]), &wanted),
            None,
            "the watch has yet to tell"
        );
        assert_eq!(in_use.write(&node(3, &[DISK]), &wanted), None);
        let nothing = BTreeSet::new();
        assert_eq!(
            list(in_use.write(&node(3, &[OTHER, DISK]), &nothing)),
            Some(json!([OTHER]))
        );
    }

    #[test]
    fn a_node_that_disks_are_attached_to_is_marked_as_the_agents() {
        let annotated = |version, annotations: serde_json::Value| {
            let mut node = node(version, &[]);
            node.meta = serde_json::from_value(json!({"name": "n", "uid": "u",
                "resourceVersion": version.to_string(), "annotations": annotations}))
            .unwrap();
            node
        };
        let (mut in_use, nothing) = (InUse::default(), BTreeSet::new());
        assert_eq!(in_use.write(&node(1, &[]), &nothing), None);
        let managed = json!({names::CONTROLLED_ATTACH: "true"});
        let write = in_use.write(&annotated(2, managed), &nothing).unwrap();
        assert_eq!(
            write.patch,
            json!({"metadata": {"annotations": {"bitts.dev/mounted-by": "bitts-agent"}},
                "status": {"volumesInUse": []}})
        );
        assert_eq!(in_use.ended(Outcome::Done), None);
        let marked =
            json!({names::CONTROLLED_ATTACH: "true", names::MOUNTED_BY: names::BITTS_AGENT});
        assert_eq!(in_use.write(&annotated(3, marked), &nothing), None);
    }

    #[test]
    fn what_was_refused_is_told_once_and_tried_again() {
        let (mut in_use, wanted) = (InUse::default(), BTreeSet::from([DISK.to_owned()]));
        let mut refused = |news: Option<&str>, millis: u64, attempt: u32| {
            assert!(in_use.write(&node(1, &[]), &wanted).is_some());
            let failed = Failed {
                delay: Duration::from_millis(millis),
                attempt,
                news: news.map(str::to_owned),
            };
            assert_eq!(
                in_use.ended(Outcome::Refused("no".to_owned())),
                Some(failed)
            );
            assert_eq!(in_use.write(&node(1, &[]), &wanted), None);
            in_use.wake(attempt);
        };
        refused(Some("no"), 500, 1);
        refused(None, 1000, 2);
    }
}
