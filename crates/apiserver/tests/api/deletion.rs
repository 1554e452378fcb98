//! Delete: preconditions, finalizers, grace, namespaces.

use serde_json::{Value, json};

use crate::client::{CONFIG_MAPS, Client, PODS, VOLUMES, config_map, pod, volume};

async fn delete(api: &Client, path: &str, options: Value) -> crate::client::Answer {
    api.send(
        "DELETE",
        path,
        &[("content-type", "application/json")],
        &options.to_string(),
    )
    .await
}

#[tokio::test]
async fn preconditions_name_one_object() {
    let api = Client::new();
    let path = format!("{CONFIG_MAPS}/a");
    let created = api.post(CONFIG_MAPS, &config_map("a")).await.body;
    let (uid, version) = (
        &created["metadata"]["uid"],
        &created["metadata"]["resourceVersion"],
    );
    let refused = delete(&api, &path, json!({"preconditions": {"uid": "x"}}))
        .await
        .expect(409);
    assert_eq!(
        refused.message(),
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (x) does not match the UID in record ({}). The object might have been deleted and then recreated",
            uid.as_str().unwrap()
        )
    );
    delete(
        &api,
        &path,
        json!({"preconditions": {"resourceVersion": "1"}}),
    )
    .await
    .expect(409);
    let options = json!({"preconditions": {"uid": uid, "resourceVersion": version}});
    let gone = delete(&api, &path, options).await.expect(200);
    assert_eq!(gone.body["status"], "Success");
    assert_eq!(gone.body["details"]["uid"], *uid);
    api.delete(&path).await.expect(404);
}

#[tokio::test]
async fn a_finalizer_holds_until_it_is_removed() {
    let api = Client::new();
    let path = format!("{VOLUMES}/v");
    let mut object = volume("v");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.post(VOLUMES, &object).await.expect(201);
    let mut watch = api
        .watch(&format!(
            "{VOLUMES}?watch=1&resourceVersion={}",
            api.0.revision()
        ))
        .await;
    let marked = api.delete(&path).await.expect(200);
    assert_eq!(
        marked.body["metadata"]["deletionTimestamp"],
        "2026-01-02T03:04:05Z"
    );
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = api.delete(&path).await.expect(200);
    assert_eq!(
        again.version(),
        marked.version(),
        "a second delete changes nothing"
    );
    let freed = api
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    api.get(&path).await.expect(404);
    assert_eq!(watch.lines(3).await, ["MODIFIED v", "DELETED v", "Silence"]);
    assert_eq!(freed.version(), api.0.revision().to_string());
}

#[tokio::test]
async fn a_running_pod_gets_its_grace() {
    let api = Client::new();
    let path = format!("{PODS}/p");
    let mut object = pod("p");
    object["spec"]["terminationGracePeriodSeconds"] = 30.into();
    api.post(PODS, &object).await.expect(201);
    let marked = api.delete(&path).await.expect(200).body;
    assert_eq!(
        marked["metadata"]["deletionTimestamp"],
        "2026-01-02T03:04:35Z"
    );
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["generation"], 2);
    let shorter = delete(&api, &path, json!({"gracePeriodSeconds": 5}))
        .await
        .expect(200)
        .body;
    assert_eq!(
        shorter["metadata"]["deletionTimestamp"],
        "2026-01-02T03:04:10Z"
    );
    let longer = delete(&api, &path, json!({"gracePeriodSeconds": 60}))
        .await
        .expect(200)
        .body;
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    delete(&api, &path, json!({"gracePeriodSeconds": 0}))
        .await
        .expect(200);
    api.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_pod_that_does_not_run_goes_at_once() {
    let api = Client::new();
    let mut object = pod("unscheduled");
    object["spec"].as_object_mut().unwrap().remove("nodeName");
    api.post(PODS, &object).await.expect(201);
    api.delete(&format!("{PODS}/unscheduled")).await.expect(200);
    api.get(&format!("{PODS}/unscheduled")).await.expect(404);
    api.post(PODS, &pod("done")).await.expect(201);
    let status = json!({"status": {"phase": "Succeeded"}});
    api.merge(&format!("{PODS}/done/status"), &status)
        .await
        .expect(200);
    api.delete(&format!("{PODS}/done")).await.expect(200);
    api.get(&format!("{PODS}/done")).await.expect(404);
}

#[tokio::test]
async fn a_collection_goes_by_selector() {
    let api = Client::new();
    for (name, app) in [("a", "web"), ("b", "web"), ("c", "db")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"app": app});
        api.post(CONFIG_MAPS, &object).await.expect(201);
    }
    let gone = api
        .delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dweb"))
        .await
        .expect(200);
    assert_eq!(gone.names(), ["a", "b"]);
    assert_eq!(api.get(CONFIG_MAPS).await.names(), ["c"]);
}

#[tokio::test]
async fn a_namespace_takes_nothing_new_on_its_way_out() {
    let api = Client::new();
    let path = "/api/v1/namespaces/a";
    let namespace = json!({"metadata": {"name": "a"}});
    let created = api
        .post("/api/v1/namespaces", &namespace)
        .await
        .expect(201)
        .body;
    assert_eq!(created["status"]["phase"], "Active");
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(
        created["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "a"
    );
    let leaving = api.delete(path).await.expect(200).body;
    assert_eq!(leaving["status"]["phase"], "Terminating");
    let refused = api
        .post("/api/v1/namespaces/a/configmaps", &config_map("x"))
        .await
        .expect(403);
    assert_eq!(
        refused.message(),
        "configmaps \"x\" is forbidden: unable to create new content in namespace a because it is being terminated"
    );
    assert_eq!(
        refused.body["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    let mut last = leaving.clone();
    last["spec"]["finalizers"] = json!([]);
    api.put(&format!("{path}/finalize"), &last)
        .await
        .expect(200);
    api.get(path).await.expect(404);
}

#[tokio::test]
async fn options_that_contradict_are_refused() {
    let api = Client::new();
    api.config_maps(&["a"]).await;
    let path = format!("{CONFIG_MAPS}/a");
    delete(&api, &path, json!({"propagationPolicy": "Sideways"}))
        .await
        .expect(422);
    let both = json!({"propagationPolicy": "Orphan", "orphanDependents": true});
    delete(&api, &path, both).await.expect(422);
    delete(&api, &path, json!({"gracePeriodSeconds": "soon"}))
        .await
        .expect(400);
    api.get(&path).await.expect(200);
}
