//! Who makes volumes on an NFS share, in a Linux of its own: this machine's kernel may have no NFS. In the guest
//! are the NFS server and the contender; API server and binder are here, where they are as fast as without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bitts_e2e::uml::guest::{HOST, OUTPUT, run};
use bitts_e2e::uml::{self, Booted, Guest};
use clap::ValueEnum as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Maker;
use super::making::Usage;
use super::place::Place;

/// What the guest is told to run,
pub(crate) const CASE: &str = "provision";
/// for whom,
const MAKER: &str = "BITTS_BENCH_MAKER";
/// and with which program: the guest can build none.
const PROGRAM: &str = "BITTS_BENCH_PROGRAM";
/// Files of the shared folder: the cluster,
const KUBECONFIG: &str = "kubeconfig";
/// the class of what is made, once it can be made,
const CLASS: &str = "class";
/// the question what the contender took so far,
const ASKED: &str = "asked";
/// and the answer.
const USAGE: &str = "usage";
/// The link between this machine and the guest.
const DEVICE: &str = "bitts-bench";
const HERE: &str = "10.94.0.1";
const THERE: &str = "10.94.0.2";
const MEGABYTES: u64 = 512;
/// More than any bench takes: it ends the guest itself.
const LIMIT: Duration = Duration::from_secs(3600);
/// How long until the contender runs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the guest looks whether it is asked something: to answer takes more of its time.
const INTERVAL: Duration = Duration::from_millis(100);

/// A guest in which volumes are made.
pub(super) struct Machine {
    booted: Booted,
    folder: TempDir,
    _link: Link,
}

impl Machine {
    /// Boots it and waits until the contender runs.
    pub(super) fn boot(maker: Maker, kubeconfig: &str) -> Result<Self> {
        if let Some(missing) = uml::missing() {
            bail!("an NFS server runs in user-mode Linux: {missing}");
        }
        let link = Link::make()?;
        let folder = tempfile::Builder::new().prefix("bitts-bench-").tempdir()?;
        fs::write(folder.path().join(KUBECONFIG), seen_from_there(kubeconfig)?)?;
        let program = maker.program()?.display().to_string();
        let maker = maker.to_possible_value().context("a maker has a name")?;
        let guest = Guest {
            megabytes: MEGABYTES,
            limit: LIMIT,
            device: Some(DEVICE),
            variables: vec![(MAKER, maker.get_name().to_owned()), (PROGRAM, program)],
        };
        let booted = guest.boot(CASE, folder.path())?;
        let mut machine = Self {
            booted,
            folder,
            _link: link,
        };
        let start = Instant::now();
        while !machine.file(CLASS).exists() {
            machine.check()?;
            ensure!(start.elapsed() < PATIENCE, "{}", machine.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(machine)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn class(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.file(CLASS))?)?)
    }

    pub(super) fn usage(&mut self) -> Result<Usage> {
        fs::write(self.file(ASKED), "")?;
        let answer = self.file(USAGE);
        while !answer.exists() {
            self.check()?;
            std::thread::sleep(Duration::from_millis(10));
        }
        let usage = serde_json::from_slice(&fs::read(&answer)?)?;
        fs::remove_file(answer)?;
        Ok(usage)
    }

    pub(super) fn check(&mut self) -> Result<()> {
        let ended = self.booted.ended()?;
        ensure!(ended.is_none(), "{}", self.last_words());
        Ok(())
    }

    pub(super) fn last_words(&self) -> String {
        let said = fs::read_to_string(self.file(OUTPUT)).unwrap_or_default();
        format!("the guest said: {said}")
    }
}

/// The cluster by the address that this machine has for the guest; its certificate names another.
fn seen_from_there(kubeconfig: &str) -> Result<String> {
    let mut config: Value = serde_json::from_str(kubeconfig)?;
    let cluster = &mut config["clusters"][0]["cluster"];
    let server = cluster["server"].as_str().context("no server")?;
    let name = "127.0.0.1";
    cluster["server"] = json!(server.replace(name, HERE));
    cluster["tls-server-name"] = json!(name);
    Ok(config.to_string())
}

/// The device of the link, gone when this is dropped.
struct Link;

impl Link {
    fn make() -> Result<Self> {
        let made = run("ip", &["tuntap", "add", "dev", DEVICE, "mode", "tap"]);
        made.context("the link to the guest takes root")?;
        let link = Self;
        let address = format!("{HERE}/30");
        run("ip", &["address", "add", &address, "dev", DEVICE])?;
        run("ip", &["link", "set", DEVICE, "up"])?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["link", "delete", DEVICE]) {
            eprintln!("the device {DEVICE} stays: {error:#}");
        }
    }
}

/// The guest's part: starts the contender and says what it takes, until the guest is ended.
pub(crate) fn serve() -> Result<()> {
    let address = format!("{THERE}/30");
    run("ip", &["address", "add", &address, "dev", "eth0"])?;
    run("ip", &["link", "set", "eth0", "up"])?;
    let maker = std::env::var(MAKER).context(MAKER)?;
    let maker = Maker::from_str(&maker, false).map_err(|why| anyhow::anyhow!(why))?;
    let host = Path::new(HOST);
    let place = Place::share()?;
    let program = PathBuf::from(std::env::var_os(PROGRAM).context(PROGRAM)?);
    let kubeconfig = fs::read_to_string(host.join(KUBECONFIG))?;
    let mut started = maker.start(&program, &kubeconfig, &place)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let running = runtime.block_on(started.running())?;
    write(host, CLASS, place.class(maker).to_string().as_bytes())?;
    loop {
        started.check()?;
        if host.join(ASKED).exists() {
            fs::remove_file(host.join(ASKED))?;
            let usage = Usage::of(&running)?;
            write(host, USAGE, &serde_json::to_vec(&usage)?)?;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Never seen in part.
fn write(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let new = folder.join(format!("{name}.new"));
    fs::write(&new, content)?;
    Ok(fs::rename(new, folder.join(name))?)
}
