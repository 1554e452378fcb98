//! What the machine has its driver asked for, and what it is told.

use std::collections::{BTreeMap, BTreeSet};

use bitts_api::{AccessModes, Name, SecretRef, Uid};

/// Names and values that drivers pass around.
pub type Context = BTreeMap<Box<str>, Box<str>>;

/// Work for the worker: calls to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// What can it do?
    Ask,
    /// Attach a volume to a node.
    Publish(Box<Publish>),
    /// Detach it, if what speaks for that still holds when it is looked at.
    Unpublish(Box<Unpublish>),
    /// Which volumes are on which nodes?
    List,
}

/// Which call it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// For which VolumeAttachment.
    pub attachment: Name,
    /// Which of that name.
    pub uid: Uid,
    /// The volume, by the driver's name. One call at a time is under way for each.
    pub handle: Box<str>,
}

/// What ControllerPublishVolume is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Which call it is.
    pub ticket: Ticket,
    /// The node, by the driver's name.
    pub node_id: Box<str>,
    /// Never to be written there.
    pub read_only: bool,
    /// How the volume may be used.
    pub modes: AccessModes,
    /// Whether the driver tells a single pod from a single node.
    pub one_writer: bool,
    /// As a raw device.
    pub is_block: bool,
    /// The file system; empty lets the driver choose.
    pub fs_type: Box<str>,
    /// Options of the mount.
    pub mount_options: Box<[Box<str>]>,
    /// What the driver noted when it made the volume.
    pub attributes: Context,
    /// What it needs to know and nobody else may.
    pub secret: Option<SecretRef>,
}

/// What ControllerUnpublishVolume is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpublish {
    /// Which call it is.
    pub ticket: Ticket,
    /// The node, by the driver's name.
    pub node_id: Box<str>,
    /// What speaks for it; read live directly before.
    pub because: Because,
    /// What the driver needs to know and nobody else may.
    pub secret: Option<SecretRef>,
}

/// What speaks for detaching a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// The attachment is being deleted, or is gone.
    Deleted,
    /// The driver calls the node otherwise by now, and the volume was never said to be attached.
    Renamed {
        /// The node's name in the API.
        node: bitts_api::NodeName,
        /// What the driver calls it now.
        now: Box<str>,
    },
}

/// What came of a [`Task`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// What the driver can do, or why that is not known.
    Can(Result<Can, Trouble>),
    /// The volume is on the node, and this is what its node plugin needs to know.
    Published(Ticket, Result<Context, Trouble>),
    /// The driver says that the volume is not on the node.
    Unpublished(Ticket, Result<(), Trouble>),
    /// What spoke for detaching does not hold: nothing was done.
    Spared(Ticket),
    /// On which nodes each volume is, by the driver's names for both.
    Listed(Result<BTreeMap<Box<str>, BTreeSet<Box<str>>>, Trouble>),
}

/// What a driver can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Can {
    /// Its volumes are attached at all.
    pub publish: bool,
    /// It can be told that a volume is never written.
    pub publish_read_only: bool,
    /// It lists where its volumes are.
    pub list: bool,
    /// It tells a single pod from a single node.
    pub one_writer: bool,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened and what to do.
    pub message: String,
    /// The gRPC code, where there is one.
    pub code: Option<i32>,
    /// The driver has too much to do.
    pub overload: bool,
    /// The driver cannot be reached: it may be another one when it is back.
    pub lost: bool,
}
