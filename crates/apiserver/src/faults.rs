//! Trouble on request: which requests and watch events go wrong, and how.
//!
//! A rule names requests and what happens to them: always, to the n-th, at most so many times, or with
//! a chance. Each rule counts and rolls its own dice from the seed, so the same requests in the same
//! order meet the same faults, and one rule more does not change what the others do.
//!
//! ```
//! use bitts_apiserver::faults::{Effect, Fault, Faults, Rule};
//!
//! // In a test: the third status patch of a volume answers 500 although it was written.
//! let faults = Faults::scripted([
//!     Rule::on("patch", "persistentvolumes/status").nth(3).then(Fault::Error(Effect::After)),
//! ]);
//!
//! // In a file, as YAML or JSON.
//! let same = Faults::parse("
//! rules:
//! - verb: patch
//!   resource: persistentvolumes/status
//!   nth: 3
//!   fault: {error: after}
//! ")?;
//! assert_eq!(faults, same);
//! # Ok::<(), bitts_apiserver::faults::FaultsError>(())
//! ```

mod at_work;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub(crate) use at_work::{FaultState, Requested};

/// Whether a failed request has done its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The request fails before it changes anything.
    Before,
    /// The request takes effect; only its answer is lost.
    After,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// 409, as if someone else had written first.
    Conflict,
    /// 429 with this Retry-After in seconds.
    TooManyRequests(u32),
    /// 403.
    Forbidden,
    /// 500.
    Error(Effect),
    /// 504, reason Timeout.
    Timeout(Effect),
    /// The connection breaks instead of an answer.
    Disconnect(Effect),
    /// The answer comes this many milliseconds late.
    Delay(u64),
    /// 410: the version asked for is gone.
    Expired,
    /// A list from this many revisions ago, whatever the client asked for (or the oldest that is kept).
    StaleList(u64),
    /// A watch event is not sent.
    DropEvent,
    /// A watch event is sent twice.
    DuplicateEvent,
    /// From this event on the watch sends nothing more and stays open.
    Silence,
    /// The watch breaks in the middle of this event's line.
    Cut,
    /// The watch ends cleanly before this event.
    End,
    /// The watch ends with an in-stream 410 instead of this event.
    ExpireWatch,
}

impl Fault {
    /// The name in files and traces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::TooManyRequests(_) => "too-many-requests",
            Self::Forbidden => "forbidden",
            Self::Error(Effect::Before) => "error before",
            Self::Error(Effect::After) => "error after",
            Self::Timeout(Effect::Before) => "timeout before",
            Self::Timeout(Effect::After) => "timeout after",
            Self::Disconnect(Effect::Before) => "disconnect before",
            Self::Disconnect(Effect::After) => "disconnect after",
            Self::Delay(_) => "delay",
            Self::Expired => "expired",
            Self::StaleList(_) => "stale-list",
            Self::DropEvent => "drop-event",
            Self::DuplicateEvent => "duplicate-event",
            Self::Silence => "silence",
            Self::Cut => "cut",
            Self::End => "end",
            Self::ExpireWatch => "expire-watch",
        }
    }

    /// Whether it strikes an event of a running watch rather than a request.
    fn strikes_events(self) -> bool {
        matches!(
            self,
            Self::DropEvent
                | Self::DuplicateEvent
                | Self::Silence
                | Self::Cut
                | Self::End
                | Self::ExpireWatch
        )
    }
}

/// Which requests (or watch events) meet which fault. What is not said matches everything.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// The API verb: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: Option<String>,
    /// The resource, with its subresource if it is about that: `persistentvolumes/status`.
    pub resource: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: Option<String>,
    /// Only the n-th match, counted from 1.
    pub nth: Option<u64>,
    /// Only this many times.
    pub times: Option<u64>,
    /// Only with this probability.
    pub chance: Option<f64>,
    /// What goes wrong.
    pub fault: Fault,
}

impl Rule {
    /// A rule for one verb of one resource.
    pub fn on(verb: &str, resource: &str) -> RuleBuilder {
        RuleBuilder(Self {
            verb: Some(verb.to_owned()),
            resource: Some(resource.to_owned()),
            namespace: None,
            name: None,
            nth: None,
            times: None,
            chance: None,
            fault: Fault::Conflict,
        })
    }

    /// A rule for every request.
    pub fn on_all() -> RuleBuilder {
        let mut builder = Self::on("", "");
        builder.0.verb = None;
        builder.0.resource = None;
        builder
    }

    fn matches(&self, request: &Requested<'_>) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        fits(&self.verb, request.verb)
            && fits(&self.resource, request.resource)
            && fits(&self.namespace, request.namespace)
            && fits(&self.name, request.name)
    }
}

/// A rule that lacks its fault.
#[derive(Debug, Clone)]
pub struct RuleBuilder(Rule);

