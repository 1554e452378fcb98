//! Watch: from any kept revision, with bookmarks and initial events, selected, each at its own pace.

use std::time::Duration;

use bitts_apiserver::Faults;
use serde_json::json;

use crate::client::{CONFIG_MAPS, Client, Next, PODS, config_map, pod};

fn from(revision: u64) -> String {
    format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}")
}

#[tokio::test]
async fn a_watch_goes_on_from_any_kept_revision() {
    let api = Client::new();
    let start = api.0.revision();
    api.config_maps(&["a", "b"]).await;
    api.merge(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}}))
        .await
        .expect(200);
    let gone = api.delete(&format!("{CONFIG_MAPS}/b")).await.expect(200);
    assert_eq!(gone.body["status"], "Success");
    let mut all = api.watch(&from(start)).await;
    assert_eq!(
        all.lines(4).await,
        ["ADDED a", "ADDED b", "MODIFIED a", "DELETED b"]
    );
    let mut late = api.watch(&from(start + 2)).await;
    assert_eq!(late.line().await, "MODIFIED a");
    let Next::Event(_, deleted) = late.next().await else {
        panic!()
    };
    assert_eq!(
        deleted["metadata"]["resourceVersion"],
        (start + 4).to_string()
    );
    // Both go on by themselves, one watcher that does not read holds up nobody.
    let _idle = api.watch(&from(start)).await;
    api.config_maps(&["c"]).await;
    assert_eq!(all.line().await, "ADDED c");
    assert_eq!(late.line().await, "ADDED c");
    assert_eq!(late.next().await, Next::Silence);
}

#[tokio::test]
async fn a_watch_without_a_version_starts_with_what_there_is() {
    let api = Client::new();
    api.config_maps(&["a", "b"]).await;
    for version in ["", "&resourceVersion=0"] {
        let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1{version}")).await;
        assert_eq!(watch.lines(3).await, ["ADDED a", "ADDED b", "Silence"]);
    }
    let mut one = api
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Db"
        ))
        .await;
    assert_eq!(one.lines(2).await, ["ADDED b", "Silence"]);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let api = Client::new();
    api.config_maps(&["a"]).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = api.watch(&path).await;
    assert_eq!(watch.line().await, "ADDED a");
    let Next::Event(event, object) = watch.next().await else {
        panic!()
    };
    assert_eq!(event, "BOOKMARK");
    assert_eq!(object["kind"], "ConfigMap");
    assert_eq!(
        object["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(
        object["metadata"]["resourceVersion"],
        api.0.revision().to_string()
    );
    api.config_maps(&["b"]).await;
    assert_eq!(watch.line().await, "ADDED b");
}

#[tokio::test]
async fn entering_and_leaving_a_selection_is_adding_and_deleting() {
    let api = Client::new();
    let label = async |value: &str| {
        let patch = json!({"metadata": {"labels": {"app": value}}});
        api.merge(&format!("{CONFIG_MAPS}/a"), &patch)
            .await
            .expect(200)
            .version()
            .to_owned()
    };
    api.config_maps(&["a"]).await;
    let path = format!("{}&labelSelector=app%3Dweb", from(api.0.revision()));
    let mut watch = api.watch(&path).await;
    label("web").await;
    api.merge(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}}))
        .await
        .expect(200);
    assert_eq!(watch.lines(2).await, ["ADDED a", "MODIFIED a"]);
    let version = label("db").await;
    let Next::Event(event, object) = watch.next().await else {
        panic!()
    };
    assert_eq!(event, "DELETED");
    assert_eq!(
        object["metadata"]["labels"]["app"], "web",
        "as it was last seen"
    );
    assert_eq!(object["metadata"]["resourceVersion"], version);
    api.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(watch.next().await, Next::Silence);

    let mut pods = api
        .watch(&format!("{PODS}?watch=1&fieldSelector=spec.nodeName%3Dn1"))
        .await;
    let mut object = pod("p");
    object["spec"].as_object_mut().unwrap().remove("nodeName");
    api.post(PODS, &object).await.expect(201);
    assert_eq!(pods.next().await, Next::Silence);
    let binding = json!({"target": {"name": "n1"}});
    api.post(&format!("{PODS}/p/binding"), &binding)
        .await
        .expect(201);
    assert_eq!(pods.line().await, "ADDED p");
}

#[tokio::test]
async fn a_watch_from_before_the_history_is_told_so() {
    let api = Client::with(Faults::default(), 2);
    let start = api.0.revision();
    let mut lagging = api.watch(&from(start)).await;
    api.config_maps(&["a", "b", "c"]).await;
    for watch in [&mut lagging, &mut api.watch(&from(start)).await] {
        let Next::Event(event, status) = watch.next().await else {
            panic!()
        };
        assert_eq!((event.as_str(), &status["code"]), ("ERROR", &json!(410)));
        assert_eq!(status["reason"], "Expired");
        assert_eq!(watch.next().await, Next::End);
    }
    let mut fresh = api.watch(&from(start + 1)).await;
    assert_eq!(fresh.lines(2).await, ["ADDED b", "ADDED c"]);
    // One that has seen everything outlives a compaction, others do not.
    let mut behind = api.watch(&from(start + 2)).await;
    api.post(PODS, &pod("p")).await.expect(201);
    api.0.compact();
    api.config_maps(&["d"]).await;
    assert_eq!(fresh.line().await, "ADDED d");
    assert!(behind.line().await.starts_with("ERROR"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_bookmarks_and_ends_in_time() {
    let api = Client::new();
    let revision = api.0.revision();
    let path = format!(
        "{}&allowWatchBookmarks=true&timeoutSeconds=90",
        from(revision)
    );
    let mut watch = api.watch(&path).await;
    assert_eq!(watch.next().await, Next::Silence);
    // Other kinds move on meanwhile, and so does the bookmark.
    api.post(PODS, &pod("p")).await.expect(201);
    tokio::time::advance(Duration::from_secs(61)).await;
    let Next::Event(event, object) = watch.next().await else {
        panic!()
    };
    assert_eq!(event, "BOOKMARK");
    assert_eq!(
        object["metadata"]["resourceVersion"],
        (revision + 1).to_string()
    );
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(watch.line().await.starts_with("BOOKMARK"));
    assert_eq!(watch.next().await, Next::End);
}

#[tokio::test]
async fn many_watchers_see_the_same_order() {
    let api = Client::new();
    let start = api.0.revision();
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(api.watch(&from(start)).await);
    }
    let names: Vec<String> = (0..300).map(|n| format!("c{n:03}")).collect();
    for name in &names {
        api.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    for watch in &mut watches {
        for name in &names {
            assert_eq!(watch.line().await, format!("ADDED {name}"));
        }
    }
}
