//! Rows of pods: what of a pod's containers matters most.

use serde_json::{Value, json};

use super::{Column, Printer, created, name, text_or};

pub(super) const PODS: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Ready"),
        Column::new("Status"),
        Column::new("Restarts"),
        Column::new("Age"),
        Column::new("IP").wide(),
        Column::new("Node").wide(),
        Column::new("Nominated Node").wide(),
        Column::new("Readiness Gates").wide(),
    ],
    cells: |pod, now| {
        let summary = Summary::of(pod);
        let restarts = match summary.restarted {
            Some(time) if summary.restarts > 0 => {
                format!("{} ({} ago)", summary.restarts, now.since(time))
            }
            _ => summary.restarts.to_string(),
        };
        let status = &pod["status"];
        vec![
            name(pod),
            format!("{}/{}", summary.ready, summary.containers).into(),
            summary.reason.into(),
            restarts.into(),
            created(pod, now),
            text_or(&status["podIPs"][0]["ip"], "<none>").into(),
            text_or(&pod["spec"]["nodeName"], "<none>").into(),
            text_or(&status["nominatedNodeName"], "<none>").into(),
            gates(pod).into(),
        ]
    },
};

/// What a row says of a pod that is over.
pub(super) fn condition(pod: &Value) -> Option<Value> {
    let (reason, message) = match pod["status"]["phase"].as_str()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

struct Summary<'a> {
    reason: String,
    ready: usize,
    containers: usize,
    restarts: i64,
    /// The last time that a container ended.
    restarted: Option<&'a Value>,
}

impl<'a> Summary<'a> {
    fn of(pod: &'a Value) -> Self {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let sidecars = list(&spec["initContainers"]).filter(|container| is_sidecar(container));
        let phase = text_or(&status["phase"], "");
        let mut summary = Self {
            reason: text_or(&status["reason"], phase).to_owned(),
            ready: 0,
            containers: list(&spec["containers"]).count() + sidecars.count(),
            restarts: 0,
            restarted: None,
        };
        let gated = |condition: &Value| condition["reason"] == "SchedulingGated";
        if list(&status["conditions"]).any(gated) {
            summary.reason = "SchedulingGated".to_owned();
        }
        let (initializing, of_sidecars) = summary.add_init_containers(spec, status);
        if !initializing || has_condition(status, "Initialized") {
            (summary.restarts, summary.restarted) = of_sidecars;
            summary.add_containers(status);
        }
        if pod["metadata"]["deletionTimestamp"].is_string() {
            if status["reason"] == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Returns whether the pod is still initializing, and the restarts of sidecars alone.
    fn add_init_containers(
        &mut self,
        spec: &Value,
        status: &'a Value,
    ) -> (bool, (i64, Option<&'a Value>)) {
        let (mut sidecar_restarts, mut sidecar_restarted) = (0, None);
        let total = list(&spec["initContainers"]).count();
        for (index, container) in list(&status["initContainerStatuses"]).enumerate() {
            let sidecar = list(&spec["initContainers"])
                .any(|declared| declared["name"] == container["name"] && is_sidecar(declared));
            count_restarts(container, &mut self.restarts, &mut self.restarted);
            if sidecar {
                count_restarts(container, &mut sidecar_restarts, &mut sidecar_restarted);
            }
            let state = &container["state"];
            if state["terminated"].is_object() && exit_code(state) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            let waiting = text_or(&state["waiting"]["reason"], "PodInitializing");
            self.reason = if state["terminated"].is_object() {
                format!("Init:{}", ending(state))
            } else if waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{total}")
            };
            return (true, (sidecar_restarts, sidecar_restarted));
        }
        (false, (sidecar_restarts, sidecar_restarted))
    }

    fn add_containers(&mut self, status: &'a Value) {
        let (mut running, mut error) = (false, None);
        let containers: Vec<&Value> = list(&status["containerStatuses"]).collect();
        for container in containers.into_iter().rev() {
            count_restarts(container, &mut self.restarts, &mut self.restarted);
            let state = &container["state"];
            let waiting = text_or(&state["waiting"]["reason"], "");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if state["terminated"].is_object() {
                self.reason = ending(state);
                if exit_code(state) != 0 {
                    error = Some(self.reason.clone());
                }
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && has_condition(status, "Ready") {
                self.reason = "Running".to_owned();
            } else if let Some(error) = error {
                self.reason = error;
            } else if running {
                self.reason = "NotReady".to_owned();
            }
        }
    }
}

fn list(items: &Value) -> impl Iterator<Item = &Value> {
    items.as_array().into_iter().flatten()
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn has_condition(status: &Value, kind: &str) -> bool {
    list(&status["conditions"])
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn count_restarts<'a>(container: &'a Value, restarts: &mut i64, last: &mut Option<&'a Value>) {
    *restarts += container["restartCount"].as_i64().unwrap_or_default();
    let ended = &container["lastState"]["terminated"]["finishedAt"];
    // Timestamps of one form sort as text.
    if ended.is_string() && last.is_none_or(|last| last.as_str() < ended.as_str()) {
        *last = Some(ended);
    }
}

fn exit_code(state: &Value) -> i64 {
    state["terminated"]["exitCode"].as_i64().unwrap_or_default()
}

/// Why a container ended.
fn ending(state: &Value) -> String {
    let terminated = &state["terminated"];
    match (
        text_or(&terminated["reason"], ""),
        terminated["signal"].as_i64().unwrap_or_default(),
    ) {
        ("", 0) => format!("ExitCode:{}", exit_code(state)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn gates(pod: &Value) -> String {
    let gates = || list(&pod["spec"]["readinessGates"]);
    if gates().next().is_none() {
        return "<none>".to_owned();
    }
    let open = |gate: &&Value| has_condition(&pod["status"], text_or(&gate["conditionType"], ""));
    format!("{}/{}", gates().filter(open).count(), gates().count())
}
