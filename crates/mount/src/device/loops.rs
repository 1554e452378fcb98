//! Loop devices: files as block devices.
//!
//! `losetup` speaks to the kernel: that takes an ioctl, for which no well-kept crate without unsafe
//! code was found. A device is known by the device and inode of its file, never by a path, and a
//! file that has one already keeps it.
//!
//! A device that is mounted can be [detached](detach) at once: the kernel then frees it with its
//! last unmount, whoever does that, so that none is left behind by a killed agent.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::error::{self, DeviceError, Kind};
use super::held::{Held, SELF};
use super::program::Program;
use super::{Device, work};
use crate::child;
use crate::work::Failure;

/// Whether a file may be written through its loop device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    ReadWrite,
    /// No.
    ReadOnly,
}

const READ_ONLY: &str = "ro";
const READ_WRITE: &str = "rw";

/// The loop device of an open file (`O_PATH` suffices): the one it has, or a new one.
///
/// # Errors
/// When the file cannot be opened so, no loop device is left, or it has one that is read-only and
/// is to be written.
pub fn attach(
    file: impl AsFd,
    path: &Path,
    access: Access,
    deadline: Duration,
) -> Result<Device, DeviceError> {
    let access = match access {
        Access::ReadWrite => READ_WRITE,
        Access::ReadOnly => READ_ONLY,
    };
    let doing = "attaching a loop device to";
    let name = ask(doing, &[work::ATTACH, access], file, path, deadline)?;
    opened(doing, path, &name)
}

/// The loop device that an open file has, if any.
///
/// # Errors
/// When they cannot be listed.
pub fn find(
    file: impl AsFd,
    path: &Path,
    deadline: Duration,
) -> Result<Option<Device>, DeviceError> {
    let doing = "finding the loop device of";
    let name = ask(doing, &[work::FIND], file, path, deadline)?;
    if name.is_empty() {
        return Ok(None);
    }
    opened(doing, path, &name).map(Some)
}

/// Takes a loop device from its file: now, or with its last unmount.
///
/// # Errors
/// When it is no loop device, or is attached to nothing.
pub fn detach(device: &Device, deadline: Duration) -> Result<(), DeviceError> {
    device
        .ask("detaching the loop device", &[work::DETACH], deadline)
        .map(drop)
}

fn ask(
    doing: &str,
    words: &[&str],
    file: impl AsFd,
    path: &Path,
    deadline: Duration,
) -> Result<String, DeviceError> {
    let words = [&[work::DEVICE], words].concat();
    child::own(&words)
        .map_err(child::ChildError::from)
        .and_then(|command| child::ask(command, file, deadline))
        .map_err(|e| error::explain(doing, path, e))
}

fn opened(doing: &str, path: &Path, name: &str) -> Result<Device, DeviceError> {
    Device::open(name.as_ref()).map_err(|e| error::explain(doing, path, e.into()))
}

/// A line of the list of loop devices.
#[derive(Debug, PartialEq, Eq)]
struct Loop {
    name: String,
    read_only: bool,
}

/// `NAME BACK-MAJ:MIN BACK-INO OFFSET SIZELIMIT RO`, those of the whole of this file.
fn parse(list: &str, number: crate::table::Device, inode: u64) -> Option<Loop> {
    let device = format!("{}:{}", number.major, number.minor);
    let inode = inode.to_string();
    list.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match *fields {
            [name, on, file, "0", "0", read_only]
                if on.replace(PADDING, "") == device && file == inode =>
            {
                Some(Loop {
                    name: name.to_owned(),
                    read_only: read_only == "1",
                })
            }
            _ => None,
        }
    })
}

/// How `losetup` shows the spaces that it fills a device number up with.
const PADDING: &str = r"\x20";

const COLUMNS: &str = "NAME,BACK-MAJ:MIN,BACK-INO,OFFSET,SIZELIMIT,RO";

