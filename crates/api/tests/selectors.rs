//! Label and node selectors with every operator.

use bitts_api::{LabelSelector, Labels, NodeSelector};
use serde_json::{Value, json};

fn selector(value: Value) -> LabelSelector {
    serde_json::from_value(value).unwrap_or_else(|why| panic!("{why}"))
}

fn expression(key: &str, operator: &str, values: Value) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}

fn nodes(terms: Value) -> NodeSelector {
    serde_json::from_value(json!({"nodeSelectorTerms": terms}))
        .unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn every_operator_on_labels() {
    let with = Labels::from_iter([("zone", "a")]);
    let other = Labels::from_iter([("zone", "c")]);
    let without = Labels::from_iter([("disk", "ssd")]);
    // key, operator, values; matches with a, with c, without the key; printed
    for (operator, values, expected, printed) in [
        (
            "In",
            json!(["a", "b"]),
            [true, false, false],
            "zone in (a,b)",
        ),
        ("In", json!(["a"]), [true, false, false], "zone=a"),
        (
            "NotIn",
            json!(["b", "a"]),
            [false, true, true],
            "zone notin (a,b)",
        ),
        ("Exists", json!([]), [true, true, false], "zone"),
        ("DoesNotExist", json!(null), [false, false, true], "!zone"),
        (
            "In",
            json!([]),
            [false; 3],
            "zone In () (invalid, selects nothing)",
        ),
        (
            "NotIn",
            json!(null),
            [false; 3],
            "zone NotIn () (invalid, selects nothing)",
        ),
        (
            "Exists",
            json!(["a"]),
            [false; 3],
            "zone Exists (a) (invalid, selects nothing)",
        ),
        (
            "Near",
            json!(["a"]),
            [false; 3],
            "zone Near (a) (invalid, selects nothing)",
        ),
        (
            "Gt",
            json!(["1"]),
            [false; 3],
            "zone Gt (1) (invalid, selects nothing)",
        ),
    ] {
        let selector = selector(expression("zone", operator, values));
        let got = [&with, &other, &without].map(|labels| selector.matches(labels));
        assert_eq!(got, expected, "{operator}");
        assert_eq!(selector.to_string(), printed);
    }
}

#[test]
fn an_empty_selector_matches_everything() {
    let nulls = json!({"matchLabels": null, "matchExpressions": null});
    for empty in [json!({}), nulls, json!({"matchLabels": {}})] {
        let selector = selector(empty);
        assert!(selector.is_empty() && selector.matches(&Labels::default()));
        assert_eq!(selector.to_string(), "<none>");
    }
}

#[test]
fn all_requirements_must_hold_and_exact_ones_are_offered_to_an_index() {
    let selector = selector(json!({
        "matchLabels": {"b": "2", "a": "1"},
        "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["3"]},
            {"key": "d", "operator": "In", "values": ["4", "5"]},
            {"key": "e", "operator": "Exists"},
        ],
    }));
    let pairs: Vec<_> = selector.required_pairs().collect();
    assert_eq!(pairs, [("a", "1"), ("b", "2"), ("c", "3")]);
    let all = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "5"), ("e", "")];
    assert!(selector.matches(&Labels::from_iter(all)));
    for missing in 0..all.len() {
        let mut some = all.to_vec();
        some.remove(missing);
        assert!(
            !selector.matches(&Labels::from_iter(some)),
            "without {:?}",
            all[missing]
        );
    }
}

#[test]
fn selectors_are_equal_however_they_are_written() {
    let equal = selector(json!({"matchLabels": {"a": "1", "b": "2"}}));
    assert_eq!(
        equal,
        LabelSelector::from_iter([("b", "2"), ("a", "1"), ("a", "1")])
    );
    assert_eq!(
        selector(expression("a", "In", json!(["1", "1"]))),
        LabelSelector::from_iter([("a", "1")])
    );
    assert_eq!(
        selector(expression("a", "In", json!(["2", "1"]))),
        selector(expression("a", "In", json!(["1", "2"]))),
    );
}

