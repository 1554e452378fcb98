//! Those who are no machine of bitts: users, the scheduler (S10), an external provisioner (P12,
//! D10), the garbage collector.

use bitts_api::{
    BindingMode, Claim, Kind, Object, ObjectKey, Pod, StorageClass, Volume, VolumePhase, names,
};
use bitts_binder::misfit;
use serde_json::{Value, json};

use crate::life::Pick;
use crate::store::Store;

/// Who makes and deletes volumes of the classes `fast` and `lazy`.
const PROVISIONER: &str = "example.com/disk";

/// The classes that claims name.
pub(crate) fn classes() -> [Value; 4] {
    let class = |name: &str, by: &str, mode: &str| json!({"metadata": {"name": name}, "provisioner": by, "volumeBindingMode": mode});
    [
        class("gold", names::NO_PROVISIONER, "Immediate"),
        class("late", names::NO_PROVISIONER, "WaitForFirstConsumer"),
        class("fast", PROVISIONER, "Immediate"),
        class("lazy", PROVISIONER, "WaitForFirstConsumer"),
    ]
}

/// A number from 0 on, below `end`, that comes from the `nth` part of a pick.
fn part(pick: Pick, nth: u32, end: u32) -> u32 {
    (pick >> (nth * 4)) % 16 % end
}

pub(crate) fn volume(pick: Pick) -> Value {
    let policy = ["Retain", "Delete", "Delete", "Recycle"][part(pick, 2, 4) as usize];
    let mut volume = json!({
        "metadata": {"name": format!("v-{}", part(pick, 0, 8))},
        "spec": {
            "capacity": {"storage": format!("{}Gi", 1 + part(pick, 1, 3))},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": policy,
        },
    });
    match part(pick, 3, 3) {
        0 => volume["spec"]["hostPath"] = json!({"path": "/tmp/data"}),
        1 => volume["spec"]["nfs"] = json!({"server": "s", "path": "/"}),
        _ => volume["spec"]["local"] = json!({"path": "/data"}),
    }
    if let class @ 1.. = part(pick, 4, 4) {
        volume["spec"]["storageClassName"] = json!(["", "gold", "late", "gold"][class as usize]);
    }
    if part(pick, 5, 2) == 1 {
        volume["metadata"]["labels"] = json!({"app": "db"});
    }
    if part(pick, 6, 8) == 7 {
        let name = format!("c-{}", part(pick, 7, 8));
        volume["spec"]["claimRef"] = json!({"namespace": "default", "name": name});
    }
    if part(pick, 6, 3) == 2 {
        volume["spec"]["accessModes"] = json!(["ReadWriteOnce", "ReadWriteMany"]);
    }
    volume
}

