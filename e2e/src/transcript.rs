//! Request files and recorded answers.
//!
//! `requests/volumes.yaml` holds named cases, each a sequence of raw requests;
//! `requests/volumes.answers.yaml` what the real API answered. Both APIs must give these answers:
//! the real one, so that the record stays true, and bitts-apiserver, which is thereby compared with
//! the real one on machines that have none, too. Only the real API writes the record, when
//! BITTS_E2E_RECORD=1 is set.
//!
//! What differs from run to run is masked: identifiers, versions, times, field managers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use anyhow::Context as _;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use similar::TextDiff;

use crate::cluster::{Kind, Scope};
use crate::raw::Request;
use crate::suite::{Manner, Suite};

/// A named sequence of requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Changes what other tests would see, such as the default class.
    #[serde(default)]
    alone: bool,
    /// Why bitts-apiserver answers otherwise, and who is right. It must really answer otherwise.
    differs: Option<String>,
    steps: Vec<Step>,
}

/// One request. In its texts `$ns` is the test's namespace, `$id` what makes names unique, and
/// `$NAME` what an earlier step saved.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Method and path; `WATCH` is a GET that reads `events` lines.
    request: String,
    #[serde(default)]
    body: Value,
    /// The Content-Type without `application/`.
    r#type: Option<String>,
    accept: Option<String>,
    /// What later steps use: a name, and where the answer has it (a JSON pointer).
    #[serde(default)]
    save: BTreeMap<String, String>,
    #[serde(default)]
    events: usize,
    /// Only prepares: it must succeed, and its answer is not compared.
    #[serde(default)]
    quiet: bool,
    /// Compares only what is at these JSON pointers, in which `*` is every element of a list.
    #[serde(default)]
    only: Vec<String>,
}

/// A request and what came back, as recorded.
#[derive(Debug, Serialize, Deserialize)]
struct Exchange {
    request: String,
    status: u16,
    answer: Value,
}

type Answers = BTreeMap<String, Vec<Exchange>>;

/// Adds every case of every `*.yaml` in `folder` to `suite`.
pub fn add_all(suite: &mut Suite, folder: &Path) -> anyhow::Result<()> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    files.retain(|path| {
        let name = path.to_string_lossy();
        name.ends_with(".yaml") && !name.ends_with(".answers.yaml")
    });
    files.sort();
    for path in files {
        add_file(suite, &path).with_context(|| format!("in {}", path.display()))?;
    }
    Ok(())
}

fn add_file(suite: &mut Suite, path: &Path) -> anyhow::Result<()> {
    let cases: Vec<Case> = serde_yaml_ng::from_str(&std::fs::read_to_string(path)?)?;
    let file = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let record = Arc::new(Record::load(path.with_extension("answers.yaml"))?);
    record.check_names(&cases)?;
    for case in cases {
        let name = format!("requests::{file}::{}", case.name.replace(' ', "_"));
        let manner = if case.alone {
            Manner::Alone
        } else {
            Manner::Together
        };
        let (case, record) = (Arc::new(case), record.clone());
        suite.add(&name, Kind::BOTH, manner, move |scope| {
            let (case, record) = (case.clone(), record.clone());
            async move { run(&case, &record, scope).await }
        });
    }
    Ok(())
}

async fn run(case: &Case, record: &Record, scope: Scope) -> anyhow::Result<()> {
    let kind = scope.kind();
    let exchanges = exchanges(case, &scope).await;
    if kind == Kind::Real && std::env::var_os("BITTS_E2E_RECORD").is_some() {
        return record.write(&case.name, exchanges?);
    }
    let same = exchanges.and_then(|exchanges| record.compare(&case.name, &exchanges));
    match (&case.differs, kind, same) {
        (Some(why), Kind::Embedded, Ok(())) => {
            anyhow::bail!("it no longer differs; remove the `differs` of this case ({why})")
        }
        (Some(_), Kind::Embedded, Err(_)) => Ok(()),
        (_, _, same) => same,
    }
}

