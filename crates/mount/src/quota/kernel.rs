//! The four calls of project quota, for which no crate has safe ones: rustix and nix know neither
//! projects nor `quotactl_fd`, and what else there is knows users and groups only.
#![expect(
    unsafe_code,
    reason = "system calls that no kept crate wraps: each block says why it is sound"
)]

use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::libc;
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

use super::{Project, Usage};

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    pub(super) project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// `FS_XFLAG_PROJINHERIT`
const INHERIT: u32 = 0x200;
const GET: Opcode = opcode::read::<Attributes>(b'X', 31);
const SET: Opcode = opcode::write::<Attributes>(b'X', 32);

impl Attributes {
    /// Whether what is made in a directory has its project.
    pub(super) fn inherit(&mut self, inherits: bool) {
        match inherits {
            true => self.flags |= INHERIT,
            false => self.flags &= !INHERIT,
        }
    }
}

/// `FS_IOC_FSGETXATTR`
pub(super) fn attributes(fd: impl AsFd) -> Result<Attributes, Errno> {
    // SAFETY: the opcode is that of a call which fills in a `struct fsxattr`, as `Attributes` is, and
    // any bits are a value of it.
    unsafe { ioctl(fd, Getter::<GET, Attributes>::new()) }
}

/// `FS_IOC_FSSETXATTR`
pub(super) fn set_attributes(fd: impl AsFd, attributes: Attributes) -> Result<(), Errno> {
    // SAFETY: the opcode is that of a call which reads a `struct fsxattr`, as `Attributes` is.
    unsafe { ioctl(fd, Setter::<SET, Attributes>::new(attributes)) }
}

/// `struct fs_quota_statv` of linux/dqblk_xfs.h; filled in by ext4 too.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct State {
    version: i8,
    pad: u8,
    flags: u16,
    in_core: u32,
    files: [[u64; 3]; 3],
    time_limits: [i32; 3],
    warn_limits: [u16; 4],
    pad_2: u32,
    pad_3: [u64; 7],
}

/// `FS_QUOTA_PDQ_ACCT`
const COUNTS: u16 = 1 << 4;
/// `FS_QUOTA_PDQ_ENFD`
const ENFORCES: u16 = 1 << 5;

impl State {
    pub(super) fn counts_projects(self) -> bool {
        self.flags & COUNTS != 0
    }

    pub(super) fn enforces_projects(self) -> bool {
        self.flags & ENFORCES != 0
    }
}

/// `struct if_dqblk` of linux/quota.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Block {
    /// In KiB.
    hard_limit: u64,
    /// In KiB.
    soft_limit: u64,
    /// In bytes.
    space: u64,
    file_hard_limit: u64,
    file_soft_limit: u64,
    files: u64,
    times: [u64; 2],
    valid: u32,
    pad: u32,
}

/// `QIF_BLIMITS`
const LIMITS: u32 = 1;
/// `QIF_DQBLKSIZE`
const KIB: u64 = 1024;

const _: () = assert!(size_of::<Attributes>() == 28);
const _: () = assert!(size_of::<State>() == 160);
const _: () = assert!(size_of::<Block>() == 72);

/// A command of quotactl(2), and what it reads or fills in.
struct Command<T>(libc::c_int, PhantomData<T>);

/// `Q_XGETQSTATV`
const GET_STATE: Command<State> = Command(0x5808, PhantomData);
/// `Q_GETQUOTA`
const GET_BLOCK: Command<Block> = Command(0x80_0007, PhantomData);
/// `Q_SETQUOTA`
const SET_BLOCK: Command<Block> = Command(0x80_0008, PhantomData);
/// `PRJQUOTA`
const PROJECT: libc::c_int = 2;

/// How the file system of a file does quota. `ENOSYS` where it does none.
pub(super) fn state(fd: impl AsFd) -> Result<State, Errno> {
    let mut state = State {
        version: 1,
        pad: 0,
        flags: 0,
        in_core: 0,
        files: [[0; 3]; 3],
        time_limits: [0; 3],
        warn_limits: [0; 4],
        pad_2: 0,
        pad_3: [0; 7],
    };
    quotactl(fd, GET_STATE, 0, &mut state)?;
    Ok(state)
}

pub(super) fn usage(fd: impl AsFd, project: Project) -> Result<Usage, Errno> {
    let mut block = Block::default();
    quotactl(fd, GET_BLOCK, project.number(), &mut block)?;
    Ok(Usage {
        bytes: block.space,
        files: block.files,
        limit: (block.hard_limit > 0).then(|| block.hard_limit.saturating_mul(KIB)),
    })
}

/// 0 bytes for no limit.
pub(super) fn set_limit(fd: impl AsFd, project: Project, bytes: u64) -> Result<(), Errno> {
    let mut block = Block {
        hard_limit: bytes.div_ceil(KIB),
        valid: LIMITS,
        ..Block::default()
    };
    quotactl(fd, SET_BLOCK, project.number(), &mut block)
}

fn quotactl<T>(fd: impl AsFd, command: Command<T>, id: u32, data: &mut T) -> Result<(), Errno> {
    let command = (command.0 << 8) | PROJECT;
    let data: *mut T = data;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `data` is valid for reads and writes of the type that belongs to the command (the constants
    // above pair them, and their sizes are checked), any bits are a value of it, and nothing keeps the
    // pointer.
    let done = unsafe { libc::syscall(libc::SYS_quotactl_fd, fd, command, id, data) };
    match done {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
