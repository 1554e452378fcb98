//! Watches that are open while things happen.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_e2e::cluster::Scope;
use bitts_e2e::on_both;
use bitts_e2e::raw::{summary, text};
use bitts_e2e::suite::Suite;
use futures::{StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};

pub(crate) fn add(suite: &mut Suite) {
    on_both!(
        suite,
        "watches",
        events_come_while_the_watch_is_open,
        every_watcher_gets_every_event_in_order,
        a_deleted_object_carries_the_version_of_its_deletion,
        bookmarks_come_when_asked_for,
        a_watch_goes_on_where_another_ended,
        nothing_is_lost_between_a_list_and_its_watch,
        kubes_watcher_follows_with_a_list,
        kubes_watcher_follows_with_a_streaming_list,
        a_watch_of_one_namespace_does_not_see_another,
    );
}

fn maps(api: &Scope, rest: &str) -> String {
    format!("/api/v1/namespaces/{}/configmaps{rest}", api.namespace())
}

async fn make(api: &Scope, name: &str) -> anyhow::Result<Value> {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"set": api.id()}}});
    api.post(&maps(api, ""), body).await?.expect(201)
}

async fn list_version(api: &Scope) -> anyhow::Result<String> {
    let list = api.get(&maps(api, "")).await?.expect(200)?;
    Ok(text(&list, "/metadata/resourceVersion").to_owned())
}

fn version(object: &Value) -> anyhow::Result<u64> {
    Ok(text(object, "/metadata/resourceVersion").parse()?)
}

async fn events_come_while_the_watch_is_open(api: Scope) -> anyhow::Result<()> {
    let from = list_version(&api).await?;
    let mut watch = api
        .watch(&maps(&api, &format!("?watch=true&resourceVersion={from}")))
        .await?;
    let made = make(&api, "a").await?;
    let event = watch.next().await?;
    ensure!(event == json!({"type": "ADDED", "object": made}), "{event}");
    let changed = api
        .merge(&maps(&api, "/a"), json!({"data": {"k": "v"}}))
        .await?
        .expect(200)?;
    let event = watch.next().await?;
    ensure!(
        event == json!({"type": "MODIFIED", "object": changed}),
        "{event}"
    );
    // A write without a change is no event.
    api.merge(&maps(&api, "/a"), json!({"data": {"k": "v"}}))
        .await?
        .expect(200)?;
    ensure!(
        watch
            .next_within(Duration::from_millis(200))
            .await?
            .is_none(),
        "an event too many"
    );
    Ok(())
}

async fn every_watcher_gets_every_event_in_order(api: Scope) -> anyhow::Result<()> {
    let from = list_version(&api).await?;
    let path = maps(&api, &format!("?watch=true&resourceVersion={from}"));
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(api.watch(&path).await?);
    }
    for number in 0..10 {
        make(&api, &format!("m{number}")).await?;
    }
    for watch in &mut watches {
        let events = watch.take(10).await?;
        let versions: Vec<u64> = events
            .iter()
            .map(|event| version(&event["object"]))
            .collect::<anyhow::Result<_>>()?;
        ensure!(versions.is_sorted() && versions.len() == 10, "{versions:?}");
        ensure!(summary(&events)[9] == "ADDED m9", "{:?}", summary(&events));
    }
    Ok(())
}

async fn a_deleted_object_carries_the_version_of_its_deletion(api: Scope) -> anyhow::Result<()> {
    let made = make(&api, "a").await?;
    let from = text(&made, "/metadata/resourceVersion");
    let mut watch = api
        .watch(&maps(&api, &format!("?watch=true&resourceVersion={from}")))
        .await?;
    api.delete(&maps(&api, "/a"), Value::Null)
        .await?
        .expect(200)?;
    let event = watch.next().await?;
    ensure!(text(&event, "/type") == "DELETED", "{event}");
    ensure!(version(&event["object"])? > version(&made)?, "{event}");
    ensure!(
        text(&event, "/object/metadata/uid") == text(&made, "/metadata/uid"),
        "{event}"
    );
    // A watch can go on from there without seeing the deletion again.
    let from = text(&event, "/object/metadata/resourceVersion");
    let mut watch = api
        .watch(&maps(&api, &format!("?watch=true&resourceVersion={from}")))
        .await?;
    make(&api, "b").await?;
    let event = watch.next().await?;
    ensure!(summary(&[event]) == ["ADDED b"], "the deletion came twice");
    Ok(())
}

async fn bookmarks_come_when_asked_for(api: Scope) -> anyhow::Result<()> {
    make(&api, "a").await?;
    let from = list_version(&api).await?;
    let query = format!("?watch=true&resourceVersion={from}&timeoutSeconds=4");
    let mut asked = api
        .watch(&maps(&api, &format!("{query}&allowWatchBookmarks=true")))
        .await?;
    let mut silent = api.watch(&maps(&api, &query)).await?;
    // The real API sends one only if something happened to the kind since.
    let body =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": api.name("b")}});
    api.post("/api/v1/namespaces/default/configmaps", body)
        .await?
        .expect(201)?;
    let patience = Duration::from_secs(8);
    let bookmark = asked.next_within(patience).await?.context("no bookmark")?;
    ensure!(text(&bookmark, "/type") == "BOOKMARK", "{bookmark}");
    ensure!(text(&bookmark, "/object/kind") == "ConfigMap", "{bookmark}");
    ensure!(version(&bookmark["object"])? >= from.parse()?, "{bookmark}");
    ensure!(
        text(&bookmark, "/object/metadata/name").is_empty(),
        "{bookmark}"
    );
    ensure!(
        silent.next_within(patience).await?.is_none(),
        "a bookmark nobody asked for"
    );
    Ok(())
}

