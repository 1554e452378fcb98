//! Where a volume's data is: the sources of a PersistentVolume.

use serde_json::{Map, Value, json};

use super::check::{Check, Field, default_to, entries, is_empty, items, text};
use super::names;

/// All sources, in the order in which the API looks at them.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Sources that know the old annotation with mount options (V4).
const WITH_MOUNT_OPTIONS: [&str; 13] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// The source fields of a spec, nothing else.
pub(super) fn of(spec: &Value) -> Value {
    entries(spec)
        .filter(|(name, value)| SOURCES.contains(name) && !value.is_null())
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect::<Map<_, _>>()
        .into()
}

pub(super) fn takes_mount_options(spec: &Value) -> bool {
    WITH_MOUNT_OPTIONS.iter().any(|name| !spec[*name].is_null())
}

/// Fills what a source leaves open.
pub(super) fn default(spec: &mut Value) {
    let defaults: [(&str, &str, Value); 10] = [
        ("hostPath", "type", json!("")),
        ("iscsi", "iscsiInterface", json!("default")),
        ("rbd", "pool", json!("rbd")),
        ("rbd", "user", json!("admin")),
        ("rbd", "keyring", json!("/etc/ceph/keyring")),
        ("azureDisk", "cachingMode", json!("ReadWrite")),
        ("azureDisk", "kind", json!("Shared")),
        ("azureDisk", "fsType", json!("ext4")),
        ("azureDisk", "readOnly", json!(false)),
        ("scaleIO", "storageMode", json!("ThinProvisioned")),
    ];
    for (source, field, value) in defaults {
        if spec[source].is_object() {
            default_to(&mut spec[source], field, value);
        }
    }
    if spec["scaleIO"].is_object() {
        default_to(&mut spec["scaleIO"], "fsType", "xfs");
    }
}

/// V2: exactly one source, and one that can be meant.
pub(super) fn check(spec: &Value, field: &Field, check: &mut Check) {
    let mut found = false;
    for name in SOURCES.into_iter().filter(|name| !spec[*name].is_null()) {
        let source_field = field.child(name);
        if found {
            check.forbidden(&source_field, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        check_source(name, &spec[name], &source_field, field, check);
        if name == "local" && spec["nodeAffinity"].is_null() {
            let detail = "Local volume requires node affinity";
            check.required(&field.child("nodeAffinity"), detail);
        }
    }
    if !found {
        check.required(field, "must specify a volume type");
    }
    let path = text(&spec["hostPath"]["path"]);
    if is_root(path) && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        check.forbidden(
            &field.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
}

fn check_source(name: &str, source: &Value, field: &Field, spec: &Field, check: &mut Check) {
    match name {
        "hostPath" => host_path(source, field, check),
        "local" => {
            check.text(&source["path"], &field.child("path"));
            no_backsteps(&source["path"], &field.child("path"), check);
        }
        "nfs" => nfs(source, field, check),
        "csi" => csi(source, field, check),
        // The API calls this one by another name.
        "gcePersistentDisk" => {
            check.text(
                &source["pdName"],
                &spec.child("persistentDisk").child("pdName"),
            );
        }
        _ => {
            for required in required_fields(name) {
                if is_empty(&source[*required]) {
                    check.required(&field.child(required), "");
                }
            }
        }
    }
}

/// What must not be missing in the sources that no role here reads.
fn required_fields(source: &str) -> &'static [&'static str] {
    match source {
        "awsElasticBlockStore" | "cinder" => &["volumeID"],
        "glusterfs" => &["endpoints", "path"],
        "rbd" => &["monitors", "image"],
        "quobyte" => &["registry", "volume"],
        "cephfs" => &["monitors"],
        "iscsi" => &["targetPortal", "iqn"],
        "flexVolume" => &["driver"],
        "azureFile" => &["secretName", "shareName"],
        "azureDisk" => &["diskName", "diskURI"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "portworxVolume" => &["volumeID"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        _ => &[],
    }
}

/// A directory of the node, in a volume or in a pod.
pub(super) fn host_path(source: &Value, field: &Field, check: &mut Check) {
    check.text(&source["path"], &field.child("path"));
    if !is_empty(&source["path"]) {
        no_backsteps(&source["path"], &field.child("path"), check);
        check.one_of(&source["type"], &field.child("type"), &HOST_PATH_TYPES);
    }
}

/// An export, in a volume or in a pod.
pub(super) fn nfs(source: &Value, field: &Field, check: &mut Check) {
    check.text(&source["server"], &field.child("server"));
    check.text(&source["path"], &field.child("path"));
    let path = text(&source["path"]);
    if !path.starts_with('/') {
        check.invalid(&field.child("path"), path, "must be an absolute path");
    }
}

fn csi(source: &Value, field: &Field, check: &mut Check) {
    driver_name(&source["driver"], &field.child("driver"), check);
    check.text(&source["volumeHandle"], &field.child("volumeHandle"));
    for name in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let (secret, field) = (&source[name], field.child(name));
        if secret.is_null() {
            continue;
        }
        for (part, rule) in [
            ("name", names::subdomain as names::NameRule),
            ("namespace", names::label),
        ] {
            match text(&secret[part]) {
                "" => check.required(&field.child(part), ""),
                given => check.complaints(&field.child(part), given, rule(given)),
            }
        }
    }
}

/// The name of a CSI driver, where an object refers to one.
pub(super) fn driver_name(name: &Value, field: &Field, check: &mut Check) {
    let name = text(name);
    if name.is_empty() {
        check.required(field, "");
        return;
    }
    if name.len() > 63 {
        check.too_long(field, 63);
    }
    check.complaints(field, name, names::subdomain(&name.to_lowercase()));
}

/// A path that nobody can climb out of.
pub(super) fn no_backsteps(path: &Value, field: &Field, check: &mut Check) {
    let path = text(path);
    if path.split('/').any(|step| step == "..") {
        check.invalid(field, path, "must not contain '..'");
    }
}

fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|step| matches!(step, "" | "."))
}

/// A value as Go prints the API's internal structs: field names in upper case, absent lists as null.
pub(super) fn go_names(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut renamed: Map<_, _> = fields
                .iter()
                .map(|(name, value)| {
                    let mut letters = name.chars();
                    let first = letters.next().map(|first| first.to_ascii_uppercase());
                    (first.into_iter().chain(letters).collect(), go_names(value))
                })
                .collect();
            if renamed.contains_key("MatchExpressions") || renamed.contains_key("MatchFields") {
                for list in ["MatchExpressions", "MatchFields"] {
                    renamed.entry(list).or_insert(Value::Null);
                }
            }
            renamed.into()
        }
        Value::Array(_) => items(value).iter().map(go_names).collect(),
        other => other.clone(),
    }
}
