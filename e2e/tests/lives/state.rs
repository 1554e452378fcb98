//! What is compared of a life: everything of its objects but versions, times and uids as such.

use std::collections::BTreeMap;

use bitts_e2e::raw::text;
use serde_json::{Map, Value, json};

/// The objects of a life, by kind and name: `volumes/v0`.
pub(crate) type State = BTreeMap<String, Value>;

/// The kinds that are looked at, in the order in which they are cleared away.
pub(crate) const KINDS: [(&str, &str); 5] = [
    ("pods", "/api/v1/pods"),
    ("claims", "/api/v1/persistentvolumeclaims"),
    ("volumes", "/api/v1/persistentvolumes"),
    ("classes", "/apis/storage.k8s.io/v1/storageclasses"),
    (
        "attributes",
        "/apis/storage.k8s.io/v1/volumeattributesclasses",
    ),
];

/// A uid that no cluster ever had.
pub(crate) const FOREIGN: &str = "00000000-0000-4000-8000-000000000000";

/// How a step names the uid of a claim that there is, which is another in each cluster.
pub(crate) const UID_OF: &str = "$uid:";

/// The uids of a cluster's claims, by names that are the same in all clusters: `s1/c0#2` is the second
/// claim of that name.
#[derive(Default)]
pub(crate) struct Uids {
    names: BTreeMap<String, String>,
    latest: BTreeMap<String, (u32, String)>,
}

impl Uids {
    fn see(&mut self, place: String, uid: &str) {
        if !self.names.contains_key(uid) {
            let latest = self.latest.entry(place.clone()).or_default();
            *latest = (latest.0 + 1, uid.to_owned());
            self.names
                .insert(uid.to_owned(), format!("{place}#{}", latest.0));
        }
    }

    fn name<'a>(&'a self, uid: &'a str) -> &'a str {
        self.names.get(uid).map_or(uid, |name| name)
    }

    /// The body of a step with the uids of this cluster.
    pub(crate) fn fill_in(&self, life: &str, body: &Value) -> Value {
        match body {
            Value::String(text) => match text.strip_prefix(UID_OF) {
                Some(claim) => {
                    let latest = self.latest.get(&format!("{life}/{claim}"));
                    json!(latest.map_or(FOREIGN, |(_, uid)| uid))
                }
                None => body.clone(),
            },
            Value::Object(map) => {
                let fill =
                    |(key, value): (&String, &Value)| (key.clone(), self.fill_in(life, value));
                map.iter().map(fill).collect::<Map<_, _>>().into()
            }
            _ => body.clone(),
        }
    }
}

/// Adds an object to the life that it belongs to, if any.
pub(crate) fn add(all: &mut BTreeMap<String, State>, kind: &str, object: &Value, uids: &mut Uids) {
    let name = text(object, "/metadata/name");
    let namespace = text(object, "/metadata/namespace");
    let (life, name) = match namespace {
        "" => name.split_once('-').unwrap_or((name, "")),
        _ => (namespace, name),
    };
    if kind == "claims" {
        uids.see(format!("{life}/{name}"), text(object, "/metadata/uid"));
    }
    let meta = &object["metadata"];
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut out = json!({
        "annotations": meta["annotations"],
        "labels": meta["labels"],
        "finalizers": finalizers(meta),
        "deleting": meta["deletionTimestamp"].is_string(),
    });
    let more = match kind {
        "volumes" => json!({
            "class": spec["storageClassName"],
            "policy": spec["persistentVolumeReclaimPolicy"],
            "capacity": spec["capacity"]["storage"],
            "modes": spec["accessModes"],
            "source": source(spec),
            "claimRef": claim_ref(&spec["claimRef"], uids),
            "phase": status["phase"],
            "message": status["message"],
            "reason": status["reason"],
        }),
        "claims" => json!({
            "class": spec["storageClassName"],
            "volumeName": spec["volumeName"],
            "owners": owners(meta),
            "phase": status["phase"],
            "accessModes": status["accessModes"],
            "attributes": status["currentVolumeAttributesClassName"],
            "capacity": status["capacity"],
            "conditions": conditions(status),
        }),
        "pods" => json!({
            "node": spec["nodeName"],
            "claim": spec["volumes"][0]["persistentVolumeClaim"]["claimName"],
            "phase": status["phase"],
        }),
        _ => json!({"provisioner": object["provisioner"]}),
    };
    if let (Value::Object(out), Value::Object(more)) = (&mut out, more) {
        out.extend(more);
        out.retain(|_, value| !value.is_null());
    }
    let life = all.entry(life.to_owned()).or_default();
    life.insert(format!("{kind}/{name}"), out);
}

/// As a set: where several are missing, controllers that know nothing of one another add them at once.
fn finalizers(meta: &Value) -> Value {
    let Some(finalizers) = meta["finalizers"].as_array() else {
        return Value::Null;
    };
    let mut names: Vec<&str> = finalizers.iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    json!(names)
}

fn source(spec: &Value) -> Value {
    let known = ["hostPath", "nfs", "local", "csi", "awsElasticBlockStore"];
    let found = known.into_iter().find(|name| !spec[*name].is_null());
    found.map_or(Value::Null, |name| json!({name: spec[name]}))
}

fn claim_ref(reference: &Value, uids: &Uids) -> Value {
    if reference.is_null() {
        return Value::Null;
    }
    let uid = reference["uid"].as_str().map(|uid| uids.name(uid));
    json!({"namespace": reference["namespace"], "name": reference["name"], "uid": uid})
}

fn owners(meta: &Value) -> Value {
    let owners = meta["ownerReferences"].as_array();
    owners.map_or(Value::Null, |all| {
        let name = |owner: &Value| json!([owner["kind"], owner["name"], owner["controller"]]);
        all.iter().map(name).collect()
    })
}

fn conditions(status: &Value) -> Value {
    let conditions = status["conditions"].as_array();
    conditions.map_or(Value::Null, |all| {
        let line = |c: &Value| json!([c["type"], c["status"], c["reason"]]);
        all.iter().map(line).collect()
    })
}

/// The names of the objects that are not the same.
pub(crate) fn unequal<'a>(one: &'a State, other: &'a State) -> Vec<&'a str> {
    let mut names: Vec<&str> = one.keys().chain(other.keys()).map(|name| &**name).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| one.get(*name) != other.get(*name));
    names
}

/// What is not the same, in lines for people.
pub(crate) fn difference(one: &State, other: &State) -> String {
    let mut lines = Vec::new();
    for name in unequal(one, other) {
        let [one, other] = [one, other].map(|state| state.get(name).cloned().unwrap_or_default());
        let empty = Map::new();
        let [a, b] = [&one, &other].map(|value| value.as_object().unwrap_or(&empty));
        let presence = [&one, &other].map(|v| if v.is_null() { "gone" } else { "there" });
        if presence[0] != presence[1] {
            lines.push(format!(
                "  {name}: {} / {}: {}",
                presence[0],
                presence[1],
                if one.is_null() { &other } else { &one }
            ));
            continue;
        }
        let mut fields: Vec<&String> = a.keys().chain(b.keys()).collect();
        fields.sort_unstable();
        fields.dedup();
        for field in fields
            .into_iter()
            .filter(|field| a.get(*field) != b.get(*field))
        {
            lines.push(format!(
                "  {name} {field}: {} / {}",
                one[field], other[field]
            ));
        }
    }
    lines.join("\n")
}
