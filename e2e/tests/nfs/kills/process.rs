//! The agent as a process of its own, so that it can be killed, and what it leaves.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_agent::AgentConfig;
use bitts_runtime::{Host, connect_shared};
use procfs::process::{Process, all_processes};

use crate::agent::{DEVICES, KUBELET, NODE};

/// Makes this program an agent of the cluster that this file names.
const AGENT: &str = "bitts_guest_agent";
/// What the agents said, one after another.
const LOG: &str = "/mnt/agent.log";
/// How long an agent waits for a server.
const PATIENCE: Duration = Duration::from_secs(3);

/// Is an agent when it was started as one.
pub(crate) fn be_agent_if_asked() -> Option<ExitCode> {
    let kubeconfig = std::env::var_os(AGENT)?;
    match be_agent(kubeconfig.as_ref()) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("the agent: {error:#}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn be_agent(kubeconfig: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let host = Host::new(connect_shared(Some(kubeconfig)).await?);
        let (observer, mut reports) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                eprintln!("{report:?}");
            }
        });
        let config = AgentConfig {
            kubelet_dir: KUBELET.into(),
            patience: PATIENCE,
            observer: Some(observer),
            devices: DEVICES.into(),
            ..AgentConfig::new(NODE.into())
        };
        Ok(bitts_agent::run(&host, config).await?)
    })
}

/// A running agent.
pub(super) struct Agent(Child);

impl Agent {
    pub(super) fn start(kubeconfig: &Path) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(LOG)?;
        let agent = Command::new("/proc/self/exe")
            .env(AGENT, kubeconfig)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the agent")?;
        Ok(Self(agent))
    }

    /// Kills it and nothing else: what it started stays.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.check_running()?;
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    pub(super) fn check_running(&mut self) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the agent ended: {ended:?}");
        Ok(())
    }

    /// The end of what all agents said.
    pub(super) fn last_words() -> String {
        let text = fs::read_to_string(LOG).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].iter();
        let short = last.map(|line| line.chars().take(400).collect::<String>());
        short.collect::<Vec<_>>().join("\n")
    }

    /// Its children that mount or unmount.
    pub(super) fn children(&self) -> anyhow::Result<Vec<Process>> {
        children(|parent| parent.cast_unsigned() == self.0.id())
    }

    /// Those that an earlier agent had and that still run.
    pub(super) fn orphans(&self) -> anyhow::Result<Vec<Process>> {
        children(|parent| parent.cast_unsigned() != self.0.id())
    }
}

fn children(is_parent: impl Fn(i32) -> bool) -> anyhow::Result<Vec<Process>> {
    let mut found = Vec::new();
    for process in all_processes()? {
        // Those that end meanwhile are none.
        let Ok(process) = process else { continue };
        let (Ok(words), Ok(stat)) = (process.cmdline(), process.stat()) else {
            continue;
        };
        let program = words.first().map(String::as_str).unwrap_or_default();
        let is_ours = program == "bitts-mount-child" || program.ends_with("/mount.nfs");
        if is_ours && stat.state != 'Z' && is_parent(stat.ppid) {
            found.push(process);
        }
    }
    Ok(found)
}
