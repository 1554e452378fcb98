//! What each form of each write costs the API server.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bitts_e2e::raw::Request;
use clap::ValueEnum;
use futures::{TryStreamExt as _, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::figures::Output;
use crate::setup::{CLAIMS, Fresh, VOLUMES, list};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many volumes and claims each form is tried on.
    #[arg(long, default_value_t = 400)]
    pairs: u32,
    /// How many writes are under way at a time.
    #[arg(long, default_value_t = 16)]
    at_once: usize,
    /// Also how fast the cheapest patch is with 1 to 128 writes at a time.
    #[arg(long)]
    sweep: bool,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// One of the four writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Reserve,
    VolumeBound,
    Bind,
    ClaimBound,
}

impl Step {
    pub(crate) const ALL: [Self; 4] = [
        Self::Reserve,
        Self::VolumeBound,
        Self::Bind,
        Self::ClaimBound,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve volume",
            Self::VolumeBound => "volume status",
            Self::Bind => "bind claim",
            Self::ClaimBound => "claim status",
        }
    }

    fn patch(self, volume: &Value, claim: &Value) -> Value {
        match self {
            Self::Reserve => json!({
                "metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
                "spec": {"claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": claim["metadata"]["namespace"],
                    "name": claim["metadata"]["name"],
                    "uid": claim["metadata"]["uid"],
                    "resourceVersion": claim["metadata"]["resourceVersion"],
                }},
            }),
            Self::VolumeBound => json!({"status": {"phase": "Bound"}}),
            Self::Bind => json!({
                "metadata": {"annotations": {
                    "pv.kubernetes.io/bind-completed": "yes",
                    "pv.kubernetes.io/bound-by-controller": "yes",
                }},
                "spec": {"volumeName": volume["metadata"]["name"]},
            }),
            Self::ClaimBound => json!({"status": {
                "phase": "Bound",
                "accessModes": volume["spec"]["accessModes"],
                "capacity": volume["spec"]["capacity"],
            }}),
        }
    }
}

/// How a write is written. All but the last name the object's uid and version, so that they are
/// refused once it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// The whole object.
    Put,
    /// The whole object, unknown fields not looked for.
    PutLax,
    /// A merge patch.
    Merge,
    /// A merge patch, unknown fields not looked for.
    MergeLax,
    /// The same, answered with the metadata alone.
    MergeLaxPartial,
    /// A strategic merge patch, unknown fields not looked for.
    StrategicLax,
    /// A JSON patch with `test` operations, unknown fields not looked for.
    JsonLax,
    /// A merge patch valid for any version, unknown fields not looked for.
    MergeLaxBlind,
}

impl Form {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Does one write, and takes over what the API answers.
    pub(crate) async fn write(
        self,
        client: &Client,
        step: Step,
        volume: &mut Value,
        claim: &mut Value,
    ) -> Result<()> {
        let patch = step.patch(volume, claim);
        let (collection, object) = match step {
            Step::Reserve | Step::VolumeBound => (VOLUMES, volume),
            Step::Bind | Step::ClaimBound => (CLAIMS, claim),
        };
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let status = match step {
            Step::VolumeBound | Step::ClaimBound => "/status",
            Step::Reserve | Step::Bind => "",
        };
        let lax = match self {
            Self::Put | Self::Merge => "",
            _ => "&fieldValidation=Ignore",
        };
        let path = format!("{collection}/{name}{status}?fieldManager=bench{lax}");
        let mut request = Request::new("PATCH", &path, Value::Null);
        let (uid, version) = (
            &object["metadata"]["uid"],
            &object["metadata"]["resourceVersion"],
        );
        let mut conditional = patch.clone();
        conditional["metadata"]["uid"] = uid.clone();
        conditional["metadata"]["resourceVersion"] = version.clone();
        let kind = match self {
            Self::Put | Self::PutLax => {
                request.method = "PUT".to_owned();
                merge(object, patch);
                request.body = object.clone();
                "json"
            }
            Self::Merge | Self::MergeLax | Self::MergeLaxPartial => {
                request.body = conditional;
                "merge-patch+json"
            }
            Self::StrategicLax => {
                request.body = conditional;
                "strategic-merge-patch+json"
            }
            Self::JsonLax => {
                let mut operations = vec![
                    json!({"op": "test", "path": "/metadata/uid", "value": uid}),
                    json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}),
                ];
                add(&mut operations, object, &patch, "");
                request.body = operations.into();
                "json-patch+json"
            }
            Self::MergeLaxBlind => {
                request.body = patch.clone();
                "merge-patch+json"
            }
        };
        request.content_type = Some(format!("application/{kind}"));
        if self == Self::MergeLaxPartial {
            let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
            request.accept = Some(partial.to_owned());
        }
        let answer = request.send(client).await?.expect(200)?;
        if self == Self::MergeLaxPartial {
            object["metadata"] = answer["metadata"].clone();
        } else {
            *object = answer;
        }
        Ok(())
    }
}

