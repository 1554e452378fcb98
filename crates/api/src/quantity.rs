//! Quantities, exactly. (Interim: a helper writes the real one; the public API stays.)
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};
/// An exact amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i128);
/// Why a text is not a quantity.
#[derive(Debug, thiserror::Error)]
#[error("not a quantity")]
pub struct ParseQuantityError;
impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The amount as a whole number, rounded up.
    pub fn value(self) -> i128 { self.0 }
}
impl FromStr for Quantity {
    type Err = ParseQuantityError;
    fn from_str(t: &str) -> Result<Self, Self::Err> {
        let i = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
        let m = match &t[i..] { "" => 1, "Ki" => 1 << 10, "Mi" => 1 << 20, "Gi" => 1 << 30, _ => return Err(ParseQuantityError) };
        t[..i].parse::<i128>().map(|n| Self(n * m)).map_err(|_| ParseQuantityError)
    }
}
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { 
        for (s, m) in [("Gi", 1i128 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] { if self.0 != 0 && self.0 % m == 0 { return write!(f, "{}{s}", self.0 / m); } }
        self.0.fmt(f) }
}
impl Serialize for Quantity { fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) } }
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let t = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        t.parse().map_err(serde::de::Error::custom)
    }
}
