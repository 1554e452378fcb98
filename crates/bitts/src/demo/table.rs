//! The tables that `kubectl get` prints.

use anyhow::Result;
use kube::Client;
use serde_json::Value;

const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// What `kubectl get` prints of a collection, e.g. `persistentvolumes`.
pub(crate) async fn get(client: &Client, collection: &str) -> Result<String> {
    let request = http::Request::get(format!("/api/v1/{collection}"))
        .header(http::header::ACCEPT, AS_TABLE)
        .body(Vec::new())?;
    let table: Value = client.request(request).await?;
    Ok(bitts_apiserver::table::print(&table))
}
