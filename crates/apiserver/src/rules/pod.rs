//! Pod: as much as the storage side of one needs. Probes, security, networks and resources beyond
//! the defaults are taken as they come.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::check::{Check, Field, default_to, difference, entries, is_empty, items, same, text};
use super::{Cluster, Rules, amounts, claim, meta, names, source};
use crate::status::{Part, Status};

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
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// The file mode of what the kubelet writes into a volume: 0644.
const MODE: u32 = 0o644;
const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) struct Pod;

impl Rules for Pod {
    fn namespaced(&self) -> bool {
        true
    }

    fn default(&self, pod: &mut Value) -> Result<(), String> {
        let spec = &mut pod["spec"];
        for (name, value) in [
            ("restartPolicy", json!("Always")),
            ("dnsPolicy", json!("ClusterFirst")),
            ("schedulerName", json!("default-scheduler")),
            ("terminationGracePeriodSeconds", json!(30)),
            ("securityContext", json!({})),
            ("enableServiceLinks", json!(true)),
        ] {
            default_to(spec, name, value);
        }
        if spec["terminationGracePeriodSeconds"]
            .as_i64()
            .is_some_and(|seconds| seconds < 0)
        {
            spec["terminationGracePeriodSeconds"] = 1.into();
        }
        for (from, to) in [
            ("serviceAccountName", "serviceAccount"),
            ("serviceAccount", "serviceAccountName"),
        ] {
            if !is_empty(&spec[from]) {
                spec[to] = spec[from].clone();
            }
        }
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|_, value| !value.is_null());
        }
        for list in CONTAINERS {
            for container in spec
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                default_container(container)?;
            }
        }
        for volume in spec
            .get_mut("volumes")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            default_volume(volume)?;
        }
        Ok(())
    }

    fn admit_create(&self, pod: &mut Value, _: &dyn Cluster) -> Result<(), Status> {
        let spec = &mut pod["spec"];
        default_to(spec, "priority", 0);
        default_to(spec, "preemptionPolicy", "PreemptLowerPriority");
        tolerate_a_while(spec);
        Ok(())
    }

    fn prepare_create(&self, pod: &mut Value, _: &str) {
        let class = quality(&pod["spec"]);
        pod["status"] = json!({"phase": "Pending", "qosClass": class});
    }

    /// A pod's status cannot lose its class, and who owns the pod is not told there.
    fn prepare_update(&self, old: &Value, new: &mut Value, part: Part, _: &str) {
        if part == Part::Main {
            tolerate_a_while(&mut new["spec"]);
        } else {
            default_to(
                &mut new["status"],
                "qosClass",
                old["status"]["qosClass"].clone(),
            );
            match old["metadata"].get("ownerReferences") {
                Some(owners) => new["metadata"]["ownerReferences"] = owners.clone(),
                None => drop_field(&mut new["metadata"], "ownerReferences"),
            }
        }
    }

    fn check(&self, pod: &Value, check: &mut Check) {
        let (spec, field) = (&pod["spec"], Field::of("spec"));
        let volumes = check_volumes(&spec["volumes"], &field.child("volumes"), check);
        if items(&spec["containers"]).is_empty() {
            check.required(&field.child("containers"), "");
        }
        let mut known = BTreeSet::new();
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for (index, container) in items(&spec[list]).iter().enumerate() {
                let field = field.child(list).index(index);
                check_container(container, &volumes, &field, check);
                if !known.insert(text(&container["name"])) {
                    check.duplicate(&field.child("name"), container["name"].clone(), "");
                }
            }
        }
        check.one_of(
            &spec["restartPolicy"],
            &field.child("restartPolicy"),
            &["Always", "OnFailure", "Never"],
        );
        check.one_of(
            &spec["dnsPolicy"],
            &field.child("dnsPolicy"),
            &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        );
        meta::labels(&spec["nodeSelector"], &field.child("nodeSelector"), check);
        let group = &spec["securityContext"]["fsGroup"];
        if group
            .as_i64()
            .is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id))
        {
            check.invalid(
                &field.child("securityContext").child("fsGroup"),
                group.clone(),
                "must be between 0 and 2147483647, inclusive",
            );
        }
        for name in ["serviceAccountName", "nodeName"] {
            let given = text(&spec[name]);
            if !given.is_empty() {
                check.complaints(&field.child(name), given, names::subdomain(given));
            }
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        let (old, mut new, field) = (&old["spec"], new["spec"].clone(), Field::of("spec"));
        for list in ["containers", "initContainers"] {
            let (old, new) = (items(&old[list]), items(&new[list]));
            if old.len() != new.len() {
                let detail = "pod updates may not add or remove containers";
                check.forbidden(&field.child(list), detail);
                return;
            }
        }
        let deadline = "activeDeadlineSeconds";
        match (old[deadline].as_i64(), new[deadline].as_i64()) {
            (Some(old), Some(new)) if new > old => {
                let detail = "must be less than or equal to previous value";
                check.invalid(&field.child(deadline), new, detail);
            }
            (Some(_), None) => {
                let detail = "must not update from a positive integer to nil value";
                check.invalid(&field.child(deadline), Value::Null, detail);
            }
            _ => {}
        }
        let kept = |old: &Value| items(&new["tolerations"]).iter().any(|new| same(old, new));
        if !items(&old["tolerations"]).iter().all(kept) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            check.forbidden(&field.child("tolerations"), detail);
        }
        take_changeable(old, &mut new);
        if !same(old, &new) {
            let detail = format!("{CHANGEABLE}\n{}", difference(old, &new));
            check.forbidden(&field, &detail);
        }
    }
}

