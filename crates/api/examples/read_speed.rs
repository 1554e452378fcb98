//! How long one volume takes to read, as a list of a million of them does it:
//! `cargo run --release -p bitts-api --example read_speed`.

use bitts_api::Volume;

#[expect(
    clippy::disallowed_methods,
    reason = "measures; nothing here is a machine"
)]
fn main() -> Result<(), serde_json::Error> {
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "cqh", "uid": "v-1", "resourceVersion": "7",
                     "labels": {"cqh": "chenqionghe"}},
        "spec": {"capacity": {"storage": "100Mi"}, "volumeMode": "Filesystem",
                 "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Delete",
                 "storageClassName": "local-storage", "local": {"path": "/data/pv"},
                 "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                     {"key": "cqh", "operator": "In", "values": ["chenqionghe"]}]}]}}},
        "status": {"phase": "Available"},
    })
    .to_string();
    let rounds = 200_000;
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(serde_json::from_str::<Volume>(&text)?);
    }
    let each = start.elapsed() / rounds;
    println!("{each:?} for one volume of {} bytes", text.len());
    Ok(())
}
