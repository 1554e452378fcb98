//! Classes that were written for other provisioners, as they are understood here: classes cannot be changed.

use std::collections::BTreeMap;

use bitts_api::StorageClass;

use crate::class::OnDelete;
use crate::pattern::Pattern;
use crate::site::Share;

/// Parameters of a class.
type Parameters = BTreeMap<Box<str>, Box<str>>;

/// What nfs-subdir-external-provisioner does with the data of a volume of this class.
pub(crate) fn of_subdir(class: &StorageClass) -> OnDelete {
    let get = |name| class.parameters.get(name).map(|value| &**value);
    match (get("onDelete"), get("archiveOnDelete")) {
        (Some("delete"), _) => OnDelete::Delete,
        (Some("retain"), _) => OnDelete::Retain,
        (_, Some("false" | "0" | "f" | "F" | "FALSE" | "False")) => OnDelete::Delete,
        _ => OnDelete::Trash,
    }
}

/// The parameters by which a class would do here what it did for nfs-subdir-external-provisioner (on its
/// share) or local-path-provisioner, as far as that can be; and what cannot.
pub(crate) fn parameters(class: &StorageClass, share: Option<&Share>) -> (Parameters, Vec<String>) {
    let mut parameters = Parameters::new();
    let mut notes = Vec::new();
    if let Some(share) = share {
        parameters.insert("server".into(), share.server.clone());
        parameters.insert("share".into(), share.path.clone());
        parameters.insert("onDelete".into(), of_subdir(class).as_str().into());
    }
    for (name, value) in &class.parameters {
        match &**name {
            "onDelete" | "archiveOnDelete" => {}
            "pathPattern" => match unique(value) {
                Some(pattern) => {
                    if pattern != **value {
                        notes.push(format!(
                            "pathPattern {value:?} gave two claims one directory, one after the other: \
                             here each has its own"
                        ));
                    }
                    parameters.insert("pathPattern".into(), pattern.into());
                }
                None => notes.push(format!(
                    "pathPattern {value:?} means nothing here: left out"
                )),
            },
            other => notes.push(format!("parameter {other} means nothing here: left out")),
        }
    }
    (parameters, notes)
}

/// The class as one of ours.
pub(crate) fn as_ours(class: &StorageClass, share: Option<&Share>) -> StorageClass {
    StorageClass {
        parameters: parameters(class, share).0,
        ..class.clone()
    }
}

/// A pattern under which each claim has a directory of its own.
fn unique(pattern: &str) -> Option<String> {
    let with_volume = format!("{}-${{pv.name}}", pattern.trim_end_matches('/'));
    let all = [pattern.to_owned(), with_volume];
    all.into_iter().find(|text| Pattern::read(text).is_ok())
}
