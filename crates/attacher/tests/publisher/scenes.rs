//! The rules one by one (A23 to A28).

use std::time::Duration;

use bitts_api::ObjectKey;
use bitts_attacher::{Can, PublisherOptions, Task};
use serde_json::json;

use crate::world::{End, FINALIZER, Fate, NODE_ID, World, attachment, csi_node};

pub(crate) fn world() -> World {
    let mut world = World::new(PublisherOptions::default());
    world.add_node("n1", "id-n1");
    world.add_node("n2", "id-n2");
    world.add_volume("v", &["ReadWriteOnce"]);
    world.add_volume("shared", &["ReadWriteMany"]);
    world
}

fn attached(world: &World, volume: &str, node: &str) -> bool {
    world
        .attached
        .contains(&(format!("h-{volume}"), node.to_owned()))
}

#[test]
fn a26_held_then_published_then_told() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.rest();
    let steps = [
        "hold-attachment Done",
        "hold-volume Done",
        "publish h-v id-n1",
        "confirm-attached Done",
    ];
    assert_eq!(world.steps, steps);
    let a = world.get(&attachment("a")).unwrap();
    assert_eq!(a["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(a["metadata"]["annotations"][NODE_ID], "id-n1");
    assert_eq!(
        a["status"],
        json!({"attached": true, "attachmentMetadata": {"device": "h-v"}})
    );
    assert!(attached(&world, "v", "id-n1"));
}

#[test]
fn a25_unpublished_then_let_go_and_the_volume_after_its_last_attachment() {
    let mut world = world();
    world.ask_for("a", "shared", "n1");
    world.ask_for("b", "shared", "n2");
    world.rest();
    world.steps.clear();
    world.delete(&attachment("a"));
    world.rest();
    assert_eq!(
        world.steps,
        ["unpublish h-shared id-n1", "let-go-attachment Done"]
    );
    let held = |world: &World| {
        world.get(&ObjectKey::volume("shared")).unwrap()["metadata"]["finalizers"].clone()
    };
    assert_eq!(held(&world), json!([FINALIZER]));
    world.delete(&attachment("b"));
    world.rest();
    assert_eq!(held(&world), json!([]));
    assert!(world.attached.is_empty() && world.get(&attachment("b")).is_none());
}

/// What else holds an attachment sees that it is detached.
#[test]
fn a25_other_finalizers_stay_and_are_told() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.change(&attachment("a"), |a| {
        a["metadata"]["finalizers"] = json!(["example.com/other"])
    });
    world.rest();
    world.delete(&attachment("a"));
    world.rest();
    let a = world.get(&attachment("a")).unwrap();
    assert_eq!(a["metadata"]["finalizers"], json!(["example.com/other"]));
    assert_eq!(a["status"]["attached"], false);
    let before = world.steps.len();
    world.wait(Duration::from_secs(600));
    assert_eq!(world.steps.len(), before, "{:?}", world.steps);
}

#[test]
fn a27_an_error_is_told_with_its_code_and_tried_again_later_and_later() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.until_calls();
    let mut waited = Vec::new();
    for _ in 0..4 {
        assert!(world.end_call(0, End::Fails(8)));
        world.until_calls();
        let began = world.now;
        while world.calls.is_empty() {
            assert!(world.ring(Duration::from_secs(3600)));
            world.until_calls();
        }
        waited.push((world.now - began).as_secs());
    }
    assert_eq!(waited, [1, 2, 4, 8]);
    let status = &world.get(&attachment("a")).unwrap()["status"];
    assert_eq!(status["attachError"]["errorCode"], 8);
    assert_eq!(status["attachError"]["message"], "told to fail with 8");
    // The same words are not written twice: the time there is since when.
    let told = world
        .steps
        .iter()
        .filter(|s| s.starts_with("tell-attach-error"));
    assert_eq!(told.count(), 1, "{:?}", world.steps);
    world.rest();
    let status = &world.get(&attachment("a")).unwrap()["status"];
    assert_eq!(status["attached"], true);
    assert!(status["attachError"].is_null(), "{status}");
}

