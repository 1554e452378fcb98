//! One requirement of a selector: a key, an operator and values.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::meta::share;
use crate::wire::or_default;

/// Something that the value of one key must satisfy. Prints as in a selector, e.g. `zone in (a,b)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    pub(crate) key: Arc<str>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
    /// What the API would have refused, as it was written; never met.
    Unmeetable(Box<str>),
}

/// The operators of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            _ => return None,
        })
    }
}

impl Requirement {
    /// The key must have exactly this value.
    pub(crate) fn equals(key: &str, value: &str) -> Self {
        Self {
            key: share(key),
            test: Test::In([value.into()].into()),
        }
    }

    /// The key must have one of these values.
    pub(crate) fn one_of(key: &str, mut values: Vec<Box<str>>) -> Self {
        values.sort();
        Self {
            key: share(key),
            test: Test::In(values.into()),
        }
    }

    /// Whether the requirement is met by the key's value, `None` when the object has no such key.
    pub(crate) fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|v| values.iter().any(|known| **known == *v)),
            Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|known| **known != *v)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Gt(bound) => number().is_some_and(|n| n > *bound),
            Test::Lt(bound) => number().is_some_and(|n| n < *bound),
            Test::Unmeetable(_) => false,
        }
    }

    /// What makes an object without it meet the requirement: the key, and a value for it or `None`
    /// to take it away. Nothing helps where no value can be told.
    #[must_use]
    pub fn cure(&self) -> Option<(&str, Option<&str>)> {
        let value = match &self.test {
            Test::In(values) => Some(&**values.first()?),
            Test::Exists => Some(""),
            Test::NotIn(_) | Test::DoesNotExist => None,
            Test::Gt(_) | Test::Lt(_) | Test::Unmeetable(_) => return None,
        };
        Some((&self.key, value))
    }

    /// The value that the key must have when there is just one.
    pub(crate) fn only_value(&self) -> Option<&str> {
        match &self.test {
            Test::In(values) if values.len() == 1 => Some(&values[0]),
            _ => None,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.test {
            Test::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            Test::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Test::Exists => write!(f, "{key}"),
            Test::DoesNotExist => write!(f, "!{key}"),
            Test::Gt(bound) => write!(f, "{key}>{bound}"),
            Test::Lt(bound) => write!(f, "{key}<{bound}"),
            Test::Unmeetable(text) => write!(f, "{key} {text} (invalid, selects nothing)"),
        }
    }
}

/// Writes requirements with something between each two.
pub(crate) fn join(
    f: &mut fmt::Formatter<'_>,
    requirements: &[Requirement],
    between: &str,
) -> fmt::Result {
    for (i, requirement) in requirements.iter().enumerate() {
        write!(f, "{}{requirement}", if i > 0 { between } else { "" })?;
    }
    Ok(())
}

/// A requirement as the API writes it.
#[derive(Deserialize)]
pub(crate) struct WireRequirement {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) key: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    operator: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    values: Vec<Box<str>>,
}

impl WireRequirement {
    /// The requirement, when the operator is among those that may stand here and the values fit it.
    pub(crate) fn admit(mut self, operators: &[Operator]) -> Requirement {
        self.values.sort();
        self.values.dedup();
        let operator = Operator::named(&self.operator).filter(|o| operators.contains(o));
        let number = || match &*self.values {
            [value] => value.parse().ok(),
            _ => None,
        };
        let test = match operator {
            Some(Operator::In) if !self.values.is_empty() => {
                Some(Test::In(self.values.clone().into()))
            }
            Some(Operator::NotIn) if !self.values.is_empty() => {
                Some(Test::NotIn(self.values.clone().into()))
            }
            Some(Operator::Exists) if self.values.is_empty() => Some(Test::Exists),
            Some(Operator::DoesNotExist) if self.values.is_empty() => Some(Test::DoesNotExist),
            Some(Operator::Gt) => number().map(Test::Gt),
            Some(Operator::Lt) => number().map(Test::Lt),
            _ => None,
        };
        Requirement {
            key: share(&self.key),
            test: test.unwrap_or_else(|| {
                let values = self.values.join(",");
                Test::Unmeetable(format!("{} ({values})", self.operator).into())
            }),
        }
    }
}
