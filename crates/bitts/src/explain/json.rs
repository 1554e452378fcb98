//! The explanation for scripts. Its members are described in `docs/cli.md`.

use bitts_api::{BindingMode, ObjectKey};
use bitts_binder::{Class, Fact, Group, Next, Report, User};
use serde_json::{Value, json};

/// So many details of a group are told apart.
const DETAILS: usize = 20;

/// The object that is printed; without a report there is no such claim or volume.
pub(super) fn of(key: &ObjectKey, report: Option<&Report>, unread: &[String]) -> Value {
    let object = object(key);
    let Some(report) = report else {
        return json!({
            "object": object,
            "state": "not-found",
            "waitingFor": null,
            "candidates": [],
            "next": null,
        });
    };
    let next = report.next.as_ref();
    json!({
        "object": object,
        "state": report.state.code(),
        "partner": report.partner.as_ref().map(self::object),
        "waitingFor": report.waiting_for.as_ref().map(|fact| fact.code),
        "waitingForText": report.waiting_for.as_ref().map(|fact| &fact.text),
        "facts": report.facts.iter().map(fact).collect::<Vec<_>>(),
        "candidates": report.candidates.iter().map(group).collect::<Vec<_>>(),
        "serves": report.serves,
        "classes": report.classes.iter().map(class).collect::<Vec<_>>(),
        "pods": report.pods.iter().map(user).collect::<Vec<_>>(),
        "selectedNode": report.selected_node,
        "next": next.map(|next| match &next.command {
            Some(command) => command.to_string(),
            None => next.text.clone(),
        }),
        "advice": next.map(advice),
        "notConsidered": unread,
    })
}

fn object(key: &ObjectKey) -> Value {
    json!({"kind": key.kind.name(), "namespace": key.namespace, "name": key.name})
}

fn fact(fact: &Fact) -> Value {
    json!({"code": fact.code, "text": fact.text})
}

fn group(group: &Group) -> Value {
    let details = group.details();
    let shown = details
        .iter()
        .take(DETAILS)
        .map(|(text, names)| json!({"text": text, "count": names.len(), "example": names.first()}));
    json!({
        "reason": group.reason.code(),
        "count": group.count,
        "onlyReason": group.only_reason,
        "details": shown.collect::<Vec<_>>(),
        "names": group.names(),
    })
}

fn class(class: &Class) -> Value {
    json!({
        "name": class.name,
        "provisioner": class.provisioner,
        "bindingMode": mode(class.binding_mode),
        "default": class.is_default,
        "provisions": class.provisions,
    })
}

pub(super) fn mode(mode: BindingMode) -> &'static str {
    match mode {
        BindingMode::Immediate => "Immediate",
        BindingMode::WaitForFirstConsumer => "WaitForFirstConsumer",
    }
}

fn user(user: &User) -> Value {
    json!({"name": user.name, "node": user.node, "phase": user.phase, "holds": user.holds})
}

fn advice(next: &Next) -> Value {
    json!({
        "code": next.code,
        "text": next.text,
        "command": next.command.as_ref().map(ToString::to_string),
        "warning": next.warning,
    })
}
