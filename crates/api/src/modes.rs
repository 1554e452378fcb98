//! Access modes and volume modes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// One way to use a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AccessMode {
    /// Written from one node.
    ReadWriteOnce,
    /// Read from many nodes.
    ReadOnlyMany,
    /// Written from many nodes.
    ReadWriteMany,
    /// Written from one pod.
    ReadWriteOncePod,
}

impl AccessMode {
    /// All modes in the order in which kubectl prints them (B12).
    pub const ALL: [Self; 4] = [
        Self::ReadWriteOnce,
        Self::ReadOnlyMany,
        Self::ReadWriteMany,
        Self::ReadWriteOncePod,
    ];

    /// The value as the API writes it, e.g. `ReadWriteMany`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadOnlyMany => "ReadOnlyMany",
            Self::ReadWriteMany => "ReadWriteMany",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }

    /// The value as kubectl prints it, e.g. `RWX`.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "RWO",
            Self::ReadOnlyMany => "ROX",
            Self::ReadWriteMany => "RWX",
            Self::ReadWriteOncePod => "RWOP",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of access modes: order and repeats in the manifest mean nothing (B12).
///
/// A mode that this version does not know is remembered as such: nothing offers what a claim with
/// it asks for.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessModes(u8);

/// Stands for every mode that this version does not know.
const UNKNOWN: u8 = 1 << 7;

impl AccessModes {
    /// Whether the set has this mode.
    #[must_use]
    pub const fn contains(self, mode: AccessMode) -> bool {
        self.0 & mode.bit() != 0
    }

    /// The modes that this version knows: those it can write.
    #[must_use]
    pub const fn known(self) -> Self {
        Self(self.0 & !UNKNOWN)
    }

    /// Whether every mode of `asked` is in this set.
    #[must_use]
    pub const fn contains_all(self, asked: Self) -> bool {
        self.0 & asked.0 == asked.0 && asked.0 & UNKNOWN == 0
    }

    /// How many known modes the set has.
    #[must_use]
    pub const fn len(self) -> u32 {
        (self.0 & !UNKNOWN).count_ones()
    }

    /// Whether the set has no mode.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The modes in kubectl's order.
    pub fn iter(self) -> impl Iterator<Item = AccessMode> {
        AccessMode::ALL
            .into_iter()
            .filter(move |mode| self.contains(*mode))
    }
}

impl FromIterator<AccessMode> for AccessModes {
    fn from_iter<I: IntoIterator<Item = AccessMode>>(modes: I) -> Self {
        Self(modes.into_iter().fold(0, |bits, mode| bits | mode.bit()))
    }
}

impl fmt::Display for AccessModes {
    /// `RWO,RWX`, as kubectl prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mode) in self.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { "," } else { "" }, mode.short())?;
        }
        Ok(())
    }
}

impl fmt::Debug for AccessModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl Serialize for AccessModes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for AccessModes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Known(AccessMode),
            Unknown(serde::de::IgnoredAny),
        }
        let modes = Option::<Vec<Entry>>::deserialize(deserializer)?;
        let bit = |entry: &Entry| match entry {
            Entry::Known(mode) => mode.bit(),
            Entry::Unknown(_) => UNKNOWN,
        };
        Ok(Self(
            modes
                .iter()
                .flatten()
                .fold(0, |bits, entry| bits | bit(entry)),
        ))
    }
}

/// How a volume is handed to a pod. Absent means a file system.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum VolumeMode {
    /// Mounted as a directory.
    #[default]
    Filesystem,
    /// Given as a device.
    Block,
}

impl VolumeMode {
    /// The value as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filesystem => "Filesystem",
            Self::Block => "Block",
        }
    }
}
