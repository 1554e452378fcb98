//! How long making and deleting volumes takes, for whoever does it, under the names that users know
//! (N14, D14).
//!
//! Making begins when a provisioner is first asked, and ends when its claim is Bound; deleting begins
//! when the volume is first seen Released, and ends when its object is gone. What began before this
//! process did is measured from when the process saw it first, as in the original.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Durations, Measure, Moment, Reading};
use bitts_api::{Kind, ObjectKey, Uid};

/// What volumes are counted by whose plugin nobody knows.
pub(crate) const UNKNOWN: &str = "N/A";

/// The original's.
const BOUNDS: [Duration; 13] = [
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(15),
    Duration::from_secs(25),
    Duration::from_secs(50),
    Duration::from_secs(120),
    Duration::from_secs(300),
    Duration::from_secs(600),
];

/// The plugin and the operation.
type Labels = (Box<str>, &'static str);

/// What is under way, and what was: of a claim its volume being made, of a volume its deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operations {
    under_way: BTreeMap<ObjectKey, Begun>,
    took: BTreeMap<Labels, Durations>,
    errors: BTreeMap<Labels, u64>,
}

#[derive(Clone, Debug)]
struct Begun {
    uid: Uid,
    plugin: Box<str>,
    at: Moment,
}

fn operation(key: &ObjectKey) -> &'static str {
    if key.kind == Kind::Volume {
        "delete"
    } else {
        "provision"
    }
}

impl Operations {
    /// It begins now, unless it is under way.
    pub(crate) fn begin(&mut self, key: ObjectKey, uid: &Uid, plugin: &str, now: Moment) {
        self.under_way.entry(key).or_insert_with(|| Begun {
            uid: uid.clone(),
            plugin: plugin.into(),
            at: now,
        });
    }

    /// A try failed; it is still under way.
    pub(crate) fn fail(&mut self, key: &ObjectKey) {
        if let Some(begun) = self.under_way.get(key) {
            let labels = (begun.plugin.clone(), operation(key));
            *self.errors.entry(labels).or_default() += 1;
        }
    }

    /// It succeeded.
    pub(crate) fn end(&mut self, key: &ObjectKey, now: Moment) {
        if let Some(begun) = self.under_way.remove(key) {
            let labels = (begun.plugin, operation(key));
            let took = self.took.entry(labels);
            let took = took.or_insert_with(|| Durations::new(&BOUNDS));
            took.add(now.0.saturating_sub(begun.at.0));
        }
    }

    /// The object of this name is the one of this uid now, or there is none: for a volume, that is
    /// what was to be; for a claim there is nothing left to measure.
    pub(crate) fn stands(&mut self, key: &ObjectKey, uid: Option<&Uid>, now: Moment) {
        let gone = |begun: &Begun| Some(&begun.uid) != uid;
        if !self.under_way.get(key).is_some_and(gone) {
            return;
        }
        if key.kind == Kind::Volume {
            self.end(key, now);
        } else {
            self.under_way.remove(key);
        }
    }

    pub(crate) fn measures(&self) -> impl Iterator<Item = Measure> {
        let of = |name, help, (plugin, operation): &Labels, reading| Measure {
            name,
            help,
            labels: vec![
                ("plugin_name", plugin.to_string()),
                ("operation_name", (*operation).to_owned()),
            ],
            reading,
        };
        let took = self.took.iter().map(move |(labels, took)| {
            of(
                "volume_operation_total_seconds",
                "How long making or deleting a volume took from end to end",
                labels,
                Reading::Durations(took.clone()),
            )
        });
        let names = [
            (
                "volume_operation_errors_total",
                "Tries to make or delete a volume that failed",
            ),
            (
                "volume_operation_total_errors",
                "Deprecated, as in Kubernetes: volume_operation_errors_total",
            ),
        ];
        let errors = names.into_iter().flat_map(move |(name, help)| {
            self.errors
                .iter()
                .map(move |(labels, n)| of(name, help, labels, Reading::Counter(*n)))
        });
        took.chain(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn took(operations: &Operations) -> Vec<(String, Duration)> {
        let of = |measure: Measure| match measure.reading {
            Reading::Durations(took) => Some((measure.labels[1].1.clone(), took.sum())),
            _ => None,
        };
        operations.measures().filter_map(of).collect()
    }

    /// N14, D14: from first to last, whatever comes in between.
    #[test]
    fn an_operation_is_measured_once_from_its_first_try_to_its_end() {
        let mut operations = Operations::default();
        let (c, v) = (ObjectKey::claim("default", "c"), ObjectKey::volume("v"));
        let (first, second) = (Uid::from("1"), Uid::from("2"));
        operations.begin(c.clone(), &first, "x", at(10));
        operations.begin(c.clone(), &first, "x", at(20));
        operations.stands(&c, Some(&first), at(20));
        operations.end(&c, at(30));
        operations.end(&c, at(40));
        assert_eq!(took(&operations), [("provision".into(), at(20).0)]);
        // A claim that goes is no success, a volume that goes is.
        operations.begin(c.clone(), &first, "x", at(50));
        operations.stands(&c, Some(&second), at(60));
        operations.end(&c, at(70));
        operations.begin(v.clone(), &first, "x", at(80));
        operations.stands(&v, None, at(85));
        assert_eq!(
            took(&operations),
            [("delete".into(), at(5).0), ("provision".into(), at(20).0)]
        );
    }
}
