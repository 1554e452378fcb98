//! The rows of the table "How things end" in docs/differences.md, as narrow as states can tell.

use bitts_e2e::raw::text;
use serde_json::Value;

use crate::state::{State, unequal};

/// The row that explains why bitts, as it is by default, ended a step elsewhere; none if there is a
/// difference that no row explains. From then on the life is another one.
pub(crate) fn find(stock: &State, bitts: &State) -> Option<&'static str> {
    let mut found = None;
    for name in unequal(stock, bitts) {
        let (there, here) = (stock.get(name), bitts.get(name));
        let row = match name.split_once('/') {
            Some(("volumes", _)) if is_refused(there, here, bitts) => "given back",
            Some(("volumes", volume)) => of_volume(volume, there, here?, bitts)?,
            // A claim only differs with its volume.
            Some(("claims", _)) => continue,
            _ => return None,
        };
        found = Some(row);
    }
    found
}

/// A claim that is being deleted and never was bound takes no volume: it would be given back at once.
fn is_refused(stock: Option<&Value>, bitts: Option<&Value>, others: &State) -> bool {
    let [Some(stock), Some(bitts)] = [stock, bitts] else {
        return false;
    };
    let claim = others.get(&format!("claims/{}", text(stock, "/claimRef/name")));
    let goes = claim.is_some_and(|claim| claim["deleting"] == true && claim["phase"] == "Pending");
    goes && stock["phase"] == "Bound" && bitts["phase"] == "Available"
}

fn of_volume(
    name: &str,
    stock: Option<&Value>,
    bitts: &Value,
    others: &State,
) -> Option<&'static str> {
    let phase = text(bitts, "/phase");
    let message = text(bitts, "/message");
    let gone = Value::Null;
    let stock = stock.unwrap_or(&gone);
    let there = text(stock, "/phase");
    let reclaimed = matches!(there, "" | "Released" | "Failed");
    let path = text(bitts, "/source/hostPath/path");
    let (policy, uid) = (text(bitts, "/policy"), text(bitts, "/claimRef/uid"));
    if phase == "Pending" && message.starts_with("This volume appeared already bound") && reclaimed
    {
        return Some("held");
    }
    if reclaimed
        && !stock["claimRef"].is_null() | stock.is_null()
        && phase == "Available"
        && uid.is_empty()
    {
        return Some("given back");
    }
    if policy == "Delete" && !path.is_empty() && phase == "Failed" {
        let words = message.starts_with("error getting deleter volume plugin")
            || message.contains("no volume plugin matched");
        let as_there = there.is_empty() || there == "Failed";
        return (words && as_there).then_some("hostPath");
    }
    if policy == "Recycle" && there == "Released" && phase == "Failed" {
        return message
            .starts_with("No recycler plugin")
            .then_some("recycler pods");
    }
    if there == "Failed" && text(stock, "/message") != message {
        let fresh = phase == "Failed" || (phase == "Released" && policy == "Retain");
        return fresh.then_some("Failed");
    }
    // The claim took the volume that was reserved for it, and left the one with fewer modes.
    let took =
        |volume: &Value| volume["annotations"]["pv.kubernetes.io/bound-by-controller"].is_null();
    let reserved = phase == "Bound" && there != "Bound" && took(bitts);
    let left = there == "Bound"
        && phase == "Available"
        && others.iter().any(|(other, volume)| {
            other.starts_with("volumes/")
                && other != &format!("volumes/{name}")
                && volume["phase"] == "Bound"
                && took(volume)
        });
    (reserved || left).then_some("reserved")
}
