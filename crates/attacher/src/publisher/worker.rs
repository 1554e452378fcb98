//! Calls the driver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitts_api::{AccessMode, AccessModes, Attachment, CsiNode, SecretRef};
use bitts_csi::v1::volume_capability::access_mode::Mode;
use bitts_csi::v1::volume_capability::{AccessType, BlockVolume, MountVolume};
use bitts_csi::{Code, CsiError, Driver, v1};
use bitts_runtime::Worker;
use kube::Client;
use serde_json::Value;
use tokio::sync::Mutex;

use super::call::{Because, Can, Context, Publish, Report, Task, Trouble, Unpublish};

/// How long a read from the API may take.
const READ: Duration = Duration::from_secs(10);

/// Calls the driver behind one socket.
pub(super) struct CsiWorker {
    pub(super) driver: Box<str>,
    pub(super) socket: PathBuf,
    /// How long a call may take.
    pub(super) patience: Duration,
    pub(super) client: Client,
    pub(super) connection: Mutex<Option<Driver>>,
}

/// Why a task was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Csi(#[from] CsiError),
    #[error("{what} cannot be read: {source}")]
    Read {
        what: String,
        source: Box<kube::Error>,
    },
    #[error("{what} cannot be read: no answer within {} s", READ.as_secs())]
    Slow { what: String },
    #[error("secret {secret} has no text in {key:?}: drivers take text only")]
    Odd { secret: String, key: String },
    #[error(
        "the driver at {socket} is {found} and was {expected}: give the role the socket of the driver \
         that it was started for, or start it anew"
    )]
    Other {
        socket: String,
        found: String,
        expected: Box<str>,
    },
    #[error("the driver says that it is not ready yet")]
    NotReady,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::Csi(error) => error.code(),
            _ => None,
        };
        let lost = matches!(
            failure,
            Failure::Csi(CsiError::Absent { .. } | CsiError::Broken { .. })
        );
        let overload = matches!(
            code,
            Some(Code::ResourceExhausted | Code::DeadlineExceeded | Code::Unavailable)
        );
        Self {
            message: failure.to_string(),
            code: code.map(i32::from),
            overload,
            lost,
        }
    }
}

impl Worker for CsiWorker {
    type Task = Task;
    type Report = Report;

    async fn perform(&self, task: Task) -> Report {
        let report = self.report(task).await;
        if let Report::Can(Err(trouble))
        | Report::Published(_, Err(trouble))
        | Report::Unpublished(_, Err(trouble))
        | Report::Listed(Err(trouble)) = &report
            && trouble.lost
        {
            self.connection.lock().await.take();
        }
        report
    }
}

impl CsiWorker {
    async fn report(&self, task: Task) -> Report {
        match task {
            Task::Ask => {
                let can = self.ask().await;
                if let Err(error) = &can {
                    tracing::warn!(driver = &*self.driver, %error, "the driver cannot be used yet");
                }
                Report::Can(can.map_err(Into::into))
            }
            Task::Publish(publish) => {
                let ticket = publish.ticket.clone();
                let (volume, node) = (ticket.handle.clone(), publish.node_id.clone());
                let published = self.publish(*publish).await;
                match &published {
                    Ok(_) => tracing::info!(%volume, %node, "attached"),
                    Err(error) => tracing::warn!(%volume, %node, %error, "not attached"),
                }
                Report::Published(ticket, published.map_err(Into::into))
            }
            Task::Unpublish(unpublish) => self.unpublish(*unpublish).await,
            Task::List => Report::Listed(self.list().await.map_err(Into::into)),
        }
    }

    /// A connection to the driver, and to no other that may listen there by now.
    async fn connection(&self) -> Result<Driver, Failure> {
        let mut connection = self.connection.lock().await;
        if let Some(driver) = &*connection
            && !driver.has_ended()
        {
            return Ok(driver.clone());
        }
        let driver = Driver::connect(&self.socket, self.patience).await?;
        let found = driver.info().await?.name;
        if *found != *self.driver {
            return Err(Failure::Other {
                socket: self.socket.display().to_string(),
                found,
                expected: self.driver.clone(),
            });
        }
        *connection = Some(driver.clone());
        Ok(driver)
    }