impl RuleBuilder {
    /// Only for the object of this name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.0.name = Some(name.to_owned());
        self
    }

    /// Only in this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.0.namespace = Some(namespace.to_owned());
        self
    }

    /// Only the n-th match, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.0.nth = Some(nth);
        self
    }

    /// Only this many times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.0.times = Some(times);
        self
    }

    /// Only with this probability.
    #[must_use]
    pub fn chance(mut self, chance: f64) -> Self {
        self.0.chance = Some(chance);
        self
    }

    /// What goes wrong.
    #[must_use]
    pub fn then(mut self, fault: Fault) -> Rule {
        self.0.fault = fault;
        self.0
    }
}

/// All that goes wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Faults {
    /// What the dice of rules with a chance start from, together with the API's own seed.
    pub seed: u64,
    /// The first rule that strikes decides.
    pub rules: Vec<Rule>,
}

/// What a fault file looks like.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    seed: u64,
    rules: Vec<Rule>,
}

impl<'de> Deserialize<'de> for Faults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A fault file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// Neither YAML nor JSON.
    #[error("the faults are neither YAML nor JSON: {0}")]
    Syntax(#[from] serde_yaml_ng::Error),
    /// Not the fields of a fault file.
    #[error(
        "the faults do not read as `rules: [{{verb, resource, namespace, name, nth, times, chance, fault}}]`: {0}"
    )]
    Fields(#[from] serde_json::Error),
    /// A chance that is none.
    #[error("rule {rule}: chance must lie between 0 and 1, not {chance}")]
    Chance {
        /// Which rule, counted from 1.
        rule: usize,
        /// What it says.
        chance: f64,
    },
    /// The first match is number 1.
    #[error("rule {rule}: nth counts from 1")]
    Nth {
        /// Which rule, counted from 1.
        rule: usize,
    },
}

impl Faults {
    /// Faults that need no dice.
    pub fn scripted(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            seed: 0,
            rules: rules.into_iter().collect(),
        }
    }

    /// Every kind of trouble that a client has to live with, each with this chance per request or event.
    pub fn storm(seed: u64, chance: f64) -> Self {
        let any = |fault| Rule::on_all().chance(chance).then(fault);
        let on = |verb: &str, fault| {
            let mut rule = any(fault);
            rule.verb = Some(verb.to_owned());
            rule
        };
        let writes = ["create", "update", "patch", "delete"];
        let lost = [
            Fault::Error(Effect::After),
            Fault::Timeout(Effect::Before),
            Fault::Timeout(Effect::After),
            Fault::Disconnect(Effect::Before),
            Fault::Disconnect(Effect::After),
        ];
        let mut rules = vec![
            any(Fault::TooManyRequests(1)),
            any(Fault::Error(Effect::Before)),
        ];
        rules.extend(["update", "patch"].map(|verb| on(verb, Fault::Conflict)));
        for fault in lost {
            rules.extend(writes.map(|verb| on(verb, fault)));
        }
        rules.push(on("list", Fault::StaleList(5)));
        rules.extend([
            any(Fault::DropEvent),
            any(Fault::DuplicateEvent),
            any(Fault::Silence),
            any(Fault::Cut),
            any(Fault::End),
            any(Fault::ExpireWatch),
        ]);
        Self { seed, rules }
    }

    /// Reads a fault file, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, FaultsError> {
        Self::read(serde_yaml_ng::from_str(text)?)
    }

    /// Reads faults by way of JSON: YAML has its own notation for enums, which nobody would guess.
    fn read(value: Value) -> Result<Self, FaultsError> {
        let File { seed, rules } = serde_json::from_value(value)?;
        let faults = Self { seed, rules };
        for (rule, it) in (1..).zip(&faults.rules) {
            if let Some(chance) = it.chance.filter(|chance| !(0.0..=1.0).contains(chance)) {
                return Err(FaultsError::Chance { rule, chance });
            }
            if it.nth == Some(0) {
                return Err(FaultsError::Nth { rule });
            }
        }
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_is_wrong_with_them() {
        let error = |text| Faults::parse(text).unwrap_err().to_string();
        assert!(error("rules: [{fault: explode}]").contains("unknown variant `explode`"));
        assert!(error("rules: [{fault: conflict, vreb: get}]").contains("unknown field `vreb`"));
        assert!(error("rules: [{fault: conflict, chance: 2}]").contains("not 2"));
        assert!(error("rules: [{fault: conflict, nth: 0}]").contains("counts from 1"));
        let yaml = "rules: [{fault: {delay: 5}}]";
        let faults: Faults = serde_yaml_ng::from_str(yaml).unwrap();
        assert_eq!(faults, Faults::parse(yaml).unwrap());
        let json = r#"{"seed": 4, "rules": [{"verb": "list", "fault": {"stale-list": 9}}]}"#;
        assert_eq!(
            Faults::parse(json).unwrap().rules[0].fault,
            Fault::StaleList(9)
        );
    }
}
