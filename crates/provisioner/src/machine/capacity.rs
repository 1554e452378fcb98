//! What the scheduler is told of the node's room: a CSIStorageCapacity for each class (S7).
//!
//! They count where a CSIDriver of the provisioner's name says so, which the chart makes. The node owns
//! them, so they go when it does; one whose class is gone is deleted here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitts_api::machine::{
    Create, Destroy, Destruction, Effect, Evidence, Measure, Outcome, Part, Reading, Target, Write,
};
use bitts_api::{ClassName, Kind, Name, ObjectKey, StorageCapacity, StorageClass};
use serde_json::json;

use super::Provisioner;
use crate::class::Quota;
use crate::options::Ground;
use crate::reason;
use crate::site::Site;
use crate::task::{Alarm, Errand, Survey, Task};
use crate::volume::HOSTNAME;

/// How often the disks are asked what others left of them.
const SURVEY_AGAIN: Duration = Duration::from_secs(60);

/// What is known of the node's room, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Room {
    survey: Option<Survey>,
    /// The disks are being asked,
    asked: bool,
    /// and something changed since.
    again: bool,
    /// By the names of the objects.
    told: BTreeMap<Name, Told>,
}

/// What the API has for a class.
#[derive(Debug)]
struct Told {
    class: ClassName,
    /// `None` until it is known what the API has.
    object: Option<Option<Arc<StorageCapacity>>>,
    /// A write is under way,
    flying: bool,
    /// or failed and waits for the next survey.
    resting: bool,
    /// Why the class has no room here, as its event says.
    why: Option<String>,
}

impl Room {
    pub(super) fn measures(&self) -> Vec<Measure> {
        let Some(survey) = &self.survey else {
            return Vec::new();
        };
        let free = Measure {
            name: "bitts_provisioner_free_bytes",
            help: "The size of the largest volume that the node has room for",
            labels: Vec::new(),
            reading: Reading::Gauge(survey.free),
        };
        let used = survey.used.iter().map(|(volume, bytes)| Measure {
            name: "bitts_provisioner_volume_used_bytes",
            help: "What the files of a volume with quota take on the disk",
            labels: vec![("volume", volume.to_string())],
            reading: Reading::Gauge(*bytes),
        });
        std::iter::once(free).chain(used).collect()
    }
}

impl Provisioner {
    /// Has the disks asked what they have room for: now, if nobody does, else once more after.
    pub(super) fn survey(&mut self) {
        if self.options.capacity.is_none() {
            return;
        }
        self.room.again = self.room.asked;
        if !self.room.asked {
            self.room.asked = true;
            let (site, task) = (Site::Disks, Task::Survey);
            self.out.push(Effect::Task(Errand { site, task }));
        }
    }

    /// The disks are asked now and then as well: others write to them too.
    pub(super) fn survey_for_ever(&mut self) {
        if self.options.capacity.is_some() {
            self.survey();
            self.out.push(Effect::Wake(SURVEY_AGAIN, Alarm::Survey));
        }
    }

    pub(super) fn surveyed(&mut self, survey: Survey) {
        if self.room.survey.is_none() {
            self.out.push(Effect::Wake(SURVEY_AGAIN, Alarm::Survey));
        }
        self.room.survey = Some(survey);
        self.room.asked = false;
        if self.room.again {
            self.survey();
        }
        for told in self.room.told.values_mut() {
            told.resting = false;
        }
    }

    /// What the API has of one of these objects.
    pub(super) fn capacity_is(&mut self, name: &Name, object: Option<Arc<StorageCapacity>>) {
        if let Some(told) = self.room.told.get_mut(name) {
            told.object = Some(object);
        }
    }

    pub(super) fn capacity_finished(&mut self, name: &Name, outcome: &Outcome) {
        if let Some(told) = self.room.told.get_mut(name) {
            told.flying = false;
            told.resting = matches!(outcome, Outcome::Refused(_) | Outcome::Failed(_));
        }
    }

