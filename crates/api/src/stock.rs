//! The controllers of kube-controller-manager that have to do with volumes (N1). A role names those
//! whose place it takes; two that do the same work are one too many.

/// A controller of kube-controller-manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StockController {
    /// Binds, and keeps phases.
    Binder,
    /// Attaches and detaches.
    AttachDetach,
    /// Asks for claims to be resized.
    Expander,
    /// Keeps claims that pods use.
    ClaimProtection,
    /// Keeps volumes that are bound.
    VolumeProtection,
    /// Makes the claims of ephemeral volumes.
    Ephemeral,
    /// Keeps attributes classes that are in use.
    AttributesClassProtection,
}

impl StockController {
    /// All of them, in the order of N1.
    pub const ALL: [Self; 7] = [
        Self::Binder,
        Self::AttachDetach,
        Self::Expander,
        Self::ClaimProtection,
        Self::VolumeProtection,
        Self::Ephemeral,
        Self::AttributesClassProtection,
    ];

    /// Its name in `--controllers` (N1).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binder => "persistentvolume-binder-controller",
            Self::AttachDetach => "persistentvolume-attach-detach-controller",
            Self::Expander => "persistentvolume-expander-controller",
            Self::ClaimProtection => "persistentvolumeclaim-protection-controller",
            Self::VolumeProtection => "persistentvolume-protection-controller",
            Self::Ephemeral => "ephemeral-volume-controller",
            Self::AttributesClassProtection => "volumeattributesclass-protection-controller",
        }
    }

    /// An older name that `--controllers` also takes (N1).
    #[must_use]
    pub const fn alias(self) -> Option<&'static str> {
        match self {
            Self::Binder => Some("persistentvolume-binder"),
            Self::AttachDetach => Some("attachdetach"),
            Self::Expander => Some("persistentvolume-expander"),
            Self::ClaimProtection => Some("pvc-protection"),
            Self::VolumeProtection => Some("pv-protection"),
            Self::Ephemeral => Some("ephemeral-volume"),
            Self::AttributesClassProtection => None,
        }
    }

    /// Whether a name of `--controllers` means this one.
    ///
    /// ```
    /// use bitts_api::StockController;
    ///
    /// assert!(StockController::ClaimProtection.is_called("pvc-protection"));
    /// assert!(!StockController::ClaimProtection.is_called("pv-protection"));
    /// ```
    #[must_use]
    pub fn is_called(self, name: &str) -> bool {
        self.name() == name || self.alias() == Some(name)
    }
}
