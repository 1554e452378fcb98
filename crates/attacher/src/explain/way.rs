//! From what the machine decided of a volume on a node to what is told of it.

use std::sync::Arc;

use bitts_api::{AttachError, Attachment, ClaimPhase, Name, NodeName, ObjectKey, Pod, Source};

use super::direct;
use super::report::{Holder, Next, Said, State, VolumeOnNode, Wait};
use crate::attacher::Attacher;
use crate::csi_volume::of_driver;
use crate::pair::{Pair, UniqueName};
use crate::reason;
use crate::verdict::{self, Act, Health, Use, View};

/// The gRPC code of a node that takes no more volumes (A27).
const EXHAUSTED: i32 = 8;

impl Attacher {
    pub(super) fn named(&self, attachment: &Name) -> Option<&Pair> {
        self.names().get(attachment)
    }

    /// A claim of a pod that has a node.
    pub(super) fn volume_of(&self, pod: &Pod, claim: &Name) -> Option<VolumeOnNode> {
        let node = pod.node.clone()?;
        let known = self.known();
        let place = (pod.meta.namespace.clone(), claim.clone());
        let found = known.claims.get(&place);
        let bound = found.filter(|c| c.phase == ClaimPhase::Bound);
        let volume = bound.and_then(|c| c.volume_name.clone());
        let mut told = plain(node.clone());
        told.claim = Some(claim.clone());
        let Some(name) = volume else {
            return Some(unbound(told, pod, claim));
        };
        told.volume = Some(name.clone());
        let Some(volume) = known.volumes.get(&(None, name.clone())) else {
            told.text = format!("its PersistentVolume {name} is gone");
            return Some(unbound(told, pod, claim));
        };
        if let (Source::GcePersistentDisk { disk, .. }, Some(object)) =
            (&volume.source, known.node(&node))
            && object.is_mounted_by_agent()
        {
            direct::fill(&mut told, known, pod, object, disk);
            return Some(told);
        }
        let driver = of_driver(volume);
        let attaches = driver.as_ref().is_some_and(|of| {
            let driver = known.drivers.get(&(None, (&*of.volume.driver).into()));
            driver.is_none_or(|driver| driver.wants.attach)
        });
        let unique = UniqueName::of(volume).filter(|_| attaches);
        let (Some(unique), Some(of)) = (unique, driver) else {
            told.is_attached = true;
            told.text = "it is mounted where it is, and never attached".to_owned();
            return Some(told);
        };
        told.disk = Some((of.volume.driver.clone(), of.volume.handle.clone()));
        let pair = Pair {
            volume: unique,
            node,
        };
        self.fill(&mut told, &pair);
        Some(told)
    }

    /// An attachment that exists.
    pub(super) fn attachment_of(&self, name: &Name) -> Option<(State, VolumeOnNode)> {
        let attachment = self.known().attachment(name)?.clone();
        let mut told = plain(attachment.node.clone());
        told.volume = attachment.volume.clone();
        told.attachment = Some(name.clone());
        told.is_attached = attachment.is_attached;
        let deleting = attachment.meta.is_deleting();
        if let Some(pair) = self.named(name).cloned() {
            let (driver, handle) = pair.volume.csi().unwrap_or_default();
            told.disk = Some((driver.into(), handle.into()));
            self.fill(&mut told, &pair);
        } else {
            told.said = said(attachment.attach_error.as_ref());
            told.wait = Some(Wait::Operator);
            told.text = "its PersistentVolume is not there, so nobody knows what it is".to_owned();
            told.next = Some(Next {
                code: "restore-volume",
                text: format!(
                    "Restore the PersistentVolume. If you know that the driver has nothing attached, take the \
                     finalizer off VolumeAttachment {name}."
                ),
                command: None,
            });
        }
        let state = match (deleting, told.wait) {
            (true, _) => State::Detaching,
            (false, None | Some(Wait::Kubelet | Wait::Operator)) if told.is_attached => {
                State::Attached
            }
            _ => State::Waiting,
        };
        Some((state, told))
    }

