//! Claims that ask for a copy of another claim's data.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::PathBuf;

use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{World, claim, merge, share_claim, share_class};

fn copy_of(source: &str, mut claim: Value) -> Value {
    let source = json!({"kind": "PersistentVolumeClaim", "name": source});
    merge(&mut claim, &json!({"spec": {"dataSource": source}}));
    claim
}

fn copy() -> ObjectKey {
    ObjectKey::claim("default", "copy")
}

fn volume() -> ObjectKey {
    ObjectKey::volume("pvc-u2")
}

/// A world in which the claim `c` is bound, and its volume has a file.
fn with_source() -> World {
    let mut world = World::new();
    world.put(Kind::Claim, claim("c", "u1", "fast"));
    world.start();
    world.run();
    world.bind();
    world.run();
    std::fs::write(source(&world).join("file"), "data").unwrap();
    world.clear();
    world
}

fn source(world: &World) -> PathBuf {
    world.root().join("default-c-pvc-u1")
}

fn place(world: &World) -> PathBuf {
    world.root().join("default-copy-pvc-u2")
}

fn ask(world: &mut World) {
    world.put(Kind::Claim, copy_of("c", claim("copy", "u2", "fast")));
    world.run();
}

#[test]
fn a_claim_gets_a_copy_and_hears_how_far_it_is() {
    let mut world = with_source();
    ask(&mut world);
    assert!(!world.objects.contains_key(&volume()), "before it is whole");
    world.copy();
    assert_eq!(std::fs::read(place(&world).join("file")).unwrap(), b"data");
    world.bind();
    world.run();
    let told = world.told();
    let has = |text: &str| told.iter().any(|told| told.contains(text));
    assert!(
        has("Normal Provisioning: copying the data of claim \"c\": 0 of 0 MiB"),
        "{told:?}"
    );
    assert!(has("Normal ProvisioningSucceeded"), "{told:?}");
    assert!(!has("Warning"), "{told:?}");
    // It is a volume as any other.
    world.delete(&copy());
    world.bind();
    world.settle();
    world.sweep();
    assert!(!place(&world).exists() && source(&world).join("file").exists());
    assert!(!world.objects.contains_key(&volume()));
}

#[test]
fn what_cannot_be_copied_is_told_and_looked_at_again_when_that_changes() {
    let small = json!({"spec": {"resources": {"requests": {"storage": "1Ki"}}}});
    let snapshot = json!({"spec": {"dataSource": {"kind": "VolumeSnapshot",
        "apiGroup": "snapshot.storage.k8s.io"}}});
    let other = json!({"spec": {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "c",
        "namespace": "other"}}});
    let nobody = json!({"spec": {"dataSource": {"name": "nobody"}}});
    for (more, told) in [
        (small, "has 1Mi; ask for as much at least"),
        (snapshot, "not of a VolumeSnapshot"),
        (other, "only a claim of the same namespace"),
        (nobody, "there is no claim \"nobody\""),
    ] {
        let mut world = with_source();
        let mut asked = copy_of("c", claim("copy", "u2", "fast"));
        merge(&mut asked, &more);
        world.put(Kind::Claim, asked);
        world.settle();
        let events = world.told();
        assert!(
            events.iter().any(|event| event.contains(told)),
            "{told}: {events:?}"
        );
        assert!(
            !place(&world).exists() && world.records().len() == 1,
            "{told}"
        );
    }
}

#[test]
fn a_copy_waits_for_its_source_to_be_bound() {
    let mut world = World::new();
    world.put(Kind::Claim, copy_of("c", claim("copy", "u2", "fast")));
    world.start();
    world.settle();
    assert!(
        world
            .told()
            .last()
            .unwrap()
            .contains("there is no claim \"c\"")
    );
    world.put(Kind::Claim, claim("c", "u1", "fast"));
    world.run();
    assert!(
        world
            .told()
            .iter()
            .any(|told| told.contains("\"c\" is not Bound"))
    );
    world.bind();
    world.run();
    world.copy();
    assert!(world.objects.contains_key(&volume()));
}

#[test]
fn the_source_may_go_once_the_copy_was_begun() {
    let mut world = with_source();
    ask(&mut world);
    world.delete(&ObjectKey::claim("default", "c"));
    world.bind();
    world.settle();
    assert!(source(&world).exists(), "it is being copied");
    let told = world.told();
    assert!(
        told.iter()
            .any(|told| told.contains("it is being copied to pvc-u2")),
        "{told:?}"
    );
    // Another process does not know what this one was told.
    world.start();
    world.settle();
    assert!(
        source(&world).exists(),
        "its removal waits for the copy that is asked for again"
    );
    world.copy();
    assert!(world.objects.contains_key(&volume()));
    assert_eq!(std::fs::read(place(&world).join("file")).unwrap(), b"data");
    world.settle();
    assert!(!source(&world).exists());
}

#[test]
fn a_copy_that_nobody_waits_for_any_more_is_undone() {
    let mut world = with_source();
    ask(&mut world);
    world.delete(&copy());
    world.copy();
    world.sweep();
    assert_eq!(world.directories(), ["default-c-pvc-u1"]);
    assert_eq!(world.records(), ["pvc-u1.json"]);
    for left in ["copying", "leaving", "trash"] {
        let left = std::fs::read_dir(world.root().join(".bitts").join(left));
        assert_eq!(left.map_or(0, Iterator::count), 0);
    }
}

/// The scheduler is asked for another node, as with whatever else a node lacks (P12).
#[test]
fn a_copy_is_made_where_its_source_lies() {
    let mut world = with_source();
    let lies_elsewhere = json!({"metadata": {"annotations": {"bitts.dev/provisioned-on": "n2"}}});
    world.edit(&ObjectKey::volume("pvc-u1"), &lies_elsewhere);
    ask(&mut world);
    let annotations = &world.objects[&copy()]["metadata"]["annotations"];
    assert!(annotations["volume.kubernetes.io/selected-node"].is_null());
    let told = world.told();
    assert!(
        told.iter()
            .any(|told| told.contains("lies on n2; the pod is scheduled again"))
    );
}

#[test]
fn a_copy_on_a_share_lies_on_that_share() {
    let mut world = World::of_shares();
    for (class, server) in [("a", "nas"), ("b", "other")] {
        std::fs::create_dir_all(world.share(server, "/x")).unwrap();
        world.put(
            Kind::StorageClass,
            share_class(class, server, "/x", json!({})),
        );
    }
    world.put(Kind::Claim, share_claim("c", "u1", "a"));
    world.start();
    world.run();
    world.bind();
    world.run();
    let lies = world.share("nas", "/x").join("default-c-pvc-u1");
    std::fs::write(lies.join("file"), "data").unwrap();
    world.put(Kind::Claim, copy_of("c", share_claim("copy", "u2", "a")));
    world.put(Kind::Claim, copy_of("c", share_claim("wrong", "u3", "b")));
    world.run();
    world.copy();
    let copied = world.share("nas", "/x").join("default-copy-pvc-u2/file");
    assert_eq!(std::fs::read(copied).unwrap(), b"data");
    assert!(!world.objects.contains_key(&ObjectKey::volume("pvc-u3")));
    let told = world.told();
    let wrong = "the volume of claim c lies on nas:/x, not on other:/x";
    assert!(told.iter().any(|told| told.contains(wrong)), "{told:?}");
}
