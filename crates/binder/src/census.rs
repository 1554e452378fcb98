//! How many volumes and claims there are, under the names that users know (N14).
//!
//! Counted as changes come in: reading the metrics never goes through all objects.

use std::collections::BTreeMap;

use bitts_api::machine::{Measure, Outcome, Reading};
use bitts_api::{Claim, ClaimPhase, ClassName, Namespace, Source, Volume, VolumeMode, VolumePhase};

use crate::ephemeral;

/// What claims are counted by.
type ClaimLabels = (Namespace, Option<ClassName>, Option<ClassName>);

/// The counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    volumes: BTreeMap<(String, &'static str), u64>,
    bound_volumes: BTreeMap<Option<ClassName>, u64>,
    unbound_volumes: BTreeMap<Option<ClassName>, u64>,
    bound_claims: BTreeMap<ClaimLabels, u64>,
    unbound_claims: BTreeMap<ClaimLabels, u64>,
    classes_set: u64,
    classes_not_set: u64,
    claims_tried: u64,
    claims_not_made: u64,
}

impl Census {
    /// A volume was `old` and is `new`.
    pub(crate) fn volume(&mut self, old: Option<&Volume>, new: Option<&Volume>) {
        for (volume, is_now) in [(old, false), (new, true)] {
            let Some(volume) = volume else { continue };
            let kind = (plugin(&volume.source), mode(volume.volume_mode));
            count(&mut self.volumes, kind, is_now);
            let by_class = match volume.phase {
                VolumePhase::Bound => &mut self.bound_volumes,
                _ => &mut self.unbound_volumes,
            };
            count(by_class, volume.class.clone(), is_now);
        }
    }

    /// A claim was `old` and is `new`.
    pub(crate) fn claim(&mut self, old: Option<&Claim>, new: Option<&Claim>) {
        for (claim, is_now) in [(old, false), (new, true)] {
            let Some(claim) = claim else { continue };
            let Some(namespace) = claim.meta.namespace.clone() else {
                continue;
            };
            let labels = (
                namespace,
                claim.class.clone(),
                claim.attributes_class.clone(),
            );
            let by_labels = match claim.phase {
                ClaimPhase::Bound => &mut self.bound_claims,
                _ => &mut self.unbound_claims,
            };
            count(by_labels, labels, is_now);
        }
    }

    /// A write ended.
    pub(crate) fn wrote(&mut self, step: &str, outcome: &Outcome) {
        if step == ephemeral::CREATE {
            self.claims_tried += 1;
            // One that is there already is a failure as well, as under kube-controller-manager.
            self.claims_not_made += u64::from(*outcome != Outcome::Done);
        }
        if step != "set-default-class" {
            return;
        }
        match outcome {
            Outcome::Done => self.classes_set += 1,
            Outcome::Refused(_) | Outcome::Failed(_) => self.classes_not_set += 1,
            Outcome::Gone | Outcome::Conflict | Outcome::Spared => {}
        }
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        let mut all = Vec::new();
        for ((plugin, mode), n) in &self.volumes {
            let labels = vec![
                ("plugin_name", plugin.clone()),
                ("volume_mode", (*mode).to_owned()),
            ];
            all.push(gauge(
                "pv_collector_total_pv_count",
                "Number of volumes by plugin and volume mode",
                labels,
                *n,
            ));
        }
        for (name, help, counts) in [
            (
                "pv_collector_bound_pv_count",
                "Number of volumes that are bound, by storage class",
                &self.bound_volumes,
            ),
            (
                "pv_collector_unbound_pv_count",
                "Number of volumes that are not bound, by storage class",
                &self.unbound_volumes,
            ),
        ] {
            for (class, n) in counts {
                all.push(gauge(name, help, vec![("storage_class", text(class))], *n));
            }
        }
        for (name, help, counts) in [
            (
                "pv_collector_bound_pvc_count",
                "Number of claims that are bound, by namespace and classes",
                &self.bound_claims,
            ),
            (
                "pv_collector_unbound_pvc_count",
                "Number of claims that are not bound, by namespace and classes",
                &self.unbound_claims,
            ),
        ] {
            for ((namespace, class, attributes), n) in counts {
                let labels = vec![
                    ("namespace", namespace.to_string()),
                    ("storage_class", text(class)),
                    ("volume_attributes_class", text(attributes)),
                ];
                all.push(gauge(name, help, labels, *n));
            }
        }
        for (name, help, n) in [
            (
                "retroactive_storageclass_total",
                "Claims that were given the default class after they were made",
                self.classes_set,
            ),
            (
                "retroactive_storageclass_errors_total",
                "Failed tries to give a claim the default class",
                self.classes_not_set,
            ),
            (
                "ephemeral_volume_controller_create_total",
                "Requests to make the claim of an ephemeral volume",
                self.claims_tried,
            ),
            (
                "ephemeral_volume_controller_create_failures_total",
                "Failed requests to make the claim of an ephemeral volume",
                self.claims_not_made,
            ),
        ] {
            all.push(Measure {
                name,
                help,
                labels: Vec::new(),
                reading: Reading::Counter(n),
            });
        }
        all
    }
}

