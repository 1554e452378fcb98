//! What the cloud calls nodes and disks, and what nodes call disks.

use std::fmt;

use bitts_api::{Node, Source, Volume};

use crate::csi_volume::{Place, place};

/// What begins the name of every disk of Google's cloud in a node's status (A3).
pub(super) const PREFIX: &str = "kubernetes.io/gce-pd/";

/// A machine of the cloud.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// The project it belongs to.
    pub project: Box<str>,
    /// Where it runs.
    pub zone: Box<str>,
    /// Its name there.
    pub name: Box<str>,
}

impl Instance {
    /// By a node's `spec.providerID`, which is `gce://project/zone/instance`.
    pub(super) fn of(node: &Node) -> Option<Self> {
        let path = node.provider_id.as_ref()?.strip_prefix("gce://")?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            [project, zone, name] if parts.iter().all(|part| is_name(part)) => Some(Self {
                project: project.into(),
                zone: zone.into(),
                name: name.into(),
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            project,
            zone,
            name,
        } = self;
        write!(f, "projects/{project}/zones/{zone}/instances/{name}")
    }
}

/// A zone, as far as a project has to do with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Zone {
    /// The project.
    pub project: Box<str>,
    /// The zone.
    pub zone: Box<str>,
}

impl Instance {
    /// Where it is.
    #[must_use]
    pub fn zone(&self) -> Zone {
        Zone {
            project: self.project.clone(),
            zone: self.zone.clone(),
        }
    }
}

/// Where a disk is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// In one zone.
    Zone(Box<str>),
    /// In several zones of a region.
    Region(Box<str>),
}

/// A disk of the cloud.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    /// Its name; first, so that those of one name are neighbours.
    pub name: Box<str>,
    /// The project it belongs to.
    pub project: Box<str>,
    /// Where it is.
    pub location: Location,
}

impl Disk {
    /// The disk that a volume is to a machine: in the zone or region that the volume's labels name, else
    /// in the machine's zone; always of the machine's project.
    pub(super) fn of(volume: &Volume, instance: &Instance) -> Option<Self> {
        let Source::GcePersistentDisk { disk, .. } = &volume.source else {
            return None;
        };
        let location = match place(volume)? {
            Place::Unknown => Location::Zone(instance.zone.clone()),
            Place::Zone(zone) => Location::Zone(zone.into()),
            Place::Region(region) => Location::Region(region.into()),
        };
        Self::new(disk, instance, location)
    }

    pub(super) fn new(name: &str, instance: &Instance, location: Location) -> Option<Self> {
        let (Location::Zone(place) | Location::Region(place)) = &location;
        // They become parts of addresses.
        (is_name(name) && is_name(place)).then(|| Self {
            name: name.into(),
            project: instance.project.clone(),
            location,
        })
    }

    /// What a node's status calls it.
    pub(super) fn unique(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// Where it is found on a node that it is attached to.
    pub(super) fn device(&self) -> String {
        format!("/dev/disk/by-id/google-{}", self.name)
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            project,
            location,
        } = self;
        match location {
            Location::Zone(zone) => write!(f, "projects/{project}/zones/{zone}/disks/{name}"),
            Location::Region(region) => {
                write!(f, "projects/{project}/regions/{region}/disks/{name}")
            }
        }
    }
}

/// Projects may be of a domain (`example.com:project`); nothing else has more than letters, digits and
/// dashes.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    !text.is_empty() && text.chars().all(plain) && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use bitts_api::{Kind, Object};
    use serde_json::{Value, json};

    use super::*;

    fn node(provider_id: &str) -> Node {
        let json = json!({"metadata": {"name": "n"}, "spec": {"providerID": provider_id}});
        match Kind::Node.read(json.to_string().as_bytes()).unwrap() {
            Object::Node(node) => (*node).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn volume(name: &str, labels: &Value) -> Volume {
        let json = json!({"metadata": {"name": "v", "labels": labels},
            "spec": {"gcePersistentDisk": {"pdName": name}}});
        match Kind::Volume.read(json.to_string().as_bytes()).unwrap() {
            Object::Volume(volume) => (*volume).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_machine_is_found_by_the_nodes_provider_id() {
        let of = |id| Instance::of(&node(id)).map(|instance| instance.to_string());
        assert_eq!(
            of("gce://shop/us-east1-b/n-1").as_deref(),
            Some("projects/shop/zones/us-east1-b/instances/n-1")
        );
        assert!(of("gce://example.com:shop/us-east1-b/n-1").is_some());
        for other in [
            "",
            "aws:///us-east-1a/i-1",
            "gce://shop/n-1",
            "gce://a/b/c/d",
            "gce://a//c",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(of("gce://shop/zone/../n"), None);
        assert_eq!(of("gce://shop/zone/n?x"), None);
    }

    #[test]
    fn a_disk_is_where_its_volume_says_or_else_where_the_machine_is() {
        let instance = Instance::of(&node("gce://shop/us-east1-b/n-1")).unwrap();
        let zone = "topology.kubernetes.io/zone";
        for (labels, found) in [
            (json!({}), Some("projects/shop/zones/us-east1-b/disks/d")),
            (
                json!({zone: "us-east1-c"}),
                Some("projects/shop/zones/us-east1-c/disks/d"),
            ),
            (
                json!({zone: "us-east1-b__us-east1-c"}),
                Some("projects/shop/regions/us-east1/disks/d"),
            ),
            (json!({zone: "us-east1-b__us-west1-c"}), None),
        ] {
            let disk = Disk::of(&volume("d", &labels), &instance);
            assert_eq!(disk.map(|disk| disk.to_string()).as_deref(), found);
        }
        assert_eq!(Disk::of(&volume("../../d", &json!({})), &instance), None);
    }
}
