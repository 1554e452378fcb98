//! What is counted of a driver's calls.

use std::collections::BTreeMap;
use std::time::Duration;

use bitts_api::machine::{Durations, Measure, Reading};

use super::Publisher;
use super::call::Trouble;

const BOUNDS: [Duration; 8] = [
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

/// The calls that ended, by method and gRPC code.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<(&'static str, String), Durations>);

impl Calls {
    pub(super) fn add(&mut self, method: &'static str, trouble: Option<&Trouble>, took: Duration) {
        let code = match trouble {
            None => "OK".to_owned(),
            Some(trouble) => trouble.code.map_or("unknown".to_owned(), |c| c.to_string()),
        };
        let all = self.0.entry((method, code));
        all.or_insert_with(|| Durations::new(&BOUNDS)).add(took);
    }
}

impl Publisher {
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
                "bitts_csi_attacher_attachments",
                "VolumeAttachments of the driver",
                Vec::new(),
                gauge(self.units.len()),
            ),
            measure(
                "bitts_csi_attacher_calls",
                "Calls to the driver that are under way",
                Vec::new(),
                gauge(self.calls.len()),
            ),
            measure(
                "bitts_csi_attacher_calls_allowed",
                "How many calls may be under way at a time",
                Vec::new(),
                gauge(self.limit.allowed()),
            ),
            measure(
                "bitts_csi_attacher_calls_waiting",
                "Attachments that wait for their turn to call the driver",
                Vec::new(),
                gauge(self.queue.len()),
            ),
            measure(
                "bitts_csi_attacher_repairs_total",
                "Attachments that the driver's list did not have where their status did",
                Vec::new(),
                Reading::Counter(self.repairs),
            ),
            measure(
                "bitts_csi_attacher_unexplained",
                "Volumes that the driver lists on nodes where no VolumeAttachment is",
                Vec::new(),
                gauge(self.count_unexplained()),
            ),
        ];
        for ((method, code), took) in &self.calls_ended.0 {
            all.push(measure(
                "bitts_csi_attacher_call_seconds",
                "How long calls to the driver took",
                vec![
                    ("method_name", (*method).to_owned()),
                    ("grpc_status_code", code.clone()),
                ],
                Reading::Durations(took.clone()),
            ));
        }
        all
    }
}
