//! The numbers that machines keep, asked for when somebody reads the metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bitts_api::machine::{Measure, Reading};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Asks a machine for its measures.
pub(crate) type Question = oneshot::Sender<Vec<Measure>>;

/// A machine answers between two inputs: within microseconds, unless its role ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// How to ask the machine of each role.
#[derive(Debug, Default)]
pub(crate) struct Machines(Mutex<BTreeMap<&'static str, mpsc::Sender<Question>>>);

impl Machines {
    /// Where the machine of a role is asked from now on.
    pub(crate) fn answers_for(&self, role: &'static str) -> mpsc::Receiver<Question> {
        let (ask, questions) = mpsc::channel(1);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(role, ask);
        questions
    }

    /// What all machines measure, as Prometheus reads it.
    pub(crate) async fn text(&self) -> String {
        let all = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut measures = Vec::new();
        for ask in all.into_values() {
            let (question, answer) = oneshot::channel();
            let asked = async {
                ask.send(question).await.ok()?;
                answer.await.ok()
            };
            measures.extend(
                timeout(PATIENCE, asked)
                    .await
                    .ok()
                    .flatten()
                    .unwrap_or_default(),
            );
        }
        text(&measures)
    }
}

/// In the order in which they come: those of one name together.
fn text(measures: &[Measure]) -> String {
    let mut text = String::new();
    let mut last = "";
    for measure in measures {
        // OpenMetrics names a counter without the ending that its value has.
        let (kind, base) = match measure.reading {
            Reading::Gauge(_) => ("gauge", measure.name),
            Reading::Counter(_) => {
                let name = measure.name;
                ("counter", name.strip_suffix("_total").unwrap_or(name))
            }
        };
        // Writing to a String cannot fail.
        if measure.name != last {
            let _ = writeln!(text, "# HELP {base} {}.", measure.help);
            let _ = writeln!(text, "# TYPE {base} {kind}");
            last = measure.name;
        }
        let labels: Vec<_> = measure
            .labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let (Reading::Gauge(value) | Reading::Counter(value)) = measure.reading;
        let _ = match &labels[..] {
            [] => writeln!(text, "{} {value}", measure.name),
            labels => writeln!(text, "{}{{{}}} {value}", measure.name, labels.join(",")),
        };
    }
    text
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_written_under_their_own_names() {
        let one = |name, labels, reading| Measure {
            name,
            help: "Help",
            labels,
            reading,
        };
        let all = [
            one(
                "pv_count",
                vec![("class", "a\"b".to_owned())],
                Reading::Gauge(3),
            ),
            one(
                "pv_count",
                vec![("class", "c".to_owned())],
                Reading::Gauge(4),
            ),
            one("made_total", vec![], Reading::Counter(5)),
        ];
        assert_eq!(
            text(&all),
            "# HELP pv_count Help.\n# TYPE pv_count gauge\n\
             pv_count{class=\"a\\\"b\"} 3\npv_count{class=\"c\"} 4\n\
             # HELP made Help.\n# TYPE made counter\nmade_total 5\n"
        );
    }
}