    /// What is known of a volume on a node, and what comes next for it.
    fn fill(&self, told: &mut VolumeOnNode, pair: &Pair) {
        let name = pair.attachment();
        let attachment = self.known().attachment(&name).cloned();
        let node = self.known().node(&pair.node);
        told.attachment = attachment.as_ref().map(|a| a.meta.name.clone());
        told.is_attached = attachment.as_ref().is_some_and(|a| a.is_attached);
        told.is_listed = node.is_some_and(|node| node.lists(pair.volume.as_str()));
        told.is_in_use = self.in_use(pair) == Use::Yes;
        told.pods = self
            .pods(pair)
            .iter()
            .map(|(pod, _)| pod.1.to_string())
            .collect();
        told.holders = self.holders_told(pair);
        let Some(view) = self.view(pair) else {
            told.text = match node {
                Some(_) => format!("node {} attaches by itself, and is left alone", pair.node),
                None => "nothing is known of it".to_owned(),
            };
            return;
        };
        let detaching = view.attachment == verdict::Attachment::Deleting;
        told.said = attachment.as_deref().and_then(|a| match detaching {
            true => said(a.detach_error.as_ref()),
            false => said(a.attach_error.as_ref()),
        });
        let (wait, text, next) = self.way(pair, &view, told, attachment.as_ref());
        told.wait = wait;
        told.text = text;
        told.next = next;
    }

    fn holders_told(&self, pair: &Pair) -> Vec<Holder> {
        let holder = |other: &Pair| {
            let attachment = other.attachment();
            Holder {
                node: other.node.clone(),
                is_attached: self
                    .known()
                    .attachment(&attachment)
                    .is_some_and(|a| a.is_attached),
                attachment,
                pods: self
                    .pods(other)
                    .iter()
                    .map(|(pod, _)| pod.1.to_string())
                    .collect(),
            }
        };
        self.holders(pair).map(holder).collect()
    }

    fn way(
        &self,
        pair: &Pair,
        view: &View,
        told: &VolumeOnNode,
        attachment: Option<&Arc<Attachment>>,
    ) -> (Option<Wait>, String, Option<Next>) {
        let node = &pair.node;
        let (driver, _) = pair.volume.csi().unwrap_or_default();
        match view.verdict().act {
            Act::Rest if view.wanted && view.node == Health::Gone => (
                Some(Wait::Node),
                format!("node {node} does not exist"),
                Some(Next {
                    code: "delete-pod",
                    text: "The pod runs nowhere: delete it, so that it is made anew elsewhere."
                        .to_owned(),
                    command: None,
                }),
            ),
            Act::Rest if view.attachment == verdict::Attachment::Deleting => {
                self.detaching(pair, told)
            }
            Act::Rest if view.wanted && !view.listed => (
                Some(Wait::Attacher),
                format!("it is attached, and node {node} was not told yet"),
                Some(check_attacher()),
            ),
            Act::Rest if view.wanted => (None, format!("it is attached to node {node}"), None),
            Act::Rest if view.attachment == verdict::Attachment::Absent => (
                None,
                "it is attached nowhere, and no pod asks for it".to_owned(),
                None,
            ),
            Act::Attach => (
                Some(Wait::Attacher),
                format!("nobody asked for it on node {node} yet"),
                Some(check_attacher()),
            ),
            Act::AwaitOther => self.elsewhere_told(pair),
            Act::AwaitDetach => self.detaching(pair, told),
            Act::AwaitAttach => {
                let text = match &told.said {
                    Some(_) => format!("driver {driver} fails to attach it to node {node}"),
                    None => format!("driver {driver} is to attach it to node {node}"),
                };
                let next = match told.said.as_ref().and_then(|said| said.code) {
                    Some(EXHAUSTED) => Next {
                        code: "free-node",
                        text: format!(
                            "Node {node} takes no more volumes of the driver, or the driver has too much to do: \
                             move pods away from the node, or wait."
                        ),
                        command: None,
                    },
                    _ => check_driver(driver, attachment.map(|a| &a.meta.name)),
                };
                (Some(Wait::Driver), text, Some(next))
            }
            Act::Rest | Act::Detach(_) => (
                Some(Wait::Attacher),
                format!("no pod asks for it: it is to be taken from node {node}"),
                Some(check_attacher()),
            ),
            Act::AwaitNode => self.leaving(pair, view),
        }
    }

