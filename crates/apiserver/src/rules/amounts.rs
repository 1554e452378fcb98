//! Quantities inside objects: the API keeps them in their canonical form.

use bitts_api::Quantity;
use bitts_api::quantity::ParseQuantityError;
use serde_json::Value;

use super::check::{Check, Field, entries, text};

/// The amount, if the text is one.
pub(super) fn amount(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

/// Brings one quantity into its canonical form: `1024Mi` is written `1Gi`.
pub(super) fn canonicalize(value: &mut Value) -> Result<(), String> {
    if let Some(text) = value.as_str() {
        let quantity: Quantity = text.parse().map_err(refusal)?;
        *value = quantity.to_string().into();
    }
    Ok(())
}

/// The API's own words for a text that is no quantity. An amount out of range, which the API would
/// silently cut down, is refused in ours.
fn refusal(error: ParseQuantityError) -> String {
    let known = |suffix: &str| {
        suffix
            .bytes()
            .all(|byte| b"eEinumkKMGTP+-0123456789".contains(&byte))
    };
    match error {
        ParseQuantityError::UnknownSuffix(_, suffix) if known(&suffix) => {
            "unable to parse quantity's suffix".to_owned()
        }
        ParseQuantityError::NoNumber(_) | ParseQuantityError::UnknownSuffix(..) => {
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                .to_owned()
        }
        ParseQuantityError::OutOfRange(_) => error.to_string(),
    }
}

/// Brings a map of quantities into canonical form.
pub(super) fn canonicalize_all(map: &mut Value) -> Result<(), String> {
    match map {
        Value::Object(fields) => fields.values_mut().try_for_each(canonicalize),
        _ => Ok(()),
    }
}

/// Requests and limits.
pub(super) fn canonicalize_resources(resources: &mut Value) -> Result<(), String> {
    for part in ["limits", "requests"] {
        if let Some(map) = resources.get_mut(part) {
            canonicalize_all(map)?;
        }
    }
    Ok(())
}

/// Requires more than nothing.
pub(super) fn positive(value: &Value, field: &Field, check: &mut Check) {
    if amount(value).is_some_and(|amount| amount <= Quantity::ZERO) {
        check.invalid(field, text(value), "must be greater than zero");
    }
}

/// Requires at least nothing.
pub(super) fn not_negative(value: &Value, field: &Field, check: &mut Check) {
    if amount(value).is_some_and(|amount| amount < Quantity::ZERO) {
        check.invalid(field, text(value), "must be greater than or equal to 0");
    }
}

/// Requires of every entry that it is not below nothing, in the words for stored capacities.
pub(super) fn all_valid(map: &Value, field: &Field, check: &mut Check) {
    for (key, value) in entries(map) {
        valid(value, &field.key(key), check);
    }
}

/// Requires a quantity that a resource can have.
pub(super) fn valid(value: &Value, field: &Field, check: &mut Check) {
    if let Some(whole) = amount(value)
        .map(Quantity::value)
        .filter(|whole| *whole < 0)
    {
        check.invalid(field, whole, "must be a valid resource quantity");
    }
}