async fn exchanges(case: &Case, scope: &Scope) -> anyhow::Result<Vec<Exchange>> {
    let mut saved: BTreeMap<String, String> = BTreeMap::new();
    saved.insert("ns".to_owned(), scope.namespace().to_owned());
    saved.insert("id".to_owned(), scope.id().to_owned());
    let mut exchanges = Vec::new();
    for step in &case.steps {
        let mut body = step.body.clone();
        each_text(&mut body, &|text| fill(text, &saved));
        let line = fill(&step.request, &saved);
        let (method, path) = line.split_once(' ').context("a request is METHOD PATH")?;
        let mut request = Request::new(method, path, body);
        request.accept = step.accept.clone();
        request.content_type = step
            .r#type
            .as_ref()
            .map(|kind| format!("application/{kind}"));
        let (status, mut answer) = if method == "WATCH" {
            request.method = "GET".to_owned();
            let mut watch = request.watch(&scope.client()).await?;
            (watch.status, Value::Array(watch.take(step.events).await?))
        } else {
            let answer = request.send(&scope.client()).await?;
            (answer.status, answer.body)
        };
        for (name, pointer) in &step.save {
            let value = answer.pointer(pointer).and_then(Value::as_str);
            let value =
                value.with_context(|| format!("{line}: nothing at {pointer} in {answer}"))?;
            saved.insert(name.clone(), value.to_owned());
        }
        if step.quiet {
            anyhow::ensure!(status < 300, "{line}: {status} {answer}");
            continue;
        }
        mask(&mut answer);
        each_text(&mut answer, &|text| unfill(text, scope));
        if !step.only.is_empty() {
            let part = |pointer: &String| (pointer.clone(), part(&answer, pointer));
            answer = Value::Object(step.only.iter().map(part).collect());
        }
        exchanges.push(Exchange {
            request: step.request.clone(),
            status,
            answer,
        });
    }
    Ok(exchanges)
}

/// What is at a JSON pointer in which `*` stands for every element of a list; null if nothing is.
fn part(value: &Value, pointer: &str) -> Value {
    match pointer.split_once("/*") {
        Some((list, rest)) => match value.pointer(list).and_then(Value::as_array) {
            Some(elements) => elements.iter().map(|element| part(element, rest)).collect(),
            None => Value::Null,
        },
        None => value.pointer(pointer).cloned().unwrap_or_default(),
    }
}

/// The answers of one request file.
struct Record {
    path: PathBuf,
    answers: Mutex<Answers>,
}

impl Record {
    fn load(path: PathBuf) -> anyhow::Result<Self> {
        let answers = match std::fs::read_to_string(&path) {
            Ok(text) => serde_yaml_ng::from_str(&text)?,
            Err(_) => Answers::new(),
        };
        Ok(Self {
            path,
            answers: Mutex::new(answers),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    /// Two cases of one name, or an answer to no case, would hide a mistake.
    fn check_names(&self, cases: &[Case]) -> anyhow::Result<()> {
        let mut names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            anyhow::ensure!(pair[0] != pair[1], "two cases are named {:?}", pair[0]);
        }
        for name in self.lock().keys() {
            let known = names.binary_search(&name.as_str()).is_ok();
            anyhow::ensure!(
                known,
                "{} answers {name:?}: no such case",
                self.path.display()
            );
        }
        Ok(())
    }

    fn write(&self, name: &str, exchanges: Vec<Exchange>) -> anyhow::Result<()> {
        let mut answers = self.lock();
        answers.insert(name.to_owned(), exchanges);
        Ok(std::fs::write(
            &self.path,
            serde_yaml_ng::to_string(&*answers)?,
        )?)
    }

    fn compare(&self, name: &str, exchanges: &[Exchange]) -> anyhow::Result<()> {
        let answers = self.lock();
        let recorded = answers.get(name).with_context(|| {
            format!(
                "{} has no answer; record it with BITTS_E2E_RECORD=1",
                self.path.display()
            )
        })?;
        let recorded = serde_yaml_ng::to_string(recorded)?;
        let given = serde_yaml_ng::to_string(exchanges)?;
        let diff = TextDiff::from_lines(&recorded, &given);
        let diff = diff
            .unified_diff()
            .header("recorded from the real API", "given")
            .to_string();
        anyhow::ensure!(recorded == given, "{diff}");
        Ok(())
    }
}

fn fill(text: &str, saved: &BTreeMap<String, String>) -> String {
    // Longer names first, since `$rv` also begins `$rv2`.
    let mut names: Vec<_> = saved.iter().collect();
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    names.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("${name}"), value)
    })
}

