//! What a real API server was asked for, by whom: its audit log.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::raw::text;

/// Every request once it was answered, without bodies.
const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"], "rules": [{"level": "Metadata"}]}"#;

/// Where an API server is told to write what it is asked for.
pub struct Audit {
    folder: TempDir,
}

/// A request that was answered. A watch is answered when it ends.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The API verb.
    pub verb: String,
    /// The path with its query.
    pub uri: String,
    /// The HTTP status of the answer.
    pub status: u64,
}

impl Audit {
    /// A log that is empty yet.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("bitts-e2e-audit-")
            .tempdir()?;
        std::fs::write(folder.path().join("policy"), POLICY)?;
        Ok(Self { folder })
    }

    /// The flags for kube-apiserver.
    pub fn flags(&self) -> [String; 2] {
        let policy = self.folder.path().join("policy");
        [
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.log().display()),
        ]
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What a program asked for, in the order of the answers; `agent` is how its user agent begins.
    pub fn asked_by(&self, agent: &str) -> anyhow::Result<Vec<Asked>> {
        let log = std::fs::read_to_string(self.log())?;
        let mut asked = Vec::new();
        for line in log.split_inclusive('\n').filter(|l| l.ends_with('\n')) {
            let entry: Value = serde_json::from_str(line)?;
            if text(&entry, "/userAgent").starts_with(agent) {
                asked.push(Asked {
                    verb: text(&entry, "/verb").to_owned(),
                    uri: text(&entry, "/requestURI").to_owned(),
                    status: entry["responseStatus"]["code"].as_u64().unwrap_or_default(),
                });
            }
        }
        Ok(asked)
    }
}
