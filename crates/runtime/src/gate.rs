//! Effects are executed only while the lease is held.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Whether effects may be executed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Option<Arc<Mutex<Instant>>>);

impl Gate {
    /// Open until the lease has to be renewed.
    pub(crate) fn until(end: Instant) -> Self {
        Self(Some(Arc::new(Mutex::new(end))))
    }

    /// For how long effects may be executed: [`Duration::MAX`] without a lease, `None` when it is not held.
    pub(crate) fn open_for(&self) -> Option<Duration> {
        let Some(end) = &self.0 else {
            return Some(Duration::MAX);
        };
        let end = *end.lock().unwrap_or_else(PoisonError::into_inner);
        end.checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    pub(crate) fn end(&self) -> Instant {
        match &self.0 {
            Some(end) => *end.lock().unwrap_or_else(PoisonError::into_inner),
            None => Instant::now(),
        }
    }

    pub(crate) fn extend(&self, new: Instant) {
        if let Some(end) = &self.0 {
            *end.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gate_closes_by_itself() {
        let gate = Gate::until(Instant::now() + Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(gate.open_for(), Some(Duration::from_secs(6)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(gate.open_for(), None);
        assert_eq!(Gate::default().open_for(), Some(Duration::MAX));
    }
}