fn gauge(
    name: &'static str,
    help: &'static str,
    labels: Vec<(&'static str, String)>,
    n: u64,
) -> Measure {
    Measure {
        name,
        help,
        labels,
        reading: Reading::Gauge(n),
    }
}

/// Counts one more or one less; what there is none of is not kept.
fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, is_now: bool) {
    let n = counts.get(&key).copied().unwrap_or(0);
    match if is_now { n + 1 } else { n.saturating_sub(1) } {
        0 => drop(counts.remove(&key)),
        n => drop(counts.insert(key, n)),
    }
}

fn text(class: &Option<ClassName>) -> String {
    class.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// The plugin's name as the original has it; a CSI driver is named with it.
fn plugin(source: &Source) -> String {
    match source {
        Source::Local { .. } => "kubernetes.io/local-volume".to_owned(),
        Source::HostPath { .. } => "kubernetes.io/host-path".to_owned(),
        Source::Nfs { .. } => "kubernetes.io/nfs".to_owned(),
        Source::Csi(volume) => format!("kubernetes.io/csi:{}", volume.driver),
        // Of these the stock controller knows no plugin.
        Source::GcePersistentDisk { .. } | Source::Iscsi { .. } | Source::Other(_) => {
            "N/A".to_owned()
        }
    }
}

fn mode(mode: VolumeMode) -> &'static str {
    match mode {
        VolumeMode::Filesystem => "Filesystem",
        VolumeMode::Block => "Block",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(phase: &str) -> Volume {
        serde_json::from_value(json!({
            "metadata": {"name": "v", "uid": "v-1", "resourceVersion": "1"},
            "spec": {"storageClassName": "fast", "nfs": {"server": "s", "path": "/"}},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn lines(census: &Census) -> Vec<String> {
        let line = |m: &Measure| {
            let labels: Vec<_> = m.labels.iter().map(|(_, value)| value.as_str()).collect();
            let (Reading::Gauge(n) | Reading::Counter(n)) = m.reading else {
                panic!("{m:?}");
            };
            format!("{} {} {n}", m.name, labels.join(" "))
        };
        census.measures().iter().map(line).collect()
    }

    /// N14.
    #[test]
    fn a_volume_is_counted_as_what_it_is_and_no_longer_as_what_it_was() {
        let mut census = Census::default();
        let (free, bound) = (volume("Available"), volume("Bound"));
        census.volume(None, Some(&free));
        census.volume(Some(&free), Some(&bound));
        census.wrote("set-default-class", &Outcome::Done);
        census.wrote("reserve-volume", &Outcome::Done);
        census.wrote("set-default-class", &Outcome::Failed(String::new()));
        census.wrote(ephemeral::CREATE, &Outcome::Done);
        census.wrote(ephemeral::CREATE, &Outcome::Conflict);
        assert_eq!(
            lines(&census),
            [
                "pv_collector_total_pv_count kubernetes.io/nfs Filesystem 1",
                "pv_collector_bound_pv_count fast 1",
                "retroactive_storageclass_total  1",
                "retroactive_storageclass_errors_total  1",
                "ephemeral_volume_controller_create_total  2",
                "ephemeral_volume_controller_create_failures_total  1",
            ]
        );
        census.volume(Some(&bound), None);
        assert_eq!(lines(&census).len(), 4);
    }
}
