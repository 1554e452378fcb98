//! `bitts explain class`: whether volumes are made for it, and for which claims they are not.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use bitts_api::{Claim, Kind, Object, ObjectKey, StorageClass};
use bitts_provisioner::Template;
use kube::Client;
use serde_json::{Value, json};

use super::{NOT_FOUND, WAITS};
use crate::cli::{Explain, Output};
use crate::read::Reader;

/// What is to be said of a class.
#[derive(Debug)]
struct Verdict {
    state: State,
    /// Claims of the class that have no volume.
    waiting: Vec<String>,
    /// What provisioners told of it.
    events: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum State {
    /// Volumes are made for it, by this.
    Valid(String),
    /// None are, and why.
    Invalid(String),
    /// By somebody else, or by hand.
    Foreign,
}

impl State {
    fn code(&self) -> &'static str {
        match self {
            Self::Valid(_) => "valid",
            Self::Invalid(_) => "invalid",
            Self::Foreign => "foreign",
        }
    }
}

pub(super) async fn tell(client: &Client, args: &Explain) -> Result<ExitCode> {
    let key = ObjectKey::storage_class(&args.name.as_str().into());
    let mut reader = Reader::new(client);
    let class = match reader.object(&key).await? {
        Some(Object::StorageClass(class)) => Some(class),
        _ => None,
    };
    let mut verdict = None;
    if let Some(class) = &class {
        reader.if_allowed(Kind::Claim, None).await?;
        let claims = reader.objects.iter().filter_map(|object| match object {
            Object::Claim(claim) => Some(&**claim),
            _ => None,
        });
        let mut judged = judge(class, claims);
        match events(client, class).await {
            Ok(events) => judged.events = events,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let why = format!("events were not considered: {}", status.message);
                reader.unread.push(why);
            }
            Err(error) => return Err(error.into()),
        }
        verdict = Some(judged);
    }
    let mut out = io::stdout().lock();
    match (args.output, &verdict) {
        (Output::Json, _) => {
            writeln!(out, "{:#}", to_json(&key, verdict.as_ref(), &reader.unread))?
        }
        (Output::Text, Some(verdict)) => {
            out.write_all(to_text(&args.name, verdict, &reader.unread).as_bytes())?;
        }
        (Output::Text, None) => {}
    }
    out.flush()?;
    Ok(match verdict {
        None => {
            eprintln!("bitts: StorageClass {} does not exist", args.name);
            ExitCode::from(NOT_FOUND)
        }
        Some(Verdict {
            state: State::Invalid(_),
            ..
        }) => ExitCode::from(WAITS),
        Some(_) => ExitCode::SUCCESS,
    })
}

fn judge<'a>(class: &StorageClass, claims: impl Iterator<Item = &'a Claim>) -> Verdict {
    let of_it = |claim: &&Claim| {
        let named = claim.class.as_ref().map(|name| name.as_str());
        named == Some(class.meta.name.as_str()) && claim.volume_name.is_none()
    };
    let name = |claim: &Claim| {
        let namespace = claim.meta.namespace.as_ref().map_or("", |n| n.as_str());
        format!("{namespace}/{}", claim.meta.name)
    };
    let mut waiting: Vec<String> = claims.filter(of_it).map(name).collect();
    waiting.sort();
    let state = match Template::of_any(class) {
        Some(Ok(template)) => State::Valid(template.site.to_string()),
        Some(Err(error)) => State::Invalid(error.to_string()),
        None => State::Foreign,
    };
    Verdict {
        state,
        waiting,
        events: Vec::new(),
    }
}

/// What was told of the class, oldest first.
async fn events(client: &Client, class: &StorageClass) -> kube::Result<Vec<String>> {
    let path = format!(
        "/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid={}",
        class.meta.uid
    );
    let request = http::Request::get(path).body(Vec::new());
    let found: Value = client
        .request(request.map_err(kube::Error::HttpError)?)
        .await?;
    let items = found["items"].as_array().into_iter().flatten();
    let uid = class.meta.uid.to_string();
    let mut all: Vec<(String, String)> = items
        .filter(|event| event["involvedObject"]["uid"] == *uid)
        .map(|event| {
            let text = |member: &str| event[member].as_str().unwrap_or_default().to_owned();
            let said = format!("{}: {}", text("reason"), text("message"));
            (text("lastTimestamp"), said)
        })
        .collect();
    all.sort();
    Ok(all.into_iter().map(|(_, said)| said).collect())
}

