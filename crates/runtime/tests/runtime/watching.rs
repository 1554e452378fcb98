//! Watches, and everything an API can do to them.

use std::time::Duration;

use bitts_api::machine::{Input, Scope, Watch};
use bitts_api::{Kind, Name, NodeName};
use serde_json::json;
use tokio::time::sleep;

use crate::fake::{Fake, Fault, status};
use crate::script::{CLAIM, Role, VOLUME, claim, volume};

const CLAIMS: &str = "GET /api/v1/persistentvolumeclaims";

fn lists(fake: &Fake) -> usize {
    fake.requests(CLAIMS)
        .iter()
        .filter(|line| !line.contains("watch=true"))
        .count()
}

async fn watching_claims(fake: &Fake) -> Role {
    let role = Role::watching(fake, &[Kind::Claim]);
    role.until(|i| matches!(i, Input::Listed(..))).await;
    // Until the watch is up.
    sleep(Duration::from_secs(1)).await;
    role
}

#[tokio::test(start_paused = true)]
async fn a_watch_lists_and_then_tells_what_happens() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    let role = watching_claims(&fake).await;
    assert!(role.host.readiness().0);
    fake.put(CLAIM, claim(Some("disk")));
    fake.delete(CLAIM);
    role.until_story("deleted shop/data uid-1").await;
    assert_eq!(
        role.story(),
        [
            "listed persistentvolumeclaims [shop/data@1]",
            "seen shop/data@2",
            "deleted shop/data uid-1"
        ]
    );
    // Consistent: a list from a cache would name a version.
    assert!(fake.requests(CLAIMS)[0].ends_with("persistentvolumeclaims?limit=500"));
}

#[tokio::test(start_paused = true)]
async fn after_a_410_the_list_shows_what_was_deleted_meanwhile() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    let role = watching_claims(&fake).await;
    fake.fail("watch=true", 1, Fault::Break);
    fake.drop_watches();
    fake.delete(CLAIM);
    fake.compact();
    role.until_story("listed persistentvolumeclaims []").await;
}

