//! The loop that owns a machine: inputs in, effects out. It never waits for I/O.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bitts_api::ObjectKey;
use bitts_api::machine::{Create, Destroy, Effect, Input, Machine, Moment, Outcome, Write};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::time::DelayQueue;

use crate::binding::Binding;
use crate::caller::Caller;
use crate::create::create;
use crate::destroy::destroy;
use crate::events::{Recorder, recorder};
use crate::execute::{Ended, Fact, write};
use crate::follow::Follows;
use crate::gate::Gate;
use crate::health::Stage;
use crate::inflight::InFlight;
use crate::measures::Question;
use crate::metrics::{OfInput, OfOutcome, OfRole, OfStep};
use crate::resting::Resting;
use crate::resync::{Asked, Resync};
use crate::watch::{News, Told, watch};
use crate::{Host, RoleOptions, RuntimeError, Worker};

/// What watches may be ahead of the machine: beyond it they wait.
const QUEUE: usize = 1024;
/// Timers cannot wait for years.
const LONGEST_WAKE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A change of one object.
#[derive(Debug)]
enum Change {
    Create(Create),
    Write(Write),
    Destroy(Destroy),
}

impl Change {
    fn key(&self) -> &ObjectKey {
        match self {
            Self::Create(create) => &create.key,
            Self::Write(write) => &write.target.key,
            Self::Destroy(destroy) => &destroy.target.key,
        }
    }

    fn step(&self) -> &'static str {
        match self {
            Self::Create(create) => create.step,
            Self::Write(write) => write.step,
            Self::Destroy(destroy) => destroy.step,
        }
    }
}

/// What came of an effect.
enum Spent<R> {
    Changed(ObjectKey, Ended),
    Reported(R),
    /// It was not begun: the role ends.
    Left,
}

/// Runs a machine until the host shuts down. Dropping the future stops everything at once.
pub(crate) async fn run<M, W>(
    host: &Host,
    options: &RoleOptions,
    gate: Gate,
    machine: M,
    worker: W,
) -> Result<(), RuntimeError>
where
    M: Machine<Task = W::Task, Report = W::Report> + Send + 'static,
    M::Alarm: Send + 'static,
    W: Worker,
{
    let caller = Caller::new(host.clone(), options.name, gate);
    let (events, event_writer) = recorder(caller.clone(), options.event_source);
    let (ask, asked) = mpsc::channel(1);
    let (tell, told) = mpsc::channel(QUEUE);
    let mut watches = start_watches(host, options.name, &machine, ask, &tell);
    let mut event_writers = JoinSet::new();
    event_writers.spawn(event_writer);
    let mut turn = Turn {
        role: options.name,
        host: host.clone(),
        began: Instant::now(),
        machine,
        worker: Arc::new(worker),
        caller,
        permits: Arc::new(Semaphore::new(options.writes_at_once.max(1))),
        in_flight: InFlight::default(),
        resting: Resting::default(),
        binding: Binding::default(),
        follows: Follows::new(host.clone(), options.name, tell),
        questions: host.answers_for(options.name),
        asked,
        effects: JoinSet::new(),
        alarms: DelayQueue::new(),
        events,
    };
    let ended = turn.until_shutdown(told, &mut watches).await;
    watches.abort_all();
    let finished = match ended {
        Ok(()) => turn.finish_what_is_under_way().await,
        Err(error) => Err(error),
    };
    drop(turn);
    // The recorder is gone, so the writer ends once it has written what was recorded.
    let patience = host.timing().shutdown;
    if timeout(patience, event_writers.join_next()).await.is_err() {
        tracing::warn!(role = options.name, "events were left unwritten");
    }
    finished
}

fn start_watches<M: Machine>(
    host: &Host,
    role: &'static str,
    machine: &M,
    ask: mpsc::Sender<Asked>,
    tell: &mpsc::Sender<News>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = machine.watches();
    host.health().set_stage(role, Stage::Active);
    for one in &all {
        host.health().expect_watch(role, one.kind.plural());
    }
    if let Some((resync, interval)) = Resync::new(host, role, machine, ask, tell.clone()) {
        tasks.spawn(resync.run(interval));
    }
    for one in all {
        tasks.spawn(watch(host.clone(), role, one, tell.clone()));
    }
    tasks
}

