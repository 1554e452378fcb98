//! A safety net below the watches. Now and then each kind is listed, metadata only. What the machine
//! knows otherwise, and still does after its watch had time to tell, was lost on the way: it is read
//! live and told as a watch would have, with a warning, for no such loss is known to happen.

use std::time::Duration;

use bitts_api::machine::{Inventory, Machine, Place, Scope};
use bitts_api::{Kind, Object, ObjectKey, ResourceVersion, Uid};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::Host;
use crate::api::{self, Answer, Call, send};
use crate::list::{PAGE, Page, page_path};
use crate::metrics::OfKind;
use crate::watch::{News, Told};

/// How long a watch may take to tell what a list shows: as long as one that failed may rest.
const CATCH_UP: Duration = Duration::from_secs(30);
/// What is looked into after one list; where more differs, the next list shows it again.
const SUSPECTS: usize = 1_000;

/// Asks what the machine knows of a kind.
pub(crate) type Asked = (Kind, oneshot::Sender<Option<Inventory>>);

/// Compares what a role's machine knows with lists, until the role ends.
pub(crate) struct Resync {
    host: Host,
    role: &'static str,
    kinds: Vec<Kind>,
    ask: mpsc::Sender<Asked>,
    tell: mpsc::Sender<News>,
}

/// The role ends.
struct Over;

/// Why a comparison came to nothing.
enum Failure {
    Over,
    /// The next one may do better.
    Unread(String),
}

impl From<Over> for Failure {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

/// An object of which list and machine say different things.
struct Suspect {
    place: Place,
    listed: Option<(Uid, ResourceVersion)>,
    known: Option<Uid>,
}

impl Suspect {
    /// Whether the machine still has not heard what the list said.
    fn differs(&self, known: Option<&(Uid, ResourceVersion)>) -> bool {
        match (&self.listed, known) {
            (Some((_, listed)), Some((_, known))) => known < listed,
            (None, Some((uid, _))) => self.known.as_ref() == Some(uid),
            // Lost, or gone since: a live look tells.
            (Some(_), None) => true,
            (None, None) => false,
        }
    }
}

impl Resync {
    /// `None` where it is off. Kinds of which only some objects are watched are left out.
    pub(crate) fn new<M: Machine>(
        host: &Host,
        role: &'static str,
        machine: &M,
        ask: mpsc::Sender<Asked>,
        tell: mpsc::Sender<News>,
    ) -> Option<(Self, Duration)> {
        let interval = host.timing().resync?;
        let watches = machine.watches().into_iter();
        let kinds = watches.filter(|watch| watch.scope == Scope::All);
        let resync = Self {
            host: host.clone(),
            role,
            kinds: kinds.map(|watch| watch.kind).collect(),
            ask,
            tell,
        };
        Some((resync, interval))
    }

    /// Compares each kind once in each interval.
    pub(crate) async fn run(self, interval: Duration) {
        loop {
            sleep(jittered(interval)).await;
            for kind in &self.kinds {
                match self.compare(*kind, CATCH_UP.min(interval)).await {
                    Ok(()) => {}
                    Err(Failure::Over) => return,
                    Err(Failure::Unread(problem)) => tracing::info!(
                        role = self.role,
                        kind = kind.name(),
                        problem,
                        "what is known could not be compared with a list; the next one may do"
                    ),
                }
            }
        }
    }

    async fn compare(&self, kind: Kind, catch_up: Duration) -> Result<(), Failure> {
        // Before the list: whatever the machine knows by now the list must show.
        let Some(known) = self.known(kind).await? else {
            return Ok(());
        };
        let suspects = self.suspects(kind, known).await?;
        if suspects.is_empty() {
            return Ok(());
        }
        sleep(catch_up).await;
        let Some(known) = self.known(kind).await? else {
            return Ok(());
        };
        for suspect in suspects {
            let known = known.get(&suspect.place);
            if suspect.differs(known) {
                self.repair(kind, &suspect.place, known).await?;
            }
        }
        Ok(())
    }

    async fn known(&self, kind: Kind) -> Result<Option<Inventory>, Over> {
        let (answer, known) = oneshot::channel();
        self.ask.send((kind, answer)).await.map_err(|_| Over)?;
        known.await.map_err(|_| Over)
    }

