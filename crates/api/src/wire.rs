//! Reading JSON as Go clients write it: `null` for what is empty, and values that one odd object
//! must not turn into a watch that stalls.

use serde::{Deserialize, Deserializer};

use crate::Quantity;

/// Reads `null` as nothing.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `{"storage": "100Mi"}`; an unreadable quantity reads as none.
#[derive(Default, Deserialize)]
pub(crate) struct Storage {
    #[serde(default, deserialize_with = "readable")]
    pub(crate) storage: Option<Quantity>,
}

fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Quantity>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(Quantity::deserialize(value).ok())
}
