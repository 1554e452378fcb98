//! Reading a request's query, with the API's own complaints.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::kind::Kind;
use crate::select::Selection;
use crate::status::{About, Cause, Status};

/// How unknown fields are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// How a list's resourceVersion is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    pub(crate) selection: Selection,
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    pub(crate) version: Option<u64>,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) watch: bool,
    pub(crate) bookmarks: bool,
    /// None if the client did not say.
    pub(crate) initial_events: Option<bool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    pub(crate) pretty: bool,
    /// For tables: which part of each object travels with its row.
    pub(crate) include_object: String,
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<String>,
    pub(crate) orphan_dependents: Option<bool>,
}

impl Params {
    /// Reads a query; `options` is the kind whose fields these are, such as `ListOptions`.
    pub(super) fn read(kind: &Kind, options: &str, query: &str) -> Result<Self, Status> {
        let mut params = Self::default();
        let (mut labels, mut fields, mut version) = Default::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "labelSelector" => labels = value.into_owned(),
                "fieldSelector" => fields = value.into_owned(),
                // A negative limit is none.
                "limit" => {
                    params.limit = usize::try_from(number::<i64>(&value)?).unwrap_or_default();
                }
                "continue" => params.continue_token = value.into_owned(),
                "resourceVersion" => version = value.into_owned(),
                "resourceVersionMatch" => params.version_match = version_match(options, &value)?,
                "watch" => params.watch = flag(&value),
                "allowWatchBookmarks" => params.bookmarks = flag(&value),
                "sendInitialEvents" => params.initial_events = Some(flag(&value)),
                "timeoutSeconds" => params.timeout = Some(Duration::from_secs(number(&value)?)),
                "dryRun" if value == "All" => params.dry_run = true,
                "dryRun" => {
                    let given = format!("[\"{value}\"]");
                    return Err(unsupported(options, "dryRun", given, &["All"]));
                }
                "fieldValidation" => params.field_validation = field_validation(options, &value)?,
                "pretty" => params.pretty = flag(&value),
                "includeObject" => params.include_object = value.into_owned(),
                "gracePeriodSeconds" => params.grace = Some(number(&value)?),
                "propagationPolicy" => params.propagation = Some(value.into_owned()),
                "orphanDependents" => params.orphan_dependents = Some(flag(&value)),
                _ => {}
            }
        }
        params.version = parse_version(&version, params.watch)?;
        params.selection = Selection::parse(kind, &labels, &fields).map_err(Status::bad_request)?;
        let causes = if params.watch {
            params.against_watching()
        } else {
            params.against_listing().into_iter().collect()
        };
        if causes.is_empty() {
            Ok(params)
        } else {
            Err(Status::invalid(about(options), &causes))
        }
    }

    /// What makes no sense in a watch.
    fn against_watching(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        match (self.initial_events, self.version_match) {
            (None, None) | (Some(_), Some(VersionMatch::NotOlderThan)) => {}
            (Some(_), _) => causes.push(forbidden(
                MATCH,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )),
            (None, Some(_)) => causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
        }
        if self.version_match == Some(VersionMatch::Exact) {
            let why = "Unsupported value: \"Exact\": supported values: \"NotOlderThan\"";
            causes.push(Cause::new("FieldValueNotSupported", MATCH, why.to_owned()));
        }
        if !self.continue_token.is_empty() {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        causes
    }

    /// What makes no sense in a list.
    fn against_listing(&self) -> Option<Cause> {
        if self.initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            return Some(forbidden("sendInitialEvents", why));
        }
        let why = match self.version_match? {
            _ if !self.continue_token.is_empty() => {
                "resourceVersionMatch is forbidden when continue is provided"
            }
            _ if self.version.is_none() => {
                "resourceVersionMatch is forbidden unless resourceVersion is provided"
            }
            VersionMatch::Exact if self.version == Some(0) => {
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""
            }
            _ => return None,
        };
        Some(forbidden(MATCH, why))
    }
}

const MATCH: &str = "resourceVersionMatch";

fn forbidden(field: &str, why: &str) -> Cause {
    Cause::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
}

fn flag(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

fn number<T: FromStr>(value: &str) -> Result<T, Status> {
    value.parse().map_err(|_| {
        let why = format!("strconv.ParseInt: parsing \"{value}\": invalid syntax");
        Status::bad_request(why)
    })
}

fn parse_version(value: &str, watch: bool) -> Result<Option<u64>, Status> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| {
        let why = format!(
            "resourceVersion: Invalid value: \"{value}\": strconv.ParseUint: parsing \"{value}\": invalid syntax"
        );
        if watch {
            Status::unknown(why)
        } else {
            Status::bad_request(format!("invalid resource version: {why}"))
        }
    })
}

fn version_match(options: &str, value: &str) -> Result<Option<VersionMatch>, Status> {
    match value {
        "" => Ok(None),
        "Exact" => Ok(Some(VersionMatch::Exact)),
        "NotOlderThan" => Ok(Some(VersionMatch::NotOlderThan)),
        other => {
            let (given, known) = (format!("\"{other}\""), ["Exact", "NotOlderThan", ""]);
            Err(unsupported(options, "resourceVersionMatch", given, &known))
        }
    }
}

fn field_validation(options: &str, value: &str) -> Result<FieldValidation, Status> {
    match value {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        other => {
            let (given, known) = (format!("\"{other}\""), ["", "Ignore", "Strict", "Warn"]);
            Err(unsupported(options, "fieldValidation", given, &known))
        }
    }
}

/// 422: a value that the options do not know.
pub(super) fn unsupported(
    options: &str,
    field: &str,
    given: impl Display,
    known: &[&str],
) -> Status {
    let known: Vec<String> = known.iter().map(|value| format!("\"{value}\"")).collect();
    let why = format!(
        "Unsupported value: {given}: supported values: {}",
        known.join(", ")
    );
    Status::invalid(
        about(options),
        &[Cause::new("FieldValueNotSupported", field, why)],
    )
}

/// The options of a request, as error messages name them.
pub(super) fn about(options: &str) -> About<'_> {
    About {
        group: "meta.k8s.io",
        what: options,
        name: "",
    }
}
