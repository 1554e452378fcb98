//! Reads objects of a cluster for what is said about them: gets and lists, nothing else.

use anyhow::{Context as _, Result, anyhow};
use bitts_api::{Kind, Namespace, Object, ObjectKey};
use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Objects a page.
const PAGE: usize = 500;

/// Reads, and keeps what it read.
pub(crate) struct Reader<'a> {
    client: &'a Client,
    pub(crate) objects: Vec<Object>,
    /// What could not be read, in words: it goes without.
    pub(crate) unread: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self {
            client,
            objects: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// One object; none where there is none.
    pub(crate) async fn object(&mut self, key: &ObjectKey) -> Result<Option<Object>> {
        let path = format!(
            "{}/{}",
            collection(key.kind, key.namespace.as_ref()),
            key.name
        );
        let text = match self.get(path).await {
            Ok(text) => text,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(unreadable(error, key.kind, "get")),
        };
        let object = key.kind.read(text.as_bytes());
        let object = object.with_context(|| format!("reading {} {key}", key.kind.name()))?;
        self.objects.push(object.clone());
        Ok(Some(object))
    }

    /// All objects of a kind.
    pub(crate) async fn list(&mut self, kind: Kind, namespace: Option<&Namespace>) -> Result<()> {
        let listed = self.pages(kind, namespace).await;
        listed.map_err(|error| unreadable(error, kind, "list"))
    }

    /// All pages; once more in one piece where the history that pages need is gone (410).
    pub(crate) async fn pages(
        &mut self,
        kind: Kind,
        namespace: Option<&Namespace>,
    ) -> kube::Result<()> {
        let collection = collection(kind, namespace);
        let before = self.objects.len();
        let mut path = format!("{collection}?limit={PAGE}");
        loop {
            let text = match self.get(path).await {
                Err(kube::Error::Api(status)) if status.code == 410 => {
                    self.objects.truncate(before);
                    self.get(collection.clone()).await?
                }
                other => other?,
            };
            let page: Page<'_> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
            for item in page.items.into_iter().flatten() {
                match kind.read(item.get().as_bytes()) {
                    Ok(object) => self.objects.push(object),
                    Err(error) => {
                        let what = kind.name();
                        self.unread
                            .push(format!("a {what} cannot be read: {error}"));
                    }
                }
            }
            let next = page.metadata.next.filter(|token| !token.is_empty());
            let Some(next) = next else { return Ok(()) };
            let next: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
            path = format!("{collection}?limit={PAGE}&continue={next}");
        }
    }

    async fn get(&self, path: String) -> kube::Result<String> {
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

pub(crate) fn collection(kind: Kind, namespace: Option<&Namespace>) -> String {
    let group = match kind.group() {
        "" => format!("/api/{}", kind.version()),
        group => format!("/apis/{group}/{}", kind.version()),
    };
    let plural = kind.plural();
    match namespace {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    }
}

pub(crate) fn unreadable(error: kube::Error, kind: Kind, verb: &str) -> anyhow::Error {
    let plural = kind.plural();
    let message = match &error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "you may not {verb} {plural}: ask for a role that may, e.g. the ClusterRole \"view\" and \
             the verbs get and list of persistentvolumes and storageclasses"
        ),
        _ => format!("the cluster's {plural} cannot be read"),
    };
    anyhow!(error).context(message)
}
