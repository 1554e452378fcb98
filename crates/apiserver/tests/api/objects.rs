//! Create, get, update, patch.

use serde_json::json;

use crate::client::{CONFIG_MAPS, Client, PODS, VOLUMES, config_map, pod, volume};

#[tokio::test]
async fn a_new_object_gets_what_the_api_gives() {
    let api = Client::new();
    let mut object = config_map("a");
    object["metadata"]["uid"] = "mine".into();
    object["metadata"]["creationTimestamp"] = "1999-01-01T00:00:00Z".into();
    object["metadata"]["managedFields"] = json!([{"manager": "me"}]);
    let created = api.post(CONFIG_MAPS, &object).await.expect(201);
    let metadata = &created.body["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["creationTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata.get("managedFields").is_none() && metadata.get("generation").is_none());
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(api.get(&path).await.expect(200).body, created.body);
    let pod = api.post(PODS, &pod("p")).await.expect(201);
    assert_eq!(pod.body["metadata"]["generation"], 1);
}

#[tokio::test]
async fn refusals_say_what_the_api_says() {
    let api = Client::new();
    let missing = api.get(&format!("{VOLUMES}/x")).await.expect(404);
    assert_eq!(missing.message(), "persistentvolumes \"x\" not found");
    assert_eq!(missing.body["reason"], "NotFound");
    assert_eq!(
        missing.body["details"],
        json!({"name": "x", "kind": "persistentvolumes"})
    );
    let class = api
        .get("/apis/storage.k8s.io/v1/storageclasses/fast")
        .await
        .expect(404);
    assert_eq!(
        class.message(),
        "storageclasses.storage.k8s.io \"fast\" not found"
    );

    api.config_maps(&["a"]).await;
    let again = api.post(CONFIG_MAPS, &config_map("a")).await.expect(409);
    assert_eq!(again.message(), "configmaps \"a\" already exists");
    assert_eq!(again.body["reason"], "AlreadyExists");

    let nowhere = api
        .post("/api/v1/namespaces/none/configmaps", &config_map("a"))
        .await
        .expect(404);
    assert_eq!(nowhere.message(), "namespaces \"none\" not found");
    let elsewhere = json!({"metadata": {"name": "b", "namespace": "kube-system"}});
    let elsewhere = api.post(CONFIG_MAPS, &elsewhere).await.expect(400);
    assert_eq!(
        elsewhere.message(),
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let mut versioned = config_map("c");
    versioned["metadata"]["resourceVersion"] = "4".into();
    let versioned = api.post(CONFIG_MAPS, &versioned).await.expect(500);
    assert_eq!(
        versioned.message(),
        "resourceVersion should not be set on objects to be created"
    );
    api.send(
        "POST",
        CONFIG_MAPS,
        &[("content-type", "application/vnd.kubernetes.protobuf")],
        "x",
    )
    .await
    .expect(415);
    api.send(
        "GET",
        CONFIG_MAPS,
        &[("accept", "application/vnd.kubernetes.protobuf")],
        "",
    )
    .await
    .expect(406);
    api.send("POST", CONFIG_MAPS, &[], "{").await.expect(400);
}

#[tokio::test]
async fn generated_names_are_free_and_repeat_with_the_seed() {
    let object = json!({"metadata": {"generateName": "pv-"}});
    let (one, two) = (Client::new(), Client::new());
    let mut names = Vec::new();
    for _ in 0..20 {
        let name = |answer: crate::client::Answer| {
            answer.body["metadata"]["name"].as_str().unwrap().to_owned()
        };
        let a = name(one.post(CONFIG_MAPS, &object).await.expect(201));
        assert_eq!(a, name(two.post(CONFIG_MAPS, &object).await.expect(201)));
        assert!(a.starts_with("pv-") && a.len() == 8, "{a}");
        assert!(!names.contains(&a));
        names.push(a);
    }
}

#[tokio::test]
async fn a_stale_or_mistaken_write_is_a_conflict() {
    let api = Client::new();
    let path = format!("{CONFIG_MAPS}/a");
    let first = api
        .post(CONFIG_MAPS, &config_map("a"))
        .await
        .expect(201)
        .body;
    let mut newer = first.clone();
    newer["data"] = json!({"k": "w"});
    api.put(&path, &newer).await.expect(200);
    let stale = api.put(&path, &newer).await.expect(409);
    assert_eq!(
        stale.message(),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    assert_eq!(
        stale.body["details"],
        json!({"name": "a", "kind": "configmaps"})
    );
    let version = json!({"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}});
    api.merge(&path, &version).await.expect(409);

    let mut other = config_map("a");
    other["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000".into();
    let other = api.put(&path, &other).await.expect(409);
    assert!(
        other
            .message()
            .contains("Precondition failed: UID in precondition: 00000000"),
        "{}",
        other.message()
    );

    // Without version and uid a PUT overwrites, where the kind allows that.
    api.put(&path, &config_map("a")).await.expect(200);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "l"}});
    api.post(leases, &lease).await.expect(201);
    let refused = api.put(&format!("{leases}/l"), &lease).await.expect(422);
    assert!(
        refused
            .message()
            .contains("metadata.resourceVersion: Invalid value: 0"),
        "{}",
        refused.message()
    );
    api.put(&path, &config_map("b")).await.expect(400);
    api.put(&format!("{CONFIG_MAPS}/none"), &config_map("none"))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_none() {
    let api = Client::new();
    let path = format!("{CONFIG_MAPS}/a");
    let first = api.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let same = api
        .merge(&path, &json!({"data": {"k": "v"}}))
        .await
        .expect(200);
    assert_eq!(same.version(), first.version());
    let changed = api
        .merge(&path, &json!({"data": {"k": "w"}}))
        .await
        .expect(200);
    assert_ne!(changed.version(), first.version());
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let api = Client::new();
    let path = format!("{VOLUMES}/v");
    let status = format!("{path}/status");
    api.post(VOLUMES, &volume("v")).await.expect(201);
    let body = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Available"},
    });
    let main = api.merge(&path, &body).await.expect(200).body;
    assert_eq!(main["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert_ne!(main["status"]["phase"], "Available");
    let body = json!({
        "spec": {"persistentVolumeReclaimPolicy": "Retain"}, "status": {"phase": "Available"},
    });
    let after = api.merge(&status, &body).await.expect(200).body;
    assert_eq!(after["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(after["status"]["phase"], "Available");
    let mut whole = after.clone();
    whole["status"]["phase"] = "Failed".into();
    whole["metadata"]["labels"] = json!({});
    let put = api.put(&status, &whole).await.expect(200).body;
    assert_eq!(put["status"]["phase"], "Failed");
    assert_eq!(api.get(&status).await.expect(200).body, put);
    let class = "/apis/storage.k8s.io/v1/storageclasses/x/status";
    api.merge(class, &json!({})).await.expect(404);
}

#[tokio::test]
async fn patches_come_in_three_forms_and_a_refused_fourth() {
    let api = Client::new();
    let path = format!("{CONFIG_MAPS}/a");
    api.config_maps(&["a"]).await;
    let json_patch = "application/json-patch+json";
    let add = json!([{"op": "add", "path": "/data/n", "value": "1"}]);
    assert_eq!(
        api.patch(json_patch, &path, &add).await.expect(200).body["data"]["n"],
        "1"
    );
    let test = json!([{"op": "test", "path": "/data/n", "value": "2"}]);
    let failed = api.patch(json_patch, &path, &test).await.expect(422);
    assert_eq!(failed.body["reason"], "Invalid");
    api.patch(json_patch, &path, &json!({"not": "a list"}))
        .await
        .expect(400);

    let strategic = "application/strategic-merge-patch+json";
    let body = json!({"data": {"n": null, "m": "2"}});
    let data = api.patch(strategic, &path, &body).await.expect(200).body["data"].clone();
    assert_eq!(data, json!({"k": "v", "m": "2"}));

    let apply = api
        .patch("application/apply-patch+yaml", &path, &config_map("a"))
        .await
        .expect(415);
    assert!(apply.message().contains("server-side apply"));
    api.patch("text/plain", &path, &json!({})).await.expect(415);
    api.merge(&format!("{CONFIG_MAPS}/none"), &json!({}))
        .await
        .expect(404);
}

#[tokio::test]
async fn unknown_fields_are_met_as_asked() {
    let api = Client::new();
    let mut object = config_map("a");
    object["dataa"] = json!({});
    let strict = api
        .post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), &object)
        .await
        .expect(400);
    assert_eq!(
        strict.message(),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dataa\""
    );
    let warned = api.post(CONFIG_MAPS, &object).await.expect(201);
    assert_eq!(
        warned.headers["warning"],
        "299 - \"unknown field \\\"dataa\\\"\""
    );
    assert!(warned.body.get("dataa").is_none());
    let patch = json!({"dataa": 1});
    let strict = format!("{CONFIG_MAPS}/a?fieldValidation=Strict");
    assert!(
        api.merge(&strict, &patch)
            .await
            .expect(422)
            .message()
            .contains("unknown field \"dataa\"")
    );
    object["data"] = "text".into();
    api.post(&format!("{CONFIG_MAPS}?fieldValidation=Ignore"), &object)
        .await
        .expect(400);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let api = Client::new();
    let before = api.0.revision();
    api.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a"))
        .await
        .expect(201);
    api.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    assert_eq!(api.0.revision(), before);
    api.config_maps(&["a"]).await;
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    assert_eq!(
        api.merge(&path, &json!({"data": {"k": "w"}}))
            .await
            .expect(200)
            .body["data"]["k"],
        "w"
    );
    api.delete(&path).await.expect(200);
    assert_eq!(
        api.get(&format!("{CONFIG_MAPS}/a")).await.expect(200).body["data"]["k"],
        "v"
    );
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Client::new();
    let mut object = pod("p");
    object["spec"].as_object_mut().unwrap().remove("nodeName");
    api.post(PODS, &object).await.expect(201);
    let path = format!("{PODS}/p/binding");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    api.post(&path, &binding).await.expect(201);
    let bound = api.get(&format!("{PODS}/p")).await.body;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let again = api.post(&path, &binding).await.expect(409);
    assert!(
        again
            .message()
            .contains("is already assigned to node \"n1\"")
    );
}

#[tokio::test]
async fn health_and_version_answer() {
    let api = Client::new();
    for path in ["/healthz", "/readyz", "/livez", "/readyz/ping"] {
        assert_eq!(api.get(path).await.expect(200).body, "ok");
    }
    let version = api.get("/version").await.expect(200).body;
    assert!(
        version["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.37.")
    );
    api.get("/nonsense").await.expect(404);
}
