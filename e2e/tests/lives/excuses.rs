//! The rows of docs/differences.md about how things end, as narrow as states can tell.

use bitts_e2e::raw::text;
use serde_json::Value;

use crate::state::{State, unequal};

/// The states around a step: before it, and after it under kube-controller-manager and under bitts.
pub(crate) struct Around<'a> {
    pub(crate) before: &'a State,
    pub(crate) stock: &'a State,
    pub(crate) bitts: &'a State,
}

/// The row that explains why bitts, as it is by default, ended a step elsewhere; none if there is a
/// difference that no row explains. From then on the life is another one.
pub(crate) fn find(around: &Around<'_>) -> Option<&'static str> {
    let mut found = None;
    for name in unequal(around.stock, around.bitts) {
        if name.starts_with("volumes/") {
            found = Some(of_volume(name, around)?);
        } else if !name.starts_with("claims/") {
            return None;
        } // A claim differs only with its volume, which is explained.
    }
    found
}

fn of_volume(name: &str, around: &Around<'_>) -> Option<&'static str> {
    let none = Value::Null;
    let stock = around.stock.get(name).unwrap_or(&none);
    let bitts = around.bitts.get(name)?;
    let before = around.before.get(name).unwrap_or(&none);
    let [there, here] = [stock, bitts].map(|volume| text(volume, "/phase"));
    let [said, message] = [stock, bitts].map(|volume| text(volume, "/message"));
    let [owner, now] = [stock, bitts].map(|volume| text(volume, "/claimRef/name"));
    let policy = text(bitts, "/policy");
    let reclaimed = matches!(there, "" | "Released" | "Failed");

    if here == "Pending" && reclaimed && message.starts_with("This volume appeared already bound") {
        return Some("held");
    }
    let claim = match owner {
        "" => text(before, "/claimRef/name"),
        owner => owner,
    };
    let never_bound = !is_bound(around.before, claim);
    let given = here == "Available" && bitts["claimRef"]["uid"].is_null();
    if given && reclaimed && never_bound {
        return Some("given back");
    }
    // Given back, it is still reserved by name, and a new claim of that name took it.
    let other = stock["claimRef"]["uid"] != bitts["claimRef"]["uid"];
    if here == "Bound" && owner == now && other && is_reserved(bitts) && reclaimed && never_bound {
        return Some("given back");
    }
    // It would be given back at once.
    if given && there == "Bound" && never_bound && is_leaving(around.bitts, claim) {
        return Some("given back");
    }
    if here == "Failed" && policy == "Delete" && bitts["source"]["hostPath"].is_object() {
        let nothing_deletes = message.contains("no volume plugin matched");
        // A finalizer may hold what is deleted there.
        let deleted = there == "Failed" || there.is_empty() || stock["deleting"] == true;
        return (nothing_deletes && deleted).then_some("hostPath");
    }
    if here == "Failed" && policy == "Recycle" && there == "Released" {
        let off = message.starts_with("No recycler plugin");
        return off.then_some("recycler pods");
    }
    if there == "Failed" && said != message {
        let kept = policy == "Retain" || (policy == "Delete" && has_maker(bitts));
        let fresh = here == "Failed" || (here == "Released" && kept);
        return fresh.then_some("Failed");
    }
    let reserved = here == "Bound" && there == "Available" && owner == now && is_reserved(bitts);
    let mut bound = around.bitts.iter().filter(|(key, volume)| {
        key.starts_with("volumes/") && volume["phase"] == "Bound" && is_reserved(volume)
    });
    let left = here == "Available"
        && there == "Bound"
        && bound.any(|(_, volume)| text(volume, "/claimRef/name") == owner);
    (reserved || left).then_some("before any other")
}

/// Somebody else deletes it.
fn has_maker(volume: &Value) -> bool {
    let says = |name| !volume["annotations"][name].is_null();
    says("pv.kubernetes.io/provisioned-by")
        || says("pv.kubernetes.io/migrated-to")
        || volume["source"]["csi"].is_object()
}

/// A user reserved it, not the binder.
fn is_reserved(volume: &Value) -> bool {
    volume["annotations"]["pv.kubernetes.io/bound-by-controller"].is_null()
}

fn is_bound(state: &State, claim: &str) -> bool {
    let claim = state.get(&format!("claims/{claim}"));
    claim.is_some_and(|claim| claim["annotations"]["pv.kubernetes.io/bind-completed"].is_string())
}

fn is_leaving(state: &State, claim: &str) -> bool {
    let claim = state.get(&format!("claims/{claim}"));
    claim.is_some_and(|claim| claim["deleting"] == true && claim["phase"] == "Pending")
}
