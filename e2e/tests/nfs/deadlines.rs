//! Pods that are deleted while their server hangs: how long their volumes stay, and what keeps them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_agent::Report;
use bitts_e2e::uml::server::Server;

use crate::agent::{PATIENCE, is_mounted, with_agent};
use crate::cgroup::Cgroup;

/// How long a forced and then a lazy unmount may take together.
const FORCED: Duration = Duration::from_secs(10);
/// What the API, the agent and a slow guest may need besides.
const REST: Duration = Duration::from_secs(4);

/// M41: the operator's deadline, and the bounded step after it.
pub(crate) fn a_hung_pod_is_gone_in_time() -> anyhow::Result<()> {
    let mut server = Server::start(1, &["a"])?;
    with_agent(async |world| {
        world.add_volume("a", &server, "a", &["vers=4.2"]).await?;
        let target = world.add_pod("p", "a", false).await?;
        world.mounted(&target).await?;
        fs::write(target.join("file"), "kept")?;
        File::open(target.join("file"))?.sync_all()?;
        server.drop_packets(true)?;
        let start = Instant::now();
        world.end_pod("p").await?;
        world.unmounted(&target).await?;
        let took = start.elapsed();
        println!("gone after {took:?} of {:?}", PATIENCE + FORCED);
        ensure!(took <= PATIENCE + FORCED + REST, "it took {took:?}");
        server.drop_packets(false)?;
        ensure!(fs::read_to_string(server.export("a").join("file"))? == "kept");
        Ok(())
    })
}

/// A process that is killed while it waits for the server does not end, and its pod does all the same:
/// it runs no more, so force takes the volume from nobody, and lets the process go.
pub(crate) fn a_killed_process_that_waits_for_the_server_is_let_go() -> anyhow::Result<()> {
    let mut server = Server::start(1, &["a"])?;
    with_agent(async |world| {
        world.add_volume("a", &server, "a", &["vers=4.2"]).await?;
        let target = world.add_pod("p", "a", false).await?;
        world.mounted(&target).await?;
        let cgroup = Cgroup::of_pod(&target)?;
        // What it wrote the server is to get when it closes the file.
        let script = "exec 3>file; head -c 1000000 /dev/zero >&3; echo; exec sleep 600";
        let mut writer = Command::new("sh");
        let writer = writer.args(["-c", script]).current_dir(&target);
        let mut writer = Holder(writer.stdout(Stdio::piped()).spawn()?);
        cgroup.take(&writer.0)?;
        let mut said = String::new();
        let out = writer.0.stdout.take().context("no standard output")?;
        BufReader::new(out).read_line(&mut said)?;
        server.drop_packets(true)?;
        writer.0.kill()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensure!(writer.0.try_wait()?.is_none(), "it ended: nothing is shown");
        let start = Instant::now();
        world.end_pod("p").await?;
        world.unmounted(&target).await?;
        let took = start.elapsed();
        println!("gone after {took:?} of {:?}", PATIENCE + FORCED);
        ensure!(took >= PATIENCE, "forced before its time: {took:?}");
        ensure!(took <= PATIENCE + FORCED + REST, "it took {took:?}");
        writer.0.wait()?;
        server.drop_packets(false)
    })
}

/// Neither force nor a lazy unmount takes a volume from a process: the mount stays, the process is
/// named, and once it has ended the volume is taken down.
pub(crate) fn no_force_while_a_process_holds_on() -> anyhow::Result<()> {
    let mut server = Server::start(1, &["a"])?;
    with_agent(async |world| {
        world.add_volume("a", &server, "a", &["vers=4.2"]).await?;
        let target = world.add_pod("p", "a", false).await?;
        world.mounted(&target).await?;
        fs::write(target.join("file"), "held")?;
        let file = File::open(target.join("file"))?;
        let mut holder = Holder(Command::new("sleep").arg("600").stdin(file).spawn()?);
        let pid = holder.0.id().to_string();
        server.drop_packets(true)?;
        let start = Instant::now();
        world.end_pod("p").await?;
        // Told of each time it is looked at, until long after force would have come.
        while start.elapsed() <= PATIENCE + FORCED {
            let holders = world.report(|report| match report {
                Report::Kept { holders, .. } => Some(Ok(holders)),
                Report::Unmounted { target, .. } => Some(Err(target)),
                _ => None,
            });
            match holders.await? {
                Ok(holders) => ensure!(holders.contains(&pid), "{holders:?} lacks {pid}"),
                Err(target) => anyhow::bail!("{} was taken from a process", target.display()),
            }
            ensure!(is_mounted(&target)?, "the mount is gone");
        }
        // While the server hangs, the test did not get past the end of the killed process.
        server.drop_packets(false)?;
        holder.0.kill()?;
        holder.0.wait()?;
        world.unmounted(&target).await
    })
}

/// A process that ends with its test.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that works in a directory whose server hangs keeps that volume, and holds up the looks at
/// processes that other volumes wait for no longer than any other process does.
pub(crate) fn a_process_in_a_hung_directory_blocks_no_other() -> anyhow::Result<()> {
    let (well, mut hung) = (Server::start(1, &["a"])?, Server::start(2, &["a"])?);
    with_agent(async |world| {
        world.add_volume("well", &well, "a", &["vers=4.2"]).await?;
        world
            .add_volume("hung", &hung, "a", &["vers=4.2", "noac"])
            .await?;
        let goes = world.add_pod("goes", "well", false).await?;
        world.mounted(&goes).await?;
        let stays = world.add_pod("stays", "hung", false).await?;
        world.mounted(&stays).await?;
        let _holder = Holder(
            Command::new("sleep")
                .arg("600")
                .current_dir(&stays)
                .spawn()?,
        );
        hung.drop_packets(true)?;
        let start = Instant::now();
        world.end_pod("goes").await?;
        world.unmounted(&goes).await?;
        println!("taken down after {:?}", start.elapsed());
        world.end_pod("stays").await?;
        let kept = world.report(|report| match report {
            Report::Kept { holders, .. } => Some(holders),
            _ => None,
        });
        let kept = kept.await?;
        ensure!(kept.contains("(sleep)"), "{kept}");
        hung.drop_packets(false)?;
        Ok(())
    })
}