struct Turn<M: Machine, W> {
    role: &'static str,
    host: Host,
    began: Instant,
    machine: M,
    worker: Arc<W>,
    caller: Caller,
    permits: Arc<Semaphore>,
    in_flight: InFlight<Change>,
    resting: Resting,
    binding: Binding,
    follows: Follows,
    questions: mpsc::Receiver<Question>,
    asked: mpsc::Receiver<Asked>,
    effects: JoinSet<Spent<M::Report>>,
    alarms: DelayQueue<M::Alarm>,
    events: Recorder,
}

impl<M, W> Turn<M, W>
where
    M: Machine<Task = W::Task, Report = W::Report> + Send + 'static,
    M::Alarm: Send + 'static,
    W: Worker,
{
    async fn until_shutdown(
        &mut self,
        mut told: mpsc::Receiver<News>,
        watches: &mut JoinSet<()>,
    ) -> Result<(), RuntimeError> {
        let shutdown = self.host.shutdown().clone();
        let role = OfRole { role: self.role };
        loop {
            self.events.busy(!self.in_flight.is_empty());
            // In this order, so that a run can be repeated: what effects brought back first, for
            // it is newer than what watches tell.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = self.effects.join_next() => self.take_result(ended)?,
                Some(alarm) = poll_fn(|cx| self.alarms.poll_expired(cx)), if !self.alarms.is_empty() => {
                    self.input(Instant::now(), Input::Alarm(alarm.into_inner()));
                }
                Some(asked) = self.questions.recv() => {
                    // Whoever asked may have gone.
                    drop(asked.send(self.machine.measures()));
                }
                Some(News { at, of, told: news }) = told.recv() => {
                    self.host.metrics().queue_depth.get_or_create(&role).set(depth(told.len()));
                    if self.follows.is_over(of) {
                        continue;
                    }
                    self.binding.heard(at, &news);
                    self.input(Instant::now(), match news {
                        Told::Listed(kind, objects) => Input::Listed(kind, objects),
                        Told::Found(key, found) => Input::Found(key, found),
                        Told::Seen(object) => Input::Seen(object),
                        Told::Deleted(key, uid) => Input::Deleted(key, uid),
                    });
                    let took = at.elapsed().as_secs_f64();
                    self.host.metrics().watch_to_decision.get_or_create(&role).observe(took);
                }
                // After what watches told: it is part of what the machine knows.
                Some((kind, answer)) = self.asked.recv() => {
                    drop(answer.send(self.machine.inventory(kind)));
                }
                Some(ended) = watches.join_next() => {
                    // Watches end only when nobody listens: this one panicked.
                    let _ = ended;
                    return Err(RuntimeError::Panicked { what: "a watch" });
                }
                () = self.follows.panicked() => {
                    return Err(RuntimeError::Panicked { what: "a watch" });
                }
            }
        }
    }

    fn take_result(
        &mut self,
        ended: Result<Spent<M::Report>, JoinError>,
    ) -> Result<(), RuntimeError> {
        let of = OfRole { role: self.role };
        self.host
            .metrics()
            .in_flight
            .get_or_create(&of)
            .set(depth(self.effects.len()));
        let now = Instant::now();
        match ended {
            Ok(Spent::Changed(key, ended)) => {
                if let Some(rest) = ended.rest {
                    self.resting.begin(key.clone(), rest);
                }
                for fact in ended.facts {
                    if let Fact::Seen(object) = &fact
                        && ended.outcome == Outcome::Done
                        && let Some(took) = self.binding.wrote(object)
                    {
                        let bound = &self.host.metrics().claim_bound;
                        bound.get_or_create(&of).observe(took.as_secs_f64());
                    }
                    self.input(
                        now,
                        match fact {
                            Fact::Seen(object) => Input::Seen(object),
                            Fact::Deleted(key, uid) => Input::Deleted(key, uid),
                        },
                    );
                }
                // Before the machine hears of it: then it may emit the next.
                if let Some(next) = self.in_flight.end(&key) {
                    self.spawn(next);
                }
                self.input(now, Input::Finished(key, ended.outcome));
            }
            Ok(Spent::Reported(report)) => self.input(now, Input::Report(report)),
            Ok(Spent::Left) => {}
            Err(_) => return Err(RuntimeError::Panicked { what: "an effect" }),
        }
        Ok(())
    }

    /// Feeds the machine at this time.
    fn input(&mut self, now: Instant, input: Input<M::Report, M::Alarm>) {
        let of = OfInput {
            role: self.role,
            input: name_of(&input),
        };
        self.host.metrics().inputs.get_or_create(&of).inc();
        let now = Moment(now.duration_since(self.began));
        for effect in self.machine.handle(now, input) {
            self.execute(effect);
        }
    }

    fn execute(&mut self, effect: Effect<M::Task, M::Alarm>) {
        match effect {
            Effect::Write(write) => self.begin(Change::Write(write)),
            Effect::Destroy(destroy) => self.begin(Change::Destroy(destroy)),
            Effect::Create(create) => self.begin(Change::Create(create)),
            Effect::Event(event) => self.events.record(event),
            Effect::Task(task) => {
                let worker = self.worker.clone();
                self.effects
                    .spawn(async move { Spent::Reported(worker.perform(task).await) });
            }
            Effect::Follow(key) => self.follows.begin(key),
            Effect::Unfollow(key) => self.follows.end(&key),
            Effect::Wake(after, alarm) => {
                self.alarms.insert(alarm, after.min(LONGEST_WAKE));
            }
        }
    }

    fn begin(&mut self, change: Change) {
        let key = change.key().clone();
        let step = change.step();
        match self.in_flight.begin(&key, change) {
            Some(change) => self.spawn(change),
            None => {
                debug_assert!(
                    false,
                    "{step} of {key} emitted while a change of it is under way"
                );
                tracing::error!(
                    role = self.role, step, %key,
                    "a change was emitted while another one of the object is under way; it waits"
                );
            }
        }
    }

    fn spawn(&mut self, change: Change) {
        if let Some(left) = self.resting.left(change.key()) {
            let reason = format!("the API server asked to leave it alone for another {left:?}");
            self.effects.spawn(async move {
                let ended = Ended::new(Vec::new(), Outcome::Failed(reason));
                Spent::Changed(change.key().clone(), ended)
            });
            return;
        }
        let caller = self.caller.in_turn(self.permits.clone());
        self.effects.spawn(async move {
            let began = Instant::now();
            let ended = match &change {
                Change::Create(one) => create(&caller, one).await,
                Change::Write(one) => write(&caller, one).await,
                Change::Destroy(one) => destroy(&caller, one).await,
            };
            if !caller.has_begun() {
                return Spent::Left;
            }
            note(&caller, &change, &ended.outcome, began);
            Spent::Changed(change.key().clone(), ended)
        });
    }

    /// Waits for effects under way, but not for long: each is safe to lose.
    async fn finish_what_is_under_way(&mut self) -> Result<(), RuntimeError> {
        self.permits.close();
        let patience = self.host.timing().shutdown;
        let all = async {
            while let Some(ended) = self.effects.join_next().await {
                if ended.is_err() {
                    return Err(RuntimeError::Panicked { what: "an effect" });
                }
            }
            Ok(())
        };
        match timeout(patience, all).await {
            Ok(result) => result,
            Err(_) => {
                let left = self.effects.len();
                tracing::warn!(
                    role = self.role,
                    left,
                    "effects were abandoned: they took too long to end"
                );
                self.effects.abort_all();
                Ok(())
            }
        }
    }
}

