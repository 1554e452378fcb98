//! Where rules and the oracle's rows are named.
//!
//! In Rust a rule counts where a comment names it (B20), and in tests also in a string or in a
//! function's name (`b20_the_four_writes`, but not `v1`, which is an API's version). A row of the
//! oracle counts where a string of a test file called `oracle` is its id, or a YAML file of tests
//! has `id: 1-1`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::COVERAGE;
use super::rules::Rule;
use crate::files::File;
use crate::rust_text::{Piece, Span, split};

/// A file, and the test in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) test: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.test
            .as_ref()
            .map_or(Ok(()), |test| write!(f, ": {test}"))
    }
}

/// Everything that names a rule or a row.
#[derive(Debug, Default)]
pub(crate) struct Mentions {
    /// Code that runs in production.
    pub(crate) code: BTreeMap<Rule, BTreeSet<Place>>,
    /// Tests and benches.
    pub(crate) tests: BTreeMap<Rule, BTreeSet<Place>>,
    /// Pages for people.
    docs: BTreeMap<Rule, BTreeSet<Place>>,
    /// Tests, by the oracle's row.
    pub(crate) oracle: BTreeMap<String, BTreeSet<Place>>,
}

impl Mentions {
    /// Takes in one file.
    pub(crate) fn collect(&mut self, file: &File) {
        let path = file.path.as_str();
        if path.starts_with("xtask/") || path == COVERAGE {
            return;
        }
        if path.ends_with(".rs") {
            self.rust(file);
        } else if path.ends_with(".md") {
            self.add_text(Target::Docs, &file.text, &file.place(None));
        } else if file.is_test() {
            self.add_text(Target::Tests, &file.text, &file.place(None));
            for line in file.text.lines() {
                let line = line.trim_start_matches([' ', '-']);
                if let Some(id) = line.strip_prefix("id:") {
                    let id = id.split('#').next().unwrap_or_default().trim();
                    self.add_row(id.trim_matches(['"', '\'']), &file.place(None));
                }
            }
        }
    }

    /// Every rule that is named, with each place.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Rule, &Place)> {
        [&self.code, &self.tests, &self.docs]
            .into_iter()
            .flatten()
            .flat_map(|(rule, places)| places.iter().map(|place| (*rule, place)))
    }

    fn rust(&mut self, file: &File) {
        let spans = split(&file.text);
        let mut in_tests = file.is_test();
        let mut test = None;
        for (at, span) in spans.iter().enumerate() {
            match span.piece {
                Piece::Code => {
                    in_tests |= span.text.contains("#[cfg(test)]");
                    if let Some(name) = function(span.text).filter(|_| in_tests) {
                        let place = file.place(Some(&name));
                        for rule in in_name(&name) {
                            self.add(Target::Tests, rule, &place);
                        }
                        test = Some(name);
                    }
                }
                Piece::Comment if in_tests => {
                    let about = function_below(&spans[at..]).or_else(|| test.clone());
                    self.add_text(Target::Tests, span.text, &file.place(about.as_deref()));
                }
                Piece::Comment => self.add_text(Target::Code, span.text, &file.place(None)),
                Piece::Text if in_tests => {
                    let place = file.place(test.as_deref());
                    self.add_text(Target::Tests, span.text, &place);
                    if file.path.contains("oracle") {
                        self.add_row(span.text.trim_matches('"'), &place);
                    }
                }
                Piece::Text => {}
            }
        }
    }

    fn add_text(&mut self, target: Target, text: &str, place: &Place) {
        for rule in in_text(text) {
            self.add(target, rule, place);
        }
    }

    fn add(&mut self, target: Target, rule: Rule, place: &Place) {
        let mentions = match target {
            Target::Code => &mut self.code,
            Target::Tests => &mut self.tests,
            Target::Docs => &mut self.docs,
        };
        mentions.entry(rule).or_default().insert(place.clone());
    }

    fn add_row(&mut self, id: &str, place: &Place) {
        let mut numbers = id.split('-');
        let is_id = numbers.clone().count() > 1
            && numbers.all(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
        if is_id {
            self.oracle
                .entry(id.to_owned())
                .or_default()
                .insert(place.clone());
        }
    }
}

#[derive(Clone, Copy)]
enum Target {
    Code,
    Tests,
    Docs,
}

impl File {
    fn place(&self, test: Option<&str>) -> Place {
        Place {
            file: self.path.clone(),
            test: test.map(str::to_owned),
        }
    }
}

