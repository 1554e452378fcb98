//! Asks a cluster for what preflight judges. Nothing is written.
//!
//! Not asked is kube-controller-manager's metric `running_managed_controllers`: the one of 1.37.2 has
//! no line for a volume controller that runs, so that its silence would look like a proof. Its other
//! metrics are out of reach, too: by default it serves them on its own host's loopback alone.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::grant::{Grant, Place};
use bitts_api::{Kind, StockController};
use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

use super::facts::{Asked, Controllers, Facts, StockFacts, StockLease, StockPod};

pub(super) const STOCK_LEASE: &str = "kube-controller-manager";
/// Longer than the 2 s between two renewals.
const RENEWAL: Duration = Duration::from_millis(2_500);
/// A lease is dated by its holder's clock and a write by the API server's.
const CLOCKS_APART: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// How kube-controller-manager signs what it writes; k3s has it in a process of its own name.
const SIGNATURES: [&str; 2] = ["kube-controller-manager", "k3s"];

/// Why there is no answer.
pub(super) enum Refusal {
    Missing,
    Other(String),
}

impl From<Refusal> for String {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => "the API server does not serve it".to_owned(),
            Refusal::Other(why) => why,
        }
    }
}

pub(super) async fn send(
    client: &Client,
    method: &str,
    path: &str,
    content: &str,
    body: &Value,
) -> Result<Value, Refusal> {
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content)
        .body(bytes)
        .map_err(|error| Refusal::Other(error.to_string()))?;
    let answer = tokio::time::timeout(Duration::from_secs(10), client.request(request));
    match answer.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Refusal::Missing),
        Ok(Err(kube::Error::Api(status))) => Err(Refusal::Other(status.message.clone())),
        Ok(Err(error)) => Err(Refusal::Other(error.to_string())),
        Err(_) => Err(Refusal::Other("no answer within 10 s".to_owned())),
    }
}

pub(super) async fn get(client: &Client, path: &str) -> Result<Value, Refusal> {
    send(client, "GET", path, "application/json", &Value::Null).await
}

/// What `needed` grants are missing is asked for `own`, the namespace that bitts is to run in.
pub(super) async fn collect(client: &Client, needed: &[Grant], own: &str, whole: bool) -> Facts {
    let (version, unserved, forbidden, default_classes, flow_schema, stock) = tokio::join!(
        version(client),
        unserved(client),
        forbidden(client, needed, own),
        default_classes(client),
        async {
            if whole {
                Some(flow_schema(client).await)
            } else {
                None
            }
        },
        stock(client),
    );
    Facts {
        version,
        unserved,
        forbidden,
        default_classes,
        flow_schema,
        stock,
    }
}

async fn version(client: &Client) -> Asked<(u32, u32)> {
    let found = get(client, "/version").await?;
    let number = |member: &str| {
        let text = found[member].as_str().unwrap_or_default();
        // Some providers write `33+`.
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .ok()
    };
    number("major")
        .zip(number("minor"))
        .ok_or_else(|| format!("the version cannot be read: {found}"))
}

async fn unserved(client: &Client) -> Asked<Vec<&'static str>> {
    let lists = [
        "/api/v1",
        "/apis/storage.k8s.io/v1",
        "/apis/coordination.k8s.io/v1",
    ];
    let found = try_join_all(lists.map(|path| get(client, path))).await?;
    let served = |plural: &str| {
        let resources = found.iter().flat_map(|list| list["resources"].as_array());
        resources
            .flatten()
            .any(|resource| resource["name"] == plural)
    };
    let kinds = [
        Kind::Volume,
        Kind::Claim,
        Kind::StorageClass,
        Kind::AttributesClass,
        Kind::Node,
        Kind::Pod,
    ];
    let needed = kinds.iter().map(|kind| kind.plural()).chain(["leases"]);
    Ok(needed.filter(|plural| !served(plural)).collect())
}

async fn forbidden(
    client: &Client,
    needed: &[Grant],
    own: &str,
) -> Asked<Vec<(String, &'static str)>> {
    let questions = needed.iter().flat_map(|grant| {
        grant.verbs.iter().map(move |verb| async move {
            let (resource, part) = grant
                .resource
                .split_once('/')
                .unwrap_or((grant.resource, ""));
            let namespace = match grant.place {
                Place::Cluster => "",
                Place::Own => own,
                Place::System => "kube-system",
            };
            let review = json!({"apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"verb": verb.name(), "group": grant.group,
                    "resource": resource, "subresource": part, "namespace": namespace,
                    "name": grant.name.unwrap_or_default()}}});
            let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let answer = send(client, "POST", path, "application/json", &review).await;
            let place = if namespace.is_empty() {
                String::new()
            } else {
                format!(" in {namespace}")
            };
            match answer {
                Ok(review) if review["status"]["allowed"] == true => Ok(None),
                Ok(_) => Ok(Some((
                    format!("{} {}{place}", verb.name(), grant.resource),
                    grant.why,
                ))),
                Err(Refusal::Missing) => {
                    Err("this API server cannot be asked about permissions".to_owned())
                }
                Err(Refusal::Other(why)) => Err(why),
            }
        })
    });
    let answers: Result<Vec<_>, String> = join_all(questions).await.into_iter().collect();
    Ok(answers?.into_iter().flatten().collect())
}

