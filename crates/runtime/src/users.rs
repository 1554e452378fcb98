//! Who uses a claim, an attributes class or a volume, as the API says now, not as a watch said.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bitts_api::{ClassName, Kind, Name, Namespace, Object, ObjectKey, Pod};

use crate::api::{self, Answer, Call, Failure};
use crate::caller::Slot;
use crate::execute::unexpected;
use crate::list::{PAGE, Page, page_path};

/// The pods of one namespace that may matter to claims, by claim: those that keep them from being
/// deleted (X3) and those that may run (D8).
type Users = Arc<BTreeMap<Name, Vec<Object>>>;

/// Lists of pods, a namespace each, that serve everybody who asked before they began: where many
/// claims are deleted together, none costs a look at all pods of its own (section 13, weakness 24).
#[derive(Debug, Default)]
pub(crate) struct PodLists(Mutex<BTreeMap<Namespace, Arc<Shared>>>);

#[derive(Debug, Default)]
struct Shared {
    /// How often was asked.
    asked: AtomicU64,
    /// The last list, and how often had been asked when it began.
    last: tokio::sync::Mutex<Option<(u64, Result<Users, Failure>)>>,
}

impl PodLists {
    fn of(&self, namespace: &Namespace) -> Arc<Shared> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(namespace.clone()).or_default().clone()
    }

    /// Forgets a list that nobody waits for.
    fn give_back(&self, namespace: &Namespace, shared: Arc<Shared>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(shared);
        if all
            .get(namespace)
            .is_some_and(|s| Arc::strong_count(s) == 1)
        {
            all.remove(namespace);
        }
    }
}

/// The pods that keep a claim from being deleted, from a list that began after this was asked (X4).
pub(crate) async fn of_claim(slot: &Slot<'_>, claim: &ObjectKey) -> Result<Vec<Object>, Failure> {
    those(slot, claim, |pod| pod.holds(&claim.name)).await
}

/// The pods that use a claim and may still run, from such a list too (D8).
pub(crate) async fn that_may_run(
    slot: &Slot<'_>,
    claim: &ObjectKey,
) -> Result<Vec<Object>, Failure> {
    those(slot, claim, |pod| !pod.is_terminated()).await
}

async fn those(
    slot: &Slot<'_>,
    claim: &ObjectKey,
    are: impl Fn(&Pod) -> bool,
) -> Result<Vec<Object>, Failure> {
    let Some(namespace) = &claim.namespace else {
        return Ok(Vec::new());
    };
    let shared = slot.pod_lists().of(namespace);
    let mine = shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
    let users = {
        let mut last = shared.last.lock().await;
        match &*last {
            Some((serves, users)) if *serves >= mine => users.clone(),
            _ => {
                let serves = shared.asked.load(Ordering::SeqCst);
                let users = list(slot, namespace, claim).await;
                *last = Some((serves, users.clone()));
                users
            }
        }
    };
    slot.pod_lists().give_back(namespace, shared);
    let mut users = users?.get(&claim.name).cloned().unwrap_or_default();
    users.retain(|object| matches!(object, Object::Pod(pod) if are(pod)));
    Ok(users)
}

async fn list(slot: &Slot<'_>, namespace: &Namespace, claim: &ObjectKey) -> Result<Users, Failure> {
    let mut users: BTreeMap<Name, Vec<Object>> = BTreeMap::new();
    each(slot, Kind::Pod, Some(namespace), claim, |object| {
        let Object::Pod(pod) = &object else { return };
        let matters = |claim: &&Name| pod.holds(claim) || !pod.is_terminated();
        for claim in pod.claims().filter(matters) {
            users.entry(claim.clone()).or_default().push(object.clone());
        }
    })
    .await?;
    Ok(Arc::new(users))
}

/// A volume or claim that names an attributes class, if there is one (X8).
pub(crate) async fn of_attributes_class(
    slot: &Slot<'_>,
    class: &ClassName,
) -> Result<Option<Object>, Failure> {
    let about = ObjectKey::attributes_class(class);
    for kind in [Kind::Volume, Kind::Claim] {
        let mut user = None;
        each(slot, kind, None, &about, |object| {
            let names_it = match &object {
                Object::Volume(volume) => volume.attributes_class.as_ref() == Some(class),
                Object::Claim(claim) => claim.attributes_classes().any(|c| c == class),
                _ => false,
            };
            if names_it {
                user = Some(object);
            }
        })
        .await?;
        if user.is_some() {
            return Ok(user);
        }
    }
    Ok(None)
}

/// A VolumeAttachment that names a volume, if there is one (A25).
pub(crate) async fn of_volume(slot: &Slot<'_>, volume: &Name) -> Result<Option<Object>, Failure> {
    let about = ObjectKey::volume(volume.clone());
    let mut user = None;
    each(slot, Kind::Attachment, None, &about, |object| {
        if matches!(&object, Object::Attachment(a) if a.volume.as_ref() == Some(volume)) {
            user = Some(object);
        }
    })
    .await?;
    Ok(user)
}

/// Goes through all objects of a kind, all as they were at one moment.
async fn each(
    slot: &Slot<'_>,
    kind: Kind,
    namespace: Option<&Namespace>,
    about: &ObjectKey,
    mut visit: impl FnMut(Object),
) -> Result<(), Failure> {
    let collection = api::collection(kind, namespace);
    let mut next = None;
    loop {
        let path = page_path(&collection, "", Some(PAGE), next.as_deref());
        let body = match slot.send(&Call::get(path)).await {
            Answer::Ok(body) => body,
            answer => return Err(unexpected("listing what may use", about, answer)),
        };
        let unreadable = |error: serde_json::Error| {
            let (what, kind) = (kind.plural(), about.kind.name());
            let message = format!("the {what} that may use {kind} {about}: {error}");
            Failure::new("unreadable", message)
        };
        let page: Page<'_> = serde_json::from_slice(&body).map_err(unreadable)?;
        for item in page.items() {
            // One that cannot be read may be a user.
            visit(kind.read(item.get().as_bytes()).map_err(unreadable)?);
        }
        next = page.next();
        if next.is_none() {
            let no_list = || {
                let (what, kind) = (kind.plural(), about.kind.name());
                let message =
                    format!("the {what} that may use {kind} {about} came without a version");
                Failure::new("unreadable", message)
            };
            return page.version().map(drop).ok_or_else(no_list);
        }
    }
}
