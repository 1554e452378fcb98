//! Which texts are names, label keys, label values: each function returns the complaints.

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const KEY: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// The longest label, and the longest part of a key.
const LABEL_LENGTH: usize = 63;
const SUBDOMAIN_LENGTH: usize = 253;

/// What a kind of name asks of a text.
pub(super) type NameRule = fn(&str) -> Vec<String>;

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| inner(*byte))
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_key(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Names of most objects.
pub(super) fn subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_LENGTH {
        complaints.push(format!(
            "must be no more than {SUBDOMAIN_LENGTH} characters"
        ));
    }
    if !is_subdomain(text) {
        complaints.push(SUBDOMAIN.to_owned());
    }
    complaints
}

/// Names of namespaces, containers and pod volumes.
pub(super) fn label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_LENGTH {
        complaints.push(format!("must be no more than {LABEL_LENGTH} characters"));
    }
    if !is_label(text) {
        let complaint = if is_subdomain(text) {
            "must not contain dots"
        } else {
            LABEL
        };
        complaints.push(complaint.to_owned());
    }
    complaints
}

/// Events may have any name that fits into a path.
pub(super) fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%']
        .into_iter()
        .filter(|character| text.contains(*character))
        .map(|character| format!("may not contain '{character}'"))
        .collect()
}

/// Keys of labels, and everything else that is a name with an optional domain before a slash.
pub(super) fn qualified(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".to_owned());
            } else {
                let of_prefix = subdomain(prefix).into_iter();
                complaints.extend(of_prefix.map(|complaint| format!("prefix part {complaint}")));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a valid label key {KEY} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LENGTH {
        complaints.push(format!(
            "name part must be no more than {LABEL_LENGTH} bytes"
        ));
    }
    if !is_key(name) {
        complaints.push(format!("name part {KEY}"));
    }
    complaints
}

/// Values of labels.
pub(super) fn label_value(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_LENGTH {
        complaints.push(format!("must be no more than {LABEL_LENGTH} bytes"));
    }
    if !text.is_empty() && !is_key(text) {
        complaints.push(VALUE.to_owned());
    }
    complaints
}

/// Keys of config maps and secrets.
pub(super) fn config_key(text: &str) -> Vec<String> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_LENGTH {
        complaints.push(format!(
            "must be no more than {SUBDOMAIN_LENGTH} characters"
        ));
    }
    if text.is_empty() || !text.as_bytes().iter().all(fits) {
        complaints.push(CONFIG_KEY.to_owned());
    } else if matches!(text, "." | "..") {
        complaints.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        complaints.push("must not start with '..'".to_owned());
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_other_texts() {
        let long = "a".repeat(254);
        for (rule, good, bad) in [
            (
                subdomain as NameRule,
                vec!["a", "a.b-c.1", "1"],
                vec!["", "A", "a..b", "-a", "a.", &long],
            ),
            (label, vec!["a", "a-1"], vec!["", "a.b", "a-", "ä", &long]),
            (
                qualified,
                vec!["a", "A_b.c", "x.y/Z"],
                vec!["", "/a", "a/", "X/a", "a/b/c", "a b", &long],
            ),
            (label_value, vec!["", "a", "A_b.c"], vec!["-", "a b", &long]),
            (
                config_key,
                vec!["a", ".a", "a_B-1"],
                vec!["", "a/b", ".", "..", "..a", &long],
            ),
            (
                path_segment,
                vec!["a", "A b", "..."],
                vec![".", "..", "a/b", "%"],
            ),
        ] {
            assert!(good.iter().all(|text| rule(text).is_empty()), "{good:?}");
            assert!(
                bad.iter().take(5).all(|text| !rule(text).is_empty()),
                "{bad:?}"
            );
        }
    }
}
