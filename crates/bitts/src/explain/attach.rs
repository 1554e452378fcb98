//! The explanation of a pod's volumes and of attachments: for people, and for scripts as `docs/cli.md`
//! describes.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use bitts_api::{Kind, Object, ObjectKey};
use bitts_attacher::{AttachCluster, AttachReport, Next, Said, VolumeOnNode};
use kube::Client;
use serde_json::{Value, json};

use super::{NOT_FOUND, WAITS, fetch};
use crate::cli::{Explain, ExplainKind, Output};

pub(super) async fn tell(client: &Client, args: &Explain) -> Result<ExitCode> {
    let key = match args.kind {
        ExplainKind::Pod => {
            let namespace = args.namespace.as_deref();
            ObjectKey::pod(namespace.unwrap_or(client.default_namespace()), &*args.name)
        }
        _ => ObjectKey::attachment(&*args.name),
    };
    let read = fetch::around_attaching(client, &key).await?;
    let report = report(&key, read.objects);
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{:#}", json_of(&key, report.as_ref(), &read.unread))?,
        Output::Text => {
            if let Some(report) = &report {
                out.write_all(text_of(report, &read.unread).as_bytes())?;
            }
        }
    }
    out.flush()?;
    Ok(match report {
        None => {
            eprintln!("bitts: {} {key} does not exist", key.kind.name());
            ExitCode::from(NOT_FOUND)
        }
        Some(report) if report.is_fine() => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(WAITS),
    })
}

/// What is to be said of an object; `None` where it is not there.
fn report(key: &ObjectKey, objects: Vec<Object>) -> Option<AttachReport> {
    let subject = objects.iter().find(|object| object.key() == *key)?.clone();
    let cluster = AttachCluster::new(objects);
    match &subject {
        Object::Pod(pod) => Some(cluster.pod(pod)),
        _ => cluster.attachment(&key.name),
    }
}

fn json_of(key: &ObjectKey, report: Option<&AttachReport>, unread: &[String]) -> Value {
    let object = json!({"kind": key.kind.name(), "namespace": key.namespace, "name": key.name});
    let Some(report) = report else {
        return json!({"object": object, "state": "not-found", "waitingFor": null,
            "candidates": [], "next": null});
    };
    let first = report.volumes.iter().find(|v| v.wait == report.waiting_for);
    let waits = first.filter(|volume| volume.wait.is_some());
    let next = report.next.as_ref();
    json!({
        "object": object,
        "state": report.state.code(),
        "waitingFor": report.waiting_for.map(bitts_attacher::Wait::code),
        "waitingForText": waits.map(|volume| &volume.text),
        "candidates": candidates(report),
        "volumes": report.volumes.iter().map(volume).collect::<Vec<_>>(),
        "next": next.map(|next| next.command.clone().unwrap_or_else(|| next.text.clone())),
        "advice": next.map(advice),
        "notConsidered": unread,
    })
}

/// The volumes that wait, by what for.
fn candidates(report: &AttachReport) -> Vec<Value> {
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for volume in &report.volumes {
        if let Some(wait) = volume.wait {
            let name = volume.volume.as_ref().or(volume.claim.as_ref());
            let name = name.map_or_else(String::new, ToString::to_string);
            groups.entry(wait).or_default().push(name);
        }
    }
    let group = |(wait, names): (bitts_attacher::Wait, Vec<String>)| json!({"reason": wait.code(), "count": names.len(), "names": names});
    groups.into_iter().map(group).collect()
}

