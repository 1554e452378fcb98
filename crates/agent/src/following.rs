//! Which claims and volumes the agent is told of: those that its pods wait for, no others.
//!
//! What a pod's volume is once it is mounted stays, whatever becomes of its claim (M3), so from then
//! on neither is followed: an agent whose pods all run watches its pods and its node, be there 20 or
//! 20,000 volumes in the cluster.

use std::collections::{BTreeMap, BTreeSet};

use bitts_api::ObjectKey;
use bitts_api::machine::Place;

/// What is followed, and for whom.
#[derive(Debug, Default)]
pub(crate) struct Following {
    objects: BTreeMap<ObjectKey, Interest>,
    /// The same from the other side.
    pods: BTreeMap<Place, BTreeSet<ObjectKey>>,
}

#[derive(Debug, Default)]
struct Interest {
    pods: BTreeSet<Place>,
    /// Whether it was read. Before that nothing is known of it, not even that it is absent.
    known: bool,
}

/// What a change of a pod's needs asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Difference {
    pub(crate) begun: Vec<ObjectKey>,
    pub(crate) ended: Vec<ObjectKey>,
}

impl Following {
    /// Sets what a pod needs to be told of.
    pub(crate) fn set(&mut self, pod: &Place, needs: BTreeSet<ObjectKey>) -> Difference {
        let mut difference = Difference::default();
        for key in &needs {
            let interest = self.objects.entry(key.clone()).or_default();
            if interest.pods.is_empty() {
                difference.begun.push(key.clone());
            }
            interest.pods.insert(pod.clone());
        }
        let before = if needs.is_empty() {
            self.pods.remove(pod)
        } else {
            self.pods.insert(pod.clone(), needs.clone())
        };
        for key in before.unwrap_or_default().difference(&needs) {
            if let Some(interest) = self.objects.get_mut(key) {
                interest.pods.remove(pod);
                if interest.pods.is_empty() {
                    self.objects.remove(key);
                    difference.ended.push(key.clone());
                }
            }
        }
        difference
    }

    /// The object was read. Returns whether anybody asked.
    pub(crate) fn found(&mut self, key: &ObjectKey) -> bool {
        let interest = self.objects.get_mut(key);
        interest.map(|interest| interest.known = true).is_some()
    }

    /// Whether what is known of the object is all there is.
    pub(crate) fn knows(&self, key: &ObjectKey) -> bool {
        self.objects.get(key).is_some_and(|one| one.known)
    }

    /// The pods that wait for the object.
    pub(crate) fn pods(&self, key: &ObjectKey) -> impl Iterator<Item = &Place> {
        self.objects.get(key).into_iter().flat_map(|one| &one.pods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_followed_from_the_first_pod_to_the_last() {
        let pod = |name: &str| (Some("default".into()), name.into());
        let (disk, both) = (
            ObjectKey::volume("a"),
            [ObjectKey::volume("a"), ObjectKey::volume("b")],
        );
        let mut all = Following::default();
        assert_eq!(all.set(&pod("p"), both.clone().into()).begun, both);
        assert_eq!(
            all.set(&pod("q"), [disk.clone()].into()),
            Difference::default()
        );
        assert!(!all.knows(&disk), "not read yet");
        assert!(all.found(&disk) && all.knows(&disk));
        assert_eq!(
            all.set(&pod("p"), BTreeSet::new()).ended,
            [ObjectKey::volume("b")]
        );
        assert_eq!(all.pods(&disk).collect::<Vec<_>>(), [&pod("q")]);
        let only = std::slice::from_ref(&disk);
        assert_eq!(all.set(&pod("q"), BTreeSet::new()).ended, only);
        assert!(!all.found(&disk), "nobody asks any more");
        // Followed anew, it is read anew.
        assert_eq!(all.set(&pod("q"), [disk.clone()].into()).begun, only);
        assert!(!all.knows(&disk));
    }
}