    /// Decides what is told of the node's room.
    pub(super) fn settle_room(&mut self) {
        let (Some(namespace), Ground::Node(node)) = (&self.options.capacity, &self.options.ground)
        else {
            return;
        };
        let (namespace, node) = (namespace.clone(), node.clone());
        let place = |name: &Name| ObjectKey {
            kind: Kind::StorageCapacity,
            namespace: Some(namespace.clone()),
            name: name.clone(),
        };
        let ours = |class: &&Arc<StorageClass>| self.options.serves(Some(&class.provisioner));
        let classes: BTreeMap<Name, Arc<StorageClass>> = (self.classes.iter().filter(ours))
            .map(|class| {
                (
                    name_for(class.meta.name.as_str(), node.as_str()),
                    class.clone(),
                )
            })
            .collect();
        for (name, class) in &classes {
            if !self.room.told.contains_key(name) {
                let told = Told {
                    class: class.meta.name.as_str().into(),
                    object: None,
                    flying: false,
                    resting: false,
                    why: None,
                };
                self.room.told.insert(name.clone(), told);
                self.out.push(Effect::Follow(place(name)));
            }
            self.tell_room(place(name), class);
        }
        let gone = self
            .room
            .told
            .keys()
            .filter(|name| !classes.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.untell_room(place(&name));
        }
    }

    /// Has an object say what there is room for.
    fn tell_room(&mut self, key: ObjectKey, class: &StorageClass) {
        let (Some(node), Some(survey)) = (self.node().cloned(), self.room.survey.clone()) else {
            return;
        };
        let hostname = node.meta.labels.get(HOSTNAME);
        let Some(told) = self.room.told.get_mut(&key.name) else {
            return;
        };
        let quota = self.options.template(class).map(|template| template.quota);
        let room = match quota {
            Ok(Quota::Required) => survey.held,
            // What is wrong with the class is told to a claim that comes here.
            Ok(Quota::None | Quota::Soft) | Err(_) => Ok(survey.free),
        };
        if let Err(why) = &room
            && told.why.as_ref() != Some(why)
        {
            told.why = Some(why.clone());
            let event = reason::no_room(class, node.meta.name.as_str(), why);
            self.out.push(Effect::Event(event));
        }
        let bytes = room.unwrap_or(0);
        let capacity = json!(bytes.to_string());
        let (false, Some(object)) = (told.flying || told.resting, &told.object) else {
            return;
        };
        let effect = match object {
            None => Effect::Create(Create {
                step: "tell-room",
                key,
                body: json!({
                    "metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node",
                        "name": node.meta.name, "uid": node.meta.uid}]},
                    "storageClassName": class.meta.name,
                    "nodeTopology": {"matchLabels": {HOSTNAME: hostname}},
                    "capacity": capacity,
                }),
            }),
            Some(object) if is_news(object, bytes) => Effect::Write(Write {
                step: "tell-room",
                target: Target::of(Kind::StorageCapacity, &object.meta),
                part: Part::Main,
                patch: json!({ "capacity": capacity }),
            }),
            Some(_) => return,
        };
        told.flying = true;
        self.out.push(effect);
    }

    /// Takes back what was said of a class that is gone.
    fn untell_room(&mut self, key: ObjectKey) {
        let Some(told) = self.room.told.get_mut(&key.name) else {
            return;
        };
        match &told.object {
            Some(None) => {
                self.room.told.remove(&key.name);
                self.out.push(Effect::Unfollow(key));
            }
            Some(Some(object)) if !told.flying && !told.resting => {
                told.flying = true;
                self.out.push(Effect::Destroy(Destroy {
                    step: "untell-room",
                    target: Target::of(Kind::StorageCapacity, &object.meta),
                    action: Destruction::Delete,
                    evidence: vec![Evidence::ClassAbsent(told.class.clone())],
                }));
            }
            _ => {}
        }
    }
}

/// Whether so many bytes are worth a write: what pods write changes them all the time.
fn is_news(object: &StorageCapacity, bytes: u64) -> bool {
    let told = object.capacity.map_or(0, |capacity| capacity.value());
    let told = u64::try_from(told).unwrap_or(0);
    told.abs_diff(bytes) > told.max(bytes) / 64 || (told == 0) != (bytes == 0)
}

/// The name of the object of a class on a node: both names together may be longer than a name.
fn name_for(class: &str, node: &str) -> Name {
    // FNV-1a: the same for the same text, in every version.
    let text = format!("{class}/{node}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("bitts-{hash:016x}").into()
}