fn volume(volume: &VolumeOnNode) -> Value {
    let holder = |holder: &bitts_attacher::Holder| {
        json!({"node": holder.node, "attachment": holder.attachment,
            "attached": holder.is_attached, "pods": holder.pods})
    };
    let said =
        |said: &Said| json!({"message": said.message, "code": said.code, "since": said.since});
    json!({
        "claim": volume.claim,
        "volume": volume.volume,
        "driver": volume.disk.as_ref().map(|(driver, _)| driver),
        "handle": volume.disk.as_ref().map(|(_, handle)| handle),
        "node": volume.node,
        "attachment": volume.attachment,
        "attached": volume.is_attached,
        "listed": volume.is_listed,
        "inUse": volume.is_in_use,
        "pods": volume.pods,
        "waitingFor": volume.wait.map(bitts_attacher::Wait::code),
        "text": volume.text,
        "heldBy": volume.holders.iter().map(holder).collect::<Vec<_>>(),
        "driverSaid": volume.said.as_ref().map(said),
        "advice": volume.next.as_ref().map(advice),
    })
}

fn advice(next: &Next) -> Value {
    json!({"code": next.code, "text": next.text, "command": next.command})
}

fn text_of(report: &AttachReport, unread: &[String]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_text(&mut text, report, unread);
    text
}

fn write_text(out: &mut String, report: &AttachReport, unread: &[String]) -> fmt::Result {
    let what = match report.object.kind {
        Kind::Pod => "Pod",
        _ => "Attachment",
    };
    writeln!(out, "{what} {}: {}", report.object, report.state.code())?;
    if report.volumes.is_empty() {
        let why = match report.waiting_for {
            Some(_) => "it waits for a node, and until then nothing is attached for it",
            None => "it has no volume that would be attached",
        };
        writeln!(out, "  note       {why}")?;
    }
    for volume in &report.volumes {
        write_volume(out, volume)?;
    }
    if let Some(next) = &report.next {
        writeln!(out, "\nNext: {}", next.text)?;
        if let Some(command) = &next.command {
            writeln!(out, "\n  {command}")?;
        }
    }
    for note in unread {
        writeln!(out, "\nNot complete: {note}")?;
    }
    Ok(())
}

