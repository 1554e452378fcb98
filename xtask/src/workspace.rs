//! The workspace as cargo describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// The workspace's root and its packages, by name.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// The version that all packages share.
    pub(crate) version: String,
    pub(crate) packages: BTreeMap<String, Package>,
}

/// One package.
#[derive(Default)]
pub(crate) struct Package {
    /// Its cargo features and what each switches on, optional dependencies left out.
    pub(crate) features: BTreeMap<String, BTreeSet<String>>,
    /// The names of what it depends on when it is used (not when it is tested).
    pub(crate) dependencies: BTreeSet<String>,
}

impl Workspace {
    /// Asks cargo, and makes the root the current directory.
    pub(crate) fn load() -> Result<Self> {
        let sh = Shell::new()?;
        let text = cmd!(sh, "cargo metadata --no-deps --format-version 1")
            .quiet()
            .read()?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
        let root = PathBuf::from(text_of(&metadata["workspace_root"]));
        std::env::set_current_dir(&root)
            .with_context(|| format!("cannot enter {}", root.display()))?;
        let version = text_of(&metadata["packages"][0]["version"]).to_owned();
        let packages = list_of(&metadata["packages"])
            .map(|package| (text_of(&package["name"]).to_owned(), Package::read(package)))
            .collect();
        Ok(Self {
            root,
            version,
            packages,
        })
    }
}

impl Package {
    fn read(package: &Value) -> Self {
        let features = package["features"].as_object().into_iter().flatten();
        let features = features
            .map(|(name, enables)| {
                let enables = list_of(enables).map(text_of);
                let enables = enables
                    .filter(|f| !f.contains([':', '/']))
                    .map(str::to_owned);
                (name.clone(), enables.collect())
            })
            .collect();
        let dependencies = list_of(&package["dependencies"])
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| text_of(&dependency["name"]).to_owned())
            .collect();
        Self {
            features,
            dependencies,
        }
    }

    /// What is on when these features are chosen.
    fn closure<'a>(&'a self, chosen: &[&'a str]) -> BTreeSet<&'a str> {
        let mut on = BTreeSet::new();
        let mut open: Vec<&str> = chosen.to_vec();
        while let Some(feature) = open.pop() {
            if on.insert(feature) {
                open.extend(
                    self.features
                        .get(feature)
                        .into_iter()
                        .flatten()
                        .map(String::as_str),
                );
            }
        }
        on.remove("default");
        on
    }

    /// Different sets of features that each must build: the default ones, none, each alone.
    pub(crate) fn feature_sets(&self) -> Vec<Vec<&str>> {
        let default = self
            .features
            .get_key_value("default")
            .map(|(name, _)| vec![name.as_str()]);
        let each = self.features.keys().map(|name| vec![name.as_str()]);
        let mut seen = BTreeSet::new();
        let sets = default.into_iter().chain([vec![]]).chain(each);
        sets.filter(|set| seen.insert(self.closure(set))).collect()
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list_of(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_switch_on_the_same_are_built_once() {
        let package = Package::read(&serde_json::json!({"features": {
            "default": ["agent", "binder", "demo"], "agent": ["dep:x"], "binder": [],
            "demo": ["agent", "binder", "dep:y", "z/w"],
        }}));
        assert_eq!(
            package.feature_sets(),
            [vec!["default"], vec![], vec!["agent"], vec!["binder"]]
        );
    }

    #[test]
    fn a_package_without_features_is_built_once() {
        assert_eq!(Package::default().feature_sets(), [[""; 0]]);
    }
}
