//! What can be set about the binder, and where it differs from kube-controller-manager.

/// What can be set about the binder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Ask external provisioners for volumes (P1).
    pub provisioning: bool,
    /// Keep the finalizers that protect what is in use (X1 to X7); without this somebody else must.
    pub protection: bool,
    /// Keep the condition that tells since when no pod refers to a claim (X5).
    pub unused_condition: bool,
    /// What becomes of volumes of the policy Recycle (D8).
    pub recycle: Recycle,
    /// Where things end differently than under kube-controller-manager.
    pub differences: Differences,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            provisioning: true,
            protection: true,
            unused_condition: true,
            recycle: Recycle::Off,
            differences: Differences::ALL,
        }
    }
}

impl Options {
    /// Whether the binder differs in this.
    #[must_use]
    pub const fn differs(&self, difference: Difference) -> bool {
        self.differences.has(difference)
    }
}

/// What becomes of volumes of the policy Recycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recycle {
    /// They become Failed.
    #[default]
    Off,
    /// The agents of their nodes wipe them, unless data of another volume would go with it.
    Guarded,
    /// The same whatever else lies there.
    Unguarded,
}

/// A way in which things end differently than under kube-controller-manager, on purpose. Each has
/// a flag and a line in `docs/differences.md`. What differs only in when, how often or in which
/// words something is told, or when a cache is stale or a process dies, is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// A volume that appears bound to a claim that never was here, as after a restore from a
    /// backup, is left alone; otherwise it is released, and perhaps deleted (§13.13).
    HoldRestored,
    /// A hand-made volume whose claim goes before it was completely bound is offered again;
    /// otherwise it is reclaimed, and perhaps deleted (§13.12).
    GiveBack,
    /// A volume reserved for a claim goes before one that is nobody's, whatever its access modes;
    /// otherwise only among volumes with as many of them (§13.7, B14).
    ReservedFirst,
    /// Why a volume is Failed follows the facts: the message changes with the reason, and under
    /// Retain it is Released again; otherwise the first reason stays (§13.11, B27, D7).
    FreshFailure,
    /// A hostPath volume of the policy Delete fails like any other that nothing here deletes;
    /// otherwise its object goes if its path lies below /tmp (§13.21, D5).
    KeepHostPath,
}

impl Difference {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::HoldRestored,
        Self::GiveBack,
        Self::ReservedFirst,
        Self::FreshFailure,
        Self::KeepHostPath,
    ];

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The ways in which the binder differs.
///
/// ```
/// use bitts_binder::{Difference, Differences};
///
/// let some = Differences::ALL.set(Difference::ReservedFirst, false);
/// assert!(!some.has(Difference::ReservedFirst) && some.has(Difference::GiveBack));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differences(u16);

impl Differences {
    /// Everything that bitts does better.
    pub const ALL: Self = Self(u16::MAX);
    /// Things end exactly as under kube-controller-manager.
    pub const NONE: Self = Self(0);

    /// The same with one of them on or off.
    #[must_use]
    pub const fn set(self, difference: Difference, on: bool) -> Self {
        if on {
            Self(self.0 | difference.bit())
        } else {
            Self(self.0 & !difference.bit())
        }
    }

    /// Whether this is one of them.
    #[must_use]
    pub const fn has(self, difference: Difference) -> bool {
        self.0 & difference.bit() != 0
    }
}

impl Default for Differences {
    fn default() -> Self {
        Self::ALL
    }
}
