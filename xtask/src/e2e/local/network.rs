//! The network of the machines: a namespace of its own with a bridge, a device for each machine, and
//! a link to the host. Everything that runs for the cluster runs in it, and is found by that.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::e2e::progress::{output, until};

pub(super) const NAMESPACE: &str = "bitts-e2e";
/// Where the machines find everything but each other.
pub(super) const GATEWAY: &str = "10.90.0.1";
/// The API server has the address of its own service: nothing has to translate it.
pub(super) const API: &str = "10.91.0.1";
pub(super) const SERVICES: &str = "10.91.0.0/24";
/// The two ends of the link.
const HOST_END: &str = "10.93.0.1/30";
const THIS_END: &str = "10.93.0.2";
/// How long programs may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The address of a machine, by its number.
pub(super) fn address(number: usize) -> String {
    format!("10.90.0.{}", 10 + number)
}

/// The range of the pods of a machine.
pub(super) fn pods(number: usize) -> String {
    format!("10.92.{number}.0/24")
}

/// The device of a machine.
pub(super) fn device(number: usize) -> String {
    format!("machine{number}")
}

/// Makes the network for so many machines.
pub(super) fn make(sh: &Shell, machines: usize) -> Result<()> {
    let ip = |words: &str| -> Result<()> {
        let words = words.split(' ');
        output(cmd!(sh, "ip {words...}")).map(drop)
    };
    let within = |words: &str| ip(&format!("-n {NAMESPACE} {words}"));
    ip(&format!("netns add {NAMESPACE}"))?;
    within("link set lo up")?;
    within("link add bridge type bridge")?;
    within(&format!("address add {GATEWAY}/24 dev bridge"))?;
    within(&format!("address add {API}/32 dev bridge"))?;
    within("link set bridge up")?;
    for number in 1..=machines {
        let (device, pods, machine) = (device(number), pods(number), address(number));
        within(&format!("tuntap add dev {device} mode tap"))?;
        within(&format!("link set {device} master bridge up"))?;
        within(&format!("route add {pods} via {machine}"))?;
    }
    ip(&format!(
        "link add {NAMESPACE} type veth peer name to-host netns {NAMESPACE}"
    ))?;
    within(&format!("address add {THIS_END}/30 dev to-host"))?;
    within("link set to-host up")?;
    ip(&format!("address add {HOST_END} dev {NAMESPACE}"))?;
    ip(&format!("link set {NAMESPACE} up"))?;
    ip(&format!("route add {API} via {THIS_END}"))?;
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    output(cmd!(sh, "ip netns exec {NAMESPACE} sh -c {forward}")).map(drop)
}

/// The processes in the network: their ids and command lines.
pub(super) fn processes(sh: &Shell) -> Vec<(String, String)> {
    let pids = output(cmd!(sh, "ip netns pids {NAMESPACE}")).unwrap_or_default();
    let described = |pid: &str| {
        // One that ended meanwhile has none.
        let line = fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (pid.to_owned(), line)
    };
    pids.lines().map(described).collect()
}

/// Ends the processes whose command lines say this, and waits until they are gone.
pub(super) fn end(sh: &Shell, signal: &str, says: &str) -> Result<()> {
    let running = || -> Vec<String> {
        let ours = processes(sh).into_iter();
        let ours = ours.filter(|(_, line)| line.contains(says));
        ours.map(|(pid, _)| pid).collect()
    };
    let pids = running();
    if pids.is_empty() {
        return Ok(());
    }
    // A machine is several processes, led by its first.
    let groups = pids.iter().map(|pid| format!("-{pid}"));
    let all: Vec<String> = pids.iter().cloned().chain(groups).collect();
    kill(sh, signal, &all);
    until(&format!("end of {says}"), PATIENCE, || {
        Ok(running().is_empty())
    })
}

/// One that ended meanwhile is no error.
fn kill(sh: &Shell, signal: &str, pids: &[String]) {
    let script = "kill -s \"$0\" -- \"$@\"";
    let _ = output(cmd!(sh, "sh -c {script} {signal} {pids...}"));
}

/// Ends everything in the network and removes it.
pub(super) fn remove(sh: &Shell) -> Result<()> {
    let there = |folder: &str| Path::new(folder).join(NAMESPACE).exists();
    if there("/run/netns") {
        until("end of all that ran for the cluster", PATIENCE, || {
            let pids: Vec<String> = processes(sh).into_iter().map(|(pid, _)| pid).collect();
            if !pids.is_empty() {
                kill(sh, "KILL", &pids);
            }
            Ok(pids.is_empty())
        })?;
        output(cmd!(sh, "ip netns delete {NAMESPACE}"))?;
    }
    // It would go with the namespace, but at a time of the kernel's own.
    if there("/sys/class/net") {
        output(cmd!(sh, "ip link delete {NAMESPACE}"))?;
    }
    Ok(())
}
