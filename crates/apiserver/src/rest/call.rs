//! Reading a request's line and headers.

use http::request::Parts;
use http::{HeaderMap, Method, header};

use super::answer::{self, Form};
use super::params::Params;
use crate::kind::Kind;
use crate::status::{About, Status};
use crate::store::{Key, TableId};

/// What the API calls the things that one can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subresource {
    None,
    Status,
    /// `pods/binding`: the scheduler's verdict.
    Binding,
    /// `namespaces/finalize`: the last step of a namespace.
    Finalize,
}

impl Subresource {
    fn parse(kind: &Kind, text: &str) -> Option<Self> {
        match (text, kind.group, kind.plural) {
            ("status", _, _) if kind.has_status => Some(Self::Status),
            ("binding", "", "pods") => Some(Self::Binding),
            ("finalize", "", "namespaces") => Some(Self::Finalize),
            _ => None,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Status => "/status",
            Self::Binding => "/binding",
            Self::Finalize => "/finalize",
        }
    }
}

/// A request about stored objects.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) kind: &'static Kind,
    /// Empty for cluster-wide kinds and for lists of all namespaces.
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
    pub(crate) subresource: Subresource,
    /// Plural and subresource, as fault rules name them.
    pub(super) resource: String,
    pub(crate) params: Params,
    pub(super) form: Form,
    pub(super) content_type: String,
}

impl Call {
    pub(super) fn read(parts: &Parts) -> Result<Self, Status> {
        let path = Path::parse(parts.uri.path()).ok_or_else(Status::no_such_path)?;
        let params = Params::read(
            path.kind,
            options(&parts.method),
            parts.uri.query().unwrap_or_default(),
        )?;
        let verb = path.verb(&parts.method, &params)?;
        let content_type = answer::header(&parts.headers, &header::CONTENT_TYPE);
        Ok(Self {
            verb,
            kind: path.kind,
            resource: format!("{}{}", path.kind.plural, path.subresource.suffix()),
            namespace: path.namespace,
            name: path.name,
            subresource: path.subresource,
            params,
            form: form(&parts.headers)?,
            content_type: content_type
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
        })
    }

    pub(crate) fn table(&self) -> TableId {
        TableId::of(self.kind)
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    pub(crate) fn namespace_filter(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }

    /// The resource and name, for messages that name the resource.
    pub(crate) fn about(&self) -> About<'_> {
        About {
            group: self.kind.group,
            what: self.kind.plural,
            name: &self.name,
        }
    }

    pub(super) fn resource(&self) -> String {
        if self.kind.group.is_empty() {
            self.resource.clone()
        } else {
            match self.resource.split_once('/') {
                Some((plural, sub)) => format!("{plural}.{}/{sub}", self.kind.group),
                None => format!("{}.{}", self.resource, self.kind.group),
            }
        }
    }
}

/// The kind whose fields a request's query is.
fn options(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "CreateOptions",
        "PUT" => "UpdateOptions",
        "PATCH" => "PatchOptions",
        "DELETE" => "DeleteOptions",
        _ => "ListOptions",
    }
}

fn form(headers: &HeaderMap) -> Result<Form, Status> {
    Form::accepted(answer::header(headers, &header::ACCEPT))
}

#[derive(Debug)]
struct Path {
    kind: &'static Kind,
    namespace: String,
    name: String,
    subresource: Subresource,
}

