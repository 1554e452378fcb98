//! Paths of the node, as they are (M42): nothing is mounted, the container is given the path itself.

use super::VolumeType;

/// `hostPath`.
pub(super) struct HostPath;

impl VolumeType for HostPath {
    fn directory(&self) -> &'static str {
        "kubernetes.io~host-path"
    }

    fn has_mount_options(&self) -> bool {
        false
    }
}

#[cfg(feature = "run")]
mod node {
    use std::path::Path;

    use bitts_api::Source;
    use bitts_mount::path::{FileKind, PathError, Root};

    use super::HostPath;
    use crate::plugins::node::{Failure, Mounter, not_of_this_type};
    use crate::task::{How, Mount, MountStep};
    use crate::tree::{Tree, Trouble, Watcher};

    impl Mounter for HostPath {
        fn is_mounted(&self) -> bool {
            false
        }

        fn set_up(&self, tree: &Tree, mount: &Mount, _: Watcher<'_>) -> Result<How, Failure> {
            let found = match &mount.source {
                Source::HostPath { path, kind } => Root::open(&tree.local_root)
                    .and_then(|root| check(&root, Path::new(&**path), kind))
                    .unwrap_or_else(|error| Err(error.to_string()))
                    .map_err(|why| Trouble::Other(format!("hostPath type check failed: {why}"))),
                other => Err(not_of_this_type(other)),
            };
            found
                .map(|()| How::Before)
                .map_err(|trouble| (MountStep::SetUp, trouble))
        }
    }

    /// Whether what is there is what the volume says, having made what it says is to be made.
    fn check(root: &Root, path: &Path, kind: &str) -> Result<Result<(), String>, PathError> {
        let (asked, words) = match kind {
            "" => return Ok(Ok(())),
            "DirectoryOrCreate" => {
                if root.look(path)?.is_none() {
                    root.make_directory(path)?;
                }
                (FileKind::Directory, "a directory")
            }
            "FileOrCreate" => {
                if root.look(path)?.is_none() {
                    root.make_file(path)?;
                }
                (FileKind::File, "a file")
            }
            "Directory" => (FileKind::Directory, "a directory"),
            "File" => (FileKind::File, "a file"),
            "Socket" => (FileKind::Socket, "a socket file"),
            "CharDevice" => (FileKind::CharacterDevice, "a character device"),
            "BlockDevice" => (FileKind::BlockDevice, "a block device"),
            other => return Ok(Err(format!("{other} is an invalid volume type"))),
        };
        let is_right = root.look(path)? == Some(asked);
        let wrong = || format!("{} is not {words}", path.display());
        Ok(is_right.then_some(()).ok_or_else(wrong))
    }

    #[cfg(test)]
    mod tests {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        use std::os::unix::net::UnixListener;

        use super::*;

        #[test]
        fn a_path_is_what_its_type_says() {
            let temp = tempfile::tempdir().unwrap();
            let at = |name: &str| temp.path().join(name);
            std::fs::create_dir(at("dir")).unwrap();
            std::fs::write(at("file"), "x").unwrap();
            let _socket = UnixListener::bind(at("socket")).unwrap();
            symlink("dir", at("link")).unwrap();
            symlink("/etc", at("out")).unwrap();
            let root = Root::open(temp.path()).unwrap();
            let check = |path: &str, kind: &str| match check(&root, Path::new(path), kind) {
                Ok(Ok(())) => "ok".to_owned(),
                Ok(Err(why)) => why,
                Err(error) => error.to_string(),
            };
            let rows = [
                ("/none", "", "ok"),
                ("/dir", "Directory", "ok"),
                ("/link", "Directory", "ok"),
                ("/none", "Directory", "/none is not a directory"),
                ("/file", "Directory", "/file is not a directory"),
                ("/file", "DirectoryOrCreate", "/file is not a directory"),
                ("/made/by/us", "DirectoryOrCreate", "ok"),
                ("/file", "File", "ok"),
                ("/dir", "FileOrCreate", "/dir is not a file"),
                ("/dir/new", "FileOrCreate", "ok"),
                (
                    "/no/parent",
                    "FileOrCreate",
                    "path \"/no/parent\" does not exist",
                ),
                ("/socket", "Socket", "ok"),
                ("/file", "Socket", "/file is not a socket file"),
                ("/file", "CharDevice", "/file is not a character device"),
                ("/file", "BlockDevice", "/file is not a block device"),
                ("/dir", "Pipe", "Pipe is an invalid volume type"),
            ];
            for (path, kind, answer) in rows {
                assert_eq!(check(path, kind), answer, "{path} {kind}");
            }
            assert!(check("/out/x", "DirectoryOrCreate").contains("symbolic link"));
            assert!(check("/../x", "Directory").contains("without \"..\""));
            let mode = |name| std::fs::metadata(at(name)).unwrap().permissions().mode();
            assert_eq!(mode("made/by/us") & 0o7777, 0o755);
            assert_eq!(mode("dir/new") & 0o7777, 0o644);
            let device = Root::open("/dev".as_ref()).unwrap();
            assert_eq!(
                super::check(&device, "/null".as_ref(), "CharDevice").unwrap(),
                Ok(())
            );
        }
    }
}