    async fn ask(&self) -> Result<Can, Failure> {
        let driver = self.connection().await?;
        if !driver.is_ready().await? {
            return Err(Failure::NotReady);
        }
        let can = driver.controller_capabilities().await?;
        tracing::info!(driver = &*self.driver, ?can, "the driver answers");
        Ok(Can {
            publish: can.publishes,
            publish_read_only: can.publishes_read_only,
            list: can.lists_published,
            one_writer: can.one_writer,
        })
    }

    async fn publish(&self, publish: Publish) -> Result<Context, Failure> {
        let secrets = self.secrets(publish.secret.as_ref()).await?;
        let request = v1::ControllerPublishVolumeRequest {
            volume_id: publish.ticket.handle.to_string(),
            node_id: publish.node_id.to_string(),
            volume_capability: Some(capability(&publish)),
            readonly: publish.read_only,
            secrets,
            volume_context: owned(&publish.attributes),
        };
        let context = self.connection().await?.attach(request).await?;
        let context = context.into_iter();
        Ok(context.map(|(k, v)| (k.into(), v.into())).collect())
    }

    async fn unpublish(&self, unpublish: Unpublish) -> Report {
        let ticket = unpublish.ticket.clone();
        let (volume, node) = (ticket.handle.clone(), unpublish.node_id.clone());
        let done = async {
            if !self.holds(&unpublish).await? {
                return Ok(false);
            }
            let request = v1::ControllerUnpublishVolumeRequest {
                volume_id: volume.to_string(),
                node_id: node.to_string(),
                secrets: self.secrets(unpublish.secret.as_ref()).await?,
            };
            self.connection().await?.detach(request).await?;
            Ok::<_, Failure>(true)
        };
        match done.await {
            Ok(false) => {
                tracing::info!(%volume, %node, "not detached: the reason no longer holds");
                Report::Spared(ticket)
            }
            Ok(true) => {
                tracing::info!(%volume, %node, "detached");
                Report::Unpublished(ticket, Ok(()))
            }
            Err(error) => {
                tracing::warn!(%volume, %node, %error, "not detached");
                Report::Unpublished(ticket, Err(error.into()))
            }
        }
    }

    /// Whether what speaks for a detach still does, as the API says now.
    async fn holds(&self, unpublish: &Unpublish) -> Result<bool, Failure> {
        const STORAGE: &str = "/apis/storage.k8s.io/v1";
        Ok(match &unpublish.because {
            Because::Deleted => {
                let ticket = &unpublish.ticket;
                let path = format!("{STORAGE}/volumeattachments/{}", ticket.attachment);
                let found: Option<Attachment> = self.read("the VolumeAttachment", &path).await?;
                found.is_none_or(|a| a.meta.uid != ticket.uid || a.meta.is_deleting())
            }
            Because::Renamed { node, now } => {
                let path = format!("{STORAGE}/csinodes/{node}");
                let found: Option<CsiNode> = self.read("the CSINode", &path).await?;
                let drivers = found.iter().flat_map(|node| &node.drivers);
                let mut drivers = drivers.filter(|driver| driver.name == self.driver);
                drivers.any(|driver| driver.node_id == *now)
            }
        })
    }

    async fn list(
        &self,
    ) -> Result<BTreeMap<Box<str>, std::collections::BTreeSet<Box<str>>>, Failure> {
        let listed = self.connection().await?.published().await?;
        let nodes =
            |nodes: std::collections::BTreeSet<String>| nodes.into_iter().map(Into::into).collect();
        Ok(listed
            .into_iter()
            .map(|(v, n)| (v.into(), nodes(n)))
            .collect())
    }

