//! The programs that bind claims, each as a process of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bitts_e2e::control_plane::{VOLUME_CONTROLLERS, programs, stock_arguments};
use bitts_e2e::process::Process;
use clap::ValueEnum;
use tempfile::TempDir;

use crate::usage::Running;
use crate::way;

/// Who binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    /// `bitts run --roles binder`, as built for release.
    Bitts,
    /// A client that does nothing but the four writes of each claim.
    Limit,
    /// The stock controllers.
    KubeControllerManager,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::KubeControllerManager, Self::Bitts, Self::Limit];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bitts => "bitts",
            Self::Limit => "limit",
            Self::KubeControllerManager => "kube-controller-manager",
        }
    }

    /// The controllers whose work it does.
    pub(crate) fn controllers(self) -> Vec<String> {
        match self {
            Self::Bitts | Self::KubeControllerManager => {
                VOLUME_CONTROLLERS.map(str::to_owned).to_vec()
            }
            Self::Limit => vec!["none: only the four writes of each claim".to_owned()],
        }
    }

    /// Whether it marks new volumes Available.
    pub(crate) fn marks_volumes(self) -> bool {
        self != Self::Limit
    }

    /// Starts it on the cluster of a kubeconfig.
    pub(crate) fn start(self, kubeconfig: &str) -> Result<Started> {
        let (program, mut arguments) = self.command()?;
        if self != Self::Limit {
            arguments.push("--leader-elect=false".to_owned());
        }
        Started::start(&program, arguments, kubeconfig)
    }

    /// Starts it with a lease, which it must win first.
    pub(crate) fn start_elected(self, kubeconfig: &str) -> Result<Started> {
        let (program, arguments) = self.command()?;
        Started::start(&program, arguments, kubeconfig)
    }

    fn command(self) -> Result<(PathBuf, Vec<String>)> {
        let own = std::env::current_exe()?;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (program, arguments) = match self {
            Self::Bitts => (
                own.with_file_name("bitts"),
                words(&["run", "--roles=binder"]),
            ),
            Self::Limit => (own, words(&["limit"])),
            Self::KubeControllerManager => {
                let program = programs()?.controller_manager().to_owned();
                (program, stock_arguments(&VOLUME_CONTROLLERS))
            }
        };
        let there = program.is_file();
        anyhow::ensure!(there, "there is no {}", program.display());
        Ok((program, arguments))
    }
}

/// A contender that runs. It ends when this is dropped.
pub(crate) struct Started {
    process: Process,
    name: String,
    kubeconfig: String,
    _folder: TempDir,
}

impl Started {
    fn start(program: &Path, mut arguments: Vec<String>, kubeconfig: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bitts-bench-").tempdir()?;
        let file = folder.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig)?;
        let kubeconfig = format!("--kubeconfig={}", file.display());
        arguments.push(kubeconfig.clone());
        let process = Process::start(program, &arguments, folder.path())?;
        let name = program.file_name().context("a program has a name")?;
        let name = name.to_string_lossy().into_owned();
        Ok(Self {
            process,
            name,
            kubeconfig,
            _folder: folder,
        })
    }

    /// Another program, which takes `--kubeconfig`.
    pub(crate) fn program(
        program: &Path,
        arguments: Vec<String>,
        kubeconfig: &str,
    ) -> Result<Self> {
        let there = program.is_file();
        anyhow::ensure!(there, "there is no {}", program.display());
        Self::start(program, arguments, kubeconfig)
    }

    /// The agent of a node, with this directory as the kubelet's.
    pub(crate) fn agent(
        program: Option<&Path>,
        kubeconfig: &str,
        node: &str,
        kubelet: &Path,
    ) -> Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => Contender::Bitts.command()?.0,
        };
        let arguments = [
            "run".to_owned(),
            "--roles=agent".to_owned(),
            format!("--node-name={node}"),
            format!("--kubelet-dir={}", kubelet.display()),
            "--log-format=json".to_owned(),
            format!("--log={}", way::FILTER),
        ];
        Self::start(&program, arguments.into(), kubeconfig)
    }

    /// What it takes is read here.
    pub(crate) async fn running(&mut self) -> Result<Running> {
        // Its shell needs a moment to become it.
        for _ in 0..100 {
            self.process.check_running()?;
            if let Ok(running) = Running::find(&self.name, &self.kubeconfig) {
                return Ok(running);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Running::find(&self.name, &self.kubeconfig)
    }

    /// An error that quotes its log when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.check_running()
    }

    /// Its log.
    pub(crate) fn printed(&self) -> String {
        self.process.printed()
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        self.process.last_words()
    }
}
