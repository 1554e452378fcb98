//! How long many NFS mounts take at once: the agent with all its reads and checks, beside one process
//! for each mount and beside bare system calls, in turn, in one guest.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bitts_e2e::uml::guest::run;
use bitts_e2e::uml::server::Server;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::agent::{median, round, with_agent};

const VOLUMES: usize = 100;
const ROUNDS: usize = 1;
const MOST_ROUNDS: usize = 7;
/// How many times as long as one process for each mount the agent may take.
const MOST: f64 = 1.5;

/// Issue 5, amendment 20.
pub(crate) fn a_hundred_mounts_at_once() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    let targets: Vec<_> = (0..VOLUMES)
        .map(|i| PathBuf::from(format!("/mnt/by-hand/{i}")))
        .collect();
    for target in &targets {
        fs::create_dir_all(target)?;
    }
    with_agent(async |world| {
        for i in 0..VOLUMES {
            world
                .add_volume(&format!("v{i}"), &server, "a", &["vers=4.2"])
                .await?;
        }
        // Once for nothing: the first mounts of a kernel are slower.
        round(world, VOLUMES).await?;
        let (mut agent, mut processes, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        // The processes take most of the time: once is enough where the answer is clear.
        let mut ratio = f64::INFINITY;
        loop {
            agent.push(round(world, VOLUMES).await?);
            calls.push(by_system_calls(&server, &targets)?);
            if ratio > MOST {
                processes.push(by_processes(&server, &targets)?);
            }
            let agent = median(&mut agent).as_secs_f64();
            let processes_took = median(&mut processes).as_secs_f64();
            ratio = agent / processes_took;
            if calls.len() < ROUNDS || (ratio > MOST && calls.len() < MOST_ROUNDS) {
                continue;
            }
            let calls = median(&mut calls).as_secs_f64();
            println!(
                "{VOLUMES} mounts: the agent {agent:.3} s, a process each {processes_took:.3} s, \
                 system calls {calls:.3} s: {ratio:.2} and {:.2} times as long",
                agent / calls
            );
            ensure!(ratio <= MOST, "{ratio:.2} times as long as a process each");
            return Ok(());
        }
    })
}

fn by_processes(server: &Server, targets: &[PathBuf]) -> anyhow::Result<Duration> {
    let source = source(server);
    timed(targets, |target| {
        run("mount", &["-t", "nfs4", "-o", "vers=4.2", &source, target])
    })
}

fn by_system_calls(server: &Server, targets: &[PathBuf]) -> anyhow::Result<Duration> {
    let source = source(server);
    let options = format!("vers=4.2,addr={}", server.address());
    let options = std::ffi::CString::new(options)?;
    timed(targets, |target| {
        let flags = MountFlags::empty();
        Ok(rustix::mount::mount(
            &*source, target, "nfs4", flags, &*options,
        )?)
    })
}

fn source(server: &Server) -> String {
    format!("{}:{}", server.address(), server.path("a", "vers=4.2"))
}

fn timed(
    targets: &[PathBuf],
    mount: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    for target in targets {
        mount(&target.display().to_string())?;
    }
    let took = start.elapsed();
    for target in targets {
        rustix::mount::unmount(target, UnmountFlags::empty())?;
    }
    Ok(took)
}
