//! What a role asks of the API's access control. Each crate says so beside the code that needs it;
//! manifests and checks are made of that, so that neither can fall behind.

use crate::Kind;

/// What may be done to objects, by its name in RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the API's own words")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    /// As RBAC writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Where a grant is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Everywhere.
    Cluster,
    /// In the namespace that bitts runs in.
    Own,
    /// In `kube-system`.
    System,
}

/// One rule: these verbs on this resource, and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The resource, with its subresource: `persistentvolumes/status`.
    pub resource: &'static str,
    /// Only the object of this name; every object otherwise.
    pub name: Option<&'static str>,
    /// What is done to it.
    pub verbs: &'static [Verb],
    /// Where.
    pub place: Place,
    /// What it is needed for, for the people who grant it.
    pub why: &'static str,
}

impl Grant {
    /// Verbs on a resource of the whole cluster.
    #[must_use]
    pub const fn new(
        group: &'static str,
        resource: &'static str,
        verbs: &'static [Verb],
        why: &'static str,
    ) -> Self {
        Self {
            group,
            resource,
            name: None,
            verbs,
            place: Place::Cluster,
            why,
        }
    }

    /// What watching a kind takes.
    ///
    /// ```
    /// use bitts_api::grant::{Grant, Verb};
    /// use bitts_api::Kind;
    ///
    /// let grant = Grant::to_watch(Kind::StorageClass);
    /// assert_eq!((grant.group, grant.resource), ("storage.k8s.io", "storageclasses"));
    /// assert_eq!(grant.verbs, [Verb::List, Verb::Watch]);
    /// ```
    #[must_use]
    pub const fn to_watch(kind: Kind) -> Self {
        Self::new(
            kind.group(),
            kind.plural(),
            &[Verb::List, Verb::Watch],
            "decisions are made on them",
        )
    }

    /// The same in one place only.
    #[must_use]
    pub const fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// The same for one object only.
    #[must_use]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }
}
