//! PersistentVolumeClaim: V5 to V10.

use serde_json::{Value, json};

use super::amounts::{self, amount};
use super::check::{Check, Field, default_to, difference, entries, is_empty, same, text};
use super::volume::{VOLUME_MODES, access_modes};
use super::{Cluster, Rules, names, protect, selectors};
use crate::status::{About, Part, Status};

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

pub(super) struct Claim;

impl Rules for Claim {
    fn namespaced(&self) -> bool {
        true
    }

    fn default(&self, claim: &mut Value) -> Result<(), String> {
        default_spec(&mut claim["spec"])?;
        if let Some(status) = claim.get_mut("status") {
            default_to(status, "phase", "Pending");
            for field in ["capacity", "allocatedResources"] {
                if let Some(map) = status.get_mut(field) {
                    amounts::canonicalize_all(map)?;
                }
            }
        }
        Ok(())
    }

    fn admit_create(&self, claim: &mut Value, cluster: &dyn Cluster) -> Result<(), Status> {
        protect(claim, "kubernetes.io/pvc-protection");
        if claim["spec"]["storageClassName"].is_null()
            && claim["metadata"]["annotations"][OLD_CLASS].is_null()
            && let Some(class) = default_class(cluster)
        {
            claim["spec"]["storageClassName"] = class.into();
        }
        Ok(())
    }

    fn admit_update(&self, old: &Value, new: &Value, cluster: &dyn Cluster) -> Result<(), Status> {
        if size(new) <= size(old) {
            return Ok(());
        }
        let refuse = |why| {
            let about = About {
                group: "",
                what: "persistentvolumeclaims",
                name: text(&new["metadata"]["name"]),
            };
            Err(Status::forbidden(about, why))
        };
        if old["status"]["phase"] != "Bound" {
            return refuse("Only bound persistent volume claims can be expanded");
        }
        let class = class(new);
        let may_grow = !class.is_empty()
            && class == self::class(old)
            && cluster
                .get("storageclasses", "", class)
                .is_some_and(|class| class["allowVolumeExpansion"] == json!(true));
        if !may_grow {
            return refuse(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            );
        }
        Ok(())
    }

    fn prepare_create(&self, claim: &mut Value, _: &str) {
        claim["status"] = json!({"phase": "Pending"});
        mirror_data_sources(&mut claim["spec"]);
    }

    fn prepare_update(&self, old: &Value, new: &mut Value, part: Part, _: &str) {
        if part == Part::Main {
            mirror_data_sources(&mut new["spec"]);
        } else if !old["status"].is_null() {
            default_to(&mut new["status"], "phase", "Pending");
        }
    }

    fn check(&self, claim: &Value, check: &mut Check) {
        check_spec(&claim["spec"], &Field::of("spec"), check);
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        check_spec_unchanged(old, new, check);
        let (old_size, new_size) = (size(old), size(new));
        if new_size < old_size
            && new_size
                <= amount(&new["status"]["capacity"]["storage"]).or(Some(bitts_api::Quantity::ZERO))
        {
            check.forbidden(
                &Field::of("spec.resources.requests.storage"),
                "field can not be less than status.capacity",
            );
        }
        let (old_spec, new_spec) = (&old["spec"], &new["spec"]);
        check.unchanged(
            &old_spec["volumeMode"],
            &new_spec["volumeMode"],
            &Field::of("volumeMode"),
        );
        let class = "volumeAttributesClassName";
        if old_spec[class] != new_spec[class]
            && !old["status"]["currentVolumeAttributesClassName"].is_null()
            && is_empty(&new_spec[class])
        {
            let what = if new_spec[class].is_null() {
                "nil"
            } else {
                "empty string"
            };
            check.forbidden(
                &Field::of("spec").child(class),
                &format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"),
            );
        }
    }

