//! Every test, and what the tests say of themselves.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::{Report, Skip};

/// How a test says that it checked nothing: a line on standard error that begins so (not through
/// `eprintln!`, which the built-in test harness keeps to itself when a test passes).
const SKIPPED: [&str; 2] = ["skipped: ", "skipped "];
/// How a case is named that runs as a user who is not root although the tests run as root. What
/// such a user may not do is no gap: the same case also runs as root.
const UNPRIVILEGED: &str = "nobody::";
/// What the tests of a real cluster say without one. They have a command of their own, `cargo xtask
/// e2e`, which fails where it cannot run them.
const CLUSTER: &str = "bitts on a real cluster";

pub(super) fn run() -> Result<Report> {
    let mut cargo = Command::new("cargo")
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let out = cargo
        .stdout
        .take()
        .map(|out| thread::spawn(|| Tally::pass_on(out, std::io::stdout())));
    let err = cargo
        .stderr
        .take()
        .map(|err| thread::spawn(|| Tally::pass_on(err, std::io::stderr())));
    let mut tally = Tally::default();
    for reader in [out, err].into_iter().flatten() {
        tally.add(
            reader
                .join()
                .ok()
                .context("a reader of cargo's output panicked")??,
        );
    }
    let status = cargo.wait()?;
    ensure!(
        status.success() && tally.failed == 0,
        "{} tests failed ({status})",
        tally.failed
    );
    ensure!(tally.passed > 0, "no test ran");
    Ok(tally.report())
}

/// What the output of tests adds up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
    ignored: u32,
    skipped: Vec<String>,
}

impl Tally {
    /// Passes each line on as it comes and counts.
    fn pass_on(from: impl Read, mut to: impl Write) -> Result<Self> {
        let mut tally = Self::default();
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            to.write_all(&line)?;
            tally.line(&String::from_utf8_lossy(&line));
            line.clear();
        }
        to.flush()?;
        Ok(tally)
    }

    fn line(&mut self, line: &str) {
        let skipped = SKIPPED.iter().find_map(|start| line.strip_prefix(start));
        if let Some(reason) = skipped {
            self.skipped.push(reason.trim_end().to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let mut before = "";
            for word in counts.split_whitespace() {
                let count = before.parse().unwrap_or(0);
                match word.trim_end_matches([';', '.']) {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    "ignored" => self.ignored += count,
                    _ => {}
                }
                before = word;
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped.extend(other.skipped);
    }

    fn report(mut self) -> Report {
        self.skipped.sort();
        self.skipped.dedup();
        let skipped = self.skipped.into_iter().map(|reason| Skip {
            excused: reason.starts_with(UNPRIVILEGED) || reason.starts_with(CLUSTER),
            reason,
        });
        Report {
            note: format!("{} passed, {} ignored", self.passed, self.ignored),
            skipped: skipped.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_elsewhere_is_excused() {
        let mut tally = Tally::default();
        tally.line("skipped nobody::a_case: not permitted\n");
        tally.line("skipped root::a_case: not permitted\n");
        tally.line("skipped: bitts on a real cluster: there is none\n");
        let excused: Vec<bool> = tally
            .report()
            .skipped
            .iter()
            .map(|skip| skip.excused)
            .collect();
        assert_eq!(excused, [true, true, false]);
    }

    #[test]
    fn results_are_added_up_and_lines_passed_on() {
        let output = "test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; \
            0 filtered out; finished in 0.00s\nskipped: NFS: no server\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored;\n";
        let mut seen = Vec::new();
        let tally = Tally::pass_on(output.as_bytes(), &mut seen).unwrap();
        let skipped = vec!["NFS: no server".to_owned()];
        assert_eq!(
            tally,
            Tally {
                passed: 4,
                failed: 2,
                ignored: 1,
                skipped
            }
        );
        assert_eq!(seen, output.as_bytes());
    }
}
