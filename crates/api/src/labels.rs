//! Labels and label selectors.
//!
//! ```
//! use bitts_api::{LabelSelector, Labels};
//!
//! let selector: LabelSelector = serde_json::from_value(serde_json::json!({
//!     "matchLabels": {"disk": "ssd"},
//!     "matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["c"]}],
//! }))?;
//! assert!(selector.matches(&Labels::from_iter([("disk", "ssd"), ("zone", "a")])));
//! assert!(!selector.matches(&Labels::from_iter([("disk", "ssd"), ("zone", "c")])));
//! assert_eq!(selector.to_string(), "disk=ssd,zone notin (c)");
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use crate::meta::share;
use crate::requirement::{Operator, Requirement, WireRequirement};
use crate::wire::or_default;

/// The labels of an object, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Box<[(Arc<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(key));
        at.ok().map(|i| &*self.0[i].1)
    }

    /// All keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    /// Of two values for one key the last counts.
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (share(key), value.into()))
                .collect(),
        )
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> serde::de::Visitor<'de> for Map {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of labels")
            }
            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Labels, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((Key(key), value)) = map.next_entry::<_, Option<Box<str>>>()? {
                    pairs.insert(key, value.unwrap_or_default());
                }
                Ok(Labels(pairs.into_iter().collect()))
            }
        }
        deserializer.deserialize_any(Map)
    }
}

/// A label's key. A cluster has few different ones, so equal ones share their bytes.
struct Key(Arc<str>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a label's key")
            }
            fn visit_str<E>(self, text: &str) -> Result<Key, E> {
                Ok(Key(share(text)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Which labels an object must have. Every requirement must hold; an empty selector matches every
/// object (B13.11).
///
/// What no label can satisfy by the API's own rules (an unknown operator, `In` without values)
/// reads as a requirement that is never met: an odd selector selects nothing, and never stalls the
/// watch that brings it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "Wire")]
pub struct LabelSelector(Box<[Requirement]>);

impl LabelSelector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|r| r.holds(labels.get(&r.key)))
    }

    /// The requirements that an object with these labels does not meet.
    pub fn unmet(&self, labels: &Labels) -> impl Iterator<Item = &Requirement> {
        self.0.iter().filter(|r| !r.holds(labels.get(&r.key)))
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels that every selected object has with exactly this value: what an index can answer.
    /// The selector may ask for more.
    pub fn required_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter_map(|r| Some((&*r.key, r.only_value()?)))
    }
}

impl fmt::Display for LabelSelector {
    /// As kubectl prints it, e.g. `disk=ssd,zone in (a,b),!spare`; a single value always with `=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("<none>");
        }
        crate::requirement::join(f, &self.0, ",")
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for LabelSelector {
    /// A selector for exactly these labels, as `matchLabels` says it.
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self::from_requirements(
            pairs
                .into_iter()
                .map(|(key, value)| Requirement::equals(key, value)),
        )
    }
}

impl LabelSelector {
    /// Equal selectors compare equal however they were written.
    fn from_requirements(requirements: impl Iterator<Item = Requirement>) -> Self {
        let mut all: Vec<_> = requirements.collect();
        all.sort();
        all.dedup();
        Self(all.into())
    }
}

/// A label selector as the API writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default, deserialize_with = "or_default")]
    match_labels: Labels,
    #[serde(default, deserialize_with = "or_default")]
    match_expressions: Vec<WireRequirement>,
}

impl From<Wire> for LabelSelector {
    fn from(wire: Wire) -> Self {
        let equal = wire.match_labels.iter();
        let asked = wire.match_expressions.into_iter().map(|r| {
            r.admit(&[
                Operator::In,
                Operator::NotIn,
                Operator::Exists,
                Operator::DoesNotExist,
            ])
        });
        Self::from_requirements(
            equal
                .map(|(key, value)| Requirement::equals(key, value))
                .chain(asked),
        )
    }
}
