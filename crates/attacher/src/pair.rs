//! A volume on a node: what everything here is kept by.

use std::fmt::{self, Write as _};

use bitts_api::{DiskName, Name, NodeName, Volume};
use sha2::{Digest as _, Sha256};

use crate::csi_volume::of_driver;

/// What begins the name of every volume of a CSI driver (A3).
const CSI: &str = "kubernetes.io/csi/";

/// The name of a volume that is attached, made of plugin and volume (A3). Two PersistentVolumes with
/// the same driver and handle are one volume.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UniqueName(DiskName);

impl UniqueName {
    /// The volume that a PersistentVolume is; `None` for types that are not attached by
    /// VolumeAttachments.
    #[must_use]
    pub fn of(volume: &Volume) -> Option<Self> {
        let csi = of_driver(volume)?.volume;
        let name = format!("{CSI}{}^{}", csi.driver, csi.handle);
        Some(Self(name.into()))
    }

    /// What a node's status calls it; `None` for what other controllers look after.
    #[must_use]
    pub fn listed(name: &str) -> Option<Self> {
        csi(name).is_some().then(|| Self(name.into()))
    }

    /// The name as a node's status has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Driver and handle. A driver's name has no `^`, a handle may.
    #[must_use]
    pub fn csi(&self) -> Option<(&str, &str)> {
        csi(self.as_str())
    }
}

fn csi(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(CSI)?.split_once('^')
}

impl fmt::Debug for UniqueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A volume on a node, there or wanted there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The volume; first, so that all its nodes are neighbours.
    pub volume: UniqueName,
    /// The node.
    pub node: NodeName,
}

impl Pair {
    /// The name of its VolumeAttachment (A23).
    #[must_use]
    pub fn attachment(&self) -> Name {
        let (driver, handle) = self.volume.csi().unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(handle);
        hash.update(driver);
        hash.update(self.node.as_str());
        let mut name = String::with_capacity(68);
        name.push_str("csi-");
        for byte in hash.finalize() {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        Name::from(name.as_str())
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {}", self.volume, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a23_an_attachment_is_named_as_the_stock_controller_does() {
        let pair = Pair {
            volume: UniqueName::listed("kubernetes.io/csi/d^vol^1").unwrap(),
            node: "n".into(),
        };
        assert_eq!(pair.volume.csi(), Some(("d", "vol^1")));
        // printf 'vol^1dn' | sha256sum
        let hash = "8b8c4158f59328b3031948916e91da4539b273f18975aae429ca9bbd9ac127e4";
        assert_eq!(pair.attachment(), *format!("csi-{hash}"));
    }

    #[test]
    fn a3_what_others_attach_is_not_ours() {
        assert_eq!(UniqueName::listed("kubernetes.io/iscsi/a:b:0"), None);
        assert_eq!(UniqueName::listed("kubernetes.io/csi/no-handle"), None);
    }
}
