//! Lists, page by page.

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Objects a page: what client-go asks for.
pub(crate) const PAGE: u32 = 500;

/// One page of a list, its objects not yet read.
#[derive(Deserialize)]
pub(crate) struct Page<'a> {
    #[serde(default)]
    metadata: PageMeta,
    /// `null` for none, now and then; but what has no such field is no list.
    #[serde(borrow, deserialize_with = "present")]
    items: Option<Vec<&'a RawValue>>,
}

fn present<'de, D: Deserializer<'de>>(items: D) -> Result<Option<Vec<&'de RawValue>>, D::Error> {
    Deserialize::deserialize(items)
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "resourceVersion")]
    version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl Page<'_> {
    /// The objects as text.
    pub(crate) fn items(&self) -> impl Iterator<Item = &RawValue> {
        self.items.iter().flatten().copied()
    }

    /// What to ask the next page with; `None` after the last.
    pub(crate) fn next(&self) -> Option<String> {
        self.metadata.next.clone().filter(|token| !token.is_empty())
    }

    /// The moment in the history that the list shows.
    pub(crate) fn version(&self) -> Option<String> {
        self.metadata
            .version
            .clone()
            .filter(|version| !version.is_empty())
    }
}

/// The path of a page. No resourceVersion is asked for: the answer is consistent, not from a cache
/// that may lag behind.
pub(crate) fn page_path(
    collection: &str,
    field_selector: &str,
    limit: Option<u32>,
    next: Option<&str>,
) -> String {
    let mut path = format!("{collection}?");
    // Writing to a String cannot fail.
    if !field_selector.is_empty() {
        let _ = write!(path, "fieldSelector={}&", escaped(field_selector));
    }
    if let Some(limit) = limit {
        let _ = write!(path, "limit={limit}&");
    }
    if let Some(next) = next {
        let _ = write!(path, "continue={}&", escaped(next));
    }
    path.pop();
    path
}

/// A value for a query: everything but unreserved characters in percent form.
pub(crate) fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_continue_tokens_survive_a_query() {
        assert_eq!(
            page_path("/api/v1/pods", "spec.nodeName=a", Some(2), Some("eyJ2+/=")),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Da&limit=2&continue=eyJ2%2B%2F%3D"
        );
        assert_eq!(page_path("/api/v1/pods", "", None, None), "/api/v1/pods");
    }

    #[test]
    fn a_list_without_items_is_empty() {
        let page: Page<'_> =
            serde_json::from_str(r#"{"metadata":{"continue":""},"items":null}"#).unwrap();
        assert_eq!(page.items().count(), 0);
        assert_eq!((page.next(), page.version()), (None, None));
        assert!(serde_json::from_str::<Page<'_>>(r#"{"metadata":{}}"#).is_err());
    }
}
