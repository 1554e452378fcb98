//! The last changes of one kind, oldest first.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::Key;

/// One write: from `previous` to `object`. None before a create and after a delete.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) object: Option<Arc<Value>>,
    pub(crate) previous: Option<Arc<Value>>,
}

/// The revision asked for lies before what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired {
    /// The oldest revision that can be asked for.
    pub(crate) oldest: u64,
}

#[derive(Debug)]
pub(super) struct History {
    keep: usize,
    changes: VecDeque<Change>,
    /// The last revision whose change is no longer here.
    forgotten: u64,
    /// The revision before which nothing may be asked for, changes or not.
    compacted: u64,
}

impl History {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            keep: keep.max(1),
            changes: VecDeque::new(),
            forgotten: 0,
            compacted: 0,
        }
    }

    pub(super) fn push(&mut self, change: Change) {
        if self.changes.len() == self.keep
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten = oldest.revision;
        }
        self.changes.push_back(change);
    }

    pub(super) fn compact(&mut self, revision: u64) {
        if let Some(last) = self.changes.back() {
            self.forgotten = last.revision;
        }
        self.changes.clear();
        self.compacted = revision;
    }

    pub(super) fn oldest(&self) -> u64 {
        self.forgotten.max(self.compacted)
    }

    pub(super) fn check(&self, revision: u64) -> Result<(), Expired> {
        let oldest = self.oldest();
        if revision < oldest {
            Err(Expired { oldest })
        } else {
            Ok(())
        }
    }

    pub(super) fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Expired> {
        if revision < self.forgotten {
            return Err(Expired {
                oldest: self.forgotten,
            });
        }
        let first = self
            .changes
            .partition_point(|change| change.revision <= revision);
        Ok(self.changes.range(first..))
    }
}
