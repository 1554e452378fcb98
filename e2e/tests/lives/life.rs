//! What happens in a life, chosen by chance: what users, administrators, backup tools, schedulers and
//! provisioners do to volumes, claims, classes and pods.
//!
//! A step is chosen from the state before it, in which all clusters are alike. Where Kubernetes leaves the
//! end to chance no step is chosen: of the claims that one free volume would do for, any may get it
//! (a full pass takes them in no order), so at most one waits in each class; of volumes of the same size,
//! or with as many other access modes, any may be taken, so there are none.

use std::fmt;

use bitts_e2e::raw::text;
use serde_json::{Value, json};

use crate::state::{FOREIGN, State, UID_OF};

const CLAIMS: u64 = 4;
const VOLUMES: u64 = 5;
const PODS: u64 = 3;

/// The classes of a life: their names, provisioners and whether they wait for the first consumer.
const CLASSES: [(&str, &str, bool); 4] = [
    ("now", "kubernetes.io/no-provisioner", false),
    ("late", "kubernetes.io/no-provisioner", true),
    ("ask", "example.com/disk", false),
    ("old", "kubernetes.io/aws-ebs", false),
];
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Value,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.method, self.path, self.body)
    }
}

/// A life, which is known by its seed. Its name is its namespace and begins the names of its volumes
/// and classes.
pub(crate) struct Life {
    pub(crate) name: String,
    chance: Chance,
    /// It may use what all lives share: the empty class and the default one.
    shares: bool,
    pub(crate) steps: Vec<Step>,
}

impl Life {
    pub(crate) fn new(seed: u64, shares: bool) -> Self {
        Self {
            name: format!("s{seed}"),
            // Not the generator's own step, which would make the next seed's life this one, moved on.
            chance: Chance(seed.wrapping_mul(0xD134_2543_DE82_EF95)),
            shares,
            steps: Vec::new(),
        }
    }

