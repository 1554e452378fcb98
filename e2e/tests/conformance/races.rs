//! What holds when several clients write at the same time.

use std::collections::BTreeSet;

use anyhow::ensure;
use bitts_e2e::cluster::Scope;
use bitts_e2e::on_both;
use bitts_e2e::raw::text;
use bitts_e2e::suite::Suite;
use futures::future::try_join_all;
use serde_json::{Value, json};

pub(crate) fn add(suite: &mut Suite) {
    on_both!(
        suite,
        "races",
        generated_names_are_all_different,
        of_writers_with_one_version_one_wins,
        versions_grow_with_every_write,
        of_creators_with_one_name_one_wins,
        merge_patches_without_a_version_all_take_effect,
        a_name_used_again_is_another_object,
    );
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn maps(api: &Scope, rest: &str) -> String {
    format!("/api/v1/namespaces/{}/configmaps{rest}", api.namespace())
}

fn version(object: &Value) -> anyhow::Result<u64> {
    Ok(text(object, "/metadata/resourceVersion").parse()?)
}

async fn generated_names_are_all_different(api: Scope) -> anyhow::Result<()> {
    let path = maps(&api, "");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}});
    let answers = try_join_all((0..20).map(|_| api.post(&path, body.clone()))).await?;
    let mut names = BTreeSet::new();
    for answer in answers {
        let object = answer.expect(201)?;
        let name = text(&object, "/metadata/name");
        ensure!(
            name.starts_with("a-") && name.len() == "a-".len() + 5,
            "{name}"
        );
        ensure!(text(&object, "/metadata/generateName") == "a-", "{object}");
        names.insert(name.to_owned());
    }
    ensure!(names.len() == 20, "{names:?}");
    Ok(())
}

async fn of_writers_with_one_version_one_wins(api: Scope) -> anyhow::Result<()> {
    let made = api.post(&maps(&api, ""), map("a")).await?.expect(201)?;
    let path = maps(&api, "/a");
    let writes = (0..10).map(|number| {
        let mut object = made.clone();
        object["data"] = json!({"writer": number.to_string()});
        api.put(&path, object)
    });
    let answers = try_join_all(writes).await?;
    let won: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .collect();
    let lost = answers.iter().filter(|answer| answer.status == 409).count();
    ensure!(won.len() == 1 && lost == 9, "{answers:?}");
    let stored = api.get(&path).await?.expect(200)?;
    ensure!(stored == won[0].body, "{stored}");
    Ok(())
}

async fn versions_grow_with_every_write(api: Scope) -> anyhow::Result<()> {
    let mut last = version(&api.post(&maps(&api, ""), map("a")).await?.expect(201)?)?;
    for number in 0..5 {
        let body = json!({"data": {"n": number.to_string()}});
        let now = version(&api.merge(&maps(&api, "/a"), body).await?.expect(200)?)?;
        ensure!(now > last, "{now} after {last}");
        last = now;
    }
    // The same once more changes nothing, so it is not a write.
    let body = json!({"data": {"n": "4"}});
    let same = version(&api.merge(&maps(&api, "/a"), body).await?.expect(200)?)?;
    ensure!(same == last, "{same} after {last}");
    let other = version(&api.post(&maps(&api, ""), map("b")).await?.expect(201)?)?;
    ensure!(
        other > last,
        "another object's version is {other} after {last}"
    );
    let list = api.get(&maps(&api, "")).await?.expect(200)?;
    ensure!(
        version(&list)? >= other,
        "the list is of {}",
        version(&list)?
    );
    Ok(())
}

async fn of_creators_with_one_name_one_wins(api: Scope) -> anyhow::Result<()> {
    let path = maps(&api, "");
    let answers = try_join_all((0..10).map(|_| api.post(&path, map("a")))).await?;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    let existed = answers
        .iter()
        .filter(|answer| answer.text("/reason") == "AlreadyExists")
        .count();
    ensure!(made == 1 && existed == 9, "{answers:?}");
    Ok(())
}

async fn merge_patches_without_a_version_all_take_effect(api: Scope) -> anyhow::Result<()> {
    api.post(&maps(&api, ""), map("a")).await?.expect(201)?;
    let path = maps(&api, "/a");
    // Five at a time: the real API gives up after five conflicts with itself.
    let writes = (0..5).map(|number| api.merge(&path, json!({"data": {number.to_string(): "x"}})));
    for answer in try_join_all(writes).await? {
        answer.expect(200)?;
    }
    let stored = api.get(&path).await?.expect(200)?;
    ensure!(
        stored["data"]
            .as_object()
            .is_some_and(|data| data.len() == 5),
        "{stored}"
    );
    Ok(())
}

async fn a_name_used_again_is_another_object(api: Scope) -> anyhow::Result<()> {
    let first = api.post(&maps(&api, ""), map("a")).await?.expect(201)?;
    api.delete(&maps(&api, "/a"), Value::Null)
        .await?
        .expect(200)?;
    let second = api.post(&maps(&api, ""), map("a")).await?.expect(201)?;
    ensure!(
        text(&first, "/metadata/uid") != text(&second, "/metadata/uid"),
        "{second}"
    );
    let options = json!({"preconditions": {"uid": text(&first, "/metadata/uid")}});
    api.delete(&maps(&api, "/a"), options).await?.expect(409)?;
    // A put with the first one's uid and version cannot hit the second.
    api.put(&maps(&api, "/a"), first).await?.expect(409)?;
    Ok(())
}
