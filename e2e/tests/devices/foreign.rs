//! Devices that must not be formatted.

use std::fs;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_e2e::uml::guest::run;
use bitts_mount::device::{self, Contents, Device, FsType, Kind};
use bitts_mount::nfs::Class;

use crate::place::{Disk, MIB, Place};

const SIZE: u64 = 16 * MIB;

/// Amendment 12: what carries anything is left as it is, byte by byte.
pub(crate) fn what_is_foreign_is_not_formatted() -> anyhow::Result<()> {
    let given: &[(&str, u64, Vec<u8>)] = &[
        ("LVM2_member", 512, volume_group_label()),
        ("crypto_LUKS", 0, luks_header()),
        ("partition table (dos)", 440, partition_table()),
        ("at 524288", 512 << 10, vec![7]),
        ("at 0)", 0, vec![7]),
        ("at 1048575", MIB - 1, vec![7]),
        ("at 15728640", SIZE - MIB, vec![7]),
        ("at 16777215", SIZE - 1, vec![7]),
    ];
    for (word, at, bytes) in given {
        let disk = Disk::new(SIZE)?;
        disk.write(*at, bytes)?;
        let found = disk.identify()?;
        ensure!(matches!(&found, Contents::Foreign(_)), "{word}: {found:?}");
        disk.ensure_refused(Kind::NotBlank, word)?;
        disk.remove()?;
    }
    let swap = Disk::new(SIZE)?;
    let path = swap.device.path().display().to_string();
    run("mkswap", &[&path])?;
    swap.ensure_refused(Kind::NotBlank, "swap")?;

    // A file system of a type that nobody asked for is one, and is not formatted, either.
    let minix = Disk::new(SIZE)?;
    let path = minix.device.path().display().to_string();
    run("mkfs.minix", &[&path])?;
    minix.ensure_refused(Kind::NotBlank, "minix")?;
    let error = Place::new()?.stage_error(&minix, FsType::Ext4, "")?;
    ensure!(error.kind == Kind::Mismatch, "{error}");
    ensure!(error.to_string().contains("minix"), "{error}");

    // One that is mounted is not blank, whoever asks.
    let (mounted, place) = (Disk::new(SIZE)?, Place::new()?);
    place.stage(&mounted, FsType::Ext4, "")?;
    let error = mounted.format(FsType::Ext4).err();
    ensure!(error.is_some_and(|e| e.kind == Kind::Busy));
    place.unmount()
}

/// Amendment 12: an unread or ambivalent device is not formatted.
pub(crate) fn what_is_unclear_is_not_formatted() -> anyhow::Result<()> {
    for (readable, unreadable) in [
        (0..8, 8..SIZE / 512),
        (0..SIZE / 512 - 8, SIZE / 512 - 8..SIZE / 512),
    ] {
        let disk = broken(readable, unreadable)?;
        let found = disk.identify();
        ensure!(
            found.as_ref().is_err_and(|e| e.kind == Kind::Unclear),
            "{found:?}"
        );
        disk.ensure_refused(Kind::Unclear, "cannot be read")?;
        run("dmsetup", &["remove", "--noudevsync", "broken"])?;
    }
    // An XFS whose second sectors were made a swap area.
    let twice = Disk::new(320 * MIB)?;
    twice.format(FsType::Xfs)?;
    twice.write(1024, &[1, 0, 0, 0, 0xe8, 3, 0, 0])?;
    twice.write(4096 - 10, b"SWAPSPACE2")?;
    let found = twice.identify();
    println!("{found:?}");
    ensure!(found.is_err_and(|e| e.kind == Kind::Unclear));
    twice.ensure_refused(Kind::Unclear, "wipefs")
}

