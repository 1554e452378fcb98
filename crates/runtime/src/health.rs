//! Whether the roles of a process do their work, and why not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a role does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Another process has the lease.
    Standby,
    /// Watches and decides.
    Active,
    /// Is over, as asked.
    Ended,
}

/// What is known of one watch.
#[derive(Debug, Default)]
struct WatchHealth {
    listed: bool,
    problem: Option<String>,
    heard: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    roles: BTreeMap<&'static str, Stage>,
    watches: BTreeMap<(&'static str, &'static str), WatchHealth>,
}

/// The state of all roles and watches of a process.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_stage(&self, role: &'static str, stage: Stage) {
        let mut state = self.state();
        state.roles.insert(role, stage);
        if stage != Stage::Active {
            state.watches.retain(|(of, _), _| *of != role);
        }
    }

    /// A watch that has to be listed before its role is ready.
    pub(crate) fn expect_watch(&self, role: &'static str, resource: &'static str) {
        self.state().watches.entry((role, resource)).or_default();
    }

    /// Nothing is watched of it any more.
    pub(crate) fn forget_watch(&self, role: &'static str, resource: &'static str) {
        self.state().watches.remove(&(role, resource));
    }

    /// The API said something on this watch, `at` this time.
    pub(crate) fn heard(&self, role: &'static str, resource: &'static str, at: Instant) {
        if let Some(watch) = self.state().watches.get_mut(&(role, resource)) {
            watch.heard = Some(at);
            watch.problem = None;
        }
    }

    pub(crate) fn listed(&self, role: &'static str, resource: &'static str) {
        if let Some(watch) = self.state().watches.get_mut(&(role, resource)) {
            watch.listed = true;
        }
    }

    pub(crate) fn failed(&self, role: &'static str, resource: &'static str, problem: String) {
        if let Some(watch) = self.state().watches.get_mut(&(role, resource)) {
            watch.problem = Some(problem);
        }
    }

    /// How long each watch was silent.
    pub(crate) fn watch_ages(&self) -> Vec<(&'static str, &'static str, Duration)> {
        let watches = &self.state().watches;
        watches
            .iter()
            .filter_map(|((role, resource), w)| Some((*role, *resource, w.heard?.elapsed())))
            .collect()
    }

    /// Whether all is up, and a line on each role and watch.
    pub(crate) fn readiness(&self) -> (bool, String) {
        let state = self.state();
        let mut ready = !state.roles.is_empty();
        let mut text = String::new();
        for (role, stage) in &state.roles {
            let word = match stage {
                Stage::Standby => "standing by, another process has the lease",
                Stage::Active => "active",
                Stage::Ended => "ended",
            };
            ready &= *stage != Stage::Ended;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{role}: {word}");
        }
        for ((role, resource), watch) in &state.watches {
            let word = match (&watch.problem, watch.listed) {
                (Some(problem), _) => problem.as_str(),
                (None, false) => "not listed yet",
                (None, true) => "ok",
            };
            ready &= watch.problem.is_none() && watch.listed;
            let _ = writeln!(text, "{role} watches {resource}: {word}");
        }
        if state.roles.is_empty() {
            text.push_str("no role started yet\n");
        }
        (ready, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_role_is_ready_once_every_watch_was_listed_and_none_fails() {
        let health = Health::default();
        assert!(!health.readiness().0, "nothing runs yet");
        health.set_stage("binder", Stage::Standby);
        assert!(health.readiness().0, "a standby is ready to take over");
        health.set_stage("binder", Stage::Active);
        health.expect_watch("binder", "persistentvolumes");
        assert!(!health.readiness().0);
        health.heard("binder", "persistentvolumes", Instant::now());
        health.listed("binder", "persistentvolumes");
        assert!(health.readiness().0);
        health.failed("binder", "persistentvolumes", "forbidden".to_owned());
        let (ready, text) = health.readiness();
        assert!(!ready);
        assert!(
            text.contains("binder watches persistentvolumes: forbidden"),
            "{text}"
        );
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(health.watch_ages()[0].2, Duration::from_secs(7));
    }
}