impl Path {
    fn parse(path: &str) -> Option<Self> {
        let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
        let (group, version, rest) = match steps.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        // `namespaces/x` and `namespaces/x/status` are about the namespace, not in it.
        let in_namespace = match rest {
            ["namespaces", namespace, plural, more @ ..] => Kind::find(group, version, plural)
                .filter(|kind| kind.namespaced)
                .map(|kind| (kind, *namespace, more)),
            _ => None,
        };
        let (kind, namespace, rest) = match (in_namespace, rest) {
            (Some(found), _) => found,
            (None, [plural, more @ ..]) => (Kind::find(group, version, plural)?, "", more),
            (None, []) => return None,
        };
        let (name, subresource) = match rest {
            [] => ("", Subresource::None),
            [name] => (*name, Subresource::None),
            [name, sub] => (*name, Subresource::parse(kind, sub)?),
            _ => return None,
        };
        // One object of a namespaced kind has an address only within its namespace.
        if kind.namespaced && namespace.is_empty() && !name.is_empty() {
            return None;
        }
        Some(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource,
        })
    }

    fn verb(&self, method: &Method, params: &Params) -> Result<Verb, Status> {
        let one = !self.name.is_empty();
        let verb = match (method.as_str(), one, self.subresource) {
            // One object cannot be watched by its path, only by a field selector.
            ("GET", true, Subresource::None | Subresource::Status) => Verb::Get,
            ("GET", false, _) if params.watch => Verb::Watch,
            ("GET", false, _) => Verb::List,
            ("POST", true, Subresource::Binding) => Verb::Create,
            ("POST", false, _) if !self.kind.namespaced || !self.namespace.is_empty() => {
                Verb::Create
            }
            ("PUT", true, sub) if sub != Subresource::Binding => Verb::Update,
            ("PATCH", true, Subresource::None | Subresource::Status) => Verb::Patch,
            ("DELETE", true, Subresource::None) => Verb::Delete,
            ("DELETE", false, _) if self.kind.verbs.contains(&"deletecollection") => {
                Verb::DeleteCollection
            }
            _ => return Err(Status::method_not_allowed()),
        };
        Ok(verb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str) -> Result<Call, Status> {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .body(())
            .unwrap();
        Call::read(&request.into_parts().0)
    }

    #[test]
    fn paths_lead_to_kinds_and_verbs() {
        let line = |method, uri| {
            let call = read(method, uri).unwrap();
            format!(
                "{} {} {}/{}",
                call.verb.name(),
                call.resource(),
                call.namespace,
                call.name
            )
        };
        assert_eq!(
            line("GET", "/api/v1/persistentvolumes"),
            "list persistentvolumes /"
        );
        assert_eq!(
            line("GET", "/api/v1/persistentvolumes?watch=1"),
            "watch persistentvolumes /"
        );
        assert_eq!(line("GET", "/api/v1/namespaces/a"), "get namespaces /a");
        assert_eq!(
            line("PATCH", "/api/v1/namespaces/a/status"),
            "patch namespaces/status /a"
        );
        assert_eq!(line("POST", "/api/v1/namespaces/a/pods"), "create pods a/");
        assert_eq!(line("GET", "/api/v1/pods"), "list pods /");
        assert_eq!(
            line("POST", "/api/v1/namespaces/a/pods/p/binding"),
            "create pods/binding a/p"
        );
        assert_eq!(
            line("DELETE", "/api/v1/namespaces/a/pods/"),
            "deletecollection pods a/"
        );
        assert_eq!(
            line("PUT", "/apis/storage.k8s.io/v1/volumeattachments/x/status"),
            "update volumeattachments.storage.k8s.io/status /x"
        );
    }

    #[test]
    fn what_is_not_served_is_said_so() {
        let code = |method, uri| read(method, uri).unwrap_err().code.as_u16();
        assert_eq!(code("GET", "/api/v1/widgets"), 404);
        assert_eq!(code("GET", "/api/v2/pods"), 404);
        assert_eq!(code("GET", "/api/v1/pods/x"), 404);
        assert_eq!(
            code("GET", "/apis/storage.k8s.io/v1/storageclasses/x/status"),
            404
        );
        assert_eq!(code("POST", "/api/v1/pods"), 405);
        assert_eq!(code("PATCH", "/api/v1/namespaces/a/pods"), 405);
        assert_eq!(code("DELETE", "/api/v1/namespaces"), 405);
        assert_eq!(code("GET", "/api/v1/pods?fieldSelector=spec.x%3Dy"), 400);
        assert_eq!(code("GET", "/api/v1/pods?resourceVersion=abc"), 400);
        assert_eq!(code("GET", "/api/v1/pods?limit=x"), 400);
        assert_eq!(
            code("GET", "/api/v1/pods?watch=1&sendInitialEvents=true"),
            422
        );
        assert_eq!(code("GET", "/api/v1/pods?resourceVersionMatch=Exact"), 422);
    }
}
