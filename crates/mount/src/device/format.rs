//! Making a file system, and never a second one over data.

use super::FsType;
use super::contents::{Contents, EDGE, Judgement, judge};
use super::error::Kind;
use super::held::{Held, SELF};
use super::mark::{Mark, SECTOR};
use super::probe::probe;
use super::program::Program;
use crate::work::Failure;

/// Below this no file system is made.
const SMALLEST: u64 = 4 << 20;

/// What is on an open device.
pub(super) fn look(held: &Held) -> Result<Judgement, Failure> {
    let read = held.read_ends()?;
    Ok(judge(probe(&held.file)?, &read))
}

/// A device that is proven to carry nothing but what a format of ours left, held so that nobody
/// else can put anything there. There is no other way to a format.
struct Vacant {
    held: Held,
    is_blank: bool,
}

/// Makes a file system on the device that is this process's standard input.
pub(super) fn format(fs: FsType) -> Result<(), Failure> {
    let held = Held::alone()?;
    match look(&held)? {
        Judgement::Blank => Vacant {
            held,
            is_blank: true,
        }
        .make(fs),
        Judgement::Unfinished => Vacant {
            held,
            is_blank: false,
        }
        .make(fs),
        Judgement::Marked(mark) => take_away(&held, &mark),
        Judgement::Taken(contents) => {
            let what = match contents {
                Contents::Filesystem(found) => format!("the file system {}", found.kind),
                Contents::Foreign(what) => what,
                Contents::Interrupted | Contents::Blank => "something".to_owned(),
            };
            let message = format!("it carries {what} and is not formatted");
            Err(Failure::of(Kind::NotBlank.code(), message))
        }
    }
}

impl Vacant {
    fn make(self, fs: FsType) -> Result<(), Failure> {
        let Self { held, is_blank } = self;
        if held.size < SMALLEST {
            let message = format!(
                "it has {} bytes, which is too small for a file system",
                held.size
            );
            return Err(Failure::of(Kind::TooSmall.code(), message));
        }
        let program = program(fs);
        // Before anything is written.
        program.find()?;
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").ok();
        let uuid = uuid.and_then(|text| text.parse().ok()).ok_or_else(|| {
            let message = "the kernel gives no UUID: is /proc mounted?".to_owned();
            Failure::of(Kind::Program.code(), message)
        })?;
        let mark = Mark::new(fs, held.size, uuid);
        held.write(mark.place(), &mark.sector())?;
        if !is_blank {
            clear(&held, &mark)?;
        }
        let uuid = uuid.to_string();
        let done = program.run(&held.file, &arguments(fs, &uuid, &format!("uuid={uuid}")))?;
        if !done.status.success() {
            // As it was before, so that another type may be tried. If this fails the mark is left.
            let _ = clear(&held, &mark).and_then(|()| take_away(&held, &mark));
            let name = held.name().unwrap_or_default();
            let said = done.said().replace(SELF, &name);
            let kind = if said.contains("too small") || said.contains("must be larger") {
                Kind::TooSmall
            } else {
                Kind::Program
            };
            return Err(Failure::of(kind.code(), said));
        }
        take_away(&held, &mark)
    }
}

fn program(fs: FsType) -> Program {
    match fs {
        FsType::Ext2 | FsType::Ext3 | FsType::Ext4 => Program::MKE2FS,
        FsType::Xfs => Program::MKFS_XFS,
    }
}

/// As the kubelet's (M40), and: nothing is discarded, which would take the mark away. XFS needs no
/// force, since there is nothing that it would hesitate to overwrite.
fn arguments<'a>(fs: FsType, uuid: &'a str, uuid_option: &'a str) -> Vec<&'a str> {
    let kind = fs.as_str();
    match fs {
        FsType::Xfs => vec!["-q", "-K", "-m", uuid_option, SELF],
        _ => vec![
            "-q",
            "-t",
            kind,
            "-F",
            "-m0",
            "-E",
            "nodiscard",
            "-U",
            uuid,
            SELF,
        ],
    }
}

/// Zeros both ends, all but the mark, which is taken away only when that is on the disk.
fn clear(held: &Held, mark: &Mark) -> Result<(), Failure> {
    let zeros = vec![0; usize::try_from(EDGE).unwrap_or_default()];
    held.write(held.size - EDGE, &zeros)?;
    let start = usize::try_from(mark.place()).unwrap_or_default();
    let end = start + SECTOR;
    held.write(u64::try_from(end).unwrap_or_default(), &zeros[end..])?;
    held.write(0, &zeros[..start])
}

/// Takes the mark away, unless the file system has something else there by now.
fn take_away(held: &Held, mark: &Mark) -> Result<(), Failure> {
    // Not before all else is on the disk, or a power failure could leave neither.
    held.sync()?;
    let read = held.read_ends()?;
    if Mark::find(&read.first, read.size) == Some(*mark) {
        held.write(mark.place(), &[0; SECTOR])?;
    }
    Ok(())
}
