//! Creations: an object that is made where none of its name is.

use bitts_api::ObjectKey;
use bitts_api::machine::{Create, Outcome};
use http::Method;
use serde_json::{Value, json};

use crate::api::{self, Answer, Call, Failure, JSON};
use crate::caller::Caller;
use crate::execute::{Ended, Fact, live};

/// Executes a creation. Where an object of the name is there already, it is fed: it may be this
/// one, of an earlier try whose answer was lost.
pub(crate) async fn create(caller: &Caller, create: &Create) -> Ended {
    let key = &create.key;
    let refused = |reason: String| Ended::new(Vec::new(), Outcome::Refused(reason));
    let path = format!(
        "{}?fieldManager=bitts-{}",
        api::collection(key.kind, key.namespace.as_ref()),
        caller.role()
    );
    let call = match Call::with_body(Method::POST, path, JSON, &named(key, &create.body)) {
        Ok(call) => call,
        Err(error) => return refused(error.to_string()),
    };
    let mut tries = caller.tries();
    loop {
        return match caller.call(&call).await {
            Answer::Ok(body) => match key.kind.read(&body) {
                Ok(object) => Ended::new(vec![Fact::Seen(object)], Outcome::Done),
                // It took effect; the watch will tell the rest.
                Err(error) => {
                    tracing::error!(%key, %error, "the API's answer to a creation cannot be read");
                    Ended::new(Vec::new(), Outcome::Done)
                }
            },
            Answer::Conflict => match live(caller, key).await {
                Ok(Some(found)) => Ended::new(vec![Fact::Seen(found)], Outcome::Conflict),
                // It is gone again.
                Ok(None) => {
                    let kind = key.kind.name();
                    let message =
                        format!("the API says that {kind} {key} exists, and that it does not");
                    let failure = Failure::new("conflict", message);
                    if caller.rest(&call.path, &failure, &mut tries).await {
                        continue;
                    }
                    failure.into()
                }
                Err(failure) => failure.into(),
            },
            Answer::Refused(code, message) => refused(format!("{} ({code})", message.trim_end())),
            Answer::Failed(failure) => failure.into(),
            other => Failure::new("server", format!("creating {key}: {other:?}")).into(),
        };
    }
}

/// The object with what its key says of it.
fn named(key: &ObjectKey, body: &Value) -> Value {
    let kind = key.kind;
    let mut object = body.clone();
    object["apiVersion"] = match kind.group() {
        "" => json!(kind.version()),
        group => json!(format!("{group}/{}", kind.version())),
    };
    object["kind"] = json!(kind.name());
    object["metadata"]["name"] = json!(key.name);
    if let Some(namespace) = &key.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}
