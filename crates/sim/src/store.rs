//! The API server, as far as its rules matter to a machine: uids and versions, merge patches with
//! preconditions, halves of an object, finalizers, what may not change, and a log for watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitts_api::machine::{Create, Evidence, NOW, Outcome, Part, Target};
use bitts_api::{Kind, Object, ObjectKey, Pod, Uid, names};
use serde_json::{Value, json};

/// One version of an object, as the API writes it and as machines read it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The JSON.
    pub json: Arc<Value>,
    /// What a machine sees of it.
    pub object: Object,
    /// The how manieth object it is of all that were ever made.
    number: u64,
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum News {
    /// An object is new or changed.
    Set(Object),
    /// An object is gone.
    Gone(ObjectKey, Uid),
}

type Objects = BTreeMap<ObjectKey, Stored>;

/// What the API server holds.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: Objects,
    version: u64,
    /// How many objects were made at each place.
    made: BTreeMap<ObjectKey, u64>,
    made_in_all: u64,
    log: Vec<(Kind, News)>,
    /// Where in the log each past state was, for lists that are delivered late.
    backup: Option<(Objects, u64)>,
    /// Whether admission adds the protection finalizers at creation (V8).
    pub admission: bool,
}

impl Store {
    /// All objects, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Stored)> {
        self.objects.iter()
    }

    /// The object at a place.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Stored> {
        self.objects.get(key)
    }

    /// All objects of a kind.
    #[must_use]
    pub fn list(&self, kind: Kind) -> Vec<Object> {
        let of_kind = self.objects.iter().filter(|(key, _)| key.kind == kind);
        of_kind.map(|(_, stored)| stored.object.clone()).collect()
    }

    /// The how manieth object this is of all that were ever made.
    pub(crate) fn number(&self, key: &ObjectKey) -> Option<u64> {
        Some(self.get(key)?.number)
    }

    /// The objects as they are now, without what happened before.
    #[must_use]
    pub fn objects(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            ..Self::default()
        }
    }

    /// What happened so far; a watch is a position in it.
    #[must_use]
    pub fn log(&self) -> &[(Kind, News)] {
        &self.log
    }

    /// Keeps everything as it is now.
    pub fn back_up(&mut self) {
        self.backup = Some((self.objects.clone(), self.version));
    }

    /// Goes back to the backup, versions included; returns whether there was one.
    pub fn restore(&mut self) -> bool {
        let Some((objects, version)) = self.backup.clone() else {
            return false;
        };
        self.objects = objects;
        self.version = version;
        true
    }

    /// Makes an object as a user would. Does nothing where its name is taken.
    pub fn create(&mut self, kind: Kind, mut json: Value) -> Option<ObjectKey> {
        let meta = &mut json["metadata"];
        if kind.namespaced() {
            meta["namespace"] = json!("default");
        }
        let key = ObjectKey {
            kind,
            namespace: meta["namespace"].as_str().map(Into::into),
            name: meta["name"].as_str().unwrap_or_default().into(),
        };
        if self.objects.contains_key(&key) {
            return None;
        }
        // The same object has the same uid, whatever else happens.
        let count = self.made.entry(key.clone()).or_default();
        *count += 1;
        meta["uid"] = json!(format!("{}-{}.{count}", kind.plural(), key.name));
        self.made_in_all += 1;
        let protection = match kind {
            Kind::Volume => Some(names::VOLUME_PROTECTION),
            Kind::Claim => Some(names::CLAIM_PROTECTION),
            _ => None,
        };
        if let Some(finalizer) = protection.filter(|_| self.admission) {
            let mut all = meta["finalizers"].as_array().cloned().unwrap_or_default();
            all.push(json!(finalizer));
            meta["finalizers"] = all.into();
        }
        if matches!(kind, Kind::Volume | Kind::Claim) {
            json["status"] = json!({"phase": "Pending"}); // V1
        }
        if kind == Kind::Volume && json["spec"]["persistentVolumeReclaimPolicy"].is_null() {
            json["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain"); // V1
        }
        self.put(&key, json);
        Some(key)
    }

    /// Changes an object as a user or another component would, under no precondition.
    pub fn edit(&mut self, key: &ObjectKey, patch: &Value) {
        let Some(stored) = self.objects.get(key) else {
            return;
        };
        let mut json = Value::clone(&stored.json);
        merge(&mut json, patch);
        self.put(key, json);
    }

    /// Deletes an object, or marks it where finalizers hold it.
    pub fn delete(&mut self, key: &ObjectKey) {
        let Some(stored) = self.objects.get(key) else {
            return;
        };
        let mut json = Value::clone(&stored.json);
        if json["metadata"]["deletionTimestamp"].is_null() {
            json["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        self.put(key, json);
    }

    fn put(&mut self, key: &ObjectKey, mut json: Value) {
        if self.get(key).is_some_and(|known| *known.json == json) {
            return; // the API writes nothing where nothing changes
        }
        self.version += 1;
        let meta = &mut json["metadata"];
        meta["resourceVersion"] = json!(self.version.to_string());
        let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        let uid = Uid::from(meta["uid"].as_str().unwrap_or_default());
        if !meta["deletionTimestamp"].is_null() && !held {
            self.objects.remove(key);
            self.log.push((key.kind, News::Gone(key.clone(), uid)));
            return;
        }
        let object = key.kind.read(json.to_string().as_bytes());
        let object = object.expect("only objects that the API would take are made here");
        self.log.push((key.kind, News::Set(object.clone())));
        let number = self.number(key).unwrap_or(self.made_in_all);
        let stored = Stored {
            json: Arc::new(json),
            object,
            number,
        };
        self.objects.insert(key.clone(), stored);
    }

    fn precondition(&self, target: &Target, ignored: bool) -> Result<&Stored, Outcome> {
        let now = self.objects.get(&target.key);
        let now = now.filter(|s| *s.object.uid() == target.uid);
        let now = now.ok_or(Outcome::Gone)?;
        if now.object.resource_version() != target.version && !ignored {
            return Err(Outcome::Conflict);
        }
        Ok(now)
    }

    /// Applies a machine's merge patch to one half of an object (V11). `ignored`: whatever its
    /// version is, which only a planted bug does.
    pub fn patch(&mut self, target: &Target, part: Part, patch: &Value, ignored: bool) -> Outcome {
        let now = match self.precondition(target, ignored) {
            Ok(now) => now,
            Err(outcome) => return outcome,
        };
        let mut json = Value::clone(&now.json);
        let mut half = Value::clone(&json);
        merge(&mut half, patch);
        if part == Part::Status {
            json["status"] = half["status"].take();
        } else {
            half["status"] = json["status"].take();
            json = half;
        }
        for condition in json["status"]["conditions"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            if condition["lastTransitionTime"] == NOW {
                condition["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
            }
        }
        if let Some(why) = forbidden(target.key.kind, &now.json["spec"], &json["spec"]) {
            return Outcome::Refused(why);
        }
        self.put(&target.key, json);
        Outcome::Done
    }

    /// Deletes an object for a machine.
    pub fn remove(&mut self, target: &Target) -> Outcome {
        match self.precondition(target, false) {
            Ok(_) => {
                self.delete(&target.key);
                Outcome::Done
            }
            Err(outcome) => outcome,
        }
    }

    /// Makes an object for a machine.
    pub fn make(&mut self, create: &Create) -> Outcome {
        let mut json = create.body.clone();
        json["metadata"]["name"] = json!(create.key.name);
        match self.create(create.key.kind, json) {
            Some(_) => Outcome::Done,
            None => Outcome::Conflict,
        }
    }

    /// Reads evidence live; returns what was found where it does not hold.
    #[must_use]
    pub fn refuted(&self, evidence: &Evidence) -> Option<Vec<Object>> {
        let claim = |key: &ObjectKey, uid: &Uid| match &self.get(key)?.object {
            Object::Claim(claim) if claim.meta.uid == *uid => Some(claim.clone()),
            _ => None,
        };
        let found = |key: &ObjectKey| self.get(key).map(|s| s.object.clone());
        let (holds, found): (bool, Vec<Object>) = match evidence {
            Evidence::ClaimGone(key, uid) => {
                (claim(key, uid).is_none(), found(key).into_iter().collect())
            }
            Evidence::ClaimAbandoned(key, uid) => {
                let holds =
                    claim(key, uid).is_some_and(|c| c.meta.is_deleting() && !c.bind_completed());
                (holds, found(key).into_iter().collect())
            }
            Evidence::ClaimElsewhere(key, uid, volume) => {
                let other = claim(key, uid).and_then(|c| c.volume_name.clone());
                (
                    other.is_some_and(|name| name != *volume),
                    found(key).into_iter().collect(),
                )
            }
            Evidence::VolumeLost(name, uid) => {
                let found = found(&ObjectKey::volume(name.clone()));
                let lost = match &found {
                    Some(Object::Volume(v)) => v
                        .claim_ref
                        .as_ref()
                        .is_some_and(|r| r.uid.as_ref() != Some(uid)),
                    _ => true,
                };
                (lost, found.into_iter().collect())
            }
            Evidence::ClaimUnused(key) => {
                let mut pods = self.list(Kind::Pod);
                pods.retain(|o| matches!(o, Object::Pod(pod) if pod.holds(&key.name)));
                (pods.is_empty(), pods)
            }
            Evidence::ClaimAtRest(key) => {
                let uses = |pod: &Pod| pod.claims().any(|c| *c == key.name);
                let mut pods = self.list(Kind::Pod);
                pods.retain(|o| matches!(o, Object::Pod(pod) if uses(pod) && !pod.is_terminated()));
                (pods.is_empty(), pods)
            }
            Evidence::AttributesClassUnused(class) => {
                let users: Vec<_> = self
                    .objects
                    .values()
                    .filter(|s| {
                        let names = |at| s.json.pointer(at) == Some(&json!(class));
                        names("/spec/volumeAttributesClassName")
                            || names("/status/currentVolumeAttributesClassName")
                    })
                    .map(|s| s.object.clone())
                    .collect();
                (users.is_empty(), users)
            }
            Evidence::ClassAbsent(class) => {
                let found = found(&ObjectKey::storage_class(class));
                (found.is_none(), found.into_iter().collect())
            }
            Evidence::NodeReleased(..)
            | Evidence::VolumeUnattached(_)
            | Evidence::NodeAbsent(_)
            | Evidence::NodeOutOfService(..)
            | Evidence::NodeDown(..) => (false, Vec::new()), // no attacher lives here
            Evidence::PodEnded(key, uid) => {
                let found = found(key).filter(|o| o.uid() == uid);
                (found.is_none(), found.into_iter().collect())
            }
        };
        (!holds).then_some(found)
    }
}

/// What the API never lets change (V6): a claim's spec, but for the volume and the class that it
/// lacked.
fn forbidden(kind: Kind, before: &Value, after: &Value) -> Option<String> {
    if kind != Kind::Claim {
        return None;
    }
    let mut allowed = before.clone();
    for free in ["volumeName", "storageClassName"] {
        if before[free].is_null() && !after[free].is_null() {
            allowed[free] = after[free].clone();
        }
    }
    (allowed != *after).then(|| "spec is immutable after creation".into())
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if !value.is_null() {
            merge(&mut into[key], value);
        } else if let Some(object) = into.as_object_mut() {
            object.remove(key);
        }
    }
}