fn to_json(key: &ObjectKey, verdict: Option<&Verdict>, unread: &[String]) -> Value {
    let object = json!({"kind": key.kind.name(), "namespace": null, "name": key.name});
    let Some(verdict) = verdict else {
        return json!({"object": object, "state": "not-found", "waitingFor": null,
            "candidates": [], "next": null});
    };
    let invalid = match &verdict.state {
        State::Invalid(why) => Some(why),
        State::Valid(_) | State::Foreign => None,
    };
    let facts = verdict.events.iter();
    let facts: Vec<_> = facts
        .map(|text| json!({"code": "event", "text": text}))
        .collect();
    let candidates = match verdict.waiting.len() {
        0 => json!([]),
        count => json!([{"reason": "no-volume", "count": count, "names": verdict.waiting}]),
    };
    json!({
        "object": object,
        "state": verdict.state.code(),
        "waitingFor": invalid.map(|_| "operator"),
        "waitingForText": invalid,
        "facts": facts,
        "candidates": candidates,
        "next": invalid.map(|_| ANEW),
        "notConsidered": unread,
    })
}

const ANEW: &str =
    "make the class anew: parameters cannot be changed; claims that wait need no change";

fn to_text(name: &str, verdict: &Verdict, unread: &[String]) -> String {
    let mut text = format!("Class {name}: {}\n", verdict.state.code());
    match &verdict.state {
        State::Valid(place) => text += &format!("  volumes    are made at {place}\n"),
        State::Invalid(why) => text += &format!("  no volumes {why}\n"),
        State::Foreign => text += "  volumes    are made by somebody else, or by hand\n",
    }
    for event in &verdict.events {
        text += &format!("  told       {event}\n");
    }
    match &*verdict.waiting {
        [] => {}
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            text += &format!("  without    a volume: claim {first}{more}\n");
        }
    }
    if let State::Invalid(_) = verdict.state {
        text += &format!("\nNext: {ANEW}\n");
    }
    for note in unread {
        text += &format!("\nNot complete: {note}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(provisioner: &str, parameters: Value) -> Verdict {
        let class = json!({"metadata": {"name": "c", "uid": "u"}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer", "parameters": parameters});
        let class = match Kind::StorageClass.read(class.to_string().as_bytes()) {
            Ok(Object::StorageClass(class)) => class,
            other => panic!("{other:?}"),
        };
        let claim = |name: &str, class: &str| {
            let text = json!({"metadata": {"namespace": "n", "name": name, "uid": name},
                "spec": {"storageClassName": class}});
            match Kind::Claim.read(text.to_string().as_bytes()) {
                Ok(Object::Claim(claim)) => claim,
                other => panic!("{other:?}"),
            }
        };
        let claims = [claim("a", "c"), claim("b", "other"), claim("d", "c")];
        judge(&class, claims.iter().map(|claim| &**claim))
    }

    #[test]
    fn a_class_is_valid_invalid_or_somebody_elses() {
        let nfs = json!({"server": "nas", "share": "/export"});
        let good = judged("nfs.bitts.dev", nfs);
        assert_eq!(good.state, State::Valid("nas:/export".to_owned()));
        assert_eq!(good.waiting, ["n/a", "n/d"]);
        let wrong = judged("local.bitts.dev", json!({"onDelet": "trash"}));
        let text = to_text("c", &wrong, &[]);
        assert!(text.contains("did you mean \"onDelete\"?"), "{text}");
        assert!(
            text.contains("n/a and 1 more") && text.contains("Next:"),
            "{text}"
        );
        let scripts = to_json(&ObjectKey::storage_class(&"c".into()), Some(&wrong), &[]);
        assert_eq!(scripts["state"], "invalid");
        assert_eq!(scripts["waitingFor"], "operator");
        assert_eq!(scripts["candidates"][0]["count"], 2);
        let foreign = judged("ebs.csi.aws.com", json!({"any": "thing"}));
        assert_eq!(foreign.state, State::Foreign);
        let text = to_text("c", &foreign, &["events".to_owned()]);
        assert!(text.contains("Not complete: events"), "{text}");
    }
}