async fn default_classes(client: &Client) -> Asked<Vec<String>> {
    let list = get(client, "/apis/storage.k8s.io/v1/storageclasses").await?;
    let is_default = |class: &&Value| {
        ["", "beta."].iter().any(|beta| {
            let key = format!("storageclass.{beta}kubernetes.io/is-default-class");
            class["metadata"]["annotations"][key] == "true"
        })
    };
    let items = list["items"].as_array().into_iter().flatten();
    Ok(items
        .filter(is_default)
        .map(|class| name(class).to_owned())
        .collect())
}

async fn flow_schema(client: &Client) -> Asked<bool> {
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/bitts-controllers";
    match get(client, path).await {
        Ok(_) => Ok(true),
        Err(Refusal::Missing) => Ok(false),
        Err(Refusal::Other(why)) => Err(why),
    }
}

async fn stock(client: &Client) -> StockFacts {
    let (pods, lease) = tokio::join!(stock_pods(client), stock_lease(client));
    let (lease, since) = match lease {
        Ok((lease, since)) => (Ok(lease), since),
        Err(why) => (Err(why), None),
    };
    let mut wrote = BTreeMap::new();
    if let Some(since) = since {
        let (phase, attachment) =
            tokio::join!(phase_written(client, since), attachment_made(client, since));
        let proof = |stock, what: Option<String>| what.map(|what| (stock, what));
        wrote.extend(proof(StockController::Binder, phase));
        wrote.extend(proof(StockController::AttachDetach, attachment));
    }
    StockFacts {
        pods,
        lease,
        wrote,
        canary: None,
    }
}

async fn stock_pods(client: &Client) -> Asked<Vec<StockPod>> {
    let list = get(client, "/api/v1/namespaces/kube-system/pods").await?;
    let pods = list["items"].as_array().into_iter().flatten();
    let lives = |pod: &&Value| {
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        !["Succeeded", "Failed"].contains(&phase)
    };
    Ok(pods.filter(lives).filter_map(stock_pod).collect())
}

fn stock_pod(pod: &Value) -> Option<StockPod> {
    let containers = pod["spec"]["containers"].as_array()?;
    containers.iter().find_map(|container| {
        let words = ["command", "args"].map(|member| container[member].as_array());
        let words = words
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(Value::as_str);
        // A shell's script is words, too.
        let words: Vec<&str> = words.flat_map(str::split_whitespace).collect();
        let is_it = |word: &&str| word.rsplit('/').next() == Some("kube-controller-manager");
        words.iter().any(is_it).then(|| StockPod {
            name: name(pod).to_owned(),
            controllers: Controllers::of_arguments(words.iter().copied()),
        })
    })
}

/// Looks twice, so that no clocks are compared.
async fn stock_lease(client: &Client) -> Asked<(StockLease, Option<Timestamp>)> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{STOCK_LEASE}");
    let first = match get(client, &path).await {
        Ok(lease) => lease,
        Err(Refusal::Missing) => return Ok((StockLease::Absent, None)),
        Err(Refusal::Other(why)) => return Err(why),
    };
    tokio::time::sleep(RENEWAL).await;
    let then = match get(client, &path).await {
        Ok(lease) => lease,
        Err(Refusal::Missing) => return Ok((StockLease::Absent, None)),
        Err(Refusal::Other(why)) => return Err(why),
    };
    let held = then["spec"]["holderIdentity"]
        .as_str()
        .is_some_and(|holder| !holder.is_empty());
    if !held || first["spec"]["renewTime"] == then["spec"]["renewTime"] {
        return Ok((StockLease::Idle, None));
    }
    let since = then["spec"]["acquireTime"].as_str();
    Ok((
        StockLease::Renewed,
        since.and_then(|time| time.parse().ok()),
    ))
}

