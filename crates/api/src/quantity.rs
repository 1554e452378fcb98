//! Quantities, exactly: `100Mi`, `1.5Gi`, `100m`, `1e3`.
//!
//! The API writes amounts as a decimal number and a suffix. [`Quantity`] keeps the amount to the
//! nano, without floating point, and the kind of suffix, so that it prints as the API itself would.
//!
//! ```
//! use bitts_api::Quantity;
//!
//! let asked: Quantity = "1.5Gi".parse()?;
//! let offered: Quantity = "1700M".parse()?;
//! assert!(offered > asked);
//! assert_eq!(asked.to_string(), "1536Mi");
//! assert!("9Ei".parse::<Quantity>().is_err(), "more than 2^63-1 is refused, not capped");
//! # Ok::<(), bitts_api::quantity::ParseQuantityError>(())
//! ```
//!
//! Two differences to Kubernetes' own type, both on purpose: an amount of more than 2^63-1 in
//! magnitude is an error (Kubernetes caps binary ones silently and lets decimal ones through), and
//! so is a suffix without a number (`Ki`, which Kubernetes reads as 0).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanos in a whole: the API's precision. Anything finer is rounded away from zero.
const NANOS: i128 = 1_000_000_000;
/// Places after the decimal point that are kept.
const PLACES: i64 = 9;
/// The largest magnitude, in whole units.
const MAX: i64 = i64::MAX;

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// An exact amount between -(2^63-1) and 2^63-1, to the nano.
///
/// Equality, order and hash go by the amount: `1Gi`, `1024Mi` and `1073741824` are the same.
#[derive(Clone, Copy, Default)]
pub struct Quantity {
    /// The whole part, rounded down: -0.5 is -1 and 500,000,000 nanos.
    whole: i64,
    nanos: u32,
    format: Format,
}

/// The kind of suffix that was read, which is also the one that is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    /// `1500m`, `2`, `3G`.
    #[default]
    Decimal,
    /// `512Mi`.
    Binary,
    /// `5e3`.
    Exponent,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// The text has no number at its start.
    #[error("quantity {0:?} does not start with a number: write it like 100Mi, 1.5Gi or 2e9")]
    NoNumber(Box<str>),
    /// What follows the number is no suffix.
    #[error(
        "quantity {0:?} has the unknown suffix {1:?}: use Ki, Mi, Gi, Ti, Pi, Ei (powers of 1024), \
         n, u, m, k, M, G, T, P, E (powers of 1000) or an exponent such as e6"
    )]
    UnknownSuffix(Box<str>, Box<str>),
    /// The amount is too large.
    #[error(
        "quantity {0:?} is out of range: at most 9223372036854775807 (2^63-1) can be expressed"
    )]
    OutOfRange(Box<str>),
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self {
        whole: 0,
        nanos: 0,
        format: Format::Decimal,
    };

    /// The amount in whole units, rounded away from zero.
    #[must_use]
    pub fn value(self) -> i64 {
        // `whole` is rounded down, so below zero it is rounded away from zero already; and no
        // amount of 2^63-1 has nanos, so adding one cannot overflow.
        self.whole + i64::from(self.whole >= 0 && self.nanos > 0)
    }

    /// The sum; `None` when it is out of range. It prints in the format of `self`, or of `other`
    /// when `self` is zero.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let format = if self == Self::ZERO {
            other.format
        } else {
            self.format
        };
        Self::from_nanos(self.in_nanos() + other.in_nanos(), format)
    }

    /// What is left; `None` when it is out of range. It prints in the format of `self`.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Self::from_nanos(self.in_nanos() - other.in_nanos(), self.format)
    }

    /// The amount in nanos: at most 2^93, so sums of two cannot overflow.
    fn in_nanos(self) -> i128 {
        i128::from(self.whole) * NANOS + i128::from(self.nanos)
    }

    fn from_nanos(nanos: i128, format: Format) -> Option<Self> {
        if nanos.unsigned_abs() > (i128::from(MAX) * NANOS).unsigned_abs() {
            return None;
        }
        Some(Self {
            whole: i64::try_from(nanos.div_euclid(NANOS)).ok()?,
            nanos: u32::try_from(nanos.rem_euclid(NANOS)).ok()?,
            format,
        })
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no_number = || ParseQuantityError::NoNumber(excerpt(text));
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (int, fraction) = number.split_once('.').unwrap_or((number, ""));
        if int.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(no_number());
        }
        let (format, scale) = interpret(suffix)
            .ok_or_else(|| ParseQuantityError::UnknownSuffix(excerpt(text), excerpt(suffix)))?;
        magnitude(int, fraction, scale)
            .map(|nanos| if negative { -nanos } else { nanos })
            .and_then(|nanos| Self::from_nanos(nanos, format))
            .ok_or_else(|| ParseQuantityError::OutOfRange(excerpt(text)))
    }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    /// 2 to this power, at most 60.
    Two(u32),
    /// 10 to this power.
    Ten(i32),
}

