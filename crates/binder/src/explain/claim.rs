//! Why a claim is where it is.

use bitts_api::{
    BindingMode, Claim, ClaimRef, Name, NodeName, NodeSelector, ObjectKey, PodPhase, Volume, names,
};
use serde_json::json;

use super::cluster::{Cluster, class};
use super::deleting;
use super::kubectl::Kubectl;
use super::mend::Mend;
use super::obstacle::{Groups, Obstacle, named};
use super::report::{Next, Report, State, User};
use crate::bind::{Step, next_step};
use crate::claim::{Decision, decide};
use crate::matching::{misfits, named_misfits};
use crate::reason::{Loss, Misfit, Waiting};
use crate::writes::claim_key;

pub(super) fn report(claim: &Claim, cluster: &Cluster) -> Report {
    let known = &cluster.known;
    let mut claim = claim.clone();
    let mut decision = decide(&claim, known, &cluster.options);
    let mut given = None;
    if let Decision::TakeClass(class) = decision {
        given = Some(class.clone());
        claim.class = Some(class);
        claim.class_is_set = true;
        decision = decide(&claim, known, &cluster.options);
    }
    let mut report = match decision {
        Decision::Bind { volume, .. } => pair(&claim, &volume, cluster),
        Decision::Wait(wait) => {
            let mut report = waiting(&claim, &wait.why, cluster);
            for (volume, misfit) in wait.beside {
                report.fact(
                    "reserved-unfit",
                    format!("volume {volume} is reserved for this claim, but {misfit}"),
                );
            }
            report
        }
        Decision::Ask { provisioner, .. } => {
            let why = Waiting::Provisioner(provisioner.clone());
            let mut report = waiting(&claim, &why, cluster);
            report.fact(
                "not-asked-yet",
                format!("the binder has not asked {provisioner} yet (an annotation of the claim)"),
            );
            report
        }
        Decision::Lose(loss) => lost(&claim, loss, cluster),
        // It was just given one, so it cannot be given another.
        Decision::TakeClass(_) => Report::new(claim_key(&claim), State::Waiting),
    };
    if let Some(class) = given {
        let text = format!("the claim names no class and gets the default one, {class}");
        report.fact("default-class", text);
    }
    report.pods = cluster.users(&claim.meta.place());
    report.selected_node = claim
        .meta
        .annotations
        .get(names::SELECTED_NODE)
        .map(NodeName::from);
    if claim.meta.is_deleting() {
        return deleting::claim(&claim, report);
    }
    report
}

/// It has a volume, or one was decided on.
fn pair(claim: &Claim, volume: &Volume, cluster: &Cluster) -> Report {
    let name = &volume.meta.name;
    let missing = match next_step(volume, claim) {
        Step::Bound => None,
        Step::Reserve(_) if volume.claim_ref.is_some() => Some("the claim's uid in its claimRef"),
        Step::Reserve(_) => Some("its claimRef"),
        Step::Next(write) => Some(match write.step {
            "mark-volume-bound" => "the volume's phase",
            "bind-claim" => "the claim's volumeName and annotations",
            _ => "the claim's status",
        }),
        Step::NoCapacity => return without_capacity(claim, name),
    };
    let mut report = match missing {
        None => Report::new(claim_key(claim), State::Bound),
        Some(missing) => Report::new(claim_key(claim), State::Binding)
            .waits(
                "binder",
                format!("the binder, to write {missing}: volume {name} is the one"),
            )
            .next(no_binder("binding")),
    };
    let by_scheduler = volume.meta.annotations.has(names::BOUND_BY_CONTROLLER);
    if missing.is_some() && volume.is_for(claim) && claim.volume_name.is_none() {
        let (code, who) = match &volume.claim_ref {
            Some(ClaimRef { uid: Some(_), .. }) if by_scheduler => {
                ("reserved-by-controller", "the scheduler or the binder")
            }
            _ => ("reserved-by-user", "somebody, by hand"),
        };
        report.fact(code, format!("{who} reserved volume {name} for this claim"));
    }
    if cluster.is_out_of_reach(volume)
        && let Some(affinity) = &volume.node_affinity
    {
        let text = format!(
            "no node satisfies {affinity}, the node affinity of volume {name}: pods that use this \
             claim are not scheduled until one does"
        );
        report.fact("no-node", text);
    }
    report.partner = Some(ObjectKey::volume(name.clone()));
    report
}

