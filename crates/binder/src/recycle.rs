//! Volumes of the policy Recycle: wiped and offered again (D8).
//!
//! There is no helper pod. The agent of a node that can reach the volume wipes it, and both talk
//! through annotations, so that neither has to be there when the other is:
//!
//! - the node carries `bitts.dev/recycler` while its agent offers to recycle;
//! - the binder sets `bitts.dev/recycle-on: NODE` on a Released volume: from then on the agent may
//!   wipe it, and nobody else is asked;
//! - the agent sets `bitts.dev/recycled: UID`, the uid of the claim whose data is gone, or
//!   `bitts.dev/recycle-failed: WHY` while it keeps trying;
//! - the binder gives the volume back and removes all of them.

use bitts_api::machine::Evidence;
use bitts_api::{Name, NodeName, ObjectKey, Source, Uid, Volume, names};

use crate::known::Known;
use crate::options::{Difference, Options, Recycle};
use crate::reason::Notice;
use crate::reclaim::Failure;

/// What recycling a volume comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recycling {
    /// The agent was asked and is at it.
    Wait,
    /// Not now.
    Refuse(Notice),
    /// It becomes Failed.
    Fail(Failure),
    /// Ask the agent of this node, if no pod uses the claim that is gone.
    Ask(NodeName, Option<Evidence>),
    /// It was wiped.
    Done,
}

/// Decides for a volume that is released and has to be recycled.
pub(crate) fn decide(volume: &Volume, known: &Known, options: &Options) -> Recycling {
    let Some(owner) = &volume.claim_ref else {
        return Recycling::Wait;
    };
    let annotations = &volume.meta.annotations;
    let wiped_after = annotations.get(names::RECYCLED).map(Uid::from);
    if options.recycle != Recycle::Off && owner.uid.is_some() && wiped_after == owner.uid {
        return Recycling::Done;
    }
    let place = (Some(owner.namespace.clone()), owner.name.clone());
    // A new claim of that name uses another volume, and so do its pods.
    let is_replaced = known.claim(&place).is_some();
    if !is_replaced {
        let pods = known.pods_that_may_run(&place);
        if !pods.is_empty() {
            let pods: Vec<_> = pods
                .iter()
                .map(|pod| format!("{}/{pod}", owner.namespace))
                .collect();
            return Recycling::Refuse(Notice::used_by_pods(&pods));
        }
    }
    if options.recycle == Recycle::Off {
        // kube-controller-manager starts a pod for these, and they are Released until it has run.
        let has_pod = matches!(volume.source, Source::HostPath { .. } | Source::Nfs { .. });
        return if has_pod && !options.differs(Difference::KeepHostPath) {
            Recycling::Refuse(Notice::no_recycler_pods())
        } else {
            Recycling::Fail(Failure::NoRecycler)
        };
    }
    if site(volume).is_none() {
        return Recycling::Fail(Failure::NoRecycler);
    }
    if options.recycle == Recycle::Guarded
        && let Some(other) = overlapping(volume, known)
    {
        return Recycling::Fail(Failure::Overlaps(other));
    }
    if let Some(why) = annotations.get(names::RECYCLE_FAILED) {
        return Recycling::Fail(Failure::RecycleFailed(why.into()));
    }
    let offers = known.recyclers_for(volume);
    match annotations.get(names::RECYCLE_ON) {
        Some(asked) if offers.iter().any(|node| *node == *asked) => Recycling::Wait,
        _ => match offers.into_iter().next() {
            Some(node) => {
                let claim = ObjectKey::claim(owner.namespace.clone(), owner.name.clone());
                let at_rest = (!is_replaced).then_some(Evidence::ClaimAtRest(claim));
                Recycling::Ask(node, at_rest)
            }
            None => Recycling::Fail(Failure::NoAgent),
        },
    }
}

/// Where data lies: on which machine (an NFS server, or any node) and at which path.
fn site(volume: &Volume) -> Option<(Option<&str>, &str)> {
    match &volume.source {
        Source::Local { path, .. } | Source::HostPath { path, .. } => Some((None, path)),
        Source::Nfs { server, path, .. } => Some((Some(server), path)),
        Source::Csi(_)
        | Source::GcePersistentDisk { .. }
        | Source::Iscsi { .. }
        | Source::Other(_) => None,
    }
}

/// Another volume whose data lies in the same place, below it or above.
pub(crate) fn overlapping(volume: &Volume, known: &Known) -> Option<Name> {
    site(volume)?;
    known
        .all_volumes()
        .find(|other| other.meta.name != volume.meta.name && overlap(volume, other))
        .map(|other| other.meta.name.clone())
}

/// Whether two volumes lie at the same place, or one within the other. Paths on nodes count as on
/// the same node: which nodes two volumes share may change, and a wipe cannot be taken back.
pub(crate) fn overlap(one: &Volume, other: &Volume) -> bool {
    match (site(one), site(other)) {
        (Some((machine, path)), Some((m, p))) => {
            m == machine && (is_within(p, path) || is_within(path, p))
        }
        _ => false,
    }
}

/// Whether `inner` is `outer` or lies below it, as texts. A path that steps back (the API allows that
/// for exports) may lead anywhere: everything lies within it.
fn is_within(inner: &str, outer: &str) -> bool {
    let names_one = |part: &&str| !matches!(*part, "" | ".");
    let mut inner = inner.split('/').filter(names_one);
    let mut outer = outer.split('/').filter(names_one);
    outer.clone().any(|part| part == "..") || outer.all(|part| inner.next() == Some(part))
}

#[cfg(test)]
mod tests {
    use super::is_within;

    #[test]
    fn paths_lie_within_one_another_by_parts() {
        assert!(is_within("/a/b", "/a"));
        assert!(is_within("/a//b/", "/a/./b"));
        assert!(is_within("/a", "/"));
        assert!(is_within("/a", "/b/../c"));
        assert!(!is_within("/ab", "/a"));
        assert!(!is_within("/a", "/a/b"));
    }
}
