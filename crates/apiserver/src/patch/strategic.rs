//! Strategic merge patch: maps merge, and lists whose items have a name merge by it.
//!
//! Which lists merge, and by which field, is part of each kind's schema: [`MERGED`] holds what the
//! kinds served here have. `recorded.json` holds what Kubernetes' own library made of each case.

use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

type Fields = Map<String, Value>;

/// Why a strategic merge patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StrategicError {
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoMergeKey { item: String, key: &'static str },
    #[error("unknown patch type: {directive} in map: {item}")]
    UnknownDirective { directive: String, item: String },
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("the order in patch list: {list} doesn't match $setElementOrder list: {order}")]
    Order { list: String, order: String },
    #[error("expected a list, but received {0}")]
    NoList(String),
}

/// Lists that merge: the field, and the name of their items; lists of plain values have none.
const MERGED: [(&str, Option<&str>); 25] = [
    ("addresses", Some("type")),
    ("conditions", Some("type")),
    ("containers", Some("name")),
    ("drivers", Some("name")),
    ("env", Some("name")),
    ("ephemeralContainers", Some("name")),
    ("finalizers", None),
    ("hostAliases", Some("ip")),
    ("hostIPs", Some("ip")),
    ("imagePullSecrets", Some("name")),
    ("initContainers", Some("name")),
    ("ownerReferences", Some("uid")),
    ("podCIDRs", None),
    ("podIPs", Some("ip")),
    ("ports", Some("containerPort")),
    ("resourceClaimStatuses", Some("name")),
    ("resourceClaims", Some("name")),
    ("schedulingGates", Some("name")),
    ("secrets", Some("name")),
    ("storageHealth", Some("name")),
    ("topologySpreadConstraints", Some("topologyKey")),
    ("volumeDevices", Some("devicePath")),
    ("volumeMounts", Some("mountPath")),
    ("volumes", Some("name")),
    ("healthConditions", Some("type")),
];

/// How a list takes a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// The patch's list takes its place.
    Replace,
    /// Plain values that are not there yet are added.
    Add,
    /// Items of the same name merge.
    MergeBy(&'static str),
}

/// A kind's schema, as far as lists differ.
#[derive(Debug, Clone, Copy)]
struct Schema<'a> {
    kind: &'a str,
    depth: usize,
}

impl Schema<'_> {
    fn strategy(self, field: &str) -> Strategy {
        // Finalizers of a namespace are metadata and spec; only the first merge. Pull secrets merge
        // in pods, not in service accounts.
        let replaced = matches!(
            (self.kind, field, self.depth),
            ("ServiceAccount", "imagePullSecrets", _) | ("Namespace", "finalizers", 2)
        );
        match MERGED.iter().find(|(name, _)| *name == field) {
            Some((_, key)) if !replaced => key.map_or(Strategy::Add, Strategy::MergeBy),
            _ => Strategy::Replace,
        }
    }

    fn below(self, field: &str) -> Self {
        // Two levels tell `metadata.finalizers` from `spec.finalizers`.
        let depth = match (self.depth, field) {
            (0, "metadata") => 1,
            (0, _) => 2,
            _ => 3,
        };
        Self { depth, ..self }
    }
}

/// Applies a patch to an object of a kind. After an error the object must not be used.
pub(crate) fn apply(kind: &str, object: &mut Value, patch: &Value) -> Result<(), StrategicError> {
    if let (Value::Object(object), Value::Object(patch)) = (object, patch) {
        merge_map(object, patch.clone(), Schema { kind, depth: 0 })?;
    }
    Ok(())
}

