//! What is told.

use bitts_api::{Name, NodeName, ObjectKey};

/// Why a pod's volumes, or an attachment, are where they are, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The pod or VolumeAttachment.
    pub object: ObjectKey,
    /// Where it stands.
    pub state: State,
    /// The first thing that is missing.
    pub waiting_for: Option<Wait>,
    /// Its volumes; of an attachment, its one.
    pub volumes: Vec<VolumeOnNode>,
    /// What would help.
    pub next: Option<Next>,
}

/// Where a pod or an attachment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All of the pod's volumes that have to be attached are; the attachment is.
    Attached,
    /// Something is missing.
    Waiting,
    /// The attachment is being deleted.
    Detaching,
    /// The pod has ended, and asks for nothing.
    Ended,
}

impl State {
    /// A name for scripts, which stays the same.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Waiting => "waiting",
            Self::Detaching => "detaching",
            Self::Ended => "ended",
        }
    }
}

/// What a volume on its way to a node, or from it, waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// The pod has no node.
    Scheduler,
    /// The claim has no volume.
    Claim,
    /// The node is gone.
    Node,
    /// Another node has to let go of it first.
    OtherNode,
    /// It has to be detached before it can be attached anew.
    Detach,
    /// The driver has to attach it.
    Driver,
    /// The attach controller has to ask for it, or to list it in the node's status.
    Attacher,
    /// No pod asks for it, and the node has yet to let go of it.
    Kubelet,
    /// The same, and the node cannot say so: somebody has to look.
    Operator,
}

impl Wait {
    /// A name for scripts, which stays the same.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Claim => "claim",
            Self::Node => "node",
            Self::OtherNode => "other-node",
            Self::Detach => "detach",
            Self::Driver => "driver",
            Self::Attacher => "attacher",
            Self::Kubelet => "kubelet",
            Self::Operator => "operator",
        }
    }
}

/// A volume and the node that it is wanted on, or is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeOnNode {
    /// The claim by which the pod asks for it.
    pub claim: Option<Name>,
    /// The PersistentVolume.
    pub volume: Option<Name>,
    /// The driver, and its name for the volume; `None` for what is not attached by a driver.
    pub disk: Option<(Box<str>, Box<str>)>,
    /// The node.
    pub node: NodeName,
    /// The VolumeAttachment, where there is one.
    pub attachment: Option<Name>,
    /// Whether the driver attached it there.
    pub is_attached: bool,
    /// Whether the node's status lists it.
    pub is_listed: bool,
    /// Whether the node's kubelet says that it uses it.
    pub is_in_use: bool,
    /// The pods on the node that ask for it.
    pub pods: Vec<String>,
    /// What is missing.
    pub wait: Option<Wait>,
    /// The same for people.
    pub text: String,
    /// Who has it elsewhere.
    pub holders: Vec<Holder>,
    /// What the driver last said.
    pub said: Option<Said>,
    /// What would help.
    pub next: Option<Next>,
}

/// Another node that has a volume, or may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: NodeName,
    /// The VolumeAttachment there.
    pub attachment: Name,
    /// Whether it is known to be attached there.
    pub is_attached: bool,
    /// The pods there that ask for it.
    pub pods: Vec<String>,
}

/// What a driver said when it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// In words.
    pub message: Box<str>,
    /// The gRPC code, where it is known.
    pub code: Option<i32>,
    /// Since when, as the API has it.
    pub since: Option<Box<str>>,
}

/// What would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// A name for scripts, which stays the same.
    pub code: &'static str,
    /// For people.
    pub text: String,
    /// A command that can be pasted into a shell.
    pub command: Option<String>,
}

impl Report {
    pub(super) fn new(object: ObjectKey, state: State) -> Self {
        Self {
            object,
            state,
            waiting_for: None,
            volumes: Vec::new(),
            next: None,
        }
    }

    pub(super) fn waits(mut self, wait: Wait, next: Next) -> Self {
        self.waiting_for = Some(wait);
        self.next = Some(next);
        self
    }

    pub(super) fn of_volumes(object: ObjectKey, volumes: Vec<VolumeOnNode>) -> Self {
        // The one that is furthest from where it is wanted.
        let first = volumes
            .iter()
            .filter(|v| v.wait.is_some())
            .min_by_key(|v| v.wait);
        let (waiting_for, next) = match first {
            Some(volume) => (volume.wait, volume.next.clone()),
            None => (None, None),
        };
        Self {
            state: match waiting_for {
                Some(_) => State::Waiting,
                None => State::Attached,
            },
            waiting_for,
            next,
            volumes,
            object,
        }
    }

    pub(super) fn of_attachment(object: ObjectKey, volume: (State, VolumeOnNode)) -> Self {
        let (state, volume) = volume;
        Self {
            state,
            waiting_for: volume.wait,
            next: volume.next.clone(),
            volumes: vec![volume],
            object,
        }
    }

    /// Whether nothing is waited for.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.waiting_for.is_none()
    }
}
