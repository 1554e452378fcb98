//! Destructions, and what spares an object.

use std::time::Duration;

use bitts_api::machine::{Destroy, Destruction, Effect, Evidence, Outcome, Part};
use bitts_api::{Kind, Name, ObjectKey, Uid};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fake::{Fake, Fault};
use crate::script::{CLAIM, Out, Role, VOLUME, claim, claim_key, target, volume};

const POD: &str = "/api/v1/namespaces/shop/pods/web";

/// The volume at version 1, and its deletion on some evidence.
fn deletion(fake: &Fake, evidence: Vec<Evidence>) -> Vec<Out> {
    destruction(fake, Destruction::Delete, evidence)
}

fn destruction(fake: &Fake, action: Destruction, evidence: Vec<Evidence>) -> Vec<Out> {
    let volume = fake.put(VOLUME, volume());
    vec![Effect::Destroy(Destroy {
        step: "test-destroy",
        target: target(Kind::Volume, &volume),
        action,
        evidence,
    })]
}

fn pod(node: Option<&str>, claim: &str, more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"nodeName": node,
                 "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": claim}}]},
    });
    pod["status"] = more;
    pod
}

/// Nothing was asked of the API but reads.
fn only_reads(fake: &Fake) -> bool {
    fake.requests("").iter().all(|line| line.starts_with("GET"))
}

