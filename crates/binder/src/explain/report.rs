//! What is told about one object.

use bitts_api::{BindingMode, ClassName, Name, NodeName, ObjectKey, PodPhase};

use super::kubectl::Kubectl;
use super::obstacle::Group;

/// Why a claim or volume is where it is, and what would unblock it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The claim or volume.
    pub object: ObjectKey,
    /// Where it stands.
    pub state: State,
    /// The other side: a claim's volume, a volume's claim.
    pub partner: Option<ObjectKey>,
    /// What it waits for; `None` when nothing is missing.
    pub waiting_for: Option<Fact>,
    /// What else matters.
    pub facts: Vec<Fact>,
    /// For a claim the volumes that it does not get, for a volume the claims that it does not
    /// serve, by the first reason that rules them out.
    pub candidates: Vec<Group>,
    /// For a free volume: the claims that it would serve.
    pub serves: Vec<String>,
    /// The class of the claim, or where that does not exist, all there are.
    pub classes: Vec<Class>,
    /// The pods that use the claim.
    pub pods: Vec<User>,
    /// The node that the scheduler chose for a claim's first pod.
    pub selected_node: Option<NodeName>,
    /// What would unblock it.
    pub next: Option<Next>,
}

impl Report {
    pub(super) fn new(object: ObjectKey, state: State) -> Self {
        Self {
            object,
            state,
            partner: None,
            waiting_for: None,
            facts: Vec::new(),
            candidates: Vec::new(),
            serves: Vec::new(),
            classes: Vec::new(),
            pods: Vec::new(),
            selected_node: None,
            next: None,
        }
    }

    pub(super) fn waits(mut self, code: &'static str, text: impl Into<String>) -> Self {
        self.waiting_for = Some(Fact::new(code, text));
        self
    }

    pub(super) fn fact(&mut self, code: &'static str, text: impl Into<String>) {
        self.facts.push(Fact::new(code, text));
    }

    pub(super) fn next(mut self, next: Next) -> Self {
        self.next = Some(next);
        self
    }
}

/// Where a claim or volume stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A claim and its volume have each other.
    Bound,
    /// It is decided who gets whom, and not all of it is written yet.
    Binding,
    /// A claim without a volume.
    Waiting,
    /// A claim that was bound and has lost its volume.
    Lost,
    /// Deletion was asked for, and something holds it.
    Deleting,
    /// A volume that is nobody's and can be taken.
    Available,
    /// A volume that nobody looked at yet, or that is nobody's and not offered yet.
    Pending,
    /// A volume kept for a claim that does not exist yet or that it does not fit.
    Reserved,
    /// A volume whose claim is gone, with its data.
    Released,
    /// A volume that could not be reclaimed.
    Failed,
    /// A volume that came bound to a claim that never was here: left alone.
    Held,
}

impl State {
    /// A name for scripts, which stays the same.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Binding => "binding",
            Self::Waiting => "waiting",
            Self::Lost => "lost",
            Self::Deleting => "deleting",
            Self::Available => "available",
            Self::Pending => "pending",
            Self::Reserved => "reserved",
            Self::Released => "released",
            Self::Failed => "failed",
            Self::Held => "held",
        }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub const fn is_fine(self) -> bool {
        matches!(self, Self::Bound | Self::Available)
    }
}

/// Something that is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// A name for scripts, which stays the same.
    pub code: &'static str,
    /// The words for people, which may change.
    pub text: String,
}

impl Fact {
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }
}

/// What would unblock the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// A name for scripts, which stays the same.
    pub code: &'static str,
    /// What it does and when it is right.
    pub text: String,
    /// The command that does it; `None` where it takes more than one.
    pub command: Option<Kubectl>,
    /// What may be lost or given away by it.
    pub warning: Option<String>,
}

impl Next {
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            command: None,
            warning: None,
        }
    }

    pub(super) fn by(mut self, command: Kubectl) -> Self {
        self.command = Some(command);
        self
    }

    pub(super) fn beware(mut self, warning: impl Into<String>) -> Self {
        self.warning = Some(warning.into());
        self
    }
}

/// A class that could make a volume for the claim, or could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: ClassName,
    /// Who makes its volumes.
    pub provisioner: Box<str>,
    /// When its claims are bound.
    pub binding_mode: BindingMode,
    /// Whether claims that name no class get it.
    pub is_default: bool,
    /// Whether its provisioner makes volumes at all.
    pub provisions: bool,
}

/// A pod that uses the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: Name,
    /// Where it runs.
    pub node: Option<NodeName>,
    /// Where in its life it is.
    pub phase: PodPhase,
    /// Whether it keeps the claim from being deleted.
    pub holds: bool,
}
