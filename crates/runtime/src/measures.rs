//! The numbers that machines keep, asked for when somebody reads the metrics.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
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
        let name = measure.name;
        // OpenMetrics names a counter without the ending that its value has, and knows no other.
        let (kind, base) = match (&measure.reading, name.strip_suffix("_total")) {
            (Reading::Gauge(_), _) => ("gauge", name),
            (Reading::Counter(_), Some(base)) => ("counter", base),
            (Reading::Counter(_), None) => ("unknown", name),
            (Reading::Durations(_), _) => ("histogram", name),
        };
        // Writing to a String cannot fail.
        if name != last {
            let _ = writeln!(text, "# HELP {base} {}.", measure.help);
            let _ = writeln!(text, "# TYPE {base} {kind}");
            last = name;
        }
        match &measure.reading {
            Reading::Gauge(n) | Reading::Counter(n) => line(&mut text, measure, "", None, n),
            Reading::Durations(took) => {
                for (bound, n) in took.below() {
                    let bound = format!("{:?}", bound.as_secs_f64());
                    line(&mut text, measure, "_bucket", Some(bound), n);
                }
                let all = Some("+Inf".to_owned());
                line(&mut text, measure, "_bucket", all, took.count());
                line(&mut text, measure, "_sum", None, took.sum().as_secs_f64());
                line(&mut text, measure, "_count", None, took.count());
            }
        }
    }
    text
}

fn line(
    text: &mut String,
    measure: &Measure,
    ending: &str,
    bound: Option<String>,
    value: impl Display,
) {
    let bound = bound.map(|bound| ("le", bound));
    let labels: Vec<_> = measure
        .labels
        .iter()
        .chain(&bound)
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    let name = measure.name;
    let _ = match &labels[..] {
        [] => writeln!(text, "{name}{ending} {value}"),
        labels => writeln!(text, "{name}{ending}{{{}}} {value}", labels.join(",")),
    };
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use bitts_api::machine::Durations;

    use super::*;

    #[test]
    fn measures_are_written_under_their_own_names() {
        let one = |name, labels, reading| Measure {
            name,
            help: "Help",
            labels,
            reading,
        };
        const BOUNDS: [Duration; 1] = [Duration::from_secs(1)];
        let mut took = Durations::new(&BOUNDS);
        took.add(Duration::from_secs(1));
        took.add(Duration::from_millis(2_500));
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
            one("total_errors", vec![], Reading::Counter(6)),
            one(
                "seconds",
                vec![("a", "b".to_owned())],
                Reading::Durations(took),
            ),
        ];
        assert_eq!(
            text(&all),
            "# HELP pv_count Help.\n# TYPE pv_count gauge\n\
             pv_count{class=\"a\\\"b\"} 3\npv_count{class=\"c\"} 4\n\
             # HELP made Help.\n# TYPE made counter\nmade_total 5\n\
             # HELP total_errors Help.\n# TYPE total_errors unknown\ntotal_errors 6\n\
             # HELP seconds Help.\n# TYPE seconds histogram\n\
             seconds_bucket{a=\"b\",le=\"1.0\"} 1\nseconds_bucket{a=\"b\",le=\"+Inf\"} 2\n\
             seconds_sum{a=\"b\"} 3.5\nseconds_count{a=\"b\"} 2\n"
        );
    }
}
