//! Cleaning up behind owners and namespaces.
//!
//! On a cluster this is the work of controllers beside the API: the garbage collector and the namespace
//! controller. A real kube-apiserver alone does none of it, and neither does this one until a
//! [`Collector`] runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::ApiServer;
use crate::kind::Kind;
use crate::rest::{Core, DeleteOptions, FOREGROUND, ORPHAN, is_done};
use crate::store::{Key, State, TableId};

/// Changes are gathered this long, so that many deletes cost one look at the objects.
const GATHER: Duration = Duration::from_millis(20);

/// Deletes what owners leave behind and empties namespaces, until it is dropped.
#[derive(Debug)]
pub struct Collector(JoinHandle<()>);

impl Collector {
    /// Starts to clean up behind this API. Needs a tokio runtime.
    pub fn start(api: &ApiServer) -> Self {
        let core = Arc::clone(&api.core);
        let mut changed = core.store.subscribe_all();
        Self(tokio::spawn(async move {
            loop {
                changed.borrow_and_update();
                while sweep(&core) {}
                if changed.changed().await.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
            }
        }))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ApiServer {
    /// Does at once, and once, what a [`Collector`] does all the time: for tests that own the clock.
    pub fn collect(&self) {
        while sweep(&self.core) {}
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    /// Its owners are gone, its owner goes first-hand with it, or its namespace goes.
    Delete { uid: String },
    /// Forget these owners.
    Disown { owners: BTreeSet<String> },
    /// Its dependents are gone or let go.
    Unhold { finalizer: &'static str },
    /// A namespace that is empty.
    Finalize,
}

/// One round; true when it changed something.
fn sweep(core: &Core) -> bool {
    let tasks = plan(&core.store.read());
    let mut worked = false;
    for (kind, key, task) in tasks {
        worked |= perform(core, kind, &key, &task);
    }
    worked
}

/// What is to be done now. Pure.
fn plan(state: &State) -> Vec<(&'static Kind, Key, Task)> {
    let mut alive: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut owned: Vec<(&'static Kind, &Key, &Value)> = Vec::new();
    let mut holding: Vec<(&'static Kind, &Key, &Value)> = Vec::new();
    let mut leaving: BTreeSet<&str> = BTreeSet::new();
    for (table, kind) in TableId::all() {
        for (key, object) in state.scan(table, None, None) {
            let metadata = &object["metadata"];
            alive.insert(text(&metadata["uid"]), object);
            if !owners(object).is_empty() {
                owned.push((kind, key, object));
            }
            if metadata["deletionTimestamp"].is_string() {
                if kind.plural == "namespaces" {
                    leaving.insert(&key.name);
                }
                holding.push((kind, key, object));
            }
        }
    }
    let mut tasks = Vec::new();
    let mut dependents: BTreeSet<&str> = BTreeSet::new();
    for (kind, key, object) in owned {
        let owners = owners(object);
        dependents.extend(&owners);
        if let Some(task) = of_owned(object, &owners, &alive) {
            tasks.push((kind, key.clone(), task));
        }
    }
    for (kind, key, object) in holding {
        for finalizer in [FOREGROUND, ORPHAN] {
            if has_finalizer(object, finalizer)
                && !dependents.contains(text(&object["metadata"]["uid"]))
            {
                tasks.push((kind, key.clone(), Task::Unhold { finalizer }));
            }
        }
    }
    empty_namespaces(state, &leaving, &mut tasks);
    tasks
}

fn of_owned(
    object: &Value,
    owners: &BTreeSet<&str>,
    alive: &BTreeMap<&str, &Value>,
) -> Option<Task> {
    let orphaning = |uid: &&str| {
        alive
            .get(uid)
            .is_some_and(|owner| has_finalizer(owner, ORPHAN))
    };
    let gone = |uid: &&str| {
        alive.get(uid).is_none_or(|owner| {
            owner["metadata"]["deletionTimestamp"].is_string() && has_finalizer(owner, FOREGROUND)
        })
    };
    let lost: BTreeSet<&str> = owners.iter().copied().filter(gone).collect();
    let let_go: BTreeSet<&str> = owners.iter().copied().filter(orphaning).collect();
    let named = |owners: &BTreeSet<&str>| owners.iter().map(|uid| (*uid).to_owned()).collect();
    if !let_go.is_empty() {
        Some(Task::Disown {
            owners: named(&let_go),
        })
    } else if lost.len() == owners.len() {
        let marked = object["metadata"]["deletionTimestamp"].is_string();
        (!marked).then(|| Task::Delete {
            uid: text(&object["metadata"]["uid"]).to_owned(),
        })
    } else if lost.is_empty() {
        None
    } else {
        Some(Task::Disown {
            owners: named(&lost),
        })
    }
}

fn empty_namespaces(
    state: &State,
    leaving: &BTreeSet<&str>,
    tasks: &mut Vec<(&'static Kind, Key, Task)>,
) {
    for namespace in leaving {
        let mut empty = true;
        for (table, kind) in TableId::all().filter(|(_, kind)| kind.namespaced) {
            for (key, object) in state.scan(table, Some(namespace), None) {
                empty = false;
                if !object["metadata"]["deletionTimestamp"].is_string() {
                    let uid = text(&object["metadata"]["uid"]).to_owned();
                    tasks.push((kind, key.clone(), Task::Delete { uid }));
                }
            }
        }
        if let Some(kind) = Kind::find("", "v1", "namespaces").filter(|_| empty) {
            tasks.push((kind, Key::new("", namespace), Task::Finalize));
        }
    }
}

fn perform(core: &Core, kind: &'static Kind, key: &Key, task: &Task) -> bool {
    let table = TableId::of(kind);
    let mut state = core.store.write();
    let Some(old) = state.get(table, key).cloned() else {
        return false;
    };
    let mut new = Value::clone(&old);
    match task {
        Task::Delete { uid } => {
            return core
                .delete_one(&mut state, kind, key, &DeleteOptions::of_uid(uid))
                .is_ok();
        }
        Task::Disown { owners } => retain(&mut new, "ownerReferences", |reference| {
            !owners.contains(text(&reference["uid"]))
        }),
        Task::Unhold { finalizer } => retain(&mut new, "finalizers", |it| it != finalizer),
        Task::Finalize => {
            if let Some(spec) = new["spec"].as_object_mut() {
                spec.remove("finalizers");
            }
        }
    }
    if new == *old {
        return false;
    }
    if is_done(&new) {
        state.remove(table, key);
    } else {
        state.put(table, new);
    }
    true
}

/// Keeps some entries of a list in the metadata, and the list only when some are left.
fn retain(object: &mut Value, field: &str, keep: impl Fn(&Value) -> bool) {
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return;
    };
    if let Some(Value::Array(list)) = metadata.get_mut(field) {
        list.retain(keep);
        if list.is_empty() {
            metadata.remove(field);
        }
    }
}

fn owners(object: &Value) -> BTreeSet<&str> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references
        .into_iter()
        .flatten()
        .map(|reference| text(&reference["uid"]))
        .collect()
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.into_iter().flatten().any(|it| it == finalizer)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
