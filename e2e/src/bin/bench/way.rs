//! The way of a pod's volume through the agent, as its log tells it: the pod heard of, its claim read, its
//! volume read, the kernel called.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::figures::percentile;

/// What has to be logged for it.
pub(crate) const FILTER: &str = "info,bitts_runtime::watch=trace,bitts_agent::worker=debug";

/// A line of the log, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    timestamp: Timestamp,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    at: Option<String>,
    #[serde(default)]
    step: Option<String>,
}

/// When what happened first.
#[derive(Default)]
pub(crate) struct Log {
    /// An object was heard of.
    heard: BTreeMap<String, Timestamp>,
    /// A directory was about to be mounted on.
    called: BTreeMap<String, Timestamp>,
}

/// A volume in a pod, by the names under which the log knows them.
pub(crate) struct Names {
    pub(crate) pod: String,
    pub(crate) claim: String,
    pub(crate) volume: String,
    /// Where it is mounted, below the kubelet's directory.
    pub(crate) target: String,
}

impl Log {
    pub(crate) fn read(text: &str) -> Self {
        let mut log = Self::default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        for Line {
            timestamp,
            key,
            at,
            step,
        } in lines
        {
            if let Some(key) = key {
                log.heard.entry(key).or_insert(timestamp);
            }
            if let (Some(at), Some("Bind")) = (at, step.as_deref()) {
                log.called.entry(at).or_insert(timestamp);
            }
        }
        log
    }

    /// How long each part of the way took.
    pub(crate) fn parts(&self, all: &[Names]) -> Result<Value> {
        let mut times = [const { Vec::new() }; 4];
        for one in all {
            let heard = |name: &String| {
                let at = self.heard.get(name).copied();
                at.with_context(|| format!("the log does not tell of {name}"))
            };
            let (pod, claim, volume) = (heard(&one.pod)?, heard(&one.claim)?, heard(&one.volume)?);
            let called = self.called.get(&one.target).copied();
            let called =
                called.with_context(|| format!("the log has no mount at {}", one.target))?;
            times[0].push(since(pod, called));
            times[1].push(since(pod, claim));
            times[2].push(since(claim, volume));
            times[3].push(since(volume, called));
        }
        let [whole, claim, volume, call] = times.map(|mut times| {
            json!({"p50_ms": percentile(&mut times, 0.5), "p99_ms": percentile(&mut times, 0.99)})
        });
        Ok(json!({
            "pod_to_call": whole, "pod_to_claim": claim, "claim_to_volume": volume, "volume_to_call": call,
        }))
    }
}

fn since(earlier: Timestamp, later: Timestamp) -> Duration {
    // What two threads write may change places.
    later.duration_since(earlier).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_each_part_of_the_way() -> Result<()> {
        let text = r#"{"timestamp":"2026-01-01T00:00:00.001Z","key":"default/p-0","message":"heard"}
            no JSON
            {"timestamp":"2026-01-01T00:00:00.004Z","key":"default/v-0","message":"heard"}
            {"timestamp":"2026-01-01T00:00:00.006Z","key":"v-0","message":"heard"}
            {"timestamp":"2026-01-01T00:00:00.009Z","key":"v-0","message":"heard"}
            {"timestamp":"2026-01-01T00:00:00.010Z","at":"pods/u/v-0","step":"Bind"}"#;
        let names = Names {
            pod: "default/p-0".to_owned(),
            claim: "default/v-0".to_owned(),
            volume: "v-0".to_owned(),
            target: "pods/u/v-0".to_owned(),
        };
        let parts = Log::read(text).parts(std::slice::from_ref(&names))?;
        assert_eq!(parts["pod_to_call"]["p99_ms"], 9.0);
        assert_eq!(parts["pod_to_claim"]["p99_ms"], 3.0);
        assert_eq!(parts["claim_to_volume"]["p99_ms"], 2.0);
        assert_eq!(parts["volume_to_call"]["p99_ms"], 4.0);
        assert!(Log::read("").parts(&[names]).is_err());
        Ok(())
    }
}
