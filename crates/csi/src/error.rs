//! What went wrong with a call, and what is known of its outcome.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

/// Why a driver did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CsiError {
    /// Nobody listens at its socket.
    #[error(
        "nobody answers at {}: {source}. Is the driver running, and is its socket there?", path.display()
    )]
    Absent {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It answered with an error.
    #[error("{call}: the driver refused ({code:?}): {message}")]
    Refused {
        /// The call, by its name in the interface.
        call: &'static str,
        /// The gRPC code.
        code: Code,
        /// What the driver said.
        message: String,
    },
    /// It did not answer in time.
    #[error("{call}: the driver did not answer within {} s", .after.as_secs_f32())]
    Deadline {
        /// The call, by its name in the interface.
        call: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection broke, or what came was no answer.
    #[error("{call}: the connection to the driver broke: {message}")]
    Broken {
        /// The call, by its name in the interface.
        call: &'static str,
        /// What happened.
        message: String,
    },
}

/// What is known of the outcome of a call that failed (M9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It did not take effect.
    Final,
    /// It was not even tried; it may go another time.
    Transient,
    /// It may have taken effect, or may yet.
    Uncertain,
}

impl CsiError {
    /// What is known of the outcome.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Absent { .. } => Class::Transient,
            Self::Deadline { .. } | Self::Broken { .. } => Class::Uncertain,
            Self::Refused { code, .. } => match code {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted => Class::Uncertain,
                _ => Class::Final,
            },
        }
    }

    /// The gRPC code, where the driver gave one or it follows from what happened (A27).
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Deadline { .. } => Some(Code::DeadlineExceeded),
            Self::Absent { .. } | Self::Broken { .. } => None,
        }
    }

    pub(crate) fn of(call: &'static str, status: &Status) -> Self {
        use std::error::Error as _;
        // A status without an answer is made here, from what broke.
        match status.source() {
            Some(source) => Self::Broken {
                call,
                message: source.to_string(),
            },
            None => Self::Refused {
                call,
                code: status.code(),
                message: status.message().to_owned(),
            },
        }
    }
}
