//! Label selectors: equality, sets, presence, numbers.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

impl Requirement {
    /// Whether a label of this value, or its absence, is what is required.
    pub(super) fn holds(&self, label: Option<&str>) -> bool {
        let number = || label.and_then(|label| label.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => label.is_some_and(|label| values.iter().any(|v| v == label)),
            Test::NotIn(values) => !label.is_some_and(|label| values.iter().any(|v| v == label)),
            Test::Exists => label.is_some(),
            Test::Absent => label.is_none(),
            Test::Above(bound) => number().is_some_and(|number| number > *bound),
            Test::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let parse = |part: &str| {
        parse_requirement(part).ok_or_else(|| {
            format!("unable to parse requirement: found '{part}', expected: in, notin, =, ==, !=, gt, lt")
        })
    };
    split_outside_parentheses(text)
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(parse)
        .collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0i32;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn parse_requirement(part: &str) -> Option<Requirement> {
    let requirement = |key: &str, test| {
        let key = key.trim();
        is_label_key(key).then(|| Requirement {
            key: key.to_owned(),
            test,
        })
    };
    let value = |text: &str| is_label_value(text.trim()).then(|| text.trim().to_owned());
    if let Some(key) = part.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    if let Some((key, v)) = part.split_once("!=") {
        return requirement(key, Test::NotIn(vec![value(v)?]));
    }
    if let Some((key, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return requirement(key, Test::In(vec![value(v)?]));
    }
    if let Some((key, v)) = part.split_once('>') {
        return requirement(key, Test::Above(v.trim().parse().ok()?));
    }
    if let Some((key, v)) = part.split_once('<') {
        return requirement(key, Test::Below(v.trim().parse().ok()?));
    }
    if let Some((head, set)) = part.split_once('(') {
        let values: Option<Vec<String>> = set
            .trim_end()
            .strip_suffix(')')?
            .split(',')
            .map(value)
            .collect();
        let (key, operator) = head.trim_end().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => requirement(key, Test::In(values?)),
            "notin" => requirement(key, Test::NotIn(values?)),
            _ => None,
        };
    }
    requirement(part, Test::Exists)
}

/// Characters of names: letters, digits and `-_.`, with a letter or digit at both ends.
fn is_qualified(text: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && alphanumeric(text.chars().next())
        && alphanumeric(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => {
            !prefix.is_empty()
                && prefix.len() <= 253
                && prefix.split('.').all(is_qualified)
                && is_qualified(name)
        }
        None => is_qualified(text),
    }
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}