/// Amendment 11: nothing but the driver's word lets go of an attachment.
#[test]
fn a25_a_failed_detach_holds_on() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.rest();
    world.delete(&attachment("a"));
    world.until_calls();
    // Not found is no word that it is detached.
    for code in [5, 4, 13] {
        assert!(world.end_call(0, End::Fails(code)));
        world.until_calls();
        let a = world.get(&attachment("a")).unwrap();
        assert_eq!(a["status"]["detachError"]["errorCode"], code);
        assert_eq!(a["metadata"]["finalizers"], json!([FINALIZER]));
        while world.calls.is_empty() {
            assert!(world.ring(Duration::from_secs(3600)));
            world.until_calls();
        }
    }
    world.rest();
    assert!(world.get(&attachment("a")).is_none() && world.attached.is_empty());
}

#[test]
fn a_detach_does_not_wait_for_the_back_off_of_the_attach() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.until_calls();
    for _ in 0..6 {
        world.end_call(0, End::DoesAndFails(4));
        world.until_calls();
        while world.calls.is_empty() {
            world.ring(Duration::from_secs(3600));
            world.until_calls();
        }
    }
    world.end_call(0, End::DoesAndFails(4));
    world.delete(&attachment("a"));
    let began = world.now;
    world.rest();
    assert!(world.attached.is_empty() && world.get(&attachment("a")).is_none());
    assert!(world.now - began <= Duration::from_secs(1));
}

#[test]
fn a_driver_that_attaches_nothing_is_trusted() {
    let mut world = world();
    world.can = Can::default();
    world.restart();
    world.ask_for("a", "v", "n1");
    world.rest();
    assert_eq!(world.steps, ["confirm-attached Done"]);
    let a = world.get(&attachment("a")).unwrap();
    assert!(a["metadata"]["finalizers"].is_null() && a["status"]["attached"] == true);
    world.delete(&attachment("a"));
    world.rest();
    assert!(world.get(&attachment("a")).is_none());
    // Held by a driver that could, before: nothing is there to be detached.
    world.ask_for("b", "v", "n1");
    world.change(&attachment("b"), |b| {
        b["metadata"]["finalizers"] = json!([FINALIZER])
    });
    world.delete(&attachment("b"));
    world.rest();
    assert!(world.get(&attachment("b")).is_none());
}

#[test]
fn nothing_is_decided_before_the_driver_answers() {
    let mut world = world();
    world.is_down = true;
    world.restart();
    world.ask_for("a", "v", "n1");
    world.wait(Duration::from_secs(60));
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    world.is_down = false;
    world.wait(Duration::from_secs(10));
    assert!(attached(&world, "v", "id-n1"));
}

#[test]
fn what_is_missing_is_told_and_waited_for() {
    let mut world = World::new(PublisherOptions::default());
    world.ask_for("a", "v", "n1");
    world.rest();
    let error = |world: &World| {
        let error = &world.get(&attachment("a")).unwrap()["status"]["attachError"]["message"];
        error.as_str().unwrap_or_default().to_owned()
    };
    assert!(
        error(&world).contains("persistentvolume \"v\" not found"),
        "{}",
        error(&world)
    );
    world.add_volume("v", &["ReadWriteOnce"]);
    world.rest();
    assert!(
        error(&world).contains("CSINode n1 does not contain driver"),
        "{}",
        error(&world)
    );
    world.add_node("n1", "id-n1");
    world.rest();
    assert!(attached(&world, "v", "id-n1") && error(&world).is_empty());
    world.ask_for("b", "other", "n1");
    world.add_volume("other", &["ReadWriteOnce"]);
    world.change(&ObjectKey::volume("other"), |v| {
        v["metadata"]["finalizers"] = json!(["example.com/other"]);
    });
    world.delete(&ObjectKey::volume("other"));
    world.rest();
    let b = world.get(&attachment("b")).unwrap();
    let message = b["status"]["attachError"]["message"].as_str().unwrap();
    assert!(message.contains("marked for deletion"), "{message}");
}

