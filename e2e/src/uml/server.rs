//! NFS servers within a guest, each a machine of its own as far as its clients can tell: own network,
//! own daemons, own state. The file systems that they export lie open to the test.
//!
//! A server is the test program once more, in namespaces of its own, obeying one word a line.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sched::CloneFlags;
use rustix::mount::MountPropagationFlags;

use super::guest::{mount, run};

/// Makes the test program a server; the value is its number.
const SERVER: &str = "bitts_guest_server";
/// Where a server keeps the list of its clients,
const CLIENTS: &str = "/var/lib/nfs/clients";
/// and where the kernel asks for it.
const PIPES: &str = "/run/pipes";

/// Nothing of it takes as long.
const LONG: Duration = Duration::from_secs(30);

/// An NFS server. It has the exports `/srv/<number>/<name>`, each a file system of its own.
pub struct Server {
    number: u8,
    process: Child,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Starts server `number` with these exports.
    ///
    /// # Errors
    /// When anything of it cannot be started.
    pub fn start(number: u8, exports: &[&str]) -> anyhow::Result<Self> {
        let root = format!("/srv/{number}");
        fs::create_dir(&root)?;
        mount("tmpfs", &root, "mode=755")?;
        for name in exports {
            let path = export(number, name);
            fs::create_dir_all(&path)?;
            let path = path.to_str().context("a name that is not UTF-8")?;
            // Pods' processes have users of their own.
            mount("tmpfs", path, "mode=777")?;
        }
        let mut process = Command::new("/proc/self/exe")
            .env(SERVER, number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let words = process.stdin.take().context("no standard input")?;
        let answers = process.stdout.take().context("no standard output")?;
        let mut server = Self {
            number,
            words,
            answers: BufReader::new(answers),
            process,
        };
        server.wait_until_done()?;
        let (pid, link) = (server.process.id().to_string(), format!("server{number}"));
        let peer = ["peer", "name", "eth0", "netns", &pid];
        run(
            "ip",
            &[&["link", "add", &link, "type", "veth"], &peer[..]].concat(),
        )?;
        let own = format!("10.0.{number}.1/24");
        run("ip", &["address", "add", &own, "dev", &link])?;
        run("ip", &["link", "set", &link, "up"])?;
        server.say("net")?;
        server.say("start")?;
        Ok(server)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("10.0.{}.2", self.number)
    }

    /// The path that a client names, with these mount options: version 4 has a root of its own.
    #[must_use]
    pub fn path(&self, name: &str, options: &str) -> String {
        if options.contains("vers=3") {
            self.export(name).display().to_string()
        } else {
            format!("/{name}")
        }
    }

    /// Where the test sees the files of an export.
    #[must_use]
    pub fn export(&self, name: &str) -> PathBuf {
        export(self.number, name)
    }

    /// Ends all its daemons at once and forgets its clients, as a crash does.
    ///
    /// # Errors
    /// When it does not obey.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.say("kill")
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it does not obey.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.say("start")
    }

    /// Lets every packet to it vanish, or no more.
    ///
    /// # Errors
    /// When it does not obey.
    pub fn drop_packets(&mut self, dropped: bool) -> anyhow::Result<()> {
        self.say(if dropped { "drop" } else { "pass" })
    }

    fn say(&mut self, word: &str) -> anyhow::Result<()> {
        writeln!(self.words, "{word}")?;
        self.wait_until_done()
            .with_context(|| format!("server {}: {word}", self.number))
    }

    fn wait_until_done(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line == "done\n", "it failed: {line:?}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its daemons go with the guest.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn export(number: u8, name: &str) -> PathBuf {
    Path::new("/srv").join(number.to_string()).join(name)
}

/// Is a server when it was started as one, until nobody talks to it any more.
pub(super) fn be_server_if_asked() -> Option<anyhow::Result<()>> {
    let number = std::env::var(SERVER).ok()?;
    Some(serve(&number))
}

fn serve(number: &str) -> anyhow::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", propagation)?;
    // The daemons' sockets, locks and lists.
    for folder in ["/run", "/var/lib/nfs"] {
        mount("tmpfs", folder, "mode=755")?;
    }
    for folder in [CLIENTS, PIPES, "/run/rpcbind"] {
        fs::create_dir(folder)?;
    }
    mount("rpc_pipefs", PIPES, "")?;
    for file in ["etab", "rmtab", "state"] {
        fs::write(Path::new("/var/lib/nfs").join(file), "")?;
    }
    mount("nfsd", "/proc/fs/nfsd", "")?;
    println!("done");
    let mut daemons = Vec::new();
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "net" => {
                let address = format!("10.0.{number}.2/24");
                run("ip", &["address", "add", &address, "dev", "eth0"])?;
                run("ip", &["link", "set", "eth0", "up"])?;
                run("ip", &["link", "set", "lo", "up"])?;
            }
            "start" => daemons = start(number)?,
            "kill" => kill(&mut daemons)?,
            "drop" => run(
                "iptables-legacy",
                &["-I", "INPUT", "-i", "eth0", "-j", "DROP"],
            )?,
            "pass" => run("iptables-legacy", &["-F", "INPUT"])?,
            other => bail!("no such word: {other}"),
        }
        println!("done");
    }
    Ok(())
}

fn start(number: &str) -> anyhow::Result<Vec<Child>> {
    // -i: the kernel registers over the loopback device, as it sees no other's sockets.
    let mut daemons = vec![daemon("rpcbind", &["-f", "-i"])?];
    until("rpcbind", || Path::new("/run/rpcbind.sock").exists())?;
    let mut names: Vec<_> = fs::read_dir(Path::new("/srv").join(number))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    names.sort();
    // Above it is the host's file system, which no server can export.
    let root = format!("*:/srv/{number}");
    run(
        "exportfs",
        &["-o", "ro,fsid=0,crossmnt,no_subtree_check,insecure", &root],
    )?;
    for (position, path) in names.iter().enumerate() {
        let options = format!(
            "rw,no_root_squash,no_subtree_check,insecure,fsid={}",
            position + 1
        );
        let export = format!("*:{}", path.display());
        run("exportfs", &["-o", &options, &export])?;
    }
    // Knows which clients there were: without it the kernel makes all wait after any start.
    let arguments = [
        "--foreground",
        "--pipefsdir",
        PIPES,
        "--storagedir",
        CLIENTS,
    ];
    daemons.push(daemon("nfsdcld", &arguments)?);
    // As short as the kernel lets it be: so long a client may take to come back.
    set("nfsv4leasetime", "10")?;
    set("nfsv4gracetime", "10")?;
    run("rpc.nfsd", &["4"])?;
    daemons.push(daemon("rpc.mountd", &["--foreground", "--no-udp"])?);
    for service in ["nfs", "mountd"] {
        until(service, || {
            run("rpcinfo", &["-T", "tcp", "127.0.0.1", service, "3"]).is_ok()
        })?;
    }
    Ok(daemons)
}

fn until(what: &str, is_there: impl Fn() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_there() {
        ensure!(start.elapsed() < LONG, "{what} never came up");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn set(file: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new("/proc/fs/nfsd").join(file);
    fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
}

fn daemon(program: &str, arguments: &[&str]) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    // The answers to the test are the server's own.
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

fn kill(daemons: &mut Vec<Child>) -> anyhow::Result<()> {
    run("rpc.nfsd", &["0"])?;
    for mut daemon in daemons.drain(..) {
        daemon.kill()?;
        daemon.wait()?;
    }
    // What a socket's file would say of a daemon that is gone.
    let _ = fs::remove_file("/run/rpcbind.sock");
    Ok(())
}
