//! What tells an object from a later one of the same name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// What tells an object from a later one of the same name.
///
/// The API makes UUIDs, and a cluster's objects carry three of them for each bound pair, so those
/// take 16 bytes and no allocation. Any other text is kept as it is.
///
/// ```
/// let uid = bitts_api::Uid::from("8d1f3b2c-6a0e-4c57-9c3e-0f6f1f0a7b11");
/// assert_eq!(uid.to_string(), "8d1f3b2c-6a0e-4c57-9c3e-0f6f1f0a7b11");
/// assert_eq!(uid, *"8d1f3b2c-6a0e-4c57-9c3e-0f6f1f0a7b11");
/// assert!(bitts_api::Uid::from("").is_empty());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Form);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    /// A UUID in the form in which the API writes them; any other form is a text.
    Uuid(Uuid),
    Text(Arc<str>),
}

impl Uid {
    /// Whether it is the uid of nothing: the API has not seen the object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Form::Text(text) if text.is_empty())
    }

    fn with_text<T>(&self, use_it: impl FnOnce(&str) -> T) -> T {
        match &self.0 {
            Form::Uuid(uuid) => use_it(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            Form::Text(text) => use_it(text),
        }
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(match Uuid::try_parse(text) {
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text => {
                Form::Uuid(uuid)
            }
            _ => Form::Text(text.into()),
        })
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl PartialEq<str> for Uid {
    fn eq(&self, other: &str) -> bool {
        self.with_text(|text| text == other)
    }
}

impl PartialEq<&str> for Uid {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.pad(text))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| fmt::Debug::fmt(text, f))
    }
}

impl Serialize for Uid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Uid;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a uid")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Uid, E> {
                Ok(text.into())
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "8d1f3b2c-6a0e-4c57-9c3e-0f6f1f0a7b11";

    #[test]
    fn every_text_comes_back_as_it_was() {
        let others = ["", "u-1", &UUID.to_uppercase(), &UUID.replace('-', ""), "é"];
        for text in [UUID].into_iter().chain(others) {
            let uid = Uid::from(text);
            assert_eq!(uid.to_string(), text);
            assert_eq!(uid, text);
            assert_eq!(serde_json::to_value(&uid).unwrap(), text);
        }
    }

    #[test]
    fn another_form_of_a_uuid_is_another_uid() {
        assert_ne!(Uid::from(UUID), Uid::from(UUID.to_uppercase()));
    }

    #[test]
    fn a_uuid_takes_no_allocation() {
        assert!(matches!(Uid::from(UUID).0, Form::Uuid(_)));
        assert_eq!(size_of::<Option<Uid>>(), 24);
    }
}
