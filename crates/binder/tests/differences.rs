//! Where things end differently than under kube-controller-manager, and that they do not with
//! `--strict-compat`: each test shows both.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bitts_api::{Kind, ObjectKey, names};
use bitts_binder::{Difference, Differences, Recycle};
use serde_json::{Value, json};
use support::{Fate, Store, World, claim, volume};

fn world(differences: Differences) -> World {
    let mut world = World::new(Store::default());
    world.options.differences = differences;
    world.start();
    world
}

fn v() -> ObjectKey {
    ObjectKey::volume("v")
}

fn c() -> ObjectKey {
    ObjectKey::claim("default", "c")
}

fn with(mut object: Value, patch: &Value) -> Value {
    fn merge(into: &mut Value, patch: &Value) {
        match patch {
            Value::Object(patch) => patch.iter().for_each(|(k, v)| merge(&mut into[k], v)),
            other => *into = other.clone(),
        }
    }
    merge(&mut object, patch);
    object
}

fn owned_by(uid: &str) -> Value {
    json!({"spec": {"claimRef": {"namespace": "default", "name": "c", "uid": uid}}})
}

fn policy(policy: &str) -> Value {
    json!({"spec": {"persistentVolumeReclaimPolicy": policy}})
}

fn phase(world: &World) -> &str {
    world.store.objects[&v()]["status"]["phase"]
        .as_str()
        .unwrap()
}

fn message(world: &World) -> &str {
    world.store.objects[&v()]["status"]["message"]
        .as_str()
        .unwrap_or_default()
}