fn interpret(suffix: &str) -> Option<(Format, Scale)> {
    let steps = |table: &[&str]| table.iter().position(|known| *known == suffix);
    if let Some(n) = steps(&DECIMAL) {
        return Some((Format::Decimal, Scale::Ten(n as i32 * 3 - 9)));
    }
    if let Some(n) = steps(&BINARY) {
        return Some((Format::Binary, Scale::Two(n as u32 * 10)));
    }
    let power = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Format::Exponent, Scale::Ten(power)))
}

/// `int.fraction` times the scale in nanos, rounded up; `None` when it is far out of range.
///
/// Works digit by digit, so the text may be of any length: a power of ten moves the decimal point,
/// a power of two is multiplied in from the last digit on, with the carry going left.
fn magnitude(int: &str, fraction: &str, scale: Scale) -> Option<i128> {
    let int = int.trim_start_matches('0').as_bytes();
    let fraction = fraction.trim_end_matches('0').as_bytes();
    if int.is_empty() && fraction.iter().all(|digit| *digit == b'0') {
        return Some(0);
    }
    let (factor, shift) = match scale {
        Scale::Two(power) => (1i128 << power, 0),
        Scale::Ten(power) => (1, i64::from(power)),
    };
    let digits = || int.iter().chain(fraction).map(|d| i128::from(d - b'0'));
    // How many digits stand before the decimal point; below 0, zeros follow it first.
    let point = int.len() as i64 + shift;

    let mut carry = 0;
    let mut nanos = 0;
    let mut finer = false;
    let behind = digits().count() as i64 - point;
    for (n, digit) in digits().rev().take(behind.max(0) as usize).enumerate() {
        let place = behind - 1 - n as i64;
        carry += digit * factor;
        let digit = carry % 10;
        carry /= 10;
        if place < PLACES {
            nanos += digit * 10_i128.pow((PLACES - 1 - place) as u32);
        } else {
            finer |= digit != 0;
        }
    }
    let mut whole = 0;
    for digit in digits()
        .chain(std::iter::repeat(0))
        .take(point.max(0) as usize)
    {
        whole = whole * 10 + digit;
        if whole > i128::from(MAX) {
            return None;
        }
    }
    (whole * factor + carry)
        .checked_mul(NANOS)
        .map(|whole| whole + nanos + i128::from(finer))
}

/// The start of a text, for an error message.
fn excerpt(text: &str) -> Box<str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no digits after a point, and the largest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ZERO {
            return f.pad("0");
        }
        let sign = if self.whole < 0 { "-" } else { "" };
        let mut amount = self.in_nanos().unsigned_abs();
        let nanos = NANOS.unsigned_abs();
        // Binary suffixes cannot say less than one, and nobody writes 512 as half a Ki.
        if self.format == Format::Binary && amount.is_multiple_of(nanos) && amount >= 1024 * nanos {
            amount /= nanos;
            let steps = (amount.trailing_zeros() / 10).min(6);
            let suffix = BINARY[steps as usize];
            return f.pad(&format!("{sign}{}{suffix}", amount >> (10 * steps)));
        }
        let mut steps = 0;
        while amount.is_multiple_of(1000) {
            amount /= 1000;
            steps += 1;
        }
        f.pad(&match (self.format, steps * 3 - 9) {
            (Format::Exponent, 0) => format!("{sign}{amount}"),
            (Format::Exponent, power) => format!("{sign}{amount}e{power}"),
            // At most 2^93 nanos, so at most nine steps.
            _ => format!("{sign}{amount}{}", DECIMAL[steps as usize]),
        })
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Quantity {
    const fn key(self) -> (i64, u32) {
        (self.whole, self.nanos)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// A string or, as the API accepts too, a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as \"100Mi\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.trim().parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Quantity, E> {
                // The shortest text that reads as this number is what the sender wrote.
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Text)
    }
}
