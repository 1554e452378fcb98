//! The Helm chart, where its tools are or can be built.

use anyhow::Result;

use super::{Report, Skip};
use crate::chart::{self, Missing};
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace) -> Result<Report> {
    match chart::check(workspace) {
        Ok(note) => Ok(Report {
            note,
            ..Report::default()
        }),
        Err(error) if error.is::<Missing>() => Ok(Report {
            skipped: vec![Skip {
                reason: format!("the Helm chart and the manifests in deploy/: {error}"),
                excused: false,
            }],
            ..Report::default()
        }),
        Err(error) => Err(error),
    }
}