    fn check_status(&self, _: &Value, new: &Value, check: &mut Check) {
        let (field, status) = (Field::of("status"), &new["status"]);
        amounts::all_valid(&status["capacity"], &field.child("capacity"), check);
        let states = field.child("allocatedResourceStatuses");
        for (key, state) in entries(&status["allocatedResourceStatuses"]) {
            resource_name(key, &states, check);
            if !RESIZE_STATES.contains(&text(state)) {
                check.unsupported(&states, &key.into(), &RESIZE_STATES);
            }
        }
        let allocated = field.child("allocatedResources");
        for (key, value) in entries(&status["allocatedResources"]) {
            if resource_name(key, &allocated, check) {
                amounts::valid(value, &allocated.key(key), check);
            }
        }
    }

    fn warnings(&self, claim: &Value) -> Vec<String> {
        entries(&claim["spec"]["resources"]["requests"])
            .filter(|(key, value)| *key == "storage" && text(value).ends_with(['m', 'u', 'n']))
            .map(|(key, value)| {
                format!("spec.resources.requests[{key}]: fractional byte value {value} is invalid, must be an integer")
            })
            .collect()
    }
}

/// Defaults of a claim's spec, its own or in a pod's template.
pub(super) fn default_spec(spec: &mut Value) -> Result<(), String> {
    default_to(spec, "volumeMode", "Filesystem");
    amounts::canonicalize_resources(&mut spec["resources"])?;
    if spec["resources"].is_null() {
        spec["resources"] = json!({});
    }
    Ok(())
}

/// What must hold of a claim's spec, its own or in a pod's template.
pub(super) fn check_spec(spec: &Value, field: &Field, check: &mut Check) {
    if is_empty(&spec["accessModes"]) {
        check.required(
            &field.child("accessModes"),
            "at least 1 access mode is required",
        );
    }
    selectors::label_selector(&spec["selector"], &field.child("selector"), check);
    access_modes(&spec["accessModes"], &field.child("accessModes"), check);
    let (request, request_field) = (
        &spec["resources"]["requests"]["storage"],
        field.child("resources").key("storage"),
    );
    if request.is_null() {
        check.required(&request_field, "");
    }
    amounts::positive(request, &request_field, check);
    let name_of = |name: &str, check: &mut Check| {
        let class = text(&spec[name]);
        if !class.is_empty() {
            check.complaints(&field.child(name), class, names::subdomain(class));
        }
    };
    name_of("storageClassName", check);
    check.one_of(
        &spec["volumeMode"],
        &field.child("volumeMode"),
        &VOLUME_MODES,
    );
    for name in ["dataSource", "dataSourceRef"] {
        if !spec[name].is_null() {
            data_source(&spec[name], &field.child(name), check);
        }
    }
    data_sources_agree(spec, field, check);
    name_of("volumeAttributesClassName", check);
}

fn data_source(source: &Value, field: &Field, check: &mut Check) {
    check.text(&source["name"], &field.child("name"));
    check.text(&source["kind"], &field.child("kind"));
    let (group, kind) = (text(&source["apiGroup"]), text(&source["kind"]));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        check.invalid(field, kind, detail);
    }
    if !group.is_empty() {
        check.complaints(&field.child("apiGroup"), group, names::subdomain(group));
    }
    let namespace = text(&source["namespace"]);
    if !namespace.is_empty() {
        check.complaints(
            &field.child("namespace"),
            namespace,
            names::label(namespace),
        );
    }
}

/// V6: two names for one source must name the same one.
fn data_sources_agree(spec: &Value, field: &Field, check: &mut Check) {
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if source.is_null() || reference.is_null() {
        return;
    }
    // The API prints the path itself, which is an empty object.
    if !is_empty(&reference["namespace"]) {
        check.invalid(
            field,
            json!({}),
            "may not be specified when dataSourceRef.namespace is specified",
        );
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|name| source[*name] != reference[*name])
    {
        check.invalid(field, json!({}), "must match dataSourceRef");
    }
}

