//! The library by itself.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_e2e::uml::server::Server;
use bitts_mount::child::ChildError;
use bitts_mount::dir::{Component, Dir};
use bitts_mount::nfs::{self, Class, NfsError, Options, Share, Unmount};
use bitts_mount::probe::{self, Answer};
use bitts_mount::table::MountTable;

const PATIENCE: Duration = Duration::from_secs(20);

/// A place to mount at.
struct Place {
    parent: Dir,
    name: Component,
    path: &'static str,
}

impl Place {
    fn probe(&self, deadline: Duration) -> Result<Vec<Answer>, ChildError> {
        probe::ask(&self.parent, &[self.name.to_string()], deadline)
    }

    fn new() -> anyhow::Result<Self> {
        let path = "/mnt/place";
        fs::create_dir_all(path)?;
        Ok(Self {
            parent: Dir::open("/mnt".as_ref())?,
            name: Component::new("place")?,
            path,
        })
    }

    fn mount(&self, share: &Share, options: &str, patience: Duration) -> anyhow::Result<Mounted> {
        let target = self.parent.child(&self.name)?.context("no place")?;
        let options = Options::parse([options])?;
        Ok(nfs::mount(share, &target, &options, patience))
    }

    fn unmount(&self, how: Unmount) -> Mounted {
        nfs::unmount(&self.parent, &self.name, how, PATIENCE)
    }

    fn is_mounted(&self) -> anyhow::Result<bool> {
        Ok(MountTable::read()?.at(self.path.as_ref()).is_some())
    }
}

type Mounted = Result<(), NfsError>;

fn share(server: &Server, name: &str, options: &str) -> Share {
    Share {
        server: server.address(),
        path: server.path(name, options),
    }
}

/// The options that the kernel says a mount has.
fn shown_options(path: &str) -> anyhow::Result<String> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some(path));
    Ok(line
        .with_context(|| format!("{path} is not mounted"))?
        .to_owned())
}

/// M41: what is written is on the server, in every version and with the options asked for.
pub(crate) fn every_version_is_mounted() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    let place = Place::new()?;
    let given = [
        ("vers=3,nolock", "vers=3"),
        ("vers=3", "vers=3"),
        ("vers=4.0", "vers=4.0"),
        ("nfsvers=4.1,timeo=77,soft", "vers=4.1"),
        ("vers=4.2,noexec", "vers=4.2"),
        ("", "vers=4.2"),
    ];
    for (options, version) in given {
        let start = Instant::now();
        place
            .mount(&share(&server, "a", options), options, PATIENCE)?
            .with_context(|| options.to_owned())?;
        println!("{options:?}: {:?}", start.elapsed());
        fs::write(Path::new(place.path).join("file"), options)?;
        let there = fs::read_to_string(server.export("a").join("file"))?;
        ensure!(there == options, "the server has {there:?}");
        let shown = shown_options(place.path)?;
        ensure!(shown.contains(version), "{shown}");
        for option in ["timeo=77", "noexec"] {
            ensure!(
                options.contains(option) == shown.contains(option),
                "{shown}"
            );
        }
        place.unmount(Unmount::Normal)?;
        ensure!(!place.is_mounted()?);
    }
    place.mount(&share(&server, "a", ""), "vers=4.2,ro", PATIENCE)??;
    let refused = fs::write(Path::new(place.path).join("file"), "no").map_err(|e| e.kind());
    ensure!(
        refused == Err(std::io::ErrorKind::ReadOnlyFilesystem),
        "{refused:?}"
    );
    place.unmount(Unmount::Normal)?;
    Ok(())
}