fn merge_map(
    current: &mut Fields,
    mut patch: Fields,
    schema: Schema<'_>,
) -> Result<(), StrategicError> {
    match patch
        .get(DIRECTIVE)
        .map(|directive| (directive.as_str().unwrap_or_default(), &patch))
    {
        None => {}
        Some(("replace", _)) => {
            patch.remove(DIRECTIVE);
            *current = patch;
            return Ok(());
        }
        Some(("delete", _)) => {
            current.clear();
            return Ok(());
        }
        Some((directive, patch)) => return Err(unknown(directive, patch)),
    }
    retain_keys(current, &mut patch)?;
    merge_ordered_lists(current, &mut patch, schema)?;
    for (field, value) in patch {
        if let Some(list) = field.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (current.get_mut(list), &value)
            {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        match (current.get_mut(&field), value) {
            (_, Value::Null) => {
                current.remove(&field);
            }
            (Some(Value::Object(inner)), Value::Object(patch)) => {
                merge_map(inner, patch, schema.below(&field))?;
            }
            (Some(Value::Array(items)), Value::Array(patch)) => {
                merge_list(items, patch, schema.strategy(&field), schema.below(&field))?;
            }
            (_, value) => match without_directives(value) {
                Some(value) => {
                    current.insert(field, value);
                }
                None => {
                    current.remove(&field);
                }
            },
        }
    }
    Ok(())
}

/// `$retainKeys`: whatever it does not name goes; used for unions such as a volume's source.
fn retain_keys(current: &mut Fields, patch: &mut Fields) -> Result<(), StrategicError> {
    let kept = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(kept)) => kept,
        Some(_) => return Err(StrategicError::RetainKeys),
    };
    let is_kept = |field: &str| kept.iter().any(|kept| kept == field);
    let is_directive = |field: &str| field.starts_with(DELETE_FROM) || field.starts_with(ORDER);
    for (field, value) in &*patch {
        if !value.is_null() && !is_directive(field) && !is_kept(field) {
            return Err(StrategicError::RetainKeys);
        }
    }
    current.retain(|field, _| is_kept(field));
    Ok(())
}

/// `$setElementOrder/x`: merges the list `x` and brings it into this order.
fn merge_ordered_lists(
    current: &mut Fields,
    patch: &mut Fields,
    schema: Schema<'_>,
) -> Result<(), StrategicError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|field| field.starts_with(ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let field = directive[ORDER.len()..].to_owned();
        let order = patch
            .remove(&directive)
            .map(list)
            .transpose()?
            .unwrap_or_default();
        let patched = patch.remove(&field).map(list).transpose()?;
        let strategy = schema.strategy(&field);
        if let Some(patched) = &patched {
            in_order(patched, &order, strategy)?;
        }
        // Plain values may be deleted in the same breath.
        if let (Some(Value::Array(gone)), Some(Value::Array(items))) = (
            patch.get(&format!("{DELETE_FROM}{field}")),
            current.get_mut(&field),
        ) {
            items.retain(|item| !gone.contains(item));
        }
        let before = current.get(&field).and_then(Value::as_array).cloned();
        let merged = match (current.remove(&field), patched) {
            (None, None) => continue,
            (Some(items), None) => list(items)?,
            (None, Some(patched)) => patched.into_iter().filter_map(without_directives).collect(),
            (Some(items), Some(patched)) => {
                let mut items = list(items)?;
                merge_list(&mut items, patched, strategy, schema.below(&field))?;
                items
            }
        };
        let ordered = ordered(merged, &order, &before.unwrap_or_default(), strategy);
        current.insert(field, ordered.into());
    }
    Ok(())
}

/// The items of the patch must come in the order that the patch asks for.
fn in_order(patched: &[Value], order: &[Value], strategy: Strategy) -> Result<(), StrategicError> {
    let mut rest = order.iter();
    let fits = patched
        .iter()
        .filter(|item| item.get(DIRECTIVE).is_none())
        .all(|item| rest.any(|wanted| same_item(item, wanted, strategy)));
    if fits {
        return Ok(());
    }
    Err(StrategicError::Order {
        list: Value::from(patched.to_vec()).to_string(),
        order: Value::from(order.to_vec()).to_string(),
    })
}

fn merge_list(
    current: &mut Vec<Value>,
    patch: Vec<Value>,
    strategy: Strategy,
    schema: Schema<'_>,
) -> Result<(), StrategicError> {
    let before = current.clone();
    let order = patch.clone();
    match strategy {
        Strategy::Replace => {
            *current = patch;
            return Ok(());
        }
        Strategy::Add => {
            for value in patch {
                if !current.contains(&value) {
                    current.push(value);
                }
            }
        }
        Strategy::MergeBy(key) => {
            let patch = follow_directives(current, patch, key)?;
            for item in patch {
                merge_item(current, item, key, schema)?;
            }
        }
    }
    *current = ordered(std::mem::take(current), &order, &before, strategy);
    Ok(())
}

