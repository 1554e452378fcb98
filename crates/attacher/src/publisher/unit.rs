//! What is remembered of an attachment, and of a volume. All of it may be lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitts_api::machine::Moment;
use bitts_api::{Name, Uid, Volume};

use super::call::{Context, Trouble};

/// What the driver answered, and the API has yet to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Attached(Context),
    Detached,
    /// It failed, or something is in the way.
    Failed {
        message: String,
        code: Option<i32>,
    },
}

/// One VolumeAttachment.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) uid: Uid,
    /// The volume as it was last seen.
    pub(crate) volume: Option<Arc<Volume>>,
    pub(crate) handle: Option<Box<str>>,
    /// A write is under way.
    pub(crate) writes: bool,
    /// That write puts our finalizer on it.
    pub(crate) holds: bool,
    /// A call is.
    pub(crate) calls: bool,
    /// It waits for its turn to call.
    pub(crate) queued: bool,
    pub(crate) answer: Option<Answer>,
    pub(crate) doubted: bool,
    /// As what the driver was last told to detach from its node, where it said that it had.
    pub(crate) left: Option<Box<str>>,
    /// When its last call ended.
    pub(crate) called_at: Option<Moment>,
    failures: u32,
    rests_until: Option<Moment>,
}

impl Unit {
    pub(crate) fn new(uid: Uid) -> Self {
        Self {
            uid,
            volume: None,
            handle: None,
            writes: false,
            holds: false,
            calls: false,
            queued: false,
            answer: None,
            doubted: false,
            left: None,
            called_at: None,
            failures: 0,
            rests_until: None,
        }
    }

    pub(crate) fn rests_until(&self, now: Moment) -> Option<Moment> {
        self.rests_until.filter(|until| *until > now)
    }

    pub(crate) fn fail(&mut self, now: Moment) {
        self.failures += 1;
        self.rests_until = Some(now + back_off(self.failures));
    }

    pub(crate) fn failed(&mut self, now: Moment, trouble: Trouble) {
        self.fail(now);
        self.answer = Some(Answer::Failed {
            message: trouble.message,
            code: trouble.code,
        });
    }

    /// Something changed that it may have failed for.
    pub(crate) fn wake(&mut self) {
        self.rests_until = None;
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
        self.rests_until = None;
    }
}

/// A PersistentVolume and what attaches it.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) attachments: BTreeSet<Name>,
    pub(crate) writes: bool,
    failures: u32,
    rests_until: Option<Moment>,
}

impl Shelf {
    pub(crate) fn rests(&self, now: Moment) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    pub(crate) fn fail(&mut self, now: Moment) -> Moment {
        self.failures += 1;
        let until = now + back_off(self.failures);
        self.rests_until = Some(until);
        until
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
        self.rests_until = None;
    }
}

/// 1 s, doubling to 5 min, as the stock sidecar.
pub(crate) fn back_off(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(300);
    let doublings = failures.saturating_sub(1).min(9);
    (FIRST * 2_u32.pow(doublings)).min(MOST)
}
