//! ConfigMap, Secret and ServiceAccount.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use super::Rules;
use super::check::{Check, Field, default_to, entries, is_empty, same, text};
use super::names;

/// The most that one object may carry.
const DATA_BYTES: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub(super) struct ConfigMap;

impl Rules for ConfigMap {
    fn namespaced(&self) -> bool {
        true
    }

    fn check(&self, map: &Value, check: &mut Check) {
        let mut size = 0;
        for name in ["data", "binaryData"] {
            for (key, value) in entries(&map[name]) {
                let field = Field::of(name).key(key);
                check.complaints(&field, key, names::config_key(key));
                if name == "data" && !map["binaryData"][key].is_null() {
                    check.invalid(&field, key, "duplicate of key present in binaryData");
                }
                size += text(value).len();
            }
        }
        if size > DATA_BYTES {
            check.too_long(&Field::of(""), DATA_BYTES);
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        check_frozen(old, new, &["data", "binaryData"], check);
    }
}

pub(super) struct Secret;

impl Rules for Secret {
    fn namespaced(&self) -> bool {
        true
    }

    /// What is written as text is kept as data.
    fn default(&self, secret: &mut Value) -> Result<(), String> {
        default_to(secret, "type", "Opaque");
        let Some(fields) = secret.as_object_mut() else {
            return Ok(());
        };
        let texts = fields.remove("stringData").unwrap_or_default();
        for (key, value) in entries(&texts) {
            secret["data"][key] = BASE64_STANDARD.encode(text(value)).into();
        }
        Ok(())
    }

    fn check(&self, secret: &Value, check: &mut Check) {
        let (data, field) = (&secret["data"], Field::of("data"));
        let mut size = 0;
        for (key, value) in entries(data) {
            check.complaints(&field.key(key), key, names::config_key(key));
            size += text(value).len() / 4 * 3;
        }
        if size > DATA_BYTES {
            check.too_long(&field, DATA_BYTES);
        }
        let required: &[&str] = match text(&secret["type"]) {
            "kubernetes.io/service-account-token" => {
                let account = "kubernetes.io/service-account.name";
                if is_empty(&secret["metadata"]["annotations"][account]) {
                    check.required(&Field::of("metadata.annotations").key(account), "");
                }
                &[]
            }
            "kubernetes.io/dockercfg" => &[".dockercfg"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/basic-auth"
                if data["username"].is_null() && data["password"].is_null() =>
            {
                &["username", "password"]
            }
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            _ => &[],
        };
        for key in required.iter().filter(|key| data[**key].is_null()) {
            check.required(&field.key(key), "");
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        check.unchanged(&old["type"], &new["type"], &Field::of("type"));
        check_frozen(old, new, &["data"], check);
    }
}

/// An object that says so never changes again.
fn check_frozen(old: &Value, new: &Value, fields: &[&str], check: &mut Check) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        check.forbidden(&Field::of("immutable"), FROZEN);
    }
    for name in fields
        .iter()
        .filter(|name| !same(&old[**name], &new[**name]))
    {
        check.forbidden(&Field::of(name), FROZEN);
    }
}

pub(super) struct ServiceAccount;

impl Rules for ServiceAccount {
    fn namespaced(&self) -> bool {
        true
    }
}