/// The name of the function that a piece of code begins.
fn function(code: &str) -> Option<String> {
    let (before, after) = code.split_once("fn ")?;
    let name: String = after
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty() && !before.ends_with(|c: char| c.is_alphanumeric())).then_some(name)
}

/// The function that a comment stands above, with at most attributes between.
fn function_below(from_comment: &[Span<'_>]) -> Option<String> {
    let code = from_comment.iter().filter(|span| span.piece == Piece::Code);
    let mut lines = code.filter(|span| !span.text.trim().is_empty());
    lines
        .find(|span| !span.text.trim_start().starts_with("#["))
        .and_then(|s| function(s.text))
}

/// The rules named in a function's name.
fn in_name(name: &str) -> impl Iterator<Item = Rule> {
    name.split('_')
        .filter(|word| *word != "v1")
        .filter_map(|word| {
            let mut chars = word.chars();
            let letter = chars.next()?;
            let number = number(chars.as_str())?;
            letter
                .is_ascii_lowercase()
                .then(|| Rule::new(letter.to_ascii_uppercase(), number, None))?
        })
}

/// The rules named in a text; `B8 to B11` names also those between.
fn in_text(text: &str) -> Vec<Rule> {
    let is_part_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut rules: Vec<Rule> = Vec::new();
    let mut range_from = None;
    for word in text
        .split(|c: char| !is_part_of_word(c))
        .filter(|word| !word.is_empty())
    {
        let named = in_word(word.trim_end_matches(['.', '-']));
        if let (Some(rule), Some(first)) = (named, range_from.take()) {
            rules.extend(Rule::to(first, rule));
        }
        rules.extend(named);
        if word == "to" {
            range_from = rules.last().copied();
        }
    }
    rules
}

fn in_word(word: &str) -> Option<Rule> {
    let mut chars = word.chars();
    let letter = chars.next()?;
    let (whole, part) = match chars.as_str().split_once('.') {
        Some((whole, part)) => (whole, Some(number(part)?)),
        None => (chars.as_str(), None),
    };
    Rule::new(letter, number(whole)?, part)
}

/// One or two digits that do not start with 0.
fn number(text: &str) -> Option<u16> {
    let fits = (1..=2).contains(&text.len()) && !text.starts_with('0');
    (fits && text.chars().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(rules: Vec<Rule>) -> Vec<String> {
        rules.iter().map(Rule::to_string).collect()
    }

    fn collect(path: &str, text: &str) -> Mentions {
        let mut mentions = Mentions::default();
        mentions.collect(&File {
            path: path.to_owned(),
            text: text.to_owned(),
        });
        mentions
    }

    #[test]
    fn rules_stand_as_words() {
        assert_eq!(
            texts(in_text("(B20, M33); see B13.5. N4 to N6")),
            ["B20", "M33", "B13.5", "N4", "N5", "N6"]
        );
        assert!(in_text("E2E i64 RB1 V1Foo B012 B123 E0502 X-B1 c1 Z3 B1_x").is_empty());
    }

    #[test]
    fn code_and_tests_are_told_apart() {
        let source = "//! Names (N4).\nconst X: &str = \"B1\";\n/// By B2.\nfn work() {}\n\
            #[cfg(test)]\nmod tests {\n    /// As D1 says.\n    #[test]\n    fn b3_holds_v1() {\n\
            \x20       // also B4\n        check(\"B5\");\n    }\n}\n";
        let mentions = collect("crates/x/src/lib.rs", source);
        assert_eq!(texts(mentions.code.keys().copied().collect()), ["N4", "B2"]);
        assert_eq!(
            texts(mentions.tests.keys().copied().collect()),
            ["B3", "B4", "B5", "D1"]
        );
        let places: BTreeSet<_> = mentions.tests.values().flatten().collect();
        assert_eq!(places.len(), 1, "{places:?}");
    }

    #[test]
    fn rows_of_the_oracle_are_named_by_id() {
        let rust = collect(
            "crates/x/tests/oracle.rs",
            "fn t() { row(\"14-5-1\", \"2026\", \"a-1\") }",
        );
        assert_eq!(rust.oracle.keys().collect::<Vec<_>>(), ["14-5-1"]);
        let yaml = collect(
            "crates/x/tests/rows.yaml",
            "- id: 1-1\n  given: 3-4\n- id: \"1-2\" # so\n",
        );
        assert_eq!(yaml.oracle.keys().collect::<Vec<_>>(), ["1-1", "1-2"]);
    }
}
