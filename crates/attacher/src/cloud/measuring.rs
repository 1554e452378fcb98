//! What is counted of disks, and of calls to the cloud.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Durations, Measure, Reading};

use super::CloudAttacher;
use super::call::Trouble;

const BOUNDS: [Duration; 8] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(120),
];

/// The calls that ended, by what they were and how they ended.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<(&'static str, &'static str), Durations>);

impl Calls {
    pub(super) fn add(&mut self, call: &'static str, trouble: Option<&Trouble>, took: Duration) {
        let code = trouble.map_or("ok", |trouble| trouble.code);
        let all = self.0.entry((call, code));
        all.or_insert_with(|| Durations::new(&BOUNDS)).add(took);
    }
}

impl CloudAttacher {
    pub(super) fn count(&self) -> Vec<Measure> {
        let measure = |name, help, labels, reading| Measure {
            name,
            help,
            labels,
            reading,
        };
        let gauge = |n: usize| Reading::Gauge(n.try_into().unwrap_or(u64::MAX));
        let mut all = vec![
            measure(
                "bitts_cloud_attacher_disks",
                "Disks that are attached, wanted or in use",
                Vec::new(),
                gauge(self.units.len()),
            ),
            measure(
                "bitts_cloud_attacher_calls",
                "Calls to the cloud about disks that are under way",
                Vec::new(),
                gauge(self.calls),
            ),
            measure(
                "bitts_cloud_attacher_calls_allowed",
                "How many calls may be under way at a time",
                Vec::new(),
                gauge(self.limit.allowed()),
            ),
            measure(
                "bitts_cloud_attacher_calls_waiting",
                "Disks that wait for their turn to call the cloud",
                Vec::new(),
                gauge(self.queue.len()),
            ),
            measure(
                "bitts_cloud_attacher_found_total",
                "Disks that machines had and nobody knew of, or that were gone",
                Vec::new(),
                Reading::Counter(self.found),
            ),
        ];
        for reason in ["off", "out-of-service", "timeout"] {
            all.push(measure(
                "bitts_cloud_attacher_forced_detaches_total",
                "Detaches on which the node had no say",
                vec![("reason", reason.to_owned())],
                Reading::Counter(self.forced.get(reason).copied().unwrap_or(0)),
            ));
        }
        for ((call, code), took) in &self.calls_ended.0 {
            all.push(measure(
                "bitts_cloud_attacher_call_seconds",
                "How long calls to the cloud took, with all that they waited for",
                vec![("call", (*call).to_owned()), ("code", (*code).to_owned())],
                Reading::Durations(took.clone()),
            ));
        }
        all
    }
}
