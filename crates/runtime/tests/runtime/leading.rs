//! Two processes, one lease.

use std::time::Duration;

use bitts_api::Kind;
use bitts_api::machine::{Input, Part};
use bitts_runtime::{LeaseOptions, RuntimeError};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fake::{Fake, Fault};
use crate::script::{CLAIM, Role, all, claim, once_listed, target, write};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/bitts-test";

fn candidate(fake: &Fake, identity: &str) -> Role {
    Role::start(
        fake,
        vec![all(Kind::Claim)],
        Some(lease(identity)),
        Box::new(|_| Vec::new()),
    )
}

fn lease(identity: &str) -> LeaseOptions {
    LeaseOptions {
        identity: identity.to_owned(),
        ..LeaseOptions::new("kube-system", "bitts-test")
    }
}

async fn leads(role: &Role) {
    role.until(|i| matches!(i, Input::Listed(..))).await;
}

fn holder(fake: &Fake) -> String {
    let lease = fake.get(LEASE).unwrap();
    lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_other_stands_by_until_it_gives_up() {
    let fake = Fake::default();
    let one = candidate(&fake, "one");
    leads(&one).await;
    let two = candidate(&fake, "two");
    sleep(Duration::from_secs(120)).await;
    assert_eq!(holder(&fake), "one");
    assert!(two.told().is_empty());
    assert!(two.host.readiness().0, "a standby is ready to take over");
    assert_eq!(one.metric(r#"bitts_leading{role="tester"}"#).await, 1.0);
    assert_eq!(two.metric(r#"bitts_leading{role="tester"}"#).await, 0.0);

    one.stop().await.unwrap();
    let released = Instant::now();
    leads(&two).await;
    assert!(
        released.elapsed() < Duration::from_secs(2),
        "{:?}",
        released.elapsed()
    );
    assert_eq!(holder(&fake), "two");
    assert_eq!(fake.get(LEASE).unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_the_next_begins() {
    let fake = Fake::default();
    let one = candidate(&fake, "one");
    leads(&one).await;
    sleep(Duration::from_secs(5)).await;
    // Only the leader renews with a bare renewTime; the standby reads and takes.
    fake.fail("PATCH /apis/coordination", 40, Fault::Break);
    let two = candidate(&fake, "two");
    let began = Instant::now();
    while !one.is_over() {
        assert!(two.told().is_empty(), "two leaders");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(
        began.elapsed() <= Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let error = one.end().await.unwrap_err();
    assert!(matches!(error, RuntimeError::LeaseLost { .. }));
    assert!(
        error.to_string().contains("kube-system/bitts-test"),
        "{error}"
    );
    fake.heal();
    leads(&two).await;
    assert!(
        began.elapsed() >= Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(19),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_lost_its_lease_writes_nothing_more() {
    let fake = Fake::default();
    let stored = fake.put(CLAIM, claim(None));
    let patch = json!({"spec": {"volumeName": "disk"}});
    let effect = write(target(Kind::Claim, &stored), Part::Main, patch);
    // The API is away for writes: the claim's is tried again and again, the lease's too.
    fake.fail("PATCH", usize::MAX, Fault::Status(503, None));
    let watches = vec![all(Kind::Claim)];
    let role = Role::start(
        &fake,
        watches,
        Some(lease("one")),
        once_listed(vec![effect]),
    );
    assert!(matches!(
        role.end().await,
        Err(RuntimeError::LeaseLost { .. })
    ));
    fake.heal();
    let before = fake.requests("PATCH /api/v1").len();
    assert!(before > 1);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(fake.requests("PATCH /api/v1").len(), before);
    assert!(fake.get(CLAIM).unwrap()["spec"]["volumeName"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_took_is_lost_at_once() {
    let fake = Fake::default();
    let role = candidate(&fake, "one");
    leads(&role).await;
    let mut stolen = fake.get(LEASE).unwrap();
    stolen["spec"]["holderIdentity"] = json!("thief");
    fake.put(LEASE, stolen);
    let began = Instant::now();
    let error = role.end().await.unwrap_err();
    assert!(error.to_string().contains("thief has it now"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(holder(&fake), "thief", "what is not held is not given back");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_does_not_cost_the_lease() {
    let fake = Fake::default();
    let role = candidate(&fake, "one");
    leads(&role).await;
    for fault in [
        Fault::HangAfter,
        Fault::StatusAfter(500),
        Fault::Status(503, None),
        Fault::Break,
    ] {
        fake.fail("PATCH /apis/coordination", 1, fault);
        sleep(Duration::from_secs(20)).await;
        assert!(!role.is_over());
    }
    assert_eq!(holder(&fake), "one");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_by_a_clock_that_is_wrong_is_still_held() {
    let fake = Fake::default();
    // The holder's clock is years behind; all that counts is that the record changes.
    let spec = |n: u32| {
        json!({"metadata": {"name": "bitts-test", "namespace": "kube-system"},
               "spec": {"holderIdentity": "other", "leaseDurationSeconds": 15,
                        "renewTime": format!("2001-01-01T00:00:{:02}.000000Z", n % 60)}})
    };
    fake.put(LEASE, spec(0));
    let role = candidate(&fake, "one");
    for n in 0..30 {
        sleep(Duration::from_secs(10)).await;
        fake.put(LEASE, spec(n));
    }
    assert!(role.told().is_empty());
    let last = Instant::now();
    leads(&role).await;
    assert!(last.elapsed() >= Duration::from_secs(15));
    assert_eq!(holder(&fake), "one");
}

#[tokio::test(start_paused = true)]
async fn a_candidate_without_rights_says_so_and_goes_on_trying() {
    let fake = Fake::default();
    fake.fail("leases", 10, Fault::Status(403, None));
    let role = candidate(&fake, "one");
    leads(&role).await;
}
