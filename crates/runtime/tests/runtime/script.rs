//! A machine that does what a test says, and a role that runs it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitts_api::machine::{
    Effect, Input, Inventory, Machine, Moment, Outcome, Part, Scope, Target, Watch, Write,
};
use bitts_api::{Kind, Object, ObjectKey};
use bitts_runtime::{Host, LeaseOptions, RoleOptions, RuntimeError, Timing, Worker, run_role};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fake::Fake;

pub(crate) type In = Input<String, &'static str>;
pub(crate) type Out = Effect<&'static str, &'static str>;

pub(crate) type Decide = Box<dyn FnMut(&In) -> Vec<Out> + Send>;

/// Writes down what it is told, and answers as the test says.
pub(crate) struct Script {
    watches: Vec<Watch>,
    told: Arc<Mutex<Vec<(Moment, In)>>>,
    decide: Decide,
}

impl Machine for Script {
    type Task = &'static str;
    type Report = String;
    type Alarm = &'static str;

    fn watches(&self) -> Vec<Watch> {
        self.watches.clone()
    }

    /// As a machine knows it that believes all that it is told.
    fn inventory(&self, kind: Kind) -> Option<Inventory> {
        let mut known = None;
        let version = |object: &Object| (object.uid().clone(), object.resource_version());
        for (_, input) in self.told.lock().unwrap().iter() {
            match input {
                Input::Listed(of, objects) if *of == kind => {
                    let all = objects.iter().map(|o| (o.meta().place(), version(o)));
                    known = Some(all.collect::<Inventory>());
                }
                Input::Seen(object) if object.key().kind == kind => {
                    let all = known.as_mut().unwrap();
                    all.insert(object.meta().place(), version(object));
                }
                Input::Deleted(key, _) if key.kind == kind => {
                    let all = known.as_mut().unwrap();
                    all.remove(&(key.namespace.clone(), key.name.clone()));
                }
                _ => {}
            }
        }
        known
    }

    fn handle(&mut self, now: Moment, input: In) -> Vec<Out> {
        let effects = (self.decide)(&input);
        self.told.lock().unwrap().push((now, input));
        effects
    }
}

/// Says back what it was told to do; `panic` and `hang` are taken literally.
pub(crate) struct Echo;

impl Worker for Echo {
    type Task = &'static str;
    type Report = String;

    async fn perform(&self, task: &'static str) -> String {
        match task {
            "panic" => panic!("as asked"),
            "hang" => std::future::pending().await,
            "slow" => tokio::time::sleep(Duration::from_secs(3)).await,
            _ => {}
        }
        format!("{task} done")
    }
}

/// A role under test.
pub(crate) struct Role {
    pub(crate) host: Host,
    told: Arc<Mutex<Vec<(Moment, In)>>>,
    task: JoinHandle<Result<(), RuntimeError>>,
}

pub(crate) fn all(kind: Kind) -> Watch {
    Watch {
        kind,
        scope: Scope::All,
    }
}

impl Role {
    /// Runs a machine that watches these and decides nothing.
    pub(crate) fn watching(fake: &Fake, kinds: &[Kind]) -> Self {
        let watches = kinds.iter().copied().map(all).collect();
        Self::start(fake, watches, None, Box::new(|_| Vec::new()))
    }

    /// Runs a machine that watches claims, and emits these once it has listed them.
    pub(crate) fn doing(fake: &Fake, effects: Vec<Out>) -> Self {
        Self::start(fake, vec![all(Kind::Claim)], None, once_listed(effects))
    }

    /// As [`Role::doing`], with so many changes under way at a time.
    pub(crate) fn doing_at_once(fake: &Fake, writes: usize, effects: Vec<Out>) -> Self {
        let decide = once_listed(effects);
        let host = Host::new(fake.client());
        Self::begin(host, vec![all(Kind::Claim)], None, decide, writes)
    }

    /// As [`Role::watching`], comparing with lists each minute or so.
    pub(crate) fn comparing(fake: &Fake, kinds: &[Kind]) -> Self {
        let timing = Timing {
            resync: Some(Duration::from_secs(60)),
            ..Timing::default()
        };
        let host = Host::with_timing(fake.client(), timing);
        let watches = kinds.iter().copied().map(all).collect();
        Self::begin(host, watches, None, Box::new(|_| Vec::new()), 4)
    }

    pub(crate) fn start(
        fake: &Fake,
        watches: Vec<Watch>,
        lease: Option<LeaseOptions>,
        decide: Decide,
    ) -> Self {
        Self::begin(Host::new(fake.client()), watches, lease, decide, 4)
    }

