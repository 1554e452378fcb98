//! What the tests share: objects, and an agent that is told of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bitts_agent::{
    Agent, Alarm, How, Leftover, Mount, MountKey, MountStep, Plugin, Report, StageKey, Staging,
    Task,
};
use bitts_api::machine::{Effect, Input, Machine as _, Moment};
use bitts_api::{Kind, Object, ObjectKey, Source, VolumeMode};
use serde_json::{Value, json};

pub(crate) type Effects = Vec<Effect<Task, Alarm>>;

pub(crate) fn object(kind: Kind, value: Value) -> Object {
    kind.read(value.to_string().as_bytes()).unwrap()
}

/// JSON with some members replaced, as a merge patch does.
pub(crate) fn with(mut value: Value, changes: Value) -> Value {
    match (&mut value, changes) {
        (Value::Object(members), Value::Object(changes)) => {
            for (name, change) in changes {
                let member = members.remove(&name).unwrap_or_default();
                members.insert(name, with(member, change));
            }
            value
        }
        (_, changes) => changes,
    }
}

/// The seed's volume, bound.
pub(crate) fn volume() -> Value {
    json!({
        "metadata": {"name": "cqh", "uid": "v-1", "resourceVersion": "5"},
        "spec": {
            "capacity": {"storage": "100Mi"}, "accessModes": ["ReadWriteMany"],
            "storageClassName": "local-storage", "local": {"path": "/data/pv"},
            "claimRef": {"namespace": "default", "name": "cqh", "uid": "c-1"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "cqh", "operator": "In", "values": ["chenqionghe"]}]}]}},
        },
        "status": {"phase": "Bound"},
    })
}

/// The seed's claim, bound.
pub(crate) fn claim() -> Value {
    json!({
        "metadata": {"name": "cqh", "namespace": "default", "uid": "c-1", "resourceVersion": "6",
                     "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "local-storage",
                 "resources": {"requests": {"storage": "100Mi"}}, "volumeName": "cqh"},
        "status": {"phase": "Bound"},
    })
}

pub(crate) fn node() -> Value {
    json!({"metadata": {"name": "node-1", "uid": "n-1", "resourceVersion": "1",
                        "labels": {"cqh": "chenqionghe"}}})
}

/// A pod on the node that uses these claims.
pub(crate) fn pod(name: &str, claims: &[&str]) -> Value {
    let volumes: Vec<_> = claims
        .iter()
        .enumerate()
        .map(|(i, claim)| {
            json!({"name": format!("data{i}"), "persistentVolumeClaim": {"claimName": claim}})
        })
        .collect();
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid"),
                     "resourceVersion": "10"},
        "spec": {"nodeName": "node-1", "volumes": volumes},
        "status": {"phase": "Pending"},
    })
}

pub(crate) fn version(value: Value, version: u32) -> Value {
    with(
        value,
        json!({"metadata": {"resourceVersion": version.to_string()}}),
    )
}

pub(crate) fn deleting(value: Value, at: u32) -> Value {
    let deletion = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    version(with(value, deletion), at)
}

/// Kinds of which the agent is told one by one.
fn is_followed(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Claim | Kind::Volume | Kind::CsiDriver | Kind::Attachment
    )
}

/// A machine that is fed, with what it answers, beside an API that tells it of what it follows.
pub(crate) struct Run {
    pub(crate) agent: Agent,
    /// The API's claims and volumes.
    pub(crate) objects: BTreeMap<ObjectKey, Object>,
    pub(crate) followed: BTreeSet<ObjectKey>,
}

impl Run {
    pub(crate) fn new(agent: Agent) -> Self {
        Self {
            agent,
            objects: BTreeMap::new(),
            followed: BTreeSet::new(),
        }
    }

    /// Everything of the seed but the pod is listed, and the node is empty.
    pub(crate) fn ready() -> Self {
        Self::of(vec![volume()], vec![claim()], vec![], Vec::new())
    }

    pub(crate) fn of(
        volumes: Vec<Value>,
        claims: Vec<Value>,
        pods: Vec<Value>,
        found: Vec<MountKey>,
    ) -> Self {
        let mut run = Self::new(Agent::new("node-1".into(), true));
        run.list(Kind::Node, vec![node()]);
        run.list(Kind::Volume, volumes);
        run.list(Kind::Claim, claims);
        run.report(Report::Scanned {
            volumes: found.into_iter().map(bare).collect(),
            stages: Vec::new(),
            empty: Vec::new(),
        });
        run.list(Kind::Pod, pods);
        run
    }