    /// What every life begins with.
    pub(crate) fn birth(&self) -> Vec<Step> {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}});
        let mut steps = vec![post("/api/v1/namespaces".into(), namespace)];
        steps.extend((0..CLASSES.len()).map(|at| self.class(at)));
        steps
    }

    /// What happens next.
    pub(crate) fn next(&mut self, state: &State) -> Step {
        loop {
            if let Some(step) = self.draw(state) {
                self.steps.push(step.clone());
                return step;
            }
        }
    }

    fn draw(&mut self, state: &State) -> Option<Step> {
        match self.chance.below(48) {
            0..10 => self.create_volume(state),
            10..20 => self.create_claim(state),
            20..23 => self.create_pod(state),
            23..26 => self.end_pod(state),
            26..30 => self.delete("claims", state),
            30..32 => self.delete("volumes", state),
            32..40 => self.edit_volume(state),
            40..46 => self.edit_claim(state),
            _ => self.edit_class(state),
        }
    }

    fn claims(&self) -> String {
        format!("/api/v1/namespaces/{}/persistentvolumeclaims", self.name)
    }

    fn pods(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.name)
    }

    fn path(&self, key: &str) -> String {
        match key.split_once('/') {
            Some(("claims", name)) => format!("{}/{name}", self.claims()),
            Some(("pods", name)) => format!("{}/{name}", self.pods()),
            Some(("volumes", name)) => format!("/api/v1/persistentvolumes/{}-{name}", self.name),
            Some((_, name)) => format!(
                "/apis/storage.k8s.io/v1/storageclasses/{}-{name}",
                self.name
            ),
            None => String::new(),
        }
    }

    fn class(&self, at: usize) -> Step {
        let (name, provisioner, late) = CLASSES[at];
        let mode = if late {
            "WaitForFirstConsumer"
        } else {
            "Immediate"
        };
        post(
            "/apis/storage.k8s.io/v1/storageclasses".into(),
            json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                "metadata": {"name": format!("{}-{name}", self.name)},
                "provisioner": provisioner, "volumeBindingMode": mode,
            }),
        )
    }

    /// It appears or goes; what names it keeps it.
    fn edit_attributes_class(&self, state: &State) -> Step {
        let list = "/apis/storage.k8s.io/v1/volumeattributesclasses".to_owned();
        let name = format!("{}-quick", self.name);
        if state.contains_key("attributes/quick") {
            let (path, body) = (format!("{list}/{name}"), Value::Null);
            return Step {
                method: "DELETE",
                path,
                body,
            };
        }
        post(
            list,
            json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
                "metadata": {"name": name}, "driverName": "example.com/disk",
                "parameters": {"iops": "1000"},
            }),
        )
    }

    /// A class; none is the default one, or the empty one if there is no default.
    fn any_class(&mut self) -> Option<String> {
        let name = match self.chance.below(12) {
            0..5 => "now",
            5..8 => "late",
            8 | 9 => "ask",
            _ => "old",
        };
        match self.chance.below(5) {
            0 | 1 if self.shares => None,
            2 if self.shares => Some(String::new()),
            _ => Some(format!("{}-{name}", self.name)),
        }
    }

    /// A name that is free, or one that is taken.
    fn name(&mut self, kind: &str, count: u64, state: &State, taken: bool) -> Option<String> {
        let letter = &kind[..1];
        let key = format!("{kind}/{letter}{}", self.chance.below(count));
        (state.contains_key(&key) == taken).then_some(key)
    }

    fn create_volume(&mut self, state: &State) -> Option<Step> {
        let key = self.name("volumes", VOLUMES, state, false)?;
        let name = format!("{}-{}", self.name, key.split_once('/')?.1);
        let size = format!("{}Gi", 1 + self.chance.below(9));
        if of(state, "volumes").any(|(_, volume)| volume["capacity"] == *size) {
            return None;
        }
        let modes = self.modes();
        let policy = self.policy();
        let app = *self.chance.of(&["db", "web"]);
        let mut spec = json!({
            "capacity": {"storage": size}, "accessModes": modes,
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": self.any_class().unwrap_or_default(),
        });
        match self.chance.below(12) {
            // Nothing is there: kube-controller-manager removes it on its own host (D5).
            0 => spec["hostPath"] = json!({"path": format!("/tmp/bitts-lives-none/{name}")}),
            1 => spec["hostPath"] = json!({"path": "/data"}),
            2..5 => {
                spec["local"] = json!({"path": "/data"});
                spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions":
                    [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}]}});
            }
            5..8 => spec["csi"] = json!({"driver": "example.com/disk", "volumeHandle": name}),
            8 => spec["awsElasticBlockStore"] = json!({"volumeID": "vol-1"}),
            _ => spec["nfs"] = json!({"server": "s", "path": "/"}),
        }
        if self.chance.once_in(8) && (spec["csi"].is_object() || spec["local"].is_object()) {
            spec["volumeMode"] = json!("Block");
        }
        if self.chance.once_in(4) {
            spec["claimRef"] = self.claim_ref(state);
        }
        if self.chance.once_in(2) {
            suit(&mut spec, waiting(state).last()?);
        }
        if self.chance.once_in(10) {
            spec["volumeAttributesClassName"] = json!(format!("{}-quick", self.name));
        }
        let mut meta = json!({"name": name, "labels": {"app": app}});
        if self.chance.once_in(6) {
            meta["annotations"] = json!({PROVISIONED_BY: self.maker()});
        } else if self.chance.once_in(12) {
            meta["annotations"] = json!({BY_CONTROLLER: "yes"});
        }
        let body =
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": spec});
        Some(post("/api/v1/persistentvolumes".into(), body))
    }

    fn modes(&mut self) -> Value {
        self.chance
            .of(&[
                json!(["ReadWriteOnce"]),
                json!(["ReadWriteOnce"]),
                json!(["ReadWriteOnce", "ReadWriteMany"]),
                json!(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]),
                json!(["ReadWriteMany"]),
            ])
            .clone()
    }

    fn policy(&mut self) -> &'static str {
        self.chance.of::<&str>(&[
            "Retain", "Retain", "Retain", "Delete", "Delete", "Delete", "Recycle",
        ])
    }

    fn maker(&mut self) -> &'static str {
        self.chance.of::<&str>(&[
            "example.com/disk",
            "example.com/disk",
            "kubernetes.io/host-path",
            "kubernetes.io/aws-ebs",
            "kubernetes.io/nfs",
        ])
    }

    /// A claim by name, with its own uid, with another or with none.
    fn claim_ref(&mut self, state: &State) -> Value {
        let name = format!("c{}", self.chance.below(CLAIMS));
        let mut reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": self.name, "name": name});
        match self.chance.below(5) {
            0 | 1 if state.contains_key(&format!("claims/{name}")) => {
                reference["uid"] = json!(format!("{UID_OF}{name}"));
            }
            2 => reference["uid"] = json!(FOREIGN),
            _ => {}
        }
        reference
    }

    fn create_claim(&mut self, state: &State) -> Option<Step> {
        let key = self.name("claims", CLAIMS, state, false)?;
        let body = self.claim(state)?;
        let mut body = body;
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("PersistentVolumeClaim");
        body["metadata"]["name"] = json!(key.split_once('/')?.1);
        Some(post(self.claims(), body))
    }

    /// The metadata and the spec of a claim that may wait now.
    fn claim(&mut self, state: &State) -> Option<Value> {
        let class = if self.chance.once_in(2) {
            // One that a volume is there for.
            let mut free = of(state, "volumes").filter(|(_, v)| v["phase"] == "Available");
            free.next_back().map(|(_, v)| text(v, "/class").to_owned())
        } else {
            self.any_class()
        };
        let class = class.filter(|class| self.shares || !class.is_empty());
        if class.is_none() && !self.shares {
            return None;
        }
        let mut annotations = json!({});
        let mut spec = json!({
            "accessModes": self.claim_modes(),
            "resources": {"requests": {"storage": format!("{}Gi", 1 + self.chance.below(4))}},
        });
        let key = self.key(class.as_deref());
        if waiting(state).any(|claim| self.key(class_of(claim)) == key) {
            return None;
        }
        match class {
            Some(class) if self.chance.once_in(12) => annotations[BETA_CLASS] = json!(class),
            Some(class) => spec["storageClassName"] = json!(class),
            None => {}
        }
        if self.chance.once_in(5) {
            spec["volumeName"] = json!(format!("{}-v{}", self.name, self.chance.below(VOLUMES)));
        }
        if self.chance.once_in(10) {
            spec["volumeAttributesClassName"] = json!(format!("{}-quick", self.name));
        }
        match self.chance.below(8) {
            0 | 1 => spec["selector"] = json!({"matchLabels": {"app": "db"}}),
            2 => {
                spec["selector"] = json!({"matchExpressions": [
                    {"key": "app", "operator": "NotIn", "values": ["db"]}]});
            }
            _ => {}
        }
        if self.chance.once_in(12) {
            spec["volumeMode"] = json!("Block");
        }
        match self.chance.below(24) {
            0 => annotations[BIND_COMPLETED] = json!("yes"),
            1 => annotations[BIND_COMPLETED] = json!(""),
            2 => annotations[BY_CONTROLLER] = json!("yes"),
            3 => annotations[SELECTED_NODE] = json!("n"),
            4 => annotations["volume.kubernetes.io/storage-provisioner"] = json!("no/such"),
            5 => annotations["volume.alpha.kubernetes.io/pre-resize-capacity"] = json!("a lot"),
            6 => annotations["pv.kubernetes.io/migrated-to"] = json!("ebs.csi.aws.com"),
            _ => {}
        }
        Some(json!({"metadata": {"annotations": annotations}, "spec": spec}))
    }

    fn claim_modes(&mut self) -> Value {
        let modes = [
            json!(["ReadWriteOnce"]),
            json!(["ReadWriteOnce"]),
            json!(["ReadWriteMany"]),
        ];
        self.chance.of(&modes).clone()
    }

    /// Claims with the same key may want the same volume.
    fn key(&self, class: Option<&str>) -> String {
        let shared = class.is_none_or(|class| class.is_empty() || class.ends_with("-now"));
        match class {
            _ if self.shares && shared => String::new(),
            class => class.unwrap_or_default().to_owned(),
        }
    }

    fn create_pod(&mut self, state: &State) -> Option<Step> {
        let key = self.name("pods", PODS, state, false)?;
        let source = if self.chance.once_in(4) {
            let claim = self.claim(state)?;
            // A template is checked like a claim, and has no annotations of the binder's. One whose
            // class was in them would have none, and so the default class of another life.
            if claim["metadata"]["annotations"].get(BETA_CLASS).is_some() {
                return None;
            }
            json!({"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": claim["spec"]}}})
        } else {
            let name = format!("c{}", self.chance.below(CLAIMS));
            json!({"name": "data", "persistentVolumeClaim": {"claimName": name}})
        };
        let mut spec = json!({
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "x"}],
            "volumes": [source],
        });
        if !self.chance.once_in(3) {
            spec["nodeName"] = json!("n");
        }
        let name = key.split_once('/')?.1;
        let body =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        Some(post(self.pods(), body))
    }

    /// It is scheduled, ends or goes.
    fn end_pod(&mut self, state: &State) -> Option<Step> {
        let key = self.name("pods", PODS, state, true)?;
        let path = self.path(&key);
        if self.chance.once_in(3) {
            let phase = self.chance.of(&["Succeeded", "Running", "Failed"]);
            return Some(patch(
                format!("{path}/status"),
                json!({"status": {"phase": phase}}),
            ));
        }
        if state[&key]["node"].is_null() && self.chance.once_in(2) {
            let name = key.split_once('/')?.1;
            let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": "n"}});
            return Some(post(format!("{path}/binding"), body));
        }
        let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        Some(Step {
            method: "DELETE",
            path,
            body: now,
        })
    }

    fn delete(&mut self, kind: &str, state: &State) -> Option<Step> {
        let all: Vec<&str> = of(state, kind).map(|(key, _)| key).collect();
        let key = *self.chance.some(&all)?;
        let (path, body) = (self.path(key), Value::Null);
        Some(Step {
            method: "DELETE",
            path,
            body,
        })
    }

    fn edit_volume(&mut self, state: &State) -> Option<Step> {
        let key = self.name("volumes", VOLUMES, state, true)?;
        let volume = &state[&key];
        let path = self.path(&key);
        let (failed, class) = (volume["phase"] == "Failed", volume["class"].as_str());
        let meta = |meta: Value| json!({"metadata": meta});
        let body = match self.chance.below(16) {
            0..3 => {
                let owner = format!("claims/{}", text(volume, "/claimRef/name"));
                // Its claim takes it again, unless another one is faster.
                let wanted = state.contains_key(&owner)
                    && waiting(state).any(|claim| self.key(class_of(claim)) == self.key(class));
                if wanted {
                    return None;
                }
                json!({"spec": {"claimRef": null}})
            }
            3 | 4 if volume["claimRef"].is_null() => {
                json!({"spec": {"claimRef": self.claim_ref(state)}})
            }
            5 | 6 => {
                let app = *self.chance.of(&["db", "web"]);
                meta(json!({"labels": {"app": app}}))
            }
            7 | 8 => json!({"spec": {"persistentVolumeReclaimPolicy": self.policy()}}),
            9 => meta(json!({"annotations": {BY_CONTROLLER: null}})),
            // What failed is tried again at growing intervals: too long to wait for.
            10 if !failed => meta(json!({"annotations": {PROVISIONED_BY: self.maker()}})),
            11 => meta(json!({"finalizers": null})),
            12 => meta(json!({"finalizers": ["example.com/hold", "kubernetes.io/pv-protection"]})),
            13 => {
                let status = json!({"status": {"message": "by hand", "reason": "ByHand"}});
                return Some(patch(format!("{path}/status"), status));
            }
            14 => {
                let phase =
                    self.chance
                        .of(&["Available", "Pending", "Released", "Failed", "Bound"]);
                return Some(patch(
                    format!("{path}/status"),
                    json!({"status": {"phase": phase}}),
                ));
            }
            _ => return None,
        };
        Some(patch(path, body))
    }

    fn edit_claim(&mut self, state: &State) -> Option<Step> {
        let key = self.name("claims", CLAIMS, state, true)?;
        let claim = &state[&key];
        let path = self.path(&key);
        let meta = |meta: Value| json!({"metadata": meta});
        let body = match self.chance.below(10) {
            0 if claim["volumeName"].is_null() => {
                json!({"spec": {"volumeName": format!("{}-v{}", self.name, self.chance.below(VOLUMES))}})
            }
            1 => {
                let class = self.key(class_of(claim));
                if waiting(state).any(|other| self.key(class_of(other)) == class) {
                    return None;
                }
                meta(json!({"annotations": {BIND_COMPLETED: null}}))
            }
            2 => meta(json!({"annotations": {BY_CONTROLLER: null}})),
            3 | 4 if claim["volumeName"].is_null() => {
                meta(json!({"annotations": {SELECTED_NODE: "n"}}))
            }
            5 => meta(json!({"finalizers": null})),
            6 => meta(json!({"finalizers": ["example.com/hold", "kubernetes.io/pvc-protection"]})),
            7 => meta(json!({"labels": {"app": "db"}})),
            8 => {
                let phase = self.chance.of(&["Pending", "Lost", "Bound"]);
                return Some(patch(
                    format!("{path}/status"),
                    json!({"status": {"phase": phase}}),
                ));
            }
            _ => return None,
        };
        Some(patch(path, body))
    }

    fn edit_class(&mut self, state: &State) -> Option<Step> {
        if self.chance.once_in(4) {
            return Some(self.edit_attributes_class(state));
        }
        let at = usize::try_from(self.chance.below(CLASSES.len() as u64)).ok()?;
        let key = format!("classes/{}", CLASSES[at].0);
        let Some(class) = state.get(&key) else {
            return Some(self.class(at));
        };
        let path = self.path(&key);
        // Only the first one becomes the default: claims without a class wait beside its claims.
        if self.shares && at == 0 {
            let now = text(
                class,
                &format!("/annotations/{}", IS_DEFAULT.replace('/', "~1")),
            );
            let then = if now == "true" { "false" } else { "true" };
            return Some(patch(
                path,
                json!({"metadata": {"annotations": {IS_DEFAULT: then}}}),
            ));
        }
        Some(Step {
            method: "DELETE",
            path,
            body: Value::Null,
        })
    }
}

