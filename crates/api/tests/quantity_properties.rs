//! What holds for every quantity.

use bitts_api::Quantity;
use proptest::prelude::*;

const SUFFIXES: [(&str, i128, i128); 12] = [
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("", 1, 1),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("e3", 1_000, 1),
    ("E-2", 1, 100),
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
];

/// A text and its amount as a fraction: numerator, denominator.
fn text() -> impl Strategy<Value = (String, i128, i128)> {
    (-1_000_000i64..1_000_000, 0u32..4, 0..SUFFIXES.len()).prop_map(|(n, places, s)| {
        let (suffix, times, over) = SUFFIXES[s];
        let tens = 10i64.pow(places);
        let sign = if n < 0 { "-" } else { "" };
        let (int, rest) = ((n / tens).abs(), (n % tens).abs());
        let number = match places {
            0 => format!("{sign}{int}"),
            _ => format!("{sign}{int}.{rest:0width$}", width = places as usize),
        };
        (
            number + suffix,
            i128::from(n) * times,
            i128::from(tens) * over,
        )
    })
}

fn quantity() -> impl Strategy<Value = Quantity> {
    text().prop_map(|(text, _, _)| text.parse().unwrap_or_else(|why| panic!("{why}")))
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn no_text_like_a_quantity_panics(text in "[+-]?[0-9]{0,30}[.]?[0-9]{0,30}([numkMGTPE]i?|[eE][+-]?[0-9]{0,12})?") {
        if let Ok(quantity) = text.parse::<Quantity>() {
            prop_assert_eq!(quantity.to_string().parse::<Quantity>(), Ok(quantity));
        }
    }

    #[test]
    fn printing_is_a_fixpoint_and_loses_nothing(quantity in quantity()) {
        let printed = quantity.to_string();
        let again: Quantity = printed.parse().unwrap();
        prop_assert_eq!(again, quantity);
        prop_assert_eq!(again.to_string(), printed.clone());
        prop_assert!(!printed.contains('.'));
        prop_assert_eq!(serde_json::from_value::<Quantity>(serde_json::json!(printed)).unwrap(), quantity);
    }

    #[test]
    fn order_is_that_of_the_amounts((a, an, ad) in text(), (b, bn, bd) in text()) {
        // Only amounts that a nano can tell apart: smaller ones are rounded first.
        prop_assume!(1_000_000_000 % ad == 0 && 1_000_000_000 % bd == 0);
        let (x, y): (Quantity, Quantity) = (a.parse().unwrap(), b.parse().unwrap());
        prop_assert_eq!(x.cmp(&y), (an * bd).cmp(&(bn * ad)), "{} and {}", a, b);
    }

    #[test]
    fn whole_units_are_rounded_away_from_zero((text, n, d) in text()) {
        let quantity: Quantity = text.parse().unwrap();
        let up = n.signum() * ((n.abs() + d - 1) / d);
        prop_assert_eq!(i128::from(quantity.value()), up, "{}", text);
    }

    #[test]
    fn sums_commute_and_associate(a in quantity(), b in quantity(), c in quantity()) {
        let add = |x: Option<Quantity>, y: Option<Quantity>| x?.checked_add(y?);
        let (a, b, c) = (Some(a), Some(b), Some(c));
        prop_assert_eq!(add(a, b), add(b, a));
        prop_assert_eq!(add(add(a, b), c), add(a, add(b, c)));
        prop_assert_eq!(add(a, Some(Quantity::ZERO)), a);
    }
}

#[test]
fn a_sum_out_of_range_is_none() {
    let most: Quantity = "9223372036854775807".parse().unwrap();
    let least: Quantity = "-9223372036854775807".parse().unwrap();
    let nano: Quantity = "1n".parse().unwrap();
    assert_eq!(most.checked_add(nano), None);
    assert_eq!(least.checked_add("-1n".parse().unwrap()), None);
    assert_eq!(most.checked_add(least), Some(Quantity::ZERO));
    assert_eq!((most.value(), least.value()), (i64::MAX, -i64::MAX));
}

#[test]
fn json_numbers_and_nonsense() {
    let read = |json: &str| serde_json::from_str::<Quantity>(json);
    assert_eq!(read("0.1").unwrap(), "100m".parse().unwrap());
    assert_eq!(read("-3").unwrap(), "-3".parse().unwrap());
    assert_eq!(read("\" 1Gi \"").unwrap(), "1024Mi".parse().unwrap());
    assert!(
        read("1e30")
            .unwrap_err()
            .to_string()
            .contains("out of range")
    );
    assert!(
        read("\"\"")
            .unwrap_err()
            .to_string()
            .contains("start with a number")
    );
    assert!(
        read("\"1GB\"")
            .unwrap_err()
            .to_string()
            .contains("unknown suffix \"GB\"")
    );
    assert!(read("null").is_err() && read("[]").is_err());
}
