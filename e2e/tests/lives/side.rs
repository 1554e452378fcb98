//! One of the clusters that live the same lives: an API of its own under one of the controllers.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context as _;
use bitts_e2e::control_plane::{Component, VOLUME_CONTROLLERS};
use bitts_e2e::raw::{Request, text};
use bitts_e2e::real::RealApi;
use serde_json::{Value, json};

use crate::life::Step;
use crate::state::{self, State, Uids};

/// The flags with which everything ends as under kube-controller-manager.
const STRICT: [&str; 3] = [
    "--strict-compat",
    "--unsafe-release-restored",
    "--unsafe-reclaim-never-bound",
];

/// Who keeps the volumes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// kube-controller-manager, with the volume controllers only.
    Stock,
    /// bitts that is to end everything as there.
    Strict,
    /// bitts as it is by default.
    Default,
}

pub(crate) struct Side {
    pub(crate) keeper: Keeper,
    // Ends before the API that it works on.
    controller: Component,
    api: RealApi,
    client: kube::Client,
    uids: Uids,
    seen: BTreeMap<String, State>,
    changed: Instant,
}

impl Side {
    pub(crate) async fn start(keeper: Keeper) -> anyhow::Result<Self> {
        let api = RealApi::start().await?;
        let client = api.client().await?;
        let kubeconfig = api.kubeconfig();
        let mut flags = vec!["--leader-elect=false"];
        let controller = match keeper {
            Keeper::Stock => {
                let flags = ["--pvclaimbinder-sync-period=1s"];
                Component::controller_manager(kubeconfig, &VOLUME_CONTROLLERS, &flags)?
            }
            Keeper::Strict => {
                flags.extend(STRICT);
                Component::binder(kubeconfig, &flags)?
            }
            Keeper::Default => Component::binder(kubeconfig, &flags)?,
        };
        Ok(Self {
            keeper,
            controller,
            api,
            client,
            uids: Uids::default(),
            seen: BTreeMap::new(),
            changed: Instant::now(),
        })
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> anyhow::Result<(u16, Value)> {
        let mut request = Request::new(method, path, body);
        if method == "PATCH" {
            request.content_type = Some("application/merge-patch+json".to_owned());
        }
        let answer = request.send(&self.client).await?;
        Ok((answer.status, answer.body))
    }

    /// Does what a user does, and returns how the API answered.
    pub(crate) async fn act(&mut self, life: &str, step: &Step) -> anyhow::Result<u16> {
        let body = self.uids.fill_in(life, &step.body);
        let (status, answer) = self.send(step.method, &step.path, body).await?;
        anyhow::ensure!(status < 500, "{step}: {status} {answer}");
        self.changed = Instant::now();
        Ok(status)
    }

    /// Reads everything, and notes when it changed.
    pub(crate) async fn look(&mut self) -> anyhow::Result<()> {
        let mut all = BTreeMap::new();
        for (kind, path) in state::KINDS {
            let (status, list) = self.send("GET", path, Value::Null).await?;
            anyhow::ensure!(status == 200, "{path}: {status} {list}");
            for object in list["items"].as_array().context("a list has items")? {
                state::add(&mut all, kind, object, &mut self.uids);
            }
        }
        if all != self.seen {
            self.seen = all;
            self.changed = Instant::now();
        }
        Ok(())
    }

    /// Since when nothing changed.
    pub(crate) fn changed(&self) -> Instant {
        self.changed
    }

    /// What there is of a life.
    pub(crate) fn state(&self, life: &str) -> State {
        self.seen.get(life).cloned().unwrap_or_default()
    }

    /// Removes what the lives left, so that the next ones begin in an empty cluster.
    pub(crate) async fn clear(&mut self) -> anyhow::Result<()> {
        for _ in 0..50 {
            let mut left = 0;
            // Claims and pods first, so that nothing is bound anew meanwhile.
            for (_, path) in state::KINDS {
                let (_, list) = self.send("GET", path, Value::Null).await?;
                for object in list["items"].as_array().context("a list has items")? {
                    left += 1;
                    self.remove(path, object).await?;
                }
            }
            if left == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("{:?}: the cluster does not become empty", self.keeper)
    }

    async fn remove(&self, list: &str, object: &Value) -> anyhow::Result<()> {
        let (prefix, plural) = list.rsplit_once('/').context("a path has a slash")?;
        let name = text(object, "/metadata/name");
        let path = match text(object, "/metadata/namespace") {
            "" => format!("{prefix}/{plural}/{name}"),
            namespace => format!("{prefix}/namespaces/{namespace}/{plural}/{name}"),
        };
        let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        self.send("DELETE", &path, now).await?;
        let free = json!({"metadata": {"finalizers": null}});
        self.send("PATCH", &path, free).await?;
        Ok(())
    }

    /// The end of the controller's log.
    pub(crate) fn log(&self) -> String {
        let printed = self.controller.printed();
        let lines: Vec<&str> = printed.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// An error with the last words of what runs here.
    pub(crate) fn explain(&mut self, why: anyhow::Error) -> anyhow::Error {
        let url = format!(
            "{:?} (apiserver {:?})",
            self.keeper,
            self.api.apiserver_pid()
        );
        self.controller.explain(why).context(url)
    }
}
