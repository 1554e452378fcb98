//! Rules for sources that neither the compiler nor clippy knows.

use std::path::Path;

use anyhow::{Result, bail};

use super::Report;
use crate::files::{self, File};
use crate::rust_text::{Piece, split};
use crate::workspace::Workspace;

/// More than this and a file holds more than one idea.
const LONGEST: usize = 900;
/// Names that say nothing of what lives there.
const EMPTY_NAMES: [&str; 4] = ["common", "helpers", "manager", "utils"];
/// The crate that asks the kernel, and with it may start programs; tests may too.
const STARTS_PROGRAMS: [&str; 2] = ["crates/mount/", "xtask/"];
/// The one crate with unsafe code, the one file of it, and what that crate's own lints say instead.
const UNSAFE: (&str, &str) = (
    "crates/mount/Cargo.toml",
    "crates/mount/src/quota/kernel.rs",
);
/// Where users live: a path below one of these means nothing on another machine.
const HOMES: [&str; 2] = ["root", "home"];

pub(super) fn check(workspace: &Workspace) -> Result<Report> {
    let files = files::with_extension(
        &workspace.root,
        &["rs", "md", "toml", "yaml", "yml", "json"],
    )?;
    let mut found: Vec<String> = files.iter().flat_map(complaints).collect();
    found.extend(other_lints(&files));
    found.extend(
        files
            .iter()
            .flat_map(|file| dead_links(&workspace.root, file)),
    );
    if found.is_empty() {
        return Ok(Report {
            note: format!("{} files", files.len()),
            ..Report::default()
        });
    }
    bail!("{}", found.join("\n"))
}

fn complaints(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let mut complain = |line: usize, what: &str| {
        found.push(format!("{}:{}: {what}", file.path, line + 1));
    };
    for (line, text) in file.text.lines().enumerate() {
        for home in HOMES.map(|home| format!("/{home}/")) {
            if text.contains(&home) {
                complain(
                    line,
                    &format!("names a path below {home}, which is one machine's own"),
                );
            }
        }
    }
    let is_member = file.path.ends_with("Cargo.toml") && file.path != "Cargo.toml";
    if is_member && file.path != UNSAFE.0 && !inherits_lints(&file.text) {
        complain(
            0,
            "does not inherit the lints of the workspace: [lints] workspace = true",
        );
    }
    if !file.path.ends_with(".rs") {
        return found;
    }
    if file.text.contains("unsafe_code") && ![UNSAFE.1, file!()].contains(&&*file.path) {
        complain(
            0,
            &format!("lets unsafe code in: it stands in {} only", UNSAFE.1),
        );
    }
    let lines = file.text.lines().count();
    if lines > LONGEST {
        complain(
            lines,
            &format!("is longer than {LONGEST} lines: it holds more than one idea"),
        );
    }
    let mut names = file.path.trim_end_matches(".rs").split('/');
    if names.any(|name| EMPTY_NAMES.contains(&name)) {
        complain(0, "has a name that does not say what lives there");
    }
    let mut in_tests = file.is_test() || STARTS_PROGRAMS.iter().any(|at| file.path.starts_with(at));
    for span in split(&file.text)
        .iter()
        .filter(|span| span.piece == Piece::Code)
    {
        in_tests |= span.text.contains("#[cfg(test)]");
        if span.text.contains("#[ignore]") {
            complain(span.line, "does not say why: #[ignore = \"reason\"]");
        }
        if !in_tests && span.text.contains("process::") && span.text.contains("Command") {
            complain(
                span.line,
                "starts a program: what the kernel is asked for belongs in bitts-mount",
            );
        }
    }
    found
}

/// Links of a page to files that are not there.
fn dead_links(root: &Path, file: &File) -> Vec<String> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let folder = root.join(&file.path);
    let folder = folder.parent().unwrap_or(root);
    let targets = file
        .text
        .split("](")
        .skip(1)
        .filter_map(|after| after.split(')').next());
    targets
        .filter_map(|target| target.split('#').next())
        .filter(|path| !path.is_empty() && !path.contains(':') && !folder.join(path).exists())
        .map(|path| format!("{}: links to {path}, which is not there", file.path))
        .collect()
}

