//! The containers of a pod.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rules::check::{Check, Field, default_to, entries, items, text};
use crate::rules::{amounts, names, source};

/// Fills what a container leaves open.
pub(super) fn default(container: &mut Value) -> Result<(), String> {
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

/// Checks a container against the volumes that it may name.
pub(super) fn check(container: &Value, volumes: &[&Value], field: &Field, check: &mut Check) {
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