#[test]
fn labels_are_a_sorted_map() {
    let labels: Labels =
        serde_json::from_str(r#"{"b": "2", "a": "0", "c": null, "a": "1"}"#).unwrap();
    assert_eq!(
        labels.iter().collect::<Vec<_>>(),
        [("a", "1"), ("b", "2"), ("c", "")]
    );
    assert_eq!(
        labels,
        Labels::from_iter([("c", ""), ("b", "2"), ("a", "0"), ("a", "1")])
    );
    assert_eq!(
        (labels.get("b"), labels.get("x"), labels.len()),
        (Some("2"), None, 3)
    );
    assert!(serde_json::from_str::<Labels>("null").unwrap().is_empty());
}

#[test]
fn node_terms_are_alternatives_of_requirements() {
    let term = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let labels = Labels::from_iter([("zone", "a"), ("disks", "12"), ("name", "x")]);
    let fits = |terms: Value| nodes(terms).matches("n1", &labels);
    assert!(!fits(json!([])) && !fits(json!(null)), "no term, no node");
    assert!(!fits(json!([{}])) && !fits(json!([{"matchExpressions": [], "matchFields": null}])));
    assert!(
        fits(json!([{}, term("zone", "In", json!(["a"]))])),
        "an empty term does no harm"
    );
    assert!(!fits(json!([
        term("zone", "In", json!(["b"])),
        term("disks", "Lt", json!(["12"]))
    ])));
    assert!(fits(json!([
        term("zone", "In", json!(["b"])),
        term("disks", "Lt", json!(["13"]))
    ])));
    for (key, operator, values, expected) in [
        ("disks", "Gt", json!(["11"]), true),
        ("disks", "Gt", json!(["12"]), false),
        ("disks", "Gt", json!(["9"]), true), // as numbers, not as texts
        ("disks", "Gt", json!(["-1"]), true),
        ("disks", "Gt", json!(["many"]), false),
        ("disks", "Gt", json!(["1", "2"]), false),
        ("disks", "Lt", json!([]), false),
        ("zone", "Lt", json!(["99"]), false),
        ("none", "Gt", json!(["0"]), false),
        ("none", "NotIn", json!(["0"]), true),
        ("none", "DoesNotExist", json!(null), true),
        ("zone", "Exists", json!(null), true),
        ("zone", "Beside", json!(["a"]), false),
    ] {
        assert_eq!(
            fits(json!([term(key, operator, values)])),
            expected,
            "{key} {operator}"
        );
    }
}

#[test]
fn node_fields_are_the_name_alone() {
    let by_field = |key: &str, operator: &str, value: &str| {
        let field = json!({"key": key, "operator": operator, "values": [value]});
        nodes(json!([{"matchFields": [field]}]))
            .matches("n1", &Labels::from_iter([("spec.x", "n1")]))
    };
    assert!(by_field("metadata.name", "In", "n1"));
    assert!(!by_field("metadata.name", "In", "n2"));
    assert!(by_field("metadata.name", "NotIn", "n2"));
    assert!(!by_field("metadata.name", "NotIn", "n1"));
    assert!(!by_field("metadata.name", "Exists", ""));
    assert!(!by_field("spec.x", "In", "n1"));
    assert!(
        !by_field("spec.x", "NotIn", "n2"),
        "a field that the API refuses selects nothing"
    );
}

#[test]
fn node_selectors_read_like_a_sentence() {
    let text = |terms: Value| nodes(terms).to_string();
    assert_eq!(text(json!([])), "no node");
    assert_eq!(
        text(json!([
            {"matchExpressions": [{"key": "cqh", "operator": "In", "values": ["chenqionghe"]},
                                  {"key": "disks", "operator": "Gt", "values": ["3"]}],
             "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n2"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
            {},
        ])),
        "cqh=chenqionghe and disks>3 and metadata.name notin (n2), or metadata.name=n1, or no node"
    );
}