    /// Takes a consistent list, page by page; what it shows as it is known is forgotten at once.
    async fn suspects(&self, kind: Kind, mut known: Inventory) -> Result<Vec<Suspect>, Failure> {
        let collection = api::collection(kind, None);
        let mut suspects = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let path = page_path(&collection, "", Some(PAGE), next.as_deref());
            let body = match self.send(&Call::get_metadata(path)).await {
                Answer::Ok(body) => body,
                Answer::NoSuchPath(_) => return Ok(Vec::new()),
                answer => return Err(unread(answer)),
            };
            let page: Page<'_> = serde_json::from_slice(&body)
                .map_err(|error| Failure::Unread(format!("the list cannot be read: {error}")))?;
            for item in page.items() {
                let Ok(Stub { metadata }) = serde_json::from_str::<Stub>(item.get()) else {
                    continue; // as in a watch, where it is named
                };
                let listed = (metadata.uid, metadata.resource_version);
                let place = (metadata.namespace.map(Into::into), metadata.name.into());
                let known = known.remove(&place);
                let suspect = Suspect {
                    place,
                    known: known.as_ref().map(|(uid, _)| uid.clone()),
                    listed: Some(listed),
                };
                if suspect.differs(known.as_ref()) && suspects.len() < SUSPECTS {
                    suspects.push(suspect);
                }
            }
            next = page.next();
            if next.is_none() {
                break;
            }
        }
        let room = SUSPECTS - suspects.len();
        suspects.extend(
            known
                .into_iter()
                .take(room)
                .map(|(place, (uid, _))| Suspect {
                    place,
                    listed: None,
                    known: Some(uid),
                }),
        );
        Ok(suspects)
    }

    /// Reads an object live and tells the machine what it does not know.
    async fn repair(
        &self,
        kind: Kind,
        place: &Place,
        known: Option<&(Uid, ResourceVersion)>,
    ) -> Result<(), Failure> {
        let (namespace, name) = place;
        let key = ObjectKey {
            kind,
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let told = match (self.read(&key).await?, known) {
            (Some(object), Some((uid, version)))
                if object.uid() == uid && object.resource_version() <= *version =>
            {
                return Ok(());
            }
            (Some(object), _) => Told::Seen(object),
            (None, Some((uid, _))) => Told::Deleted(key.clone(), uid.clone()),
            (None, None) => return Ok(()),
        };
        tracing::warn!(
            role = self.role,
            kind = kind.name(),
            %key,
            "a watch has not told of this object as it is: it was read again. Please report this, \
             with the version of the API server and what stands between it and bitts"
        );
        let of = OfKind {
            role: self.role,
            kind: kind.name(),
        };
        self.host.metrics().repairs.get_or_create(&of).inc();
        let at = Instant::now();
        self.tell
            .send(News { at, of: None, told })
            .await
            .map_err(|_| Failure::Over)
    }

    /// The object as a consistent list of one shows it: what may be watched may be listed.
    async fn read(&self, key: &ObjectKey) -> Result<Option<Object>, Failure> {
        let collection = api::collection(key.kind, key.namespace.as_ref());
        let selector = format!("metadata.name={}", key.name);
        let path = page_path(&collection, &selector, None, None);
        let body = match self.send(&Call::get(path)).await {
            Answer::Ok(body) => body,
            answer => return Err(unread(answer)),
        };
        let unreadable = |error| Failure::Unread(format!("{key} cannot be read: {error}"));
        let page: Page<'_> = serde_json::from_slice(&body).map_err(unreadable)?;
        let object: Option<&RawValue> = page.items().next();
        let read = |json: &RawValue| key.kind.read(json.get().as_bytes());
        object
            .map(read)
            .transpose()
            .map_err(|error| Failure::Unread(format!("{key} cannot be read: {error}")))
    }

    async fn send(&self, call: &Call) -> Answer {
        send(self.host.client(), call, self.host.timing().request).await
    }
}

fn unread(answer: Answer) -> Failure {
    Failure::Unread(match answer {
        Answer::Failed(failure) => failure.message,
        Answer::Refused(code, message) => format!("{message} ({code})"),
        other => format!("{other:?}"),
    })
}

/// Within a tenth of the interval, so that processes that were started together do not ask together.
pub(crate) fn jittered(interval: Duration) -> Duration {
    let (chance, _) = Uuid::new_v4().as_u64_pair();
    let within = u32::try_from(chance >> 40).unwrap_or_default();
    interval.mul_f64(0.9 + 0.2 * f64::from(within) / f64::from(1_u32 << 24))
}

#[derive(Deserialize)]
struct Stub {
    metadata: StubMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StubMeta {
    name: String,
    namespace: Option<String>,
    uid: Uid,
    resource_version: ResourceVersion,
}