#[tokio::test(start_paused = true)]
async fn a_deletion_carries_its_preconditions_and_is_told() {
    let fake = Fake::default();
    let gone = Evidence::ClaimGone(claim_key(), Uid::from("c"));
    let role = Role::doing(&fake, deletion(&fake, vec![gone]));
    assert_eq!(
        role.ending().await,
        ["deleted disk uid-1", "finished disk Done"]
    );
    assert_eq!(
        fake.bodies("DELETE"),
        [
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
                "preconditions": {"uid": "uid-1", "resourceVersion": "1"}})
        ]
    );
    assert!(fake.get(VOLUME).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_still_exists_spares_its_volume() {
    let fake = Fake::default();
    let effects = deletion(
        &fake,
        vec![Evidence::ClaimGone(claim_key(), Uid::from("uid-2"))],
    );
    fake.put(CLAIM, claim(Some("disk")));
    let role = Role::doing(&fake, effects);
    assert_eq!(
        role.ending().await,
        ["seen shop/data@2", "finished disk Spared"]
    );
    assert!(only_reads(&fake));
}

#[tokio::test(start_paused = true)]
async fn a_new_claim_of_the_old_name_is_no_reason_to_spare() {
    let fake = Fake::default();
    let effects = deletion(
        &fake,
        vec![Evidence::ClaimGone(claim_key(), Uid::from("earlier"))],
    );
    fake.put(CLAIM, claim(None));
    let role = Role::doing(&fake, effects);
    assert_eq!(role.outcome().await, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn evidence_that_cannot_be_read_is_no_evidence() {
    let fake = Fake::default();
    fake.fail(
        "GET /api/v1/namespaces/shop/persistentvolumeclaims/data",
        usize::MAX,
        Fault::Status(503, None),
    );
    let gone = Evidence::ClaimGone(claim_key(), Uid::from("c"));
    let role = Role::doing(&fake, deletion(&fake, vec![gone]));
    assert!(matches!(role.outcome().await, Outcome::Failed(_)));
    assert!(only_reads(&fake));
    let fake = Fake::default();
    fake.put(
        CLAIM,
        json!({"metadata": {"name": "data", "namespace": "shop"}, "spec": 7}),
    );
    let gone = Evidence::ClaimGone(claim_key(), Uid::from("uid-1"));
    let role = Role::doing(&fake, deletion(&fake, vec![gone]));
    let outcome = role.outcome().await;
    assert!(
        matches!(&outcome, Outcome::Failed(m) if m.contains("cannot be read")),
        "{outcome:?}"
    );
    assert!(only_reads(&fake));
}

/// A server in trouble, or another one in its place, says nothing of what exists.
#[tokio::test(start_paused = true)]
async fn a_404_that_names_no_object_is_no_evidence() {
    let fake = Fake::default();
    fake.fail(
        "persistentvolumeclaims/data",
        usize::MAX,
        Fault::Status(404, None),
    );
    let gone = Evidence::ClaimGone(claim_key(), Uid::from("c"));
    let role = Role::doing(&fake, deletion(&fake, vec![gone]));
    assert!(matches!(role.outcome().await, Outcome::Failed(_)));
    assert!(only_reads(&fake));
    for body in [
        json!({}),
        json!({"items": []}),
        json!({"metadata": {"resourceVersion": "7"}}),
    ] {
        let fake = Fake::default();
        let effects = deletion(&fake, vec![Evidence::ClaimUnused(claim_key())]);
        fake.fail("/pods?", usize::MAX, Fault::Body(body));
        let role = Role::doing(&fake, effects);
        assert!(matches!(role.outcome().await, Outcome::Failed(_)));
        assert!(only_reads(&fake));
    }
}

#[tokio::test(start_paused = true)]
async fn evidence_is_read_again_before_each_try() {
    let fake = Fake::default();
    let gone = Evidence::ClaimGone(claim_key(), Uid::from("uid-2"));
    let effects = deletion(&fake, vec![gone]);
    fake.fail("DELETE", usize::MAX, Fault::Status(503, None));
    let role = Role::doing(&fake, effects);
    while fake.requests("DELETE").len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    // As after a restore: the claim is there again while the server cannot write.
    fake.put(CLAIM, claim(Some("disk")));
    fake.heal();
    assert_eq!(
        role.ending().await,
        ["seen shop/data@2", "finished disk Spared"]
    );
    assert_eq!(fake.requests("DELETE").len(), 2);
    let reads = "GET /api/v1/namespaces/shop/persistentvolumeclaims/data";
    assert_eq!(fake.requests(reads).len(), 3);
    assert!(fake.get(VOLUME).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_conflict_about_nothing_costs_new_evidence_too() {
    let fake = Fake::default();
    let gone = Evidence::ClaimGone(claim_key(), Uid::from("c"));
    fake.fail("DELETE", 2, Fault::Status(409, None));
    let role = Role::doing(&fake, deletion(&fake, vec![gone]));
    assert_eq!(role.outcome().await, Outcome::Done);
    assert_eq!(fake.requests("DELETE").len(), 3);
    assert_eq!(fake.requests("persistentvolumeclaims/data").len(), 3);
}

/// A volume proves a claim's loss by being absent or another claim's; one that is nobody's does not
/// (B18).
#[tokio::test(start_paused = true)]
async fn a_volume_is_lost_only_when_it_is_gone_or_another_claims() {
    let of =
        |claim_ref: Value| json!({"metadata": {"name": "data"}, "spec": {"claimRef": claim_ref}});
    let claim_ref = |uid: Value| json!({"namespace": "shop", "name": "data", "uid": uid});
    let held = [
        (None, Outcome::Done),
        (Some(of(claim_ref(json!("another")))), Outcome::Done),
        (Some(of(claim_ref(Value::Null))), Outcome::Done),
        (Some(of(claim_ref(json!("mine")))), Outcome::Spared),
        (Some(of(Value::Null)), Outcome::Spared),
    ];
    for (found, outcome) in held {
        let fake = Fake::default();
        let lost = Evidence::VolumeLost(Name::from("data"), Uid::from("mine"));
        let effects = deletion(&fake, vec![lost]);
        let put = found.map(|volume| fake.put("/api/v1/persistentvolumes/data", volume));
        let role = Role::doing(&fake, effects);
        let ending = role.ending().await;
        assert_eq!(
            ending.last(),
            Some(&format!("finished disk {outcome:?}")),
            "{put:?}"
        );
        if outcome == Outcome::Spared {
            assert_eq!(ending[0], "seen data@2", "what was found is told");
            assert!(only_reads(&fake));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_changed_is_not_touched() {
    let fake = Fake::default();
    let effects = deletion(&fake, Vec::new());
    fake.put(VOLUME, volume());
    let role = Role::doing(&fake, effects);
    assert_eq!(
        role.ending().await,
        ["seen disk@2", "finished disk Conflict"]
    );
    assert!(only_reads(&fake));
}

#[tokio::test(start_paused = true)]
async fn a_patch_can_be_a_destruction() {
    let fake = Fake::default();
    let release = Destruction::Patch(Part::Status, json!({"status": {"phase": "Released"}}));
    let gone = Evidence::ClaimGone(claim_key(), Uid::from("c"));
    let role = Role::doing(&fake, destruction(&fake, release, vec![gone]));
    assert_eq!(role.ending().await, ["seen disk@2", "finished disk Done"]);
    assert_eq!(fake.get(VOLUME).unwrap()["status"]["phase"], "Released");
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_pod_that_refers_to_a_claim_spares_it() {
    for (node, of, spared) in [
        (Some("n1"), "data", true),
        (None, "data", false),
        (Some("n1"), "other", false),
    ] {
        let fake = Fake::default();
        let effects = deletion(&fake, vec![Evidence::ClaimUnused(claim_key())]);
        fake.put(POD, pod(node, of, json!({"phase": "Succeeded"})));
        let role = Role::doing(&fake, effects);
        let ending = role.ending().await;
        if spared {
            assert_eq!(ending, ["seen shop/web@2", "finished disk Spared"]);
        } else {
            assert_eq!(
                ending.last().unwrap(),
                "finished disk Done",
                "{node:?} {of}"
            );
        }
    }
}

/// D8: a pod that ended wipes nothing and writes nothing; one without a node may get one.
#[tokio::test(start_paused = true)]
async fn a_pod_that_may_run_spares_what_was_to_be_wiped() {
    for (node, of, phase, spared) in [
        (Some("n1"), "data", "Running", true),
        (None, "data", "Pending", true),
        (Some("n1"), "data", "Succeeded", false),
        (Some("n1"), "other", "Running", false),
    ] {
        let fake = Fake::default();
        let effects = deletion(&fake, vec![Evidence::ClaimAtRest(claim_key())]);
        fake.put(POD, pod(node, of, json!({"phase": phase})));
        let role = Role::doing(&fake, effects);
        let outcome = if spared {
            Outcome::Spared
        } else {
            Outcome::Done
        };
        assert_eq!(role.outcome().await, outcome, "{node:?} {of} {phase}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_pod_that_spares_a_claim_may_be_on_any_page() {
    let fake = Fake::default();
    let effects = deletion(&fake, vec![Evidence::ClaimUnused(claim_key())]);
    for n in 0..600 {
        let mut other = pod(Some("n1"), "other", json!({}));
        other["metadata"]["name"] = json!(format!("a{n}"));
        fake.put(&format!("/api/v1/namespaces/shop/pods/a{n}"), other);
    }
    fake.put(POD, pod(Some("n1"), "data", json!({})));
    let role = Role::doing(&fake, effects);
    assert_eq!(role.outcome().await, Outcome::Spared);
    assert_eq!(fake.requests("/pods?").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_may_still_run_spares_what_it_uses() {
    let running = json!({"containerStatuses": [{"state": {"running": {}}}]});
    for (deleting, status, uid, outcome) in [
        (false, json!({}), "uid-2", Outcome::Spared),
        (true, running, "uid-2", Outcome::Spared),
        (true, json!({}), "uid-2", Outcome::Done),
        (false, json!({}), "earlier", Outcome::Done),
    ] {
        let fake = Fake::default();
        let key = ObjectKey::pod("shop", "web");
        let effects = deletion(&fake, vec![Evidence::PodEnded(key, Uid::from(uid))]);
        let mut pod = pod(Some("n1"), "data", status);
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-23T03:00:00Z");
        }
        fake.put(POD, pod);
        let role = Role::doing(&fake, effects);
        assert_eq!(
            role.outcome().await,
            outcome,
            "deleting {deleting}, uid {uid}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_elsewhere_only_when_it_says_so() {
    for (volume, outcome) in [
        (Some("another"), Outcome::Done),
        (Some("disk"), Outcome::Spared),
        (None, Outcome::Spared),
    ] {
        let fake = Fake::default();
        let elsewhere =
            Evidence::ClaimElsewhere(claim_key(), Uid::from("uid-2"), Name::from("disk"));
        let effects = deletion(&fake, vec![elsewhere]);
        fake.put(CLAIM, claim(volume));
        let role = Role::doing(&fake, effects);
        assert_eq!(role.outcome().await, outcome, "{volume:?}");
    }
}

/// X3: a pod that was shut down and waits for what it owns lets its own claims go.
#[tokio::test(start_paused = true)]
async fn a_pod_that_was_shut_down_lets_only_its_own_claims_go() {
    for (grace, own, outcome) in [
        (0, true, Outcome::Done),
        (0, false, Outcome::Spared),
        (30, true, Outcome::Spared),
    ] {
        let fake = Fake::default();
        let claim = ObjectKey::claim("shop", "web-d");
        let effects = deletion(&fake, vec![Evidence::ClaimUnused(claim)]);
        let mut pod = pod(Some("n1"), "web-d", json!({}));
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-23T03:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        if own {
            pod["spec"]["volumes"] = json!([{"name": "d", "ephemeral": {}}]);
        }
        fake.put(POD, pod);
        let role = Role::doing(&fake, effects);
        assert_eq!(role.outcome().await, outcome, "grace {grace}, own {own}");
    }
}

/// Section 13, weakness 24: the original lists all pods again and again.
#[tokio::test(start_paused = true)]
async fn claims_that_are_let_go_together_share_their_looks_at_the_pods() {
    const CLAIMS: usize = 100;
    let fake = Fake::default();
    let effects = (0..CLAIMS).map(|n| {
        let name = format!("c{n}");
        let path = format!("/api/v1/namespaces/shop/persistentvolumeclaims/{name}");
        let claim = fake.put(
            &path,
            json!({"metadata": {"name": name, "namespace": "shop"}}),
        );
        Effect::Destroy(Destroy {
            step: "test-destroy",
            target: target(Kind::Claim, &claim),
            action: Destruction::Delete,
            evidence: vec![Evidence::ClaimUnused(ObjectKey::claim("shop", name))],
        })
    });
    let effects = effects.collect();
    fake.put(POD, pod(Some("n1"), "c7", json!({})));
    let role = Role::doing_at_once(&fake, 25, effects);
    let finished = |role: &Role| {
        let story = role.story();
        story.iter().filter(|l| l.starts_with("finished")).count()
    };
    while finished(&role) < CLAIMS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let spared = role
        .story()
        .iter()
        .filter(|l| l.ends_with("Spared"))
        .count();
    assert_eq!(spared, 1);
    let lists = fake.requests("GET /api/v1/namespaces/shop/pods?").len();
    assert!(lists <= CLAIMS / 5, "{lists} lists for {CLAIMS} claims");
}

/// Section 13, weakness 26: the original believes its caches.
#[tokio::test(start_paused = true)]
async fn a_volume_or_claim_that_names_an_attributes_class_spares_it() {
    let gold = || Evidence::AttributesClassUnused("gold".into());
    for (path, object, spared) in [
        (
            "/api/v1/persistentvolumes/v",
            json!({"spec": {"volumeAttributesClassName": "gold"}}),
            true,
        ),
        (
            CLAIM,
            json!({"spec": {"volumeAttributesClassName": "gold"}}),
            true,
        ),
        (
            CLAIM,
            json!({"status": {"currentVolumeAttributesClassName": "gold"}}),
            true,
        ),
        (
            CLAIM,
            json!({"spec": {"volumeAttributesClassName": "silver"}}),
            false,
        ),
    ] {
        let fake = Fake::default();
        let effects = deletion(&fake, vec![gold()]);
        let mut user = object.clone();
        user["metadata"] = json!({"name": path.rsplit('/').next()});
        fake.put(path, user);
        let role = Role::doing(&fake, effects);
        let outcome = if spared {
            Outcome::Spared
        } else {
            Outcome::Done
        };
        assert_eq!(role.outcome().await, outcome, "{object}");
    }
}

/// A25: the finalizer of a volume that is going goes when nothing attaches it.
#[tokio::test(start_paused = true)]
async fn an_attachment_spares_its_volume() {
    const ATTACHMENT: &str = "/apis/storage.k8s.io/v1/volumeattachments/csi-1";
    for (volume, outcome) in [("disk", Outcome::Spared), ("other", Outcome::Done)] {
        let fake = Fake::default();
        let effects = deletion(&fake, vec![Evidence::VolumeUnattached("disk".into())]);
        let spec = json!({"attacher": "d", "nodeName": "n",
            "source": {"persistentVolumeName": volume}});
        fake.put(
            ATTACHMENT,
            json!({"metadata": {"name": "csi-1"}, "spec": spec}),
        );
        let role = Role::doing(&fake, effects);
        assert_eq!(role.outcome().await, outcome, "{volume}");
    }
}

/// B9: a claim of a class that no watch told of is bound only where there is none.
#[tokio::test(start_paused = true)]
async fn a_class_that_is_there_spares_what_was_to_be_given_away() {
    const CLASS: &str = "/apis/storage.k8s.io/v1/storageclasses/late";
    let absent = || Evidence::ClassAbsent("late".into());
    let fake = Fake::default();
    let effects = deletion(&fake, vec![absent()]);
    fake.put(
        CLASS,
        json!({"metadata": {"name": "late"}, "provisioner": "example.com/disk"}),
    );
    let role = Role::doing(&fake, effects);
    assert_eq!(role.ending().await, ["seen late@2", "finished disk Spared"]);
    assert!(only_reads(&fake));
    let fake = Fake::default();
    let role = Role::doing(&fake, deletion(&fake, vec![absent()]));
    assert_eq!(role.outcome().await, Outcome::Done);
    let fake = Fake::default();
    let effects = deletion(&fake, vec![absent()]);
    fake.fail(CLASS, usize::MAX, Fault::Status(403, None));
    let role = Role::doing(&fake, effects);
    assert!(matches!(role.outcome().await, Outcome::Failed(_)));
    assert!(only_reads(&fake));
}

#[tokio::test(start_paused = true)]
async fn a13_a_node_is_asked_before_a_volume_is_taken_from_it() {
    const DISK: &str = "kubernetes.io/csi/d^disk";
    let name = || bitts_api::NodeName::from("n1");
    let released = |uid: &str| Evidence::NodeReleased(name(), Uid::from(uid), DISK.into());
    let off = || Evidence::NodeOutOfService(name(), Uid::from("uid-2"), DISK.into());
    let down = || Evidence::NodeDown(name(), DISK.into());
    let absent = || Evidence::NodeAbsent(name());
    let ready = || json!([{"type": "Ready", "status": "True"}]);
    let well = || Some(json!({"status": {"conditions": ready()}}));
    let uses = || Some(json!({"status": {"conditions": ready(), "volumesInUse": [DISK]}}));
    let lists = || Some(json!({"status": {"volumesAttached": [{"name": DISK}]}}));
    let tainted = |ready: Value| {
        let taints = json!([{"key": "node.kubernetes.io/out-of-service"}]);
        Some(json!({"spec": {"taints": taints}, "status": {"conditions": ready}}))
    };
    for (evidence, node, outcome) in [
        (released("uid-2"), well(), Outcome::Done),
        (released("earlier"), well(), Outcome::Spared),
        (released("uid-2"), uses(), Outcome::Spared),
        (released("uid-2"), lists(), Outcome::Spared),
        (released("uid-2"), None, Outcome::Spared),
        (off(), tainted(json!([])), Outcome::Done),
        (off(), tainted(ready()), Outcome::Spared),
        (off(), lists(), Outcome::Spared),
        (off(), None, Outcome::Spared),
        (down(), tainted(json!([])), Outcome::Done),
        (down(), None, Outcome::Done),
        (down(), lists(), Outcome::Spared),
        (down(), well(), Outcome::Spared),
        (absent(), None, Outcome::Done),
        (absent(), well(), Outcome::Spared),
    ] {
        let fake = Fake::default();
        let effects = deletion(&fake, vec![evidence.clone()]);
        let what = format!("{evidence:?} {node:?}");
        if let Some(mut node) = node {
            node["metadata"] = json!({"name": "n1"});
            fake.put("/api/v1/nodes/n1", node);
        }
        let role = Role::doing(&fake, effects);
        assert_eq!(role.outcome().await, outcome, "{what}");
    }
}
