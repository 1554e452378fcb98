//! Who holds what is being deleted.

use bitts_api::{Claim, Meta, ObjectKey, ReclaimPolicy, Volume, names};

use super::kubectl::Kubectl;
use super::report::{Next, Report, State};

/// More pods than this are not deleted by one command.
const PODS: usize = 20;

/// A claim stays while pods use it.
pub(super) fn claim(claim: &Claim, mut report: Report) -> Report {
    report.state = State::Deleting;
    report.candidates.clear();
    report.classes.clear();
    let users: Vec<_> = report.pods.iter().filter(|p| p.holds).collect();
    let (protected, others) = holders(&claim.meta, names::CLAIM_PROTECTION);
    if protected && !users.is_empty() {
        let names: Vec<_> = users.iter().map(|p| p.name.as_str()).collect();
        let mut command = Kubectl::new(
            ["delete".to_owned()]
                .into_iter()
                .chain(names.iter().take(PODS).map(|name| format!("pod/{name}"))),
        );
        if let Some(namespace) = &claim.meta.namespace {
            command = command.with("--namespace", namespace.as_str());
        }
        let next = Next::new("delete-pods", "the claim goes once its pods are gone")
            .by(command)
            .beware("what runs in these pods ends; what owns them may start others in their place");
        let text = format!(
            "{} that use{} it: {}",
            count(users.len(), "pod"),
            if users.len() == 1 { "s" } else { "" },
            few(&names)
        );
        return report.waits("pods", text).next(next);
    }
    held(report, protected, &others, "pvc-protection")
}

/// A volume stays while a claim has it.
pub(super) fn volume(volume: &Volume, has_claim: bool, mut report: Report) -> Report {
    report.state = State::Deleting;
    report.candidates.clear();
    report.serves.clear();
    let (protected, others) = holders(&volume.meta, names::VOLUME_PROTECTION);
    if protected
        && has_claim
        && let Some(owner) = &volume.claim_ref
    {
        let key = ObjectKey::claim(owner.namespace.clone(), owner.name.clone());
        let data = match volume.reclaim_policy {
            ReclaimPolicy::Retain => "only the objects go: its policy is Retain, the data stays",
            _ => "the data of the volume is deleted with the claim if something can delete it",
        };
        let next = Next::new("delete-claim", "the volume goes once its claim is gone")
            .by(Kubectl::on("delete", &key))
            .beware(data);
        return report
            .waits("claim", format!("claim {owner}, which it is bound to"))
            .next(next);
    }
    held(report, protected, &others, "pv-protection")
}

fn held(report: Report, protected: bool, others: &[&str], controller: &str) -> Report {
    if protected {
        let text = format!(
            "the protection controller ({controller}), to let it go: nothing uses it any more"
        );
        return report
            .waits("protection", text)
            .next(super::claim::no_binder("this"));
    }
    if others.is_empty() {
        return report.waits(
            "api-server",
            "the API server, to remove it: nothing holds it any more",
        );
    }
    let object = &report.object;
    let command = Kubectl::on("get", object).with("--output", "jsonpath={.metadata.finalizers}");
    let text = format!("whoever set the finalizer {}, to remove it", few(others));
    report.waits("finalizers", text).next(
        Next::new(
            "check-finalizers",
            "see whether what set the finalizer still runs; it cleans up first, so remove it by hand \
             only if nothing is left to clean up",
        )
        .by(command),
    )
}

/// Whether our finalizer is there, and the others.
fn holders<'a>(meta: &'a Meta, own: &str) -> (bool, Vec<&'a str>) {
    let (mine, others): (Vec<&str>, Vec<&str>) = meta
        .finalizers
        .iter()
        .map(|f| &**f)
        .partition(|f| *f == own);
    (!mine.is_empty(), others)
}

fn few(names: &[&str]) -> String {
    let shown = names[..names.len().min(3)].join(", ");
    match names.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
