//! Volumes that other provisioners made, taken over: nfs-subdir-external-provisioner's on a share,
//! local-path-provisioner's on a node. Pure: what is to be recorded, what changes of the object, and why
//! not.

use std::path::Path;

use bitts_api::machine::Target;
use bitts_api::{Kind, Node, Source, StorageClass, Volume, VolumePhase, names};
use serde_json::{Value, json};

use crate::class::{Access, OnDelete, Quota};
use crate::legacy::{self, of_subdir};
use crate::options::{LOCAL, NFS};
use crate::orphans::Home;
use crate::pattern::{Subpath, SubpathError};
use crate::task::{Owner, Record};
use crate::volume::name_for;

/// What taking a volume over comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Adoption {
    /// Which of the roots it lies in.
    pub root: usize,
    /// What is recorded there.
    pub record: Record,
    /// The object that changes.
    pub target: Target,
    /// A merge patch of it.
    pub patch: Value,
    /// What stays as it is although it is made differently here, or is done differently from now on.
    pub notes: Vec<&'static str>,
}

/// Why a volume is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// It is no claim's, or not any more.
    #[error("it is {0:?}, not Bound: delete it by hand, or with the provisioner that made it")]
    NotBound(VolumePhase),
    /// Its claim is not known for certain.
    #[error("its claimRef names no claim of a uid: nobody could say later whose data it is")]
    NoClaim,
    /// It has not the name that its claim's uid gives.
    #[error(
        "it is not named pvc-UID after its claim, as volumes that bitts deletes must be: set its \
         persistentVolumeReclaimPolicy to Retain and keep it"
    )]
    Name,
    /// Its directory cannot be one of a volume.
    #[error("its path: {0}")]
    Path(#[from] SubpathError),
}

/// What taking a volume over comes to; none for one that does not lie in these roots of the home, that
/// nobody provisioned, or that was made or taken over here already. `roots` are paths as volumes have
/// them; `node` is the home's, if it is one.
#[must_use]
pub fn adopt(
    volume: &Volume,
    class: Option<&StorageClass>,
    home: &Home,
    roots: &[&str],
    node: Option<&Node>,
) -> Option<Result<Adoption, AdoptError>> {
    let annotations = &volume.meta.annotations;
    if !annotations.has(names::PROVISIONED_BY) || annotations.has(names::PROVISIONED_ON) {
        return None;
    }
    let path = match (home, &volume.source) {
        (Home::Share(share), Source::Nfs { server, path, .. }) if *server == share.server => path,
        (Home::Node(_), Source::HostPath { path, .. } | Source::Local { path, .. }) => {
            // The same path is on every node.
            let affinity = volume.node_affinity.as_ref();
            let here = affinity.is_some() && node.is_some_and(|node| node.fits(affinity));
            here.then_some(path)?
        }
        _ => return None,
    };
    let (root, below) = roots.iter().enumerate().find_map(|(index, root)| {
        let below = Path::new(&**path).strip_prefix(root).ok()?.to_str()?;
        (!below.is_empty()).then_some((index, below))
    })?;
    Some(plan(volume, class, home, below).map(|adoption| Adoption { root, ..adoption }))
}

fn plan(
    volume: &Volume,
    class: Option<&StorageClass>,
    home: &Home,
    below: &str,
) -> Result<Adoption, AdoptError> {
    if volume.phase != VolumePhase::Bound {
        return Err(AdoptError::NotBound(volume.phase));
    }
    let owner = volume.claim_ref.as_ref().filter(|r| r.lacks().is_none());
    let owner = owner.ok_or(AdoptError::NoClaim)?;
    let uid = owner.uid.clone().ok_or(AdoptError::NoClaim)?;
    if name_for(&uid) != volume.meta.name {
        return Err(AdoptError::Name);
    }
    let mut notes = Vec::new();
    if let Source::HostPath { .. } = volume.source {
        notes.push(
            "its source is hostPath and cannot be changed: it works, also where it is deleted",
        );
    }
    let on_delete = match (class, home) {
        (None, _) => {
            notes.push("its class is gone: its data stays when it is deleted");
            OnDelete::Retain
        }
        (Some(class), Home::Share(_)) => of_subdir(class),
        (Some(_), Home::Node(_)) => OnDelete::Delete,
    };
    if on_delete == OnDelete::Trash {
        notes.push("it goes to .bitts/trash when it is deleted, not to archived-NAME");
    }
    let (by, on) = match home {
        Home::Node(node) => (LOCAL, node.to_string()),
        Home::Share(share) => (NFS, share.to_string()),
    };
    let record = Record {
        volume: volume.meta.name.clone(),
        claim: Owner {
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            uid,
        },
        path: Subpath::try_from(Box::<str>::from(below))?,
        // It has what it has.
        access: Access {
            mode: 0o777,
            uid: None,
            gid: None,
        },
        on_delete,
        trash_for: None,
        class: volume.class.clone(),
        quota: Quota::None,
        project: None,
        bytes: volume.capacity.as_ref().map_or(0, |size| size.value()),
        copy_of: None,
        confirmed: true,
    };
    let annotations = json!({names::PROVISIONED_BY: by, names::PROVISIONED_ON: on});
    Ok(Adoption {
        root: 0,
        record,
        target: Target::of(Kind::Volume, &volume.meta),
        patch: json!({"metadata": {"annotations": annotations}}),
        notes,
    })
}

/// A class of this home's provisioner that does what a class of another one did, as far as it can; and what
/// it cannot.
#[must_use]
pub fn equivalent(class: &StorageClass, home: &Home) -> (Value, Vec<String>) {
    let (provisioner, share) = match home {
        Home::Node(_) => (LOCAL, None),
        Home::Share(share) => (NFS, Some(share)),
    };
    let (parameters, notes) = legacy::parameters(class, share);
    let mut equivalent = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": Kind::StorageClass.name(),
        "metadata": {"name": format!("{}-bitts", class.meta.name)},
        "provisioner": provisioner,
        "reclaimPolicy": class.reclaim_policy.as_str(),
        "parameters": parameters,
    });
    match home {
        Home::Node(_) => equivalent["volumeBindingMode"] = json!("WaitForFirstConsumer"),
        Home::Share(_) if !class.mount_options.is_empty() => {
            equivalent["mountOptions"] = json!(class.mount_options);
        }
        Home::Share(_) => {}
    }
    (equivalent, notes)
}