/// Section 13, weakness 31: what may be there counts as there.
#[test]
fn a21_a_volume_for_one_node_waits_until_it_is_off_the_other() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.until_calls();
    world.end_call(0, End::DoesAndFails(4));
    world.ask_for("b", "v", "n2");
    world.until_calls();
    let b = &world.get(&attachment("b")).unwrap()["status"]["attachError"]["message"];
    assert!(
        b.as_str().unwrap().contains("may still be on node n1"),
        "{b}"
    );
    world.delete(&attachment("a"));
    world.rest();
    assert!(attached(&world, "v", "id-n2") && world.attached.len() == 1);
    assert_eq!(world.broken, Vec::<String>::new());
    // One for many is on both at once.
    world.ask_for("c", "shared", "n1");
    world.ask_for("d", "shared", "n2");
    world.rest();
    assert!(attached(&world, "shared", "id-n1") && attached(&world, "shared", "id-n2"));
}

#[test]
fn a_node_that_is_gone_is_known_by_what_was_noted() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.rest();
    world.delete(&csi_node("n1"));
    world.delete(&attachment("a"));
    world.rest();
    assert!(world.attached.is_empty() && world.get(&attachment("a")).is_none());
}

/// Section 13: a node of the same name on another machine.
#[test]
fn a_node_that_came_back_as_another_is_detached_as_what_it_was() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.rest();
    world.add_node("n1", "id-new");
    world.rest();
    // Where its status says attached, somebody may use it: that is for its deletion to end.
    assert!(attached(&world, "v", "id-n1"));
    world.delete(&attachment("a"));
    world.rest();
    assert!(world.attached.is_empty());
    // One that never got that far is taken from the old name first.
    world.ask_for("b", "v", "n2");
    world.until_calls();
    world.end_call(0, End::DoesAndFails(4));
    world.add_node("n2", "id-other");
    world.rest();
    world.steps.drain(..world.steps.len() - 4);
    let steps = [
        "unpublish h-v id-n2",
        "hold-attachment Done",
        "publish h-v id-other",
        "confirm-attached Done",
    ];
    assert_eq!(world.steps, steps);
    assert_eq!(world.broken, Vec::<String>::new());
}

#[test]
fn a_volume_that_is_deleted_goes_only_when_nothing_attaches_it() {
    let mut world = world();
    world.ask_for("a", "v", "n1");
    world.rest();
    world.delete(&ObjectKey::volume("v"));
    world.rest();
    assert!(world.get(&ObjectKey::volume("v")).is_some());
    world.delete(&attachment("a"));
    // Another attachment comes that no watch told of yet.
    while !world.steps.iter().any(|s| s == "let-go-attachment Done") {
        let busy = world.deliver() | world.execute(Fate::Done) | world.end_call(0, End::Well);
        assert!(busy);
    }
    world.ask_for("b", "v", "n2");
    world.execute(Fate::Done);
    assert_eq!(world.steps.last().unwrap(), "let-go-volume Spared");
    world.rest();
    world.delete(&attachment("b"));
    world.wait(Duration::from_secs(10));
    assert!(world.get(&ObjectKey::volume("v")).is_none());
}

#[test]
fn what_the_driver_does_not_list_is_attached_anew() {
    let mut world = World::new(PublisherOptions::default());
    world.can.list = true;
    world.restart();
    world.add_node("n1", "id-n1");
    world.add_volume("v", &["ReadWriteOnce"]);
    world.ask_for("a", "v", "n1");
    world.rest();
    world.attached.clear();
    world.steps.clear();
    world.wait(Duration::from_secs(61));
    assert_eq!(world.steps, ["publish h-v id-n1"]);
    assert!(attached(&world, "v", "id-n1"));
    world.steps.clear();
    world.wait(Duration::from_secs(600));
    assert!(world.steps.is_empty(), "{:?}", world.steps);
}

