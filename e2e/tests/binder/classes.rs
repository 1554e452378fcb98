//! Claims that name a class for which there is no object (B9).

use anyhow::ensure;
use bitts_e2e::cluster::{Kind, Scope};
use bitts_e2e::suite::{Manner, Suite};
use serde_json::json;

use crate::scene::{beside_the_binder, claim, create, is_bound, of_class, until};

pub(crate) fn add(suite: &mut Suite) {
    suite.add(
        "binder::claims_of_no_class_share_looks",
        Kind::BOTH,
        Manner::Alone,
        claims_of_no_class_share_looks,
    );
}

const CLAIMS: usize = 40;

async fn volume(api: &Scope, base: &str, class: &str) -> anyhow::Result<()> {
    let body = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": api.name(base)},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": class,
            "nfs": {"server": "nowhere", "path": "/"},
        },
    });
    create(api, "/api/v1/persistentvolumes", body).await?;
    Ok(())
}

/// B9: many use a class name without an object; that costs no look for each of them.
async fn claims_of_no_class_share_looks(api: Scope) -> anyhow::Result<()> {
    let manual = api.name("manual");
    for n in 0..CLAIMS {
        volume(&api, &format!("v{n}"), &manual).await?;
        claim(&api, &format!("c{n}"), of_class(&api, "manual")).await?;
    }
    beside_the_binder(&api, async |wire| {
        for n in 0..CLAIMS {
            let path = api.claims(&format!("/c{n}"));
            until(&api, &path, "it is Bound", is_bound).await?;
        }
        let path = format!("/storageclasses/{manual}");
        let reads = wire.reads();
        let looks = reads.iter().filter(|line| line.contains(&path)).count();
        ensure!(
            (1..=3).contains(&looks),
            "{looks} looks for {CLAIMS} claims"
        );
        Ok(())
    })
    .await
}
