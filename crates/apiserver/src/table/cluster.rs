//! Rows of everything that is neither storage nor a pod.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;

use super::age::Now;
use super::{Column, Printer, created, name, text_or};
use crate::events;

const UNKNOWN: &str = "<unknown>";

pub(super) const NODES: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Status"),
        Column::new("Roles"),
        Column::new("Age"),
        Column::new("Version"),
        Column::new("Internal-IP").wide(),
        Column::new("External-IP").wide(),
        Column::new("OS-Image").wide(),
        Column::new("Kernel-Version").wide(),
        Column::new("Container-Runtime").wide(),
    ],
    cells: |node, now| {
        let (status, info) = (&node["status"], &node["status"]["nodeInfo"]);
        let kernel = text_or(&info["kernelVersion"], UNKNOWN);
        let kernel = match text_or(&info["architecture"], "") {
            "" => kernel.to_owned(),
            architecture => format!("{kernel} ({architecture})"),
        };
        vec![
            name(node),
            node_status(node).into(),
            text_or(&roles(node).into(), "<none>").into(),
            created(node, now),
            text_or(&info["kubeletVersion"], "").into(),
            address(status, "InternalIP"),
            address(status, "ExternalIP"),
            text_or(&info["osImage"], UNKNOWN).into(),
            kernel.into(),
            text_or(&info["containerRuntimeVersion"], UNKNOWN).into(),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let ready = match ready {
        None => "Unknown",
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
    };
    let closed = if node["spec"]["unschedulable"] == true {
        ",SchedulingDisabled"
    } else {
        ""
    };
    format!("{ready}{closed}")
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(status: &Value, kind: &str) -> Value {
    let addresses = status["addresses"].as_array();
    let found = addresses
        .into_iter()
        .flatten()
        .find(|address| address["type"] == kind);
    found
        .map_or("<none>", |address| text_or(&address["address"], "<none>"))
        .into()
}

pub(super) const NAMESPACES: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Status"),
        Column::new("Age"),
    ],
    cells: |namespace, now| {
        let phase = text_or(&namespace["status"]["phase"], "");
        vec![name(namespace), phase.into(), created(namespace, now)]
    },
};

pub(super) const CONFIG_MAPS: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Data"),
        Column::new("Age"),
    ],
    cells: |map, now| {
        let size = size(&map["data"]) + size(&map["binaryData"]);
        vec![name(map), size.into(), created(map, now)]
    },
};

pub(super) const SECRETS: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Type"),
        Column::new("Data"),
        Column::new("Age"),
    ],
    cells: |secret, now| {
        let kind = text_or(&secret["type"], "");
        vec![
            name(secret),
            kind.into(),
            size(&secret["data"]).into(),
            created(secret, now),
        ]
    },
};

fn size(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

pub(super) const SERVICE_ACCOUNTS: Printer = Printer {
    columns: &[Column::naming("Name"), Column::new("Age")],
    cells: |account, now| vec![name(account), created(account, now)],
};

pub(super) const LEASES: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Holder"),
        Column::new("Age"),
    ],
    cells: |lease, now| {
        let holder = text_or(&lease["spec"]["holderIdentity"], "");
        vec![name(lease), holder.into(), created(lease, now)]
    },
};

/// Kinds without columns of their own.
pub(super) const OTHERS: Printer = Printer {
    columns: &[Column::naming("Name"), Column::typed("Created At", "date")],
    cells: |object, _| {
        vec![
            name(object),
            object["metadata"]["creationTimestamp"].clone(),
        ]
    },
};

pub(super) const EVENTS: Printer = Printer {
    columns: &[
        Column::new("Last Seen"),
        Column::new("Type"),
        Column::new("Reason"),
        Column::new("Object"),
        Column::new("Subobject").wide(),
        Column::new("Source").wide(),
        Column::new("Message"),
        Column::new("First Seen").wide(),
        Column::new("Count").wide(),
        Column::naming("Name").wide(),
    ],
    cells: event,
};

fn event(event: &Value, now: Now) -> Vec<Value> {
    let event = if event["apiVersion"] == "v1" || event["involvedObject"].is_object() {
        Cow::Borrowed(event)
    } else {
        Cow::Owned(events::to_core(event.clone()))
    };
    let (involved, source, series) = (&event["involvedObject"], &event["source"], &event["series"]);
    let time = |times: [&Value; 2]| {
        times
            .into_iter()
            .find(|time| time.is_string())
            .map(|time| now.since(time))
    };
    let first = time([&event["firstTimestamp"], &event["eventTime"]]);
    let first = first.unwrap_or_else(|| UNKNOWN.to_owned());
    let last = time([&series["lastObservedTime"], &event["lastTimestamp"]]);
    let count = series["count"].as_i64().or(event["count"].as_i64());
    let object = match text_or(&involved["name"], "") {
        "" => text_or(&involved["kind"], "").to_lowercase(),
        name => format!("{}/{name}", text_or(&involved["kind"], "").to_lowercase()),
    };
    let component = text_or(
        &source["component"],
        text_or(&event["reportingComponent"], ""),
    );
    let instance = text_or(&source["host"], text_or(&event["reportingInstance"], ""));
    let source = match instance {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    };
    vec![
        last.unwrap_or_else(|| first.clone()).into(),
        text_or(&event["type"], "").into(),
        text_or(&event["reason"], "").into(),
        object.into(),
        text_or(&involved["fieldPath"], "").into(),
        source.into(),
        text_or(&event["message"], "").trim().into(),
        first.into(),
        count.filter(|count| *count != 0).unwrap_or(1).into(),
        name(&event),
    ]
}