/// A driver said that it detached a volume, and did not; another one was never attached from here.
#[test]
fn what_the_driver_has_where_no_attachment_is_is_told_once() {
    let mut world = World::new(PublisherOptions::default());
    world.can.list = true;
    world.restart();
    world.add_node("n1", "id-n1");
    world.add_volume("v", &["ReadWriteOnce"]);
    world.ask_for("a", "v", "n1");
    world.rest();
    let told = |world: &World| world.events.clone();
    world.wait(Duration::from_secs(200));
    assert!(told(&world).is_empty(), "{:?}", told(&world));
    world
        .attached
        .insert(("h-v".to_owned(), "id-old".to_owned()));
    world
        .attached
        .insert(("foreign".to_owned(), "id-n1".to_owned()));
    world.wait(Duration::from_secs(61));
    assert!(told(&world).is_empty(), "a list may be older than a detach");
    world.wait(Duration::from_secs(600));
    let all = told(&world);
    assert!(
        all.len() == 1 && all[0].contains("lists it on its node id-old"),
        "{all:?}"
    );
    assert!(
        world
            .attached
            .contains(&("h-v".to_owned(), "id-old".to_owned()))
    );
}

#[test]
fn no_more_calls_than_allowed_and_all_get_their_turn() {
    let options = PublisherOptions {
        calls_at_once: 4,
        ..PublisherOptions::default()
    };
    let mut world = World::new(options);
    world.add_node("n1", "id-n1");
    for n in 0..30 {
        world.add_volume(&format!("v{n}"), &["ReadWriteOnce"]);
        world.ask_for(&format!("a{n}"), &format!("v{n}"), "n1");
    }
    world.until_calls();
    assert_eq!(world.calls.len(), 4);
    world.rest();
    assert_eq!(world.attached.len(), 30);
}

/// A28: wherever the process dies.
#[test]
fn a28_a_death_after_each_step_changes_nothing_in_the_end() {
    for deaths in 0..20 {
        let mut world = world();
        world.ask_for("a", "v", "n1");
        let mut left = deaths;
        while world.deliver() || step(&mut world, &mut left) {}
        world.wait(Duration::from_secs(5));
        assert!(
            attached(&world, "v", "id-n1"),
            "{deaths}: {:?}",
            world.steps
        );
        world.delete(&attachment("a"));
        let mut left = deaths;
        while world.deliver() || step(&mut world, &mut left) {}
        world.wait(Duration::from_secs(5));
        assert!(world.attached.is_empty() && world.get(&attachment("a")).is_none());
        let v = world.get(&ObjectKey::volume("v")).unwrap();
        assert_eq!(
            v["metadata"]["finalizers"],
            json!([]),
            "{deaths}: {:?}",
            world.steps
        );
        assert_eq!(world.broken, Vec::<String>::new());
    }
}

/// One effect or call; the one that is due dies with the process, after it took effect.
fn step(world: &mut World, left: &mut i32) -> bool {
    *left -= 1;
    if *left == 0 {
        if !world.calls.is_empty() {
            let end = world.end_call(0, End::Well);
            world.restart();
            return end;
        }
        return world.execute(Fate::DeathAfter);
    }
    world.execute(Fate::Done) || world.end_call(0, End::Well)
}

#[test]
fn what_the_driver_is_told_of_a_volume() {
    let mut world = world();
    world.can.publish_read_only = true;
    world.can.one_writer = true;
    world.restart();
    world.put(
        &ObjectKey::volume("raw"),
        json!({"metadata": {}, "spec": {"accessModes": ["ReadOnlyMany"], "volumeMode": "Block",
            "csi": {"driver": crate::world::DRIVER, "volumeHandle": "h-raw", "readOnly": true,
                "volumeAttributes": {"pool": "fast"},
                "controllerPublishSecretRef": {"namespace": "kube-system", "name": "key"}}}}),
    );
    world.ask_for("a", "raw", "n1");
    world.until_calls();
    let Task::Publish(publish) = &world.calls[0] else {
        panic!("{:?}", world.calls);
    };
    assert!(publish.read_only && publish.is_block && publish.one_writer);
    assert_eq!(&*publish.attributes["pool"], "fast");
    assert_eq!(&*publish.secret.as_ref().unwrap().name, "key");
    world.rest();
    world.delete(&attachment("a"));
    world.until_calls();
    let Task::Unpublish(unpublish) = &world.calls[0] else {
        panic!("{:?}", world.calls);
    };
    assert_eq!(&*unpublish.secret.as_ref().unwrap().name, "key");
}
