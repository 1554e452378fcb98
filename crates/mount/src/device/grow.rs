//! Letting a mounted file system fill its device.

use super::error::Kind;
use super::held::{Held, SELF};
use super::program::Program;
use super::superblock;
use crate::table::MountTable;
use crate::work::Failure;

/// Grows the file system on the device that is this process's standard input; whether it was
/// smaller.
pub(super) fn grow() -> Result<bool, Failure> {
    let held = Held::to_read()?;
    let before = held.read_ends()?;
    let Some((bytes, block)) = superblock::size(&before.first) else {
        let message = "only ext2, ext3, ext4 and XFS can be grown".to_owned();
        return Err(Failure::of(Kind::Program.code(), message));
    };
    if held.size < bytes.saturating_add(block) {
        return Ok(false);
    }
    let number = held.number()?;
    let table = MountTable::read().map_err(|e| Failure::of(Kind::Program.code(), e.to_string()))?;
    let Some(mount) = table.iter().find(|mount| mount.device == number) else {
        let message = "it must be mounted to be grown".to_owned();
        return Err(Failure::of(Kind::NotMounted.code(), message));
    };
    let done = if mount.fs_type == "xfs" {
        let point = mount.point.display().to_string();
        Program::XFS_GROWFS.run(&held.file, &["-d", &point])?
    } else {
        Program::RESIZE2FS.run(&held.file, &[SELF])?
    };
    if done.status.success() {
        return Ok(true);
    }
    let name = held.name().unwrap_or_default();
    Err(Failure::of(
        Kind::Program.code(),
        done.said().replace(SELF, &name),
    ))
}