pub(crate) fn claim(pick: Pick) -> Value {
    let mut claim = json!({
        "metadata": {"name": format!("c-{}", part(pick, 0, 8))},
        "spec": {
            "resources": {"requests": {"storage": format!("{}Gi", 1 + part(pick, 1, 3))}},
            "accessModes": ["ReadWriteOnce"],
        },
    });
    if let class @ 1.. = part(pick, 2, 8) {
        let class = ["", "", "gold", "gold", "late", "late", "fast", "lazy"][class as usize];
        claim["spec"]["storageClassName"] = json!(class);
    }
    if part(pick, 3, 4) == 3 {
        claim["spec"]["selector"] = json!({"matchLabels": {"app": "db"}});
    }
    if part(pick, 4, 4) == 3 {
        claim["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    }
    if part(pick, 5, 8) == 7 {
        claim["spec"]["volumeName"] = json!(format!("v-{}", part(pick, 6, 8)));
    }
    claim
}

pub(crate) fn pod(pick: Pick) -> Value {
    let volume = if part(pick, 1, 4) == 0 {
        let spec = claim(pick.rotate_right(8) & 0xF0FF_FFFF)["spec"].take();
        json!({"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}})
    } else {
        let name = format!("c-{}", part(pick, 2, 8));
        json!({"name": "data", "persistentVolumeClaim": {"claimName": name}})
    };
    json!({
        "metadata": {"name": format!("p-{}", part(pick, 0, 6))},
        "spec": {"volumes": [volume]},
    })
}

/// One look of the scheduler at one pod: it chooses for the claims that wait, and gives the pod a
/// node once all of them are bound.
pub(crate) fn schedule(store: &mut Store, pod: &Pod) {
    let claims: Option<Vec<_>> = pod
        .claims()
        .map(|name| claim_of(store, pod, name))
        .collect();
    let Some(claims) = claims.filter(|_| pod.node.is_none() && !pod.meta.is_deleting()) else {
        return;
    };
    if claims.iter().all(|claim| claim.bind_completed()) {
        let key = Object::from(pod.clone()).key();
        return store.edit(&key, &json!({"spec": {"nodeName": "n"}}));
    }
    for claim in claims {
        let waits = !claim.bind_completed() && claim.volume_name.is_none();
        if waits && !claim.meta.is_deleting() && is_delayed(store, &claim) {
            choose(store, &claim);
        }
    }
}

fn claim_of(store: &Store, pod: &Pod, name: &bitts_api::Name) -> Option<Claim> {
    let key = ObjectKey::claim(pod.meta.namespace.clone()?, name.clone());
    match &store.get(&key)?.object {
        Object::Claim(claim) => Some(Claim::clone(claim)),
        _ => None,
    }
}

/// Whether the claim's class waits for its first consumer.
pub(crate) fn is_delayed(store: &Store, claim: &Claim) -> bool {
    delaying(store, claim).is_some()
}

/// The claim's class if it waits for its first consumer.
pub(crate) fn delaying<'a>(store: &'a Store, claim: &Claim) -> Option<&'a StorageClass> {
    let key = ObjectKey::storage_class(claim.class.as_ref()?);
    match &store.get(&key)?.object {
        Object::StorageClass(class) => Some(&**class),
        _ => None,
    }
    .filter(|class| class.binding_mode == BindingMode::WaitForFirstConsumer)
}

fn choose(store: &mut Store, claim: &Claim) {
    if volumes(store).any(|v| v.is_for(claim)) {
        return;
    }
    let fits = |v: &Volume| v.claim_ref.is_none() && misfit(v, claim, false).is_none();
    let found = volumes(store)
        .find(|v| fits(v))
        .map(|v| v.meta.name.clone());
    if let Some(name) = found {
        let claim_ref = json!({
            "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "default",
            "name": claim.meta.name, "uid": claim.meta.uid,
        });
        let patch = json!({
            "metadata": {"annotations": {names::BOUND_BY_CONTROLLER: "yes"}},
            "spec": {"claimRef": claim_ref},
        });
        store.edit(&ObjectKey::volume(name), &patch);
    } else if claim.class.as_ref().is_some_and(|c| c.as_str() == "lazy") {
        let patch = json!({"metadata": {"annotations": {names::SELECTED_NODE: "n"}}});
        store.edit(
            &ObjectKey::claim("default", claim.meta.name.clone()),
            &patch,
        );
    }
}

/// What the provisioner makes for a claim that it saw; the claim may be gone by now.
pub(crate) fn provision(store: &mut Store, claim: &Claim) {
    let asked = claim.meta.annotations.get(names::STORAGE_PROVISIONER) == Some(PROVISIONER);
    let delayed = is_delayed(store, claim) && !claim.meta.annotations.has(names::SELECTED_NODE);
    if !asked || delayed || claim.volume_name.is_some() || claim.meta.is_deleting() {
        return;
    }
    let size = claim.request.map_or("1Gi".into(), |q| q.to_string());
    store.create(
        Kind::Volume,
        json!({
            "metadata": {
                "name": format!("pvc-{}", claim.meta.uid),
                "annotations": {names::PROVISIONED_BY: PROVISIONER},
            },
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": claim.class,
                "csi": {"driver": PROVISIONER, "volumeHandle": claim.meta.uid},
                "claimRef": {
                    "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "default",
                    "name": claim.meta.name, "uid": claim.meta.uid,
                },
            },
        }),
    );
}

/// Deletes what the provisioner made and the binder released (D10).
pub(crate) fn reap(store: &mut Store) {
    let released: Vec<_> = volumes(store)
        .filter(|v| is_made(v) && v.phase == VolumePhase::Released && !v.meta.is_deleting())
        .filter(|v| v.reclaim_policy == bitts_api::ReclaimPolicy::Delete)
        .map(|v| v.meta.name.clone())
        .collect();
    for name in released {
        store.delete(&ObjectKey::volume(name));
    }
}

/// Whether the provisioner made this volume.
pub(crate) fn is_made(volume: &Volume) -> bool {
    volume.meta.annotations.get(names::PROVISIONED_BY) == Some(PROVISIONER)
}

/// Deletes the claims whose pod is gone.
pub(crate) fn collect_garbage(store: &mut Store) {
    let pods = store.list(Kind::Pod);
    for object in store.list(Kind::Claim) {
        if let Object::Claim(claim) = &object
            && let Some(owner) = &claim.meta.controller
            && !pods.iter().any(|pod| pod.uid() == owner)
        {
            store.delete(&object.key());
        }
    }
}

pub(crate) fn volumes(store: &Store) -> impl Iterator<Item = &Volume> {
    store.iter().filter_map(|(_, stored)| match &stored.object {
        Object::Volume(volume) => Some(&**volume),
        _ => None,
    })
}

pub(crate) fn claims(store: &Store) -> impl Iterator<Item = &Claim> {
    store.iter().filter_map(|(_, stored)| match &stored.object {
        Object::Claim(claim) => Some(&**claim),
        _ => None,
    })
}