    /// Another node has it, and why that lasts.
    fn elsewhere_told(&self, pair: &Pair) -> (Option<Wait>, String, Option<Next>) {
        let holder = self.holders(pair).next().cloned();
        let Some(holder) = holder else {
            return (
                Some(Wait::OtherNode),
                "another node has it".to_owned(),
                None,
            );
        };
        let hold = self.hold_of(&holder);
        let hint = hold.hint();
        let node = &holder.node;
        let next = match hold.state {
            reason::Hold::Pods => Next {
                code: "end-pods",
                text: "It is for one node: end the pods there, or place this one on that node."
                    .to_owned(),
                command: None,
            },
            reason::Hold::Kubelet => Next {
                code: "check-kubelet",
                text: format!(
                    "Wait until the kubelet of {node} has unmounted it; its log says what keeps it."
                ),
                command: Some(format!(
                    "kubectl get node {node} -o jsonpath='{{.status.volumesInUse}}'"
                )),
            },
            reason::Hold::Down => taint(node),
            reason::Hold::Gone => force(&holder),
            reason::Hold::Driver(_) => {
                let (driver, _) = pair.volume.csi().unwrap_or_default();
                check_driver(driver, Some(&holder.attachment()))
            }
        };
        let text = format!("another node has it, and it may be on one only. {hint}");
        (Some(Wait::OtherNode), text, Some(next))
    }

    fn detaching(&self, pair: &Pair, told: &VolumeOnNode) -> (Option<Wait>, String, Option<Next>) {
        let (driver, _) = pair.volume.csi().unwrap_or_default();
        let node = &pair.node;
        let text = match &told.said {
            Some(_) => format!("driver {driver} fails to detach it from node {node}"),
            None => format!("driver {driver} is to detach it from node {node}"),
        };
        let next = check_driver(driver, Some(&pair.attachment()));
        (Some(Wait::Detach), text, Some(next))
    }

    /// No pod asks for it, and the node has not let go of it.
    fn leaving(&self, pair: &Pair, view: &View) -> (Option<Wait>, String, Option<Next>) {
        let node = &pair.node;
        match view.node {
            Health::Ready => (
                Some(Wait::Kubelet),
                format!("no pod asks for it, and node {node} still uses it"),
                None,
            ),
            Health::Unready => (
                Some(Wait::Operator),
                format!(
                    "no pod asks for it, and node {node} is not ready and does not let go of it"
                ),
                Some(taint(node)),
            ),
            Health::Gone => (
                Some(Wait::Operator),
                format!(
                    "no pod asks for it, and node {node} is gone and was not heard to let go of it"
                ),
                Some(force(pair)),
            ),
        }
    }
}

fn plain(node: NodeName) -> VolumeOnNode {
    VolumeOnNode {
        claim: None,
        volume: None,
        disk: None,
        node,
        attachment: None,
        is_attached: false,
        is_listed: false,
        is_in_use: false,
        pods: Vec::new(),
        wait: None,
        text: String::new(),
        holders: Vec::new(),
        said: None,
        next: None,
    }
}

fn unbound(mut told: VolumeOnNode, pod: &Pod, claim: &Name) -> VolumeOnNode {
    if told.text.is_empty() {
        told.text = "the claim has no volume yet".to_owned();
    }
    let key = ObjectKey::claim(
        pod.meta.namespace.as_ref().map_or("", |n| n.as_str()),
        claim.clone(),
    );
    told.wait = Some(Wait::Claim);
    told.next = Some(Next {
        code: "explain-claim",
        text: format!("See why claim {key} has no volume."),
        command: Some(format!(
            "bitts explain claim {claim} -n {}",
            key.namespace.as_ref().map_or("", |n| n.as_str())
        )),
    });
    told
}

fn said(error: Option<&AttachError>) -> Option<Said> {
    error.map(|error| Said {
        message: error.message.clone(),
        code: error.code,
        since: error.time.clone(),
    })
}

fn check_attacher() -> Next {
    Next {
        code: "check-attacher",
        text: "Wait a moment; if it stays so, see whether an attach controller runs: bitts run --roles attacher, \
               or that of kube-controller-manager."
            .to_owned(),
        command: None,
    }
}

fn check_driver(driver: &str, attachment: Option<&Name>) -> Next {
    Next {
        code: "check-driver",
        text: format!(
            "See whether the controller of driver {driver} runs, with its csi-attacher beside it, and what it logs."
        ),
        command: attachment.map(|name| format!("kubectl describe volumeattachment {name}")),
    }
}

fn taint(node: &NodeName) -> Next {
    Next {
        code: "taint-node",
        text: format!(
            "Only if the machine of node {node} is off, for it may still write: say so with a taint. Take it away \
             when the node is back."
        ),
        command: Some(format!(
            "kubectl taint nodes {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
        )),
    }
}

fn force(pair: &Pair) -> Next {
    Next {
        code: "force-detach",
        text: format!(
            "Only if the machine of node {} is off, for it may still write: say so on the attachment.",
            pair.node
        ),
        command: Some(format!(
            "kubectl annotate volumeattachment {} bitts.dev/force-detach=yes",
            pair.attachment()
        )),
    }
}
