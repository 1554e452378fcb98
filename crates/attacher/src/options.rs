//! What can be set about the attacher.

use std::time::Duration;

use bitts_api::{Meta, names};

/// What can be set about the attacher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// After how long a volume for one node is taken from a node that is not ready and does not let it
    /// go. `None`, unlike the stock controller: only an operator's word lets go of it, for such a node
    /// may still write (A34).
    pub force_single_after: Option<Duration>,
    /// The same for a volume that may be on several nodes (A30).
    pub force_shared_after: Option<Duration>,
    /// After how long pods are told that a driver does not answer (A24).
    pub patience: Duration,
    /// How often pods that wait are told so again.
    pub renew: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            force_single_after: None,
            force_shared_after: Some(Duration::from_secs(360)),
            patience: Duration::from_secs(120),
            renew: Duration::from_secs(300),
        }
    }
}

impl Options {
    /// When the time of a volume on a node is over, by the strictest word on it: the node's own, else
    /// that of its class, else what is set for all.
    pub(crate) fn force_after(
        &self,
        single: bool,
        node: Option<&Meta>,
        class: Option<&Meta>,
    ) -> Option<Duration> {
        let said = |meta: &Meta| {
            let text = meta.annotations.get(names::FORCE_DETACH_AFTER)?;
            Some(parse(text))
        };
        let of_all = if single {
            self.force_single_after
        } else {
            self.force_shared_after
        };
        (node.and_then(said))
            .or_else(|| class.and_then(said))
            .unwrap_or(of_all)
    }
}

/// `90s`, `6m`, `1h`; anything else means never, which is the safe reading.
fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit_and_else_never() {
        assert_eq!(parse("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse("6m"), Some(Duration::from_secs(360)));
        assert_eq!(parse("1h"), Some(Duration::from_secs(3600)));
        for never in ["", "never", "6", "m", "-1m", "6µ", "99999999999999999999h"] {
            assert_eq!(parse(never), None, "{never}");
        }
    }
}