    fn begin(
        host: Host,
        watches: Vec<Watch>,
        lease: Option<LeaseOptions>,
        decide: Decide,
        writes_at_once: usize,
    ) -> Self {
        let told = Arc::default();
        let machine = Script {
            watches,
            told: Arc::clone(&told),
            decide,
        };
        let options = RoleOptions {
            name: "tester",
            event_source: "test-controller",
            lease,
            writes_at_once,
        };
        let task = tokio::spawn({
            let host = host.clone();
            async move { run_role(&host, options, machine, Echo).await }
        });
        Self { host, told, task }
    }

    /// Everything the machine was told so far, with the time of each.
    pub(crate) fn timed(&self) -> Vec<(Moment, In)> {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn told(&self) -> Vec<In> {
        self.timed().into_iter().map(|(_, input)| input).collect()
    }

    /// The inputs in short.
    pub(crate) fn story(&self) -> Vec<String> {
        self.told().iter().map(tell).collect()
    }

    /// Waits until the machine was told something of which `fits` holds.
    pub(crate) async fn until(&self, fits: impl Fn(&In) -> bool) -> In {
        for _ in 0..200_000 {
            if let Some(input) = self.told().into_iter().find(|i| fits(i)) {
                return input;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never told; what was told: {:?}", self.story());
    }

    pub(crate) async fn until_story(&self, line: &str) {
        self.until(|input| tell(input) == line).await;
    }

    /// Waits for the end of the only change, and returns how it ended.
    pub(crate) async fn outcome(&self) -> Outcome {
        match self.until(|i| matches!(i, Input::Finished(..))).await {
            Input::Finished(_, outcome) => outcome,
            _ => unreachable!(),
        }
    }

    /// What was told in the same turn as `Finished`, in short, `Finished` last.
    pub(crate) async fn ending(&self) -> Vec<String> {
        self.outcome().await;
        let timed = self.timed();
        let end = timed
            .iter()
            .position(|(_, i)| matches!(i, Input::Finished(..)))
            .unwrap();
        // Watches may have told of the same things: only what came at once counts.
        let mut turn: Vec<_> = timed[..=end]
            .iter()
            .rev()
            .take_while(|(at, _)| *at == timed[end].0)
            .map(|(_, i)| tell(i))
            .collect();
        turn.reverse();
        turn
    }

    /// Asks the role to end and waits for that.
    pub(crate) async fn stop(self) -> Result<(), RuntimeError> {
        self.host.shutdown().cancel();
        self.task.await.unwrap()
    }

    /// Waits for a role that ends by itself.
    pub(crate) async fn end(self) -> Result<(), RuntimeError> {
        self.task.await.unwrap()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// The value of a metric whose line begins like this.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let text = self.host.metrics_text().await;
        let found = text
            .lines()
            .find_map(|l| l.strip_prefix(line))
            .unwrap_or("0");
        found.trim().parse().unwrap()
    }
}

/// Emits effects once, after the first list.
pub(crate) fn once_listed(effects: Vec<Out>) -> Decide {
    let mut effects = Some(effects);
    Box::new(move |input| match input {
        Input::Listed(..) => effects.take().unwrap_or_default(),
        _ => Vec::new(),
    })
}

/// An input in short: what, which, and the version for what was seen.
pub(crate) fn tell(input: &In) -> String {
    let short = |object: &Object| format!("{}@{}", object.key(), object.resource_version());
    match input {
        Input::Listed(kind, objects) => {
            let objects: Vec<_> = objects.iter().map(short).collect();
            format!("listed {} [{}]", kind.plural(), objects.join(" "))
        }
        Input::Found(key, Some(object)) => format!("found {key}@{}", object.resource_version()),
        Input::Found(key, None) => format!("found no {key}"),
        Input::Seen(object) => format!("seen {}", short(object)),
        Input::Deleted(key, uid) => format!("deleted {key} {uid}"),
        Input::Finished(key, outcome) => format!("finished {key} {outcome:?}"),
        Input::Report(report) => format!("report {report}"),
        Input::Alarm(alarm) => format!("alarm {alarm}"),
    }
}

pub(crate) const CLAIM: &str = "/api/v1/namespaces/shop/persistentvolumeclaims/data";
pub(crate) const VOLUME: &str = "/api/v1/persistentvolumes/disk";

pub(crate) fn claim(volume: Option<&str>) -> Value {
    json!({"metadata": {"name": "data", "namespace": "shop"}, "spec": {"volumeName": volume}})
}

pub(crate) fn volume() -> Value {
    json!({"metadata": {"name": "disk"}, "spec": {"capacity": {"storage": "1Gi"}}})
}

/// The object as a target, as it is now.
pub(crate) fn target(kind: Kind, object: &Value) -> Target {
    let object = kind.read(object.to_string().as_bytes()).unwrap();
    Target::of(kind, object.meta())
}

pub(crate) fn write(target: Target, part: Part, patch: Value) -> Out {
    Effect::Write(Write {
        step: "test-step",
        target,
        part,
        patch,
    })
}

pub(crate) fn claim_key() -> ObjectKey {
    ObjectKey::claim("shop", "data")
}
