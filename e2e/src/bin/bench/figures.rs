//! What a bench found, as JSON for scripts or as a table for people.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table.
    Text,
    /// One JSON object with a member for each contender.
    Json,
}

/// What a contender needed in one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// Claims bound in a second, from the first claim created to the last one Bound.
    pub(crate) per_s: f64,
    /// From a claim created to that claim Bound, for half of the claims.
    pub(crate) p50_ms: f64,
    /// The same for 99 of 100.
    pub(crate) p99_ms: f64,
    /// CPU time of the contender for each claim.
    pub(crate) cpu_ms_each: f64,
    /// CPU time of kube-apiserver and etcd for each claim, its creation included.
    pub(crate) api_cpu_ms_each: f64,
    /// The most memory that the contender ever had.
    pub(crate) rss_mb: f64,
    /// How fast the claims came: where this is hardly more than `per_s`, they were the bottleneck.
    pub(crate) created_per_s: f64,
    /// What the contender does beside other things, or instead.
    pub(crate) controllers: Vec<String>,
    /// `per_s` of all runs; the figures are those of the one in the middle.
    pub(crate) per_s_of_runs: Vec<f64>,
}

impl Figures {
    /// The run in the middle.
    pub(crate) fn median(mut runs: Vec<Self>) -> Option<Self> {
        runs.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
        let all: Vec<f64> = runs.iter().map(|run| run.per_s).collect();
        let middle = runs.len().checked_sub(1)? / 2;
        let mut median = runs.swap_remove(middle);
        median.per_s_of_runs = all;
        Some(median)
    }
}

/// The figures of each contender by its name, or why there are none.
pub(crate) type Results = BTreeMap<&'static str, Result<Figures, String>>;

/// Prints the result; `setup` tells under which conditions it was found.
pub(crate) fn print(output: Output, setup: Value, results: &Results) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{:#}", json(setup, results)?),
        Output::Text => {
            println!(
                "{:<24} {:>8} {:>9} {:>9} {:>8} {:>12} {:>7}",
                "", "binds/s", "p50 ms", "p99 ms", "CPU ms", "API CPU ms", "MB"
            );
            for (name, result) in results {
                match result {
                    Ok(f) => println!(
                        "{name:<24} {:>8.1} {:>9.1} {:>9.1} {:>8.2} {:>12.2} {:>7.1}",
                        f.per_s, f.p50_ms, f.p99_ms, f.cpu_ms_each, f.api_cpu_ms_each, f.rss_mb
                    ),
                    Err(reason) => println!("{name:<24} did not run: {reason}"),
                }
            }
            println!("{setup}");
        }
    }
    Ok(())
}

/// One object with a member for each contender: its figures, or null and why among the reasons.
pub(crate) fn json<F: Serialize>(
    setup: Value,
    results: &BTreeMap<&'static str, Result<F, String>>,
) -> anyhow::Result<Value> {
    let mut all = Map::new();
    let mut reasons = Map::new();
    for (name, result) in results {
        let value = match result {
            Ok(figures) => serde_json::to_value(figures)?,
            Err(reason) => {
                reasons.insert((*name).to_owned(), reason.as_str().into());
                Value::Null
            }
        };
        all.insert((*name).to_owned(), value);
    }
    if !reasons.is_empty() {
        all.insert("reasons".to_owned(), reasons.into());
    }
    all.insert("setup".to_owned(), setup);
    Ok(all.into())
}

/// The time that this share of all stays below, in ms.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let at = (times.len() as f64 * share).ceil() as usize;
    let time = times.get(at.saturating_sub(1)).copied().unwrap_or_default();
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(per_s: f64) -> Figures {
        Figures {
            per_s,
            p50_ms: 0.0,
            p99_ms: 0.0,
            cpu_ms_each: 0.0,
            api_cpu_ms_each: 0.0,
            rss_mb: 0.0,
            created_per_s: 0.0,
            controllers: Vec::new(),
            per_s_of_runs: Vec::new(),
        }
    }

    #[test]
    fn the_median_is_the_run_in_the_middle_and_names_the_others() {
        let median = Figures::median(vec![run(9.0), run(1.0), run(5.0)]).expect("three runs");
        assert_eq!(median.per_s, 5.0);
        assert_eq!(median.per_s_of_runs, [1.0, 5.0, 9.0]);
        assert!(Figures::median(Vec::new()).is_none());
    }

    #[test]
    fn who_could_not_run_is_null_with_a_reason() {
        let results = Results::from([("bitts", Ok(run(2.0))), ("limit", Err("no".to_owned()))]);
        let all = json(Value::Null, &results).expect("it serializes");
        assert_eq!(all["bitts"]["per_s"], 2.0);
        assert!(all["limit"].is_null() && all.get("limit").is_some());
        assert_eq!(all["reasons"]["limit"], "no");
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 0.5), 100.0);
        assert_eq!(percentile(&mut times, 0.99), 198.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }
}
