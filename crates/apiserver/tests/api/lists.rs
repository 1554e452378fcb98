//! List: selectors, pages, versions, forms.

use serde_json::json;

use crate::client::{CONFIG_MAPS, Client, PODS, config_map, pod};

#[tokio::test]
async fn pages_show_one_revision() {
    let api = Client::new();
    api.config_maps(&["a", "b", "c", "d", "e"]).await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(first.names(), ["a", "b"]);
    assert_eq!(first.body["metadata"]["remainingItemCount"], 3);
    api.delete(&format!("{CONFIG_MAPS}/c")).await.expect(200);
    api.config_maps(&["bb"]).await;
    let next = |token: &str| format!("{CONFIG_MAPS}?limit=2&continue={token}");
    let token = first.body["metadata"]["continue"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = api.get(&next(&token)).await.expect(200);
    assert_eq!(second.names(), ["c", "d"]);
    assert_eq!(second.version(), first.version());
    assert_eq!(second.body["metadata"]["remainingItemCount"], 1);
    let third = api
        .get(&next(second.body["metadata"]["continue"].as_str().unwrap()))
        .await;
    assert_eq!(third.names(), ["e"]);
    assert!(third.body["metadata"].get("continue").is_none());

    api.0.compact();
    let late = api.get(&next(&token)).await.expect(410);
    assert_eq!(late.body["reason"], "Expired");
    let fresh = late.body["metadata"]["continue"].as_str().unwrap();
    assert_eq!(api.get(&next(fresh)).await.expect(200).names(), ["bb", "d"]);
    api.get(&next("nonsense")).await.expect(400);
    api.get(&format!("{}&resourceVersion=3", next(&token)))
        .await
        .expect(400);
}

#[tokio::test]
async fn versions_of_a_list_mean_what_they_say() {
    let api = Client::new();
    api.config_maps(&["a"]).await;
    let then = api.0.revision();
    api.config_maps(&["b"]).await;
    let list = |query: String| format!("{CONFIG_MAPS}?{query}");
    let exact = api
        .get(&list(format!(
            "resourceVersion={then}&resourceVersionMatch=Exact"
        )))
        .await;
    assert_eq!(exact.names(), ["a"]);
    assert_eq!(exact.version(), then.to_string());
    let newer = list(format!(
        "resourceVersion={then}&resourceVersionMatch=NotOlderThan"
    ));
    assert_eq!(api.get(&newer).await.names(), ["a", "b"]);
    assert_eq!(
        api.get(&list("resourceVersion=0".into())).await.names(),
        ["a", "b"]
    );
    let future = api
        .get(&list("resourceVersion=9999".into()))
        .await
        .expect(504);
    assert_eq!(
        future.body["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    assert_eq!(future.headers["retry-after"], "1");
    api.0.compact();
    api.get(&list(format!(
        "resourceVersion={then}&resourceVersionMatch=Exact"
    )))
    .await
    .expect(410);
}

#[tokio::test]
async fn selectors_choose() {
    let api = Client::new();
    for (name, node) in [("p1", "n1"), ("p2", "n2")] {
        let mut object = pod(name);
        object["spec"]["nodeName"] = node.into();
        object["metadata"]["labels"] = json!({"node": node});
        api.post(PODS, &object).await.expect(201);
    }
    let names = async |query: &str| {
        let answer = api.get(&format!("/api/v1/pods?{query}")).await.expect(200);
        answer.names().join(" ")
    };
    assert_eq!(names("fieldSelector=spec.nodeName%3Dn1").await, "p1");
    assert_eq!(
        names("fieldSelector=metadata.name%3Dp2,metadata.namespace%3Ddefault").await,
        "p2"
    );
    assert_eq!(
        names("labelSelector=node+in+(n1,n2),node!%3Dn1").await,
        "p2"
    );
    assert_eq!(names("labelSelector=node&limit=1").await, "p1");
    let unsupported = api
        .get("/api/v1/pods?fieldSelector=spec.volumes%3Dx")
        .await
        .expect(400);
    assert!(
        unsupported
            .message()
            .contains("field label not supported: spec.volumes")
    );
}

#[tokio::test]
async fn lists_and_metadata_have_their_forms() {
    let api = Client::new();
    api.config_maps(&["a"]).await;
    let list = api.get(CONFIG_MAPS).await.body;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("ConfigMapList"), &json!("v1"))
    );
    assert!(list["items"][0].get("kind").is_none());
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let partial = api
        .send("GET", CONFIG_MAPS, &[("accept", accept)], "")
        .await
        .body;
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["metadata"]["name"], "a");
    assert!(partial["items"][0].get("data").is_none());
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let one = api
        .send(
            "GET",
            &format!("{CONFIG_MAPS}/a"),
            &[("accept", accept)],
            "",
        )
        .await
        .body;
    assert_eq!(one["kind"], "PartialObjectMetadata");
    let pretty = api
        .send("GET", &format!("{CONFIG_MAPS}/a?pretty=true"), &[], "")
        .await
        .body;
    assert_eq!(pretty["metadata"]["name"], "a");
}

#[tokio::test]
async fn a_namespace_lists_only_its_own() {
    let api = Client::new();
    api.config_maps(&["a"]).await;
    let system = "/api/v1/namespaces/kube-system/configmaps";
    api.post(system, &config_map("b")).await.expect(201);
    assert_eq!(api.get(system).await.names(), ["b"]);
    assert_eq!(api.get("/api/v1/configmaps").await.names(), ["a", "b"]);
    assert_eq!(
        api.get("/api/v1/namespaces/none/configmaps").await.names(),
        [""; 0]
    );
}