/// M40: what fsck cannot repair by itself is told with the command to run.
pub(crate) fn damage_is_told_with_what_to_do() -> anyhow::Result<()> {
    let place = Place::new()?;
    let disk = Disk::new(SIZE)?;
    disk.format(FsType::Ext4)?;
    let path = disk.device.path().display().to_string();
    // Corrected without being asked: a count of free blocks that is wrong.
    run("debugfs", &["-w", "-R", "set_super_value state 2", &path])?;
    run(
        "debugfs",
        &["-w", "-R", "set_super_value free_blocks_count 7", &path],
    )?;
    place.stage(&disk, FsType::Ext4, "")?;
    place.unmount()?;
    // Not corrected: there is no root directory.
    run("debugfs", &["-w", "-R", "clri <2>", &path])?;
    run("debugfs", &["-w", "-R", "set_super_value state 2", &path])?;
    let before = disk.sum()?;
    let error = place.stage_error(&disk, FsType::Ext4, "")?;
    ensure!(error.kind == Kind::Damaged, "{:?}: {error}", error.kind);
    ensure!(
        error.to_string().contains(&format!("fsck {path}")),
        "{error}"
    );
    println!("changed by fsck: {}", disk.sum()? != before);

    // A superblock that is nonsense, and one that nobody knows any more.
    let lost = Disk::new(SIZE)?;
    lost.format(FsType::Ext4)?;
    lost.write(1024 + 0x20, &[0xaa; 16])?;
    lost.ensure_refused(Kind::NotBlank, "ext4")?;
    let error = place.stage_error(&lost, FsType::Ext4, "")?;
    ensure!(error.kind == Kind::Damaged, "{:?}: {error}", error.kind);
    lost.write(1024 + 0x38, &[0; 2])?;
    lost.ensure_refused(Kind::NotBlank, "unknown kind")?;
    let lost = Disk::new(320 * MIB)?;
    lost.format(FsType::Xfs)?;
    lost.write(4, &[0xff; 16])?;
    lost.ensure_refused(Kind::NotBlank, "xfs_repair")?;
    // One that a probe knows and the kernel does not mount.
    let torn = Disk::new(320 * MIB)?;
    torn.format(FsType::Xfs)?;
    torn.write(200, &[0xff; 8])?;
    let error = place.stage_error(&torn, FsType::Xfs, "")?;
    ensure!(error.kind == Kind::Damaged, "{:?}: {error}", error.kind);
    ensure!(error.to_string().contains("xfs_repair"), "{error}");
    Ok(())
}

/// Each call on a disk that hangs ends at its deadline, and a format that hung is taken up.
pub(crate) fn a_disk_that_hangs_costs_a_child() -> anyhow::Result<()> {
    let disk = broken(0..SIZE / 512, SIZE / 512..SIZE / 512 + 8)?;
    // All of it can be read.
    run("dmsetup", &["suspend", "--nolockfs", "--noflush", "broken"])?;
    let whole = format!("0 {} linear /dev/loop0 0\n", SIZE / 512);
    fs::write("/tmp/table", whole)?;
    run("dmsetup", &["load", "broken", "/tmp/table"])?;
    let deadline = Duration::from_secs(1);
    for hung in [
        device::identify(&disk.device, deadline).map(drop),
        device::format(&disk.device, FsType::Ext4, deadline),
    ] {
        let error = hung.err().context("a disk that hangs answered")?;
        println!("{error}");
        ensure!(error.kind == Kind::Deadline, "{:?}: {error}", error.kind);
        ensure!(error.class() == Class::Uncertain);
    }
    run("dmsetup", &["resume", "--noudevsync", "broken"])?;
    Place::new()?.stage(&disk, FsType::Ext4, "")?;
    disk.ensure_carries(FsType::Ext4)
}

/// A disk of which some sectors can be read and others not.
fn broken(readable: Range<u64>, unreadable: Range<u64>) -> anyhow::Result<Disk> {
    let mut disk = Disk::new(SIZE)?;
    run("modprobe", &["-d", "/run/drivers", "dm-mod"])?;
    let loop_device = disk.device.path().display();
    let length = |sectors: &Range<u64>| sectors.end - sectors.start;
    let table = format!(
        "{} {} linear {loop_device} {}\n{} {} error\n",
        readable.start,
        length(&readable),
        readable.start,
        unreadable.start,
        length(&unreadable)
    );
    fs::write("/tmp/table", table)?;
    run(
        "dmsetup",
        &["create", "--noudevsync", "broken", "/tmp/table"],
    )?;
    disk.device = Device::open("/dev/dm-0".as_ref())?;
    Ok(disk)
}

/// The label of a physical volume, with its sum.
fn volume_group_label() -> Vec<u8> {
    let mut label = vec![0; 512];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(b"0123456789abcdefghijklmnopqrstuv");
    let sum = label[20..].iter().fold(0xf597_a6cf_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    });
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    label
}

fn luks_header() -> Vec<u8> {
    let mut header = vec![0; 592];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    header[168..204].copy_from_slice(b"00112233-4455-6677-8899-aabbccddeeff");
    header
}

/// One Linux partition, from a disk's byte 440 on.
fn partition_table() -> Vec<u8> {
    let mut table = vec![0; 72];
    table[..4].copy_from_slice(&[1, 2, 3, 4]);
    table[6 + 4] = 0x83;
    table[6 + 8..6 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    table[6 + 12..6 + 16].copy_from_slice(&4096_u32.to_le_bytes());
    table[70..].copy_from_slice(&[0x55, 0xaa]);
    table
}