/// The crate with unsafe code cannot inherit the lints, and has them all the same.
fn other_lints(files: &[File]) -> Option<String> {
    let text = |path: &str| {
        files
            .iter()
            .find(|file| file.path == path)
            .map(|f| &*f.text)
    };
    let (whole, own) = (text("Cargo.toml")?, text(UNSAFE.0)?);
    let lints = |text: &str, from: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.starts_with(from));
        let lines = lines.take_while(|line| !line.starts_with("[profile"));
        let lines = lines.map(|line| line.replace("workspace.lints", "lints"));
        lines.filter(|line| !line.is_empty()).collect()
    };
    let mut expected = lints(whole, "[workspace.lints.rust]");
    for line in &mut expected {
        *line = line.replace("unsafe_code = \"forbid\"", "unsafe_code = \"deny\"");
    }
    (lints(own, "[lints.rust]") != expected).then(|| {
        format!(
            "{}: its lints are not those of the workspace with unsafe_code = \"deny\"",
            UNSAFE.0
        )
    })
}

fn inherits_lints(manifest: &str) -> bool {
    manifest.contains("[lints]\nworkspace = true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints_of(path: &str, text: &str) -> Vec<String> {
        complaints(&File {
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    #[test]
    fn what_breaks_a_rule_is_named_with_its_line() {
        let ignored = complaints_of("crates/x/src/lib.rs", "fn a() {}\n#[ignore]\nfn b() {}\n");
        let said = "crates/x/src/lib.rs:2: does not say why: #[ignore = \"reason\"]";
        assert_eq!(ignored, [said]);
        let starts = complaints_of("crates/x/src/lib.rs", "use std::process::{Command, id};");
        assert_eq!(starts.len(), 1);
        assert_eq!(complaints_of("crates/x/src/utils.rs", "").len(), 1);
        let home = format!("see /{}/x", HOMES[0]);
        assert_eq!(complaints_of("docs/a.md", &home).len(), 1);
        assert_eq!(complaints_of("crates/x/Cargo.toml", "[package]\n").len(), 1);
        assert_eq!(
            complaints_of("crates/x/src/lib.rs", &"//\n".repeat(LONGEST + 1)).len(),
            1
        );
    }

    #[test]
    fn unsafe_code_stands_in_one_file() {
        let relaxed = "#![expect(unsafe_code, reason = \"speed\")]\n";
        assert_eq!(complaints_of("crates/mount/src/dir.rs", relaxed).len(), 1);
        assert!(complaints_of(UNSAFE.1, relaxed).is_empty());
        let files = |own: &str| {
            [
                (
                    "Cargo.toml",
                    "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nx = 1\n\n[profile.dev]\n",
                ),
                (UNSAFE.0, own),
            ]
            .map(|(path, text)| File {
                path: path.to_owned(),
                text: text.to_owned(),
            })
        };
        let own = "[package]\n[lints.rust]\nunsafe_code = \"deny\"\nx = 1\n";
        assert_eq!(other_lints(&files(own)), None);
        for other in [own.replace("deny", "allow"), own.replace("x = 1\n", "")] {
            assert!(other_lints(&files(&other)).is_some(), "{other}");
        }
    }

    #[test]
    fn links_lead_to_files() {
        let page = |text: &str| File {
            path: "docs/a.md".to_owned(),
            text: text.to_owned(),
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let fine = "[a](contract.md#b1) [b](#c) [c](https://x.org/y) [d](../README.md)";
        assert!(dead_links(&root, &page(fine)).is_empty());
        let dead = dead_links(&root, &page("see [a](b.md#c)"));
        assert_eq!(dead, ["docs/a.md: links to b.md, which is not there"]);
    }

    #[test]
    fn comments_reasons_and_tests_are_no_offence() {
        let fine = "// not #[ignore]\n#[ignore = \"needs a disk\"]\nfn a() {}\n";
        assert!(complaints_of("crates/x/src/lib.rs", fine).is_empty());
        let in_a_test = "#[cfg(test)]\nmod tests {\n    use std::process::Command;\n}\n";
        assert!(complaints_of("crates/x/src/lib.rs", in_a_test).is_empty());
    }
}
