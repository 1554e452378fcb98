//! Mounts that vanish, hang, go stale or move: noticed in time, told, and mounted again where that
//! is safe; and what containers that run see of it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_agent::{How, Report};
use bitts_e2e::uml::guest::run;
use bitts_e2e::uml::server::Server;
use bitts_mount::table::{MountId, MountTable};

use crate::agent::{PATIENCE, World, is_mounted, with_agent, with_agent_that_asks};

const INTERVAL: Duration = Duration::from_secs(2);
/// So long, at most, it takes to notice: the interval and what a server may take to answer. The last
/// is for the API and a slow guest.
const NOTICED: Duration = INTERVAL
    .saturating_add(PATIENCE)
    .saturating_add(Duration::from_secs(4));

/// A container as far as mounts go: a process in a mount namespace of its own, with the volume where
/// it wants it. Mounts of the node reach it, as with `mountPropagation: HostToContainer`.
struct Container {
    process: Child,
    words: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Container {
    fn start(volume: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all("/mnt/inside")?;
        let script = r#"mount --bind "$0" /mnt/inside && exec sh"#;
        let mut process = Command::new("unshare")
            .args(["--mount", "--propagation", "slave", "sh", "-c", script])
            .arg(volume)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let words = process.stdin.take().context("no standard input")?;
        let lines = process.stdout.take().context("no standard output")?;
        Ok(Self {
            process,
            words,
            lines: BufReader::new(lines),
        })
    }

    /// What it reads in a file of the volume, or why it cannot.
    fn read(&mut self, file: &str) -> anyhow::Result<String> {
        writeln!(
            self.words,
            "cat /mnt/inside/{file} 2>&1 | tr '\\n' ' '; echo"
        )?;
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn mount_id(target: &Path) -> anyhow::Result<MountId> {
    let table = MountTable::read()?;
    let mount = table.at(target).context("not mounted")?;
    Ok(mount.id)
}

impl World {
    async fn mounted_as(&mut self, target: &Path, wanted: How) -> anyhow::Result<()> {
        self.report(|report| match report {
            Report::Mounted {
                target: there, how, ..
            } if there == target && how == wanted => Some(()),
            _ => None,
        })
        .await
    }

    /// How many mounts the metrics have as unwell for this reason.
    async fn unwell(&self, reason: &str) -> anyhow::Result<String> {
        let text = self.host.metrics_text().await;
        let name = format!("bitts_agent_unhealthy_mounts{{reason=\"{reason}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        Ok(count.context("no such metric")?.to_owned())
    }
}

/// A mount that somebody else takes away is back at once, told with events.
pub(crate) fn what_vanished_is_mounted_again() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    with_agent(async |world| {
        world.add_volume("a", &server, "a", &["vers=4.2"]).await?;
        let target = world.add_pod("p", "a", false).await?;
        world.mounted(&target).await?;
        fs::write(target.join("file"), "kept")?;
        let mut running = Container::start(&target)?;
        ensure!(running.read("file")? == "kept");
        let start = Instant::now();
        run("umount", &[target.to_str().context("an odd path")?])?;
        ensure!(!is_mounted(&target)?);
        world.mounted_as(&target, How::Now).await?;
        println!("mounted again after {:?}", start.elapsed());
        ensure!(fs::read_to_string(target.join("file"))? == "kept");
        ensure!(running.read("file")? == "kept", "the container lost it");
        world.event("BittsMountLost").await?;
        world.event("BittsMountHealed").await?;
        drop(running);
        world.end_pod("p").await?;
        world.unmounted(&target).await
    })
}

/// A server that hangs is told in time and holds up nobody; when it is back, or was started anew,
/// the same mount goes on.
pub(crate) fn a_server_that_hangs_or_restarts_is_told() -> anyhow::Result<()> {
    let (mut hung, well) = (Server::start(1, &["a"])?, Server::start(2, &["b"])?);
    with_agent_that_asks(Some(INTERVAL), async |world| {
        world.add_volume("a", &hung, "a", &["vers=4.2"]).await?;
        world.add_volume("b", &well, "b", &["vers=4.2"]).await?;
        let target = world.add_pod("p", "a", false).await?;
        world.mounted(&target).await?;
        fs::write(target.join("file"), "kept")?;
        let before = mount_id(&target)?;
        hung.drop_packets(true)?;
        let start = Instant::now();
        world.event("BittsMountHung").await?;
        println!("told to hang after {:?}", start.elapsed());
        ensure!(start.elapsed() <= NOTICED, "{:?}", start.elapsed());
        ensure!(world.unwell("hung").await? == "1");
        let (is_ready, why) = world.host.readiness();
        ensure!(is_ready, "{why}");
        let start = Instant::now();
        let other = world.add_pod("other", "b", false).await?;
        world.mounted(&other).await?;
        println!("another volume is mounted after {:?}", start.elapsed());
        ensure!(start.elapsed() < PATIENCE, "it waited for the hung server");
        hung.drop_packets(false)?;
        let start = Instant::now();
        world.event("BittsMountHealed").await?;
        println!("told to be back after {:?}", start.elapsed());
        ensure!(world.unwell("hung").await? == "0");
        hung.kill()?;
        hung.start_again()?;
        ensure!(fs::read_to_string(target.join("file"))? == "kept");
        fs::write(target.join("file"), "after")?;
        ensure!(fs::read_to_string(hung.export("a").join("file"))? == "after");
        ensure!(mount_id(&target)? == before, "it was mounted anew");
        for (pod, target) in [("p", &target), ("other", &other)] {
            world.end_pod(pod).await?;
            world.unmounted(target).await?;
        }
        Ok(())
    })
}

/// A directory that was made anew on the server, as a restored backup does, is mounted anew;
/// containers that run keep what they have, those that start later see what there is.
pub(crate) fn a_stale_mount_is_mounted_anew() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    // As on most nodes: what is mounted later shows in containers, where it lies below what they see.
    run("mount", &["--make-rshared", "/"])?;
    with_agent_that_asks(Some(INTERVAL), async |world| {
        for options in ["vers=4.2", "vers=3", "vers=3,nolock"] {
            let name = options.replace(['=', '.', ','], "-");
            let directory = server.export("a").join(&name);
            fs::create_dir(&directory)?;
            fs::write(directory.join("file"), "old")?;
            let export = format!("a/{name}");
            world
                .add_volume(&name, &server, &export, &[options])
                .await?;
            let target = world.add_pod(&name, &name, false).await?;
            world.mounted(&target).await?;
            let mut running = Container::start(&target)?;
            ensure!(running.read("file")? == "old");

            fs::remove_dir_all(&directory)?;
            fs::create_dir(&directory)?;
            fs::write(directory.join("file"), "new")?;
            let start = Instant::now();
            world.mounted_as(&target, How::Anew).await?;
            println!("{options}: mounted anew after {:?}", start.elapsed());
            ensure!(start.elapsed() <= NOTICED, "{:?}", start.elapsed());
            ensure!(fs::read_to_string(target.join("file"))? == "new");
            let seen = running.read("file")?;
            println!("{options}: a container that runs: {seen}");
            // Which of the two depends on the version and on what the client has cached.
            let errors = ["Stale file handle", "No such file or directory"];
            ensure!(errors.iter().any(|error| seen.contains(error)), "{seen}");
            ensure!(Container::start(&target)?.read("file")? == "new");
            drop(running);
            world.end_pod(&name).await?;
            world.unmounted(&target).await?;
        }
        println!("{}", world.event("BittsMountStale").await?);
        println!("{}", world.event("BittsMountHealed").await?);
        ensure!(world.unwell("stale").await? == "0");
        Ok(())
    })
}

/// What nobody noticed to be stale is taken down all the same.
pub(crate) fn a_stale_mount_of_an_ended_pod_is_gone() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    with_agent(async |world| {
        let directory = server.export("a").join("v");
        fs::create_dir(&directory)?;
        world.add_volume("a", &server, "a/v", &["vers=4.2"]).await?;
        let target = world.add_pod("p", "a", false).await?;
        world.mounted(&target).await?;
        fs::remove_dir(&directory)?;
        let stale = fs::read_dir(&target).map(drop);
        ensure!(stale.is_err(), "it is not stale");
        world.end_pod("p").await?;
        world.unmounted(&target).await
    })
}

/// A server whose name leads to another address while it does not answer at the one it had.
pub(crate) fn a_server_that_moved_is_followed() -> anyhow::Result<()> {
    let (mut old, new) = (Server::start(1, &["a"])?, Server::start(2, &["a"])?);
    fs::write(old.export("a").join("file"), "old")?;
    fs::write(new.export("a").join("file"), "new")?;
    let name_leads_to =
        |server: &Server| fs::write("/mnt/hosts", format!("{} nas\n", server.address()));
    name_leads_to(&old)?;
    run("mount", &["--bind", "/mnt/hosts", "/etc/hosts"])?;
    with_agent_that_asks(Some(INTERVAL), async |world| {
        world.add_volume_at("a", "nas", "/a", &["vers=4.2"]).await?;
        let target = world.add_pod("p", "a", false).await?;
        world.mounted(&target).await?;
        ensure!(fs::read_to_string(target.join("file"))? == "old");
        old.drop_packets(true)?;
        name_leads_to(&new)?;
        let start = Instant::now();
        world.mounted_as(&target, How::Anew).await?;
        println!("followed after {:?}", start.elapsed());
        ensure!(start.elapsed() <= NOTICED, "{:?}", start.elapsed());
        ensure!(fs::read_to_string(target.join("file"))? == "new");
        let said = world.event("BittsServerMoved").await?;
        println!("{said}");
        ensure!(said.contains(&new.address()), "{said}");
        old.drop_packets(false)?;
        world.end_pod("p").await?;
        world.unmounted(&target).await
    })
}