/// Deletes and replaces as items of the patch ask for; returns the other items.
fn follow_directives(
    current: &mut Vec<Value>,
    patch: Vec<Value>,
    key: &'static str,
) -> Result<Vec<Value>, StrategicError> {
    let (mut rest, mut replaces) = (Vec::new(), false);
    for item in patch {
        let directive = match item.get(DIRECTIVE) {
            None => {
                rest.push(item);
                continue;
            }
            Some(directive) => directive.as_str().unwrap_or_default(),
        };
        match directive {
            "delete" => {
                let name = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                current.retain(|known| known.get(key) != Some(name));
            }
            "replace" => replaces = true,
            "merge" => return Err(StrategicError::MergeDirective),
            _ => {
                let item = item.as_object().cloned().unwrap_or_default();
                return Err(unknown(directive, &item));
            }
        }
    }
    if replaces {
        *current = rest;
        rest = Vec::new();
    }
    Ok(rest)
}

fn merge_item(
    current: &mut Vec<Value>,
    item: Value,
    key: &'static str,
    schema: Schema<'_>,
) -> Result<(), StrategicError> {
    let name = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
    let known = current
        .iter_mut()
        .find(|known| known.get(key) == Some(name));
    match (known, item) {
        (Some(Value::Object(known)), Value::Object(patch)) => merge_map(known, patch, schema),
        (_, item) => {
            current.extend(without_directives(item));
            Ok(())
        }
    }
}

/// The items that the patch names in its order; the others keep their place before those that
/// followed them.
fn ordered(items: Vec<Value>, order: &[Value], before: &[Value], strategy: Strategy) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| {
        list.iter()
            .position(|known| same_item(known, item, strategy))
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = items
        .into_iter()
        .partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(before, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    let mut all = Vec::new();
    while let (Some(next_named), Some(other)) = (named.peek(), others.peek()) {
        let other_first = match (place(before, other), place(before, next_named)) {
            (Some(other), Some(named)) => other < named,
            _ => false,
        };
        all.extend(if other_first {
            others.next()
        } else {
            named.next()
        });
    }
    all.extend(named);
    all.extend(others);
    all
}

fn same_item(a: &Value, b: &Value, strategy: Strategy) -> bool {
    match strategy {
        Strategy::MergeBy(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        Strategy::Add | Strategy::Replace => a == b,
    }
}

/// A value as it is stored where there was none: without directives and nulls, or nothing at all.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .filter(|(name, value)| !name.starts_with('$') && !value.is_null())
                .filter_map(|(name, value)| Some((name, without_directives(value)?)));
            Some(Value::Object(fields.collect()))
        }
        Value::Array(items) => Some(items.into_iter().filter_map(without_directives).collect()),
        other => Some(other),
    }
}

fn list(value: Value) -> Result<Vec<Value>, StrategicError> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(StrategicError::NoList(other.to_string())),
    }
}

fn no_merge_key(item: &Value, key: &'static str) -> StrategicError {
    let item = printed(item);
    StrategicError::NoMergeKey { item, key }
}

fn unknown(directive: &str, item: &Fields) -> StrategicError {
    StrategicError::UnknownDirective {
        directive: directive.to_owned(),
        item: printed(&Value::Object(item.clone())),
    }
}

/// `map[name:c]`, as the API prints maps.
fn printed(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}:{}", printed(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_do_what_the_library_of_kubernetes_does() {
        let recorded: Vec<Value> = serde_json::from_str(include_str!("recorded.json")).unwrap();
        let mut wrong = Vec::new();
        for case in recorded {
            let (name, mut object) = (&case["name"], case["current"].clone());
            let outcome = apply(case["kind"].as_str().unwrap(), &mut object, &case["patch"]);
            let ours = outcome.map(|()| object).map_err(|error| error.to_string());
            let theirs = match case["error"].as_str() {
                None => Ok(case["result"].clone()),
                // This one text has its lists in Go's form, over several lines.
                Some(error) if error.contains("$setElementOrder") => {
                    assert!(
                        ours.as_ref()
                            .is_err_and(|ours| ours.contains(ORDER.trim_end_matches('/')))
                    );
                    continue;
                }
                Some(error) => Err(error.to_owned()),
            };
            if ours != theirs {
                wrong.push(format!("{name}:\n  ours   {ours:?}\n  theirs {theirs:?}"));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} differ:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}
