//! Who makes volumes, here or in a guest.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Maker;
use super::guest::Machine;
use super::place::Place;
use crate::contender::Started;
use crate::usage::Running;

/// A contender that runs.
pub(super) enum Making {
    OnDisk(Box<Started>, Place),
    OnShare(Machine),
}

/// What a contender took so far, with the processes that work for it; the pages of the program, which they have
/// together, are counted once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) cpu_ms: f64,
    pub(super) peak_mb: f64,
}

impl Usage {
    pub(super) fn of(running: &Running) -> Result<Self> {
        let mut usage = Self {
            cpu_ms: running.cpu_ms()?,
            peak_mb: running.peak_mb()?,
        };
        for child in running.children()? {
            // One that ended meanwhile takes nothing.
            let memory = child
                .peak_mb()
                .and_then(|peak| Ok(peak - child.held_of_files_mb()?));
            if let (Ok(cpu), Ok(memory)) = (child.cpu_ms(), memory) {
                usage.cpu_ms += cpu;
                usage.peak_mb += memory;
            }
        }
        Ok(usage)
    }
}

impl Making {
    pub(super) fn start(maker: Maker, kubeconfig: &str, share: bool) -> Result<Self> {
        if share {
            return Ok(Self::OnShare(Machine::boot(maker, kubeconfig)?));
        }
        let disk = Place::disk()?;
        let started = maker.start(&maker.program()?, kubeconfig, &disk)?;
        Ok(Self::OnDisk(Box::new(started), disk))
    }

    /// The class whose volumes it makes.
    pub(super) fn class(&self, maker: Maker) -> Result<Value> {
        match self {
            Self::OnDisk(_, place) => Ok(place.class(maker)),
            Self::OnShare(machine) => machine.class(),
        }
    }

    pub(super) async fn usage(&mut self) -> Result<Usage> {
        match self {
            Self::OnDisk(started, _) => Usage::of(&started.running().await?),
            Self::OnShare(machine) => machine.usage(),
        }
    }

    pub(super) fn check(&mut self) -> Result<()> {
        match self {
            Self::OnDisk(started, _) => started.check(),
            Self::OnShare(machine) => machine.check(),
        }
    }

    pub(super) fn last_words(&self) -> String {
        match self {
            Self::OnDisk(started, _) => started.last_words(),
            Self::OnShare(machine) => machine.last_words(),
        }
    }
}
