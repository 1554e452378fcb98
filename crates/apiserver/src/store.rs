//! Objects, revisions and history.
//!
//! One counter numbers every write of every kind. Each kind keeps its last changes in order; from them
//! come watches and lists of the past. Nothing here knows HTTP or what an object means.

mod history;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;
use tokio::sync::watch;

use history::History;
pub(crate) use history::{Change, Expired};

use crate::kind::{self, Kind};

/// Where an object is, within its kind. Orders as etcd orders its keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of a stored object.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

/// Which table holds a kind's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableId(usize);

impl TableId {
    pub(crate) fn of(kind: &Kind) -> Self {
        let stored = |other: &Kind| (other.group, other.plural) == kind.stored_as;
        Self(kind::ALL.iter().position(stored).unwrap_or_default())
    }

    /// Every table with the kind that is stored in it.
    pub(crate) fn all() -> impl Iterator<Item = (Self, &'static Kind)> {
        kind::ALL
            .iter()
            .filter(|kind| kind.is_stored_view())
            .map(|kind| (Self::of(kind), kind))
    }
}

#[derive(Debug)]
struct Table {
    objects: BTreeMap<Key, Arc<Value>>,
    history: History,
    /// The revision of the table's last change; watches wait on it.
    changed: watch::Sender<u64>,
}

/// All objects at one revision, with the way here.
#[derive(Debug)]
pub(crate) struct State {
    revision: u64,
    tables: Vec<Table>,
    /// The revision, for those who look at all kinds.
    changed: watch::Sender<u64>,
}

/// The objects of the API.
#[derive(Debug)]
pub(crate) struct Store(RwLock<State>);

impl Store {
    pub(crate) fn new(keep: usize) -> Self {
        let table = |_| Table {
            objects: BTreeMap::new(),
            history: History::new(keep),
            changed: watch::Sender::new(0),
        };
        Self(RwLock::new(State {
            revision: 0,
            tables: kind::ALL.iter().map(table).collect(),
            changed: watch::Sender::new(0),
        }))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads and writes under one lock: whoever holds it decides and commits alone.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.read().revision
    }

    pub(crate) fn compact(&self) {
        let mut state = self.write();
        let revision = state.revision;
        for table in &mut state.tables {
            table.history.compact(revision);
            // Watches that lag learn at once that their place is gone.
            table.changed.send_modify(|_| {});
        }
    }

    /// Wakes after each change of any table.
    pub(crate) fn subscribe_all(&self) -> watch::Receiver<u64> {
        self.read().changed.subscribe()
    }

    /// Wakes after each change of the table.
    pub(crate) fn subscribe(&self, table: TableId) -> watch::Receiver<u64> {
        self.read().tables[table.0].changed.subscribe()
    }
}