fn look_up(file: &File) -> Result<Option<Loop>, Failure> {
    let about = file.metadata().map_err(|e| io(&e, "looking at it"))?;
    let arguments = ["--list", "--raw", "--noheadings", "--output", COLUMNS];
    let done = Program::LOSETUP.run(file, &arguments)?;
    if !done.status.success() {
        return Err(Failure::of(Kind::Program.code(), done.said()));
    }
    let number = crate::table::Device {
        major: rustix::fs::major(about.dev()),
        minor: rustix::fs::minor(about.dev()),
    };
    Ok(parse(
        &String::from_utf8_lossy(&done.stdout),
        number,
        about.ino(),
    ))
}

pub(super) fn find_here() -> Result<String, Failure> {
    let file = open(READ_ONLY)?;
    Ok(look_up(&file)?.map(|found| found.name).unwrap_or_default())
}

pub(super) fn attach_here(access: &str) -> Result<String, Failure> {
    let file = open(access)?;
    // Two that come at once: the second finds the first one's.
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|errno| Failure::new("waiting for another that attaches it", errno))?;
    if let Some(found) = look_up(&file)? {
        return suits(found, access);
    }
    let mut arguments = vec!["--find", "--show"];
    if access == READ_ONLY {
        arguments.push("--read-only");
    }
    arguments.push(SELF);
    let done = Program::LOSETUP.run(&file, &arguments)?;
    if !done.status.success() {
        return Err(Failure::of(Kind::Program.code(), done.said()));
    }
    // It was opened by a path, which may lead elsewhere by now.
    if let Some(found) = look_up(&file)? {
        return suits(found, access);
    }
    let wrong = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    let _ = Program::LOSETUP.run(&file, &["--detach", &wrong]);
    Err(Failure::of(
        Kind::Program.code(),
        "the file was moved away meanwhile".to_owned(),
    ))
}

fn suits(found: Loop, access: &str) -> Result<String, Failure> {
    if found.read_only && access != READ_ONLY {
        let message = format!("it has {} already, which is read-only", found.name);
        return Err(Failure::of(Kind::ReadOnly.code(), message));
    }
    Ok(found.name)
}

pub(super) fn detach_here() -> Result<(), Failure> {
    let held = Held::to_read()?;
    let name = held.name().ok_or_else(|| {
        let message = "the device has no name in /dev".to_owned();
        Failure::of(Kind::Program.code(), message)
    })?;
    let done = Program::LOSETUP.run(&held.file, &["--detach", &name])?;
    if done.status.success() {
        return Ok(());
    }
    Err(Failure::of(Kind::Program.code(), done.said()))
}

fn open(access: &str) -> Result<File, Failure> {
    OpenOptions::new()
        .read(true)
        .write(access == READ_WRITE)
        .open(SELF)
        .map_err(|e| io(&e, "opening it"))
}

fn io(error: &std::io::Error, doing: &str) -> Failure {
    Failure::of(
        error.raw_os_error().unwrap_or(5),
        format!("{doing}: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_number() {
        let list = r"/dev/loop0 \x20\x20254:0\x20 12 0 0 0".to_owned()
            + "\n/dev/loop1 254:0 13 4096 0 0\n\
                    /dev/loop2 254:0 13 0 0 1\n/dev/loop3 8:1 12 0 0 0\n";
        let on = |major, minor| crate::table::Device { major, minor };
        let found = |number, inode| parse(&list, number, inode).map(|found| found.name);
        assert_eq!(found(on(254, 0), 12).as_deref(), Some("/dev/loop0"));
        assert_eq!(found(on(254, 0), 13).as_deref(), Some("/dev/loop2"));
        assert_eq!(found(on(8, 1), 12).as_deref(), Some("/dev/loop3"));
        assert_eq!(found(on(8, 1), 13), None);
        let read_only = parse(&list, on(254, 0), 13);
        assert!(read_only.is_some_and(|found| suits(found, READ_WRITE).is_err()));
    }
}
