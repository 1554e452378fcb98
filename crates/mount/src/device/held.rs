//! A device held open by the child that works on it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FlockOperation, OFlags, SeekFrom};
use rustix::io::Errno;

use super::contents::{EDGE, Read};
use super::error::Kind;
use crate::work::Failure;

/// The device, which is the standard input of a child and of the programs that it runs.
pub(super) const SELF: &str = "/proc/self/fd/0";
/// So long may others, as udev does, look at the device before it counts as in use.
const LOOKERS: Duration = Duration::from_secs(2);

/// For errors without a number: EIO.
const UNKNOWN: i32 = Errno::IO.raw_os_error();

/// An open device.
pub(super) struct Held {
    pub(super) file: File,
    pub(super) size: u64,
}

impl Held {
    /// Opens it for reading.
    pub(super) fn to_read() -> Result<Self, Failure> {
        Self::open(OpenOptions::new().read(true))
    }

    /// Opens it for writing; nobody else uses it or works on it so.
    pub(super) fn alone() -> Result<Self, Failure> {
        let held = Self::open(OpenOptions::new().read(true).write(true))?;
        // Some kernels tell this only when something is written.
        if held.about("ro").is_some_and(|text| text.trim() == "1") {
            return Err(read_only());
        }
        let start = Instant::now();
        // Programs started from here inherit the lock, and keep it when this process is killed.
        while let Err(e) = rustix::fs::flock(&held.file, FlockOperation::NonBlockingLockExclusive) {
            if e != Errno::WOULDBLOCK || start.elapsed() > LOOKERS {
                let message = "another process is working on it".to_owned();
                return Err(Failure::of(Kind::Busy.code(), message));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        held.ensure_unused()?;
        Ok(held)
    }

    fn open(how: &mut OpenOptions) -> Result<Self, Failure> {
        let failed = |doing: &str, e: &io::Error| match e.raw_os_error() {
            Some(code) if Errno::from_raw_os_error(code) == Errno::ROFS => read_only(),
            code => Failure::of(
                code.unwrap_or(Kind::Unclear.code()),
                format!("{doing}: {e}"),
            ),
        };
        let file = how.open(SELF).map_err(|e| failed("opening it", &e))?;
        let size = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|e| failed("asking for its size", &e.into()))?;
        if size == 0 {
            let message = "it has no size: no medium is in it".to_owned();
            return Err(Failure::of(Kind::Unclear.code(), message));
        }
        Ok(Self { file, size })
    }

    /// Nothing is mounted from it, and no other device is made of it.
    fn ensure_unused(&self) -> Result<(), Failure> {
        // For a block device this means: no one else may have it open so.
        let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(exclusive)
            .open(SELF);
        opened.map(drop).map_err(|e| {
            let message = format!("it is mounted, or part of another device: {e}");
            Failure::of(Kind::Busy.code(), message)
        })
    }

    /// Whether nothing uses it at the moment.
    pub(super) fn is_unused(&self) -> bool {
        self.ensure_unused().is_ok()
    }

    /// Reads both ends, wholly and from the device itself.
    pub(super) fn read_ends(&self) -> Result<Read, Failure> {
        // Another machine may have written meanwhile. Only advice: what is not clean stays.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
        let length = self.size.min(EDGE);
        Ok(Read {
            size: self.size,
            first: self.read(0, length)?,
            last: self.read(self.size - length, length)?,
        })
    }

    fn read(&self, at: u64, length: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| {
            let message = format!(
                "{length} bytes at {at} cannot be read, so nobody knows what is on it: {e}"
            );
            Failure::of(Kind::Unclear.code(), message)
        })?;
        Ok(bytes)
    }

    /// Writes to the disk itself.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all_at(bytes, at).map_err(|e| {
            let code = e.raw_os_error().unwrap_or(UNKNOWN);
            Failure::of(code, format!("writing at {at}: {e}"))
        })?;
        self.sync()
    }

    /// Returns when all that was written is on the disk.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|e| {
            let code = e.raw_os_error().unwrap_or(UNKNOWN);
            Failure::of(code, format!("writing: {e}"))
        })
    }

    /// Its number.
    pub(super) fn number(&self) -> Result<crate::table::Device, Failure> {
        let device = self
            .file
            .metadata()
            .map_err(|e| {
                Failure::of(
                    e.raw_os_error().unwrap_or(UNKNOWN),
                    format!("looking at it: {e}"),
                )
            })?
            .rdev();
        Ok(crate::table::Device {
            major: rustix::fs::major(device),
            minor: rustix::fs::minor(device),
        })
    }

    /// What the kernel tells of it.
    fn about(&self, what: &str) -> Option<String> {
        let number = self.number().ok()?;
        let file = format!("/sys/dev/block/{}:{}/{what}", number.major, number.minor);
        std::fs::read_to_string(file).ok()
    }

    /// A path that leads to it and that people know, if there is one.
    pub(super) fn name(&self) -> Option<String> {
        let about = self.about("uevent")?;
        let name = about
            .lines()
            .find_map(|line| line.strip_prefix("DEVNAME="))?;
        let path = format!("/dev/{name}");
        let there = std::fs::metadata(&path).ok()?.rdev();
        let here = self.file.metadata().ok()?.rdev();
        (there == here).then_some(path)
    }
}

fn read_only() -> Failure {
    let message = "the device is read-only: a file system on it can only be mounted so";
    Failure::of(Kind::ReadOnly.code(), message.to_owned())
}