/// Lays a patch over an object; there are no nulls in it.
fn merge(object: &mut Value, patch: Value) {
    match patch {
        Value::Object(fields) => {
            for (name, value) in fields {
                merge(&mut object[name], value);
            }
        }
        other => *object = other,
    }
}

/// The operations that lay a patch over an object.
fn add(operations: &mut Vec<Value>, object: &Value, patch: &Value, path: &str) {
    for (name, value) in patch.as_object().into_iter().flatten() {
        let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
        match object.get(name) {
            Some(inner @ Value::Object(_)) => add(operations, inner, value, &path),
            _ => operations.push(json!({"op": "add", "path": path, "value": value})),
        }
    }
}

/// What one form of one write cost.
struct Cost {
    form: String,
    step: &'static str,
    at_once: usize,
    api_cpu_ms: f64,
    per_s: f64,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let mut costs = Vec::new();
    for &form in Form::value_variants() {
        eprintln!("{}", form.name());
        costs.extend(measure(form, args.pairs, args.at_once).await?);
    }
    if args.sweep {
        for at_once in [1, 2, 4, 8, 16, 32, 64, 128] {
            eprintln!("{at_once} at once");
            costs.extend(measure(Form::MergeLax, args.pairs, at_once).await?);
        }
    }
    match args.output {
        Output::Text => {
            println!(
                "{:<20} {:<16} {:>7} {:>12} {:>9}",
                "form", "write", "at once", "API CPU ms", "writes/s"
            );
            for cost in costs {
                let Cost {
                    form,
                    step,
                    at_once,
                    api_cpu_ms,
                    per_s,
                } = cost;
                println!("{form:<20} {step:<16} {at_once:>7} {api_cpu_ms:>12.2} {per_s:>9.0}");
            }
        }
        Output::Json => {
            let costs: Vec<Value> = costs
                .into_iter()
                .map(|c| {
                    json!({"form": c.form, "write": c.step, "at_once": c.at_once,
                        "api_cpu_ms_each": c.api_cpu_ms, "per_s": c.per_s})
                })
                .collect();
            println!("{:#}", json!({"writes": costs}));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Each of the writes of all pairs, one step after the other, on an API server of their own.
async fn measure(form: Form, pairs: u32, at_once: usize) -> Result<Vec<Cost>> {
    let fresh = Fresh::start().await?;
    fresh.create_volumes(0..pairs).await?;
    fresh.create_claims(0..pairs).await?;
    let mut volumes = list(&fresh.client, VOLUMES).await?;
    let mut claims = list(&fresh.client, CLAIMS).await?;
    let mut costs = Vec::new();
    for step in Step::ALL {
        let (cpu, began) = (fresh.cpu_ms()?, Instant::now());
        let all = stream::iter(volumes.iter_mut().zip(&mut claims).map(anyhow::Ok));
        all.try_for_each_concurrent(at_once, |(volume, claim)| {
            form.write(&fresh.client, step, volume, claim)
        })
        .await?;
        costs.push(Cost {
            form: form.name(),
            step: step.name(),
            at_once,
            api_cpu_ms: (fresh.cpu_ms()? - cpu) / f64::from(pairs),
            per_s: f64::from(pairs) / began.elapsed().as_secs_f64(),
        });
    }
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_patch_has_the_same_effect_as_a_merge_patch() {
        let object =
            json!({"metadata": {"name": "v", "annotations": {"x/y": "1"}}, "spec": {"a": 1}});
        let patch =
            json!({"metadata": {"annotations": {"p/q": "yes"}}, "spec": {"a": 2, "b": {"c": 3}}});
        let mut operations = Vec::new();
        add(&mut operations, &object, &patch, "");
        assert_eq!(
            Value::from(operations),
            json!([
                {"op": "add", "path": "/metadata/annotations/p~1q", "value": "yes"},
                {"op": "add", "path": "/spec/a", "value": 2},
                {"op": "add", "path": "/spec/b", "value": {"c": 3}},
            ])
        );
        let mut merged = object;
        merge(&mut merged, patch);
        assert_eq!(merged["spec"], json!({"a": 2, "b": {"c": 3}}));
        assert_eq!(
            merged["metadata"]["annotations"],
            json!({"x/y": "1", "p/q": "yes"})
        );
    }
}
