//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::Page;
use super::params::VersionMatch;
use super::{Call, Core, Reply};
use crate::faults::Fault;
use crate::status::Status;
use crate::store::{Key, State};

const LIST_TOO_OLD: &str = "The resourceVersion for the provided list is too old.";
const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Where a paged list goes on. Clients pass it back unread.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    /// The revision of the first page, of which all pages show the state; 0 for whatever is current.
    rv: u64,
    /// The last key of the page before.
    namespace: String,
    name: String,
    /// How many objects the kind had behind that key.
    rest: Option<usize>,
}

impl Continue {
    fn encode(&self) -> String {
        // A struct of numbers and strings always serializes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(token: &str) -> Result<Self, Status> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| {
                Status::bad_request(
                    "invalid continue token: continue key is not valid: it is not from this API",
                )
            })
    }
}

impl Core {
    pub(super) fn get(&self, call: &Call) -> Result<Reply, Status> {
        let state = self.store.read();
        if let Some(version) = call.params.version.filter(|it| *it > state.revision()) {
            return Err(Status::version_too_large(version, state.revision()));
        }
        let object = stored(&state, call)?;
        Ok(Reply::object(StatusCode::OK, Arc::clone(object)))
    }

    pub(super) fn list(&self, call: &Call, fault: Option<Fault>) -> Result<Reply, Status> {
        let state = self.store.read();
        if let Some(Fault::StaleList(behind)) = fault {
            let at = state
                .revision()
                .saturating_sub(behind)
                .max(state.oldest(call.table()));
            return page(&state, call, at, None).map(Reply::List);
        }
        let params = &call.params;
        let current = state.revision();
        if !params.continue_token.is_empty() {
            if params.version.is_some_and(|version| version != 0) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let from = Continue::decode(&params.continue_token)?;
            let at = if from.rv == 0 { current } else { from.rv };
            return page(&state, call, at, Some(from)).map(Reply::List);
        }
        let at = match (params.version, params.version_match) {
            (Some(version), _) if version > current => {
                return Err(Status::version_too_large(version, current));
            }
            (Some(version), Some(VersionMatch::Exact)) => version,
            // A page of an old version is that version's, unless something newer may be shown.
            (Some(version), None) if version != 0 && params.limit > 0 => version,
            _ => current,
        };
        page(&state, call, at, None).map(Reply::List)
    }
}

/// The stored object that a call names.
pub(super) fn stored<'a>(state: &'a State, call: &Call) -> Result<&'a Arc<Value>, Status> {
    state
        .get(call.table(), &call.key())
        .ok_or_else(|| Status::not_found(call.about()))
}

fn page(state: &State, call: &Call, at: u64, from: Option<Continue>) -> Result<Page, Status> {
    let selection = &call.params.selection;
    let namespace = call.namespace_filter();
    let after = from
        .as_ref()
        .map(|from| Key::new(&from.namespace, &from.name));
    let expired = |_| match &from {
        None => Status::expired(LIST_TOO_OLD),
        Some(from) => {
            let mut status = Status::expired(CONTINUE_TOO_OLD);
            // The token that goes on with the current state instead.
            let again = Continue {
                rv: 0,
                namespace: from.namespace.clone(),
                name: from.name.clone(),
                rest: None,
            };
            status.continue_token = Some(again.encode());
            status
        }
    };
    // Clients that follow one object select it by name: that is no reason to look at all.
    let named = selection
        .name()
        .filter(|_| at == state.revision() && namespace.is_some() == call.kind.namespaced)
        .map(|name| Key::new(namespace.unwrap_or_default(), name));
    let candidates: Box<dyn Iterator<Item = _>> = match named {
        Some(key) => {
            let is_left = after.is_none_or(|after| key > after);
            Box::new(
                state
                    .get(call.table(), &key)
                    .filter(|_| is_left)
                    .into_iter(),
            )
        }
        None => state
            .scan_at(call.table(), at, namespace, after.as_ref())
            .map_err(expired)?,
    };
    let mut objects = candidates.filter(|object| selection.matches(object));
    let mut page = Page {
        revision: at,
        ..Page::default()
    };
    let limit = call.params.limit;
    if limit == 0 {
        page.items = objects.cloned().collect();
        return Ok(page);
    }
    page.items = objects.by_ref().take(limit).cloned().collect();
    let (Some(last), true) = (page.items.last(), objects.next().is_some()) else {
        return Ok(page);
    };
    // As in the API, nobody counts the rest of what a selector would choose.
    let before = match (&from, namespace) {
        (Some(from), _) => from.rest,
        (None, None) => Some(state.len(call.table())),
        (None, Some(_)) => Some(page.items.len() + 1 + objects.count()),
    };
    let rest = before
        .filter(|_| selection.is_everything())
        .map(|before| before.saturating_sub(page.items.len()));
    let key = Key::of(last);
    page.remaining = rest;
    page.continue_token = Continue {
        rv: at,
        namespace: key.namespace,
        name: key.name,
        rest,
    }
    .encode();
    Ok(page)
}
