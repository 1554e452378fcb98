//! Logs on stderr, for people or for machines.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

/// kube calls every failed connection an error; the runtime says what it means and tries again.
const QUIET: &str = "kube_client::client::builder=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line a message, for people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error(
        "the log filter {filter:?} is not understood: {source}. Write a level (`info`) or \
         targets with levels (`info,bitts_binder=debug`)"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What the parser says.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in this process set up logging before.
    #[error("logging was set up twice in this process")]
    Twice(#[source] TryInitError),
}

/// Sends this process's logs to stderr. `filter` is a level, or levels by target, as in
/// `info,bitts_binder=debug`.
///
/// # Errors
/// When the filter does not parse, or logging was set up before.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let parsed =
        EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|source| LoggingError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(stderr);
    match format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    }
    .map_err(LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_quoted() {
        let error = init_logging(LogFormat::Json, "binder=loud").unwrap_err();
        assert!(error.to_string().contains("\"binder=loud\""), "{error}");
    }
}
