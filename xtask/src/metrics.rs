//! docs/metrics.md, made of the names and meanings in the code; the chart's dashboard and alerts
//! may name no other metric.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::files::{self, File};
use crate::rust_text::{Piece, split};
use crate::workspace::Workspace;

const PAGE: &str = "docs/metrics.md";
const USERS: [&str; 2] = [
    "deploy/chart/bitts/monitoring/alerts.yaml",
    "deploy/chart/bitts/monitoring/dashboard.json",
];
/// What our names and those of kube-controller-manager begin with.
const OURS: [&str; 5] = [
    "bitts_",
    "ephemeral_volume_",
    "pv_collector_",
    "retroactive_",
    "volume_operation_",
];

/// `cargo xtask metrics`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// What each metric means, by the crate that keeps it.
type Metrics = BTreeMap<String, BTreeMap<String, String>>;

/// Writes docs/metrics.md.
pub(crate) fn write(workspace: &Workspace, _: &Args) -> Result<()> {
    let page = page(&all(workspace)?);
    fs::write(workspace.root.join(PAGE), page).context(PAGE)
}

/// Whether the page is fresh, and what dashboard and alerts name exists. Returns how many there are.
pub(crate) fn check(workspace: &Workspace) -> Result<usize> {
    let metrics = all(workspace)?;
    let there = fs::read_to_string(workspace.root.join(PAGE)).context(PAGE)?;
    ensure!(
        there == page(&metrics),
        "{PAGE} is not what the code says: `cargo xtask metrics` writes it anew"
    );
    let names: BTreeSet<_> = metrics.values().flat_map(BTreeMap::keys).collect();
    for user in USERS {
        let text = fs::read_to_string(workspace.root.join(user)).context(user)?;
        for name in named_in(&text) {
            ensure!(names.contains(&name), "{user}: there is no metric {name}");
        }
    }
    Ok(names.len())
}

fn all(workspace: &Workspace) -> Result<Metrics> {
    let mut all = Metrics::new();
    for file in files::with_extension(&workspace.root.join("crates"), &["rs"])? {
        let krate = file.path.split('/').next().unwrap_or_default().to_owned();
        if !file.is_test() {
            all.entry(krate).or_default().extend(of(&file));
        }
    }
    all.retain(|_, metrics| !metrics.is_empty());
    Ok(all)
}

/// A name is a string that is followed by another, its meaning.
fn of(file: &File) -> BTreeMap<String, String> {
    let source = file.text.split("#[cfg(test)]").next().unwrap_or_default();
    let pieces = pieces(source);
    let mut found = BTreeMap::new();
    for (at, window) in pieces.windows(3).enumerate() {
        let [
            (Piece::Text, name),
            (Piece::Code, between),
            (Piece::Text, help),
        ] = window
        else {
            continue;
        };
        if between.trim() != "," {
            continue;
        }
        let code = |at: Option<usize>| {
            at.and_then(|at| pieces.get(at))
                .map_or("", |(_, text)| text)
        };
        if code(at.checked_sub(1)).trim_end().ends_with("register(") {
            let ending = ending(source, code(Some(at + 3)));
            found.insert(format!("bitts_{name}{ending}"), help.clone());
        } else if OURS.iter().any(|ours| name.starts_with(ours)) {
            found.insert(name.clone(), help.clone());
        }
    }
    found
}

/// What the registry of the runtime adds to the names of counters.
fn ending(source: &str, after: &str) -> &'static str {
    let field = after.trim_start_matches([',', ' ', '\n']);
    let field = field.strip_prefix("all.").unwrap_or_default();
    let field = field.split('.').next().unwrap_or_default();
    let is_counter = |line: &str| {
        let line = line.trim().trim_start_matches("pub(crate) ");
        let kind = line
            .strip_prefix(field)
            .and_then(|l| l.strip_prefix(": Family<"));
        kind.is_some_and(|kind| kind.contains(", Counter>"))
    };
    if source.lines().any(is_counter) {
        "_total"
    } else {
        ""
    }
}

