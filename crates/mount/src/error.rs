//! What the kernel refused.

use std::io;

/// A call to the kernel that failed, with what it was for.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct SystemError {
    doing: String,
    source: io::Error,
}

impl SystemError {
    pub(crate) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// What the kernel said.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    pub(crate) fn io_error(&self) -> &io::Error {
        &self.source
    }
}