/// M9: each failure says what is wrong and whether to try again.
pub(crate) fn wrong_and_missing_servers() -> anyhow::Result<()> {
    let mut server = Server::start(1, &["a"])?;
    let place = Place::new()?;
    let fails = |share: &Share, options: &str| -> anyhow::Result<NfsError> {
        let error = place.mount(share, options, PATIENCE)?.err();
        let error = error.with_context(|| format!("{share} was mounted"))?;
        println!("{options:?}: {:?}: {error}", error.class);
        Ok(error)
    };
    let good = share(&server, "a", "");
    for version in ["vers=3,nolock", "vers=3", "vers=4.1", "vers=4.2"] {
        let error = fails(&share(&server, "other", version), version)?;
        ensure!(error.class == Class::Final, "{version}: {error}");
    }
    let error = fails(&good, "vers=4.2,nonsense=1")?;
    ensure!(error.to_string().contains("nonsense"), "{error}");
    let nobody = Share {
        server: "no-such-server.invalid".to_owned(),
        ..good.clone()
    };
    let error = fails(&nobody, "vers=4.2")?;
    ensure!(error.class == Class::Transient, "{error}");
    ensure!(
        error.to_string().contains("no-such-server.invalid"),
        "{error}"
    );
    server.kill()?;
    for version in ["vers=3", "vers=4.2"] {
        let error = fails(&share(&server, "a", version), version)?;
        ensure!(error.class == Class::Transient, "{version}: {error}");
    }
    ensure!(!place.is_mounted()?, "something is mounted");
    server.start_again()?;
    place.mount(&good, "vers=4.2", PATIENCE)??;
    Ok(())
}

/// What is mounted when a server dies is good again when it is back.
pub(crate) fn a_killed_server_comes_back() -> anyhow::Result<()> {
    let mut server = Server::start(1, &["a"])?;
    let (place, share) = (Place::new()?, share(&server, "a", ""));
    place.mount(&share, "vers=4.2", PATIENCE)??;
    let file = Path::new(place.path).join("file");
    fs::write(&file, "before")?;
    server.kill()?;
    let late = place.probe(Duration::from_secs(1));
    ensure!(late.is_err(), "a dead server answered");
    server.start_again()?;
    let answer = place.probe(Duration::from_secs(60))?;
    ensure!(answer == [Answer::Well], "{answer:?}");
    ensure!(fs::read_to_string(&file)? == "before");
    fs::write(&file, "after")?;
    ensure!(fs::read_to_string(server.export("a").join("file"))? == "after");
    place.unmount(Unmount::Normal)?;
    Ok(())
}

/// A server that does not answer costs a child until the deadline; then force or laziness helps.
pub(crate) fn a_hung_server_costs_a_child() -> anyhow::Result<()> {
    let mut server = Server::start(1, &["a", "b"])?;
    let place = Place::new()?;
    place.mount(&share(&server, "a", ""), "vers=4.2", PATIENCE)??;
    server.drop_packets(true)?;
    let deadline = Duration::from_secs(2);
    let error = place.probe(deadline).err();
    let error = error.context("a hung server answered")?;
    ensure!(matches!(error, ChildError::Deadline(_)), "{error}");
    // What the agent does with every mount, from its own threads, waits for nobody.
    let seen = place.parent.child(&place.name)?.context("no place")?;
    ensure!(seen.identity()?.is_mount_point);
    drop(seen);
    fs::create_dir("/mnt/second")?;
    let second = Dir::open("/mnt/second".as_ref())?;
    let mounting = nfs::mount(
        &share(&server, "b", ""),
        &second,
        &Options::default(),
        deadline,
    );
    let error = mounting
        .err()
        .context("a hung server let itself be mounted")?;
    println!("{:?}: {error}", error.class);
    let start = Instant::now();
    let (parent, name) = (&place.parent, &place.name);
    let normal = nfs::unmount(parent, name, Unmount::Normal, deadline);
    if normal.is_err() {
        nfs::unmount(parent, name, Unmount::Forced, deadline)?;
    }
    println!("unmounted in {:?}", start.elapsed());
    ensure!(!place.is_mounted()?, "it is still mounted");
    server.drop_packets(false)?;
    Ok(())
}