impl State {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, table: TableId, key: &Key) -> Option<&Arc<Value>> {
        self.tables[table.0].objects.get(key)
    }

    pub(crate) fn len(&self, table: TableId) -> usize {
        self.tables[table.0].objects.len()
    }

    /// The objects of a namespace (or of all), now, in key order.
    pub(crate) fn scan<'a>(
        &'a self,
        table: TableId,
        namespace: Option<&'a str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + use<'a> {
        let start = match (after, namespace) {
            (Some(key), _) => Bound::Excluded(key.clone()),
            (None, Some(namespace)) => Bound::Included(Key::new(namespace, "")),
            (None, None) => Bound::Unbounded,
        };
        self.tables[table.0]
            .objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| namespace.is_none_or(|it| key.namespace == it))
    }

    /// The objects as they were at an earlier revision, in key order.
    pub(crate) fn scan_at<'a>(
        &'a self,
        table: TableId,
        at: u64,
        namespace: Option<&'a str>,
        after: Option<&Key>,
    ) -> Result<Box<dyn Iterator<Item = &'a Arc<Value>> + 'a>, Expired> {
        let history = &self.tables[table.0].history;
        // What each key held that has changed since: its first later change knows.
        let mut past: BTreeMap<&Key, Option<&Arc<Value>>> = BTreeMap::new();
        history.check(at)?;
        for change in history.since(at)? {
            past.entry(&change.key).or_insert(change.previous.as_ref());
        }
        let now = self.scan(table, namespace, after);
        if past.is_empty() {
            return Ok(Box::new(now.map(|(_, object)| object)));
        }
        let mut merged: BTreeMap<&Key, &Arc<Value>> = now.collect();
        for (key, object) in past {
            let wanted = after.is_none_or(|after| key > after)
                && namespace.is_none_or(|namespace| key.namespace == namespace);
            match object.filter(|_| wanted) {
                Some(object) => merged.insert(key, object),
                None => merged.remove(key),
            };
        }
        Ok(Box::new(merged.into_values()))
    }

    /// The oldest revision that a new list or watch may start from.
    pub(crate) fn oldest(&self, table: TableId) -> u64 {
        self.tables[table.0].history.oldest()
    }

    /// The changes behind a revision, at most `limit`. A running watch that has missed none may go on
    /// behind a compaction.
    pub(crate) fn changes(
        &self,
        table: TableId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Change>, Expired> {
        let changes = self.tables[table.0].history.since(after)?;
        Ok(changes.take(limit).cloned().collect())
    }

    /// Stores an object under a new revision and returns it as stored.
    pub(crate) fn put(&mut self, table: TableId, mut object: Value) -> Arc<Value> {
        let key = Key::of(&object);
        let revision = self.next(&mut object);
        let object = Arc::new(object);
        let table = &mut self.tables[table.0];
        let previous = table.objects.insert(key.clone(), Arc::clone(&object));
        table.history.push(Change {
            revision,
            key,
            object: Some(Arc::clone(&object)),
            previous,
        });
        table.changed.send_replace(revision);
        self.changed.send_replace(revision);
        object
    }

    /// Removes an object and returns it with the revision of its end.
    pub(crate) fn remove(&mut self, table: TableId, key: &Key) -> Option<Arc<Value>> {
        let previous = self.tables[table.0].objects.remove(key)?;
        let mut last = Value::clone(&previous);
        let revision = self.next(&mut last);
        let table = &mut self.tables[table.0];
        table.history.push(Change {
            revision,
            key: key.clone(),
            object: None,
            previous: Some(previous),
        });
        table.changed.send_replace(revision);
        self.changed.send_replace(revision);
        Some(Arc::new(last))
    }

    fn next(&mut self, object: &mut Value) -> u64 {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.revision
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> TableId {
        TableId::of(Kind::find("", "v1", "pods").unwrap())
    }

    fn pod(namespace: &str, name: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name}})
    }

    fn names(state: &State, at: u64, namespace: Option<&str>, after: Option<&Key>) -> Vec<String> {
        let objects = state.scan_at(pods(), at, namespace, after).unwrap();
        objects
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn one_counter_numbers_all_kinds() {
        let store = Store::new(10);
        let nodes = TableId::of(Kind::find("", "v1", "nodes").unwrap());
        let mut state = store.write();
        assert_eq!(
            state.put(pods(), pod("a", "x"))["metadata"]["resourceVersion"],
            "1"
        );
        assert_eq!(
            state.put(nodes, pod("", "n"))["metadata"]["resourceVersion"],
            "2"
        );
        let gone = state.remove(pods(), &Key::new("a", "x")).unwrap();
        assert_eq!(gone["metadata"]["resourceVersion"], "3");
        assert_eq!(state.revision(), 3);
    }

    #[test]
    fn the_two_events_kinds_share_a_table() {
        let core = Kind::find("", "v1", "events").unwrap();
        let api = Kind::find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(TableId::of(core), TableId::of(api));
        assert_eq!(TableId::all().count(), kind::ALL.len() - 1);
    }

    #[test]
    fn the_past_can_be_listed_until_it_is_forgotten() {
        let store = Store::new(4);
        let mut state = store.write();
        state.put(pods(), pod("a", "x")); // 1
        state.put(pods(), pod("b", "y")); // 2
        state.put(pods(), pod("a", "z")); // 3
        state.remove(pods(), &Key::new("a", "x")); // 4
        state.put(pods(), pod("a", "w")); // 5
        assert_eq!(names(&state, 5, None, None), ["w", "z", "y"]);
        assert_eq!(names(&state, 3, None, None), ["x", "z", "y"]);
        assert_eq!(names(&state, 2, None, None), ["x", "y"]);
        assert_eq!(
            names(&state, 3, Some("a"), Some(&Key::new("a", "x"))),
            ["z"]
        );
        assert_eq!(names(&state, 3, Some("b"), None), ["y"]);
        // Four changes are kept: the one that made revision 1 is forgotten, what it made is not.
        assert_eq!(names(&state, 1, None, None), ["x"]);
        assert!(state.scan_at(pods(), 0, None, None).is_err());
    }

    #[test]
    fn changes_come_from_any_kept_revision() {
        let store = Store::new(2);
        let mut state = store.write();
        for name in ["x", "y", "z"] {
            state.put(pods(), pod("a", name));
        }
        assert_eq!(
            state.changes(pods(), 0, 9).unwrap_err(),
            Expired { oldest: 1 }
        );
        let revisions = |after, limit| -> Vec<u64> {
            let changes = state.changes(pods(), after, limit).unwrap();
            changes.iter().map(|change| change.revision).collect()
        };
        assert_eq!(revisions(1, 9), [2, 3]);
        assert_eq!(revisions(1, 1), [2]);
        assert_eq!(revisions(3, 9), [0u64; 0]);
        assert_eq!(revisions(99, 9), [0u64; 0]);
    }

    #[test]
    fn compaction_forgets_the_past_of_all_kinds() {
        let store = Store::new(10);
        store.write().put(pods(), pod("a", "x"));
        store.write().put(pods(), pod("a", "y"));
        store.compact();
        assert!(store.read().changes(pods(), 1, 9).is_err());
        assert!(store.read().changes(pods(), 2, 9).unwrap().is_empty());
        assert_eq!(names(&store.read(), 2, None, None), ["x", "y"]);
        let nodes = TableId::of(Kind::find("", "v1", "nodes").unwrap());
        assert_eq!(store.read().oldest(nodes), 2);
        assert!(
            store.read().changes(nodes, 1, 9).is_ok(),
            "a running watch has missed nothing"
        );
        assert!(store.read().scan_at(nodes, 1, None, None).is_err());
    }
}
