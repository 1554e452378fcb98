//! Volumes of NFS servers in pods' directories (M41).

use std::time::Duration;

use bitts_mount::dir::{Component, Dir};
use bitts_mount::nfs::{self, NfsError, Options, Share, Unmount};
use bitts_mount::table::MountTable;

use crate::task::Mount;
use crate::tree::Trouble;

/// How long a forced unmount may take: it waits for no server, only for calls to end.
const FORCED: Duration = Duration::from_secs(5);

/// What a volume names.
pub(crate) fn share(server: &str, path: &str) -> Result<Share, String> {
    let odd = |text: &str| text.contains(|c: char| c.is_control() || c.is_whitespace());
    if server.is_empty() || odd(server) || server.contains('/') {
        return Err(format!("nfs.server {server:?} is no name or address"));
    }
    if !path.starts_with('/') || path.contains(char::is_control) {
        return Err(format!("nfs.path {path:?} must begin with a slash"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("nfs.path {path:?} must not contain \"..\""));
    }
    Ok(Share {
        server: server.to_owned(),
        path: path.to_owned(),
    })
}

/// The options of a volume for a pod.
pub(crate) fn options(mount: &Mount) -> Result<Options, Trouble> {
    let options = Options::parse(mount.options.iter().map(|text| &**text))
        .map_err(|error| Trouble::Other(error.to_string()))?;
    Ok(if mount.read_only {
        options.read_only()
    } else {
        options
    })
}

/// Whether what is mounted here is this share.
pub(crate) fn expect(share: &Share, mounted: &Dir) -> Result<(), Trouble> {
    let id = mounted.identity()?.mount;
    let table = MountTable::read()?;
    let source = table.get(id).map(|mount| mount.source.as_str());
    // The kernel leaves out a slash at the end.
    let bare = |text: &str| text.trim_end_matches('/').to_owned();
    if source.map(bare) == Some(bare(&share.to_string())) {
        return Ok(());
    }
    Err(Trouble::Other(format!(
        "something else than {share} is mounted at {}: if nothing needs it, unmount it",
        mounted.path().display()
    )))
}

/// What came of an unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is done.
    InTime,
    /// The server did not answer; the mount may be there or not.
    TooLate,
}

/// Unmounts a volume that nothing uses any more.
pub(crate) fn unmount(
    parent: &Dir,
    volume: &Component,
    patience: Duration,
) -> Result<Ended, NfsError> {
    match nfs::unmount(parent, volume, Unmount::Normal, patience) {
        Ok(()) => Ok(Ended::InTime),
        Err(error) if error.class == nfs::Class::Uncertain => {
            tracing::warn!(%error, "unmounting by force, unless something uses it now");
            Ok(Ended::TooLate)
        }
        // In use after all, or not allowed: more force would not be right.
        Err(error) => Err(error),
    }
}

/// Unmounts without the server. What the pod wrote and the server never got is lost.
pub(crate) fn force(parent: &Dir, volume: &Component) -> Result<(), NfsError> {
    nfs::unmount(parent, volume, Unmount::Forced, FORCED)
        .or_else(|_| nfs::unmount(parent, volume, Unmount::Lazy, FORCED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_refused_with_the_field() {
        for (server, path) in [("", "/a"), ("a b", "/a"), ("a/b", "/a")] {
            assert!(share(server, path).unwrap_err().contains("nfs.server"));
        }
        for path in ["", "a", "/a/../b", "/a\n"] {
            assert!(share("nas", path).unwrap_err().contains("nfs.path"));
        }
        assert_eq!(share("nas", "/").unwrap().to_string(), "nas:/");
    }
}
