//! Ages as kubectl tells them: two units at most, and fewer the older a thing is.

use jiff::Timestamp;
use serde_json::Value;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// The time against which ages are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now(Option<Timestamp>);

impl Now {
    pub(super) fn parse(text: &str) -> Self {
        Self(text.parse().ok())
    }

    /// How long ago a timestamp is.
    pub(super) fn since(self, time: &Value) -> String {
        let then: Option<Timestamp> = time.as_str().and_then(|text| text.parse().ok());
        match (self.0, then) {
            // The API cuts the fraction of the difference, which is toward zero.
            (Some(now), Some(then)) => duration(now.duration_since(then).as_secs()),
            _ => "<unknown>".to_owned(),
        }
    }
}

fn duration(seconds: i64) -> String {
    let two = |big: i64, big_name: &str, small: i64, small_name: &str| {
        let (whole, rest) = (seconds / big, seconds % big / small);
        if rest == 0 {
            format!("{whole}{big_name}")
        } else {
            format!("{whole}{big_name}{rest}{small_name}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(DAY, "d", HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + MINUTE, "3h1m"),
            (8 * HOUR + MINUTE, "8h"),
            (2 * DAY, "2d"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY + HOUR, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + DAY, "2y1d"),
            (8 * YEAR + DAY, "8y"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn what_has_no_time_has_no_age() {
        let now = Now::parse("2026-01-01T00:01:00Z");
        assert_eq!(now.since(&json!("2026-01-01T00:00:00Z")), "60s");
        assert_eq!(now.since(&json!("2026-01-01T00:00:00.500000Z")), "59s");
        assert_eq!(now.since(&Value::Null), "<unknown>");
    }
}