    /// The contents of a secret, read live each time and kept nowhere.
    async fn secrets(&self, of: Option<&SecretRef>) -> Result<BTreeMap<String, String>, Failure> {
        let Some(SecretRef { namespace, name }) = of else {
            return Ok(BTreeMap::new());
        };
        let what = format!("secret {namespace}/{name}");
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let secret: Value = self.get(&what, &path).await?;
        let data = secret["data"].as_object().into_iter().flatten();
        let text = |(key, value): (&String, &Value)| {
            let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            text.map(|text| (key.clone(), text)).ok_or(Failure::Odd {
                secret: format!("{namespace}/{name}"),
                key: key.clone(),
            })
        };
        data.map(text).collect()
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
    ) -> Result<Option<T>, Failure> {
        match self.get(what, path).await {
            Err(Failure::Read { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 404) => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
    ) -> Result<T, Failure> {
        let failed = |source| Failure::Read {
            what: what.to_owned(),
            source: Box::new(source),
        };
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(|error| failed(kube::Error::HttpError(error)))?;
        match tokio::time::timeout(READ, self.client.request(request)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(Failure::Slow {
                what: what.to_owned(),
            }),
        }
    }
}

fn capability(publish: &Publish) -> v1::VolumeCapability {
    let access_type = match publish.is_block {
        true => AccessType::Block(BlockVolume {}),
        false => AccessType::Mount(MountVolume {
            fs_type: publish.fs_type.to_string(),
            mount_flags: publish
                .mount_options
                .iter()
                .map(ToString::to_string)
                .collect(),
            volume_mount_group: String::new(),
        }),
    };
    v1::VolumeCapability {
        access_mode: Some(v1::volume_capability::AccessMode {
            mode: mode(publish.modes, publish.one_writer).into(),
        }),
        access_type: Some(access_type),
    }
}

/// The widest of a volume's access modes, as the agent tells its node plugin (docs/csi.md).
fn mode(modes: AccessModes, one_writer: bool) -> Mode {
    if modes.contains(AccessMode::ReadWriteMany) {
        Mode::MultiNodeMultiWriter
    } else if modes.contains(AccessMode::ReadWriteOnce) {
        match one_writer {
            true => Mode::SingleNodeMultiWriter,
            false => Mode::SingleNodeWriter,
        }
    } else if modes.contains(AccessMode::ReadWriteOncePod) {
        match one_writer {
            true => Mode::SingleNodeSingleWriter,
            false => Mode::SingleNodeWriter,
        }
    } else if modes.contains(AccessMode::ReadOnlyMany) {
        Mode::MultiNodeReaderOnly
    } else {
        Mode::Unknown
    }
}

fn owned(map: &Context) -> BTreeMap<String, String> {
    let pairs = map.iter();
    pairs
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_the_widest() {
        use AccessMode::{ReadOnlyMany, ReadWriteMany, ReadWriteOnce, ReadWriteOncePod};
        let of =
            |modes: &[AccessMode], one_writer| mode(modes.iter().copied().collect(), one_writer);
        let all = [ReadOnlyMany, ReadWriteOnce, ReadWriteMany];
        assert_eq!(of(&all, true), Mode::MultiNodeMultiWriter);
        assert_eq!(of(&[ReadOnlyMany], true), Mode::MultiNodeReaderOnly);
        assert_eq!(
            of(&[ReadOnlyMany, ReadWriteOnce], false),
            Mode::SingleNodeWriter
        );
        assert_eq!(of(&[ReadWriteOnce], true), Mode::SingleNodeMultiWriter);
        assert_eq!(of(&[ReadWriteOncePod], true), Mode::SingleNodeSingleWriter);
        assert_eq!(of(&[ReadWriteOncePod], false), Mode::SingleNodeWriter);
    }

    #[test]
    fn what_a_failure_says_of_the_driver() {
        let refused = |code| {
            Trouble::from(Failure::from(CsiError::Refused {
                call: "ControllerPublishVolume",
                code,
                message: "no".to_owned(),
            }))
        };
        let full = refused(Code::ResourceExhausted);
        assert_eq!(
            (full.code, full.overload, full.lost),
            (Some(8), true, false)
        );
        let unknown = refused(Code::NotFound);
        assert_eq!(
            (unknown.code, unknown.overload, unknown.lost),
            (Some(5), false, false)
        );
        let broken = Trouble::from(Failure::from(CsiError::Broken {
            call: "ControllerPublishVolume",
            message: "reset".to_owned(),
        }));
        assert_eq!((broken.code, broken.lost), (None, true));
    }
}