/// What to look at when nothing but the binder's work is missing.
pub(super) fn no_binder(what: &str) -> Next {
    let text = format!(
        "nothing is wrong with the objects; if {what} takes more than seconds, no binder works: see \
         who holds the leases (kube-controller-manager's, or bitts-binder's)"
    );
    Next::new("check-binder", text)
        .by(Kubectl::new(["get", "leases"]).with("--namespace", "kube-system"))
}

fn without_capacity(claim: &Claim, volume: &Name) -> Report {
    let why = Waiting::NoCapacity(volume.clone());
    let text = why.notice().map_or_else(String::new, |n| n.message);
    let report = Report::new(claim_key(claim), State::Waiting).waits(why.code(), text);
    let Some(request) = claim.request else {
        return report;
    };
    let patch = json!({"spec": {"capacity": {"storage": request}}});
    let key = ObjectKey::volume(volume.clone());
    report.next(
        Next::new(
            "edit-volume",
            "this says what it holds; right only if its storage holds that much",
        )
        .by(Kubectl::merge(&key, &patch)),
    )
}

fn waiting(claim: &Claim, why: &Waiting, cluster: &Cluster) -> Report {
    let mut report =
        Report::new(claim_key(claim), State::Waiting).waits(why.code(), words(why, claim));
    report.classes = classes(claim, cluster);
    let place = claim.meta.place();
    let past_scheduler = match why {
        Waiting::Consumer => cluster.users(&place).into_iter().find(is_placed),
        _ => None,
    };
    let node = past_scheduler.as_ref().and_then(|pod| pod.node.as_ref());
    let mut verdicts = match why {
        Waiting::NamedMissing(name) | Waiting::NamedTaken(name) | Waiting::NamedMisfit(name, _) => {
            Verdicts::of_named(name, claim, cluster)
        }
        _ => Verdicts::of_all(claim, cluster, node),
    };
    report.candidates = std::mem::take(&mut verdicts.groups).finish();
    let next = match &past_scheduler {
        Some(pod) => past_the_scheduler(claim, why, pod, verdicts, cluster),
        None => advice(claim, why, verdicts, cluster),
    };
    report.next(next)
}

/// It runs or will, and no scheduler has to find a node for it.
fn is_placed(pod: &User) -> bool {
    let ended = matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed);
    pod.node.is_some() && !ended
}

/// What is said of the volumes.
#[derive(Default)]
struct Verdicts {
    groups: Groups,
    /// The best that only waits for a pod.
    fit: Option<Mend>,
    /// The one that is closest to fitting.
    best: Option<Mend>,
    /// One that would do if a node satisfied its node affinity.
    no_node: Option<(Name, NodeSelector)>,
}

impl Verdicts {
    /// Judges all volumes as the binder does, and for a claim that waits for its first consumer as
    /// the scheduler will. With a node only what can be used there can be of help.
    fn of_all(claim: &Claim, cluster: &Cluster, node: Option<&NodeName>) -> Self {
        let mut verdicts = Self::default();
        for volume in cluster.known.all_volumes() {
            let all = misfits(volume, claim, false).collect();
            let usable = node.is_none_or(|node| cluster.can_use(node, volume));
            verdicts.add(volume, claim, all, usable, cluster);
        }
        verdicts
    }