/// Pods stay for five minutes on a node that went away (DefaultTolerationSeconds).
fn tolerate_a_while(spec: &mut Value) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let toleration = json!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
        });
        match &mut spec["tolerations"] {
            Value::Array(known) => {
                let covers = |known: &Value| {
                    matches!(text(&known["effect"]), "" | "NoExecute")
                        && (known["key"] == key || is_empty(&known["key"]))
                };
                if !known.iter().any(covers) {
                    known.push(toleration);
                }
            }
            none => *none = json!([toleration]),
        }
    }
}

/// Makes equal what may differ.
fn take_changeable(old: &Value, new: &mut Value) {
    for list in ["containers", "initContainers"] {
        let new = new
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for (old, new) in items(&old[list]).iter().zip(new) {
            new["image"] = old["image"].clone();
        }
    }
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        match old.get(name) {
            Some(value) => new[name] = value.clone(),
            None => drop_field(new, name),
        }
    }
    let grace = "terminationGracePeriodSeconds";
    if old[grace].as_i64().is_some_and(|seconds| seconds < 0) && new[grace] == 1 {
        new[grace] = old[grace].clone();
    }
}

fn drop_field(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}

fn default_container(container: &mut Value) -> Result<(), String> {
    default_to(container, "resources", json!({}));
    amounts::canonicalize_resources(&mut container["resources"])?;
    limits_are_requests(&mut container["resources"]);
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    let policy = if is_latest(text(&container["image"])) {
        "Always"
    } else {
        "IfNotPresent"
    };
    default_to(container, "imagePullPolicy", policy);
    let list = |container: &mut Value, name: &str, default: fn(&mut Value)| {
        let items = container.get_mut(name).and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(default);
    };
    list(container, "ports", |port| {
        default_to(port, "protocol", "TCP")
    });
    list(container, "env", |variable| {
        if variable["valueFrom"]["fieldRef"].is_object() {
            default_to(&mut variable["valueFrom"]["fieldRef"], "apiVersion", "v1");
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name) {
            let defaults = [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ];
            for (name, value) in defaults {
                default_to(probe, name, value);
            }
            if probe["httpGet"].is_object() {
                default_to(&mut probe["httpGet"], "path", "/");
                default_to(&mut probe["httpGet"], "scheme", "HTTP");
            }
        }
    }
    Ok(())
}

/// What is limited and not requested is requested as far as it is limited.
fn limits_are_requests(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    for (name, limit) in limits {
        default_to(&mut resources["requests"], &name, limit);
    }
}

/// Whether an image may change under its name.
fn is_latest(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or_default();
    !image.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_volume(volume: &mut Value) -> Result<(), String> {
    if !SOURCES.iter().any(|name| volume.get(*name).is_some()) {
        volume["emptyDir"] = json!({});
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(files) = volume.get_mut(name) {
            default_to(files, "defaultMode", MODE);
            default_field_references(&mut files["items"]);
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
            default_field_references(&mut files["items"]);
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
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(files) = volume.get_mut(name).and_then(Value::as_object_mut) {
            files.retain(|_, value| !value.is_null());
        }
    }
    Ok(())
}

fn default_field_references(files: &mut Value) {
    for file in files.as_array_mut().into_iter().flatten() {
        if file["fieldRef"].is_object() {
            default_to(&mut file["fieldRef"], "apiVersion", "v1");
        }
    }
}

/// Returns the volumes that containers may name.
fn check_volumes<'a>(volumes: &'a Value, field: &Field, check: &mut Check) -> Vec<&'a Value> {
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

fn check_container(container: &Value, volumes: &[&Value], field: &Field, check: &mut Check) {
    let (name, name_field) = (text(&container["name"]), field.child("name"));
    if name.is_empty() {
        check.required(&name_field, "");
    } else {
        check.complaints(&name_field, name, names::label(name));
    }
    let (image, image_field) = (text(&container["image"]), field.child("image"));
    if image.is_empty() {
        check.required(&image_field, "");
    } else if image.trim() != image {
        check.invalid(
            &image_field,
            image,
            "must not have leading or trailing whitespace",
        );
    }
    for (index, variable) in items(&container["env"]).iter().enumerate() {
        let (name, field) = (
            text(&variable["name"]),
            field.child("env").index(index).child("name"),
        );
        if name.is_empty() {
            check.required(&field, "");
        } else if !name
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
        {
            let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            check.invalid(&field, name, detail);
        }
    }
    check_mounts(container, volumes, &field.child("volumeMounts"), check);
    check_devices(container, volumes, &field.child("volumeDevices"), check);
    check_requests(&container["resources"], &field.child("resources"), check);
}

fn check_mounts(container: &Value, volumes: &[&Value], field: &Field, check: &mut Check) {
    let mut paths = BTreeSet::new();
    for (index, mount) in items(&container["volumeMounts"]).iter().enumerate() {
        let (name, path) = (text(&mount["name"]), text(&mount["mountPath"]));
        let (name_field, path_field) = (
            field.index(index).child("name"),
            field.index(index).child("mountPath"),
        );
        check.text(&mount["name"], &name_field);
        if !volumes.iter().any(|volume| volume["name"] == name) {
            check.not_found(&name_field, name);
        }
        check.text(&mount["mountPath"], &path_field);
        if !paths.insert(path) {
            check.invalid(&path_field, path, "must be unique");
        }
        for device in items(&container["volumeDevices"]) {
            if device["name"] == name {
                check.invalid(&name_field, name, "must not already exist in volumeDevices");
            }
            if device["devicePath"] == path {
                let detail = "must not already exist as a path in volumeDevices";
                check.invalid(&path_field, path, detail);
            }
        }
        for name in ["subPath", "subPathExpr"] {
            let (path, field) = (text(&mount[name]), field.child(name));
            if path.starts_with('/') {
                check.invalid(&field, path, "must be a relative path");
            }
            source::no_backsteps(&mount[name], &field, check);
        }
    }
}

fn check_devices(container: &Value, volumes: &[&Value], field: &Field, check: &mut Check) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in items(&container["volumeDevices"]).iter().enumerate() {
        let (name, path) = (text(&device["name"]), text(&device["devicePath"]));
        let (name_field, path_field) = (
            field.index(index).child("name"),
            field.index(index).child("devicePath"),
        );
        check.text(&device["name"], &name_field);
        if !names.insert(name) {
            check.invalid(&name_field, name, "must be unique");
        }
        match volumes.iter().find(|volume| volume["name"] == name) {
            None => check.not_found(&name_field, name),
            Some(volume)
                if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() =>
            {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                check.invalid(&name_field, name, detail);
            }
            Some(_) => {}
        }
        check.text(&device["devicePath"], &path_field);
        if !paths.insert(path) {
            check.invalid(&path_field, path, "must be unique");
        }
        if path.split('/').any(|step| step == "..") {
            check.invalid(&path_field, path, "can not contain backsteps ('..')");
        }
        for mount in items(&container["volumeMounts"]) {
            if mount["name"] == name {
                check.invalid(&name_field, name, "must not already exist in volumeMounts");
            }
            if mount["mountPath"] == path {
                let detail = "must not already exist as a path in volumeMounts";
                check.invalid(&path_field, path, detail);
            }
        }
    }
}

fn check_requests(resources: &Value, field: &Field, check: &mut Check) {
    for (name, request) in entries(&resources["requests"]) {
        let limit = &resources["limits"][name];
        if let (Some(asked), Some(most)) = (amounts::amount(request), amounts::amount(limit))
            && asked > most
        {
            let detail = format!(
                "must be less than or equal to {name} limit of {}",
                text(limit)
            );
            check.invalid(&field.child("requests"), text(request), &detail);
        }
    }
}

/// How well a pod is guarded against eviction: by what its containers ask for.
fn quality(spec: &Value) -> &'static str {
    let containers = || {
        CONTAINERS
            .iter()
            .take(2)
            .flat_map(|list| items(&spec[*list]))
    };
    let asks = |container: &Value| {
        ["limits", "requests"].iter().any(|part| {
            ["cpu", "memory"]
                .iter()
                .any(|name| !is_empty(&container["resources"][*part][*name]))
        })
    };
    let bounded = |container: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = &container["resources"]["limits"][*name];
            !limit.is_null() && *limit == container["resources"]["requests"][*name]
        })
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(bounded) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
