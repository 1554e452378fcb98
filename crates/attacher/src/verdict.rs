//! What is to be done about a volume on a node: a table without memory.

/// What is known of a volume on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// A pod of the node asks for it.
    pub(crate) wanted: bool,
    pub(crate) node: Health,
    pub(crate) in_use: Use,
    /// The node's status lists it as attached.
    pub(crate) listed: bool,
    pub(crate) attachment: Attachment,
    /// It may be on one node only and may be on another (A21, mended: uncertain counts).
    pub(crate) elsewhere: bool,
    /// An operator says that the node is off (A13.5).
    pub(crate) out_of_service: bool,
    /// An operator says so of this attachment.
    pub(crate) forced: bool,
    /// The node was given its time to let go.
    pub(crate) overdue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Ready,
    Unready,
    /// There is no such node.
    Gone,
}

/// Whether the node's kubelet uses it, by its last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    No,
    Yes,
    /// The node was gone before anything was heard of it.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attachment {
    Absent,
    /// Asked for.
    Pending,
    Attached,
    Deleting,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the node's status shall list it as attached.
    pub(crate) report: bool,
    pub(crate) act: Act,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Rest,
    Attach,
    Detach(Grounds),
    /// Not before it is off another node (A15).
    AwaitOther,
    /// The driver has to attach it first.
    AwaitAttach,
    /// It is being detached, and is attached anew after that.
    AwaitDetach,
    /// The node has to let go of it first.
    AwaitNode,
}

/// Why it may be detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grounds {
    /// The kubelet does not use it.
    Released,
    /// The node is gone, and did not use it when it went.
    GoneUnused,
    OutOfService,
    Operator,
    Overdue,
}

impl Grounds {
    /// How it is counted where the node had no say (A13.9).
    pub(crate) fn forced(self) -> Option<&'static str> {
        match self {
            Self::Released | Self::GoneUnused => None,
            Self::OutOfService => Some("out-of-service"),
            Self::Operator => Some("operator"),
            Self::Overdue => Some("timeout"),
        }
    }
}

impl View {
    /// What is to be done now.
    pub(crate) fn verdict(&self) -> Verdict {
        let gone = self.node == Health::Gone;
        let (report, act) = match (self.attachment, self.wanted) {
            (Attachment::Absent, true) if gone => (false, Act::Rest),
            (Attachment::Absent, true) if self.elsewhere => (false, Act::AwaitOther),
            (Attachment::Absent, true) => (false, Act::Attach),
            (Attachment::Pending, true) => (false, Act::AwaitAttach),
            (Attachment::Attached, true) => (true, Act::Rest),
            (Attachment::Deleting, true) => (false, Act::AwaitDetach),
            (Attachment::Absent | Attachment::Deleting, false) => (false, Act::Rest),
            (Attachment::Pending | Attachment::Attached, false) => match self.grounds() {
                // First off the list, so that a kubelet that looks again does not begin to use it
                // (A13.7, A35); only when the API has that, it is detached.
                Some(_) if self.listed => (false, Act::Rest),
                Some(grounds) => (false, Act::Detach(grounds)),
                None => (self.attachment == Attachment::Attached, Act::AwaitNode),
            },
        };
        Verdict { report, act }
    }

    /// Why it may be detached, if it may. A node that is ready and uses it is never overruled (A30),
    /// whatever the time or an operator says.
    fn grounds(&self) -> Option<Grounds> {
        match (self.node, self.in_use) {
            (Health::Ready | Health::Unready, Use::No) => Some(Grounds::Released),
            (Health::Gone, Use::No) => Some(Grounds::GoneUnused),
            (Health::Ready, _) => None,
            (Health::Unready, _) if self.out_of_service => Some(Grounds::OutOfService),
            (Health::Unready | Health::Gone, _) if self.forced => Some(Grounds::Operator),
            (Health::Unready | Health::Gone, _) if self.overdue => Some(Grounds::Overdue),
            (Health::Unready | Health::Gone, _) => None,
        }
    }
}
