//! From facts to findings. No I/O.

use bitts_api::StockController;
use serde::Serialize;

use super::facts::{Asked, Controllers, Facts, StockFacts, StockLease};

/// The oldest Kubernetes that bitts knows.
const OLDEST: (u32, u32) = (1, 33);

/// The check for controllers beside which bitts may run if it is told to.
pub(super) const STOCK: &str = "stock-controllers";
/// The check for the one beside which it may not: both would undo what the other has nodes list.
pub(super) const ATTACH: &str = "stock-attach-detach";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Ok,
    /// It cannot be known from here.
    Unknown,
    /// It works, worse than it could.
    Warning,
    /// It must be mended first.
    Refused,
}

/// What one check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Which check; stable.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    /// For people.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            message: message.into(),
            remedy: None,
        }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Judges a cluster for roles that do the work of these stock controllers.
pub(crate) fn judge(facts: &Facts, replaced: &[StockController]) -> Vec<Finding> {
    let mut findings = vec![version(&facts.version), kinds(&facts.unserved)];
    findings.extend(permissions(&facts.forbidden));
    findings.push(default_class(&facts.default_classes));
    findings.extend(facts.flow_schema.as_ref().map(flow_schema));
    let (attach, others): (Vec<_>, Vec<_>) = replaced
        .iter()
        .partition(|stock| **stock == StockController::AttachDetach);
    for (check, those) in [(STOCK, others), (ATTACH, attach)] {
        if !those.is_empty() {
            findings.push(stock(check, &facts.stock, &those, replaced));
        }
    }
    if !replaced.is_empty() {
        findings.extend(gap(&facts.stock, replaced));
    }
    findings
}

/// The controllers that are off although nobody does their work.
pub(crate) fn gaps(
    controllers: &Controllers,
    replaced: &[StockController],
) -> Vec<StockController> {
    let off = |stock: &StockController| !replaced.contains(stock) && !controllers.run(*stock);
    StockController::ALL.into_iter().filter(off).collect()
}

pub(crate) fn names(stock: &[StockController]) -> String {
    let names: Vec<_> = stock.iter().map(|stock| stock.name()).collect();
    names.join(", ")
}

fn version(asked: &Asked<(u32, u32)>) -> Finding {
    match asked {
        Ok((major, minor)) if (*major, *minor) >= OLDEST => Finding::new(
            "version",
            Verdict::Ok,
            format!("Kubernetes {major}.{minor}"),
        ),
        Ok((major, minor)) => Finding::new(
            "version",
            Verdict::Refused,
            format!(
                "Kubernetes {major}.{minor} is older than {}.{}",
                OLDEST.0, OLDEST.1
            ),
        )
        .remedy("upgrade the control plane"),
        Err(why) => Finding::new("version", Verdict::Unknown, why.clone()),
    }
}

fn kinds(asked: &Asked<Vec<&'static str>>) -> Finding {
    match asked {
        Ok(missing) if missing.is_empty() => {
            Finding::new("kinds", Verdict::Ok, "every kind that is needed is served")
        }
        // Only this one is younger than the oldest version.
        Ok(missing) if missing == &["volumeattributesclasses"] => Finding::new(
            "kinds",
            Verdict::Warning,
            "volumeattributesclasses are not served: what concerns them is off",
        ),
        Ok(missing) => {
            let message = format!("not served: {}", missing.join(", "));
            Finding::new("kinds", Verdict::Refused, message)
        }
        Err(why) => Finding::new("kinds", Verdict::Unknown, why.clone()),
    }
}

