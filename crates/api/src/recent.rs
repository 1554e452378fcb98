//! A memory of bounded size.

use std::collections::{BTreeSet, VecDeque};

/// Remembers the latest `MOST` things it was told, each once, and forgets the oldest for a new one.
///
/// ```
/// let mut recent = bitts_api::Recent::<_, 2>::default();
/// for name in ["c", "a", "b"] {
///     recent.insert(name);
/// }
/// assert!(!recent.contains(&"c"), "the oldest, not the smallest, was forgotten");
/// assert!(recent.contains(&"a") && recent.contains(&"b"));
/// ```
#[derive(Clone, Debug)]
pub struct Recent<T, const MOST: usize> {
    known: BTreeSet<T>,
    order: VecDeque<T>,
}

impl<T, const MOST: usize> Default for Recent<T, MOST> {
    fn default() -> Self {
        Self {
            known: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T: Clone + Ord, const MOST: usize> Recent<T, MOST> {
    /// Remembers it; what is known already does not become newer.
    pub fn insert(&mut self, new: T) {
        if self.known.insert(new.clone()) {
            self.order.push_back(new);
        }
        while self.order.len() > MOST {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether it is remembered.
    #[must_use]
    pub fn contains(&self, one: &T) -> bool {
        self.known.contains(one)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.known.clear();
        self.order.clear();
    }
}
