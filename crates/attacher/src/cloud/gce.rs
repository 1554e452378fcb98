//! Google's cloud: the Compute Engine API (REST, v1), as far as disks go.
//!
//! What changes something is an operation that goes on after the answer: it is waited for, and may fail
//! late.

mod http;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::place::{Disk, Instance, Location, Zone};
use super::worker::{Cloud, CloudError, Machine};
pub use http::EndpointError;
use http::{Http, Refusal};
use token::Token;

/// Who knows the service account of what runs here.
pub const METADATA_HOST: &str = "metadata.google.internal";
/// Where the API is.
pub const DEFAULT_ENDPOINT: &str = "https://compute.googleapis.com/compute/v1";
/// Between two looks at an operation, where the API did not wait itself.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The operations that move disks.
const MOVES: [&str; 2] = ["attachDisk", "detachDisk"];
/// The states of a machine on which nothing runs.
const OFF: [&str; 3] = ["TERMINATED", "STOPPED", "SUSPENDED"];

/// The Compute Engine API.
#[derive(Debug)]
pub struct ComputeEngine {
    http: Http,
    token: Token,
    patience: Duration,
}

impl ComputeEngine {
    /// The API at this address (`https://compute.googleapis.com/compute/v1`), asked with the token of the
    /// service account that this metadata server (`metadata.google.internal`) knows. `patience`: how long
    /// an operation is waited for.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(
        endpoint: &str,
        metadata_host: &str,
        patience: Duration,
    ) -> Result<Self, EndpointError> {
        Ok(Self {
            http: Http::new(endpoint)?,
            token: Token::from_host(metadata_host),
            patience,
        })
    }

    /// One request, with a token. One that is no longer taken is got anew once.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let mut renewed = false;
        loop {
            let token = self.token.get(&self.http).await?;
            match self.http.send(&method, path, &token, body).await {
                Err(Refusal::Status { status: 401, .. }) if !renewed => {
                    renewed = true;
                    self.token.forget().await;
                }
                other => return other,
            }
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, CloudError> {
        let failed = |refusal: Refusal| refusal.of(format!("GET {path}"));
        let value = self.call(Method::GET, path, None).await.map_err(failed)?;
        serde_json::from_value(value).map_err(|error| CloudError::Unavailable {
            call: format!("GET {path}"),
            message: format!("the answer is none: {error}"),
        })
    }

    /// Begins an operation and waits for its end.
    async fn operate(&self, path: &str, body: Option<&Value>, zone: &Zone) -> Result<(), Failed> {
        let call = format!("POST {path}");
        let begun = self.call(Method::POST, path, body).await;
        let begun = begun.map_err(|refusal| match refusal.is_in_use() {
            true => Failed::InUse,
            false => Failed::Other(refusal.of(call.clone())),
        })?;
        let operation = read(begun, &call).map_err(Failed::Other)?;
        let ended = self.wait(zone, operation, &call).await;
        let ended = ended.map_err(Failed::Other)?;
        match ended
            .error
            .and_then(|error| error.errors.into_iter().next())
        {
            None => Ok(()),
            Some(error) if http::says_in_use(&error.code) => Err(Failed::InUse),
            Some(error) => Err(Failed::Other(match &*error.code {
                "QUOTA_EXCEEDED" | "RATE_LIMIT_EXCEEDED" | "RESOURCE_OPERATION_RATE_EXCEEDED" => {
                    CloudError::Throttled {
                        call,
                        message: error.message,
                    }
                }
                _ => CloudError::Failed {
                    call,
                    code: error.code,
                    message: error.message,
                },
            })),
        }
    }

    /// An operation once it is done, however it ended. What goes wrong with the asking changes nothing of it.
    async fn wait(
        &self,
        zone: &Zone,
        mut operation: Operation,
        call: &str,
    ) -> Result<Operation, CloudError> {
        let Zone { project, zone } = zone;
        let path = format!(
            "projects/{project}/zones/{zone}/operations/{}/wait",
            operation.name
        );
        let until = Instant::now() + self.patience;
        let mut pause = PAUSE;
        while operation.status != "DONE" {
            let late = || CloudError::Late {
                call: call.to_owned(),
                patience: self.patience,
            };
            let asked = self.call(Method::POST, &path, None);
            let asked = tokio::time::timeout_at(until, asked).await;
            match asked.map_err(|_| late())? {
                Ok(value) => {
                    operation = read(value, call)?;
                    pause = PAUSE;
                }
                Err(refusal) if refusal.may_pass() => {
                    tracing::debug!(operation = operation.name, ?refusal, "asking again");
                }
                Err(refusal) => return Err(refusal.of(format!("POST {path}"))),
            }
            // The API holds the answer back while there is nothing to tell; where it does not, this does.
            if operation.status != "DONE" {
                tokio::time::timeout_at(until, sleep(pause))
                    .await
                    .map_err(|_| late())?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        Ok(operation)
    }

    async fn raw_machine(&self, instance: &Instance) -> Result<Option<WireInstance>, CloudError> {
        match self.get(&instance.to_string()).await {
            Ok(machine) => Ok(Some(machine)),
            Err(CloudError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Why an operation did not succeed.
enum Failed {
    InUse,
    Other(CloudError),
}

impl Cloud for ComputeEngine {
    async fn attach(&self, disk: &Disk, to: &Instance, read_only: bool) -> Result<(), CloudError> {
        let body = json!({
            "source": disk.to_string(),
            // Its node finds it as google-<name>.
            "deviceName": disk.name,
            "mode": if read_only { "READ_ONLY" } else { "READ_WRITE" },
            "type": "PERSISTENT",
        });
        let path = format!("{to}/attachDisk");
        match self.operate(&path, Some(&body), &to.zone()).await {
            Ok(()) => Ok(()),
            Err(Failed::Other(error)) => Err(error),
            Err(Failed::InUse) => {
                let by = self.users(disk).await?;
                // The API says the same of a disk that is there already.
                if by.contains(to) {
                    return Ok(());
                }
                Err(CloudError::InUse {
                    disk: disk.clone(),
                    by,
                })
            }
        }
    }

    async fn detach(&self, disk: &Disk, from: &Instance) -> Result<(), CloudError> {
        let Some(machine) = self.raw_machine(from).await? else {
            return Ok(());
        };
        // The API detaches by the name that the disk has there, which may be another disk's.
        let mut disks = machine.disks.into_iter();
        let Some(there) = disks.find(|there| there.disk().as_ref() == Some(disk)) else {
            return Ok(());
        };
        let path = format!(
            "{from}/detachDisk?deviceName={}",
            escaped(&there.device_name)
        );
        match self.operate(&path, None, &from.zone()).await {
            Ok(()) => Ok(()),
            Err(Failed::Other(error)) => Err(error),
            Err(Failed::InUse) => Err(CloudError::InUse {
                disk: disk.clone(),
                by: BTreeSet::new(),
            }),
        }
    }

    async fn settle(&self, zone: &Zone, only: Option<&[Instance]>) -> Result<(), CloudError> {
        let Zone {
            project,
            zone: name,
        } = zone;
        let mut page = String::new();
        loop {
            // `status != "DONE"`
            let path = format!(
                "projects/{project}/zones/{name}/operations?filter=status+%21%3D+%22DONE%22{page}"
            );
            let list: Operations = self.get(&path).await?;
            for operation in list.items {
                let is_move = MOVES.contains(&&*operation.operation_type);
                let target = instance(&operation.target_link);
                let concerns = only.is_none_or(|only| target.is_some_and(|t| only.contains(&t)));
                if is_move && concerns && operation.status != "DONE" {
                    let call = format!("{} {}", operation.operation_type, operation.name);
                    // One that is gone has ended.
                    match self.wait(zone, operation, &call).await {
                        Ok(_) | Err(CloudError::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            match list.next_page_token {
                Some(token) => page = format!("&pageToken={}", escaped(&token)),
                None => return Ok(()),
            }
        }
    }

    async fn users(&self, disk: &Disk) -> Result<BTreeSet<Instance>, CloudError> {
        let found: WireDisk = match self.get(&disk.to_string()).await {
            Err(CloudError::NotFound { .. }) => return Ok(BTreeSet::new()),
            other => other?,
        };
        Ok(found
            .users
            .iter()
            .filter_map(|link| instance(link))
            .collect())
    }

    async fn machine(&self, instance: &Instance) -> Result<Option<Machine>, CloudError> {
        let found = self.raw_machine(instance).await?;
        Ok(found.map(|found| Machine {
            runs: !OFF.contains(&&*found.status),
            disks: found
                .disks
                .iter()
                .filter(|there| !there.boot)
                .filter_map(|there| {
                    let disk = there.disk()?;
                    let is_named = there.device_name == *disk.name;
                    Some((disk, is_named))
                })
                .collect::<BTreeMap<_, _>>(),
        }))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Operation {
    name: String,
    status: String,
    operation_type: String,
    target_link: String,
    error: Option<OperationError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OperationError {
    errors: Vec<ErrorItem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorItem {
    code: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Operations {
    items: Vec<Operation>,
    next_page_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireDisk {
    users: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireInstance {
    status: String,
    disks: Vec<WireAttached>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireAttached {
    source: String,
    device_name: String,
    boot: bool,
}

impl WireAttached {
    fn disk(&self) -> Option<Disk> {
        let parts: Vec<&str> = tail(&self.source)?;
        let (location, project, name) = match parts[..] {
            [project, "zones", zone, "disks", name] => (Location::Zone(zone.into()), project, name),
            [project, "regions", region, "disks", name] => {
                (Location::Region(region.into()), project, name)
            }
            _ => return None,
        };
        Some(Disk {
            name: name.into(),
            project: project.into(),
            location,
        })
    }
}

/// The machine that a link leads to.
fn instance(link: &str) -> Option<Instance> {
    match tail(link)?[..] {
        [project, "zones", zone, "instances", name] => Some(Instance {
            project: project.into(),
            zone: zone.into(),
            name: name.into(),
        }),
        _ => None,
    }
}

/// What stands after `projects/` in a link, whatever host and version it names.
fn tail(link: &str) -> Option<Vec<&str>> {
    let path = link.split_once("projects/")?.1;
    Some(path.split('/').collect())
}

fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    let byte = |b: u8| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn read(value: Value, call: &str) -> Result<Operation, CloudError> {
    serde_json::from_value(value).map_err(|error| CloudError::Unavailable {
        call: call.to_owned(),
        message: format!("the answer is no operation: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_any_host_lead_to_machines_and_disks() {
        for host in [
            "https://www.googleapis.com/compute/v1/",
            "https://compute.googleapis.com/compute/beta/",
            "",
        ] {
            let link = format!("{host}projects/shop/zones/us-east1-b/instances/n-1");
            assert_eq!(
                instance(&link).map(|i| i.to_string()).as_deref(),
                Some("projects/shop/zones/us-east1-b/instances/n-1")
            );
            let disk = |path: &str| {
                let attached = WireAttached {
                    source: format!("{host}projects/{path}"),
                    ..WireAttached::default()
                };
                attached.disk().map(|disk| disk.to_string())
            };
            for path in ["shop/zones/z/disks/d", "shop/regions/r/disks/d"] {
                assert_eq!(disk(path), Some(format!("projects/{path}")));
            }
            assert_eq!(disk("shop/zones/z/images/d"), None);
        }
        assert_eq!(instance("projects/shop/zones/z/disks/d"), None);
        assert_eq!(escaped("a b&c"), "a%20b%26c");
    }
}