fn permissions(asked: &Asked<Vec<(String, &'static str)>>) -> Vec<Finding> {
    match asked {
        Ok(forbidden) if forbidden.is_empty() => {
            vec![Finding::new(
                "permissions",
                Verdict::Ok,
                "everything needed is allowed",
            )]
        }
        Ok(forbidden) => {
            let finding = |(what, why): &(String, &str)| {
                let message = format!("may not {what}, needed so that: {why}");
                Finding::new("permissions", Verdict::Refused, message)
                    .remedy("grant it to this user: `bitts rbac ROLE` prints all that a role needs, deploy/ grants it")
            };
            forbidden.iter().map(finding).collect()
        }
        Err(why) => vec![Finding::new("permissions", Verdict::Unknown, why.clone())],
    }
}

fn default_class(asked: &Asked<Vec<String>>) -> Finding {
    match asked {
        Ok(classes) => match classes.as_slice() {
            [] => Finding::new(
                "default-class",
                Verdict::Ok,
                "no default StorageClass: claims that name none wait for a volume without class",
            ),
            [one] => Finding::new(
                "default-class",
                Verdict::Ok,
                format!("the default is {one}"),
            ),
            many => Finding::new(
                "default-class",
                Verdict::Warning,
                format!("{} are all default: the newest is used", many.join(", ")),
            )
            .remedy("take storageclass.kubernetes.io/is-default-class off all but one"),
        },
        Err(why) => Finding::new("default-class", Verdict::Unknown, why.clone()),
    }
}

fn flow_schema(asked: &Asked<bool>) -> Finding {
    match asked {
        Ok(true) => Finding::new(
            "flow-schema",
            Verdict::Ok,
            "there is a FlowSchema for bitts",
        ),
        Ok(false) => Finding::new(
            "flow-schema",
            Verdict::Warning,
            "no FlowSchema bitts-controllers: a busy API server may keep bitts waiting",
        )
        .remedy("apply the one in deploy/"),
        Err(why) => Finding::new("flow-schema", Verdict::Unknown, why.clone()),
    }
}

/// Whether kube-controller-manager does the same work as this part of what is replaced (section 12).
fn stock(
    check: &'static str,
    facts: &StockFacts,
    part: &[StockController],
    replaced: &[StockController],
) -> Finding {
    let finding = |verdict, message: String| Finding::new(check, verdict, message);
    let flag = current(facts).unwrap_or_default().without(replaced).flag();
    let on = |running: &[StockController], how: &str| {
        let remedy = format!("start kube-controller-manager with {flag}");
        let anyway = match check {
            ATTACH => "",
            _ => {
                "; or give `bitts run` --allow-stock-controllers to let both run (safe, but everything \
                 is written twice)"
            }
        };
        finding(
            Verdict::Refused,
            format!("kube-controller-manager runs {}: {how}", names(running)),
        )
        .remedy(format!("{remedy}{anyway}"))
    };
    if let Ok(pods) = &facts.pods
        && !pods.is_empty()
    {
        for pod in pods {
            let running: Vec<_> = part
                .iter()
                .copied()
                .filter(|stock| pod.controllers.run(*stock))
                .collect();
            if !running.is_empty() {
                let how = format!(
                    "the pod kube-system/{} says {}",
                    pod.name,
                    pod.controllers.flag()
                );
                return on(&running, &how);
            }
        }
        let off = match check {
            ATTACH => "its pods in kube-system have the attach-detach controller switched off",
            _ => "its pods in kube-system have all that is replaced switched off",
        };
        return finding(Verdict::Ok, off.to_owned());
    }
    if facts.lease == Ok(StockLease::Renewed) {
        let mut proofs = part
            .iter()
            .filter_map(|stock| facts.wrote.get_key_value(stock));
        if let Some((stock, did)) = proofs.next() {
            return on(&[*stock], &format!("since it got its lease, {did}"));
        }
    }
    let canary = facts
        .canary
        .as_ref()
        .filter(|_| part.contains(&StockController::Binder));
    match canary {
        Some(Ok(true)) => {
            let how = "it answered to a claim that was made to find out";
            return on(&[StockController::Binder], how);
        }
        Some(Ok(false)) => {
            let message = "nobody answered to a claim that was made to find out: the stock binder \
                is off; whether the other controllers are cannot be known";
            return finding(Verdict::Unknown, message.to_owned())
                .remedy(format!("make sure that kube-controller-manager has {flag}"));
        }
        Some(Err(_)) | None => {}
    }
    let mut message = match &facts.lease {
        Ok(StockLease::Renewed) => {
            "kube-controller-manager runs, and which controllers it has cannot be known from here"
                .to_owned()
        }
        Ok(_) => {
            "no kube-controller-manager shows, which does not prove that there is none".to_owned()
        }
        Err(why) => format!("whether kube-controller-manager runs cannot be known: {why}"),
    };
    if let Some(Err(why)) = canary {
        message.push_str(&format!("; a claim to find out could not be made: {why}"));
    }
    finding(Verdict::Unknown, message)
        .remedy(format!("make sure that kube-controller-manager has {flag}"))
}

fn gap(facts: &StockFacts, replaced: &[StockController]) -> Option<Finding> {
    let gaps = gaps(&current(facts)?, replaced);
    if gaps.is_empty() {
        return None;
    }
    let message = format!("{} is off and no chosen role does its work", names(&gaps));
    Some(
        Finding::new("gaps", Verdict::Warning, message)
            .remedy("switch it on again, unless something else does its work"),
    )
}

/// What kube-controller-manager was started with, where that shows.
pub(crate) fn current(facts: &StockFacts) -> Option<Controllers> {
    let pod = facts.pods.as_ref().ok()?.first()?;
    Some(pod.controllers.clone())
}

#[cfg(test)]
#[cfg(feature = "binder")]
mod tests {
    use std::collections::BTreeMap;

    use super::super::facts::StockPod;
    use super::*;

    fn quiet() -> Facts {
        Facts {
            version: Ok((1, 37)),
            unserved: Ok(Vec::new()),
            forbidden: Ok(Vec::new()),
            default_classes: Ok(vec!["fast".to_owned()]),
            flow_schema: Some(Ok(true)),
            stock: StockFacts {
                pods: Ok(Vec::new()),
                lease: Ok(StockLease::Absent),
                wrote: BTreeMap::new(),
                canary: None,
            },
        }
    }

    fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        findings
            .iter()
            .find(|finding| finding.check == check)
            .expect("each test asks for a check that is made")
    }

    fn stock_finding(change: impl FnOnce(&mut StockFacts)) -> Finding {
        let mut facts = quiet();
        change(&mut facts.stock);
        of(
            &judge(&facts, bitts_binder::stands_in_for()),
            "stock-controllers",
        )
        .clone()
    }

    fn pod(name: &str, controllers: &str) -> StockPod {
        StockPod {
            name: name.to_owned(),
            controllers: Controllers::parse(controllers),
        }
    }

    /// N1, N2: the message says exactly what to set.
    #[test]
    fn a_stock_pod_with_its_controllers_on_is_refused_with_the_flag_to_set() {
        let found = stock_finding(|stock| stock.pods = Ok(vec![pod("kcm-a", "*,bootstrapsigner")]));
        assert_eq!(found.verdict, Verdict::Refused);
        let flag = "--controllers=*,bootstrapsigner,-persistentvolume-binder-controller,\
            -persistentvolumeclaim-protection-controller,-persistentvolume-protection-controller,\
            -ephemeral-volume-controller,-volumeattributesclass-protection-controller";
        assert!(found.remedy.unwrap().contains(flag));
    }

    #[test]
    fn one_replica_of_three_that_was_forgotten_is_found() {
        let off = Controllers::default().without(bitts_binder::stands_in_for());
        let off = off.0.join(",");
        let all_off = stock_finding(|s| s.pods = Ok(vec![pod("a", &off), pod("b", &off)]));
        assert_eq!(all_off.verdict, Verdict::Ok);
        let found =
            stock_finding(|s| s.pods = Ok(vec![pod("a", &off), pod("b", &off), pod("c", "*")]));
        assert_eq!(found.verdict, Verdict::Refused);
        assert!(found.message.contains("kube-system/c"), "{}", found.message);
    }

    /// Amendment 43: where it cannot know, it says so and does not refuse.
    #[test]
    fn a_lease_alone_proves_nothing() {
        let found = stock_finding(|stock| stock.lease = Ok(StockLease::Renewed));
        assert_eq!(found.verdict, Verdict::Unknown);
        assert!(
            found
                .remedy
                .unwrap()
                .contains("-ephemeral-volume-controller")
        );
        let found = stock_finding(|stock| stock.lease = Err("forbidden".to_owned()));
        assert_eq!(found.verdict, Verdict::Unknown);
    }

    #[test]
    fn a_phase_written_under_the_present_lease_is_proof_and_an_older_lease_is_not() {
        let wrote = |lease| {
            move |stock: &mut StockFacts| {
                stock.lease = Ok(lease);
                let did = "it wrote the phase of claim a/b".to_owned();
                stock.wrote.insert(StockController::Binder, did);
            }
        };
        assert_eq!(
            stock_finding(wrote(StockLease::Renewed)).verdict,
            Verdict::Refused
        );
        assert_eq!(
            stock_finding(wrote(StockLease::Idle)).verdict,
            Verdict::Unknown
        );
    }

    /// A35: two that write what nodes list would undo each other's work, so no flag lets both run.
    #[test]
    fn the_stock_attach_controller_is_found_by_its_pod_or_by_what_it_made() {
        let found = |change: &dyn Fn(&mut StockFacts)| {
            let mut facts = quiet();
            change(&mut facts.stock);
            let findings = judge(&facts, &[StockController::AttachDetach]);
            assert!(findings.iter().all(|finding| finding.check != STOCK));
            of(&findings, ATTACH).clone()
        };
        let by_pod = found(&|stock| stock.pods = Ok(vec![pod("kcm", "*")]));
        assert_eq!(by_pod.verdict, Verdict::Refused);
        let remedy = by_pod.remedy.unwrap();
        assert!(remedy.ends_with("--controllers=*,-persistentvolume-attach-detach-controller"));
        let made = |stock: &mut StockFacts| {
            stock.lease = Ok(StockLease::Renewed);
            let did = "it made VolumeAttachment csi-1".to_owned();
            stock.wrote.insert(StockController::AttachDetach, did);
        };
        assert_eq!(found(&made).verdict, Verdict::Refused);
        // What the stock binder does proves nothing of this one.
        let binder = |stock: &mut StockFacts| {
            stock.lease = Ok(StockLease::Renewed);
            stock
                .wrote
                .insert(StockController::Binder, "it wrote".to_owned());
            stock.canary = Some(Ok(true));
        };
        assert_eq!(found(&binder).verdict, Verdict::Unknown);
        let off = found(&|stock| stock.pods = Ok(vec![pod("kcm", "*,-attachdetach")]));
        assert_eq!(off.verdict, Verdict::Ok);
    }

    #[test]
    fn a_canary_that_was_answered_is_proof() {
        let answered = stock_finding(|stock| stock.canary = Some(Ok(true)));
        assert_eq!(answered.verdict, Verdict::Refused);
        let silent = stock_finding(|stock| stock.canary = Some(Ok(false)));
        assert_eq!(silent.verdict, Verdict::Unknown);
    }

    #[test]
    fn a_controller_that_nobody_replaces_must_not_be_off() {
        let controllers = Controllers::parse("*,-attachdetach");
        let gaps = gaps(&controllers, bitts_binder::stands_in_for());
        assert_eq!(gaps, [StockController::AttachDetach]);
        let mut facts = quiet();
        facts.stock.pods = Ok(vec![pod("a", "*,-attachdetach")]);
        let findings = judge(&facts, bitts_binder::stands_in_for());
        assert_eq!(of(&findings, "gaps").verdict, Verdict::Warning);
    }

    #[test]
    fn the_rest_is_judged_one_by_one() {
        let ok = judge(&quiet(), &[]);
        assert!(
            ok.iter().all(|finding| finding.verdict == Verdict::Ok),
            "{ok:?}"
        );
        let mut facts = quiet();
        facts.version = Ok((1, 32));
        facts.unserved = Ok(vec!["volumeattributesclasses"]);
        facts.forbidden = Ok(vec![("patch persistentvolumes".to_owned(), "to bind")]);
        facts.default_classes = Ok(vec!["a".to_owned(), "b".to_owned()]);
        facts.flow_schema = Some(Ok(false));
        let found: Vec<_> = judge(&facts, &[]).iter().map(|f| f.verdict).collect();
        use Verdict::{Refused, Warning};
        assert_eq!(found, [Refused, Warning, Refused, Warning, Warning]);
    }
}
