//! From a blank device to a full one.

use std::fs;
use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bitts_e2e::uml::guest::run;
use bitts_mount::device::loops::{self, Access};
use bitts_mount::device::{self, Contents, FsType, Kind};
use bitts_mount::table::MountTable;

use crate::place::{Disk, MIB, PATIENCE, Place, sum};

/// M40: FormatAndMount, and what is written is there after the next mount.
pub(crate) fn ext4_from_blank_to_grown() -> anyhow::Result<()> {
    from_blank_to_grown(FsType::Ext4, 64 * MIB, 96 * MIB, FsType::Xfs)?;
    // What ext4's driver mounts as well, a volume that says ext4 may have.
    let disk = Disk::new(16 * MIB)?;
    disk.format(FsType::Ext3)?;
    let place = Place::new()?;
    place.stage(&disk, FsType::Ext4, "")?;
    place.unmount()
}

/// M40, of XFS.
pub(crate) fn xfs_from_blank_to_grown() -> anyhow::Result<()> {
    from_blank_to_grown(FsType::Xfs, 320 * MIB, 400 * MIB, FsType::Ext4)
}

fn from_blank_to_grown(fs: FsType, small: u64, large: u64, other: FsType) -> anyhow::Result<()> {
    let (disk, place) = (Disk::new(small)?, Place::new()?);
    ensure!(disk.identify()? == Contents::Blank);
    let start = Instant::now();
    place.stage(&disk, fs, "noatime,nosuid")?;
    println!("{fs} formatted and mounted in {:?}", start.elapsed());
    disk.ensure_carries(fs)?;
    let table = MountTable::read()?;
    let mount = table.at(&place.path).context("nothing is mounted")?;
    let shown = (mount.fs_type.as_str(), mount.device, mount.source.as_str());
    let path = disk.device.path().to_str().context("a name")?;
    ensure!(
        shown == (fs.as_str(), disk.device.number(), path),
        "{shown:?}"
    );
    let options = fs::read_to_string("/proc/self/mounts")?;
    ensure!(options.contains("rw,nosuid,noatime"), "{options}");

    fs::write(place.path.join("file"), "precious")?;
    place.unmount()?;
    disk.ensure_refused_as_filesystem()?;
    let start = Instant::now();
    place.stage(&disk, fs, "")?;
    println!("{fs} checked and mounted in {:?}", start.elapsed());
    ensure!(fs::read_to_string(place.path.join("file"))? == "precious");
    ensure!(
        !device::grow(&disk.device, PATIENCE)?,
        "it fills its device"
    );
    place.unmount()?;
    let mismatch = place.stage_error(&disk, other, "")?;
    ensure!(mismatch.kind == Kind::Mismatch, "{mismatch}");
    for name in [fs.as_str(), other.as_str()] {
        ensure!(mismatch.to_string().contains(name), "{mismatch}");
    }

    // Grown while it is mounted, and by the next mount.
    let room = || anyhow::Ok(rustix::fs::statvfs(&place.path)?.f_blocks);
    place.stage(&disk, fs, "")?;
    let before = room()?;
    disk.file.set_len(small + 16 * MIB)?;
    run("losetup", &["--set-capacity", path])?;
    ensure!(device::grow(&disk.device, PATIENCE)?);
    let between = room()?;
    ensure!(between > before, "{between} blocks after {before}");
    place.unmount()?;
    disk.file.set_len(large)?;
    run("losetup", &["--set-capacity", path])?;
    place.stage(&disk, fs, "")?;
    ensure!(room()? > between, "{} blocks after {between}", room()?);
    ensure!(fs::read_to_string(place.path.join("file"))? == "precious");
    place.unmount()
}

impl Disk {
    fn ensure_refused_as_filesystem(&self) -> anyhow::Result<()> {
        let before = self.sum()?;
        for fs in [FsType::Ext4, FsType::Xfs] {
            let error = self.format(fs).err().context("it was formatted again")?;
            ensure!(error.kind == Kind::NotBlank, "{error}");
        }
        ensure!(self.sum()? == before, "something was written");
        Ok(())
    }
}

/// Issue 5: a full disk is an error of who writes, and the files before it are whole.
pub(crate) fn a_full_disk_keeps_its_files() -> anyhow::Result<()> {
    let (disk, place) = (Disk::new(16 * MIB)?, Place::new()?);
    place.stage(&disk, FsType::Ext4, "")?;
    let first = place.path.join("first");
    let bytes: Vec<u8> = (0..2 * MIB).map(|i| (i % 251) as u8).collect();
    fs::write(&first, &bytes)?;
    let before = sum(&first)?;
    let mut big = fs::File::create(place.path.join("big"))?;
    let full = loop {
        if let Err(error) = big.write_all(&bytes) {
            break error;
        }
    };
    ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
    drop(big);
    place.unmount()?;
    place.stage(&disk, FsType::Ext4, "")?;
    ensure!(sum(&first)? == before);
    place.unmount()
}