fn note(caller: &Caller, change: &Change, outcome: &Outcome, began: Instant) {
    let (role, step) = (caller.role(), change.step());
    let took = began.elapsed();
    let outcome_name = name_of_outcome(outcome);
    match outcome {
        Outcome::Refused(reason) | Outcome::Failed(reason) => {
            tracing::warn!(role, step, key = %change.key(), reason, "{outcome_name}");
        }
        _ => tracing::debug!(role, step, key = %change.key(), ?took, "{outcome_name}"),
    }
    let metrics = caller.metrics();
    let of = OfOutcome {
        role,
        step,
        outcome: outcome_name,
    };
    metrics.effects.get_or_create(&of).inc();
    metrics
        .effect_seconds
        .get_or_create(&OfStep { role, step })
        .observe(took.as_secs_f64());
    if *outcome == Outcome::Done {
        metrics
            .decision_to_written
            .get_or_create(&OfRole { role })
            .observe(took.as_secs_f64());
    }
}

fn name_of<R, A>(input: &Input<R, A>) -> &'static str {
    match input {
        Input::Listed(..) => "listed",
        Input::Found(..) => "found",
        Input::Seen(_) => "seen",
        Input::Deleted(..) => "deleted",
        Input::Finished(..) => "finished",
        Input::Report(_) => "report",
        Input::Alarm(_) => "alarm",
    }
}

fn name_of_outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Gone => "gone",
        Outcome::Conflict => "conflict",
        Outcome::Spared => "spared",
        Outcome::Refused(_) => "refused",
        Outcome::Failed(_) => "failed",
    }
}

fn depth(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