    fn of_named(name: &Name, claim: &Claim, cluster: &Cluster) -> Self {
        let mut verdicts = Self::default();
        if let Some(volume) = cluster.known.volume(name) {
            let mut all = Vec::new();
            if volume.claim_ref.is_some() && !volume.is_for(claim) {
                all.push(Misfit::Taken);
            }
            all.extend(named_misfits(volume, claim));
            verdicts.add(volume, claim, all, true, cluster);
        }
        verdicts
    }

    fn add(
        &mut self,
        volume: &Volume,
        claim: &Claim,
        misfits: Vec<Misfit>,
        usable: bool,
        cluster: &Cluster,
    ) {
        let out_of_reach = cluster.is_out_of_reach(volume);
        let mut all: Vec<_> = misfits.iter().map(|m| Obstacle::of(*m, volume)).collect();
        // A volume that was somebody's is not on offer either: that goes without saying.
        if all.first() < Some(&Obstacle::Deleting) {
            all.retain(|o| *o != Obstacle::NotAvailable);
        }
        if out_of_reach {
            all.push(Obstacle::NoNode);
        }
        let first = all.first().copied().unwrap_or(Obstacle::Consumer);
        let detail = first.detail(volume, claim);
        self.groups
            .add(first, all.len() < 2, detail, volume.meta.name.to_string());
        if first == Obstacle::NoNode
            && let Some(affinity) = &volume.node_affinity
        {
            self.no_node
                .get_or_insert_with(|| (volume.meta.name.clone(), affinity.clone()));
        }
        if out_of_reach || !usable {
            return;
        }
        if let Some(mend) = Mend::of(volume, claim, &misfits, &cluster.options) {
            let side = if mend.is_nothing() {
                &mut self.fit
            } else {
                &mut self.best
            };
            *side = Some(mend.better(side.take()));
        }
    }
}

/// S15: no scheduler looked at the pod, so nobody chooses for the claim either.
fn past_the_scheduler(
    claim: &Claim,
    why: &Waiting,
    pod: &User,
    verdicts: Verdicts,
    cluster: &Cluster,
) -> Next {
    let node = pod.node.as_ref().map_or("", |node| node.as_str());
    let how = format!("pod {} was put on node {node} past the scheduler", pod.name);
    if let Some(fit) = verdicts.fit {
        let mut next = fit.reserve(claim).next();
        next.code = "reserve-volume";
        next.text =
            format!("{how}, which would have chosen a volume: this reserves one in its place");
        next
    } else if makes_volumes(claim, cluster) {
        let annotation = format!("{}={node}", names::SELECTED_NODE);
        Next::new(
            "select-node",
            format!("{how}, which would have told the provisioner: this does it in its place"),
        )
        .by(Kubectl::on("annotate", &claim_key(claim)).and(annotation))
    } else {
        supply(claim, why, verdicts, cluster)
    }
}

fn makes_volumes(claim: &Claim, cluster: &Cluster) -> bool {
    let own = claim
        .class
        .as_ref()
        .and_then(|name| cluster.known.class(name));
    own.is_some_and(|own| class(own).provisions)
}