/// Copies each kind of data source to the other, and forgets one that nothing can read.
fn mirror_data_sources(spec: &mut Value) {
    if !spec["dataSource"].is_null() && spec["dataSourceRef"].is_null() {
        let (group, kind) = (
            text(&spec["dataSource"]["apiGroup"]),
            text(&spec["dataSource"]["kind"]),
        );
        let known = matches!(
            (group, kind),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        );
        if known {
            spec["dataSourceRef"] = spec["dataSource"].clone();
        } else if let Some(fields) = spec.as_object_mut() {
            fields.remove("dataSource");
        }
    } else if spec["dataSource"].is_null()
        && !spec["dataSourceRef"].is_null()
        && is_empty(&spec["dataSourceRef"]["namespace"])
    {
        spec["dataSource"] = spec["dataSourceRef"].clone();
    }
}

/// V6: what may change in a claim's spec.
fn check_spec_unchanged(old: &Value, new: &Value, check: &mut Check) {
    let (mut old_spec, mut new_spec) = (old["spec"].clone(), new["spec"].clone());
    if is_empty(&old_spec["volumeName"]) {
        old_spec["volumeName"] = new_spec["volumeName"].clone();
    }
    let old_class = &old["metadata"]["annotations"][OLD_CLASS];
    let new_class = &new["metadata"]["annotations"][OLD_CLASS];
    let named = &new["spec"]["storageClassName"];
    let first_name = old["spec"]["storageClassName"].is_null() && named.is_string();
    let moves_annotation =
        first_name && named == old_class && (new_class.is_null() || new_class == old_class);
    if !moves_annotation && old_class != new_class {
        check.invalid(
            &Field::of("metadata.annotations").child(OLD_CLASS),
            new_class.as_str().unwrap_or_default(),
            "field is immutable",
        );
    }
    if moves_annotation || (first_name && (old_class.is_null() || old_class == named)) {
        new_spec["storageClassName"] = Value::Null;
    }
    if new["status"]["phase"] == "Bound" {
        if new_spec["resources"]["requests"].is_object() {
            new_spec["resources"]["requests"]["storage"] =
                old_spec["resources"]["requests"]["storage"].clone();
        }
        new_spec["volumeAttributesClassName"] = old_spec["volumeAttributesClassName"].clone();
    }
    // Absent and empty classes are two things, unlike other fields.
    let same_classes = ["storageClassName", "volumeAttributesClassName"]
        .iter()
        .all(|name| old_spec[*name] == new_spec[*name]);
    if !same_classes || !same(&old_spec, &new_spec) {
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            difference(&old_spec, &new_spec)
        );
        check.forbidden(&Field::of("spec"), &detail);
    }
}

/// The names of a claim's resources: `storage`, or qualified by another domain.
fn resource_name(name: &str, field: &Field, check: &mut Check) -> bool {
    let complaints = names::qualified(name);
    let mut fits = complaints.is_empty();
    check.complaints(field, name, complaints);
    if fits && (!name.contains('/') || name.contains("kubernetes.io/")) && name != "storage" {
        check.unsupported(field, &name.into(), &["storage"]);
        fits = false;
    }
    fits
}

fn size(claim: &Value) -> Option<bitts_api::Quantity> {
    amount(&claim["spec"]["resources"]["requests"]["storage"])
}

/// The class of a claim: the old annotation goes first.
fn class(claim: &Value) -> &str {
    claim["metadata"]["annotations"][OLD_CLASS]
        .as_str()
        .unwrap_or_else(|| text(&claim["spec"]["storageClassName"]))
}

/// V8: the newest default class; of several, the first by name.
fn default_class(cluster: &dyn Cluster) -> Option<String> {
    let is_default = |class: &Value| {
        let annotations = &class["metadata"]["annotations"];
        annotations["storageclass.kubernetes.io/is-default-class"] == "true"
            || annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true"
    };
    let classes = cluster.list("storageclasses");
    let newest = classes
        .iter()
        .filter(|class| is_default(class))
        .min_by(|a, b| {
            let age = |class: &Value| {
                class["metadata"]["creationTimestamp"]
                    .as_str()
                    .map(str::to_owned)
            };
            let name = |class: &Value| class["metadata"]["name"].as_str().map(str::to_owned);
            age(b).cmp(&age(a)).then_with(|| name(a).cmp(&name(b)))
        })?;
    newest["metadata"]["name"].as_str().map(str::to_owned)
}
