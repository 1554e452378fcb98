//! Project quota: how much a directory with all that is in it may hold.
//!
//! A [`Project`] is a number that files carry. A directory that was given one ([`assign`]) hands it on
//! to whatever is made in it, and the file system counts what all files of the number take, and refuses
//! more than their limit ([`set_limit`]). ext4 and XFS do so where they are mounted with `prjquota`.
//!
//! Who it binds: XFS everybody, with `ENOSPC`; ext4 all but those with `CAP_SYS_RESOURCE`, with
//! `EDQUOT`. A process outside user namespaces that owns a file may give it another number, so it holds
//! off what grows too large, not who wants to get around it.

mod kernel;

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::SystemError;
use crate::dir::Dir;

/// The number of a project; 0 is that of all files that nobody gave one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Project(NonZeroU32);

impl Project {
    /// The project of this number, if it may be one.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        // The last number stands for "none" in the kernel.
        match NonZeroU32::new(number) {
            Some(number) if number.get() != u32::MAX => Some(Self(number)),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

/// What the files of a project take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
    /// How many bytes they may take; `None` for any number.
    pub limit: Option<u64>,
}

impl Usage {
    /// Whether no file carries the number and nothing is set for it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a file system does not hold projects to their limits.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// It could.
    #[error("{path} is on ext4 without project quota: unmount it, {}", mount_it(*.has_feature))]
    Ext4 {
        /// A directory of it.
        path: PathBuf,
        /// Whether it counts by project already.
        has_feature: bool,
    },
    /// It could.
    #[error(
        "{} is on XFS without project quota: unmount it and mount it with the option `prjquota` (for \
         the root file system: boot with `rootflags=prjquota`)", .0.display()
    )]
    Xfs(PathBuf),
    /// It cannot.
    #[error("{} is on a file system that has no project quota: use ext4 or XFS, mounted with the option \
             `prjquota`, on Linux 5.14 or newer", .0.display())]
    None(PathBuf),
    /// It may not be asked.
    #[error(
        "{0}: setting quota takes CAP_SYS_ADMIN outside of user namespaces, which this process lacks"
    )]
    Forbidden(SystemError),
    /// The kernel refused for another reason.
    #[error(transparent)]
    System(#[from] SystemError),
}

fn mount_it(has_feature: bool) -> &'static str {
    if has_feature {
        "and mount it with the option `prjquota`"
    } else {
        "run `tune2fs -O project,quota DEVICE`, and mount it with the option `prjquota`"
    }
}

/// Whether the file system of a directory holds projects to their limits.
///
/// # Errors
/// When it does not, with how it would.
pub fn check(dir: &Dir) -> Result<(), QuotaError> {
    let held = |state: kernel::State| state.enforces_projects();
    let has_feature = match kernel::state(&open(dir)?) {
        Ok(state) if held(state) => return Ok(()),
        Ok(state) => state.counts_projects(),
        Err(Errno::NOSYS | Errno::INVAL | Errno::SRCH | Errno::NOTBLK) => false,
        Err(e) => return Err(failed(dir, "asking for the quota of", e)),
    };
    let path = dir.path().to_owned();
    let stat = rustix::fs::fstatfs(dir).map_err(|e| failed(dir, "looking at", e))?;
    Err(match stat.f_type {
        EXT4 => QuotaError::Ext4 { path, has_feature },
        XFS => QuotaError::Xfs(path),
        _ => QuotaError::None(path),
    })
}

const EXT4: i64 = 0xEF53;
const XFS: i64 = 0x5846_5342;

/// The project of a directory.
///
/// # Errors
/// When its file system has no projects.
pub fn project(dir: &Dir) -> Result<Option<Project>, QuotaError> {
    let attributes = kernel::attributes(&open(dir)?);
    let attributes = attributes.map_err(|e| failed(dir, "reading the project of", e))?;
    Ok(Project::new(attributes.project))
}

/// Gives a directory a project, which whatever is made in it then has too; `None` takes it away. What
/// is in it already stays as it is.
///
/// # Errors
/// When the kernel refuses.
pub fn assign(dir: &Dir, project: Option<Project>) -> Result<(), QuotaError> {
    let fd = open(dir)?;
    let doing = "giving a project to";
    let mut attributes = kernel::attributes(&fd).map_err(|e| failed(dir, doing, e))?;
    attributes.project = project.map_or(0, Project::number);
    attributes.inherit(project.is_some());
    kernel::set_attributes(&fd, attributes).map_err(|e| failed(dir, doing, e))
}

/// Sets how many bytes the files of a project may take; `None` lifts the limit. Where the file system
/// holds no limits any more, there is none to lift. It rounds up to 1 KiB.
///
/// # Errors
/// When the kernel refuses.
pub fn set_limit(dir: &Dir, project: Project, bytes: Option<u64>) -> Result<(), QuotaError> {
    match kernel::set_limit(&open(dir)?, project, bytes.unwrap_or(0)) {
        Ok(()) => Ok(()),
        Err(Errno::SRCH | Errno::NOSYS | Errno::INVAL | Errno::NOENT) if bytes.is_none() => Ok(()),
        Err(e) => Err(failed(dir, "setting the quota of a project on", e)),
    }
}

/// What the files of a project take.
///
/// # Errors
/// When the file system does not count, or this process may not ask.
pub fn usage(dir: &Dir, project: Project) -> Result<Usage, QuotaError> {
    match kernel::usage(&open(dir)?, project) {
        Ok(usage) => Ok(usage),
        // XFS keeps nothing of a project that there never was.
        Err(Errno::NOENT) => Ok(Usage::default()),
        Err(e) => Err(failed(dir, "asking for the quota of a project on", e)),
    }
}

/// A directory for calls that a mere handle is not enough for.
fn open(dir: &Dir) -> Result<rustix::fd::OwnedFd, SystemError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::empty())
        .map_err(|e| SystemError::new(format!("opening {}", dir.path().display()), e))
}

fn failed(dir: &Dir, doing: &str, errno: Errno) -> QuotaError {
    let error = io::Error::from(errno);
    let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
    let error = SystemError::new(format!("{doing} {}", dir.path().display()), error);
    if forbidden {
        QuotaError::Forbidden(error)
    } else {
        QuotaError::System(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_project_has_a_number_that_means_something_else() {
        assert!(Project::new(0).is_none() && Project::new(u32::MAX).is_none());
        assert_eq!(Project::new(7).map(Project::number), Some(7));
    }

    #[test]
    fn a_file_system_without_says_what_would_have_it() {
        let proc = Dir::open("/proc".as_ref()).unwrap();
        let error = check(&proc).unwrap_err();
        assert!(matches!(error, QuotaError::None(_)), "{error}");
        assert!(error.to_string().contains("prjquota"), "{error}");
        assert!(usage(&proc, Project::new(7).unwrap()).is_err());
        assert!(project(&proc).is_err());
    }
}
