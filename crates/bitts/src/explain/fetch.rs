//! Reads what an explanation needs: gets and lists, nothing else.

use anyhow::Result;
use bitts_api::{Claim, Kind, Namespace, Object, ObjectKey, Volume};
use bitts_binder::Cluster;
use kube::Client;

use crate::read::{Reader, unreadable};

/// What was read.
pub(super) struct Seen {
    pub(super) cluster: Cluster,
    /// What could not be, in words: the explanation goes without it.
    pub(super) unread: Vec<String>,
}

/// Reads an object and everything that decides about it.
pub(super) async fn around(client: &Client, key: &ObjectKey) -> Result<Seen> {
    let mut read = Reader::new(client);
    match read.object(key).await? {
        Some(Object::Claim(claim)) => read.around_claim(&claim).await?,
        Some(Object::Volume(volume)) => read.around_volume(&volume).await?,
        _ => {}
    }
    Ok(Seen {
        cluster: Cluster::new(read.objects),
        unread: read.unread,
    })
}

/// Objects that were read, and what could not be, in words.
#[cfg(feature = "attacher")]
pub(super) struct Read {
    pub(super) objects: Vec<Object>,
    pub(super) unread: Vec<String>,
}

/// Reads a pod or an attachment and everything that decides where its volumes are attached.
#[cfg(feature = "attacher")]
pub(super) async fn around_attaching(client: &Client, key: &ObjectKey) -> Result<Read> {
    let mut read = Reader::new(client);
    match read.object(key).await? {
        Some(Object::Pod(pod)) => {
            for claim in pod.claims() {
                let key = ObjectKey {
                    kind: Kind::Claim,
                    namespace: pod.meta.namespace.clone(),
                    name: claim.clone(),
                };
                if let Some(Object::Claim(claim)) = read.object(&key).await?
                    && let Some(volume) = claim.volume_name.clone()
                {
                    read.object(&ObjectKey::volume(volume)).await?;
                }
            }
            read.around_attached(pod.meta.namespace.as_ref()).await?;
        }
        Some(Object::Attachment(attachment)) => {
            let mut namespace = None;
            if let Some(volume) = attachment.volume.clone()
                && let Some(Object::Volume(volume)) =
                    read.object(&ObjectKey::volume(volume)).await?
                && let Some(owner) = &volume.claim_ref
                && owner.lacks().is_none()
            {
                let claim = ObjectKey::claim(owner.namespace.clone(), owner.name.clone());
                read.object(&claim).await?;
                namespace = Some(owner.namespace.clone());
            }
            read.around_attached(namespace.as_ref()).await?;
        }
        _ => {}
    }
    // The one that was asked for is among those of its kind again.
    let mut seen = std::collections::BTreeSet::new();
    read.objects.retain(|object| seen.insert(object.key()));
    Ok(Read {
        objects: read.objects,
        unread: read.unread,
    })
}

impl Reader<'_> {
    /// What is only an addition: a developer may not be allowed to see nodes.
    pub(super) async fn if_allowed(
        &mut self,
        kind: Kind,
        namespace: Option<&Namespace>,
    ) -> Result<()> {
        match self.pages(kind, namespace).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                let what = kind.plural();
                self.unread
                    .push(format!("{what} were not considered: {}", status.message));
                Ok(())
            }
            other => other.map_err(|error| unreadable(error, kind, "list")),
        }
    }

    async fn around_claim(&mut self, claim: &Claim) -> Result<()> {
        // A claim that has its volume, or names it, gets no other.
        let only = claim.volume_name.clone().map(ObjectKey::volume);
        match only {
            Some(volume) => drop(self.object(&volume).await?),
            None => self.list(Kind::Volume, None).await?,
        }
        self.if_allowed(Kind::StorageClass, None).await?;
        self.if_allowed(Kind::Node, None).await?;
        self.if_allowed(Kind::Pod, claim.meta.namespace.as_ref())
            .await
    }

    async fn around_volume(&mut self, volume: &Volume) -> Result<()> {
        if let Some(owner) = &volume.claim_ref {
            if owner.lacks().is_some() {
                return Ok(()); // it names no claim
            }
            let claim = ObjectKey::claim(owner.namespace.clone(), owner.name.clone());
            self.object(&claim).await?;
            self.if_allowed(Kind::Pod, Some(&owner.namespace)).await?;
        } else {
            self.list(Kind::Claim, None).await?;
        }
        self.if_allowed(Kind::StorageClass, None).await?;
        self.if_allowed(Kind::Node, None).await
    }

    /// Without attachments and nodes nothing can be said; the rest is an addition.
    #[cfg(feature = "attacher")]
    async fn around_attached(&mut self, namespace: Option<&Namespace>) -> Result<()> {
        self.list(Kind::Attachment, None).await?;
        self.list(Kind::Node, None).await?;
        self.if_allowed(Kind::CsiDriver, None).await?;
        match namespace {
            Some(namespace) => self.if_allowed(Kind::Pod, Some(namespace)).await,
            None => Ok(()),
        }
    }
}
