//! The API's own schemas, as kubeconform reads them: of the Kubernetes version that the tests compare
//! with (e2e/kubernetes), and of the Prometheus operator's kinds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};
use xshell::{Shell, cmd};

use super::tools;
use crate::workspace::Workspace;

const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";

/// Writes a file for each kind; returns their folder.
pub(super) fn write(workspace: &Workspace) -> Result<PathBuf> {
    let sh = Shell::new()?;
    let folder = super::target()?.join("schemas");
    fs::create_dir_all(&folder)?;
    kubernetes(&sh, workspace, &folder)?;
    operator(&sh, &folder)?;
    Ok(folder)
}

fn kubernetes(sh: &Shell, workspace: &Workspace, folder: &Path) -> Result<()> {
    let module = workspace.root.join("e2e/kubernetes");
    let _there = sh.push_dir(module);
    let source = downloaded(sh, "k8s.io/kubernetes")?;
    let file = source.join("api/openapi-spec/swagger.json");
    let mut all: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let mut definitions = all["definitions"].take();
    strict(&mut definitions);
    for (name, definition) in definitions.as_object().into_iter().flatten() {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        for kind in kinds.into_iter().flatten() {
            let [group, version, kind] = ["group", "version", "kind"].map(|of| text(&kind[of]));
            let schema = json!({"$ref": format!("definitions.json#/definitions/{name}")});
            save(folder, group, version, kind, &schema)?;
        }
    }
    let definitions = json!({"definitions": definitions});
    fs::write(folder.join("definitions.json"), definitions.to_string())?;
    Ok(())
}

fn operator(sh: &Shell, folder: &Path) -> Result<()> {
    let source = downloaded(sh, OPERATOR)?.join("example/prometheus-operator-crd");
    for kind in ["prometheusrules", "servicemonitors"] {
        let file = source.join(format!("monitoring.coreos.com_{kind}.yaml"));
        let mut crd: Value = serde_yaml_ng::from_str(&fs::read_to_string(&file)?)?;
        let spec = &mut crd["spec"];
        let group = text(&spec["group"]).to_owned();
        let name = text(&spec["names"]["kind"]).to_owned();
        for version in spec["versions"].as_array_mut().into_iter().flatten() {
            let mut schema = version["schema"]["openAPIV3Schema"].take();
            strict(&mut schema);
            save(folder, &group, text(&version["name"]), &name, &schema)?;
        }
    }
    Ok(())
}

/// Where Go keeps the sources of a module.
fn downloaded(sh: &Shell, module: &str) -> Result<PathBuf> {
    let said = tools::by_go(sh, module, cmd!(sh, "go mod download -json {module}"))?;
    let said: Value = serde_json::from_str(&said)?;
    Ok(text(&said["Dir"]).into())
}

fn save(folder: &Path, group: &str, version: &str, kind: &str, schema: &Value) -> Result<()> {
    let group = group.split('.').next().unwrap_or_default();
    let parts = [&kind.to_lowercase(), group, version];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    fs::write(
        folder.join(format!("{}.json", parts.join("-"))),
        schema.to_string(),
    )?;
    Ok(())
}

/// The API drops fields that it does not know; here they are mistakes.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members
                .get("format")
                .is_some_and(|format| format == "int-or-string")
            {
                members.insert("type".to_owned(), json!(["integer", "string"]));
                members.remove("format");
            }
            let is_object = members.get("properties").is_some_and(Value::is_object);
            if is_object && is_closed(members) {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(strict);
        }
        Value::Array(values) => values.iter_mut().for_each(strict),
        _ => {}
    }
}

/// Whether only the named members may be there. A CRD leaves the metadata to the API.
fn is_closed(members: &Map<String, Value>) -> bool {
    let open = [
        "additionalProperties",
        "x-kubernetes-preserve-unknown-fields",
    ];
    !open.iter().any(|name| members.contains_key(*name))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_refused() {
        let mut schema = json!({"properties": {
            "properties": {"type": "object", "properties": {"port": {"type": "string", "format": "int-or-string"}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "any": {"properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": true},
        }});
        strict(&mut schema);
        let inner = &schema["properties"];
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(inner["properties"]["additionalProperties"], false);
        assert_eq!(
            inner["properties"]["properties"]["port"],
            json!({"type": ["integer", "string"]})
        );
        assert_eq!(
            inner["labels"]["additionalProperties"],
            json!({"type": "string"})
        );
        assert!(inner["any"].get("additionalProperties").is_none());
    }
}