/// Makes a volume likelier to be what a claim waits for.
fn suit(spec: &mut Value, claim: &Value) {
    spec["storageClassName"] = json!(class_of(claim).unwrap_or_default());
    spec["accessModes"] = json!(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]);
}

fn post(path: String, body: Value) -> Step {
    Step {
        method: "POST",
        path,
        body,
    }
}

fn patch(path: String, body: Value) -> Step {
    Step {
        method: "PATCH",
        path,
        body,
    }
}

fn of<'a>(state: &'a State, kind: &str) -> impl DoubleEndedIterator<Item = (&'a str, &'a Value)> {
    let prefix = format!("{kind}/");
    let all = state.iter().map(|(key, value)| (&**key, value));
    all.filter(move |(key, _)| key.starts_with(&prefix))
}

/// The claims that a free volume would do for.
fn waiting(state: &State) -> impl Iterator<Item = &Value> {
    let done = format!("/annotations/{}", BIND_COMPLETED.replace('/', "~1"));
    let claims = of(state, "claims").map(|(_, claim)| claim);
    claims.filter(move |claim| claim.pointer(&done).is_none())
}

fn class_of(claim: &Value) -> Option<&str> {
    let beta = claim["annotations"][BETA_CLASS].as_str();
    beta.or_else(|| claim["class"].as_str())
}

/// Numbers that follow from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn some<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(all.len()).ok().filter(|count| *count > 0)?;
        all.get(usize::try_from(self.below(count)).ok()?)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        self.some(all).expect("the list is written in the code")
    }
}
