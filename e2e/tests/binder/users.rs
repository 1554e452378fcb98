//! Who uses what, on both APIs: claims that are made for pods, claims that tell whether pods refer to
//! them, and what stays because something names it.

use anyhow::ensure;
use bitts_e2e::cluster::{Kind, Scope};
use bitts_e2e::raw::text;
use bitts_e2e::suite::{Manner, Suite};
use bitts_e2e::tripwire::Passing;
use serde_json::{Value, json};

use crate::scene::{beside_the_binder, claim, is_bound, pods, until};

pub(crate) fn add(suite: &mut Suite) {
    let (both, alone) = (Kind::BOTH, Manner::Alone);
    suite.add(
        "binder::an_ephemeral_volume_gets_its_claim",
        both,
        alone,
        an_ephemeral_volume_gets_its_claim,
    );
    suite.add(
        "binder::a_foreign_claim_is_no_ephemeral_one",
        both,
        alone,
        a_foreign_claim_is_no_ephemeral_one,
    );
    suite.add(
        "binder::a_claim_tells_whether_pods_refer_to_it",
        both,
        alone,
        a_claim_tells_whether_pods_refer_to_it,
    );
    suite.add(
        "binder::an_attributes_class_outlives_its_last_user",
        both,
        alone,
        an_attributes_class_outlives_its_last_user,
    );
    suite.add(
        "binder::claims_deleted_together_share_a_look",
        both,
        alone,
        claims_deleted_together_share_a_look,
    );
}

/// The condition `Unused`: status, reason and since when.
fn unused(claim: &Value) -> (&str, &str, &str) {
    let all = claim["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|c| c["type"] == "Unused");
    found.map_or(("", "", ""), |c| {
        (
            text(c, "/status"),
            text(c, "/reason"),
            text(c, "/lastTransitionTime"),
        )
    })
}

async fn volume(api: &Scope, attributes_class: Option<&str>) -> anyhow::Result<()> {
    let mut body = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": api.name("v")},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": api.name("class"),
            "csi": {"driver": "csi.example.com", "volumeHandle": api.name("h")},
        },
    });
    if let Some(class) = attributes_class {
        body["spec"]["volumeAttributesClassName"] = json!(class);
    }
    api.post("/api/v1/persistentvolumes", body)
        .await?
        .expect(201)?;
    Ok(())
}

fn claim_spec(api: &Scope) -> Value {
    json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": api.name("class"),
        "resources": {"requests": {"storage": "1Gi"}},
    })
}

async fn pod(api: &Scope, volume: Value) -> anyhow::Result<Value> {
    let mut volume = volume;
    volume["name"] = json!("d");
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "x", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
        "volumes": [volume],
    }});
    api.post(&pods(api, ""), body).await?.expect(201)
}

fn ephemeral(api: &Scope) -> Value {
    json!({"ephemeral": {"volumeClaimTemplate": {
        "metadata": {"labels": {"a": "b"}}, "spec": claim_spec(api),
    }}})
}