async fn a_watch_goes_on_where_another_ended(api: Scope) -> anyhow::Result<()> {
    let from = list_version(&api).await?;
    let mut first = api
        .watch(&maps(&api, &format!("?watch=true&resourceVersion={from}")))
        .await?;
    make(&api, "a").await?;
    let seen = first.next().await?;
    drop(first);
    make(&api, "b").await?;
    make(&api, "c").await?;
    let from = text(&seen, "/object/metadata/resourceVersion");
    let mut second = api
        .watch(&maps(&api, &format!("?watch=true&resourceVersion={from}")))
        .await?;
    let events = second.take(2).await?;
    ensure!(summary(&events) == ["ADDED b", "ADDED c"], "{events:?}");
    Ok(())
}

async fn nothing_is_lost_between_a_list_and_its_watch(api: Scope) -> anyhow::Result<()> {
    let writes = async {
        for number in 0..20 {
            make(&api, &format!("m{number:02}")).await?;
        }
        anyhow::Ok(())
    };
    let reads = async {
        let list = api.get(&maps(&api, "")).await?.expect(200)?;
        let known = list["items"].as_array().context("no items")?.len();
        let from = text(&list, "/metadata/resourceVersion");
        let path = maps(&api, &format!("?watch=true&resourceVersion={from}"));
        let events = api.watch(&path).await?.take(20 - known).await?;
        ensure!(
            known + events.len() == 20,
            "{known} listed, {} watched",
            events.len()
        );
        Ok(())
    };
    tokio::try_join!(writes, reads)?;
    Ok(())
}

async fn kubes_watcher_follows_with_a_list(api: Scope) -> anyhow::Result<()> {
    follow(api, watcher::Config::default().page_size(2)).await
}

async fn kubes_watcher_follows_with_a_streaming_list(api: Scope) -> anyhow::Result<()> {
    follow(api, watcher::Config::default().streaming_lists()).await
}

async fn follow(api: Scope, config: watcher::Config) -> anyhow::Result<()> {
    for name in ["a", "b", "c"] {
        make(&api, name).await?;
    }
    let maps_api: kube::Api<ConfigMap> = kube::Api::namespaced(api.client(), api.namespace());
    let events = watcher(maps_api, config);
    pin_mut!(events);
    // A streaming list may begin a little before the last write, which then follows as an event.
    let mut kinds = Vec::new();
    let mut names = Vec::new();
    while names.len() < 3 || !kinds.contains(&"ready") {
        let (kind, name) = describe(events.next().await.context("the watcher ended")??);
        kinds.push(kind);
        names.extend(name);
    }
    ensure!(
        kinds[0] == "init" && names == ["a", "b", "c"],
        "{kinds:?} {names:?}"
    );
    make(&api, "d").await?;
    api.delete(&maps(&api, "/a"), Value::Null)
        .await?
        .expect(200)?;
    let rest: Vec<_> = events.take(2).map_ok(describe).try_collect().await?;
    let wanted = [
        ("apply", Some("d".to_owned())),
        ("delete", Some("a".to_owned())),
    ];
    ensure!(rest == wanted, "{rest:?}");
    Ok(())
}

fn describe(event: Event<ConfigMap>) -> (&'static str, Option<String>) {
    match event {
        Event::Init => ("init", None),
        Event::InitApply(map) => ("init apply", map.metadata.name),
        Event::InitDone => ("ready", None),
        Event::Apply(map) => ("apply", map.metadata.name),
        Event::Delete(map) => ("delete", map.metadata.name),
    }
}

async fn a_watch_of_one_namespace_does_not_see_another(api: Scope) -> anyhow::Result<()> {
    let other = api.name("other");
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}});
    api.post("/api/v1/namespaces", body).await?.expect(201)?;
    let from = list_version(&api).await?;
    let query = format!(
        "?watch=true&resourceVersion={from}&labelSelector=set%3D{}",
        api.id()
    );
    let mut one = api.watch(&maps(&api, &query)).await?;
    let mut all = api.watch(&format!("/api/v1/configmaps{query}")).await?;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "elsewhere", "labels": {"set": api.id()}}});
    api.post(&format!("/api/v1/namespaces/{other}/configmaps"), body)
        .await?
        .expect(201)?;
    make(&api, "here").await?;
    ensure!(
        summary(&one.take(1).await?) == ["ADDED here"],
        "the namespace was ignored"
    );
    ensure!(
        summary(&all.take(2).await?) == ["ADDED elsewhere", "ADDED here"],
        "all namespaces"
    );
    Ok(())
}
