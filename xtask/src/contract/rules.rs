//! The rules and the oracle's rows, read from the contract.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};

/// The letters of rules, in the contract's order.
pub(crate) const LETTERS: &str = "NBDPAMRXSVE";

/// A rule's number, e.g. B20, or a part of it, e.g. B20.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    /// The letter's place in [`LETTERS`].
    letter: usize,
    number: u16,
    part: Option<u16>,
}

impl Rule {
    pub(crate) fn new(letter: char, number: u16, part: Option<u16>) -> Option<Self> {
        let letter = LETTERS.find(letter)?;
        Some(Self {
            letter,
            number,
            part,
        })
    }

    pub(crate) fn letter(self) -> char {
        LETTERS[self.letter..].chars().next().unwrap_or_default()
    }

    /// The rule that this is a part of, or itself.
    pub(crate) fn whole(self) -> Self {
        Self { part: None, ..self }
    }

    /// The rules from this one to the last, of the same letter.
    pub(crate) fn to(self, last: Self) -> impl Iterator<Item = Self> {
        let numbers = if self.letter == last.letter {
            self.number + 1..last.number
        } else {
            0..0
        };
        numbers.map(move |number| Self {
            letter: self.letter,
            number,
            part: None,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.letter(), self.number)?;
        self.part.map_or(Ok(()), |part| write!(f, ".{part}"))
    }
}

/// What docs/contract.md says.
pub(crate) struct Contract {
    /// The text of each rule.
    pub(crate) rules: BTreeMap<Rule, String>,
    /// The section headings that hold rules, by letter.
    pub(crate) headings: BTreeMap<char, String>,
    /// The ids of the oracle's rows (§11), in order.
    pub(crate) oracle: Vec<String>,
}

impl Contract {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut contract = Self {
            rules: BTreeMap::new(),
            headings: BTreeMap::new(),
            oracle: Vec::new(),
        };
        let mut current = None;
        let mut in_oracle = false;
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                in_oracle = heading.starts_with("11.");
                current = None;
                contract.heading(heading);
            } else if let Some((rule, start)) = definition(line) {
                let twice = contract.rules.insert(rule, start.to_owned()).is_some();
                ensure!(!twice, "the contract has two rules {rule}");
                current = Some(rule);
            } else if let Some(text) = current.and_then(|rule| contract.rules.get_mut(&rule)) {
                text.push('\n');
                text.push_str(line);
            } else if in_oracle && line.starts_with("| ") {
                let ids = line
                    .trim_start_matches("| ")
                    .split(" |")
                    .next()
                    .unwrap_or_default();
                contract.oracle.extend(row_ids(ids));
            }
        }
        ensure!(!contract.rules.is_empty(), "the contract has no rule");
        ensure!(!contract.oracle.is_empty(), "the contract has no oracle");
        Ok(contract)
    }

    /// `0. Names, constants, flags (N)` names the section of the letter N.
    fn heading(&mut self, heading: &str) {
        let title = heading.split_once(". ").map_or(heading, |(_, title)| title);
        for letter in LETTERS.chars() {
            if let Some((title, _)) = title.split_once(&format!(" ({letter})")) {
                self.headings.insert(letter, title.to_owned());
            }
        }
    }

    /// Whether there is such a rule and, where a part is meant, such a numbered part of it.
    pub(crate) fn has(&self, rule: Rule) -> bool {
        let Some(text) = self.rules.get(&rule.whole()) else {
            return false;
        };
        rule.part.is_none_or(|part| {
            text.contains(&format!(" {part}. ")) || text.contains(&format!("({part}) "))
        })
    }
}

/// `<a id="b20"></a>**B20.** text`
fn definition(line: &str) -> Option<(Rule, &str)> {
    let (_, line) = line.strip_prefix("<a id=")?.split_once("**")?;
    let (id, text) = line.split_once(".** ")?;
    let mut chars = id.chars();
    let letter = chars.next()?;
    Some((Rule::new(letter, chars.as_str().parse().ok()?, None)?, text))
}

/// The group of a row: `14` of `14-5-1`.
pub(crate) fn group(row: &str) -> &str {
    row.split('-').next().unwrap_or(row)
}

/// The ids of one line: `1-8 / 1-9`, `14-1,14-2`, `14-9..14-12` and `8-10-1..3`, with notes in
/// parentheses.
fn row_ids(cell: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for word in cell
        .split([' ', ',', '/'])
        .filter(|word| word.contains('-'))
    {
        let (first, last) = word.split_once("..").unwrap_or((word, word));
        let Some((stem, from)) = first.rsplit_once('-') else {
            continue;
        };
        let to = last.rsplit_once('-').map_or(last, |(_, to)| to);
        if let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse::<u16>()) {
            ids.extend((from..=to).map(|n| format!("{stem}-{n}")));
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "## 1. Binder (B) — files\n\n<a id=\"b1\"></a>**B1.** One\nmore:\n  2. second\n\n\
        ## 11. Oracle\n\n| id | given |\n|---|---|\n| 1-1 / 1-2 | (B1) |\n| 14-9..14-11 | x-1 |\n";

    #[test]
    fn rules_and_their_parts_are_found() {
        let contract = Contract::parse(TEXT).unwrap();
        let rule = |number, part| Rule::new('B', number, part).unwrap();
        assert!(contract.has(rule(1, None)) && contract.has(rule(1, Some(2))));
        assert!(!contract.has(rule(1, Some(3))) && !contract.has(rule(2, None)));
        assert_eq!(contract.headings[&'B'], "Binder");
    }

    #[test]
    fn the_oracle_is_spelled_out() {
        let contract = Contract::parse(TEXT).unwrap();
        assert_eq!(contract.oracle, ["1-1", "1-2", "14-9", "14-10", "14-11"]);
        assert_eq!(row_ids("8-10-1..3"), ["8-10-1", "8-10-2", "8-10-3"]);
        assert_eq!(
            row_ids("5-2..5-3 (`pv_controller_test.go`)"),
            ["5-2", "5-3"]
        );
        assert_eq!(row_ids("4-5 (two)"), ["4-5"]);
    }

    #[test]
    fn a_rule_defined_twice_is_refused() {
        let twice = format!("{TEXT}<a id=\"b1\"></a>**B1.** Again\n");
        assert!(Contract::parse(&twice).is_err());
    }
}