fn unfill(text: &str, scope: &Scope) -> String {
    text.replace(scope.namespace(), "$ns")
        .replace(scope.id(), "$id")
}

fn each_text(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| each_text(value, change)),
        Value::Object(members) => {
            let changed = std::mem::take(members)
                .into_iter()
                .map(|(name, mut value)| {
                    each_text(&mut value, change);
                    (change(&name), value)
                });
            *members = changed.collect();
        }
        _ => {}
    }
}

static VOLATILE: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let patterns = [
        (
            r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "<uid>",
        ),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (
            r"resource version: \d+ \(\d+\)",
            "resource version: <rv> (<rv>)",
        ),
        // How structs and their differences are printed is no part of the API.
        (r"(?s)\n\s*[-+@].*", " <difference>"),
        (
            r#"Invalid value: \{"Required".*\}: field"#,
            "Invalid value: <affinity>: field",
        ),
        (
            r"Too large resource version: \d+, current: \d+",
            "Too large resource version: <rv>, current: <rv>",
        ),
        (
            r"ResourceVersion in the precondition \(\d+\)",
            "ResourceVersion in the precondition (<rv>)",
        ),
        (
            r"ResourceVersion in record \(\d+\)",
            "ResourceVersion in record (<rv>)",
        ),
    ];
    // The patterns are constants: one that does not compile masks nothing, and tests show it.
    patterns
        .into_iter()
        .filter_map(|(text, name)| Some((Regex::new(text).ok()?, name)))
        .collect()
});

/// Replaces what no two runs share.
fn mask(value: &mut Value) {
    mask_members(value);
    mask_ages(value);
    each_text(value, &|text| {
        VOLATILE
            .iter()
            .fold(text.to_owned(), |text, (pattern, name)| {
                pattern.replace_all(&text, *name).into_owned()
            })
    });
}

const EMPTY_IS_ABSENT: [&str; 5] = ["annotations", "data", "finalizers", "labels", "status"];

fn mask_members(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(mask_members),
        Value::Object(members) => {
            members.remove("managedFields");
            // Absent, null and empty are one to every client; Go prints some of its zero values.
            members.retain(|name, value| match value {
                Value::Null => false,
                Value::Object(inner) if EMPTY_IS_ABSENT.contains(&name.as_str()) => {
                    !inner.is_empty()
                }
                Value::Array(inner) if EMPTY_IS_ABSENT.contains(&name.as_str()) => {
                    !inner.is_empty()
                }
                _ => true,
            });
            for (name, value) in members.iter_mut() {
                match (name.as_str(), &value) {
                    ("resourceVersion", Value::String(_)) => *value = "<rv>".into(),
                    ("continue", Value::String(_)) => *value = "<continue>".into(),
                    _ => mask_members(value),
                }
            }
        }
        _ => {}
    }
}

/// The cells of a table's columns that hold ages.
fn mask_ages(value: &mut Value) {
    let ages: Vec<usize> = match value
        .pointer("/columnDefinitions")
        .and_then(Value::as_array)
    {
        Some(columns) => (0..columns.len())
            .filter(|at| {
                ["Age", "Last Seen", "First Seen"]
                    .iter()
                    .any(|age| columns[*at]["name"] == *age)
            })
            .collect(),
        None => return,
    };
    let rows = value.pointer_mut("/rows").and_then(Value::as_array_mut);
    for row in rows.into_iter().flatten() {
        for at in &ages {
            row["cells"][*at] = "<age>".into();
        }
    }
}
