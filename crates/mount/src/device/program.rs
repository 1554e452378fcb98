//! The programs that know file systems, run by a child on a device that it holds open.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::error::Kind;
use crate::work::Failure;

/// Where system programs are; the user's PATH is not asked.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A program, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    name: &'static str,
    package: &'static str,
}

/// What a program did.
pub(super) struct Done(Output);

impl std::ops::Deref for Done {
    type Target = Output;

    fn deref(&self) -> &Output {
        &self.0
    }
}

impl Done {
    /// What it said, and how it ended where it said nothing.
    pub(super) fn said(&self) -> String {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            // What is wrong comes before how the program is used.
            let wrong = text.split("Usage:").next().unwrap_or_default();
            wrong.trim().to_owned()
        };
        let said = [text(&self.0.stdout), text(&self.0.stderr)];
        let said: Vec<String> = said.into_iter().filter(|text| !text.is_empty()).collect();
        if said.is_empty() {
            self.0.status.to_string()
        } else {
            said.join("; ").replace('\n', "; ")
        }
    }
}

impl Program {
    pub(super) const BLKID: Self = Self::new("blkid", "util-linux");
    pub(super) const E2FSCK: Self = Self::new("e2fsck", "e2fsprogs");
    pub(super) const LOSETUP: Self = Self::new("losetup", "mount");
    pub(super) const MKE2FS: Self = Self::new("mke2fs", "e2fsprogs");
    pub(super) const MKFS_XFS: Self = Self::new("mkfs.xfs", "xfsprogs");
    pub(super) const RESIZE2FS: Self = Self::new("resize2fs", "e2fsprogs");
    pub(super) const XFS_GROWFS: Self = Self::new("xfs_growfs", "xfsprogs");

    const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    /// Where it is.
    pub(super) fn find(self) -> Result<String, Failure> {
        PLACES
            .iter()
            .map(|place| format!("{place}/{}", self.name))
            .find(|path| Path::new(path).exists())
            .ok_or_else(|| {
                let Self { name, package } = self;
                Failure::of(
                    Kind::NoProgram.code(),
                    format!(
                        "this needs the program {name}: install the package {package} (it has \
                         that name on Debian)"
                    ),
                )
            })
    }

    /// Runs it to its end with this file as its standard input. It ends with this process at the
    /// latest when that one's process group is killed.
    pub(super) fn run(self, input: &File, arguments: &[&str]) -> Result<Done, Failure> {
        let path = self.find()?;
        let failed = |e: std::io::Error| {
            Failure::of(
                Kind::Program.code(),
                format!("{} cannot be run: {e}", self.name),
            )
        };
        Command::new(path)
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", PLACES.join(":"))
            .stdin(Stdio::from(input.try_clone().map_err(failed)?))
            .output()
            .map(Done)
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let missing = Program::new("mkfs.nothing", "nothingprogs").find();
        let text = missing.err().map(|failure| failure.message);
        assert!(text.is_some_and(|text| text.contains("nothingprogs")));
    }
}