/// M40: read-only, nothing is made, checked or grown.
pub(crate) fn read_only_writes_nothing() -> anyhow::Result<()> {
    let (disk, place) = (Disk::new(32 * MIB)?, Place::new()?);
    let error = place.stage_error(&disk, FsType::Ext4, "ro")?;
    ensure!(error.kind == Kind::Unformatted, "{error}");
    ensure!(disk.identify()? == Contents::Blank, "something was written");
    disk.format(FsType::Ext4)?;
    let before = disk.sum()?;
    place.stage(&disk, FsType::Ext4, "ro")?;
    let refused = fs::write(place.path.join("file"), "no").map_err(|e| e.kind());
    ensure!(
        refused == Err(std::io::ErrorKind::ReadOnlyFilesystem),
        "{refused:?}"
    );
    place.unmount()?;
    ensure!(disk.sum()? == before, "something was written");

    // A device that cannot be written at all.
    let blank = Disk::made(16 * MIB, Access::ReadOnly, |_| Ok(()))?;
    blank.ensure_refused(Kind::ReadOnly, "read-only")?;
    let image = disk.path.clone();
    disk.file.sync_all()?;
    disk.remove_device()?;
    let full = Disk::made(32 * MIB, Access::ReadOnly, |file| {
        std::io::copy(&mut fs::File::open(&image)?, &mut &*file)?;
        Ok(())
    })?;
    let error = place.stage_error(&full, FsType::Ext4, "")?;
    ensure!(error.kind == Kind::ReadOnly, "{error}");
    place.stage(&full, FsType::Ext4, "ro")?;
    place.unmount()
}

impl Disk {
    fn remove_device(self) -> anyhow::Result<()> {
        Ok(loops::detach(&self.device, PATIENCE)?)
    }
}

/// Attached twice it is one device; detached while mounted it goes with the last unmount.
pub(crate) fn a_file_has_one_loop_device() -> anyhow::Result<()> {
    let (disk, place) = (Disk::new(16 * MIB)?, Place::new()?);
    let again = || loops::attach(&disk.file, &disk.path, Access::ReadWrite, PATIENCE);
    ensure!(again()?.number() == disk.device.number());
    // By another name, too.
    let link = disk.path.with_extension("link");
    fs::hard_link(&disk.path, &link)?;
    let linked = fs::File::open(&link)?;
    let found = loops::find(&linked, &link, PATIENCE)?.context("not found")?;
    ensure!(found.number() == disk.device.number());
    // All at once.
    let other = Disk::new(16 * MIB)?;
    loops::detach(&other.device, PATIENCE)?;
    let numbers: Vec<_> = std::thread::scope(|scope| {
        let attach = || loops::attach(&other.file, &other.path, Access::ReadWrite, PATIENCE);
        let all: Vec<_> = (0..4).map(|_| scope.spawn(attach)).collect();
        all.into_iter()
            .filter_map(|one| Some(one.join().ok()?.ok()?.number()))
            .collect()
    });
    ensure!(numbers.len() == 4 && numbers.iter().all(|number| *number == numbers[0]));
    place.stage(&disk, FsType::Ext4, "")?;
    loops::detach(&disk.device, PATIENCE)?;
    fs::write(place.path.join("file"), "x")?;
    place.unmount()?;
    let left = loops::find(&disk.file, &disk.path, PATIENCE)?;
    ensure!(left.is_none(), "{left:?} is left");
    let read_only = loops::attach(&disk.file, &disk.path, Access::ReadOnly, PATIENCE)?;
    let error = again()
        .err()
        .context("a read-only device was given for writing")?;
    ensure!(error.kind == Kind::ReadOnly, "{error}");
    Ok(loops::detach(&read_only, PATIENCE)?)
}

/// What is not installed is named with its package, and nothing was written before.
pub(crate) fn missing_programs_are_named() -> anyhow::Result<()> {
    let disk = Disk::new(320 * MIB)?;
    for (keep, package) in [(&["blkid"][..], "xfsprogs"), (&[], "util-linux")] {
        let programs = format!("/tmp/programs-{package}");
        fs::create_dir(&programs)?;
        for name in keep {
            fs::copy(format!("/usr/sbin/{name}"), format!("{programs}/{name}"))?;
        }
        rustix::mount::mount_bind(&*programs, "/usr/sbin")?;
        let error = disk.format(FsType::Xfs).err().context("it was formatted")?;
        println!("{error}");
        ensure!(error.kind == Kind::NoProgram, "{error}");
        ensure!(error.to_string().contains(package), "{error}");
        rustix::mount::unmount("/usr/sbin", rustix::mount::UnmountFlags::empty())?;
        ensure!(disk.identify()? == Contents::Blank);
    }
    let error = Disk::new(2 * MIB)?.format(FsType::Ext4).err();
    let error = error.context("so small a device was formatted")?;
    ensure!(error.kind == Kind::TooSmall, "{error}");
    let small = Disk::new(16 * MIB)?;
    let error = small.format(FsType::Xfs).err().context("so small an XFS")?;
    println!("{error}");
    ensure!(error.kind == Kind::TooSmall, "{error}");
    small.format(FsType::Ext4)?;
    Ok(())
}
