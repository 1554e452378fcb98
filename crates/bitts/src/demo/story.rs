//! What the demo tells: one line a step, with its time since the start.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use tokio::sync::watch;

use crate::cli::Output;

/// How long the story waits for a step before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A step in the life of a claim. Scripts depend on the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    ClaimCreated,
    Available,
    Bound,
    PodCreated,
    Mounted,
    Written,
    Read,
    Unmounted,
    Released,
    Failed,
    Done,
}

impl Step {
    fn colour(self) -> &'static str {
        match self {
            Self::Bound | Self::Mounted | Self::Written | Self::Read | Self::Done => "\x1b[32m",
            Self::Failed | Self::Released => "\x1b[33m",
            _ => "\x1b[36m",
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    t_ms: f64,
    step: Step,
    kind: &'a str,
    name: &'a str,
    detail: &'a str,
}

/// The teller. Clones tell the same story.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    output: Output,
    started: Instant,
    told: watch::Sender<Vec<Told>>,
}

#[derive(Debug)]
struct Told {
    step: Step,
    kind: &'static str,
    name: String,
    detail: String,
    at: Duration,
}

/// Something the story waits for: a step of one object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) step: Step,
    pub(crate) kind: &'static str,
    pub(crate) name: &'a str,
}

impl Moment<'_> {
    fn is(&self, told: &Told) -> bool {
        self.step == told.step && self.kind == told.kind && self.name == told.name
    }
}

impl Story {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            output,
            started: Instant::now(),
            told: watch::Sender::default(),
        }
    }

    /// Tells a step about an object.
    pub(crate) fn step(
        &self,
        step: Step,
        kind: &'static str,
        name: &str,
        detail: &str,
    ) -> io::Result<()> {
        let at = self.started.elapsed();
        let t_ms = (at.as_secs_f64() * 1e5).round() / 1e2;
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => {
                serde_json::to_writer(
                    &mut out,
                    &Line {
                        t_ms,
                        step,
                        kind,
                        name,
                        detail,
                    },
                )?;
                writeln!(out)?;
            }
            Output::Text => {
                let label = serde_json::to_value(step)?;
                let label = label.as_str().unwrap_or_default();
                let (on, off) = if out.is_terminal() {
                    (step.colour(), "\x1b[0m")
                } else {
                    ("", "")
                };
                let object = format!("{} {name}", noun(kind));
                writeln!(
                    out,
                    "{t_ms:>9.2} ms  {on}{label:<13}{off} {object:<20} {detail}"
                )?;
            }
        }
        out.flush()?;
        let (name, detail) = (name.to_owned(), detail.to_owned());
        self.told.send_modify(|all| {
            all.push(Told {
                step,
                kind,
                name,
                detail,
                at,
            })
        });
        Ok(())
    }

    /// Waits until a step was told, and gives its detail.
    pub(crate) async fn wait(&self, moment: Moment<'_>) -> Result<String> {
        let mut told = self.told.subscribe();
        let seen = told.wait_for(|all| all.iter().any(|t| moment.is(t)));
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(Ok(all)) => Ok(all
                .iter()
                .find(|t| moment.is(t))
                .map(|t| t.detail.clone())
                .unwrap_or_default()),
            Ok(Err(_)) | Err(_) => bail!(
                "{} {} did not get to {:?} within {PATIENCE:?}; run with --log debug to see why",
                noun(moment.kind),
                moment.name,
                moment.step,
            ),
        }
    }

    /// How long lay between two steps, the first of each.
    pub(crate) fn between(&self, from: Moment<'_>, to: Moment<'_>) -> Option<Duration> {
        let told = self.told.borrow();
        let at = |moment: Moment<'_>| told.iter().find(|t| moment.is(t)).map(|t| t.at);
        at(to)?.checked_sub(at(from)?)
    }

    /// Says something beside the steps: to the reader of the text, or, where standard output holds
    /// JSON, on standard error.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        match self.output {
            Output::Text => {
                let mut out = io::stdout().lock();
                writeln!(out, "{text}")?;
                out.flush()
            }
            Output::Json => writeln!(io::stderr().lock(), "{text}"),
        }
    }
}

/// What people call a kind.
fn noun(kind: &str) -> &str {
    match kind {
        "PersistentVolume" => "volume",
        "PersistentVolumeClaim" => "claim",
        "Pod" => "pod",
        other => other,
    }
}
