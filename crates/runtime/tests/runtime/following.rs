//! Objects that a machine follows one by one.

use std::time::Duration;

use bitts_api::machine::{Effect, Input, Scope, Watch};
use bitts_api::{Kind, Name, ObjectKey};
use serde_json::json;
use tokio::time::sleep;

use crate::fake::Fake;
use crate::script::{CLAIM, Decide, Out, Role, VOLUME, claim, claim_key, tell, volume};

const CLAIMS: &str = "/persistentvolumeclaims";

/// A machine that watches one node, and does this when it is told that.
fn doing(fake: &Fake, when: Vec<(&'static str, Vec<Out>)>) -> Role {
    let watches = vec![Watch {
        kind: Kind::Node,
        scope: Scope::Named(Name::from("n1")),
    }];
    let mut when = when;
    let decide: Decide = Box::new(move |input| {
        let line = tell(input);
        let at = when.iter().position(|(on, _)| line == *on);
        at.map(|at| when.remove(at).1).unwrap_or_default()
    });
    Role::start(fake, watches, None, decide)
}

fn follow() -> Out {
    Effect::Follow(claim_key())
}

fn unfollow() -> Out {
    Effect::Unfollow(claim_key())
}

#[tokio::test(start_paused = true)]
async fn a_follow_reads_one_object_and_then_tells_what_happens_to_it() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    fake.put(
        &CLAIM.replace("data", "other"),
        json!({"metadata": {"name": "other", "namespace": "shop"}}),
    );
    let role = doing(&fake, vec![("listed nodes []", vec![follow(), follow()])]);
    role.until_story("found shop/data@1").await;
    sleep(Duration::from_secs(2)).await;
    fake.put(CLAIM, claim(Some("disk")));
    fake.delete(CLAIM);
    role.until_story("deleted shop/data uid-1").await;
    let story = role.story();
    assert_eq!(
        story[1..],
        [
            "found shop/data@1",
            "seen shop/data@3",
            "deleted shop/data uid-1"
        ]
    );
    // Only that object was asked for, once, and it is watched from there.
    let requests = fake.requests(CLAIMS);
    let place = "/api/v1/namespaces/shop/persistentvolumeclaims?fieldSelector=metadata.name%3Ddata";
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(
        requests.iter().all(|line| line.contains(place)),
        "{requests:?}"
    );
    assert!(requests[1].contains("watch=true"));
    assert!(
        role.host
            .readiness()
            .1
            .contains("persistentvolumeclaims: ok")
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_while_nobody_looked_is_told_of() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    let role = doing(&fake, vec![("listed nodes []", vec![follow()])]);
    role.until_story("found shop/data@1").await;
    sleep(Duration::from_secs(2)).await;
    fake.drop_watches();
    fake.delete(CLAIM);
    fake.compact();
    role.until_story("found no shop/data").await;
    // It comes back, and that is told, too.
    fake.put(CLAIM, claim(None));
    role.until(|i| {
        tell(i).starts_with("seen shop/data") || tell(i).starts_with("found shop/data@3")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_followed_any_more_is_not_told_nor_watched() {
    let fake = Fake::default();
    fake.put(CLAIM, claim(None));
    let role = doing(
        &fake,
        vec![
            ("listed nodes []", vec![follow()]),
            ("found shop/data@1", vec![unfollow()]),
        ],
    );
    role.until_story("found shop/data@1").await;
    sleep(Duration::from_secs(60)).await;
    fake.put(CLAIM, claim(Some("disk")));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(role.story()[1..], ["found shop/data@1"]);
    // A follow that ends at once costs one read and no watch, and leaves nothing to be ready for.
    assert_eq!(fake.requests(CLAIMS).len(), 1);
    let (ready, text) = role.host.readiness();
    assert!(ready && !text.contains("persistentvolumeclaims"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn followed_anew_it_is_read_anew() {
    let fake = Fake::default();
    fake.put(VOLUME, volume());
    let key = ObjectKey::volume("disk");
    let role = doing(
        &fake,
        vec![
            ("listed nodes []", vec![Effect::Follow(key.clone())]),
            (
                "found disk@1",
                vec![Effect::Unfollow(key.clone()), Effect::Follow(key.clone())],
            ),
        ],
    );
    role.until_story("found disk@1").await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(role.story()[1..], ["found disk@1", "found disk@1"]);
}

#[tokio::test(start_paused = true)]
async fn there_is_a_most_of_watches_beyond_which_objects_are_read_again() {
    let fake = Fake::default();
    let keys: Vec<_> = (0..80)
        .map(|i| ObjectKey::volume(format!("v{i}").as_str()))
        .collect();
    let all = keys.iter().cloned().map(Effect::Follow).collect();
    let role = doing(&fake, vec![("listed nodes []", all)]);
    let told = |line: &str| role.story().iter().filter(|told| *told == line).count();
    sleep(Duration::from_secs(20)).await;
    assert!(keys.iter().all(|key| told(&format!("found no {key}")) == 1));
    let watches = fake.requests("/persistentvolumes?").into_iter();
    let watches = watches.filter(|line| line.contains("watch=true")).count();
    assert_eq!(watches, 64);
    // All of them are told of in the end.
    for key in &keys {
        fake.put(
            &format!("/api/v1/persistentvolumes/{}", key.name),
            json!({"metadata": {"name": key.name.as_str()}}),
        );
    }
    sleep(Duration::from_secs(60)).await;
    for key in &keys {
        let knows = |input: &_| match input {
            Input::Found(of, Some(_)) => of == key,
            Input::Seen(object) => object.key() == *key,
            _ => false,
        };
        assert!(role.told().iter().any(knows), "{key}");
    }
}
