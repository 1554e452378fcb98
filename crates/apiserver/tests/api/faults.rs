//! Faults: each kind as the client sees it, and each repeatable.

use std::time::Duration;

use bitts_apiserver::Faults;
use bitts_apiserver::faults::{Effect, Fault, Rule};
use serde_json::json;

use crate::client::{CONFIG_MAPS, Client, Next, VOLUMES, config_map, volume};

fn api(rules: impl IntoIterator<Item = Rule>) -> Client {
    Client::with(Faults::scripted(rules), 1_000)
}

#[tokio::test]
async fn the_nth_write_fails_before_or_after_it_took_effect() {
    let status = "persistentvolumes/status";
    let api = api([
        Rule::on("patch", status)
            .nth(2)
            .then(Fault::Error(Effect::After)),
        Rule::on("patch", status)
            .nth(3)
            .then(Fault::Timeout(Effect::Before)),
    ]);
    api.post(VOLUMES, &volume("v")).await.expect(201);
    let path = format!("{VOLUMES}/v/status");
    let write = async |message: &str| {
        api.merge(&path, &json!({"status": {"message": message}}))
            .await
            .code
    };
    let read = async || {
        api.get(&path).await.body["status"]["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(write("one").await, 200);
    assert_eq!(write("two").await, 500);
    assert_eq!(read().await, "two");
    assert_eq!(write("three").await, 504);
    assert_eq!(read().await, "two");
    assert_eq!(write("four").await, 200);
    let trace: Vec<String> = api.0.trace().iter().map(ToString::to_string).collect();
    assert_eq!(
        trace,
        [
            "create persistentvolumes 201",
            "patch persistentvolumes/status v 200",
            "patch persistentvolumes/status v 500 [error after]",
            "get persistentvolumes/status v 200",
            "patch persistentvolumes/status v 504 [timeout before]",
            "get persistentvolumes/status v 200",
            "patch persistentvolumes/status v 200",
        ]
    );
}

#[tokio::test]
async fn refusals_look_like_the_real_ones() {
    let api = api([
        Rule::on("create", "configmaps")
            .nth(1)
            .then(Fault::TooManyRequests(7)),
        Rule::on("create", "configmaps")
            .nth(2)
            .then(Fault::Conflict),
        Rule::on("create", "configmaps")
            .nth(3)
            .then(Fault::Forbidden),
        Rule::on("create", "configmaps")
            .nth(4)
            .then(Fault::Disconnect(Effect::After)),
        Rule::on("list", "configmaps").nth(1).then(Fault::Expired),
    ]);
    let object = config_map("a");
    let busy = api.post(CONFIG_MAPS, &object).await.expect(429);
    assert_eq!(busy.headers["retry-after"], "7");
    assert_eq!(busy.body["details"]["retryAfterSeconds"], 7);
    assert_eq!(
        api.post(CONFIG_MAPS, &object).await.expect(409).body["reason"],
        "Conflict"
    );
    api.post(CONFIG_MAPS, &object).await.expect(403);
    api.get(CONFIG_MAPS).await.expect(410);
    assert_eq!(api.get(CONFIG_MAPS).await.names(), [""; 0]);
    assert!(api.breaks("POST", CONFIG_MAPS, &object).await);
    assert_eq!(api.get(CONFIG_MAPS).await.names(), ["a"]);
    api.0.set_faults(Faults::default());
    api.post(CONFIG_MAPS, &config_map("b")).await.expect(201);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_late() {
    let api = api([Rule::on_all().then(Fault::Delay(3_000))]);
    let start = tokio::time::Instant::now();
    api.get(CONFIG_MAPS).await.expect(200);
    assert!(start.elapsed() >= Duration::from_secs(3));
}

#[tokio::test]
async fn a_list_may_be_stale() {
    let api = api([Rule::on("list", "configmaps").then(Fault::StaleList(1))]);
    api.config_maps(&["a", "b"]).await;
    let stale = api.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(stale.names(), ["a"]);
    assert_eq!(stale.version(), (api.0.revision() - 1).to_string());
}

#[tokio::test]
async fn watches_lose_repeat_stop_and_break() {
    let run = async |fault: Fault| {
        let api = api([Rule::on("watch", "configmaps").nth(2).then(fault)]);
        let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
        api.config_maps(&["a", "b", "c"]).await;
        let mut lines = Vec::new();
        for _ in 0..5 {
            lines.push(match watch.next().await {
                Next::Event(event, object) => match object["metadata"]["name"].as_str() {
                    Some(name) => format!("{event} {name}"),
                    None => format!("{event} {}", object["code"]),
                },
                Next::Broken(bytes) => format!("Broken {}", bytes > 0),
                other => format!("{other:?}"),
            });
            if matches!(
                lines.last().map(String::as_str),
                Some("End" | "Silence" | "Broken true")
            ) {
                break;
            }
        }
        lines.join(", ")
    };
    assert_eq!(run(Fault::DropEvent).await, "ADDED a, ADDED c, Silence");
    assert_eq!(
        run(Fault::DuplicateEvent).await,
        "ADDED a, ADDED b, ADDED b, ADDED c, Silence"
    );
    assert_eq!(run(Fault::Silence).await, "ADDED a, Silence");
    assert_eq!(run(Fault::End).await, "ADDED a, End");
    assert_eq!(run(Fault::Cut).await, "ADDED a, Broken true");
    assert_eq!(run(Fault::ExpireWatch).await, "ADDED a, ERROR 410, End");
}

#[tokio::test]
async fn the_same_seed_makes_the_same_trouble() {
    let run = async |seed: u64| {
        let rules = vec![
            Rule::on_all().chance(0.2).then(Fault::Conflict),
            Rule::on_all().chance(0.2).then(Fault::Error(Effect::After)),
        ];
        let api = Client::with(Faults { seed, rules }, 1_000);
        for n in 0..50 {
            api.post(CONFIG_MAPS, &config_map(&format!("c{n}"))).await;
        }
        api.0
            .trace()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let first = run(11).await;
    assert_eq!(first, run(11).await);
    assert_ne!(first, run(12).await);
    assert!(first.iter().any(|line| line.contains("[conflict]")));
    assert!(first.iter().any(|line| line.contains("[error after]")));
}
