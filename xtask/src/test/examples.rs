//! The manifests in examples/ are single objects that name themselves. Tests elsewhere apply them.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Report;
use crate::files;
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace) -> Result<Report> {
    let manifests = files::with_extension(&workspace.root.join("examples"), &["yaml"])?;
    ensure!(!manifests.is_empty(), "examples/ holds no manifest");
    for file in &manifests {
        object(&file.text).with_context(|| format!("examples/{}", file.path))?;
    }
    Ok(Report {
        note: format!("{} manifests", manifests.len()),
        ..Report::default()
    })
}

fn object(text: &str) -> Result<()> {
    ensure!(
        text.starts_with("# "),
        "does not start with a comment that says what it shows"
    );
    let object: Value = serde_yaml_ng::from_str(text).context("is not one YAML document")?;
    for field in ["/apiVersion", "/kind", "/metadata/name"] {
        let is_text = object.pointer(field).is_some_and(Value::is_string);
        ensure!(
            is_text,
            "has no {}",
            field.trim_start_matches('/').replace('/', ".")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn a_manifest_names_its_object() {
        object("# One.\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n").unwrap();
        for bad in [
            "kind: Pod",
            "# One.\nkind: Pod\nmetadata: {name: a}\n",
            "# One.\n- [\n",
        ] {
            assert!(object(bad).is_err(), "{bad}");
        }
    }
}
