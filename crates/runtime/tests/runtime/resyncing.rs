//! What watches lost is found by comparing with lists.

use std::time::Duration;

use bitts_api::Kind;
use bitts_api::machine::Input;
use tokio::time::sleep;

use crate::fake::{Fake, Fault};
use crate::script::{CLAIM, Role, VOLUME, claim, volume};

const REPAIRS: &str = "bitts_resync_repairs_total{role=\"tester\",kind=\"PersistentVolumeClaim\"}";
/// A list that is taken for the comparison only.
const COMPARING: &str = "GET /api/v1/persistentvolumeclaims?limit=500";

async fn listed(fake: &Fake) -> Role {
    let role = Role::comparing(fake, &[Kind::Claim, Kind::Volume]);
    role.until(|i| matches!(i, Input::Listed(Kind::Claim, _)))
        .await;
    role.until(|i| matches!(i, Input::Listed(Kind::Volume, _)))
        .await;
    sleep(Duration::from_secs(1)).await;
    // A watch that is silent is taken for dead, and then nothing has to be repaired.
    tokio::spawn(fake.clone().bookmarks());
    role
}

#[tokio::test(start_paused = true)]
async fn an_object_change_or_deletion_that_no_watch_told_of_is_told() {
    let fake = Fake::default();
    fake.put(VOLUME, volume());
    let role = listed(&fake).await;
    fake.lose(1);
    fake.put(CLAIM, claim(None));
    role.until_story("seen shop/data@2").await;
    assert_eq!(role.metric(REPAIRS).await as u64, 1);
    fake.lose(1);
    fake.put(CLAIM, claim(Some("disk")));
    role.until_story("seen shop/data@3").await;
    fake.lose(1);
    fake.delete(CLAIM);
    role.until_story("deleted shop/data uid-2").await;
    assert_eq!(role.metric(REPAIRS).await as u64, 3);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(role.story().len(), 5, "{:?}", role.story());
}

#[tokio::test(start_paused = true)]
async fn one_that_was_replaced_is_told_as_it_is() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    let role = listed(&fake).await;
    fake.lose(2);
    fake.delete(CLAIM);
    fake.put(CLAIM, claim(Some("disk")));
    role.until_story("seen shop/data@3").await;
    assert_eq!(role.metric(REPAIRS).await as u64, 1);
}

#[tokio::test(start_paused = true)]
async fn while_watches_tell_all_nothing_is_read_but_one_list_an_interval() {
    let fake = Fake::default();
    let role = listed(&fake).await;
    for _ in 0..300 {
        fake.put(CLAIM, claim(Some("disk")));
        sleep(Duration::from_secs(2)).await;
        fake.delete(CLAIM);
    }
    assert_eq!(role.metric(REPAIRS).await as u64, 0);
    assert_eq!(fake.requests("fieldSelector"), Vec::<String>::new());
    let lists = fake.requests(COMPARING).len();
    assert!((9..=13).contains(&lists), "{lists} in 10 minutes");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_left_to_the_next() {
    let fake = Fake::default();
    let role = listed(&fake).await;
    fake.fail(COMPARING, 2, Fault::Status(500, None));
    fake.lose(1);
    fake.put(CLAIM, claim(None));
    role.until_story("seen shop/data@1").await;
    assert_eq!(role.metric(REPAIRS).await as u64, 1);
    assert!(role.host.readiness().0);
}
