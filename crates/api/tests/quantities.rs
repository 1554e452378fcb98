//! Quantities against a table of what Kubernetes itself does.
//!
//! Each row of `quantities.tsv` was made by `resource.ParseQuantity` of k8s.io/apimachinery
//! v0.37.2 from a random or hand-picked text: the text (or `a + b`), its canonical form and its
//! rounded value, or `error`, or `range` where the amount exceeds 2^63-1, which bitts refuses.

use bitts_api::Quantity;
use bitts_api::quantity::ParseQuantityError;

/// Rows where bitts refuses what Kubernetes accepts; see the module's own documentation.
fn refused_on_purpose(text: &str, canonical: &str) -> bool {
    let capped = canonical.ends_with("9223372036854775807");
    let number = text.trim_start_matches(['+', '-']).trim_start_matches('.');
    capped || !number.starts_with(|c: char| c.is_ascii_digit())
}

#[test]
fn every_row_of_the_table_holds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/quantities.tsv");
    let table = std::fs::read_to_string(path).unwrap();
    let mut wrong = Vec::new();
    for row in table.lines() {
        let mut cells = row.split('\t');
        let (text, expected) = (cells.next().unwrap(), cells.next().unwrap());
        let quantity = match text.split_once(" + ") {
            Some((a, b)) => match (a.parse::<Quantity>(), b.parse()) {
                (Ok(a), Ok(b)) => a
                    .checked_add(b)
                    .ok_or(ParseQuantityError::OutOfRange(text.into())),
                (Err(why), _) | (_, Err(why)) => Err(why),
            },
            None => text.parse(),
        };
        let right = match (&quantity, expected) {
            (Err(ParseQuantityError::OutOfRange(_)), "range") => true,
            (Err(ParseQuantityError::OutOfRange(_)), "error") => false,
            (Err(_), "error") => true,
            (Err(_), canonical) => refused_on_purpose(text, canonical),
            (Ok(quantity), canonical) => {
                let value: Option<i64> = cells.next().and_then(|v| v.parse().ok());
                // Below zero Kubernetes' rounded value is off (-8n gives 1), so it is no measure.
                let rounded = *quantity < Quantity::ZERO || Some(quantity.value()) == value;
                quantity.to_string() == canonical && rounded
            }
        };
        if !right {
            wrong.push(format!("{row} but here {quantity:?}"));
        }
    }
    assert!(table.lines().count() > 1000, "the table is cut short");
    let first = wrong[..wrong.len().min(20)].join("\n");
    assert!(wrong.is_empty(), "{} rows are wrong:\n{first}", wrong.len());
}
