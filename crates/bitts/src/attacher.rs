//! The flags of the two roles that attach: the one that decides, and the one beside a driver.

use std::path::PathBuf;
use std::time::Duration;

use bitts_attacher::{CsiConfig, Options, PublisherOptions};
use clap::Args;

use crate::cli::{Interval, interval, patience};

/// What `bitts run --roles attacher` can be told.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Attacher")]
pub(crate) struct Attacher {
    /// After how long a volume for one node is taken from a node that is not ready and does not let it
    /// go, such as `6m`; 0 is never. Such a node may still write: set it only where nodes are fenced.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0",
        value_parser = interval,
        env = "BITTS_FORCE_DETACH_SINGLE_AFTER"
    )]
    force_detach_single_after: Interval,

    /// The same for volumes that may be on several nodes.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "6m",
        value_parser = interval,
        env = "BITTS_FORCE_DETACH_SHARED_AFTER"
    )]
    force_detach_shared_after: Interval,
}

impl Attacher {
    /// What the flags come to.
    pub(crate) fn options(&self) -> Options {
        Options {
            force_single_after: self.force_detach_single_after.0,
            force_shared_after: self.force_detach_shared_after.0,
            ..Options::default()
        }
    }
}

/// What `bitts run --roles csi-attacher` needs to know of its driver.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "CSI attacher")]
pub(crate) struct CsiAttacher {
    /// The socket of the driver's controller.
    #[arg(long, value_name = "PATH", env = "BITTS_CSI_SOCKET")]
    pub(crate) csi_socket: Option<PathBuf>,

    /// How long a call to the driver may take.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "15s",
        value_parser = patience,
        env = "BITTS_CSI_TIMEOUT"
    )]
    csi_timeout: Duration,

    /// How many calls the driver is given at a time at most. How many it is given up to that follows from
    /// how it answers.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..),
        env = "BITTS_CSI_CALLS_AT_ONCE"
    )]
    csi_calls_at_once: u16,

    /// How often a driver that lists where its volumes are is asked; 0 turns it off.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1m",
        value_parser = interval,
        env = "BITTS_CSI_COMPARE_INTERVAL"
    )]
    csi_compare_interval: Interval,

    /// The file system that the driver is told for volumes that name none [default: none].
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "",
        env = "BITTS_CSI_FS_TYPE"
    )]
    csi_fs_type: String,
}

impl CsiAttacher {
    /// What the flags come to. The socket was asked for before.
    pub(crate) fn config(&self, lease_namespace: Option<String>) -> CsiConfig {
        CsiConfig {
            socket: self.csi_socket.clone().unwrap_or_default(),
            patience: self.csi_timeout,
            options: PublisherOptions {
                calls_at_once: self.csi_calls_at_once.into(),
                compare: self.csi_compare_interval.0,
                fs_type: self.csi_fs_type.as_str().into(),
            },
            lease_namespace,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        attacher: Attacher,
        #[command(flatten)]
        csi: CsiAttacher,
    }

    fn line(flags: &[&str]) -> Line {
        let line = ["bitts"].iter().chain(flags);
        Line::try_parse_from(line).unwrap()
    }

    #[test]
    fn the_flags_default_to_what_the_machines_do() {
        assert_eq!(line(&[]).attacher.options(), Options::default());
        assert_eq!(
            line(&[]).csi.config(None).options,
            PublisherOptions::default()
        );
    }

    #[test]
    fn time_takes_a_volume_for_one_node_only_where_that_is_set() {
        assert_eq!(line(&[]).attacher.options().force_single_after, None);
        let set = line(&[
            "--force-detach-single-after=6m",
            "--force-detach-shared-after=0",
        ]);
        let options = set.attacher.options();
        assert_eq!(options.force_single_after, Some(Duration::from_secs(360)));
        assert_eq!(options.force_shared_after, None);
    }

    #[test]
    fn the_page_names_every_flag() {
        use clap::CommandFactory as _;
        let page = include_str!("../../../docs/attacher.md");
        for flag in Line::command().get_arguments().filter_map(|a| a.get_long()) {
            assert!(page.contains(&format!("`--{flag}")), "--{flag}");
        }
    }
}
