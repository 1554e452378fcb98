//! A child that keeps a share, seen by its caller.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitts_mount::attendant::Attendant;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, oneshot};

use super::call::{Answer, Call, Outcome, Work, line};
use super::{AT_ONCE, SERVICE};
use crate::site::Share;

/// A child that has a share mounted.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// So many calls the child does at a time; what waits for its turn waits for no server.
    turns: Semaphore,
    words: tokio::sync::Mutex<OwnedWriteHalf>,
    next: AtomicU64,
    state: Arc<Mutex<State>>,
}

/// Whether the child is there, and who waits for it.
#[derive(Debug)]
struct State {
    /// Killed when it is dropped; else why it is not there any more.
    child: Result<Attendant, String>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Outcome, String>>>,
}

impl State {
    /// Kills the child; whoever waits for it is told why.
    fn end(&mut self, why: &str) {
        if self.child.is_ok() {
            self.child = Err(why.to_owned());
        }
        for (_, sender) in std::mem::take(&mut self.waiting) {
            // Who was late does not wait any more.
            let _ = sender.send(Err(why.to_owned()));
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Has a share mounted by a child of its own.
    pub(crate) async fn start(share: &Share, patience: Duration) -> Result<Self, String> {
        let started = tokio::task::spawn_blocking(|| Attendant::start(SERVICE.name)).await;
        let (child, stream) = started
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        let connected = stream.set_nonblocking(true);
        let stream = connected.and_then(|()| UnixStream::from_std(stream));
        let (answers, mut words) = stream.map_err(|e| e.to_string())?.into_split();
        let mut answers = BufReader::new(answers).lines();
        let mounted = tokio::time::timeout(patience, async {
            words.write_all(&line(share)?).await?;
            answers.next_line().await
        });
        let mounted = match mounted.await {
            Ok(Ok(Some(text))) => serde_json::from_str(&text).map_err(|e| e.to_string()),
            Ok(Ok(None)) => Err("the child that mounts it ended".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(silent(patience)),
        };
        match mounted? {
            Answer::Mounted => {}
            Answer::NotMounted(why) => return Err(why),
            other => return Err(format!("not what the child has to say: {other:?}")),
        }
        let state = Arc::new(Mutex::new(State {
            child: Ok(child),
            waiting: BTreeMap::new(),
        }));
        tokio::spawn(hear(share.to_string(), answers, state.clone()));
        Ok(Self {
            turns: Semaphore::new(AT_ONCE),
            words: tokio::sync::Mutex::new(words),
            next: AtomicU64::new(0),
            state,
        })
    }

    /// Whether it may be called.
    pub(super) fn is_there(&self) -> bool {
        lock(&self.state).child.is_ok()
    }

    /// Has something done on the share. Past the deadline the child is killed, with all that it does:
    /// it waits for the same server.
    pub(crate) async fn call(&self, work: Work, deadline: Duration) -> Result<Outcome, String> {
        let _turn = self.turns.acquire().await.map_err(|e| e.to_string())?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            if let Err(why) = &state.child {
                return Err(why.clone());
            }
            state.waiting.insert(id, sender);
        }
        let done = tokio::time::timeout(deadline, async {
            let said = line(&Call { id, work }).map_err(|e| e.to_string())?;
            let told = self.words.lock().await.write_all(&said).await;
            told.map_err(|_| ENDED.to_owned())?;
            answer.await.map_err(|_| ENDED.to_owned())?
        });
        done.await.unwrap_or_else(|_| {
            let why = silent(deadline);
            lock(&self.state).end(&why);
            Err(why)
        })
    }
}

const ENDED: &str = "the child that had it mounted ended; it is mounted anew";

fn silent(patience: Duration) -> String {
    let seconds = patience.as_secs_f32();
    format!("the server does not answer: nothing came of it within {seconds} s; tried again")
}

impl Drop for Keeper {
    fn drop(&mut self) {
        lock(&self.state).end(ENDED);
    }
}

/// Hands answers to those who wait for them, until the child ends.
async fn hear(
    share: String,
    mut answers: Lines<BufReader<OwnedReadHalf>>,
    state: Arc<Mutex<State>>,
) {
    while let Ok(Some(text)) = answers.next_line().await {
        match serde_json::from_str(&text) {
            Ok(Answer::Done(id, outcome)) => {
                let waiting = lock(&state).waiting.remove(&id);
                // Nobody waits any more when it was too late.
                if let Some(sender) = waiting {
                    let _ = sender.send(Ok(outcome));
                }
            }
            Ok(Answer::Warning(why)) => tracing::warn!(share, "{why}"),
            Ok(other) => tracing::error!(share, ?other, "not what the child has to say"),
            Err(error) => tracing::error!(share, %error, "not what the child has to say"),
        }
    }
    lock(&state).end(ENDED);
}
