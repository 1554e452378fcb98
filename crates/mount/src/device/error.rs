//! What went wrong with a device.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::child::ChildError;
use crate::nfs::Class;

/// Why something was not done with a device.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {message}", .path.display())]
pub struct DeviceError {
    doing: String,
    path: PathBuf,
    message: String,
    /// What was wrong.
    pub kind: Kind,
}

impl DeviceError {
    pub(super) fn new(doing: &str, path: &Path, kind: Kind, message: String) -> Self {
        Self {
            doing: doing.to_owned(),
            path: path.to_owned(),
            message,
            kind,
        }
    }

    /// What is known of the outcome (M9).
    #[must_use]
    pub fn class(&self) -> Class {
        match self.kind {
            Kind::Deadline | Kind::Ended => Class::Uncertain,
            Kind::Busy | Kind::System => Class::Transient,
            _ => Class::Final,
        }
    }
}

/// What was wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has another file system than the one asked for.
    Mismatch,
    /// It carries something, so it is not formatted.
    NotBlank,
    /// It has no file system, and must not be written.
    Unformatted,
    /// It cannot be known what it carries: unread, or several things at once.
    Unclear,
    /// Something uses it: a mount, another device made of it, or a process that formats it.
    Busy,
    /// It is read-only.
    ReadOnly,
    /// It is too small for a file system.
    TooSmall,
    /// The file system on it is damaged.
    Damaged,
    /// What is to be done needs it to be mounted.
    NotMounted,
    /// A program that is needed is not on this machine.
    NoProgram,
    /// A program failed.
    Program,
    /// It did not end in time, and was killed.
    Deadline,
    /// The child was ended by something else.
    Ended,
    /// The kernel refused something that may go another time.
    System,
    /// The kernel refused.
    Refused,
}

/// Those that a child tells, by its exit code: above all error numbers.
const TOLD: [(i32, Kind); 9] = [
    (210, Kind::NotBlank),
    (211, Kind::Unclear),
    (212, Kind::Busy),
    (213, Kind::ReadOnly),
    (214, Kind::TooSmall),
    (215, Kind::Damaged),
    (216, Kind::NotMounted),
    (217, Kind::NoProgram),
    (218, Kind::Program),
];

impl Kind {
    pub(super) fn code(self) -> i32 {
        let told = TOLD.iter().find(|(_, kind)| *kind == self);
        told.map_or(218, |(code, _)| *code)
    }

    fn of_code(code: i32) -> Self {
        if let Some((_, kind)) = TOLD.iter().find(|(told, _)| *told == code) {
            return *kind;
        }
        match Errno::from_raw_os_error(code) {
            Errno::BUSY => Self::Busy,
            Errno::ROFS => Self::ReadOnly,
            Errno::UCLEAN | Errno::BADMSG => Self::Damaged,
            Errno::INTR | Errno::AGAIN | Errno::NOMEM | Errno::NXIO => Self::System,
            _ => Self::Refused,
        }
    }
}

pub(super) fn explain(doing: &str, path: &Path, error: ChildError) -> DeviceError {
    let kind = match &error {
        ChildError::Deadline(_) => Kind::Deadline,
        ChildError::Failed { code, .. } => Kind::of_code(*code),
        ChildError::Ended(_) => Kind::Ended,
        ChildError::System(_) => Kind::System,
    };
    let message = match &error {
        // A child's own text is about servers.
        ChildError::Deadline(after) => {
            let seconds = after.as_secs_f32();
            format!("no end after {seconds} s: the device or its file system does not answer")
        }
        other => other.to_string(),
    };
    DeviceError::new(doing, path, kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_tells_by_number_is_understood() {
        for (code, kind) in TOLD {
            assert_eq!((kind.code(), Kind::of_code(code)), (code, kind));
        }
        assert_eq!(Kind::of_code(Errno::BUSY.raw_os_error()), Kind::Busy);
        assert_eq!(Kind::of_code(Errno::INVAL.raw_os_error()), Kind::Refused);
    }
}
