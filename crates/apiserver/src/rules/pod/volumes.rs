//! The volumes of a pod.

use serde_json::{Value, json};

use crate::rules::check::{Check, Field, default_to, items, text};
use crate::rules::{amounts, claim, names, source};

/// The sources of a pod's volume.
const SOURCES: [&str; 31] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "configMap",
    "azureFile",
    "flexVolume",
    "vsphereVolume",
    "quobyte",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "storageos",
    "projected",
    "csi",
    "ephemeral",
    "image",
    "podCertificate",
];

/// The file mode of what the kubelet writes into a volume: 0644.
const MODE: u32 = 0o644;

/// Fills what a volume leaves open.
pub(super) fn default(volume: &mut Value) -> Result<(), String> {
    if !SOURCES.iter().any(|name| volume.get(*name).is_some()) {
        volume["emptyDir"] = json!({});
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(files) = volume.get_mut(name) {
            default_to(files, "defaultMode", MODE);
            default_field_references(files);
        }
    }
    let sources = volume
        .get_mut("projected")
        .and_then(|projected| projected.get_mut("sources"));
    for source in sources.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(token) = source.get_mut("serviceAccountToken") {
            default_to(token, "expirationSeconds", 3600);
        }
        if let Some(files) = source.get_mut("downwardAPI") {
            default_field_references(files);
        }
    }
    if let Some(directory) = volume.get_mut("hostPath") {
        default_to(directory, "type", "");
    }
    if let Some(limit) = volume
        .get_mut("emptyDir")
        .and_then(|directory| directory.get_mut("sizeLimit"))
    {
        amounts::canonicalize(limit)?;
    }
    if let Some(template) = volume
        .get_mut("ephemeral")
        .and_then(|source| source.get_mut("volumeClaimTemplate"))
    {
        default_to(template, "metadata", json!({}));
        claim::default_spec(&mut template["spec"])?;
    }
    Ok(())
}

/// The items of a volume or of a part of one.
fn default_field_references(files: &mut Value) {
    for file in files
        .get_mut("items")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if file["fieldRef"].is_object() {
            default_to(&mut file["fieldRef"], "apiVersion", "v1");
        }
    }
}

/// Returns the volumes that containers may name.
pub(super) fn check<'a>(volumes: &'a Value, field: &Field, check: &mut Check) -> Vec<&'a Value> {
    let mut good: Vec<&Value> = Vec::new();
    for (index, volume) in items(volumes).iter().enumerate() {
        let (field, mut wrong) = (field.index(index), Check::default());
        check_source(volume, &field, &mut wrong);
        let (name, name_field) = (text(&volume["name"]), field.child("name"));
        if name.is_empty() {
            wrong.required(&name_field, "");
        } else {
            wrong.complaints(&name_field, name, names::label(name));
        }
        if good.iter().any(|known| known["name"] == name) {
            wrong.duplicate(&name_field, name, "");
        }
        let causes = wrong.into_causes();
        if causes.is_empty() {
            good.push(volume);
        }
        check.take(causes);
    }
    good
}

fn check_source(volume: &Value, field: &Field, check: &mut Check) {
    let given: Vec<&str> = SOURCES
        .into_iter()
        .filter(|name| !volume[*name].is_null())
        .collect();
    for name in given.iter().skip(1) {
        check.forbidden(
            &field.child(name),
            "may not specify more than 1 volume type",
        );
    }
    let Some(first) = given.first() else {
        check.required(field, "must specify a volume type");
        return;
    };
    let (source, field) = (&volume[*first], field.child(first));
    match *first {
        "persistentVolumeClaim" => check.text(&source["claimName"], &field.child("claimName")),
        "hostPath" => source::host_path(source, &field, check),
        "nfs" => source::nfs(source, &field, check),
        "secret" => check.text(&source["secretName"], &field.child("secretName")),
        "configMap" => check.text(&source["name"], &field.child("name")),
        "csi" => source::driver_name(&source["driver"], &field.child("driver"), check),
        "ephemeral" => {
            let template = field.child("volumeClaimTemplate");
            if source["volumeClaimTemplate"].is_null() {
                check.required(&template, "");
            } else {
                let spec = &source["volumeClaimTemplate"]["spec"];
                claim::check_spec(spec, &template.child("spec"), check);
            }
        }
        _ => {}
    }
}