#[tokio::test(start_paused = true)]
async fn a_410_by_status_leads_to_a_list_too() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    let role = watching_claims(&fake).await;
    fake.fail("watch=true", 1, Fault::Status(410, None));
    fake.drop_watches();
    fake.delete(CLAIM);
    role.until_story("listed persistentvolumeclaims []").await;
    assert_eq!(lists(&fake), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_always_answers_410_is_not_asked_all_the_time() {
    let fake = Fake::default();
    fake.fail("watch=true", usize::MAX, Fault::Status(410, None));
    let _role = watching_claims(&fake).await;
    sleep(Duration::from_secs(600)).await;
    assert!(lists(&fake) < 30, "{}", lists(&fake));
}

#[tokio::test(start_paused = true)]
async fn events_that_come_twice_or_late_do_not_take_the_watch_back() {
    let fake = Fake::default();
    let old = fake.put(CLAIM, claim(None));
    let role = watching_claims(&fake).await;
    fake.put(CLAIM, claim(Some("disk")));
    role.until_story("seen shop/data@2").await;
    fake.say(
        "persistentvolumeclaims",
        &json!({"type": "MODIFIED", "object": old}),
    );
    role.until_story("seen shop/data@1").await;
    fake.drop_watches();
    sleep(Duration::from_secs(5)).await;
    let last = fake.requests("watch=true").pop().unwrap();
    assert!(last.ends_with("resourceVersion=2"), "{last}");
    assert_eq!(lists(&fake), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_the_server_ends_goes_on_from_the_last_bookmark() {
    let fake = Fake::default();
    let role = watching_claims(&fake).await;
    let mark = json!({"type": "BOOKMARK", "object": {"apiVersion": "v1",
        "kind": "PersistentVolumeClaim", "metadata": {"resourceVersion": "40"}}});
    fake.say("persistentvolumeclaims", &mark);
    sleep(Duration::from_secs(1)).await;
    fake.drop_watches();
    sleep(Duration::from_secs(1)).await;
    let last = fake.requests("watch=true").pop().unwrap();
    assert!(last.ends_with("resourceVersion=40"), "{last}");
    assert_eq!((lists(&fake), role.story().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_noticed() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    let role = watching_claims(&fake).await;
    fake.silence();
    fake.delete(CLAIM);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(role.story().len(), 1);
    let age = r#"bitts_watch_age_seconds{role="tester",resource="persistentvolumeclaims"}"#;
    assert!(role.metric(age).await >= 60.0);
    sleep(Duration::from_secs(70)).await;
    assert_eq!(
        role.story().last().unwrap(),
        "listed persistentvolumeclaims []"
    );
}

/// However long it lasts; and it is as dead as any when it falls silent then.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_heard_of_now_and_then_goes_on() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    let role = watching_claims(&fake).await;
    let bookmarks = tokio::spawn(fake.clone().bookmarks());
    sleep(Duration::from_secs(1_000)).await;
    assert_eq!(role.story().len(), 1, "{:?}", role.story());
    bookmarks.abort();
    sleep(Duration::from_secs(130)).await;
    assert_eq!(role.story().len(), 2, "{:?}", role.story());
}

#[tokio::test(start_paused = true)]
async fn an_api_that_was_restored_from_a_backup_is_believed() {
    let fake = Fake::default();
    for _ in 0..8 {
        fake.put(CLAIM, claim(None));
    }
    let role = watching_claims(&fake).await;
    fake.put(CLAIM, claim(None));
    role.until_story("seen shop/data@9").await;
    fake.restore(3);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lists(&fake), 1);
    // The first thing the watch says is older than where it was.
    fake.put(CLAIM, claim(Some("disk")));
    sleep(Duration::from_secs(5)).await;
    let last = role.story().pop().unwrap();
    assert_eq!(last, "listed persistentvolumeclaims [shop/data@4]");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_without_a_word_is_not_gone_on_with() {
    let fake = Fake::default();
    let _role = watching_claims(&fake).await;
    fake.drop_watches();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(lists(&fake), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_within_a_watch_is_no_end() {
    let fake = Fake::default();
    let role = watching_claims(&fake).await;
    let error = json!({"type": "ERROR", "object": status(500, "etcd has no leader")});
    fake.say("persistentvolumeclaims", &error);
    sleep(Duration::from_millis(100)).await;
    let (ready, text) = role.host.readiness();
    assert!(!ready && text.contains("etcd has no leader"), "{text}");
    sleep(Duration::from_secs(5)).await;
    fake.put(CLAIM, claim(None));
    role.until_story("seen shop/data@1").await;
    assert!(role.host.readiness().0);
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_watch_is_named_and_delays_no_other() {
    let fake = Fake::default();
    fake.fail(CLAIMS, usize::MAX, Fault::Status(403, None));
    let role = Role::watching(&fake, &[Kind::Claim, Kind::Volume]);
    role.until_story("listed persistentvolumes []").await;
    sleep(Duration::from_secs(300)).await;
    let before = role.host.readiness();
    assert!(!before.0);
    assert!(
        before
            .1
            .contains("tester watches persistentvolumeclaims: forbidden: as asked"),
        "{}",
        before.1
    );
    fake.put(VOLUME, volume());
    sleep(Duration::from_millis(10)).await;
    assert_eq!(role.story().last().unwrap(), "seen disk@1");
    fake.heal();
    role.until_story("listed persistentvolumeclaims []").await;
    assert!(role.host.readiness().0, "{}", role.host.readiness().1);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_api_lacks_is_told_as_empty() {
    let fake = Fake::default();
    fake.lack("storageclasses", true);
    let role = Role::watching(&fake, &[Kind::StorageClass]);
    role.until_story("listed storageclasses []").await;
    assert!(role.host.readiness().0);
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(role.story().len(), 1, "told once");
    assert!(fake.requests("").len() < 12, "{:?}", fake.requests(""));
    fake.lack("storageclasses", false);
    // Should it come to be, it is found.
    fake.put(
        "/apis/storage.k8s.io/v1/storageclasses/fast",
        json!({"metadata": {"name": "fast"}, "provisioner": "x"}),
    );
    role.until_story("listed storageclasses [fast@1]").await;
}

/// A 404 from what stands before an API says nothing of what it serves.
#[tokio::test(start_paused = true)]
async fn a_404_alone_is_no_absent_kind() {
    for also in ["GET /apis/storage.k8s.io/v1 ", "GET /nothing"] {
        let fake = Fake::default();
        let class = json!({"metadata": {"name": "fast"}, "provisioner": "x"});
        fake.put("/apis/storage.k8s.io/v1/storageclasses/fast", class);
        fake.fail("storageclasses", 3, Fault::Status(404, None));
        fake.fail(also, 3, Fault::Status(502, None));
        let role = Role::watching(&fake, &[Kind::StorageClass]);
        role.until(|i| matches!(i, Input::Listed(..))).await;
        assert_eq!(role.story(), ["listed storageclasses [fast@1]"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_no_list_is_not_an_empty_one() {
    for body in [
        json!({}),
        json!({"items": []}),
        json!({"metadata": {"resourceVersion": "7"}}),
    ] {
        let fake = Fake::default();
        fake.put(CLAIM, claim(None));
        fake.fail(CLAIMS, 2, Fault::Body(body));
        let role = watching_claims(&fake).await;
        assert_eq!(
            role.story(),
            ["listed persistentvolumeclaims [shop/data@1]"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_core_kind_that_is_not_found_is_a_server_in_trouble() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    fake.fail(CLAIMS, 5, Fault::Status(404, None));
    let role = watching_claims(&fake).await;
    assert_eq!(
        role.story(),
        ["listed persistentvolumeclaims [shop/data@1]"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_never_answered_is_asked_for_again() {
    for fault in [Fault::Hang, Fault::Break, Fault::Status(503, None)] {
        let fake = Fake::default();
        fake.fail(CLAIMS, 2, fault);
        watching_claims(&fake).await;
        assert_eq!(lists(&fake), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_never_answered_is_asked_for_again() {
    let fake = Fake::default();
    fake.fail("watch=true", 1, Fault::Hang);
    let role = watching_claims(&fake).await;
    fake.put(CLAIM, claim(None));
    role.until_story("seen shop/data@1").await;
    assert_eq!(lists(&fake), 1);
}

#[tokio::test(start_paused = true)]
async fn long_lists_come_in_pages_and_are_told_as_one() {
    let fake = Fake::default();
    put_volumes(&fake, 1200);
    let role = Role::watching(&fake, &[Kind::Volume]);
    let listed = role.until(|i| matches!(i, Input::Listed(..))).await;
    assert!(matches!(listed, Input::Listed(_, all) if all.len() == 1200));
    assert_eq!(fake.requests("limit=500").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_expires_between_pages_is_taken_at_once() {
    let fake = Fake::default();
    put_volumes(&fake, 600);
    fake.fail("continue=", usize::MAX, Fault::Status(410, None));
    let role = Role::watching(&fake, &[Kind::Volume]);
    let listed = role.until(|i| matches!(i, Input::Listed(..))).await;
    assert!(matches!(listed, Input::Listed(_, all) if all.len() == 600));
    assert_eq!(fake.requests("limit=500").len(), 2);
    // The next one is taken in pages again.
    fake.heal();
    fake.fail("watch=true", 1, Fault::Status(410, None));
    fake.drop_watches();
    sleep(Duration::from_secs(10)).await;
    assert!(fake.requests("limit=500").len() > 2);
}

/// Without pages a list may take longer than a page; when it fails, pages are tried again.
#[tokio::test(start_paused = true)]
async fn a_list_without_pages_is_not_the_only_hope() {
    let fake = Fake::default();
    put_volumes(&fake, 600);
    fake.fail("continue=", 1, Fault::Status(410, None));
    fake.fail("persistentvolumes ", usize::MAX, Fault::Hang);
    let role = Role::watching(&fake, &[Kind::Volume]);
    let listed = role.until(|i| matches!(i, Input::Listed(..))).await;
    assert!(matches!(listed, Input::Listed(_, all) if all.len() == 600));
}

fn put_volumes(fake: &Fake, count: usize) {
    for n in 0..count {
        let name = format!("v{n:04}");
        fake.put(
            &format!("/api/v1/persistentvolumes/{name}"),
            json!({"metadata": {"name": name}, "spec": {}}),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_stalls_nothing() {
    let fake = Fake::default();
    let broken = json!({"metadata": {"name": "odd", "namespace": "shop"}, "spec": 7});
    fake.put(
        "/api/v1/namespaces/shop/persistentvolumeclaims/odd",
        broken.clone(),
    );
    fake.put(CLAIM, claim(None));
    let role = watching_claims(&fake).await;
    fake.put("/api/v1/namespaces/shop/persistentvolumeclaims/odd", broken);
    fake.put(CLAIM, claim(Some("disk")));
    role.until_story("seen shop/data@4").await;
    assert_eq!(
        role.story(),
        [
            "listed persistentvolumeclaims [shop/data@2]",
            "seen shop/data@4"
        ]
    );
    let count =
        r#"bitts_unreadable_objects_total{role="tester",resource="persistentvolumeclaims"}"#;
    assert_eq!(role.metric(count).await, 2.0);
    assert_eq!(lists(&fake), 1);
    // That it is gone can be read.
    fake.delete("/api/v1/namespaces/shop/persistentvolumeclaims/odd");
    role.until_story("deleted shop/odd uid-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_scope_is_a_field_selector() {
    let fake = Fake::default();
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        let path = format!("/api/v1/namespaces/shop/pods/{name}");
        let meta = json!({"name": name, "namespace": "shop"});
        fake.put(&path, json!({"metadata": meta, "spec": {"nodeName": node}}));
    }
    fake.put("/api/v1/nodes/n1", json!({"metadata": {"name": "n1"}}));
    fake.put("/api/v1/nodes/n2", json!({"metadata": {"name": "n2"}}));
    let watches = vec![
        Watch {
            kind: Kind::Pod,
            scope: Scope::OnNode(NodeName::from("n2")),
        },
        Watch {
            kind: Kind::Node,
            scope: Scope::Named(Name::from("n1")),
        },
    ];
    let role = Role::start(&fake, watches, None, Box::new(|_| Vec::new()));
    role.until_story("listed pods [shop/b@2]").await;
    role.until_story("listed nodes [n1@3]").await;
    sleep(Duration::from_secs(1)).await;
    let watches = fake.requests("watch=true");
    assert!(
        watches
            .iter()
            .any(|w| w.contains("/pods?fieldSelector=spec.nodeName%3Dn2&watch=true"))
    );
}