/// A claim is deleted after so many writes of its bind, as users delete: its finalizer holds it
/// until the binder agrees. The process may die between any two steps from then on.
fn deleted_after(writes: u32, differences: Differences, volume_is: &Value, dies: bool) -> World {
    let mut store = Store::default();
    let held = |name| json!({"metadata": {"finalizers": [name]}});
    let made = with(
        with(volume("v", "1Gi"), volume_is),
        &held(names::VOLUME_PROTECTION),
    );
    store.create(Kind::Volume, made);
    store.create(
        Kind::Claim,
        with(claim("c", "1Gi"), &held(names::CLAIM_PROTECTION)),
    );
    let mut world = World::new(store);
    world.options.protection = true;
    world.options.differences = differences;
    world.start();
    for _ in 0..writes {
        world.execute(0, Fate::Done);
    }
    world.edit(
        &c(),
        &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    if dies {
        world.start();
    }
    for _ in 0..20 {
        if world.queue.is_empty() {
            break;
        }
        world.execute(0, if dies { Fate::DeathAfter } else { Fate::Done });
    }
    world.settle();
    assert!(!world.store.objects.contains_key(&c()), "the claim goes");
    world
}

/// §13.12, B22: the crash table of docs/differences.md.
#[test]
fn a_hand_made_volume_whose_claim_goes_before_it_was_bound_is_given_back() {
    for dies in [false, true] {
        for of in ["Retain", "Delete", "Recycle"] {
            for writes in 0..2 {
                let world = deleted_after(writes, Differences::ALL, &policy(of), dies);
                assert_eq!(phase(&world), "Available", "{of} after {writes}");
                let spec = &world.store.objects[&v()]["spec"];
                assert_eq!(spec["claimRef"], Value::Null, "{of} after {writes}");
            }
            let world = deleted_after(4, Differences::ALL, &policy(of), dies);
            let end = if of == "Retain" { "Released" } else { "Failed" };
            assert_eq!(phase(&world), end, "{of}, completely bound");
        }
    }
}

/// §13.12: between the second write and the third the volume says Bound; that it was never used is
/// known from the claim.
#[test]
fn a_volume_that_says_bound_is_given_back_too() {
    let mut store = Store::default();
    let bound = json!({"status": {"phase": "Bound"}});
    store.create(
        Kind::Volume,
        with(with(volume("v", "1Gi"), &owned_by("uid-c")), &bound),
    );
    let deleting = json!({"metadata": {
        "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [names::CLAIM_PROTECTION]}});
    store.create(Kind::Claim, with(claim("c", "1Gi"), &deleting));
    for (differences, end) in [
        (Differences::ALL, "Available"),
        (Differences::NONE, "Released"),
    ] {
        let mut world = World::new(store.clone());
        world.options.protection = true;
        world.options.differences = differences;
        world.start();
        world.settle();
        assert_eq!(phase(&world), end);
        assert!(!world.store.objects.contains_key(&c()));
        let uid = &world.store.objects[&v()]["spec"]["claimRef"]["uid"];
        assert_eq!(uid.is_null(), end == "Available", "{uid}");
    }
}

/// §13.12: an API that fails for a while does not make the claim go first.
#[test]
fn a_claim_stays_until_its_volume_could_be_given_back() {
    let mut store = Store::default();
    store.create(Kind::Volume, with(volume("v", "1Gi"), &owned_by("uid-c")));
    let deleting = json!({"metadata": {
        "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [names::CLAIM_PROTECTION]}});
    store.create(Kind::Claim, with(claim("c", "1Gi"), &deleting));
    let mut world = World::new(store);
    world.options.protection = true;
    world.start();
    for _ in 0..5 {
        world.run_with(|effect| match support::step(effect) {
            "unbind-volume" => Fate::Lost,
            _ => Fate::Done,
        });
        world.wake();
    }
    assert!(world.store.objects.contains_key(&c()));
    world.settle();
    assert_eq!(phase(&world), "Available");
    assert!(!world.store.objects.contains_key(&c()));
}

/// §13.12: nobody vouches that a pod which uses the claim did not get to use the volume.
#[test]
fn a_claim_that_a_pod_holds_is_bound_although_it_is_being_deleted() {
    let mut world = world(Differences::ALL);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "volumes": [
        {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}});
    world.create(Kind::Pod, pod);
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": [names::CLAIM_PROTECTION]}});
    world.create(Kind::Claim, with(claim("c", "1Gi"), &deleting));
    world.create(Kind::Volume, volume("v", "1Gi"));
    world.settle();
    assert_eq!(phase(&world), "Bound");
}

/// §13.12: a live read decides, not what this process knows.
#[test]
fn a_claim_that_was_bound_unheard_keeps_its_volume() {
    let mut store = Store::default();
    store.create(Kind::Volume, with(volume("v", "1Gi"), &owned_by("uid-c")));
    let deleting = json!({"metadata": {
        "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["somebody/else"]}});
    let c = store.create(Kind::Claim, with(claim("c", "1Gi"), &deleting));
    let mut world = World::new(store);
    world.start();
    assert_eq!(support::step(&world.queue[0]), "unbind-volume");
    let completed = json!({"metadata": {"annotations": {names::BIND_COMPLETED: "yes"}},
        "spec": {"volumeName": "v"}});
    world.store.edit(&c, &completed);
    world.settle();
    assert_eq!(phase(&world), "Bound");
    assert!(!world.steps.iter().any(|step| step.starts_with("unbind")));
}

/// §13.12: a claim whose annotation somebody removed was bound all the same, and its data is in the
/// volume.
#[test]
fn a_claim_that_lost_its_annotation_was_bound() {
    let mut store = Store::default();
    let used = with(policy("Retain"), &json!({"status": {"phase": "Bound"}}));
    let volume = with(volume("v", "1Gi"), &owned_by("uid-c"));
    store.create(Kind::Volume, with(volume, &used));
    let deleting = json!({
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                     "finalizers": [names::CLAIM_PROTECTION]},
        "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
    store.create(Kind::Claim, with(claim("c", "1Gi"), &deleting));
    let mut world = World::new(store);
    world.options.protection = true;
    world.start();
    world.settle();
    assert_eq!(phase(&world), "Released");
    assert!(!world.store.objects.contains_key(&c()));
}

/// B26, amended §13.12: what a provisioner made for a claim goes with it, so that nothing leaks.
#[test]
fn a_provisioned_volume_is_never_given_back() {
    for annotation in [names::PROVISIONED_BY, names::MIGRATED_TO] {
        let made = with(
            policy("Delete"),
            &json!({"metadata": {"annotations": {annotation: "vendor.com/disk"}}}),
        );
        for writes in [1, 2, 4] {
            let world = deleted_after(writes, Differences::ALL, &made, false);
            assert_eq!(phase(&world), "Released", "{annotation} after {writes}");
            assert_eq!(
                world.store.objects[&v()]["spec"]["claimRef"]["uid"],
                "uid-c"
            );
        }
    }
}

fn restored() -> Value {
    let pending = json!({"status": {"phase": "Pending"}});
    let csi = json!({"metadata": {"annotations": {names::PROVISIONED_BY: "vendor.com/disk"}}});
    with(
        with(
            with(
                with(volume("v", "1Gi"), &owned_by("from-afar")),
                &policy("Delete"),
            ),
            &pending,
        ),
        &csi,
    )
}

/// §13.13: released, its provisioner would delete it.
#[test]
fn a_restored_volume_is_held_until_the_operator_says_otherwise() {
    for differences in [
        Differences::NONE,
        Differences::ALL.set(Difference::HoldRestored, false),
    ] {
        let mut world = world(differences);
        world.create(Kind::Volume, restored());
        world.run();
        assert_eq!(phase(&world), "Released");
    }
    let mut world = world(Differences::ALL);
    let v = world.create(Kind::Volume, restored());
    world.run();
    assert_eq!(phase(&world), "Pending");
    assert!(message(&world).contains("bitts.dev/reclaim=yes"));
    world.edit(
        &v,
        &json!({"metadata": {"annotations": {names::RECLAIM: "yes"}}}),
    );
    world.run();
    assert_eq!(phase(&world), "Released");
    assert_eq!(message(&world), "");
    // A backup of it does not carry the order along.
    let annotations = &world.store.objects[&v]["metadata"]["annotations"];
    assert!(annotations[names::RECLAIM].is_null());
}

/// §13.13: a watch that is behind is no restore.
#[test]
fn a_volume_whose_claim_only_the_api_knows_is_not_held() {
    let mut store = Store::default();
    let pending = json!({"status": {"phase": "Pending"}});
    store.create(
        Kind::Volume,
        with(with(volume("v", "1Gi"), &owned_by("uid-c")), &pending),
    );
    let c = store.create(Kind::Claim, claim("c", "1Gi"));
    let mut world = World::new(store);
    world.start_without(&[c]);
    world.run();
    assert_eq!(phase(&world), "Bound");
    assert!(world.events.is_empty(), "{:?}", world.events);
}

/// B14, §13.7
#[test]
fn a_reservation_goes_before_fewer_access_modes() {
    for (differences, end) in [(Differences::ALL, "v"), (Differences::NONE, "narrow")] {
        let mut world = world(differences);
        let wide = json!({"spec": {
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
            "claimRef": {"namespace": "default", "name": "c"}}});
        world.create(Kind::Volume, with(volume("v", "1Gi"), &wide));
        world.create(Kind::Volume, volume("narrow", "1Gi"));
        world.create(Kind::Claim, claim("c", "1Gi"));
        world.run();
        assert_eq!(world.store.objects[&c()]["spec"]["volumeName"], end);
    }
}

/// B14: within its group a reservation always goes first, and with none that is nobody's too.
#[test]
fn a_reservation_counts_within_its_group_to_the_letter() {
    let mut world = world(Differences::NONE);
    let mine = json!({"spec": {"claimRef": {"namespace": "default", "name": "c"}}});
    world.create(Kind::Volume, with(volume("v", "9Gi"), &mine));
    world.create(Kind::Volume, volume("smaller", "1Gi"));
    world.create(Kind::Claim, claim("c", "1Gi"));
    world.run();
    assert_eq!(world.store.objects[&c()]["spec"]["volumeName"], "v");
}

/// B27, D7, §13.11
#[test]
fn the_message_of_a_failed_volume_stays_true() {
    for strict in [false, true] {
        let mut world = world(if strict {
            Differences::NONE
        } else {
            Differences::ALL
        });
        let bound = json!({"status": {"phase": "Bound"}});
        let v = world.create(
            Kind::Volume,
            with(
                with(
                    with(volume("v", "1Gi"), &owned_by("gone")),
                    &policy("Delete"),
                ),
                &bound,
            ),
        );
        world.run();
        let first = message(&world).to_owned();
        assert!(first.contains("no volume plugin matched"), "{first}");
        world.edit(&v, &policy("Recycle"));
        world.run();
        let second = "No recycler plugin found for the volume!";
        assert_eq!(
            message(&world),
            if strict { first.as_str() } else { second }
        );
        world.edit(&v, &policy("Retain"));
        world.run();
        assert_eq!(phase(&world), if strict { "Failed" } else { "Released" });
        assert_eq!(message(&world), if strict { first.as_str() } else { "" });
        let told = world.told().len();
        assert_eq!(told, if strict { 1 } else { 2 });
    }
}

/// B27, D10, §13.11: a provisioner deletes what is Released: once it may, the volume is that again.
#[test]
fn a_failed_volume_that_a_provisioner_would_delete_is_released_again() {
    for (differences, foreign, end) in [
        (Differences::ALL, false, "Released"),
        (Differences::ALL, true, "Failed"),
        (Differences::NONE, false, "Failed"),
    ] {
        let mut world = world(differences);
        let bound = json!({"status": {"phase": "Bound"}});
        let gone = with(volume("v", "1Gi"), &owned_by("gone"));
        let v = world.create(Kind::Volume, with(with(gone, &policy("Delete")), &bound));
        world.run();
        assert_eq!(phase(&world), "Failed");
        if foreign {
            world.edit(&v, &json!({"status": {"message": "the disk is attached"}}));
        }
        let made = json!({"metadata": {"annotations": {names::PROVISIONED_BY: "vendor.com/disk"}}});
        world.edit(&v, &made);
        world.run();
        assert_eq!(phase(&world), end, "{}", message(&world));
    }
}

/// D3, D5, §13.21
#[test]
fn a_host_path_is_kept_or_goes_as_an_object() {
    for (path, differences, end) in [
        (
            "/tmp/data",
            Differences::ALL,
            Some("no volume plugin matched"),
        ),
        ("/data/tmp/x", Differences::NONE, None),
        (
            "/tmp/",
            Differences::NONE,
            Some("only supports /tmp/.+ but received provided /tmp/"),
        ),
    ] {
        let mut world = world(differences);
        let mut v = with(
            with(volume("v", "1Gi"), &owned_by("gone")),
            &policy("Delete"),
        );
        v["spec"].as_object_mut().unwrap().remove("local");
        v["spec"]["hostPath"] = json!({"path": path});
        v["status"]["phase"] = "Bound".into();
        let v = world.create(Kind::Volume, v);
        world.run();
        match end {
            Some(why) => assert!(message(&world).contains(why), "{path}: {}", message(&world)),
            None => {
                assert!(!world.store.objects.contains_key(&v));
                let told = &world.events.last().unwrap().message;
                assert!(told.contains("/data/tmp/x stays"), "{told}");
            }
        }
    }
}

/// D4, D6
#[test]
fn who_deletes_a_volume_is_said_as_there() {
    let nfs = json!({"server": "files", "path": "/"});
    for (source, annotation, said) in [
        (
            Some(nfs),
            None,
            "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched",
        ),
        (
            None,
            Some("kubernetes.io/nfs"),
            "no deletable volume plugin matched",
        ),
        (
            None,
            Some("kubernetes.io/x"),
            "no volume plugin matched name: kubernetes.io/x",
        ),
        (
            None,
            Some(""),
            "error getting deleter volume plugin for volume \"v\": no volume plugin matched",
        ),
        (None, Some("vendor.com/x"), ""),
    ] {
        let mut world = world(Differences::NONE);
        let mut v = with(
            with(volume("v", "1Gi"), &owned_by("gone")),
            &policy("Delete"),
        );
        v["status"]["phase"] = "Bound".into();
        if let Some(nfs) = source {
            v["spec"].as_object_mut().unwrap().remove("local");
            v["spec"]["nfs"] = nfs;
        }
        if let Some(maker) = annotation {
            v["metadata"]["annotations"] = json!({names::PROVISIONED_BY: maker});
        }
        world.create(Kind::Volume, v);
        world.run();
        assert_eq!(message(&world), said);
        assert_eq!(
            phase(&world),
            if said.is_empty() {
                "Released"
            } else {
                "Failed"
            }
        );
    }
}

/// D8, D9: kube-controller-manager's own pod has not run either.
#[test]
fn what_a_recycler_pod_would_wipe_stays_released_in_strict_mode() {
    for (differences, end) in [
        (Differences::ALL, "Failed"),
        (Differences::NONE, "Released"),
    ] {
        let mut world = world(differences);
        let mut v = with(
            with(volume("v", "1Gi"), &owned_by("gone")),
            &policy("Recycle"),
        );
        v["spec"].as_object_mut().unwrap().remove("local");
        v["spec"]["hostPath"] = json!({"path": "/data"});
        v["status"]["phase"] = "Bound".into();
        world.create(Kind::Volume, v);
        world.run();
        assert_eq!(phase(&world), end);
        assert_eq!(world.told(), ["Warning VolumeFailedRecycle"]);
    }
}

fn recycling(guard: Recycle) -> World {
    let mut world = World::new(Store::default());
    world.options.recycle = guard;
    world.start();
    let offers = json!({"metadata": {"name": "n", "annotations": {names::RECYCLER: "yes"}}});
    world.create(Kind::Node, offers);
    world
}

fn to_wipe(path: &str) -> Value {
    let at = json!({"spec": {"local": {"path": path}}, "status": {"phase": "Bound"}});
    with(
        with(
            with(volume("v", "1Gi"), &owned_by("gone")),
            &policy("Recycle"),
        ),
        &at,
    )
}

/// D8, §13.22: nothing is wiped where other data lies.
#[test]
fn a_volume_whose_source_overlaps_another_is_not_wiped() {
    for (other, wiped) in [
        ("/data", false),
        ("/data/a/b", false),
        ("/data/a", false),
        ("/data/ab", true),
    ] {
        let mut world = recycling(Recycle::Guarded);
        let at = json!({"spec": {"local": {"path": other}}});
        world.create(Kind::Volume, with(volume("other", "1Gi"), &at));
        world.create(Kind::Volume, to_wipe("/data/a"));
        world.run();
        let asked =
            !world.store.objects[&v()]["metadata"]["annotations"][names::RECYCLE_ON].is_null();
        assert_eq!(asked, wiped, "{other}: {}", message(&world));
        assert_eq!(phase(&world), if wiped { "Released" } else { "Failed" });
    }
    let mut world = recycling(Recycle::Unguarded);
    world.create(Kind::Volume, volume("other", "1Gi"));
    world.create(Kind::Volume, to_wipe("/data"));
    world.run();
    assert!(world.steps.contains(&"ask-to-recycle v".to_owned()));
}

/// D8: an order to wipe is for the data of one claim: it does not outlive what it was given for.
#[test]
fn an_order_to_wipe_does_not_outlive_its_reason() {
    let annotations = |world: &World| world.store.objects[&v()]["metadata"]["annotations"].clone();
    for (end, patch) in [
        ("Available", json!({"spec": {"claimRef": null}})),
        ("Released", policy("Retain")),
    ] {
        let mut world = recycling(Recycle::Guarded);
        world.create(Kind::Volume, to_wipe("/data"));
        world.run();
        assert_eq!(annotations(&world)[names::RECYCLE_ON], "n");
        world.edit(&v(), &patch);
        world.run();
        assert_eq!(phase(&world), end);
        assert!(annotations(&world)[names::RECYCLE_ON].is_null(), "{end}");
    }
}

/// D8: with recycling switched off nobody is left asked.
#[test]
fn an_order_to_wipe_is_taken_back_where_recycling_is_off() {
    let mut world = world(Differences::ALL);
    let asked = json!({"metadata": {"annotations": {names::RECYCLE_ON: "n"}}});
    world.create(Kind::Volume, with(to_wipe("/data"), &asked));
    world.run();
    assert_eq!(phase(&world), "Failed");
    let annotations = &world.store.objects[&v()]["metadata"]["annotations"];
    assert!(annotations[names::RECYCLE_ON].is_null());
}

/// D8: the API takes `..` in the path of an export; where that leads is for the server to know.
#[test]
fn a_path_that_steps_back_may_lead_anywhere() {
    let export =
        |path: &str| json!({"spec": {"local": null, "nfs": {"server": "s", "path": path}}});
    for (path, other) in [("/x/../b", "/b"), ("/b", "/x/../b")] {
        let mut world = recycling(Recycle::Guarded);
        world.create(Kind::Volume, with(volume("other", "1Gi"), &export(other)));
        world.create(Kind::Volume, with(to_wipe("/"), &export(path)));
        world.run();
        assert_eq!(phase(&world), "Failed", "{path} beside {other}");
    }
}

/// D8, §13.22: volumes that come and go count as well, also after an agent was asked.
#[test]
fn a_volume_that_comes_or_goes_changes_what_may_be_wiped() {
    let mut world = recycling(Recycle::Guarded);
    world.create(Kind::Volume, to_wipe("/data/a"));
    world.run();
    let asked = |world: &World| {
        !world.store.objects[&v()]["metadata"]["annotations"][names::RECYCLE_ON].is_null()
    };
    assert!(asked(&world));
    let other = world.create(Kind::Volume, volume("other", "1Gi"));
    world.run();
    assert!(!asked(&world));
    assert_eq!(phase(&world), "Failed");
    world.delete(&other);
    world.run();
    assert!(asked(&world), "{}", message(&world));
}

/// D8: an agent that comes later is asked then, and pods that end free the volume.
#[test]
fn recycling_goes_on_when_what_it_waits_for_comes() {
    let mut world = recycling(Recycle::Guarded);
    world.delete(&ObjectKey {
        kind: Kind::Node,
        namespace: None,
        name: "n".into(),
    });
    let pod = json!({"metadata": {"name": "p"}, "spec": {"volumes": [
        {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}});
    let pod = world.create(Kind::Pod, pod);
    world.create(Kind::Volume, to_wipe("/data"));
    world.run();
    assert_eq!(
        world.events.last().unwrap().message,
        "Volume is used by pods: default/p"
    );
    world.delete(&pod);
    world.run();
    assert!(message(&world).starts_with("no node agent offers recycling"));
    let offers = json!({"metadata": {"name": "m", "annotations": {names::RECYCLER: "yes"}}});
    world.create(Kind::Node, offers);
    world.run();
    let annotations = &world.store.objects[&v()]["metadata"]["annotations"];
    assert_eq!(annotations[names::RECYCLE_ON], "m");
}

/// D8: that no pod may still write is looked up, not believed of a cache.
#[test]
fn a_pod_that_no_watch_told_of_keeps_its_volume_from_being_wiped() {
    let mut world = recycling(Recycle::Guarded);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"volumes": [
        {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}});
    let pod = world.store.create(Kind::Pod, pod);
    world.create(Kind::Volume, to_wipe("/data"));
    world.run();
    assert_eq!(
        world.events.last().unwrap().message,
        "Volume is used by pods: default/p"
    );
    let annotations = |world: &World| world.store.objects[&v()]["metadata"]["annotations"].clone();
    assert!(annotations(&world)[names::RECYCLE_ON].is_null());
    // A new claim of that name has another volume, and the pod is its.
    world.create(Kind::Claim, claim("c", "1Gi"));
    world.settle();
    assert_eq!(annotations(&world)[names::RECYCLE_ON], "n");
    world.delete(&pod);
}

/// D8: a node that comes to reach a volume, since its labels changed, recycles it.
#[test]
fn a_node_that_begins_to_fit_recycles() {
    let mut world = recycling(Recycle::Guarded);
    let ssd = json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]}}}});
    world.create(Kind::Volume, with(to_wipe("/data"), &ssd));
    world.run();
    assert!(message(&world).starts_with("no node agent offers recycling"));
    let node = ObjectKey {
        kind: Kind::Node,
        namespace: None,
        name: "n".into(),
    };
    world.edit(&node, &json!({"metadata": {"labels": {"disk": "ssd"}}}));
    world.run();
    let annotations = &world.store.objects[&v()]["metadata"]["annotations"];
    assert_eq!(annotations[names::RECYCLE_ON], "n", "{}", message(&world));
}

/// B8.1
#[test]
fn a_claim_says_which_driver_took_over_its_provisioner() {
    for (provisioner, before, after) in [
        ("kubernetes.io/aws-ebs", None, Some("ebs.csi.aws.com")),
        (
            "kubernetes.io/azure-file",
            Some("x"),
            Some("file.csi.azure.com"),
        ),
        ("vendor.com/disk", Some("ebs.csi.aws.com"), None),
    ] {
        for stable in [true, false] {
            let mut world = world(Differences::ALL);
            let by = if stable {
                names::STORAGE_PROVISIONER
            } else {
                names::BETA_STORAGE_PROVISIONER
            };
            let mut annotations = json!({by: provisioner, names::BIND_COMPLETED: "yes"});
            if let Some(before) = before {
                annotations[names::MIGRATED_TO] = before.into();
            }
            let bound =
                json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": "v"}});
            world.create(Kind::Volume, with(volume("v", "1Gi"), &owned_by("uid-c")));
            world.create(Kind::Claim, with(claim("c", "1Gi"), &bound));
            world.run();
            let said = &world.store.objects[&c()]["metadata"]["annotations"][names::MIGRATED_TO];
            assert_eq!(said.as_str(), after, "{provisioner}");
        }
    }
}
