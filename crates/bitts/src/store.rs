//! Where `bitts trash`, `bitts orphans` and `bitts adopt` look: the disks of this node, or a share.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bitts_provisioner::{Home, Share, Site, Store};
use clap::Args;

/// Which roots.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct Roots {
    /// The directories in which volumes are made on this node, separated by commas.
    #[arg(
        long,
        value_name = "DIR",
        value_delimiter = ',',
        value_parser = crate::cli::absolute,
        env = "BITTS_DISKS"
    )]
    disks: Vec<PathBuf>,

    /// The NFS share in which volumes are made, instead of disks; it is mounted by this process alone.
    #[arg(long, value_name = "SERVER:/PATH", value_parser = share)]
    share: Option<Share>,

    /// The options that the share is mounted with, as in its class, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "share")]
    mount_options: Vec<String>,

    /// How long the NFS server may take for anything.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "20s",
        value_parser = crate::cli::patience,
        env = "BITTS_NFS_PATIENCE"
    )]
    nfs_patience: Duration,

    /// The name of this node in the API; volumes on disks are tied to it.
    #[arg(
        long,
        value_name = "NAME",
        env = "BITTS_NODE_NAME",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub(crate) node_name: Option<String>,
}

fn share(text: &str) -> Result<Share, String> {
    let share = Share::parse(text);
    share.ok_or_else(|| "it must be a server and an absolute path, as `nas:/export`".to_owned())
}

impl Roots {
    /// Opens all of them, where volumes were made already: a directory that was named by mistake stays as
    /// it is.
    pub(crate) async fn open_used(&self) -> Result<Vec<Store>> {
        for disk in self.disks.iter().filter(|_| self.share.is_none()) {
            let own = disk.join(bitts_provisioner::OWN);
            if !own.is_dir() {
                anyhow::bail!("there is no {}: bitts made no volume there", own.display());
            }
        }
        self.open().await
    }

    /// Opens all of them.
    pub(crate) async fn open(&self) -> Result<Vec<Store>> {
        if let Some(share) = self.the_share() {
            return Ok(vec![Store::share(share, self.nfs_patience).await?]);
        }
        if self.disks.is_empty() {
            anyhow::bail!("say where to look: --disks DIR,DIR or --share SERVER:/PATH");
        }
        let mut stores = Vec::new();
        for disk in &self.disks {
            stores.push(Store::disk(disk).with_context(|| disk.display().to_string())?);
        }
        Ok(stores)
    }

    /// What kind of place they are.
    pub(crate) fn site(&self) -> Site {
        self.the_share().map_or(Site::Disks, Site::Share)
    }

    /// Whose they are.
    pub(crate) fn home(&self) -> Result<Home> {
        Ok(match self.the_share() {
            Some(share) => Home::Share(share),
            None => Home::Node(self.node()?.into()),
        })
    }

    /// The node whose disks they are.
    pub(crate) fn node(&self) -> Result<&str> {
        let node = self.node_name.as_deref();
        node.context(
            "volumes on disks are a node's: say which, with --node-name or BITTS_NODE_NAME",
        )
    }

    fn the_share(&self) -> Option<Share> {
        let share = self.share.clone()?;
        Some(Share {
            options: self
                .mount_options
                .iter()
                .map(|o| o.as_str().into())
                .collect(),
            ..share
        })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// How long ago that was, for people: its largest unit.
pub(crate) fn ago(since: i64, now: i64) -> String {
    let seconds = now.saturating_sub(since).max(0);
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= size {
            return format!("{}{unit}", seconds / size);
        }
    }
    format!("{seconds}s")
}

/// A time for scripts.
pub(crate) fn at(seconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    Some(time.to_string())
}

/// Bytes for people, as quantities are written.
pub(crate) fn bytes(count: i64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let mut size = count;
    for unit in units {
        if size < 1024 || size % 1024 != 0 {
            return format!("{size}{unit}");
        }
        size /= 1024;
    }
    format!("{size}Ei")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_for_people() {
        for (since, expected) in [(100, "0s"), (95, "5s"), (-20, "2m"), (-90_000, "1d")] {
            assert_eq!(ago(since, 100), expected);
        }
        assert_eq!(ago(500, 100), "0s", "a clock that is ahead");
        for (count, expected) in [(0, "0"), (1, "1"), (1 << 30, "1Gi"), (3 << 19, "1536Ki")] {
            assert_eq!(bytes(count), expected);
        }
        assert_eq!(at(0).as_deref(), Some("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn a_share_is_written_as_mounts_are() {
        for (text, expected) in [
            ("nas:/export", Some("nas:/export")),
            ("nas:/", Some("nas:/")),
            ("[fd00::1]:/a//b/", Some("[fd00::1]:/a/b")),
            ("nas", None),
            ("/export", None),
            ("nas:export", None),
            ("nas:/a/../b", None),
            ("-o:/a", None),
        ] {
            let read = share(text).ok().map(|share| share.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