/// Code and strings in turn, strings without their quotes and as one line.
fn pieces(source: &str) -> Vec<(Piece, String)> {
    let mut pieces: Vec<(Piece, String)> = Vec::new();
    for span in split(source) {
        match (span.piece, pieces.last_mut()) {
            (Piece::Comment, _) => {}
            (piece, Some((last, text))) if *last == piece => {
                let before = text.trim_end_matches('\\').len();
                text.truncate(before);
                text.push_str(span.text.trim_start());
            }
            (piece, _) => pieces.push((piece, span.text.to_owned())),
        }
    }
    for (piece, text) in &mut pieces {
        if *piece == Piece::Text {
            *text = text.trim_matches('"').to_owned();
        }
    }
    pieces
}

fn page(metrics: &Metrics) -> String {
    let mut page = "# Metrics\n\n\
        Written by `cargo xtask metrics` from the code. `bitts run --listen ADDR` serves them under `/metrics`. What\n\
        kube-controller-manager measures has its names there. The metrics of all roles carry the label `role`; what ends in `_total`\n\
        is a counter, and times are histograms, but for `bitts_watch_age_seconds`. A dashboard for Grafana and alerts for Prometheus are in\n\
        [deploy/chart/bitts/monitoring](../deploy/chart/bitts/monitoring).\n"
        .to_owned();
    let title = |krate: &str| match krate {
        "runtime" => "All roles".to_owned(),
        role => format!("{}{}", role[..1].to_uppercase(), &role[1..]),
    };
    // What all roles have comes first.
    let order = |krate: &&String| (krate.as_str() != "runtime", (*krate).clone());
    let mut crates: Vec<_> = metrics.keys().collect();
    crates.sort_by_key(order);
    for krate in crates {
        page.push_str(&format!(
            "\n## {}\n\n| metric | is |\n| --- | --- |\n",
            title(krate)
        ));
        for (name, help) in &metrics[krate] {
            page.push_str(&format!("| `{name}` | {help} |\n"));
        }
    }
    page
}

/// The metrics that expressions name, without what Prometheus adds to those of histograms.
fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| OURS.iter().any(|ours| word.starts_with(ours)));
    let bare = |word: &str| {
        let endings = ["_bucket", "_sum", "_count"];
        let of_histogram = endings.iter().find_map(|ending| word.strip_suffix(ending));
        let is_histogram = |name: &&str| name.ends_with("_seconds");
        of_histogram.filter(is_histogram).unwrap_or(word).to_owned()
    };
    ours.map(bare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_in(text: &str) -> Vec<(String, String)> {
        let file = File {
            path: "runtime/src/metrics.rs".to_owned(),
            text: text.to_owned(),
        };
        of(&file).into_iter().collect()
    }

    #[test]
    fn a_name_and_its_meaning_are_found() {
        let source = r#"
            pub(crate) lists: Family<OfWatch, Counter>,
            pub(crate) depth: Family<OfRole, Gauge>,
            registry.register(
                "lists",
                "Lists taken, \
                 the first included",
                all.lists.clone(),
            );
            registry.register("depth", "Depth", all.depth.clone());
            measure("bitts_made_total", "Made", self.made);
            #[cfg(test)]
            measure("bitts_test_total", "Test", 1);
        "#;
        let expected = [
            ("bitts_depth", "Depth"),
            ("bitts_lists_total", "Lists taken, the first included"),
            ("bitts_made_total", "Made"),
        ];
        let found = found_in(source);
        let found: Vec<_> = found
            .iter()
            .map(|(n, h)| (n.as_str(), h.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn expressions_name_metrics() {
        let text =
            "rate(bitts_claim_to_bound_seconds_bucket[1m]) / pv_collector_bound_pv_count{a=\"b\"}";
        let named: Vec<_> = named_in(text).into_iter().collect();
        assert_eq!(
            named,
            [
                "bitts_claim_to_bound_seconds",
                "pv_collector_bound_pv_count"
            ]
        );
    }
}
