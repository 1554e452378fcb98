//! What is said to the child that keeps a share, and what it answers: a line of JSON each.

use std::io;

use serde::{Deserialize, Serialize};

use crate::operator::{Order, Told};
use crate::site::Share;
use crate::task::{Report, Task};

/// Something for the child to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) work: Work,
}

/// Who asks for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// The provisioner.
    Task(Task),
    /// An operator.
    Order(Order),
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Of a task.
    Report(Report),
    /// Of an order.
    Told(Result<Told, String>),
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The share is mounted.
    Mounted,
    /// It is not, and why.
    NotMounted(String),
    /// What came of a call.
    Done(u64, Outcome),
    /// Something that nobody waits for went wrong.
    Warning(String),
}

/// A line of what is said.
pub(super) fn line(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(line)
}

/// A task with the path as it is on the share, for messages too: `nas:/export/directory`.
pub(super) fn of_server(share: &Share, task: Task) -> Task {
    match task {
        Task::Remove { volume, uid, path } => Task::Remove {
            volume,
            uid,
            path: format!("{}{path}", server(share)).into(),
        },
        task => task,
    }
}

/// A report with the path as the API has it: `/export/directory`.
pub(super) fn of_volume(share: &Share, report: Report) -> Report {
    match report {
        Report::Made(volume, path) => {
            let path = path.strip_prefix(&*server(share)).map(Box::from);
            Report::Made(volume, path.unwrap_or_default())
        }
        report => report,
    }
}

fn server(share: &Share) -> String {
    let nowhere = Share {
        path: "".into(),
        ..share.clone()
    };
    nowhere.to_string()
}

/// What is told when nothing is known of a task.
pub(super) fn out_of_reach(task: Task, why: String) -> Report {
    match task {
        Task::Scan | Task::Survey => Report::ScanFailed(why),
        Task::Make(record) => Report::Unreachable(record.volume, why),
        Task::Confirm(volume, _)
        | Task::Discard(volume, _)
        | Task::Grow { volume, .. }
        | Task::Remove { volume, .. } => Report::Unreachable(volume, why),
    }
}