fn advice(claim: &Claim, why: &Waiting, verdicts: Verdicts, cluster: &Cluster) -> Next {
    let makes = makes_volumes(claim, cluster);
    match (why, verdicts.fit) {
        (Waiting::Consumer, Some(fit)) => {
            let mut next = fit.reserve(claim).next();
            next.code = "create-pod";
            next.text = "nothing is wrong: create a pod that uses the claim. Without a pod, this reserves \
                         a fitting volume now, whatever node the pod will need"
                .into();
            next
        }
        (Waiting::Consumer, None) if makes => Next::new(
            "create-pod",
            "nothing is wrong: create a pod that uses the claim",
        ),
        (Waiting::Pods(pods), fit) if fit.is_some() || makes => {
            let pod = pods.first().map_or("", |p| p.as_str());
            let namespace = claim.meta.namespace.as_ref();
            let namespace = namespace.map_or("default", |n| n.as_str());
            Next::new(
                "schedule-pod",
                "the scheduler finds a node for the pod and with it a volume; what hinders it stands in \
                 the pod's events",
            )
            .by(Kubectl::new(["describe".to_owned(), format!("pod/{pod}")])
                .with("--namespace", namespace))
        }
        (Waiting::Provisioner(name), _) => Next::new(
            "check-provisioner",
            format!(
                "{name} has to make the volume; what hinders it stands in the claim's events. If there \
                 is none from it, it does not run"
            ),
        )
        .by(Kubectl::on("describe", &claim_key(claim))),
        // It fits and is free, and is about to be offered.
        (_, Some(_)) => no_binder("offering a volume"),
        (_, None) => supply(claim, why, Verdicts { fit: None, ..verdicts }, cluster),
    }
}

/// No volume fits and none is being made.
fn supply(claim: &Claim, why: &Waiting, verdicts: Verdicts, cluster: &Cluster) -> Next {
    if let Some((volume, affinity)) = verdicts.no_node {
        return Next::new(
            "add-node",
            format!("volume {volume} would do: a node is missing that satisfies {affinity}"),
        )
        .by(Kubectl::new(["get", "nodes", "--show-labels"]));
    }
    if let Some(best) = verdicts.best {
        return best.next();
    }
    if !claim.class_is_set
        && let Some(class) = cluster.classes.iter().find(|c| class(c).provisions)
    {
        let command = Kubectl::new(["annotate", "storageclass"])
            .and(class.meta.name.as_str())
            .and(format!("{}=true", names::DEFAULT_CLASS));
        return Next::new(
            "default-class",
            format!(
                "the claim names no class: this makes {} the default one, which it then gets",
                class.meta.name
            ),
        )
        .by(command);
    }
    let wanted = wanted(claim);
    match why {
        Waiting::NamedMissing(name) => Next::new(
            "create-volume",
            format!("create a volume of the name {name}: {wanted}"),
        ),
        Waiting::NamedTaken(name) | Waiting::NamedMisfit(name, _) => Next::new(
            "recreate-claim",
            format!(
                "no edit of volume {name} makes it this claim's: create the claim again, naming another \
                 volume or none"
            ),
        ),
        Waiting::ClassMissing(class) => Next::new(
            "create-class",
            format!(
                "create the class {class}, or the claim again with a class that exists, or a volume: \
                 {wanted}"
            ),
        ),
        _ => Next::new("create-volume", format!("create a volume: {wanted}")),
    }
}

/// A volume that the claim would take.
fn wanted(claim: &Claim) -> String {
    let size = claim
        .request
        .map_or_else(|| "any size".into(), |size| format!("at least {size}"));
    let mut text = format!(
        "{}, {size}, access {}, {}",
        named(claim.class.as_ref(), "storageClassName"),
        claim.access_modes,
        claim.volume_mode.as_str()
    );
    if let Some(selector) = claim.selector.as_ref().filter(|s| !s.is_empty()) {
        text += &format!(", labels {selector}");
    }
    if let Some(class) = &claim.attributes_class {
        text += &format!(", volumeAttributesClassName {class}");
    }
    text
}