/// X9
async fn an_ephemeral_volume_gets_its_claim(api: Scope) -> anyhow::Result<()> {
    volume(&api, None).await?;
    beside_the_binder(&api, async |_| {
        let pod = pod(&api, ephemeral(&api)).await?;
        let claim = until(&api, &api.claims("/p-d"), "its claim is Bound", is_bound).await?;
        let owner = json!([{
            "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }]);
        ensure!(claim["metadata"]["ownerReferences"] == owner, "{claim}");
        ensure!(claim["metadata"]["labels"] == json!({"a": "b"}), "{claim}");
        ensure!(unused(&claim).0 == "False", "{claim}");
        Ok(())
    })
    .await
}

/// X9, N9
async fn a_foreign_claim_is_no_ephemeral_one(api: Scope) -> anyhow::Result<()> {
    let foreign = claim(&api, "p-d", claim_spec(&api)).await?;
    beside_the_binder(&api, async |_| {
        pod(&api, ephemeral(&api)).await?;
        let events = format!("/api/v1/namespaces/{}/events", api.namespace());
        let about_the_pod = |events: &Value| {
            let all = events["items"].as_array().into_iter().flatten();
            all.filter(|e| e["involvedObject"]["kind"] == "Pod")
                .cloned()
                .collect::<Vec<_>>()
        };
        let told = until(&api, &events, "the pod is told", |all| {
            !about_the_pod(all).is_empty()
        });
        let told = about_the_pod(&told.await?);
        ensure!(told.len() == 1, "{told:?}");
        ensure!(
            told[0]["reason"] == "FailedBinding" && told[0]["type"] == "Warning",
            "{told:?}"
        );
        ensure!(
            told[0]["source"]["component"] == "ephemeral_volume",
            "{told:?}"
        );
        let ns = api.namespace();
        let message = format!(
            "ephemeral volume d: PVC {ns}/p-d was not created for pod {ns}/p (pod is not owner)"
        );
        ensure!(told[0]["message"] == message.as_str(), "{told:?}");
        // It goes, and the pod gets its own.
        api.delete(&api.claims("/p-d"), Value::Null)
            .await?
            .expect(200)?;
        until(
            &api,
            &api.claims("/p-d"),
            "the pod has its own claim",
            |claim| !claim.is_null() && claim["metadata"]["uid"] != foreign["metadata"]["uid"],
        )
        .await?;
        Ok(())
    })
    .await
}

/// X5
async fn a_claim_tells_whether_pods_refer_to_it(api: Scope) -> anyhow::Result<()> {
    volume(&api, None).await?;
    claim(&api, "c", claim_spec(&api)).await?;
    beside_the_binder(&api, async |wire| {
        let path = api.claims("/c");
        let bound = until(&api, &path, "it is Bound", is_bound).await?;
        ensure!(
            unused(&bound).0 == "True" && unused(&bound).1 == "NoPodsUsingPVC",
            "{bound}"
        );
        ensure!(!unused(&bound).2.is_empty(), "since when: {bound}");
        let of_claim = |p: &&Passing| p.line.contains("/persistentvolumeclaims/");
        let writes = wire.passed().iter().filter(of_claim).count();
        ensure!(
            writes == 2,
            "told with the last of the four writes, not by a fifth: {writes} of the claim"
        );

        pod(&api, json!({"persistentVolumeClaim": {"claimName": "c"}})).await?;
        let used = |c: &Value| unused(c).0 == "False" && unused(c).1 == "PodUsingPVC";
        until(&api, &path, "a pod refers to it", used).await?;
        let ended = json!({"status": {"phase": "Succeeded"}});
        api.merge(&pods(&api, "/p/status"), ended)
            .await?
            .expect(200)?;
        until(&api, &path, "the pod ended", |c| unused(c).0 == "True").await?;
        Ok(())
    })
    .await
}

/// X8
async fn an_attributes_class_outlives_its_last_user(api: Scope) -> anyhow::Result<()> {
    const CLASSES: &str = "/apis/storage.k8s.io/v1/volumeattributesclasses";
    let name = api.name("gold");
    let class = format!("{CLASSES}/{name}");
    let body = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
        "metadata": {"name": name}, "driverName": "csi.example.com", "parameters": {"iops": "1"}});
    api.post(CLASSES, body).await?.expect(201)?;
    volume(&api, Some(&name)).await?;
    let mut spec = claim_spec(&api);
    spec["volumeAttributesClassName"] = json!(name);
    claim(&api, "c", spec).await?;
    beside_the_binder(&api, async |wire| {
        let claim = until(&api, &api.claims("/c"), "it is Bound", is_bound).await?;
        ensure!(
            text(&claim, "/status/currentVolumeAttributesClassName") == name,
            "{claim}"
        );
        until(&api, &class, "it is protected", |c| {
            c["metadata"]["finalizers"] == json!(["kubernetes.io/vac-protection"])
        })
        .await?;
        api.delete(&class, Value::Null).await?;
        api.delete(&api.claims("/c"), Value::Null).await?;
        until(&api, &api.claims("/c"), "the claim is gone", Value::is_null).await?;
        until(&api, &api.volume("v", ""), "it is Released", |v| {
            text(v, "/status/phase") == "Released"
        })
        .await?;
        let held = api.get(&class).await?.expect(200)?;
        ensure!(
            !text(&held, "/metadata/deletionTimestamp").is_empty(),
            "{held}"
        );
        let lifts = || {
            wire.passed()
                .iter()
                .filter(|p| p.line == format!("PATCH {class}"))
                .count()
        };
        let before = lifts();
        api.delete(&api.volume("v", ""), Value::Null).await?;
        until(
            &api,
            &class,
            "it is gone with its last user",
            Value::is_null,
        )
        .await?;
        ensure!(lifts() == before + 1);
        Ok(())
    })
    .await
}

/// Section 13, weakness 24: kube-controller-manager lists all pods of the namespace again and again.
async fn claims_deleted_together_share_a_look(api: Scope) -> anyhow::Result<()> {
    const CLAIMS: usize = 500;
    let named = |n: usize| format!("c{n}");
    for n in 0..CLAIMS {
        claim(&api, &named(n), claim_spec(&api)).await?;
    }
    beside_the_binder(&api, async |wire| {
        let list = |claims: &Value| claims["items"].as_array().map_or(0, Vec::len);
        until(&api, &api.claims(""), "all are there", |all| {
            list(all) == CLAIMS
        })
        .await?;
        api.delete(&api.claims(""), Value::Null)
            .await?
            .expect(200)?;
        until(&api, &api.claims(""), "all are gone", |all| list(all) == 0).await?;
        let looks = format!("GET {}", pods(&api, ""));
        let looks = wire.reads().iter().filter(|line| **line == looks).count();
        println!("{CLAIMS} claims were let go on {looks} looks at the pods");
        ensure!(
            (1..=CLAIMS / 5).contains(&looks),
            "{looks} looks for {CLAIMS} claims"
        );
        Ok(())
    })
    .await
}
