//! docs/coverage.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::rules::{Contract, LETTERS, Rule, group};
use super::{Mentions, Place, why_moot};

const HEAD: &str = "\
# How far each rule is

Written by `cargo xtask contract` from the sources; do not edit. For each rule of the
[contract](contract.md): the code that names it in a comment, and the tests that name it. A rule
that code names is built or taken into account there; one that a test names too is shown to hold.
A dash means that nothing names it: for most of these the role they belong to is not built yet.

";

pub(crate) fn render(contract: &Contract, mentions: &Mentions) -> String {
    let mut page = HEAD.to_owned();
    let code = by_whole(&mentions.code);
    let tests = by_whole(&mentions.tests);
    let letters = || {
        LETTERS
            .chars()
            .filter_map(|l| Some((l, contract.headings.get(&l)?)))
    };

    page += "| rules | about | in all | named by code | shown by a test |\n";
    page += "| --- | --- | ---: | ---: | ---: |\n";
    for (letter, heading) in letters() {
        let rules = || contract.rules.keys().filter(|rule| rule.letter() == letter);
        let all = rules().count();
        let named = rules().filter(|rule| code.contains_key(rule)).count();
        let shown = rules().filter(|rule| tests.contains_key(rule)).count();
        row(
            &mut page,
            [
                &letter.to_string(),
                heading,
                &all.to_string(),
                &named.to_string(),
                &shown.to_string(),
            ],
        );
    }
    let shown = contract
        .oracle
        .iter()
        .filter(|id| mentions.oracle.contains_key(*id))
        .count();
    let all = contract.oracle.len();
    row(
        &mut page,
        [
            "§11",
            "the binder's oracle, by row",
            &all.to_string(),
            "",
            &shown.to_string(),
        ],
    );

    for (letter, heading) in letters() {
        _ = write!(
            page,
            "\n## {heading} ({letter})\n\n| rule | | code | tests |\n| --- | --- | --- | --- |\n"
        );
        for (rule, text) in contract
            .rules
            .iter()
            .filter(|(rule, _)| rule.letter() == letter)
        {
            let id = rule.to_string();
            let link = format!("[{id}](contract.md#{})", id.to_lowercase());
            row(
                &mut page,
                [
                    &link,
                    &title(text),
                    &places(code.get(rule)),
                    &places(tests.get(rule)),
                ],
            );
        }
    }

    page += "\n## The binder's oracle (§11)\n\n| group | rows shown | rows that no test names |\n| --- | --- | --- |\n";
    let mut groups: Vec<&str> = contract.oracle.iter().map(|id| group(id)).collect();
    groups.dedup();
    let mut listed = BTreeSet::new();
    for name in groups.into_iter().filter(|name| listed.insert(*name)) {
        let rows = contract.oracle.iter().filter(|id| group(id) == name);
        let (shown, open): (Vec<&str>, Vec<&str>) = rows
            .map(String::as_str)
            .partition(|id| mentions.oracle.contains_key(*id));
        let open: Vec<String> = open.into_iter().map(with_reason).collect();
        let (shown, open) = (or_dash(shown.join(", ")), or_dash(open.join(", ")));
        row(&mut page, [name, &shown, &open]);
    }
    let files = mentions
        .oracle
        .values()
        .flatten()
        .map(|place| format!("`{}`", place.file));
    let files: BTreeSet<String> = files.collect();
    if !files.is_empty() {
        let files: Vec<String> = files.into_iter().collect();
        _ = write!(page, "\nThe rows are in {}.\n", files.join(", "));
    }
    page
}

/// A rule counts as named where a part of it is.
fn by_whole(mentions: &BTreeMap<Rule, BTreeSet<Place>>) -> BTreeMap<Rule, BTreeSet<&Place>> {
    let mut whole: BTreeMap<Rule, BTreeSet<&Place>> = BTreeMap::new();
    for (rule, places) in mentions {
        whole.entry(rule.whole()).or_default().extend(places);
    }
    whole
}

fn row<const N: usize>(page: &mut String, cells: [&str; N]) {
    *page += "|";
    for cell in cells {
        _ = write!(page, " {cell} |");
    }
    *page += "\n";
}

/// The files, each with its tests.
fn places(places: Option<&BTreeSet<&Place>>) -> String {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for place in places.into_iter().flatten() {
        files
            .entry(&place.file)
            .or_default()
            .extend(place.test.as_deref());
    }
    let files = files
        .into_iter()
        .map(|(file, tests)| match tests.as_slice() {
            [] => format!("`{file}`"),
            tests => format!("`{file}`: {}", tests.join(", ")),
        });
    or_dash(files.collect::<Vec<_>>().join("<br>"))
}

fn with_reason(row: &str) -> String {
    why_moot(row).map_or_else(|| row.to_owned(), |why| format!("{row} ({why})"))
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "–".to_owned()
    } else {
        text
    }
}

/// The first words of a rule, without markup and without the places where to check it again.
fn title(text: &str) -> String {
    const LENGTH: usize = 60;
    let text = text.split_once(" (`").map_or(text, |(before, _)| before);
    let plain = text
        .replace(['`', '*'], "")
        .replace(['|', '<', '>', '[', ']'], " ");
    let mut title = String::new();
    for word in plain.split_whitespace() {
        if title.chars().count() + word.chars().count() > LENGTH {
            return format!("{title} …");
        }
        if !title.is_empty() {
            title.push(' ');
        }
        title += word;
    }
    title
}
