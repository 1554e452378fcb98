//! What cargo-deny says of the dependencies, by deny.toml.

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use super::{Report, Skip};

pub(super) fn check() -> Result<Report> {
    let sh = Shell::new()?;
    if cmd!(sh, "cargo deny --version")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_err()
    {
        let reason = "licences, bans, sources and advisories: cargo-deny is not there; get it with \
                      `cargo install cargo-deny --locked`";
        return Ok(Report::skip(reason, false));
    }
    cmd!(sh, "cargo deny --locked check bans licenses sources").run()?;
    advisories(&sh)
}

/// The database of advisories is fetched from the network, which a machine may not have.
fn advisories(sh: &Shell) -> Result<Report> {
    let check = cmd!(sh, "cargo deny --locked check advisories")
        .ignore_status()
        .output()?;
    let said = String::from_utf8_lossy(&check.stderr);
    if check.status.success() {
        return Ok(Report::default());
    }
    if said.contains("failed to fetch advisory database") {
        return Ok(Report::skip(
            "advisories: their database could not be fetched",
            true,
        ));
    }
    bail!("advisories:\n{said}")
}

impl Report {
    fn skip(reason: &str, excused: bool) -> Self {
        let skip = Skip {
            reason: reason.to_owned(),
            excused,
        };
        Self {
            skipped: vec![skip],
            ..Self::default()
        }
    }
}
