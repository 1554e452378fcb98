//! What users were told, so that nobody is told the same twice.

use std::collections::BTreeMap;

use bitts_api::{Name, ObjectKey, Uid};

use crate::reason::Notice;

/// What something was told about an object. Of each there is one thing at a time to be told: what is
/// told of one says nothing of the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Why it is as it is.
    State,
    /// That the API refuses a write, by its step.
    Refusal(&'static str),
    /// Why the claim of a pod's volume is not made.
    Claim(Name),
}

/// What was told last, by object and topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(BTreeMap<(ObjectKey, Topic), (Uid, Notice)>);

impl Told {
    /// Whether this is news; from now on it is not.
    pub(crate) fn is_news(
        &mut self,
        key: &ObjectKey,
        topic: Topic,
        uid: &Uid,
        notice: &Notice,
    ) -> bool {
        let about = (key.clone(), topic);
        let last = self.0.get(&about);
        if last.is_some_and(|(of, told)| of == uid && told == notice) {
            return false;
        }
        self.0.insert(about, (uid.clone(), notice.clone()));
        true
    }

    /// There is nothing to tell: what was told may be told again.
    pub(crate) fn clear(&mut self, key: &ObjectKey, topic: Topic) {
        if !self.0.is_empty() {
            self.0.remove(&(key.clone(), topic));
        }
    }

    /// The object is gone.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        let first = (key.clone(), Topic::State);
        let about = self.0.range(first..).map(|(about, _)| about);
        let about: Vec<_> = about.take_while(|(k, _)| k == key).cloned().collect();
        for about in about {
            self.0.remove(&about);
        }
    }
}
