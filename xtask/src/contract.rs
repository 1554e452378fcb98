//! `cargo xtask contract`: every rule number leads somewhere, and a table says how far each one is.

mod mentions;
mod rules;
mod table;

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use crate::files;
use crate::workspace::Workspace;
use mentions::{Mentions, Place};
use rules::Contract;

const CONTRACT: &str = "docs/contract.md";
const COVERAGE: &str = "docs/coverage.md";

/// Groups of the oracle whose every row must be named by a test.
const WHOLE_GROUPS: [&str; 7] = ["1", "2", "3", "4", "10", "13", "14"];
/// Rows that nothing can show, with the reason.
const MOOT: [(&str, &str); 1] = [("2-13", "the feature gate that it switches off is locked on")];

/// What is done with the table.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when the table is not as it would be written.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(workspace: &Workspace, args: Args) -> Result<()> {
    if args.check {
        check(workspace)
    } else {
        generate(workspace)
    }
}

/// Fails when a rule is named that does not exist, or when the table is stale.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let fresh = table(workspace)?;
    let stored = fs::read_to_string(workspace.root.join(COVERAGE)).unwrap_or_default();
    ensure!(
        stored == fresh,
        "{COVERAGE} is stale: run `cargo xtask contract` and commit it"
    );
    Ok(())
}

fn generate(workspace: &Workspace) -> Result<()> {
    let path = workspace.root.join(COVERAGE);
    fs::write(&path, table(workspace)?).with_context(|| format!("cannot write {}", path.display()))
}

fn table(workspace: &Workspace) -> Result<String> {
    let text = fs::read_to_string(workspace.root.join(CONTRACT))
        .with_context(|| format!("cannot read {CONTRACT}"))?;
    let contract = Contract::parse(&text)?;
    let mut mentions = Mentions::default();
    for file in files::with_extension(&workspace.root, &["rs", "yaml", "md"])? {
        mentions.collect(&file);
    }
    refuse_unknown(&contract, &mentions)?;
    refuse_unshown(&contract, &mentions)?;
    Ok(table::render(&contract, &mentions))
}

fn refuse_unknown(contract: &Contract, mentions: &Mentions) -> Result<()> {
    let unknown: Vec<String> = mentions
        .all()
        .filter(|(rule, _)| !contract.has(*rule))
        .map(|(rule, place)| format!("  {rule} in {place}"))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    bail!(
        "{CONTRACT} has no such rule (a rule is named by its letter and number):\n{}",
        unknown.join("\n")
    )
}

fn refuse_unshown(contract: &Contract, mentions: &Mentions) -> Result<()> {
    let rows = contract.oracle.iter().map(String::as_str);
    let missing: Vec<&str> = rows
        .filter(|row| WHOLE_GROUPS.contains(&rules::group(row)) && why_moot(row).is_none())
        .filter(|row| !mentions.oracle.contains_key(*row))
        .collect();
    ensure!(
        missing.is_empty(),
        "no test names these rows of the oracle: {}",
        missing.join(", ")
    );
    Ok(())
}

fn why_moot(row: &str) -> Option<&'static str> {
    MOOT.iter()
        .find(|(moot, _)| *moot == row)
        .map(|(_, why)| *why)
}
