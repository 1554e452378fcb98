//! Label and field selectors, as they stand in a query string.

mod fields;
mod labels;

use serde_json::Value;

use crate::kind::Kind;
use fields::Field;
use labels::Requirement;

/// Which objects a list or a watch is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    labels: Vec<Requirement>,
    fields: Vec<Field>,
}

impl Selection {
    /// Reads both selectors; the error is a sentence for the client.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, String> {
        Ok(Self {
            labels: labels::parse(labels)?,
            fields: fields::parse(kind, fields)?,
        })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that an object must have to be selected, where there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.iter().find_map(fields::Field::name)
    }

    /// Whether a stored object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels
            .iter()
            .all(|requirement| requirement.holds(labels[&requirement.key].as_str()))
            && self.fields.iter().all(|field| field.holds(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(plural: &str) -> &'static Kind {
        crate::kind::ALL
            .iter()
            .find(|kind| kind.plural == plural)
            .unwrap()
    }

    fn labelled(labels: &[(&str, &str)]) -> Value {
        let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
        json!({"metadata": {"name": "x", "labels": labels}})
    }

    fn by_label(selector: &str, labels: &[(&str, &str)]) -> bool {
        Selection::parse(kind("pods"), selector, "")
            .unwrap()
            .matches(&labelled(labels))
    }

    #[test]
    fn labels_select_by_every_operator() {
        let labels = [("app", "web"), ("tier", "7"), ("example.com/a.b_c", "")];
        for selector in [
            "app=web",
            "app == web",
            "app!=db",
            "other!=db",
            "app in (db, web)",
            "app notin (db),tier",
            "other notin (x)",
            "!other",
            "example.com/a.b_c",
            "example.com/a.b_c=",
            "tier>6,tier<8",
            "",
        ] {
            assert!(by_label(selector, &labels), "{selector}");
        }
        for selector in [
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "!app",
            "other",
            "tier>7",
            "app>1",
        ] {
            assert!(!by_label(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn a_selector_that_cannot_be_read_is_refused() {
        for selector in [
            "a b",
            "app in db",
            "app is (x)",
            "=x",
            "a=b=c",
            "a in (b",
            "-a",
            "tier>x",
            "a/b/c",
        ] {
            assert!(
                Selection::parse(kind("pods"), selector, "").is_err(),
                "{selector}"
            );
        }
    }

    #[test]
    fn fields_select_what_the_kind_offers() {
        let select = |plural, fields: &str| Selection::parse(kind(plural), "", fields);
        let pod = json!({
            "metadata": {"name": "p", "namespace": "a,b"},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"},
        });
        assert!(
            select("pods", "spec.nodeName=n1,status.phase!=Failed")
                .unwrap()
                .matches(&pod)
        );
        assert!(!select("pods", "spec.nodeName==n2").unwrap().matches(&pod));
        assert!(
            select("pods", "spec.hostNetwork=false")
                .unwrap()
                .matches(&pod)
        );
        assert!(
            select("pods", r"metadata.namespace=a\,b")
                .unwrap()
                .matches(&pod)
        );
        assert_eq!(select("pods", "metadata.name=q").unwrap().name(), Some("q"));
        assert_eq!(select("pods", "metadata.name!=q").unwrap().name(), None);
        assert!(!select("pods", "metadata.name=q").unwrap().matches(&pod));
        assert!(
            select("pods", "spec.volumes=x")
                .unwrap_err()
                .contains("field label not supported: spec.volumes")
        );
        assert!(
            select("persistentvolumes", "spec.nodeName=x")
                .unwrap_err()
                .contains("not a known field selector")
        );
        assert!(
            !select("persistentvolumes", "metadata.namespace=x")
                .unwrap()
                .matches(&json!({}))
        );
        assert!(select("pods", "nonsense").is_err());
    }

    #[test]
    fn both_forms_of_events_select_the_stored_one() {
        let event = json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "source": {"component": "bitts"},
        });
        let core = Kind::find("", "v1", "events").unwrap();
        let api = Kind::find("events.k8s.io", "v1", "events").unwrap();
        let matches = |kind, fields| Selection::parse(kind, "", fields).unwrap().matches(&event);
        assert!(matches(core, "involvedObject.kind=Pod,source=bitts"));
        assert!(matches(api, "regarding.kind=Pod"));
        assert!(!matches(api, "regarding.kind=Node"));
    }
}
