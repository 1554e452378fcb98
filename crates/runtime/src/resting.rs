//! Objects that the API server asked to leave alone for longer than an effect waits.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::ObjectKey;
use tokio::time::Instant;

/// Whatever a server asks for, this is tried again after so long: as long as machines back off.
const LONGEST: Duration = Duration::from_secs(120);

/// Until when which object is to be left alone. A machine backs off by itself, but starts with less
/// than the server may have asked for; what it emits meanwhile fails without a request.
#[derive(Debug, Default)]
pub(crate) struct Resting(BTreeMap<ObjectKey, Instant>);

impl Resting {
    pub(crate) fn begin(&mut self, key: ObjectKey, rest: Duration) {
        let now = Instant::now();
        self.0.retain(|_, until| *until > now);
        self.0.insert(key, now + rest.min(LONGEST));
    }

    /// How long the object still rests.
    pub(crate) fn left(&mut self, key: &ObjectKey) -> Option<Duration> {
        let left = self.0.get(key)?.checked_duration_since(Instant::now());
        let left = left.filter(|left| !left.is_zero());
        if left.is_none() {
            self.0.remove(key);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_object_rests_as_long_as_asked_but_not_for_ever() {
        let (a, b) = (ObjectKey::volume("a"), ObjectKey::volume("b"));
        let mut resting = Resting::default();
        resting.begin(a.clone(), Duration::from_secs(40));
        resting.begin(b.clone(), Duration::from_secs(86_400));
        tokio::time::advance(Duration::from_secs(39)).await;
        assert_eq!(resting.left(&a), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(resting.left(&a), None);
        assert_eq!(resting.left(&b), Some(Duration::from_secs(80)));
    }
}
