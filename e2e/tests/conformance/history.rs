//! What an API answers that no longer knows what it is asked for: 410, and clients begin anew.

use anyhow::ensure;
use bitts_e2e::cluster::Kind;
use bitts_e2e::outage::Site;
use bitts_e2e::raw::{Request, text};
use bitts_e2e::suite::Suite;
use serde_json::{Value, json};

pub(crate) fn add(suite: &mut Suite) {
    let kinds = &[Kind::Served, Kind::Real];
    suite.add_own(
        "history::what_is_forgotten_is_gone",
        kinds,
        what_is_forgotten_is_gone,
    );
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn what_is_forgotten_is_gone(kind: Kind) -> anyhow::Result<()> {
    let site = Site::start(kind).await?;
    let client = site.client().await?;
    let get = async |query: &str| {
        Request::new("GET", &format!("{MAPS}?{query}"), Value::Null)
            .send(&client)
            .await
    };
    for name in ["a", "b", "c"] {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        Request::new("POST", MAPS, body)
            .send(&client)
            .await?
            .expect(201)?;
    }
    let page = get("limit=1").await?.expect(200)?;
    let old = text(&page, "/metadata/resourceVersion").to_owned();
    let next = text(&page, "/metadata/continue").to_owned();
    // So that the old version is not the present one.
    for number in 0..3 {
        let mut patch = Request::new(
            "PATCH",
            &format!("{MAPS}/a"),
            json!({"data": {"n": number.to_string()}}),
        );
        patch.content_type = Some("application/merge-patch+json".to_owned());
        patch.send(&client).await?.expect(200)?;
    }
    site.forget_history().await?;

    let watch = Request::new(
        "GET",
        &format!("{MAPS}?watch=true&resourceVersion={old}"),
        Value::Null,
    );
    let mut watch = watch.watch(&client).await?;
    let first = watch.next().await?;
    // Either the request fails, or the stream begins with the error; clients understand both.
    let status = if watch.status == 200 {
        ensure!(text(&first, "/type") == "ERROR", "{first}");
        &first["object"]
    } else {
        ensure!(watch.status == 410, "{} {first}", watch.status);
        &first
    };
    ensure!(
        status["code"] == 410 && text(status, "/reason") == "Expired",
        "{status}"
    );
    ensure!(
        text(status, "/message").contains("too old resource version"),
        "{status}"
    );

    let gone = get(&format!("resourceVersion={old}&resourceVersionMatch=Exact")).await?;
    ensure!(
        gone.status == 410 && gone.text("/reason") == "Expired",
        "{gone}"
    );

    let gone = get(&format!("limit=1&continue={next}")).await?;
    ensure!(
        gone.status == 410 && gone.text("/reason") == "Expired",
        "{gone}"
    );
    // The answer has a token with which the list goes on, at the present version.
    let next = gone.text("/metadata/continue");
    ensure!(!next.is_empty(), "{gone}");
    let rest = get(&format!("limit=5&continue={next}"))
        .await?
        .expect(200)?;
    let names: Vec<_> = rest["items"].as_array().into_iter().flatten().collect();
    ensure!(
        names.len() == 2 && text(names[0], "/metadata/name") == "b",
        "{rest}"
    );
    Ok(())
}
