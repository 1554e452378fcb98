//! A table as aligned text, as kubectl prints it.

use serde_json::Value;

/// Blanks between two columns.
const GAP: usize = 3;

/// A `meta.k8s.io/v1` Table as `kubectl get` prints it; a line ends with a line break.
///
/// ```
/// let table = serde_json::json!({
///     "columnDefinitions": [{"name": "Name"}, {"name": "Age"}, {"name": "IP", "priority": 1}],
///     "rows": [{"cells": ["cqh", "5m", "10.0.0.1"]}],
/// });
/// assert_eq!(bitts_apiserver::table::print(&table), "NAME   AGE\ncqh    5m\n");
/// ```
pub fn print(table: &Value) -> String {
    lines(table, false)
}

/// The same with all columns, as `kubectl get -o wide` prints it.
pub fn print_wide(table: &Value) -> String {
    lines(table, true)
}

fn lines(table: &Value, wide: bool) -> String {
    let columns = list(&table["columnDefinitions"]);
    let shown: Vec<usize> = (0..columns.len())
        .filter(|index| wide || columns[*index]["priority"].as_i64().unwrap_or_default() == 0)
        .collect();
    let heading = shown
        .iter()
        .map(|index| cell(&columns[*index]["name"]).to_uppercase());
    let mut lines: Vec<Vec<String>> = vec![heading.collect()];
    for row in list(&table["rows"]) {
        lines.push(
            shown
                .iter()
                .map(|index| cell(&row["cells"][*index]))
                .collect(),
        );
    }
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or_default() + GAP
    };
    let widths: Vec<usize> = (0..shown.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if index + 1 < line.len() {
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

fn list(items: &Value) -> &[Value] {
    items.as_array().map_or(&[], Vec::as_slice)
}

/// One cell: text as it is up to its first line break, everything else as JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => match text.split_once(['\n', '\r', '\u{c}']) {
            Some((line, _)) => format!("{line}..."),
            None => text.clone(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{IncludeObject, render};
    use super::*;

    fn recorded(kind: &str) -> Value {
        let cases: Vec<Value> = serde_json::from_str(include_str!("recorded.json")).unwrap();
        let case = cases.into_iter().find(|case| case["kind"] == kind).unwrap();
        let objects: Vec<Arc<Value>> = case["objects"]
            .as_array()
            .unwrap()
            .iter()
            .cloned()
            .map(Arc::new)
            .collect();
        render(
            kind,
            &objects,
            IncludeObject::None,
            case["now"].as_str().unwrap(),
        )
    }

    /// What kubectl 1.37.2 printed of the same objects.
    #[test]
    fn volumes_print_as_kubectl_prints_them() {
        let trimmed = |text: String| -> String {
            text.lines()
                .map(|line| format!("{}\n", line.trim_end()))
                .collect()
        };
        insta::assert_snapshot!(trimmed(print(&recorded("PersistentVolume"))), @r"
        NAME   CAPACITY   ACCESS MODES   RECLAIM POLICY   STATUS        CLAIM         STORAGECLASS    VOLUMEATTRIBUTESCLASS   REASON          AGE
        cqh    100Mi      RWX            Delete           Bound         default/cqh   local-storage   <unset>                                 0s
        v2     1Gi        RWO,ROX,RWX    Retain           Failed                                      <unset>                 RecycleFailed   0s
        v3     1Gi        RWOP           Retain           Pending                     old             gold                                    0s
        v4     1Gi        RWO            Retain           Terminating                                 <unset>                                 0s
        ");
        insta::assert_snapshot!(trimmed(print_wide(&recorded("PersistentVolume"))), @r"
        NAME   CAPACITY   ACCESS MODES   RECLAIM POLICY   STATUS        CLAIM         STORAGECLASS    VOLUMEATTRIBUTESCLASS   REASON          AGE   VOLUMEMODE
        cqh    100Mi      RWX            Delete           Bound         default/cqh   local-storage   <unset>                                 0s    Filesystem
        v2     1Gi        RWO,ROX,RWX    Retain           Failed                                      <unset>                 RecycleFailed   0s    Block
        v3     1Gi        RWOP           Retain           Pending                     old             gold                                    0s    Filesystem
        v4     1Gi        RWO            Retain           Terminating                                 <unset>                                 0s    Filesystem
        ");
    }

    #[test]
    fn a_message_of_several_lines_is_cut() {
        insta::assert_snapshot!(print(&recorded("Event")), @r"
        LAST SEEN   TYPE     REASON   OBJECT    MESSAGE
        4h1m        Normal   R        pod/p     m
        3h1m        Normal   R        pod/p     two...
        326d        Normal   R        node/n1   m
        ");
    }
}
