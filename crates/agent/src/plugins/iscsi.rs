//! Disks of iSCSI targets: what udev names below `/dev/disk/by-path` once the node is logged in.
//! Logging in and out is not the agent's: `open-iscsi` does it with `node.startup = automatic`.

use bitts_api::{IscsiTarget, Name, Source};

use super::VolumeType;

/// The port of targets that name none.
const PORT: u16 = 3260;

/// `iscsi`.
pub(super) struct Iscsi;

impl VolumeType for Iscsi {
    fn directory(&self) -> &'static str {
        "kubernetes.io~iscsi"
    }

    /// One for all interfaces, unlike the kubelet's: a disk is the same by whichever it is reached.
    fn stage_directory(&self) -> Option<&'static str> {
        Some("plugins/kubernetes.io/iscsi/mounts")
    }

    fn stage_name(&self, source: &Source, volume: &Name) -> Name {
        match name(source) {
            Some(name) => name.as_str().into(),
            None => volume.clone(),
        }
    }
}

/// The disk's name, as the link to the device has it.
fn name(source: &Source) -> Option<String> {
    let Source::Iscsi { target, lun, .. } = source else {
        return None;
    };
    let IscsiTarget { portal, iqn } = &**target;
    let has_port = portal
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && is_whole(host));
    let portal = if has_port {
        portal.to_string()
    } else {
        format!("{portal}:{PORT}")
    };
    Some(format!("ip-{portal}-iscsi-{iqn}-lun-{lun}"))
}

/// Whether what is before the last colon is an address, and not the beginning of one of version 6.
fn is_whole(host: &str) -> bool {
    !host.contains(':') || host.ends_with(']')
}

#[cfg(feature = "run")]
mod node {
    use bitts_api::Source;
    use bitts_mount::device::Device;

    use super::{Iscsi, name};
    use crate::plugins::node::{Disk, not_of_this_type};
    use crate::stage::linked_device;
    use crate::tree::{Tree, Trouble};

    impl Disk for Iscsi {
        fn find(&self, tree: &Tree, source: &Source) -> Result<Device, Trouble> {
            let name = name(source).ok_or_else(|| not_of_this_type(source))?;
            let directory = tree.devices.join("disk/by-path");
            linked_device(&directory, &name, || {
                format!(
                    "{source} is not there: log in with iscsiadm (package open-iscsi), so that \
                     udev makes {}",
                    directory.join(&name).display()
                )
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_as_udev_has_it() {
        let name = |portal: &str| {
            name(&Source::Iscsi {
                target: Box::new(IscsiTarget {
                    portal: portal.into(),
                    iqn: "iqn.2003-01.org:disk".into(),
                }),
                lun: 3,
                fs_type: None,
                read_only: false,
            })
        };
        let with = |portal: &str| Some(format!("ip-{portal}-iscsi-iqn.2003-01.org:disk-lun-3"));
        assert_eq!(name("10.0.0.1"), with("10.0.0.1:3260"));
        assert_eq!(name("10.0.0.1:860"), with("10.0.0.1:860"));
        assert_eq!(name("[fd00::1]"), with("[fd00::1]:3260"));
        assert_eq!(name("[fd00::1]:860"), with("[fd00::1]:860"));
    }
}
