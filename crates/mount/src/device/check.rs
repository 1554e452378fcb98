//! Checking a file system before it is mounted.

use super::error::Kind;
use super::held::{Held, SELF};
use super::program::Program;
use crate::work::Failure;

/// Bits of the exit code of `e2fsck`: errors are left,
const UNCORRECTED: i32 = 4;
/// and it was not what it can check at all.
const NO_CHECK: i32 = 8 | 16 | 32 | 128;

/// Checks the device that is this process's standard input.
pub(super) fn check(found: &str) -> Result<(), Failure> {
    if !matches!(found, "ext2" | "ext3" | "ext4") {
        return Ok(());
    }
    let held = Held::to_read()?;
    // Its file system is in use, so it was checked before.
    if !held.is_unused() {
        return Ok(());
    }
    drop(held);
    let held = Held::alone()?;
    let done = Program::E2FSCK.run(&held.file, &["-p", SELF])?;
    let name = held.name().unwrap_or_else(|| "DEVICE".to_owned());
    let said = || done.said().replace(SELF, &name);
    match done.status.code() {
        Some(code) if code & UNCORRECTED != 0 => Err(Failure::of(
            Kind::Damaged.code(),
            format!(
                "fsck found errors that it does not correct without being asked: run `fsck {name}` \
                 while nothing uses it; it said: {}",
                said()
            ),
        )),
        Some(code) if code & NO_CHECK == 0 => Ok(()),
        _ => Err(Failure::of(
            Kind::Damaged.code(),
            format!("fsck could not check it: {}", said()),
        )),
    }
}
