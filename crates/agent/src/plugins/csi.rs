//! Volumes of CSI drivers: the driver on the node mounts them, the agent says where (M19 to M21).
//!
//! Which driver and which of its volumes a directory is for stands in a `vol_data.json` beside it, as
//! with the kubelet: it is written before the driver is called, and removed after its last call.
//! The driver listens at `plugins/<driver>/csi.sock` below the kubelet's directory.

#[cfg(feature = "run")]
mod call;
#[cfg(feature = "run")]
mod node;
#[cfg(feature = "run")]
mod record;

use std::fmt::Write as _;
use std::path::PathBuf;

use bitts_api::{Name, Source};
use sha2::{Digest as _, Sha256};

use super::VolumeType;

/// Below the kubelet's directory, one directory a driver and in it one a volume.
const STAGES: &str = "plugins/kubernetes.io/csi";
/// Where in it a volume is staged.
const GLOBAL: &str = "globalmount";
/// Where in a pod's directory for a volume it is published.
const MOUNT: &str = "mount";
/// How a node calls a volume of any driver (A3).
const PREFIX: &str = "kubernetes.io/csi/";

/// `csi`.
pub(super) struct Csi;

impl VolumeType for Csi {
    fn directory(&self) -> &'static str {
        "kubernetes.io~csi"
    }

    fn stage_directory(&self) -> Option<&'static str> {
        Some(STAGES)
    }

    /// Two PersistentVolumes with the same driver and handle are one volume (A3).
    fn stage_name(&self, source: &Source, volume: &Name) -> Name {
        match source {
            Source::Csi(csi) => stage_name(&csi.driver, &csi.handle),
            _ => volume.clone(),
        }
    }

    fn stage_target(&self, name: &Name) -> Option<PathBuf> {
        let (driver, handle) = name.as_str().split_once('^')?;
        let volume = PathBuf::from(STAGES).join(driver).join(sha256(&[handle]));
        Some(volume.join(GLOBAL))
    }

    fn inner(&self) -> Option<&'static str> {
        Some(MOUNT)
    }

    fn has_devices(&self) -> bool {
        false
    }

    fn attachable_prefix(&self) -> Option<&'static str> {
        Some(PREFIX)
    }

    fn attachable_names(&self, stage: &Name) -> Vec<String> {
        vec![format!("{PREFIX}{stage}")]
    }

    fn waits_for_attach(&self) -> bool {
        true
    }
}

fn stage_name(driver: &str, handle: &str) -> Name {
    format!("{driver}^{handle}").as_str().into()
}

/// Of all these one after the other, in hexadecimal digits.
pub(super) fn sha256(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut digits = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::attachment;

    #[test]
    fn a3_m19_a_volume_has_the_names_that_the_kubelet_gives_it() {
        let name = stage_name("disk.example.com", "vol-1");
        assert_eq!(
            Csi.attachable_names(&name),
            ["kubernetes.io/csi/disk.example.com^vol-1"]
        );
        let target = Csi.stage_target(&name).unwrap();
        let hash = "d2e8363faaac7ae76def3b14091d8eb5755f6b92e9531627aeec833a8731cc49";
        let expected = format!("{STAGES}/disk.example.com/{hash}/globalmount");
        assert_eq!(target.to_str(), Some(&*expected));
    }

    /// A23, with what a stock cluster has made.
    #[test]
    fn a23_the_attachment_is_found_by_its_name() {
        let name = attachment("disk.example.com", "vol-1", &"node-1".into());
        assert_eq!(
            name.as_str(),
            "csi-19c42f43d69fa1f381555c6802be2757a07267e9705a867fd59297bc87dd0694"
        );
    }
}
