//! Writes, and everything that can go wrong with one.

use std::time::Duration;

use bitts_api::Kind;
use bitts_api::machine::{Create, Effect, Input, Outcome, Part};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fake::{Fake, Fault};
use crate::script::{CLAIM, In, Out, Role, all, claim, claim_key, target, write};

const PATCH: &str = "PATCH /api/v1/namespaces/shop/persistentvolumeclaims/data";

/// A claim at version 1, and a write that names a volume in it.
fn claim_and_write(fake: &Fake) -> Vec<Out> {
    let claim = fake.put(CLAIM, claim(None));
    let patch = json!({"spec": {"volumeName": "disk"}});
    vec![write(target(Kind::Claim, &claim), Part::Main, patch)]
}

fn volume_name(fake: &Fake) -> Option<String> {
    Some(fake.get(CLAIM)?["spec"]["volumeName"].as_str()?.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_write_carries_its_preconditions_and_feeds_what_it_returned() {
    let fake = Fake::default();
    let role = Role::doing(&fake, claim_and_write(&fake));
    assert_eq!(
        role.ending().await,
        ["seen shop/data@2", "finished shop/data Done"]
    );
    assert_eq!(
        fake.requests("PATCH"),
        [format!("{PATCH}?fieldManager=bitts-tester")]
    );
    assert_eq!(
        fake.bodies("PATCH"),
        [json!({"metadata": {"uid": "uid-1", "resourceVersion": "1"},
                "spec": {"volumeName": "disk"}})]
    );
    assert_eq!(
        role.metric(r#"bitts_effects_total{role="tester",step="test-step",outcome="done"}"#)
            .await,
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_status_goes_to_the_subresource() {
    let fake = Fake::default();
    let claim = fake.put(CLAIM, claim(None));
    let patch = json!({"status": {"phase": "Bound"}});
    let effect = write(target(Kind::Claim, &claim), Part::Status, patch);
    let role = Role::doing(&fake, vec![effect]);
    assert_eq!(role.outcome().await, Outcome::Done);
    assert_eq!(
        fake.requests("PATCH"),
        [format!("{PATCH}/status?fieldManager=bitts-tester")]
    );
    assert_eq!(fake.get(CLAIM).unwrap()["status"]["phase"], "Bound");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_feeds_the_newer_object() {
    let fake = Fake::default();
    let effects = claim_and_write(&fake);
    fake.put(CLAIM, claim(Some("other")));
    let role = Role::doing(&fake, effects);
    assert_eq!(
        role.ending().await,
        ["seen shop/data@2", "finished shop/data Conflict"]
    );
    assert_eq!(volume_name(&fake).as_deref(), Some("other"));
    // Live, not from a cache that may be behind.
    assert!(
        fake.requests("GET")
            .iter()
            .all(|r| !r.contains("resourceVersion=0"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_about_nothing_is_retried_and_then_reported_as_a_failure() {
    let fake = Fake::default();
    fake.fail("PATCH", 2, Fault::Status(409, None));
    let role = Role::doing(&fake, claim_and_write(&fake));
    assert_eq!(
        role.ending().await,
        ["seen shop/data@2", "finished shop/data Done"]
    );
    assert_eq!(fake.requests("PATCH").len(), 3);

    let fake = Fake::default();
    fake.fail("PATCH", usize::MAX, Fault::Status(409, None));
    let role = Role::doing(&fake, claim_and_write(&fake));
    assert!(matches!(role.outcome().await, Outcome::Failed(_)));
    assert_eq!(fake.requests("PATCH").len(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_told_as_deleted() {
    let fake = Fake::default();
    let effects = claim_and_write(&fake);
    fake.delete(CLAIM);
    let role = Role::doing(&fake, effects);
    assert_eq!(
        role.ending().await,
        ["deleted shop/data uid-1", "finished shop/data Gone"]
    );
}

#[tokio::test(start_paused = true)]
async fn another_object_of_the_same_name_is_not_written() {
    let fake = Fake::default();
    let effects = claim_and_write(&fake);
    fake.delete(CLAIM);
    fake.put(CLAIM, claim(None));
    let role = Role::doing(&fake, effects);
    assert_eq!(
        role.ending().await,
        [
            "deleted shop/data uid-1",
            "seen shop/data@3",
            "finished shop/data Gone"
        ]
    );
    assert_eq!(volume_name(&fake), None);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_write_waits_as_long_as_the_server_asks() {
    let fake = Fake::default();
    fake.fail("PATCH", 2, Fault::Status(429, Some(3)));
    let role = Role::doing(&fake, claim_and_write(&fake));
    let began = Instant::now();
    assert_eq!(role.outcome().await, Outcome::Done);
    assert!(
        began.elapsed() >= Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        role.metric(r#"bitts_request_retries_total{role="tester",reason="throttled"}"#)
            .await,
        2.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_error_before_the_effect_is_retried() {
    for (fault, times) in [
        (Fault::Status(500, None), 2),
        (Fault::Status(503, None), 2),
        // From what stands before the API, not from it.
        (Fault::Status(404, None), 2),
        (Fault::Hang, 1),
        (Fault::Break, 2),
    ] {
        let fake = Fake::default();
        fake.fail("PATCH", times, fault.clone());
        let role = Role::doing(&fake, claim_and_write(&fake));
        assert_eq!(
            role.ending().await,
            ["seen shop/data@2", "finished shop/data Done"],
            "{fault:?}"
        );
        assert_eq!(fake.requests("PATCH").len(), times + 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_took_effect_though_it_failed_is_not_made_twice() {
    for fault in [
        Fault::StatusAfter(500),
        Fault::StatusAfter(504),
        Fault::HangAfter,
    ] {
        let fake = Fake::default();
        fake.fail("PATCH", 1, fault.clone());
        let role = Role::doing(&fake, claim_and_write(&fake));
        // The machine sees the effect in the newer object and goes on from there.
        assert_eq!(
            role.ending().await,
            ["seen shop/data@2", "finished shop/data Conflict"],
            "{fault:?}"
        );
        assert_eq!(volume_name(&fake).as_deref(), Some("disk"), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_keeps_failing_is_reported_as_failed() {
    let fake = Fake::default();
    fake.fail("PATCH", usize::MAX, Fault::Status(500, None));
    let role = Role::doing(&fake, claim_and_write(&fake));
    assert_eq!(role.outcome().await, Outcome::Failed("as asked".to_owned()));
    assert_eq!(fake.requests("PATCH").len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_quotes_the_server() {
    for code in [400, 403, 422] {
        let fake = Fake::default();
        fake.fail("PATCH", usize::MAX, Fault::Status(code, None));
        let role = Role::doing(&fake, claim_and_write(&fake));
        let outcome = role.outcome().await;
        assert!(
            matches!(&outcome, Outcome::Refused(m) if m.starts_with("as asked")),
            "{outcome:?}"
        );
        assert_eq!(fake.requests("PATCH").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_last_finalizer_goes_is_told_as_deleted() {
    let fake = Fake::default();
    let mut held = claim(None);
    held["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
    held["metadata"]["deletionTimestamp"] = json!("2026-11-23T03:00:00Z");
    let held = fake.put(CLAIM, held);
    let patch = json!({"metadata": {"finalizers": null}});
    let effect = write(target(Kind::Claim, &held), Part::Main, patch);
    let role = Role::doing(&fake, vec![effect]);
    assert_eq!(
        role.ending().await,
        ["deleted shop/data uid-1", "finished shop/data Done"]
    );
}

/// What the server asks for is kept to even where the machine backs off for less.
#[tokio::test(start_paused = true)]
async fn an_object_that_is_throttled_for_long_is_left_alone_for_so_long() {
    let fake = Fake::default();
    fake.fail("PATCH", 1, Fault::Status(429, Some(60)));
    let effects = claim_and_write(&fake);
    let again = move |input: &In| match input {
        Input::Listed(..) | Input::Alarm(_) => effects.clone(),
        Input::Finished(_, Outcome::Failed(_)) => {
            vec![Effect::Wake(Duration::from_millis(500), "again")]
        }
        _ => Vec::new(),
    };
    let role = Role::start(&fake, vec![all(Kind::Claim)], None, Box::new(again));
    let began = Instant::now();
    assert!(matches!(role.outcome().await, Outcome::Failed(_)));
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "nothing is held up"
    );
    sleep(Duration::from_secs(59)).await;
    assert_eq!(fake.requests("PATCH").len(), 1);
    role.until(|i| matches!(i, Input::Finished(_, Outcome::Done)))
        .await;
    assert_eq!(fake.requests("PATCH").len(), 2);
    assert!(
        began.elapsed() < Duration::from_secs(62),
        "{:?}",
        began.elapsed()
    );
}

/// A machine that is asked to wait by one object's server goes on with the others.
#[tokio::test(start_paused = true)]
async fn objects_that_cannot_be_written_keep_no_others_from_being_written() {
    for fault in [Fault::Status(429, Some(4)), Fault::Status(503, None)] {
        let fake = Fake::default();
        // As many as can be under way.
        for n in 0..4 {
            let one = format!("PATCH /api/v1/persistentvolumes/v{n}?");
            fake.fail(&one, usize::MAX, fault.clone());
        }
        let role = Role::doing(&fake, many_writes(&fake, 20));
        role.until(|i| matches!(i, Input::Listed(..))).await;
        let began = Instant::now();
        let done = |i: &In| matches!(i, Input::Finished(_, Outcome::Done));
        while role.told().iter().filter(|i| done(i)).count() < 16 {
            sleep(Duration::from_millis(1)).await;
            assert!(began.elapsed() < Duration::from_millis(200), "{fault:?}");
        }
        assert_eq!(fake.most_running(), 4);
        sleep(Duration::from_secs(60)).await;
        let sent = fake.requests("/v0?").len();
        assert!(sent <= 6, "{sent} requests in a minute: a busy loop");
    }
}

/// Volumes `v0` and on, and a write for each.
fn many_writes(fake: &Fake, count: usize) -> Vec<Out> {
    let one = |n| {
        let path = format!("/api/v1/persistentvolumes/v{n}");
        let volume = json!({"metadata": {"name": format!("v{n}")}, "spec": {}});
        let volume = fake.put(&path, volume);
        let patch = json!({"metadata": {"labels": {"seen": "yes"}}});
        write(target(Kind::Volume, &volume), Part::Main, patch)
    };
    (0..count).map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn different_objects_are_written_side_by_side_but_not_too_many_at_once() {
    let fake = Fake::default();
    let role = Role::doing(&fake, many_writes(&fake, 20));
    let done = |i: &In| matches!(i, Input::Finished(_, Outcome::Done));
    while role.told().iter().filter(|i| done(i)).count() < 20 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(fake.most_running(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_the_writes_that_did_not_begin() {
    let fake = Fake::default();
    let role = Role::doing(&fake, many_writes(&fake, 20));
    while fake.requests("PATCH").is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    role.stop().await.unwrap();
    assert_eq!(fake.requests("PATCH").len(), 4);
    let written = |n: &usize| {
        let volume = fake
            .get(&format!("/api/v1/persistentvolumes/v{n}"))
            .unwrap();
        volume["metadata"]["labels"]["seen"] == "yes"
    };
    assert_eq!(
        (0..20).filter(written).count(),
        4,
        "what had begun was finished"
    );
}

const CLAIMS: &str = "/api/v1/namespaces/shop/persistentvolumeclaims";

fn creation() -> Vec<Out> {
    vec![Effect::Create(Create {
        step: "test-create",
        key: claim_key(),
        body: json!({"metadata": {"labels": {"a": "b"}}, "spec": {"storageClassName": "x"}}),
    })]
}

#[tokio::test(start_paused = true)]
async fn a_creation_sends_the_whole_object_and_feeds_it() {
    let fake = Fake::default();
    let role = Role::doing(&fake, creation());
    assert_eq!(
        role.ending().await,
        ["seen shop/data@1", "finished shop/data Done"]
    );
    assert_eq!(
        fake.requests("POST"),
        [format!("POST {CLAIMS}?fieldManager=bitts-tester")]
    );
    assert_eq!(
        fake.bodies("POST"),
        [json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "shop", "labels": {"a": "b"}},
            "spec": {"storageClassName": "x"},
        })]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_there_already_is_fed_and_left_alone() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(Some("disk")));
    let role = Role::doing(&fake, creation());
    assert_eq!(
        role.ending().await,
        ["seen shop/data@1", "finished shop/data Conflict"]
    );
    assert_eq!(volume_name(&fake).as_deref(), Some("disk"));
}

/// X10
#[tokio::test(start_paused = true)]
async fn a_creation_whose_answer_was_lost_finds_itself() {
    let fake = Fake::default();
    fake.fail("POST", 1, Fault::StatusAfter(503));
    let role = Role::doing(&fake, creation());
    assert_eq!(
        role.ending().await,
        ["seen shop/data@1", "finished shop/data Conflict"]
    );
    assert_eq!(fake.requests("POST").len(), 2);
    assert_eq!(fake.get(CLAIM).unwrap()["metadata"]["labels"]["a"], "b");
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_is_forbidden_is_refused_at_once() {
    let fake = Fake::default();
    fake.fail("POST", usize::MAX, Fault::Status(403, None));
    let role = Role::doing(&fake, creation());
    assert!(matches!(role.outcome().await, Outcome::Refused(_)));
    assert_eq!(fake.requests("POST").len(), 1);
}
