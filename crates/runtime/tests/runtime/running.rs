//! A role from start to end: tasks, timers, events, shutdown.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitts_api::machine::{Effect, Event, Input, Moment, Outcome, Part, Severity};
use bitts_api::{Kind, Uid};
use bitts_runtime::RuntimeError;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fake::{Fake, Fault};
use crate::script::{CLAIM, Out, Role, all, claim, claim_key, target, write};

fn event(message: &str) -> Out {
    Effect::Event(Event {
        about: claim_key(),
        uid: Uid::from("uid-1"),
        severity: Severity::Warning,
        reason: "FailedBinding",
        message: message.to_owned(),
        source: None,
    })
}

const EVENTS: &str = "/api/v1/namespaces/shop/events";

#[tokio::test(start_paused = true)]
async fn tasks_are_performed_and_timers_go_off_on_time() {
    let fake = Fake::default();
    let effects = vec![
        Effect::Task("slow"),
        Effect::Task("mount"),
        Effect::Wake(Duration::from_secs(10), "later"),
        Effect::Wake(Duration::from_secs(5), "soon"),
    ];
    let role = Role::doing(&fake, effects);
    role.until_story("alarm later").await;
    assert_eq!(
        role.story()[1..],
        [
            "report mount done",
            "report slow done",
            "alarm soon",
            "alarm later"
        ]
    );
    let timed = role.timed();
    let at = |n: usize| {
        let Moment(since) = timed[n].0;
        (since - timed[0].0.0).as_secs_f64().round()
    };
    assert_eq!([at(1), at(2), at(3), at(4)], [0.0, 3.0, 5.0, 10.0]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_ends_the_role_with_an_error() {
    let fake = Fake::default();
    let role = Role::doing(&fake, vec![Effect::Task("panic")]);
    assert!(matches!(
        role.end().await,
        Err(RuntimeError::Panicked { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn events_that_repeat_are_counted_in_one_object() {
    let fake = Fake::default();
    let again = |input: &Input<String, &'static str>| match input {
        Input::Listed(..) => vec![
            event("no volume"),
            event("no volume"),
            event("other"),
            Effect::Wake(Duration::from_secs(30), "again"),
        ],
        Input::Alarm(_) => vec![event("no volume")],
        _ => Vec::new(),
    };
    let role = Role::start(&fake, vec![all(Kind::Claim)], None, Box::new(again));
    role.until_story("alarm again").await;
    sleep(Duration::from_secs(1)).await;
    let made = fake.bodies(&format!("POST {EVENTS}?fieldManager=bitts-"));
    let made: Vec<_> = made
        .iter()
        .map(|e| (e["message"].as_str().unwrap(), e["count"].clone()))
        .collect();
    assert_eq!(made, [("no volume", json!(2)), ("other", json!(1))]);
    let repeated = fake.bodies(&format!("PATCH {EVENTS}/data."));
    assert_eq!(repeated.len(), 1);
    assert_eq!(repeated[0]["count"], 3);
}

/// Somebody waits for what a role does, and nobody for the word that it went well.
#[tokio::test(start_paused = true)]
async fn what_went_well_is_told_once_the_role_has_time_and_a_warning_at_once() {
    let well = |message| match event(message) {
        Effect::Event(event) => Effect::Event(Event {
            severity: Severity::Normal,
            ..event
        }),
        other => other,
    };
    for (fault, waits) in [
        (Fault::Status(503, Some(2)), [2.0, 2.0]),
        (Fault::Hang, [5.0, 6.0]), // each gives way for as long
    ] {
        let fake = Fake::default();
        let claim = fake.put(CLAIM, claim(None));
        fake.fail("PATCH", 1, fault);
        let patch = json!({"metadata": {"labels": {"a": "b"}}});
        let change = write(target(Kind::Claim, &claim), Part::Main, patch);
        let mut change = Some(change);
        let decide = move |input: &Input<String, &'static str>| match input {
            Input::Listed(..) => change
                .take()
                .into_iter()
                .chain([
                    well("first"),
                    Effect::Wake(Duration::from_millis(100), "warn"),
                    Effect::Wake(Duration::from_secs(1), "more"),
                ])
                .collect(),
            Input::Alarm("warn") => vec![event("no volume"), well("first")],
            Input::Alarm(_) => vec![well("second")],
            _ => Vec::new(),
        };
        let role = Role::start(&fake, vec![all(Kind::Claim)], None, Box::new(decide));
        let began = Instant::now();
        let written = async |count| {
            while fake.bodies(EVENTS).len() < count {
                sleep(Duration::from_millis(10)).await;
            }
            let all = fake.bodies(EVENTS);
            let last = all[count - 1]["message"].as_str().map(str::to_owned);
            (last.unwrap(), began.elapsed().as_secs_f64().round())
        };
        assert_eq!(written(1).await, ("no volume".to_owned(), 0.0));
        assert_eq!(written(2).await, ("first".to_owned(), waits[0]));
        assert_eq!(
            fake.bodies(EVENTS)[1]["count"],
            2,
            "it was repeated meanwhile"
        );
        assert_eq!(written(3).await, ("second".to_owned(), waits[1]));
        drop(role);
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_cannot_be_written_are_counted_and_hold_up_nothing() {
    let fake = Fake::default();
    fake.fail(EVENTS, usize::MAX, Fault::Hang);
    let claim = fake.put(CLAIM, claim(None));
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let effects = vec![
        event("no volume"),
        write(target(Kind::Claim, &claim), Part::Main, patch),
    ];
    let role = Role::doing(&fake, effects);
    let began = Instant::now();
    assert_eq!(role.outcome().await, Outcome::Done);
    assert!(began.elapsed() < Duration::from_secs(1));
    sleep(Duration::from_secs(120)).await;
    let failed = r#"bitts_events_total{role="tester",reason="failed"}"#;
    assert_eq!(role.metric(failed).await, 1.0);
}

/// The log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn about(&self, text: &str) -> usize {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(text)).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A storm that the API cannot take costs events, which are counted, and one line in the log.
#[tokio::test(start_paused = true)]
async fn events_beyond_the_queue_are_counted_and_the_log_says_so_once() {
    const STORM: usize = 5_000;
    const QUEUE: usize = 4_096;
    let lines = Lines::default();
    let written = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || written.clone());
    let _log = tracing::subscriber::set_default(log.finish());
    let storm =
        |round: &str| -> Vec<Out> { (0..STORM).map(|n| event(&format!("{round} {n}"))).collect() };
    let fake = Fake::default();
    tokio::spawn(fake.clone().bookmarks()); // or it would be listed again
    let decide = move |input: &Input<String, &'static str>| match input {
        Input::Listed(..) => {
            let mut all = storm("first");
            all.push(Effect::Wake(Duration::from_secs(60), "calm"));
            all.push(Effect::Wake(Duration::from_secs(120), "storm"));
            all
        }
        Input::Alarm("calm") => vec![event("calm")],
        Input::Alarm(_) => storm("second"),
        _ => Vec::new(),
    };
    let role = Role::start(&fake, vec![all(Kind::Claim)], None, Box::new(decide));
    let dropped = r#"bitts_events_total{role="tester",reason="dropped"}"#;
    let begun = "events for users are being dropped";
    let over = "events for users are written again";
    role.until(|i| matches!(i, Input::Listed(..))).await;
    assert_eq!(role.metric(dropped).await, (STORM - QUEUE) as f64);
    assert_eq!([lines.about(begun), lines.about(over)], [1, 0]);
    role.until_story("alarm calm").await;
    assert_eq!([lines.about(begun), lines.about(over)], [1, 1]);
    assert_eq!(lines.about("dropped=904"), 1);
    role.until_story("alarm storm").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(role.metric(dropped).await, 2.0 * (STORM - QUEUE) as f64);
    assert_eq!([lines.about(begun), lines.about(over)], [2, 1]);
    let posted = fake.requests(&format!("POST {EVENTS}")).len();
    assert_eq!(posted, 2 * QUEUE + 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_what_is_under_way_and_begins_nothing() {
    let fake = Fake::default();
    let claim = fake.put(CLAIM, claim(None));
    let patch = json!({"spec": {"volumeName": "disk"}});
    let first = write(target(Kind::Claim, &claim), Part::Main, patch);
    let effects = vec![
        first,
        Effect::Task("slow"),
        event("late"),
        Effect::Wake(Duration::from_secs(1), "late"),
    ];
    fake.fail("PATCH", 1, Fault::Status(500, None));
    let role = Role::doing(&fake, effects);
    role.until(|i| matches!(i, Input::Listed(..))).await;
    let began = Instant::now();
    let told = role.told().len();
    role.host.shutdown().cancel();
    assert!(role.stop().await.is_ok());
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "the slow task was waited for"
    );
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(told, 1);
    assert_eq!(
        fake.get(CLAIM).unwrap()["spec"]["volumeName"],
        "disk",
        "the write was retried and ended"
    );
    assert_eq!(fake.requests("POST").len(), 1, "the event was written");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_ever() {
    let fake = Fake::default();
    let role = Role::doing(&fake, vec![Effect::Task("hang")]);
    role.until(|i| matches!(i, Input::Listed(..))).await;
    let began = Instant::now();
    assert!(role.stop().await.is_ok());
    assert!(
        began.elapsed() < Duration::from_secs(11),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_ended_role_is_not_ready() {
    let fake = Fake::default();
    let role = Role::watching(&fake, &[Kind::Claim]);
    role.until(|i| matches!(i, Input::Listed(..))).await;
    let host = role.host.clone();
    assert!(host.readiness().0);
    role.stop().await.unwrap();
    assert_eq!(host.readiness(), (false, "tester: ended\n".to_owned()));
}

/// A claim's wait is measured from when it was heard of to the write that made it Bound.
#[tokio::test(start_paused = true)]
async fn how_long_a_claim_takes_to_be_bound_is_measured() {
    let fake = Fake::default();
    let bind = |input: &Input<String, &'static str>| match input {
        Input::Seen(object) if object.resource_version().0 == 1 => {
            vec![write(
                bitts_api::machine::Target::of(Kind::Claim, object.meta()),
                Part::Status,
                json!({"status": {"phase": "Bound"}}),
            )]
        }
        _ => Vec::new(),
    };
    let role = Role::start(&fake, vec![all(Kind::Claim)], None, Box::new(bind));
    role.until(|i| matches!(i, Input::Listed(..))).await;
    sleep(Duration::from_secs(1)).await;
    fake.fail("PATCH", 1, Fault::Status(429, Some(3)));
    fake.put(CLAIM, claim(None));
    assert_eq!(role.outcome().await, Outcome::Done);
    for (name, least) in [
        ("claim_to_bound", 3.0),
        ("decision_to_written", 3.0),
        ("watch_to_decision", 0.0),
    ] {
        let metric = |what: &str| format!(r#"bitts_{name}_seconds_{what}{{role="tester"}}"#);
        assert!(role.metric(&metric("count")).await >= 1.0, "{name}");
        assert!(role.metric(&metric("sum")).await >= least, "{name}");
    }
}