fn words(why: &Waiting, claim: &Claim) -> String {
    match why {
        Waiting::Consumer => {
            let class = named(claim.class.as_ref(), "class");
            format!(
                "a pod that uses it and is to be scheduled: {class} waits for the first consumer"
            )
        }
        Waiting::Pods(pods) => {
            let names: Vec<_> = pods.iter().take(3).map(Name::as_str).collect();
            let more = pods.len().saturating_sub(3);
            let more = (more > 0).then(|| format!(" and {more} more"));
            format!(
                "the scheduler, to find a node for {}{}",
                names.join(", "),
                more.unwrap_or_default()
            )
        }
        Waiting::NoVolume => {
            "a volume: no volume fits, and the claim has no class that makes one".into()
        }
        Waiting::ClassMissing(class) => {
            format!("a volume: no volume fits, and class {class} does not exist")
        }
        Waiting::NoProvisioner(name) | Waiting::ProvisionerOff(name) => {
            format!("a volume: no volume fits, and {name} makes none")
        }
        Waiting::Provisioner(name) => format!("{name}, to make a volume: none of those there fits"),
        Waiting::ProvisioningOff => {
            "a volume: no volume fits, and making volumes is switched off".into()
        }
        Waiting::NamedMissing(name) => {
            format!("volume {name}, which it names and which does not exist")
        }
        Waiting::NamedTaken(name) => {
            format!("volume {name}, which it names and which belongs to another claim")
        }
        Waiting::NamedMisfit(name, misfit) => {
            format!("volume {name}, which it names and which does not fit: {misfit}")
        }
        Waiting::NoCapacity(name) => format!("a capacity of volume {name}, which says none"),
    }
}

/// The claim's class; all of them where it does not exist.
fn classes(claim: &Claim, cluster: &Cluster) -> Vec<super::report::Class> {
    match claim
        .class
        .as_ref()
        .and_then(|name| cluster.known.class(name))
    {
        Some(own) => vec![class(own)],
        None => cluster.classes.iter().map(|c| class(c)).collect(),
    }
}

fn lost(claim: &Claim, loss: Loss, cluster: &Cluster) -> Report {
    let report = Report::new(claim_key(claim), State::Lost);
    let volume = claim.volume_name.as_ref().map_or("", |n| n.as_str());
    match loss {
        Loss::Unnamed => {
            let place = claim.meta.place();
            let own = cluster.known.reserved_for(&place).find(|v| {
                let uid = v.claim_ref.as_ref().and_then(|r| r.uid.as_ref());
                uid == Some(&claim.meta.uid)
            });
            let report = report.waits("volume-name", "its spec.volumeName: it was bound, and somebody removed it");
            let Some(own) = own else {
                let text = "no volume says that it is this claim's: create the claim again";
                return report.next(Next::new("recreate-claim", text));
            };
            let name = &own.meta.name;
            let patch = json!({"spec": {"volumeName": name}});
            let text = format!("volume {name} is still this claim's: this names it again");
            report.next(
                Next::new("name-volume", text).by(Kubectl::merge(&claim_key(claim), &patch)),
            )
        }
        Loss::Gone => report
            .waits("volume", format!("volume {volume}, which it was bound to and which does not exist any more"))
            .next(Next::new(
                "restore-volume",
                format!(
                    "if the storage behind it still exists, create volume {volume} again as it was: the \
                     claim is bound to it as before. Otherwise delete the claim"
                ),
            )),
        Loss::Misbound => {
            let key = ObjectKey::volume(volume);
            let owner = cluster.known.volume(&key.name);
            let owner = owner.and_then(|v| v.claim_ref.as_ref());
            let owner = owner.map_or_else(|| "another claim".into(), |r| {
                let same = (Some(&r.namespace), &r.name) == (claim.meta.namespace.as_ref(), &claim.meta.name);
                if same { "an earlier claim of this name".into() } else { format!("claim {r}") }
            });
            report
                .waits("volume-taken", format!("volume {volume}, which it was bound to and which belongs to {owner}"))
                .next(Next::new(
                    "recreate-claim",
                    "create the claim again without volumeName: then it gets another volume",
                ))
        }
    }
}

/// Whether the claim waits until its first consumer is scheduled.
pub(super) fn is_delayed(claim: &Claim, cluster: &Cluster) -> bool {
    let class = claim
        .class
        .as_ref()
        .and_then(|name| cluster.known.class(name));
    class.is_some_and(|c| c.binding_mode == BindingMode::WaitForFirstConsumer)
}
