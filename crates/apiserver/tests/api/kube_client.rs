//! The API through kube's own client, in this process.

use std::time::Duration;

use bitts_apiserver::ApiServer;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::client::volume;

fn volumes(api: &ApiServer) -> Api<PersistentVolume> {
    Api::all(Client::new(api.service(), "default"))
}

#[tokio::test]
async fn kube_reads_and_writes() {
    let api = ApiServer::default();
    let volumes = volumes(&api);
    let new = serde_json::from_value(volume("v")).unwrap();
    let created = volumes.create(&PostParams::default(), &new).await.unwrap();
    assert!(created.uid().is_some());
    let exists = volumes
        .create(&PostParams::default(), &new)
        .await
        .unwrap_err();
    let kube::Error::Api(status) = exists else {
        panic!("{exists}")
    };
    assert!(status.is_already_exists());
    let patch = Patch::Merge(json!({"status": {"phase": "Available"}}));
    let patched = volumes
        .patch_status("v", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(patched.status.unwrap().phase.as_deref(), Some("Available"));
    let metadata = volumes.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items[0].name_any(), "v");
    let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "PersistentVolume"}));
    let refused = volumes
        .patch("v", &PatchParams::apply("me"), &apply)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("server-side apply"),
        "{refused}"
    );
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn watchers_follow_in_both_modes_and_survive_compaction() {
    for streaming in [false, true] {
        let api = ApiServer::default();
        let volumes = volumes(&api);
        let create = async |name: &str| {
            let new = serde_json::from_value(volume(name)).unwrap();
            volumes.create(&PostParams::default(), &new).await.unwrap();
        };
        create("a").await;
        let config = watcher::Config::default().timeout(1);
        let config = if streaming {
            config.streaming_lists()
        } else {
            config
        };
        let mut events = Box::pin(watcher::watcher(volumes.clone(), config));
        let mut next = async || {
            let event = tokio::time::timeout(Duration::from_secs(10), events.try_next()).await;
            match event.expect("an event in time").unwrap().unwrap() {
                Event::Init => "init".to_owned(),
                Event::InitApply(it) => format!("init {}", it.name_any()),
                Event::InitDone => "done".to_owned(),
                Event::Apply(it) => format!("apply {}", it.name_any()),
                Event::Delete(it) => format!("delete {}", it.name_any()),
            }
        };
        assert_eq!(
            [next().await, next().await, next().await],
            ["init", "init a", "done"]
        );
        create("b").await;
        assert_eq!(next().await, "apply b");
        // Past the watch's one second: it comes back from where it was, without a new list.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        create("c").await;
        assert_eq!(next().await, "apply c", "streaming: {streaming}");
    }
}

#[tokio::test]
async fn kube_starts_again_when_its_version_is_gone() {
    let api = ApiServer::default();
    let volumes = volumes(&api);
    let new = serde_json::from_value(volume("a")).unwrap();
    volumes.create(&PostParams::default(), &new).await.unwrap();
    let mut stream = volumes
        .watch(&Default::default(), "1")
        .await
        .unwrap()
        .boxed();
    assert!(stream.try_next().await.unwrap().is_some());
    api.compact();
    let mut stream = volumes
        .watch(&Default::default(), "1")
        .await
        .unwrap()
        .boxed();
    let event = stream.try_next().await.unwrap().unwrap();
    let kube::api::WatchEvent::Error(status) = event else {
        panic!("{event:?}")
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
}
