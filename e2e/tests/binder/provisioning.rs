//! Claims that are handed to external provisioners, on both APIs.

use std::time::Duration;

use anyhow::ensure;
use bitts_e2e::cluster::{Kind, Scope};
use bitts_e2e::raw::text;
use bitts_e2e::suite::{Manner, Suite};
use serde_json::{Value, json};

use crate::provisioner::{HAND_OVER, Provisioner};
use crate::scene::{
    CLASSES, beside_the_binder, claim, class, events_about, is_bound, of_class, until, until_told,
};

pub(crate) fn add(suite: &mut Suite) {
    suite.add(
        "binder::a_claim_is_handed_over_once",
        Kind::BOTH,
        Manner::Alone,
        a_claim_is_handed_over_once,
    );
    suite.add(
        "binder::a_claim_without_a_class_gets_the_default_and_a_volume",
        Kind::BOTH,
        Manner::Alone,
        a_claim_without_a_class_gets_the_default_and_a_volume,
    );
}

/// P12, section 13, weakness 48: the claim is told once whom it waits for, however long it takes and
/// whatever else happens to it; kube-controller-manager tells it every 15 seconds.
async fn a_claim_is_handed_over_once(api: Scope) -> anyhow::Result<()> {
    let name = api.name("example.com/disk");
    class(&api, "class", json!({"provisioner": name})).await?;
    claim(&api, "c", of_class(&api, "class")).await?;
    beside_the_binder(&api, async |wire| {
        let path = api.claims("/c");
        until_told(&api, "c", "ExternalProvisioning").await?;
        let handed = |c: &Value| HAND_OVER.iter().all(|at| text(c, at) == name);
        let handed = until(&api, &path, "both annotations name it", handed).await?;
        ensure!(text(&handed, "/status/phase") == "Pending", "{handed}");
        for edit in ["1", "2", "3"] {
            let body = json!({"metadata": {"labels": {"edit": edit}}});
            api.merge(&path, body).await?.expect(200)?;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let told = events_about(&api, "c").await?;
        ensure!(
            told.len() == 1 && told[0]["count"] == json!(1),
            "told again: {told:?}"
        );
        let writes = wire.passed();
        let of_claim = writes.iter().filter(|p| p.line == format!("PATCH {path}"));
        ensure!(of_claim.count() == 1, "both annotations in one write");

        let provisioner = Provisioner::new(&api, &name, false);
        tokio::select! {
            served = provisioner.serve(None) => served,
            bound = until(&api, &path, "it is Bound", is_bound) => {
                let volume = format!("pvc-{}", text(&bound?, "/metadata/uid"));
                let claim = api.get(&path).await?.expect(200)?;
                ensure!(text(&claim, "/spec/volumeName") == volume, "{claim}");
                Ok(())
            }
        }
    })
    .await
}

/// P13, B10.1: at once, not 15 seconds after the class became the default.
async fn a_claim_without_a_class_gets_the_default_and_a_volume(api: Scope) -> anyhow::Result<()> {
    let name = api.name("example.com/disk");
    let mut spec = of_class(&api, "class");
    spec["storageClassName"] = Value::Null;
    claim(&api, "c", spec).await?;
    let story = beside_the_binder(&api, async |_| {
        let path = api.claims("/c");
        let told = until_told(&api, "c", "FailedBinding").await?;
        ensure!(told.len() == 1, "{told:?}");
        let default = json!({"name": api.name("class"), "annotations":
            {"storageclass.kubernetes.io/is-default-class": "true"}});
        class(
            &api,
            "class",
            json!({"provisioner": name, "metadata": default}),
        )
        .await?;
        let provisioner = Provisioner::new(&api, &name, false);
        tokio::select! {
            served = provisioner.serve(None) => served,
            bound = until(&api, &path, "it is Bound", is_bound) => {
                let claim = bound?;
                ensure!(text(&claim, "/spec/storageClassName") == api.name("class"), "{claim}");
                let told = events_about(&api, "c").await?;
                let reasons: Vec<_> = told.iter().map(|e| text(e, "/reason")).collect();
                ensure!(reasons == ["FailedBinding", "ExternalProvisioning"], "{reasons:?}");
                Ok(())
            }
        }
    })
    .await;
    // Others would get it, too.
    let class = format!("{CLASSES}/{}", api.name("class"));
    api.delete(&class, Value::Null).await?;
    story
}