/// A claim or volume whose phase was written by the holder of a lease that was acquired then.
async fn phase_written(client: &Client, since: Timestamp) -> Option<String> {
    for (plural, what) in [
        ("persistentvolumeclaims", "claim"),
        ("persistentvolumes", "volume"),
    ] {
        let Ok(list) = get(client, &format!("/api/v1/{plural}?limit=500")).await else {
            continue;
        };
        let mut items = list["items"].as_array().into_iter().flatten();
        if let Some(found) = items.find(|item| phase_is_from(item, since)) {
            return Some(format!("it wrote the phase of {what} {}", name(found)));
        }
    }
    None
}

fn phase_is_from(object: &Value, since: Timestamp) -> bool {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.into_iter().flatten().any(|entry| {
        let by = entry["manager"].as_str().unwrap_or_default();
        let time = entry["time"]
            .as_str()
            .and_then(|time| time.parse::<Timestamp>().ok());
        SIGNATURES.contains(&by)
            && !entry["fieldsV1"]["f:status"]["f:phase"].is_null()
            && time.is_some_and(|time| time.duration_since(since) > CLOCKS_APART)
    })
}

/// A VolumeAttachment that was made by the holder of a lease that was acquired then.
async fn attachment_made(client: &Client, since: Timestamp) -> Option<String> {
    let list = get(
        client,
        "/apis/storage.k8s.io/v1/volumeattachments?limit=500",
    );
    let list = list.await.ok()?;
    let mut items = list["items"].as_array().into_iter().flatten();
    let found = items.find(|item| attachment_is_from(item, since))?;
    Some(format!("it made VolumeAttachment {}", name(found)))
}

fn attachment_is_from(object: &Value, since: Timestamp) -> bool {
    let meta = &object["metadata"];
    let made = meta["creationTimestamp"].as_str();
    let made = made.and_then(|time| time.parse::<Timestamp>().ok());
    let is_late = made.is_some_and(|time| time.duration_since(since) > CLOCKS_APART);
    let entries = meta["managedFields"].as_array();
    is_late
        && entries.into_iter().flatten().any(|entry| {
            let by = entry["manager"].as_str().unwrap_or_default();
            SIGNATURES.contains(&by) && !entry["fieldsV1"]["f:spec"].is_null()
        })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_pod_shows_its_flags_also_through_a_shell() {
        let pod = |container: Value| json!({"metadata": {"name": "kcm"}, "spec": {"containers": [container]}});
        let plain =
            pod(json!({"command": ["kube-controller-manager", "--controllers=*,-attachdetach"]}));
        let shell = pod(json!({"command": ["/bin/sh", "-c"],
            "args": ["exec /usr/local/bin/kube-controller-manager --controllers=*,-attachdetach"]}));
        let found = Controllers::parse("*,-attachdetach");
        assert_eq!(stock_pod(&plain).unwrap().controllers, found);
        assert_eq!(stock_pod(&shell).unwrap().controllers, found);
        assert_eq!(
            stock_pod(&pod(json!({"command": ["kube-scheduler"]}))),
            None
        );
    }

    #[test]
    fn only_an_attachment_made_well_after_the_lease_counts() {
        let since: Timestamp = "2026-11-23T07:00:00Z".parse().unwrap();
        let attachment = |manager: &str, made: &str| {
            json!({"metadata": {"creationTimestamp": made, "managedFields":
                [{"manager": manager, "fieldsV1": {"f:spec": {"f:attacher": {}}}}]}})
        };
        let stock = "kube-controller-manager";
        let late = "2026-11-23T07:02:00Z";
        assert!(attachment_is_from(&attachment(stock, late), since));
        assert!(!attachment_is_from(
            &attachment("bitts-attacher", late),
            since
        ));
        // It may be what an earlier holder made.
        let early = attachment(stock, "2026-11-23T07:00:30Z");
        assert!(!attachment_is_from(&early, since));
    }

    #[test]
    fn only_a_phase_written_well_after_the_lease_counts() {
        let since: Timestamp = "2026-11-23T07:00:00Z".parse().unwrap();
        let object = |manager: &str, time: &str, fields: Value| {
            json!({"metadata": {"managedFields":
                [{"manager": manager, "time": time, "fieldsV1": fields}]}})
        };
        let phase = json!({"f:status": {"f:phase": {}}});
        let stock = "kube-controller-manager";
        let late = "2026-11-23T07:02:00Z";
        assert!(phase_is_from(&object(stock, late, phase.clone()), since));
        assert!(!phase_is_from(
            &object("bitts-binder", late, phase.clone()),
            since
        ));
        assert!(!phase_is_from(
            &object(stock, "2026-11-23T07:00:30Z", phase),
            since
        ));
        // The expander writes conditions.
        let conditions = json!({"f:status": {"f:conditions": {}}});
        assert!(!phase_is_from(&object(stock, late, conditions), since));
    }
}
