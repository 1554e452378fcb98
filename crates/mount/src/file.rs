//! Small files in an open directory: a crash leaves the old one or the new one, never a torn one.

use std::fs::File;
use std::io::{Read as _, Write as _};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::SystemError;
use crate::dir::{Component, Dir, Removal};

/// Where a file is written before it gets its name. One writer a directory.
const NEW: &str = ".bitts-new";

impl Dir {
    /// Writes a file of this name (mode 0640) in the place of any that is there, and waits until it is
    /// on the disk.
    ///
    /// # Errors
    /// When the kernel refuses; what was there before is there still.
    pub fn write_file(&self, name: &Component, content: &[u8]) -> Result<(), SystemError> {
        let flags =
            OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = rustix::fs::openat(self, NEW, flags, Mode::from_raw_mode(0o640))
            .map_err(|e| self.failed_at("writing", name, e))?;
        let mut new = File::from(new);
        new.write_all(content)
            .and_then(|()| new.sync_all())
            .map_err(|e| self.failed_at("writing", name, e))?;
        rustix::fs::renameat(self, NEW, self, name.as_str())
            .map_err(|e| self.failed_at("writing", name, e))?;
        self.sync()
    }

    /// The content of the file of this name; `None` where there is none.
    ///
    /// # Errors
    /// When it is no regular file, or is longer than `at_most` bytes.
    pub fn read_file(
        &self,
        name: &Component,
        at_most: u32,
    ) -> Result<Option<Vec<u8>>, SystemError> {
        // Not blocking: a pipe of that name would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self, name.as_str(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.failed_at("opening", name, e)),
        };
        let wrong = |text| self.failed_at("reading", name, std::io::Error::other(text));
        let failed = |e| self.failed_at("reading", name, e);
        let stat = rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(wrong("it is no regular file"));
        }
        let mut content = Vec::new();
        file.take(u64::from(at_most) + 1)
            .read_to_end(&mut content)
            .map_err(failed)?;
        if content.len() as u64 > u64::from(at_most) {
            return Err(wrong("it is longer than it can be"));
        }
        Ok(Some(content))
    }

    /// Removes the regular file of this name, whatever is in it, and what a write that was cut off
    /// left. Anything else of that name stays ([`Removal::NotEmpty`]).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_file(&self, name: &Component) -> Result<Removal, SystemError> {
        // Only a write that was cut off left one.
        match rustix::fs::unlinkat(self, NEW, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(self.failed_at("removing", name, e)),
        }
        match self.entry(name)? {
            None => Ok(Removal::Absent),
            Some(file) if file.kind()? != FileType::RegularFile => Ok(Removal::NotEmpty),
            Some(_) => self.unlink(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Component {
        Component::new(text).unwrap()
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let note = name("note");
        assert_eq!(dir.read_file(&note, 9).unwrap(), None);
        dir.write_file(&note, b"long text").unwrap();
        dir.write_file(&note, b"short").unwrap();
        assert_eq!(dir.read_file(&note, 9).unwrap().unwrap(), b"short");
        assert!(dir.read_file(&note, 4).is_err(), "longer than allowed");
        // What a write that was cut off left does not stay.
        std::fs::write(temp.path().join(NEW), "half").unwrap();
        assert_eq!(dir.delete_file(&note).unwrap(), Removal::Removed);
        assert_eq!(dir.delete_file(&note).unwrap(), Removal::Absent);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn no_link_is_followed_and_nothing_else_is_read_or_removed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        std::fs::write(temp.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("secret", temp.path().join("link")).unwrap();
        std::os::unix::fs::symlink("secret", temp.path().join(NEW)).unwrap();
        std::fs::create_dir(temp.path().join("folder")).unwrap();
        assert!(dir.read_file(&name("link"), 9).is_err());
        assert!(dir.read_file(&name("folder"), 9).is_err());
        assert!(dir.write_file(&name("new"), b"x").is_err());
        for what in ["link", "folder"] {
            assert_eq!(dir.delete_file(&name(what)).unwrap(), Removal::NotEmpty);
        }
        assert_eq!(std::fs::read(temp.path().join("secret")).unwrap(), b"s");
    }
}
