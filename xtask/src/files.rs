//! The project's own files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A text file: its path from the workspace's root, with `/`, and what it holds.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Whether it only runs in tests and benches.
    pub(crate) fn is_test(&self) -> bool {
        let is_tests = |part: &str| matches!(part, "tests" | "benches" | "e2e" | "tests.rs");
        self.path.split('/').any(is_tests) || self.path.ends_with("_tests.rs")
    }
}

/// The files with one of these extensions, in the order of their paths. Build output and what
/// version control keeps to itself are left out.
pub(crate) fn with_extension(root: &Path, extensions: &[&str]) -> Result<Vec<File>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if !is_foreign(&path) {
                    open.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|e| extensions.iter().any(|wanted| e == *wanted))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter().map(|path| read(root, path)).collect()
}

fn is_foreign(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default();
    name == "target" || name == ".git" || name == "node_modules"
}

fn read(root: &Path, path: PathBuf) -> Result<File> {
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let path = path
        .strip_prefix(root)
        .unwrap_or(&path)
        .to_string_lossy()
        .into_owned();
    Ok(File { path, text })
}
