//! The registry: every kind this API serves. Adding a kind is one entry in [`ALL`].

use k8s_openapi::Resource;
use k8s_openapi::api::{coordination, core, events, storage};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The verbs of every kind here.
const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Is told of every field that a type does not have.
pub(crate) type OnUnknown<'a> = &'a mut dyn FnMut(serde_ignored::Path<'_>);
type Read = fn(&Value, OnUnknown<'_>) -> serde_json::Result<()>;

/// A namespace goes alone.
const NAMESPACE_VERBS: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];

/// What the API must know of a kind to serve it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Name of the kind, for example `PersistentVolume`.
    pub kind: &'static str,
    /// Name in paths, for example `persistentvolumes`.
    pub plural: &'static str,
    /// Name for people, for example `persistentvolume`.
    pub singular: &'static str,
    /// What kubectl's users type, for example `pv`.
    pub short_names: &'static [&'static str],
    /// Groups such as `all` that kubectl expands.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether there is a `/status` subresource, which alone writes the status.
    pub has_status: bool,
    /// The verbs that discovery names.
    pub verbs: &'static [&'static str],
    /// The generation of a new object, for kinds whose specs the API counts. None is shown for 0.
    pub(crate) first_generation: Option<i64>,
    /// Whether a PUT without resourceVersion overwrites whatever is stored.
    pub(crate) unconditional_update: bool,
    /// Whether a PUT of a name that is free creates.
    pub(crate) create_on_update: bool,
    /// Whether a delete gives the object time, and marks it before it removes it.
    pub(crate) graceful: bool,
    /// Whether a delete that is done at once answers the object instead of a Status.
    pub(crate) returns_deleted: bool,
    /// Where the objects are kept: the same place for kinds that are two views of one object.
    pub(crate) stored_as: (&'static str, &'static str),
    /// Reads an object as the typed API would: calls back for every field that the type does not have.
    pub(crate) read: Read,
}

impl Kind {
    const fn of<T: Resource + DeserializeOwned>(
        plural: &'static str,
        singular: &'static str,
    ) -> Self {
        Self {
            group: T::GROUP,
            version: T::VERSION,
            kind: T::KIND,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: false,
            has_status: false,
            verbs: VERBS,
            first_generation: None,
            unconditional_update: true,
            create_on_update: false,
            graceful: false,
            returns_deleted: false,
            stored_as: (T::GROUP, plural),
            read: read::<T>,
        }
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    const fn namespaced(mut self) -> Self {
        self.namespaced = true;
        self
    }

    const fn with_status(mut self) -> Self {
        self.has_status = true;
        self
    }

    const fn in_all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn counting_generations_from(mut self, first: i64) -> Self {
        self.first_generation = Some(first);
        self
    }

    const fn needing_version(mut self) -> Self {
        self.unconditional_update = false;
        self
    }

    const fn creating_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    const fn graceful(mut self) -> Self {
        self.graceful = true;
        self
    }

    const fn only(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    const fn returning_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    const fn stored_as(mut self, group: &'static str, plural: &'static str) -> Self {
        self.stored_as = (group, plural);
        self
    }

    /// `v1` or `storage.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether this entry is the view in which objects are kept.
    pub(crate) fn is_stored_view(&self) -> bool {
        self.stored_as.0 == self.group
    }

    /// The kind served at a path's group, version and plural.
    pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        ALL.iter()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.plural) == (other.group, other.version, other.plural)
    }
}

impl Eq for Kind {}

fn read<T: DeserializeOwned>(object: &Value, unknown: OnUnknown<'_>) -> serde_json::Result<()> {
    serde_ignored::deserialize::<_, _, T>(object, unknown).map(drop)
}

/// Every kind, in the order of discovery.
pub static ALL: &[Kind] = &[
    Kind::of::<core::v1::ConfigMap>("configmaps", "configmap")
        .short(&["cm"])
        .namespaced(),
    Kind::of::<core::v1::Event>("events", "event")
        .short(&["ev"])
        .namespaced()
        .creating_on_update(),
    Kind::of::<core::v1::Namespace>("namespaces", "namespace")
        .short(&["ns"])
        .only(NAMESPACE_VERBS)
        .with_status(),
    Kind::of::<core::v1::Node>("nodes", "node")
        .short(&["no"])
        .with_status(),
    Kind::of::<core::v1::PersistentVolumeClaim>("persistentvolumeclaims", "persistentvolumeclaim")
        .short(&["pvc"])
        .namespaced()
        .with_status()
        .returning_deleted(),
    Kind::of::<core::v1::PersistentVolume>("persistentvolumes", "persistentvolume")
        .short(&["pv"])
        .with_status()
        .returning_deleted(),
    Kind::of::<core::v1::Pod>("pods", "pod")
        .short(&["po"])
        .namespaced()
        .with_status()
        .in_all()
        .counting_generations_from(1)
        .graceful()
        .returning_deleted(),
    Kind::of::<core::v1::Secret>("secrets", "secret").namespaced(),
    Kind::of::<core::v1::ServiceAccount>("serviceaccounts", "serviceaccount")
        .short(&["sa"])
        .namespaced()
        .returning_deleted(),
    Kind::of::<coordination::v1::Lease>("leases", "lease")
        .namespaced()
        .creating_on_update()
        .needing_version(),
    Kind::of::<events::v1::Event>("events", "event")
        .short(&["ev"])
        .namespaced()
        .creating_on_update()
        .stored_as("", "events"),
    Kind::of::<storage::v1::CSIDriver>("csidrivers", "csidriver")
        .counting_generations_from(0)
        .needing_version()
        .returning_deleted(),
    Kind::of::<storage::v1::CSINode>("csinodes", "csinode")
        .needing_version()
        .returning_deleted(),
    Kind::of::<storage::v1::CSIStorageCapacity>("csistoragecapacities", "csistoragecapacity")
        .namespaced()
        .needing_version(),
    Kind::of::<storage::v1::StorageClass>("storageclasses", "storageclass")
        .short(&["sc"])
        .returning_deleted(),
    Kind::of::<storage::v1::VolumeAttachment>("volumeattachments", "volumeattachment")
        .with_status()
        .needing_version()
        .returning_deleted(),
    Kind::of::<storage::v1::VolumeAttributesClass>(
        "volumeattributesclasses",
        "volumeattributesclass",
    )
    .short(&["vac"])
    .returning_deleted(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_one_kind_each() {
        for kind in ALL {
            assert_eq!(
                Kind::find(kind.group, kind.version, kind.plural),
                Some(kind)
            );
        }
        assert_eq!(Kind::find("", "v1", "widgets"), None);
    }
}
