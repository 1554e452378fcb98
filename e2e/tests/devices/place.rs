//! A disk made of a file, and a place to mount it at.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_e2e::uml::guest::run;
use bitts_mount::device::loops::{self, Access};
use bitts_mount::device::{self, Contents, Device, DeviceError, FsType, Kind, Options};
use bitts_mount::dir::{Component, Dir};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const MIB: u64 = 1 << 20;

/// What the guest needs that those of NFS do not.
fn set_up() -> anyhow::Result<()> {
    if Path::new("/tmp/disks").exists() {
        return Ok(());
    }
    fs::create_dir("/tmp/disks")?;
    run("modprobe", &["-d", "/run/drivers", "loop"])
}

/// A file of zeros as a disk.
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) device: Device,
}

impl Disk {
    pub(crate) fn new(size: u64) -> anyhow::Result<Self> {
        Self::made(size, Access::ReadWrite, |_| Ok(()))
    }

    /// A disk with something on it before it becomes one.
    pub(crate) fn made(
        size: u64,
        access: Access,
        fill: impl FnOnce(&File) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        set_up()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/disks/{number}"));
        let file = File::create_new(&path)?;
        drop(file);
        let file = File::options().read(true).write(true).open(&path)?;
        file.set_len(size)?;
        fill(&file)?;
        let device = loops::attach(&file, &path, access, PATIENCE)?;
        Ok(Self { path, file, device })
    }

    pub(crate) fn identify(&self) -> Result<Contents, DeviceError> {
        device::identify(&self.device, PATIENCE)
    }

    pub(crate) fn format(&self, fs: FsType) -> Result<(), DeviceError> {
        device::format(&self.device, fs, PATIENCE)
    }

    /// It carries this type of file system.
    pub(crate) fn ensure_carries(&self, fs: FsType) -> anyhow::Result<()> {
        let found = self.identify()?;
        let is = matches!(&found, Contents::Filesystem(found) if found.kind == fs.as_str());
        ensure!(is, "{found:?}");
        Ok(())
    }

    /// A format is refused for this reason, and not a byte is changed.
    pub(crate) fn ensure_refused(&self, kind: Kind, word: &str) -> anyhow::Result<()> {
        let before = self.sum()?;
        for fs in [FsType::Ext4, FsType::Xfs] {
            let error = self.format(fs).err().context("it was formatted")?;
            println!("{error}");
            ensure!(error.kind == kind, "{:?}: {error}", error.kind);
            ensure!(error.to_string().contains(word), "{error}");
        }
        let place = Place::new()?;
        let staged = place.stage(self, FsType::Ext4, "").err();
        println!("{}", staged.context("it was mounted")?);
        ensure!(self.sum()? == before, "something was written");
        Ok(())
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let device = File::options().write(true).open(self.device.path())?;
        device.write_all_at(bytes, at)?;
        device.sync_all()?;
        Ok(())
    }

    /// A sum of everything on it.
    pub(crate) fn sum(&self) -> anyhow::Result<u64> {
        rustix::fs::sync();
        sum(&self.path)
    }

    /// Gives the room back.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        loops::detach(&self.device, PATIENCE)?;
        fs::remove_file(&self.path)?;
        Ok(())
    }
}

/// A sum of a file's bytes.
pub(crate) fn sum(path: &Path) -> anyhow::Result<u64> {
    use std::hash::Hasher as _;
    use std::io::Read as _;
    let mut sum = std::hash::DefaultHasher::new();
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(sum.finish()),
            length => sum.write(&block[..length]),
        }
    }
}

/// A directory to mount at.
pub(crate) struct Place {
    parent: Dir,
    name: Component,
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> anyhow::Result<Self> {
        fs::create_dir_all("/mnt/place")?;
        Ok(Self {
            parent: Dir::open("/mnt".as_ref())?,
            name: Component::new("place")?,
            path: "/mnt/place".into(),
        })
    }

    fn target(&self) -> anyhow::Result<Dir> {
        self.parent.child(&self.name)?.context("no place")
    }

    pub(crate) fn stage(&self, disk: &Disk, fs: FsType, options: &str) -> anyhow::Result<()> {
        let options = Options::parse([options])?;
        device::stage(&disk.device, &self.target()?, fs, &options, PATIENCE)?.grown?;
        Ok(())
    }

    pub(crate) fn stage_error(
        &self,
        disk: &Disk,
        fs: FsType,
        options: &str,
    ) -> anyhow::Result<DeviceError> {
        let error = self
            .stage(disk, fs, options)
            .err()
            .context("it was mounted")?;
        println!("{error}");
        error.downcast().context("another kind of error")
    }

    pub(crate) fn unmount(&self) -> anyhow::Result<()> {
        Ok(self.parent.unmount(&self.name)?)
    }
}
