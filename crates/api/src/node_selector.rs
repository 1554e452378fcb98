//! Node selectors: on which nodes a volume can be used.
//!
//! ```
//! use bitts_api::{Labels, NodeSelector};
//!
//! let affinity: NodeSelector = serde_json::from_value(serde_json::json!({
//!     "nodeSelectorTerms": [{"matchExpressions": [
//!         {"key": "zone", "operator": "In", "values": ["a", "b"]},
//!         {"key": "disks", "operator": "Gt", "values": ["3"]},
//!     ]}],
//! }))?;
//! assert!(affinity.matches("node-1", &Labels::from_iter([("zone", "a"), ("disks", "12")])));
//! assert!(!affinity.matches("node-2", &Labels::from_iter([("zone", "a"), ("disks", "3")])));
//! assert_eq!(affinity.to_string(), "zone in (a,b) and disks>3");
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::fmt;

use serde::Deserialize;

use crate::Labels;
use crate::requirement::{Operator, Requirement, WireRequirement, join};
use crate::wire::or_default;

/// The only field of a node that a selector can ask for.
const NAME: &str = "metadata.name";

/// Some nodes: those that fit one of the terms. No term, no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "Wire")]
pub struct NodeSelector(Box<[Term]>);

/// Requirements that must all hold. A term without any fits no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Term {
    labels: Box<[Requirement]>,
    fields: Box<[Requirement]>,
}

/// A label, and the values of which it must have one.
pub(crate) type Choice = (Box<str>, Vec<Box<str>>);

impl NodeSelector {
    /// The nodes that have, for one of the terms, each label with one of its values.
    pub(crate) fn of_labels(terms: impl IntoIterator<Item = Vec<Choice>>) -> Self {
        let term = |labels: Vec<Choice>| Term {
            labels: labels
                .into_iter()
                .map(|(key, values)| Requirement::one_of(&key, values))
                .collect(),
            fields: Box::default(),
        };
        Self(terms.into_iter().map(term).collect())
    }

    /// Whether a node of this name and these labels is selected.
    #[must_use]
    pub fn matches(&self, node: &str, labels: &Labels) -> bool {
        self.0.iter().any(|term| term.matches(node, labels))
    }
}

impl Term {
    fn matches(&self, node: &str, labels: &Labels) -> bool {
        let by_label = || self.labels.iter().all(|r| r.holds(labels.get(&r.key)));
        let by_field = || {
            self.fields
                .iter()
                .all(|r| r.holds((*r.key == *NAME).then_some(node)))
        };
        !(self.labels.is_empty() && self.fields.is_empty()) && by_label() && by_field()
    }
}

impl fmt::Display for NodeSelector {
    /// For an event's text, e.g. `zone in (a,b) and disks>3, or metadata.name=n1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no node");
        }
        for (i, term) in self.0.iter().enumerate() {
            f.write_str(if i > 0 { ", or " } else { "" })?;
            term.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.labels, " and ")?;
        match (self.labels.is_empty(), self.fields.is_empty()) {
            (true, true) => f.write_str("no node"),
            (false, false) => f.write_str(" and "),
            _ => Ok(()),
        }?;
        join(f, &self.fields, " and ")
    }
}

/// A node selector as the API writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default, deserialize_with = "or_default")]
    node_selector_terms: Vec<WireTerm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTerm {
    #[serde(default, deserialize_with = "or_default")]
    match_expressions: Vec<WireRequirement>,
    #[serde(default, deserialize_with = "or_default")]
    match_fields: Vec<WireRequirement>,
}

impl From<Wire> for NodeSelector {
    fn from(wire: Wire) -> Self {
        use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
        let admit = |all: Vec<WireRequirement>, operators: &[Operator]| {
            all.into_iter().map(|r| r.admit(operators)).collect()
        };
        // The API refuses every other field; here it must not turn `NotIn` into a match.
        let field = |r: WireRequirement| {
            let operators: &[_] = if *r.key == *NAME { &[In, NotIn] } else { &[] };
            r.admit(operators)
        };
        Self(
            wire.node_selector_terms
                .into_iter()
                .map(|term| Term {
                    labels: admit(
                        term.match_expressions,
                        &[In, NotIn, Exists, DoesNotExist, Gt, Lt],
                    ),
                    fields: term.match_fields.into_iter().map(field).collect(),
                })
                .collect(),
        )
    }
}
