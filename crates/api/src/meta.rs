//! Names, versions and the metadata every object carries.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::wire::or_default;
use crate::{Labels, Uid};

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(share(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        Ok(text.into())
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                *self.0 == *other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                *self.0 == **other
            }
        }
    };
}

text! {
    /// An object's name, unique within its kind and namespace. Equal ones share their bytes: a bound
    /// pair holds both names in five places.
    Name
}
text! {
    /// A namespace's name. Equal ones share their bytes.
    Namespace
}
text! {
    /// A StorageClass's or VolumeAttributesClass's name; never empty where bitts reads a class.
    /// Equal ones share their bytes.
    ClassName
}
text! {
    /// A node's name. Equal ones share their bytes.
    NodeName
}
text! {
    /// A volume that is attached, by the name made of plugin and volume that nodes list (A3, M15). Equal
    /// ones share their bytes: a node has each twice, and who attaches it once more.
    DiskName
}

/// One allocation for each different text among those that repeat: names of objects, classes, nodes
/// and namespaces, keys of labels and annotations. Texts that nobody holds any more are dropped when
/// the set has doubled, so that a stream of ever new names cannot fill the memory.
pub(crate) fn share(text: &str) -> Arc<str> {
    static SHARED: Mutex<Shared> = Mutex::new(Shared {
        texts: BTreeSet::new(),
        sweep_at: 1024,
    });
    SHARED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(text)
}

/// Shares a text that repeats when it is short: `yes`, a class, a driver.
fn share_short(text: &str) -> Arc<str> {
    if text.len() <= 64 {
        share(text)
    } else {
        text.into()
    }
}

struct Shared {
    texts: BTreeSet<Arc<str>>,
    sweep_at: usize,
}

impl Shared {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        if self.texts.len() >= self.sweep_at {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = 1024.max(self.texts.len() * 2);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(new.clone());
        new
    }
}

/// The version of an object in the API's history.
///
/// Kubernetes lets clients compare two versions of one kind as numbers (B3); an object that was
/// never stored has version 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(pub u64);

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for ResourceVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(0));
        }
        text.parse().map(Self).map_err(|_| {
            serde::de::Error::custom(format!("resourceVersion {text:?} is not a number"))
        })
    }
}

/// The annotations of an object, of which only those in a `kubernetes.io` or `bitts` domain are
/// kept: what users attach for themselves is nothing that a role reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(Box<[(Arc<str>, Arc<str>)]>);

impl Annotations {
    /// The value of an annotation.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }

    /// Whether the annotation is there; for most of them the value means nothing (N4).
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Known;
        impl<'de> serde::de::Visitor<'de> for Known {
            type Value = Annotations;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of annotations")
            }
            fn visit_unit<E>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Annotations, A::Error> {
                let mut known = Vec::new();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let domain = key.split('/').next().unwrap_or_default();
                    // kubectl's own copy of the manifest is the largest annotation there is.
                    let wanted = domain.ends_with("kubernetes.io") || domain.contains("bitts");
                    if wanted && domain != "kubectl.kubernetes.io" {
                        let value: Option<std::borrow::Cow<'de, str>> = map.next_value()?;
                        known.push((share(&key), share_short(&value.unwrap_or_default())));
                    } else {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                known.sort();
                Ok(Annotations(known.into()))
            }
        }
        deserializer.deserialize_any(Known)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Annotations {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(iter: I) -> Self {
        let mut all: Vec<_> = iter
            .into_iter()
            .map(|(k, v)| (share(k), share_short(v)))
            .collect();
        all.sort();
        Self(all.into())
    }
}

/// The metadata that roles read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// The object's name.
    pub name: Name,
    /// The namespace; `None` for volumes, classes and nodes.
    #[serde(default, deserialize_with = "namespace")]
    pub namespace: Option<Namespace>,
    /// Empty in a manifest that the API has not seen yet.
    #[serde(default = "no_uid", deserialize_with = "uid")]
    pub uid: Uid,
    /// The version that was read; a write that depends on it carries it.
    #[serde(default, deserialize_with = "or_default")]
    pub resource_version: ResourceVersion,
    /// When the object was created.
    #[serde(default)]
    pub creation_timestamp: Option<Timestamp>,
    /// Set once deletion was asked for and finalizers still hold the object.
    #[serde(default)]
    pub deletion_timestamp: Option<Timestamp>,
    /// All labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: Labels,
    /// The annotations in Kubernetes' and bitts' own domains.
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: Annotations,
    /// Who has to agree before the object disappears.
    #[serde(default, deserialize_with = "finalizers")]
    pub finalizers: Box<[Arc<str>]>,
    /// The owner that made the object for itself, if one did.
    #[serde(
        default,
        rename = "ownerReferences",
        deserialize_with = "controller_of"
    )]
    pub controller: Option<Uid>,
    /// Deletion was asked for, and there is no time left for the object to end by itself: of a pod,
    /// its node said that it has ended, or somebody forced it.
    #[serde(
        default,
        rename = "deletionGracePeriodSeconds",
        deserialize_with = "is_zero"
    )]
    pub grace_is_over: bool,
}

fn no_uid() -> Uid {
    Uid::from("")
}

fn uid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uid, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(no_uid))
}

/// The same few finalizers are on every object.
fn finalizers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[Arc<str>]>, D::Error> {
    let texts: Vec<std::borrow::Cow<'de, str>> = or_default(deserializer)?;
    Ok(texts.iter().map(|text| share(text)).collect())
}

#[derive(Deserialize)]
struct Owner {
    uid: Uid,
    #[serde(default, deserialize_with = "or_default")]
    controller: bool,
}

fn controller_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uid>, D::Error> {
    let owners: Vec<Owner> = or_default(deserializer)?;
    Ok(owners.into_iter().find(|o| o.controller).map(|o| o.uid))
}

fn is_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<i64>::deserialize(deserializer)? == Some(0))
}

/// Go clients write `""` for no namespace.
fn namespace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Namespace>, D::Error> {
    let named: Option<Namespace> = Option::deserialize(deserializer)?;
    Ok(named.filter(|name| *name != ""))
}

impl Meta {
    /// Whether deletion was asked for.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_texts_are_one_and_go_when_unused() {
        let mut shared = Shared {
            texts: BTreeSet::new(),
            sweep_at: 1024,
        };
        let kept = shared.get("kept");
        for n in 0..100_000 {
            shared.get(&n.to_string());
        }
        assert!(shared.texts.len() <= 1024, "{}", shared.texts.len());
        assert!(Arc::ptr_eq(&kept, &shared.get("kept")));
    }
}
