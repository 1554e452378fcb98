//! The agent beside a kubelet, which here is the test: it makes the directory, mounts, starts a process
//! in the pod's cgroup, and takes all of it down.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_agent::{How, Mode, Report};
use bitts_e2e::uml::guest::run;
use bitts_e2e::uml::server::Server;

use crate::agent::{World, is_mounted, with_agent_as};
use crate::cgroup::Cgroup;

const INTERVAL: Duration = Duration::from_secs(2);

/// A pod as a kubelet and its runtime have it.
struct Running {
    process: Child,
    _cgroup: Cgroup,
}

impl Running {
    /// The volume is mounted, then a process is started.
    fn start(target: &Path, share: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(target)?;
        let place = target.to_str().context("an odd path")?;
        run("mount", &["-t", "nfs", "-o", "vers=4.2", share, place])?;
        let cgroup = Cgroup::of_pod(target)?;
        let process = Command::new("sleep").arg("600").spawn()?;
        cgroup.take(&process)?;
        Ok(Self {
            process,
            _cgroup: cgroup,
        })
    }

    /// The process ends, then the volume is taken down. The API hears of that later.
    async fn end(mut self, target: &Path) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        run("umount", &[target.to_str().context("an odd path")?])?;
        // It takes its time, so that what is mounted meanwhile shows.
        tokio::time::sleep(INTERVAL).await;
        ensure!(!is_mounted(target)?, "mounted behind the kubelet's back");
        fs::remove_dir(target)?;
        Ok(())
    }
}

impl World {
    async fn until_mounted(&mut self, wanted: How) -> anyhow::Result<()> {
        self.report(|report| match report {
            Report::Mounted { how, .. } if how == wanted => Some(()),
            _ => None,
        })
        .await
    }

    async fn until_appeared(&mut self) -> anyhow::Result<()> {
        self.report(|report| matches!(report, Report::Appeared(_)).then_some(()))
            .await
    }
}

/// What vanished or went stale is mounted anew, and what a kubelet takes down stays down.
pub(crate) fn a_kubelets_mounts_are_mended() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    let share = format!("{}:{}", server.address(), server.path("a", "vers=4.2"));
    with_agent_as(
        Mode::BesideKubelet,
        Some(INTERVAL),
        async |_| Ok(()),
        async |world| {
            world.add_volume("a", &server, "a", &["vers=4.2"]).await?;
            let target = world.add_pod("p", "a", false).await?;
            tokio::time::sleep(INTERVAL).await;
            ensure!(!target.exists(), "the agent mounted what is the kubelet's");
            let pod = Running::start(&target, &share)?;
            world.until_appeared().await?;
            fs::write(target.join("file"), "kept")?;

            let start = Instant::now();
            run("umount", &[target.to_str().context("an odd path")?])?;
            world.until_mounted(How::Now).await?;
            println!("mounted again after {:?}", start.elapsed());
            ensure!(fs::read_to_string(target.join("file"))? == "kept");
            world.event("BittsMountLost").await?;
            world.event("BittsMountHealed").await?;

            // The pod ends; its object says so only later.
            pod.end(&target).await?;
            tokio::time::sleep(2 * INTERVAL).await;
            ensure!(!is_mounted(&target)?, "mounted behind the kubelet's back");
            ensure!(!target.exists(), "the agent made a directory");
            let lost = world.events("p").await?;
            let lost = lost
                .iter()
                .filter(|text| text.contains("unmounted by somebody"));
            ensure!(lost.count() == 1, "the kubelet's own unmount was told");
            world.end_pod("p").await
        },
    )
}

/// The directory is made anew on the server: what was mounted knows it no longer.
pub(crate) fn a_kubelets_stale_mount_is_mounted_anew() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    let directory = server.export("a").join("d");
    fs::create_dir(&directory)?;
    let share = format!("{}:{}", server.address(), server.path("a/d", "vers=4.2"));
    with_agent_as(
        Mode::BesideKubelet,
        Some(INTERVAL),
        async |_| Ok(()),
        async |world| {
            world.add_volume("a", &server, "a/d", &["vers=4.2"]).await?;
            let target = world.add_pod("p", "a", false).await?;
            let pod = Running::start(&target, &share)?;
            world.until_appeared().await?;
            fs::remove_dir(&directory)?;
            fs::create_dir(&directory)?;
            fs::write(directory.join("file"), "new")?;
            world.until_mounted(How::Anew).await?;
            world.event("BittsMountStale").await?;
            ensure!(fs::read_to_string(target.join("file"))? == "new");
            pod.end(&target).await?;
            ensure!(!is_mounted(&target)?);
            world.end_pod("p").await
        },
    )
}