fn write_volume(out: &mut String, volume: &VolumeOnNode) -> fmt::Result {
    let unknown = || "none yet".to_owned();
    let name = volume
        .volume
        .as_ref()
        .map_or_else(unknown, ToString::to_string);
    let claim = volume
        .claim
        .as_ref()
        .map(|claim| format!(" of claim {claim}"));
    let disk = volume
        .disk
        .as_ref()
        .map(|(driver, handle)| format!(": {handle} of {driver}"));
    writeln!(
        out,
        "  volume     {name}{}{}",
        claim.unwrap_or_default(),
        disk.unwrap_or_default()
    )?;
    let lead = if volume.wait.is_some() {
        "waits for"
    } else {
        "state"
    };
    let waits = volume.wait.map(|wait| format!("{}: ", wait.code()));
    writeln!(
        out,
        "    {lead:<10} {}{}",
        waits.unwrap_or_default(),
        volume.text
    )?;
    let wanted = match volume.pods.as_slice() {
        [] => "by no pod".to_owned(),
        pods => format!("by {}", pods.join(", ")),
    };
    writeln!(
        out,
        "    {:<10} on node {}, {wanted}",
        "wanted", volume.node
    )?;
    if let Some(attachment) = &volume.attachment {
        let is = if volume.is_attached {
            "attached"
        } else {
            "not attached"
        };
        let listed = if volume.is_listed {
            ", listed in the node's status"
        } else {
            ""
        };
        let used = if volume.is_in_use {
            ", in use by its kubelet"
        } else {
            ""
        };
        writeln!(out, "    {:<10} {is}{listed}{used} ({attachment})", "there")?;
    }
    for holder in &volume.holders {
        let is = if holder.is_attached {
            "attached"
        } else {
            "perhaps attached"
        };
        let pods = match holder.pods.as_slice() {
            [] => "no pod asks for it there".to_owned(),
            pods => format!("used by {}", pods.join(", ")),
        };
        writeln!(
            out,
            "    {:<10} node {}: {is}, {pods} ({})",
            "held by", holder.node, holder.attachment
        )?;
    }
    if let Some(Said {
        message,
        code,
        since,
    }) = &volume.said
    {
        let code = code.map(|code| format!(" (gRPC code {code})"));
        let since = since.as_ref().map(|since| format!(", since {since}"));
        writeln!(
            out,
            "    {:<10} {message}{}{}",
            "driver",
            code.unwrap_or_default(),
            since.unwrap_or_default()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, value: &Value) -> Object {
        kind.read(value.to_string().as_bytes()).unwrap()
    }

    fn node(name: &str, ready: bool, lists: &[&str], uses: &[&str]) -> Object {
        let attached: Vec<Value> = lists
            .iter()
            .map(|name| json!({"name": name, "devicePath": ""}))
            .collect();
        let status = if ready { "True" } else { "Unknown" };
        read(
            Kind::Node,
            &json!({"metadata": {"name": name, "uid": name, "annotations":
                {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
                "status": {"conditions": [{"type": "Ready", "status": status}],
                    "volumesAttached": attached, "volumesInUse": uses}}),
        )
    }

    fn pod(name: &str, node: Option<&str>) -> Object {
        read(
            Kind::Pod,
            &json!({"metadata": {"name": name, "namespace": "shop", "uid": name},
                "spec": {"nodeName": node, "volumes":
                    [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]},
                "status": {"phase": "Pending"}}),
        )
    }

    fn claim(phase: &str) -> Object {
        read(
            Kind::Claim,
            &json!({"metadata": {"name": "data", "namespace": "shop", "uid": "c"},
                "spec": {"accessModes": ["ReadWriteOnce"], "volumeName":
                    if phase == "Bound" { "disk" } else { "" },
                    "resources": {"requests": {"storage": "1Gi"}}},
                "status": {"phase": phase}}),
        )
    }

    fn volume() -> Object {
        read(
            Kind::Volume,
            &json!({"metadata": {"name": "disk", "uid": "v"}, "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "csi": {"driver": "d.example.com", "volumeHandle": "h"},
                "claimRef": {"namespace": "shop", "name": "data", "uid": "c"}},
                "status": {"phase": "Bound"}}),
        )
    }

    const UNIQUE: &str = "kubernetes.io/csi/d.example.com^h";

    fn attachment_on(node: &str, status: Value, deleting: bool) -> Object {
        let name = attachment_name(node);
        let mut value = json!({"metadata": {"name": name, "uid": name,
            "finalizers": ["external-attacher/d-example-com"]},
            "spec": {"attacher": "d.example.com", "nodeName": node,
                "source": {"persistentVolumeName": "disk"}},
            "status": status});
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        read(Kind::Attachment, &value)
    }

    fn attachment_name(node: &str) -> String {
        let pair = bitts_attacher::Pair {
            volume: bitts_attacher::UniqueName::listed(UNIQUE).unwrap(),
            node: node.into(),
        };
        pair.attachment().to_string()
    }

    fn told(key: &ObjectKey, objects: Vec<Object>) -> (Value, String) {
        let report = report(key, objects);
        let text = report.as_ref().map(|r| text_of(r, &[])).unwrap_or_default();
        (json_of(key, report.as_ref(), &[]), text)
    }

    fn web() -> ObjectKey {
        ObjectKey::pod("shop", "web")
    }

    /// A disk of Google's cloud on a node that an agent runs: no VolumeAttachment says anything.
    #[test]
    fn what_a_pod_with_a_cloud_disk_waits_for() {
        let unique = "kubernetes.io/gce-pd/d";
        let node = |name: &str, lists: &[&str], uses: &[&str]| {
            let attached: Vec<Value> = lists
                .iter()
                .map(|name| json!({"name": name, "devicePath": ""}))
                .collect();
            read(
                Kind::Node,
                &json!({"metadata": {"name": name, "uid": name, "annotations":
                    {"volumes.kubernetes.io/controller-managed-attach-detach": "true",
                     "bitts.dev/mounted-by": "bitts-agent"}},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}],
                        "volumesAttached": attached, "volumesInUse": uses}}),
            )
        };
        let volume = read(
            Kind::Volume,
            &json!({"metadata": {"name": "disk", "uid": "v"}, "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "gcePersistentDisk": {"pdName": "d"},
                "claimRef": {"namespace": "shop", "name": "data", "uid": "c"}},
                "status": {"phase": "Bound"}}),
        );
        for (nodes, waits, advice) in [
            (
                vec![node("n2", &[], &[])],
                json!("kubelet"),
                json!("check-agent"),
            ),
            (
                vec![node("n2", &[], &[unique])],
                json!("attacher"),
                json!("check-cloud-attacher"),
            ),
            (
                vec![node("n2", &[], &[unique]), node("n1", &[unique], &[unique])],
                json!("other-node"),
                json!("end-pods"),
            ),
            (
                vec![node("n2", &[unique], &[unique])],
                Value::Null,
                Value::Null,
            ),
        ] {
            let mut objects = vec![pod("web", Some("n2")), claim("Bound"), volume.clone()];
            objects.extend(nodes);
            let (json, text) = told(&web(), objects);
            assert_eq!(json["waitingFor"], waits, "{text}");
            assert_eq!(json["advice"]["code"], advice, "{text}");
            assert!(text.contains("d of Compute Engine"), "{text}");
        }
    }

    #[test]
    fn what_a_pod_waits_for() {
        let failed = json!({"attached": false, "attachError": {"message": "no room", "errorCode": 8,
            "time": "2026-01-01T00:00:00Z"}});
        let attached = json!({"attached": true});
        let other = |status: &Value, deleting| attachment_on("n1", status.clone(), deleting);
        let here = |status: &Value, deleting| attachment_on("n2", status.clone(), deleting);
        let n1 = |ready, uses: &[&str]| node("n1", ready, &[UNIQUE], uses);
        let n2 = || node("n2", true, &[], &[]);
        let base = || vec![pod("web", Some("n2")), claim("Bound"), volume()];
        let and = |more: Vec<Object>| base().into_iter().chain(more).collect::<Vec<_>>();
        for (what, objects, waits, advice) in [
            (
                "no node",
                vec![pod("web", None), claim("Bound"), volume()],
                "scheduler",
                "check-scheduler",
            ),
            (
                "no volume",
                vec![pod("web", Some("n2")), claim("Pending"), n2()],
                "claim",
                "explain-claim",
            ),
            ("node gone", base(), "node", "delete-pod"),
            (
                "not asked for",
                and(vec![n2()]),
                "attacher",
                "check-attacher",
            ),
            (
                "asked for",
                and(vec![n2(), here(&json!({}), false)]),
                "driver",
                "check-driver",
            ),
            (
                "no room",
                and(vec![n2(), here(&failed, false)]),
                "driver",
                "free-node",
            ),
            (
                "not listed",
                and(vec![n2(), here(&attached, false)]),
                "attacher",
                "check-attacher",
            ),
            (
                "to be detached first",
                and(vec![n2(), here(&attached, true)]),
                "detach",
                "check-driver",
            ),
            (
                "a pod has it",
                and(vec![
                    n2(),
                    n1(true, &[UNIQUE]),
                    other(&attached, false),
                    pod("old", Some("n1")),
                ]),
                "other-node",
                "end-pods",
            ),
            (
                "a kubelet has it",
                and(vec![n2(), n1(true, &[UNIQUE]), other(&attached, false)]),
                "other-node",
                "check-kubelet",
            ),
            (
                "a node that is down has it",
                and(vec![n2(), n1(false, &[UNIQUE]), other(&attached, false)]),
                "other-node",
                "taint-node",
            ),
            (
                "a node that is gone has it",
                and(vec![n2(), other(&attached, false)]),
                "other-node",
                "force-detach",
            ),
            (
                "its driver has to detach it",
                and(vec![n2(), n1(true, &[]), other(&attached, true)]),
                "other-node",
                "check-driver",
            ),
        ] {
            let (json, text) = told(&web(), objects);
            assert_eq!(json["state"], "waiting", "{what}: {json:#}");
            assert_eq!(json["waitingFor"], waits, "{what}: {json:#}");
            assert_eq!(json["advice"]["code"], advice, "{what}: {json:#}");
            assert!(text.contains("Next: "), "{what}: {text}");
            for member in ["object", "candidates", "next"] {
                assert!(!json[member].is_null(), "{what}: {member}");
            }
        }
    }

    #[test]
    fn a_pod_whose_volume_is_there_waits_for_nothing() {
        let attached = json!({"attached": true});
        let objects = vec![
            pod("web", Some("n2")),
            claim("Bound"),
            volume(),
            node("n2", true, &[UNIQUE], &[UNIQUE]),
            attachment_on("n2", attached, false),
        ];
        let (json, text) = told(&web(), objects);
        assert_eq!(
            (&json["state"], &json["waitingFor"]),
            (&json!("attached"), &Value::Null)
        );
        assert_eq!(json["candidates"], json!([]));
        assert!(text.starts_with("Pod shop/web: attached\n"), "{text}");
        let (json, _) = told(&web(), Vec::new());
        assert_eq!(json["state"], "not-found");
    }

    #[test]
    fn what_the_driver_said_and_who_holds_it_is_told() {
        let failed = json!({"attached": true, "detachError": {"message": "device is busy",
            "errorCode": 9, "time": "2026-01-01T00:00:00Z"}});
        let objects = vec![
            pod("web", Some("n2")),
            claim("Bound"),
            volume(),
            node("n1", true, &[], &[]),
            node("n2", true, &[], &[]),
            attachment_on("n1", failed, true),
        ];
        let (json, text) = told(&web(), objects.clone());
        assert_eq!(json["volumes"][0]["heldBy"][0]["node"], "n1");
        assert!(
            text.contains("fails to detach it from node n1: device is busy"),
            "{text}"
        );
        assert_eq!(
            json["candidates"],
            json!([{"reason": "other-node", "count": 1, "names": ["disk"]}])
        );
        let key = ObjectKey::attachment(attachment_name("n1"));
        let (json, text) = told(&key, objects);
        assert_eq!(
            (&json["state"], &json["waitingFor"]),
            (&json!("detaching"), &json!("detach"))
        );
        let said = json!({"message": "device is busy", "code": 9, "since": "2026-01-01T00:00:00Z"});
        assert_eq!(json["volumes"][0]["driverSaid"], said);
        assert!(text.contains("(gRPC code 9), since 2026"), "{text}");
    }

    #[test]
    fn what_an_attachment_waits_for() {
        let attached = json!({"attached": true});
        let key = ObjectKey::attachment(attachment_name("n1"));
        let with = |node: Option<Object>, more: Vec<Object>| {
            let mut objects = vec![attachment_on("n1", attached.clone(), false)];
            objects.extend(node);
            objects.extend(more);
            told(&key, objects).0
        };
        let n1 = |ready, uses: &[&str]| Some(node("n1", ready, &[UNIQUE], uses));
        let bound = || vec![claim("Bound"), volume()];
        let used = with(
            n1(true, &[UNIQUE]),
            [bound(), vec![pod("web", Some("n1"))]].concat(),
        );
        assert_eq!(
            (&used["state"], &used["waitingFor"]),
            (&json!("attached"), &Value::Null)
        );
        let leaving = with(n1(true, &[UNIQUE]), bound());
        assert_eq!(leaving["waitingFor"], "kubelet");
        let down = with(n1(false, &[UNIQUE]), bound());
        assert_eq!(
            (&down["waitingFor"], &down["advice"]["code"]),
            (&json!("operator"), &json!("taint-node"))
        );
        let gone = with(None, bound());
        assert_eq!(gone["advice"]["code"], "force-detach");
        let stray = with(None, Vec::new());
        assert_eq!(stray["advice"]["code"], "restore-volume");
    }
}
