//! Command lines that can be pasted into a shell.

use std::fmt;

use bitts_api::{Kind, ObjectKey};
use serde_json::Value;

/// A kubectl command. Prints as a line for a POSIX shell, whatever its arguments hold.
///
/// ```
/// use bitts_binder::Kubectl;
///
/// let command = Kubectl::new(["label", "pv/a", "owner=Conan O'Brien"]);
/// assert_eq!(command.to_string(), r#"kubectl label pv/a 'owner=Conan O'\''Brien'"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubectl(Vec<String>);

impl Kubectl {
    /// The command with these arguments.
    pub fn new(arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(arguments.into_iter().map(Into::into).collect())
    }

    /// The arguments, unquoted.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.0
    }

    /// The same command with a flag and its value.
    #[must_use]
    pub fn with(mut self, flag: &str, value: &str) -> Self {
        self.0.extend([flag.into(), value.into()]);
        self
    }

    pub(super) fn and(mut self, argument: impl Into<String>) -> Self {
        self.0.push(argument.into());
        self
    }

    pub(super) fn on(verb: &str, key: &ObjectKey) -> Self {
        let kind = match key.kind {
            Kind::Volume => "pv",
            Kind::Claim => "pvc",
            other => other.plural(),
        };
        // `pv/name`: a name is never taken for a flag.
        let command = Self::new([verb.to_owned(), format!("{kind}/{}", key.name)]);
        match &key.namespace {
            Some(namespace) => command.with("--namespace", namespace.as_str()),
            None => command,
        }
    }

    pub(super) fn merge(key: &ObjectKey, patch: &Value) -> Self {
        Self::on("patch", key)
            .with("--type", "merge")
            .with("--patch", &patch.to_string())
    }
}

impl fmt::Display for Kubectl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kubectl")?;
        self.0
            .iter()
            .try_for_each(|argument| write!(f, " {}", quoted(argument)))
    }
}

/// Between single quotes a shell reads everything as it is, except the quote itself.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        let odd = [
            "",
            "a b",
            "$HOME",
            "`id`",
            "it's",
            "''",
            "a\nb",
            "\\",
            "*",
            "{\"a\":\"'\"}",
            "#x",
            "~",
            "ü",
        ];
        let line = Kubectl::new(odd).to_string();
        let script = format!("kubectl() {{ printf '%s\\0' \"$@\"; }}; {line}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let read: Vec<_> = text.strip_suffix('\0').unwrap().split('\0').collect();
        assert_eq!(read, odd);
    }
}
