//! What stands in for the controllers beside a real API.

use std::time::Duration;

use bitts_apiserver::Collector;
use serde_json::{Value, json};

use crate::client::{CONFIG_MAPS, Client, config_map};

fn owned(name: &str, owner: &Value) -> Value {
    let mut object = config_map(name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true,
    }]);
    object
}

async fn family(api: &Client) {
    let owner = api
        .post(CONFIG_MAPS, &config_map("owner"))
        .await
        .expect(201)
        .body;
    let child = api
        .post(CONFIG_MAPS, &owned("child", &owner))
        .await
        .expect(201)
        .body;
    api.post(CONFIG_MAPS, &owned("grandchild", &child))
        .await
        .expect(201);
    api.config_maps(&["stranger"]).await;
}

#[tokio::test]
async fn nothing_is_collected_without_a_collector() {
    let api = Client::new();
    family(&api).await;
    api.delete(&format!("{CONFIG_MAPS}/owner"))
        .await
        .expect(200);
    assert_eq!(
        api.get(CONFIG_MAPS).await.names(),
        ["child", "grandchild", "stranger"]
    );
    api.0.collect();
    assert_eq!(api.get(CONFIG_MAPS).await.names(), ["stranger"]);
}

#[tokio::test]
async fn foreground_waits_and_orphans_stay() {
    let api = Client::new();
    family(&api).await;
    let path = |policy: &str| format!("{CONFIG_MAPS}/owner?propagationPolicy={policy}");
    let waiting = api.delete(&path("Foreground")).await.expect(200);
    assert_eq!(
        waiting.body["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    api.0.collect();
    assert_eq!(api.get(CONFIG_MAPS).await.names(), ["stranger"]);

    let api = Client::new();
    family(&api).await;
    api.delete(&path("Orphan")).await.expect(200);
    api.0.collect();
    assert_eq!(
        api.get(CONFIG_MAPS).await.names(),
        ["child", "grandchild", "stranger"]
    );
    let child = api.get(&format!("{CONFIG_MAPS}/child")).await.body;
    assert!(child["metadata"].get("ownerReferences").is_none());
}

#[tokio::test]
async fn a_namespace_goes_with_what_is_in_it() {
    let api = Client::new();
    let _collector = Collector::start(&api.0);
    api.post("/api/v1/namespaces", &json!({"metadata": {"name": "a"}}))
        .await
        .expect(201);
    let inside = "/api/v1/namespaces/a/configmaps";
    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.post(inside, &held).await.expect(201);
    api.post(inside, &config_map("free")).await.expect(201);
    api.delete("/api/v1/namespaces/a").await.expect(200);
    let mut patience = 100;
    while api.get(inside).await.names() != ["held"] {
        patience -= 1;
        assert!(patience > 0, "the free object stayed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    api.get("/api/v1/namespaces/a").await.expect(200);
    let free = json!({"metadata": {"finalizers": null}});
    api.merge(&format!("{inside}/held"), &free)
        .await
        .expect(200);
    while api.get("/api/v1/namespaces/a").await.code != 404 {
        patience -= 1;
        assert!(patience > 0, "the namespace stayed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
