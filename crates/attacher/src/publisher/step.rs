//! What comes next for a VolumeAttachment: a table without memory.

use bitts_api::{Attachment, NodeName};

use super::call::Can;

/// All that is known of an attachment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) attachment: &'a Attachment,
    pub(crate) can: Can,
    /// Our finalizer is on the attachment.
    pub(crate) held: bool,
    pub(crate) volume: VolumeIs,
    /// Our finalizer is on the volume.
    pub(crate) volume_held: bool,
    /// What the driver calls the node now, by its CSINode.
    pub(crate) node_id: Option<&'a str>,
    /// What it called it when it was told to attach.
    pub(crate) published_as: Option<&'a str>,
    /// A volume for one node may still be on this other one.
    pub(crate) elsewhere: Option<&'a NodeName>,
    /// The driver's list says that it is not where its status says.
    pub(crate) doubted: bool,
    /// It was just detached from this, the node's earlier name.
    pub(crate) left: Option<&'a str>,
}

/// What is known of an attachment's PersistentVolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VolumeIs {
    /// None of its name was seen, or it is not the driver's.
    Unknown,
    There,
    Deleting,
    /// It is gone, and it is known what it was.
    Gone,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Rest,
    /// Say that it is attached: there is nothing to be done for it.
    Trust,
    /// Both are held before the driver is called (A26), and it is noted as what the node is known.
    Hold {
        volume: bool,
        /// What the attachment has to note, where it does not.
        attachment: Option<&'a str>,
    },
    Publish(&'a str),
    /// From the node that the driver calls so.
    Unpublish(&'a str),
    /// From the name by which the driver knew the node before.
    Leave {
        before: &'a str,
        now: &'a str,
    },
    /// Nothing holds it any more.
    LetGo,
    /// It cannot go on, and why.
    Stuck(Obstacle<'a>),
}

/// Why an attachment cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle<'a> {
    NoVolume,
    VolumeDeleting,
    NoNode,
    Elsewhere(&'a NodeName),
}

impl<'a> View<'a> {
    /// What is to be done now.
    pub(crate) fn step(&self) -> Step<'a> {
        if self.attachment.meta.is_deleting() {
            self.detach()
        } else {
            self.attach()
        }
    }

    fn attach(&self) -> Step<'a> {
        let attached = self.attachment.is_attached;
        if attached && !self.doubted {
            return Step::Rest;
        }
        if !self.can.publish {
            return if attached { Step::Rest } else { Step::Trust };
        }
        match self.volume {
            VolumeIs::Unknown | VolumeIs::Gone => return Step::Stuck(Obstacle::NoVolume),
            VolumeIs::Deleting => return Step::Stuck(Obstacle::VolumeDeleting),
            VolumeIs::There => {}
        }
        let Some(now) = self.node_id else {
            return Step::Stuck(Obstacle::NoNode);
        };
        if let Some(other) = self.elsewhere {
            return Step::Stuck(Obstacle::Elsewhere(other));
        }
        let before = self.published_as.filter(|before| *before != now);
        if let Some(before) = before
            && self.held
            && self.left != Some(before)
        {
            // Where it says that it is attached, somebody may use it there.
            return if attached {
                Step::Rest
            } else {
                Step::Leave { before, now }
            };
        }
        let noted = self.held && self.published_as == Some(now);
        if self.volume_held && noted {
            return Step::Publish(now);
        }
        Step::Hold {
            volume: !self.volume_held,
            attachment: (!noted).then_some(now),
        }
    }

    fn detach(&self) -> Step<'a> {
        if !self.held {
            return Step::Rest;
        }
        if !self.can.publish {
            return Step::LetGo;
        }
        if self.volume == VolumeIs::Unknown {
            return Step::Stuck(Obstacle::NoVolume);
        }
        // By the name under which it was attached, unlike the stock sidecar: the node's object may be
        // another machine's by now.
        match self.published_as.or(self.node_id) {
            Some(node) => Step::Unpublish(node),
            None => Step::Stuck(Obstacle::NoNode),
        }
    }
}
