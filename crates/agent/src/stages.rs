//! What the agent knows of the devices on its node: mounted once before the first pod that uses a
//! volume on one, taken down after the last (M14, M23).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitts_api::Node;

use crate::retry::Retry;
use crate::task::{OnNode, StageKey, Staging, Task};

/// What the node has of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Actual {
    /// Nothing.
    #[default]
    Absent,
    /// Something: a scan found it, or what was done to it failed on the way.
    Unsure,
    /// It is ready; whether something has to be taken down again.
    Ready { is_mounted: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Stage,
    Unstage,
}

#[derive(Debug, Default)]
struct Record {
    actual: Actual,
    running: Option<Job>,
    retry: Retry<Job>,
    /// Whether it is attached by the attach controller; none where only a scan knows of it.
    attaches: Option<bool>,
}

/// All devices that the node has or shall have.
#[derive(Debug, Default)]
pub(crate) struct Stages(BTreeMap<StageKey, Record>);

impl Stages {
    /// A scan found it. Whether that is news.
    pub(crate) fn found(&mut self, key: StageKey) -> bool {
        let is_new = !self.0.contains_key(&key);
        if is_new {
            self.0.entry(key).or_default().actual = Actual::Unsure;
        }
        is_new
    }

    /// A volume turned out to be on it.
    pub(crate) fn expect(&mut self, staging: &Staging) {
        let record = self.0.entry(staging.key.clone()).or_default();
        record.attaches = Some(!staging.attachable_names().is_empty());
    }

    /// Whether a mount has to wait for it. What may be a directory does only once it turned out to be
    /// none.
    pub(crate) fn lacks(&self, key: &StageKey) -> bool {
        match self.0.get(key) {
            Some(record) => {
                record.running.is_some() || !matches!(record.actual, Actual::Ready { .. })
            }
            None => !key.plugin.volume_type().may_be_directory(),
        }
    }

    /// What is to be done now for a device that a mount needs, or that is only kept for those that
    /// are there, or that nothing uses any more. Starts it.
    pub(crate) fn start(
        &mut self,
        key: &StageKey,
        needed: Option<&Staging>,
        is_used: bool,
    ) -> Option<Task> {
        needed.into_iter().for_each(|staging| self.expect(staging));
        let record = self.0.get_mut(key)?;
        if record.running.is_some() {
            return None;
        }
        let (job, task) = match (needed, record.actual) {
            (Some(staging), Actual::Absent | Actual::Unsure) => {
                (Job::Stage, Task::Stage(staging.clone()))
            }
            (None, Actual::Unsure | Actual::Ready { is_mounted: true }) if !is_used => {
                (Job::Unstage, Task::Unstage(key.clone()))
            }
            (None, Actual::Absent | Actual::Ready { is_mounted: false }) if !is_used => {
                self.0.remove(key);
                return None;
            }
            _ => return None,
        };
        if !record.retry.allows(job) {
            return None;
        }
        record.running = Some(job);
        Some(task)
    }

    /// It was staged.
    pub(crate) fn staged(&mut self, key: &StageKey, on_node: &OnNode) {
        let is_mounted = *on_node != OnNode::Nothing;
        self.ended(key, Actual::Ready { is_mounted });
    }

    /// It was taken down.
    pub(crate) fn unstaged(&mut self, key: &StageKey) {
        self.ended(key, Actual::Absent);
    }

    fn ended(&mut self, key: &StageKey, actual: Actual) {
        let record = self.0.entry(key.clone()).or_default();
        record.running = None;
        record.actual = actual;
        record.retry.reset();
    }

    /// What was done to it failed. Returns when to try again, the number of that try, and whether the
    /// user has yet to be told of this.
    pub(crate) fn failed(&mut self, key: &StageKey, message: &str) -> (Duration, u32, bool) {
        let record = self.0.entry(key.clone()).or_default();
        let job = record.running.take();
        // It may have come halfway (M9). What was ready is not, either: it could not be taken down.
        record.actual = Actual::Unsure;
        let new = record.retry.tells(message);
        let (delay, attempt) = record.retry.fail(job);
        (delay, attempt, new)
    }

    /// A mount from it failed: whether it is still there is looked at before the next try.
    pub(crate) fn doubt(&mut self, key: &StageKey) {
        if let Some(record) = self.0.get_mut(key)
            && let Actual::Ready { is_mounted } = record.actual
        {
            record.actual = match is_mounted {
                true => Actual::Unsure,
                false => Actual::Absent,
            };
        }
    }

    /// The time for a try has come.
    pub(crate) fn retry(&mut self, key: &StageKey, attempt: u32) {
        if let Some(record) = self.0.get_mut(key) {
            record.retry.wake(attempt);
        }
    }

    /// What must stay attached, as nodes call it (M15): all that is mounted, may be, or is to be. Of
    /// what only a scan knows of, the node says whether it is attached at all (M31).
    pub(crate) fn attachable_names(&self, node: &Node) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (key, record) in &self.0 {
            let names = key.plugin.volume_type().attachable_names(&key.name);
            let waits = key.plugin.volume_type().waits_for_attach();
            let counts = |name: &String| match record.attaches {
                Some(attaches) => attaches,
                None => !waits || !node.released(name),
            };
            all.extend(names.into_iter().filter(counts));
        }
        all
    }

    /// All of them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &StageKey> {
        self.0.keys()
    }
}
