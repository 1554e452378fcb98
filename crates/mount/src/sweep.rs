//! Removing a directory with all that is in it: no link is followed, nothing that is mounted in it is
//! entered. What is removed in between by somebody else is as good as removed.

use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::SystemError;
use crate::child::{self, ChildError};
use crate::dir::{Component, Dir};
use crate::tree::{DEEPEST, Failure, Level, OsName, enter, failure};
use crate::work::SWEEP;

/// Removes the directory of this name within `dir`, in a child process that is killed at the deadline:
/// then it has to be asked for again, and goes on where it was.
///
/// # Errors
/// When something cannot be removed; everything before that is gone.
pub fn remove_in_child(dir: &Dir, name: &Component, deadline: Duration) -> Result<(), ChildError> {
    child::run(child::own(&[SWEEP, name.as_str()])?, dir, deadline)
}

/// Removes the directory of this name within `dir`; there may be none.
///
/// # Errors
/// When something cannot be removed, a mount point for one; everything before that is gone.
pub fn remove(dir: impl AsFd, name: &Component) -> Result<(), SystemError> {
    let top = OsName::from(name.as_str().as_bytes().to_vec());
    sweep(dir.as_fd(), top).map_err(|(path, error)| {
        let path = String::from_utf8_lossy(&path).into_owned();
        SystemError::new(format!("removing {path}"), error)
    })
}

fn sweep(root: BorrowedFd<'_>, top: OsName) -> Result<(), Failure> {
    let mut levels: Vec<Level> = Vec::new();
    let mut next = Some((top, FileType::Directory));
    loop {
        let parent = levels.last().map_or(root, |level| level.fd.as_fd());
        let Some((name, kind)) = next.take() else {
            // All that was in the last level is gone.
            let Some(done) = levels.pop() else {
                return Ok(());
            };
            let parent = levels.last().map_or(root, |level| level.fd.as_fd());
            match rustix::fs::unlinkat(parent, &*done.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Somebody wrote meanwhile: look again.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    next = Some((done.name, FileType::Directory));
                    continue;
                }
                Err(e) => return Err(failure(&levels, done.name, e)),
            }
            next = levels.last_mut().and_then(|level| level.entries.pop());
            continue;
        };
        let removed = match kind {
            FileType::Directory => Err(Errno::ISDIR),
            _ => rustix::fs::unlinkat(parent, &*name, AtFlags::empty()),
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) if levels.len() < DEEPEST => match enter(parent, &name) {
                Ok(Some(level)) => levels.push(level),
                Ok(None) => {}
                Err(e) => return Err(failure(&levels, name, e)),
            },
            Err(e) => return Err(failure(&levels, name, e)),
        }
        next = levels.last_mut().and_then(|level| level.entries.pop());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn everything_goes_and_nothing_outside_is_touched() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        fs::create_dir_all(at("outside/kept")).unwrap();
        fs::write(at("outside/file"), "x").unwrap();
        fs::create_dir_all(at("tree/a/b/c")).unwrap();
        for n in 0..300 {
            fs::write(at(&format!("tree/a/f{n}")), "x").unwrap();
        }
        symlink("../outside", at("tree/link")).unwrap();
        symlink(at("outside"), at("tree/a/b/absolute")).unwrap();
        symlink("nowhere", at("tree/dangling")).unwrap();
        fs::hard_link(at("outside/file"), at("tree/hard")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let tree = Component::new("tree").unwrap();
        remove(&dir, &tree).unwrap();
        assert!(!at("tree").exists());
        assert!(at("outside/kept").is_dir());
        assert_eq!(fs::read(at("outside/file")).unwrap(), b"x");
        remove(&dir, &tree).unwrap();
    }

    #[test]
    fn a_link_of_that_name_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("real")).unwrap();
        symlink("real", temp.path().join("link")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        assert!(remove(&dir, &Component::new("link").unwrap()).is_err());
        assert!(temp.path().join("real").is_dir());
    }

    #[test]
    fn what_is_mounted_is_not_entered() {
        let root = Dir::open("/".as_ref()).unwrap();
        let error = remove(&root, &Component::new("proc").unwrap()).unwrap_err();
        assert!(error.to_string().contains("mounted"), "{error}");
    }

    #[test]
    fn deep_trees_go_too() {
        let temp = tempfile::tempdir().unwrap();
        let mut path = temp.path().join("tree");
        for _ in 0..200 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        remove(&dir, &Component::new("tree").unwrap()).unwrap();
        assert!(!temp.path().join("tree").exists());
    }
}