    /// What the machine wants done, without what it follows: that is answered at once.
    pub(crate) fn feed(&mut self, input: Input<Report, Alarm>) -> Effects {
        let mut inputs = VecDeque::from([input]);
        let mut all = Vec::new();
        while let Some(input) = inputs.pop_front() {
            for effect in self.agent.handle(Moment::default(), input) {
                match effect {
                    Effect::Follow(key) => {
                        assert!(self.followed.insert(key.clone()), "{key} twice");
                        let found = self.objects.get(&key).cloned();
                        inputs.push_back(Input::Found(key, found));
                    }
                    Effect::Unfollow(key) => assert!(self.followed.remove(&key), "{key}"),
                    effect => all.push(effect),
                }
            }
        }
        all
    }

    pub(crate) fn list(&mut self, kind: Kind, values: Vec<Value>) -> Effects {
        let objects: Vec<_> = values
            .into_iter()
            .map(|value| object(kind, value))
            .collect();
        if !is_followed(kind) {
            return self.feed(Input::Listed(kind, objects));
        }
        self.objects.retain(|key, _| key.kind != kind);
        self.objects
            .extend(objects.into_iter().map(|object| (object.key(), object)));
        let followed: Vec<_> = self
            .followed
            .iter()
            .filter(|key| key.kind == kind)
            .collect();
        let found: Vec<_> = followed
            .into_iter()
            .map(|key| Input::Found(key.clone(), self.objects.get(key).cloned()))
            .collect();
        found
            .into_iter()
            .flat_map(|input| self.feed(input))
            .collect()
    }

    pub(crate) fn see(&mut self, kind: Kind, value: Value) -> Effects {
        let object = object(kind, value);
        if is_followed(kind) {
            self.objects.insert(object.key(), object.clone());
            if !self.followed.contains(&object.key()) {
                return Vec::new();
            }
        }
        self.feed(Input::Seen(object))
    }

    pub(crate) fn gone(&mut self, key: ObjectKey, uid: &str) -> Effects {
        if is_followed(key.kind) {
            self.objects.remove(&key);
            if !self.followed.contains(&key) {
                return Vec::new();
            }
        }
        self.feed(Input::Deleted(key, uid.into()))
    }

    pub(crate) fn report(&mut self, report: Report) -> Effects {
        self.feed(Input::Report(report))
    }

    pub(crate) fn mounted(&mut self, mount: Mount) -> Effects {
        let target = mount.key.target();
        self.report(Report::Mounted {
            mount,
            target,
            how: How::Now,
            warning: None,
        })
    }

    pub(crate) fn unmounted(&mut self, key: MountKey) -> Effects {
        self.report(Report::Unmounted {
            target: key.target(),
            key,
            was_mounted: true,
        })
    }

    pub(crate) fn fails(&mut self, mount: Mount) -> Effects {
        let message = r#"path "/data/pv" does not exist"#.to_owned();
        self.report(Report::MountFailed {
            mount,
            step: MountStep::NewMounter,
            message,
        })
    }
}

pub(crate) fn key(pod: &str) -> MountKey {
    MountKey {
        pod: format!("{pod}-uid").into(),
        volume: "cqh".into(),
        plugin: Plugin::Local,
        mode: VolumeMode::Filesystem,
    }
}

/// A directory of a volume that a scan found.
pub(crate) fn bare(key: MountKey) -> Leftover {
    Leftover { key, stage: None }
}

pub(crate) fn local(path: &str) -> Source {
    Source::Local {
        path: path.into(),
        fs_type: None,
    }
}

/// The device that the seed's volume may turn out to be.
pub(crate) fn staging() -> Staging {
    Staging {
        key: StageKey {
            plugin: Plugin::Local,
            name: "cqh".into(),
        },
        volume: "cqh".into(),
        source: local("/data/pv"),
        options: [].into(),
        read_only: false,
        csi: None,
    }
}

pub(crate) fn mount(pod: &str) -> Mount {
    Mount {
        key: key(pod),
        source: local("/data/pv"),
        options: [].into(),
        read_only: false,
        group: None,
        staging: Some(Box::new(staging())),
        csi: None,
    }
}

pub(crate) fn mounts(pod: &str) -> Effects {
    vec![Effect::Task(Task::Mount(mount(pod)))]
}

pub(crate) fn unmounts(pod: &str) -> Effects {
    vec![Effect::Task(Task::Unmount(key(pod)))]
}

/// The texts of the events among effects.
pub(crate) fn events(effects: &Effects) -> Vec<&str> {
    fn text(effect: &Effect<Task, Alarm>) -> Option<&str> {
        match effect {
            Effect::Event(event) => Some(&event.message),
            _ => None,
        }
    }
    effects.iter().filter_map(text).collect()
}

/// The delay of the timer among effects, and the timer.
pub(crate) fn timer(effects: &Effects) -> (u128, Alarm) {
    let timer = |effect: &Effect<Task, Alarm>| match effect {
        Effect::Wake(delay, alarm) => Some((delay.as_millis(), alarm.clone())),
        _ => None,
    };
    effects.iter().find_map(timer).unwrap()
}
