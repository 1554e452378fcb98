//! Exports of NFS servers, mounted for each pod anew (M41).

use bitts_api::Source;

use super::VolumeType;

/// `nfs`.
pub(super) struct Nfs;

impl VolumeType for Nfs {
    fn directory(&self) -> &'static str {
        "kubernetes.io~nfs"
    }

    fn server<'a>(&self, source: &'a Source) -> Option<&'a str> {
        match source {
            Source::Nfs { server, .. } => Some(server),
            _ => None,
        }
    }
}

#[cfg(feature = "run")]
mod node {
    use std::time::Duration;

    use bitts_api::Source;
    use bitts_mount::dir::{Component, Dir};
    use bitts_mount::nfs::{self, NfsError, Options, Share, Unmount};
    use bitts_mount::table::MountTable;

    use super::Nfs;
    use crate::plugins::node::{Failure, Mounter, not_of_this_type};
    use crate::stage::something_else;
    use crate::task::{How, Mount, MountStep};
    use crate::tree::{Ended, Step, Tree, Trouble, Watcher, name};

    /// How long a forced unmount may take: it waits for no server, only for calls to end.
    const FORCED: Duration = Duration::from_secs(5);

    impl Mounter for Nfs {
        fn server_of(&self) -> Option<fn(&str) -> Option<&str>> {
            Some(|mounted| mounted.split_once(":/").map(|(server, _)| server))
        }

        fn set_up(&self, tree: &Tree, mount: &Mount, watcher: Watcher<'_>) -> Result<How, Failure> {
            let share = share_of(mount)?;
            publish(tree, mount, &share, watcher).map_err(|trouble| (MountStep::SetUp, trouble))
        }

        fn renew(&self, tree: &Tree, mount: &Mount, watcher: Watcher<'_>) -> Result<How, Failure> {
            let share = share_of(mount)?;
            renew(tree, mount, &share, watcher).map_err(|trouble| (MountStep::SetUp, trouble))
        }

        fn unmount(
            &self,
            tree: &Tree,
            parent: &Dir,
            volume: &Component,
            by_force: bool,
        ) -> Result<Ended, Trouble> {
            if by_force {
                force(parent, volume)?;
                return Ok(Ended::InTime);
            }
            match nfs::unmount(parent, volume, Unmount::Normal, tree.patience) {
                Ok(()) => Ok(Ended::InTime),
                Err(error) if error.class == nfs::Class::Uncertain => {
                    tracing::warn!(%error, "unmounting by force, unless something uses it now");
                    Ok(Ended::TooLate)
                }
                // In use after all, or not allowed: more force would not be right.
                Err(error) => Err(error.into()),
            }
        }
    }

    fn publish(
        tree: &Tree,
        mount: &Mount,
        share: &Share,
        watcher: Watcher<'_>,
    ) -> Result<How, Trouble> {
        let options = options(mount)?;
        let place = tree.make_target(&mount.key, watcher)?;
        if place.dir.identity()?.is_mount_point {
            expect(share, &place.dir)?;
            return Ok(How::Before);
        }
        watcher(Step::Bind)?;
        match nfs::mount(share, &place.dir, &options, tree.patience) {
            Ok(()) => Ok(How::Now),
            Err(error) => {
                place.give_up();
                Err(error.into())
            }
        }
    }

    /// In the place of a mount of the same share, whose server need not answer.
    fn renew(
        tree: &Tree,
        mount: &Mount,
        share: &Share,
        watcher: Watcher<'_>,
    ) -> Result<How, Trouble> {
        let options = options(mount)?;
        let (pod, volume) = (
            name(&mount.key.pod.to_string())?,
            name(mount.key.volume.as_str())?,
        );
        let above = [
            "pods",
            pod.as_str(),
            "volumes",
            mount.key.plugin.directory(),
        ];
        let parent = tree.directory(&above)?;
        let table = MountTable::read()?;
        let there = tree.place(&mount.key).and_then(|place| table.at(&place));
        let (Some(parent), Some(there)) = (parent, there) else {
            return publish(tree, mount, share, watcher);
        };
        if !there.fs_type.starts_with("nfs") || !is_source(share, &there.source) {
            return Err(Trouble::Other(format!(
                "something else than {share} is mounted at {}: if nothing needs it, unmount it",
                there.point.display()
            )));
        }
        watcher(Step::Renew)?;
        nfs::renew(share, &parent, &volume, &options, tree.patience)?;
        Ok(How::Anew)
    }

    fn share_of(mount: &Mount) -> Result<Share, Failure> {
        let Source::Nfs { server, path, .. } = &mount.source else {
            return Err((MountStep::NewMounter, not_of_this_type(&mount.source)));
        };
        share(server, path).map_err(|message| (MountStep::NewMounter, Trouble::Other(message)))
    }

    /// What a volume names.
    fn share(server: &str, path: &str) -> Result<Share, String> {
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
    fn options(mount: &Mount) -> Result<Options, Trouble> {
        let options = Options::parse(mount.options.iter().map(|text| &**text))
            .map_err(|error| Trouble::Other(error.to_string()))?;
        Ok(if mount.read_only {
            options.read_only()
        } else {
            options
        })
    }

    /// Whether what is mounted here is this share.
    fn expect(share: &Share, mounted: &Dir) -> Result<(), Trouble> {
        let id = mounted.identity()?.mount;
        let table = MountTable::read()?;
        if table
            .get(id)
            .is_some_and(|mount| is_source(share, &mount.source))
        {
            return Ok(());
        }
        Err(something_else(&share.to_string(), mounted))
    }

    fn is_source(share: &Share, source: &str) -> bool {
        // The kernel leaves out a slash at the end.
        let bare = |text: &str| text.trim_end_matches('/').to_owned();
        bare(source) == bare(&share.to_string())
    }

    /// Unmounts without the server. What the pod wrote and the server never got is lost.
    fn force(parent: &Dir, volume: &Component) -> Result<(), NfsError> {
        nfs::unmount(parent, volume, Unmount::Forced, FORCED)
            .or_else(|_| nfs::unmount(parent, volume, Unmount::Lazy, FORCED))
    }

    #[cfg(test)]
    mod tests {
        use super::share;

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
}
