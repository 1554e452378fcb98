//! The flags of the role that has a cloud attach its disks.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bitts_attacher::{CloudOptions, ComputeEngine, DEFAULT_ENDPOINT, METADATA_HOST, Options};
use clap::Args;

use crate::cli::{Interval, interval, patience};

/// What `bitts run --roles cloud-attacher` can be told.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cloud attacher")]
pub(crate) struct CloudAttacher {
    /// Where the Compute Engine API is, with its version.
    #[arg(
        long,
        value_name = "URL",
        default_value = DEFAULT_ENDPOINT,
        env = "BITTS_COMPUTE_ENDPOINT"
    )]
    compute_endpoint: String,

    /// Which metadata server gives the access tokens of the service account.
    #[arg(
        long,
        value_name = "HOST",
        default_value = METADATA_HOST,
        env = "GCE_METADATA_HOST"
    )]
    compute_metadata_host: String,

    /// How long an attach or detach is waited for before it is asked anew what became of it.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5m",
        value_parser = patience,
        env = "BITTS_COMPUTE_TIMEOUT"
    )]
    compute_timeout: Duration,

    /// How many calls the cloud is given at a time at most. How many it is given up to that follows from how
    /// it answers.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u16).range(1..),
        env = "BITTS_COMPUTE_CALLS_AT_ONCE"
    )]
    compute_calls_at_once: u16,

    /// How often machines are asked which disks they have, one after another; 0 is at the start only.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5m",
        value_parser = interval,
        env = "BITTS_COMPUTE_COMPARE_INTERVAL"
    )]
    compute_compare_interval: Interval,
}

impl CloudAttacher {
    /// What the flags come to, beside those of the attacher.
    pub(crate) fn options(&self, attach: Options) -> CloudOptions {
        CloudOptions {
            calls_at_once: self.compute_calls_at_once.into(),
            sweep: self.compute_compare_interval.0,
            attach,
            ..CloudOptions::default()
        }
    }

    /// The cloud that they name.
    pub(crate) fn cloud(&self) -> Result<ComputeEngine> {
        let (endpoint, host) = (&self.compute_endpoint, &self.compute_metadata_host);
        ComputeEngine::new(endpoint, host, self.compute_timeout).context("--compute-endpoint")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        cloud: CloudAttacher,
    }

    fn line(flags: &[&str]) -> CloudAttacher {
        let line = ["bitts"].iter().chain(flags);
        Line::try_parse_from(line).unwrap().cloud
    }

    #[test]
    fn the_flags_default_to_what_the_machine_does() {
        let options = line(&[]).options(Options::default());
        assert_eq!(options, CloudOptions::default());
        let at_start = line(&["--compute-compare-interval=0"]).options(Options::default());
        assert_eq!(at_start.sweep, None);
    }

    #[test]
    fn an_endpoint_that_is_none_is_refused() {
        let error = line(&["--compute-endpoint=compute.example.com"]).cloud();
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.starts_with("--compute-endpoint: "), "{error}");
        line(&["--compute-endpoint=http://127.0.0.1:1/compute/v1"])
            .cloud()
            .unwrap();
    }

    #[test]
    fn the_page_names_every_flag() {
        use clap::CommandFactory as _;
        let page = include_str!("../../../docs/attacher.md");
        for flag in Line::command().get_arguments().filter_map(|a| a.get_long()) {
            assert!(page.contains(&format!("`--{flag}`")), "--{flag}");
        }
    }
}
