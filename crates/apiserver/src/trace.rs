//! What was asked and answered, for tests.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// One request and its answer. Prints as one line, without times or versions, so that a list of them
/// can be compared with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// The API verb, for example `patch`.
    pub verb: &'static str,
    /// The resource, with its subresource, for example `persistentvolumes/status`.
    pub resource: String,
    /// The namespace; empty for none.
    pub namespace: String,
    /// The object's name; empty for lists.
    pub name: String,
    /// The HTTP code that the client saw. 0 when the connection was cut instead.
    pub code: u16,
    /// The fault that struck, if any.
    pub fault: Option<&'static str>,
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => {}
            ("", name) => write!(f, " {name}")?,
            (namespace, name) => write!(f, " {namespace}/{name}")?,
        }
        write!(f, " {}", self.code)?;
        self.fault.map_or(Ok(()), |fault| write!(f, " [{fault}]"))
    }
}

/// The last requests.
#[derive(Debug)]
pub(crate) struct Trace {
    keep: usize,
    lines: Mutex<VecDeque<Traced>>,
}

impl Trace {
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            keep,
            lines: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, line: Traced) {
        if self.keep == 0 {
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == self.keep {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(crate) fn all(&self) -> Vec<Traced> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}
