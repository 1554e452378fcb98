//! What is written of attachments and volumes, as the stock external-attacher writes it (A25 to A27).

use std::sync::Arc;

use bitts_api::machine::{Destroy, Destruction, Evidence, NOW, Part, Target, Write};
use bitts_api::{AttachError, Attachment, Kind, Meta, Volume, names};
use serde_json::{Value, json};

use super::call::Context;

/// The API takes no longer message.
const LONGEST: usize = 1024;

/// The finalizer of a driver's attachments, and of their volumes: letters, digits and dashes only.
pub(crate) fn finalizer(driver: &str) -> Arc<str> {
    format!("{}{}", names::EXTERNAL_ATTACHER, sanitized(driver)).into()
}

/// The name of the lease that the stock external-attacher of the driver competes for, too.
#[cfg(feature = "run")]
pub(crate) fn lease(driver: &str) -> String {
    format!(
        "external-attacher-leader-{}",
        sanitized(driver).to_ascii_lowercase()
    )
}

fn sanitized(driver: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let mut name: String = driver.chars().map(plain).collect();
    if name.ends_with('-') {
        name.push('X');
    }
    name
}

fn with(meta: &Meta, finalizer: &str) -> Value {
    let others = meta.finalizers.iter().filter(|f| ***f != *finalizer);
    let all: Vec<&str> = others.map(|f| &**f).chain([finalizer]).collect();
    json!(all)
}

fn without(meta: &Meta, finalizer: &str) -> Value {
    let others = meta.finalizers.iter().filter(|f| ***f != *finalizer);
    let others: Vec<&str> = others.map(|f| &**f).collect();
    json!(others)
}

pub(crate) fn hold_volume(volume: &Volume, finalizer: &str) -> Write {
    Write {
        step: "hold-volume",
        target: Target::of(Kind::Volume, &volume.meta),
        part: Part::Main,
        patch: json!({"metadata": {"finalizers": with(&volume.meta, finalizer)}}),
    }
}

pub(crate) fn hold_attachment(attachment: &Attachment, finalizer: &str, node_id: &str) -> Write {
    Write {
        step: "hold-attachment",
        target: Target::of(Kind::Attachment, &attachment.meta),
        part: Part::Main,
        patch: json!({"metadata": {
            "finalizers": with(&attachment.meta, finalizer),
            "annotations": {names::PUBLISHED_NODE_ID: node_id},
        }}),
    }
}

/// `None` where its status says so already.
pub(crate) fn attached(attachment: &Attachment, context: &Context) -> Option<Write> {
    let told = attachment.is_attached
        && attachment.context == *context
        && attachment.attach_error.is_none();
    if told {
        return None;
    }
    let mut metadata = json!(context);
    // A merge patch takes away only what it names.
    for stale in attachment
        .context
        .keys()
        .filter(|key| !context.contains_key(*key))
    {
        metadata[&**stale] = Value::Null;
    }
    let metadata = if context.is_empty() {
        Value::Null
    } else {
        metadata
    };
    Some(Write {
        step: "confirm-attached",
        target: Target::of(Kind::Attachment, &attachment.meta),
        part: Part::Status,
        patch: json!({"status": {
            "attached": true, "attachmentMetadata": metadata, "attachError": null,
        }}),
    })
}

/// `None` where its status says so already: then the time there is since when it does.
pub(crate) fn failed(attachment: &Attachment, message: &str, code: Option<i32>) -> Option<Write> {
    let message = cut(message);
    let detaching = attachment.meta.is_deleting();
    let known = match detaching {
        true => &attachment.detach_error,
        false => &attachment.attach_error,
    };
    let says = |known: &AttachError| *known.message == *message && known.code == code;
    if known.as_ref().is_some_and(says) {
        return None;
    }
    let error = json!({"message": message, "time": NOW, "errorCode": code});
    let attached = attachment.is_attached;
    Some(match detaching {
        true => Write {
            step: "tell-detach-error",
            target: Target::of(Kind::Attachment, &attachment.meta),
            part: Part::Status,
            patch: json!({"status": {"attached": attached, "detachError": error}}),
        },
        false => Write {
            step: "tell-attach-error",
            target: Target::of(Kind::Attachment, &attachment.meta),
            part: Part::Status,
            patch: json!({"status": {"attached": attached, "attachError": error}}),
        },
    })
}

fn cut(message: &str) -> &str {
    let end = message.floor_char_boundary(LONGEST);
    &message[..end]
}

/// The driver says that it is detached: what else holds the attachment may still want to know.
pub(crate) fn detached(attachment: &Attachment, finalizer: &str) -> Option<Write> {
    let others = attachment.meta.finalizers.iter().any(|f| **f != *finalizer);
    (others && attachment.is_attached).then(|| Write {
        step: "confirm-detached",
        target: Target::of(Kind::Attachment, &attachment.meta),
        part: Part::Status,
        patch: json!({"status": {
            "attached": false, "attachmentMetadata": null, "detachError": null,
        }}),
    })
}

/// The attachment is gone after this, if nobody else holds it. Whether it still is the one that was
/// detached, and being deleted, is read directly before.
pub(crate) fn let_go_attachment(attachment: &Attachment, finalizer: &str) -> Destroy {
    Destroy {
        step: "let-go-attachment",
        target: Target::of(Kind::Attachment, &attachment.meta),
        action: Destruction::Patch(
            Part::Main,
            json!({"metadata": {"finalizers": without(&attachment.meta, finalizer)}}),
        ),
        evidence: Vec::new(),
    }
}

/// What lets go of a volume that nothing attaches.
pub(crate) enum LettingGo {
    /// It stays.
    Harmless(Write),
    /// It is being deleted, and gone after this: then nobody could detach it any more.
    Last(Destroy),
}

pub(crate) fn let_go_volume(volume: &Volume, finalizer: &str) -> LettingGo {
    let target = Target::of(Kind::Volume, &volume.meta);
    let patch = json!({"metadata": {"finalizers": without(&volume.meta, finalizer)}});
    let step = "let-go-volume";
    match volume.meta.is_deleting() {
        false => LettingGo::Harmless(Write {
            step,
            target,
            part: Part::Main,
            patch,
        }),
        true => LettingGo::Last(Destroy {
            step,
            target,
            action: Destruction::Patch(Part::Main, patch),
            evidence: vec![Evidence::VolumeUnattached(volume.meta.name.clone())],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a25_finalizers_are_named_as_the_stock_sidecar_does() {
        assert_eq!(
            &*finalizer("ebs.csi.aws.com"),
            "external-attacher/ebs-csi-aws-com"
        );
        assert_eq!(&*finalizer("odd."), "external-attacher/odd-X");
    }

    #[test]
    fn a_message_is_cut_between_letters() {
        let long = "ä".repeat(600);
        assert_eq!(cut(&long).len(), 1024);
        assert_eq!(cut(&format!("a{long}")).len(), 1023);
        assert_eq!(cut("short"), "short");
    }
}
