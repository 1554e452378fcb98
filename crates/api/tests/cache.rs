//! What a machine believes of a watch (B3), an API restored from a backup included.

use std::sync::Arc;

use bitts_api::Volume;
use bitts_api::machine::{Cache, Change, Place};
use serde_json::json;

fn volume(name: &str, uid: &str, version: u64, phase: &str) -> Arc<Volume> {
    let object = json!({"metadata": {"name": name, "uid": uid, "resourceVersion": version.to_string()},
                        "spec": {}, "status": {"phase": phase}});
    Arc::new(serde_json::from_value(object).unwrap_or_else(|why| panic!("{why}")))
}

fn place(name: &str) -> Place {
    (None, name.into())
}

fn set(old: Option<&Arc<Volume>>, new: &Arc<Volume>) -> Change<Volume> {
    Change::Set {
        old: old.cloned(),
        new: new.clone(),
    }
}

#[test]
fn an_older_version_never_replaces_a_newer_one() {
    let mut cache = Cache::default();
    let (first, second) = (
        volume("v", "1", 5, "Available"),
        volume("v", "1", 9, "Bound"),
    );
    assert_eq!(cache.see(first.clone()), [set(None, &first)]);
    assert_eq!(cache.see(second.clone()), [set(Some(&first), &second)]);
    assert_eq!(cache.see(first.clone()), []);
    assert_eq!(
        cache.see(second.clone()),
        [],
        "the same version again is no news"
    );
    // 10 is newer than 9: versions are numbers, not texts.
    let third = volume("v", "1", 10, "Released");
    assert_eq!(cache.see(third.clone()), [set(Some(&second), &third)]);
    assert_eq!(cache.get(&place("v")), Some(&third));
    assert!(!cache.is_listed(), "seeing objects is not knowing all");
}

#[test]
fn another_uid_is_another_object() {
    let mut cache = Cache::default();
    let (old, new) = (volume("v", "1", 5, "Bound"), volume("v", "2", 8, "Pending"));
    cache.see(old.clone());
    assert_eq!(
        cache.see(new.clone()),
        [Change::Removed(old.clone()), set(None, &new)]
    );
    assert_eq!(
        cache.see(old),
        [],
        "the first one's late event changes nothing"
    );
    assert_eq!(
        cache.remove(&place("v"), &"1".into()),
        None,
        "nor does its late deletion"
    );
    assert_eq!(
        cache.remove(&place("v"), &"2".into()),
        Some(Change::Removed(new))
    );
    assert_eq!(cache.remove(&place("v"), &"2".into()), None);
    assert!(cache.is_empty());
}

/// A live read that began before a deletion may come in after it, and nothing would ever contradict
/// it.
#[test]
fn what_is_gone_does_not_come_back_with_a_late_read() {
    let mut cache = Cache::default();
    let (known, late) = (
        volume("v", "1", 5, "Bound"),
        volume("v", "1", 7, "Released"),
    );
    cache.see(known.clone());
    cache.remove(&place("v"), &"1".into());
    assert_eq!(cache.see(late.clone()), []);
    // Of one that was never seen, too.
    assert_eq!(cache.remove(&place("w"), &"2".into()), None);
    assert_eq!(cache.see(volume("w", "2", 6, "Available")), []);
    assert!(cache.is_empty());
    // And of one whose place another took, which is gone by now.
    let (second, third) = (volume("v", "3", 8, "Bound"), volume("v", "4", 9, "Bound"));
    cache.see(second.clone());
    cache.see(third);
    cache.remove(&place("v"), &"4".into());
    assert_eq!(cache.see(second), []);
    // A consistent list is believed: an API that was restored from a backup gives uids back.
    assert_eq!(cache.replace([late.clone()]), [set(None, &late)]);
    let newer = volume("v", "1", 9, "Released");
    assert_eq!(cache.see(newer.clone()), [set(Some(&late), &newer)]);
}

#[test]
fn a_list_is_the_truth_whatever_its_versions() {
    let mut cache = Cache::default();
    let gone = volume("gone", "1", 50, "Bound");
    let newer = volume("back", "2", 60, "Bound");
    let same = volume("same", "3", 40, "Bound");
    let replaced = volume("replaced", "4", 45, "Bound");
    let reused = volume("reused", "6", 47, "Bound");
    for known in [&gone, &newer, &same, &replaced, &reused] {
        cache.see(known.clone());
    }
    // The API was restored from a backup: versions went back, and are given out again.
    let older = volume("back", "2", 30, "Available");
    let other = volume("replaced", "5", 31, "Available");
    let again = volume("reused", "6", 47, "Available");
    let changes = cache.replace([older.clone(), other.clone(), again.clone(), same.clone()]);
    assert_eq!(
        changes,
        [
            Change::Removed(replaced),
            Change::Removed(gone),
            set(Some(&newer), &older),
            set(None, &other),
            set(Some(&reused), &again),
        ]
    );
    assert!(cache.is_listed());
    assert_eq!((cache.len(), cache.get(&place("back"))), (4, Some(&older)));
    let names: Vec<_> = cache.iter().map(|v| v.meta.name.to_string()).collect();
    assert_eq!(
        names,
        ["back", "replaced", "reused", "same"],
        "in the order of their places"
    );
}
