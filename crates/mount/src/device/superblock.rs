//! The few fields of file systems' superblocks that matter here.

/// Where ext has its superblock.
const EXT: usize = 1024;

fn ext_field<const N: usize>(first: &[u8], at: usize) -> Option<[u8; N]> {
    let superblock = first.get(EXT..)?;
    let magic = superblock.get(0x38..0x3a)?;
    (magic == [0x53, 0xef])
        .then(|| bytes(superblock, at))
        .flatten()
}

fn xfs_field<const N: usize>(first: &[u8], at: usize) -> Option<[u8; N]> {
    first
        .starts_with(b"XFSB")
        .then(|| bytes(first, at))
        .flatten()
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

/// Whether somebody may rely on the file system: ext was mounted once; XFS says itself that it is
/// finished (`mkfs.xfs` writes that last).
pub(super) fn is_in_use(first: &[u8]) -> bool {
    if let Some([in_progress]) = xfs_field(first, 126) {
        return in_progress == 0;
    }
    let mounted_at: Option<[u8; 4]> = ext_field(first, 0x2c);
    let mounts: Option<[u8; 2]> = ext_field(first, 0x34);
    mounted_at.is_some_and(|time| time != [0; 4]) || mounts.is_some_and(|count| count != [0; 2])
}

/// How many bytes the file system fills, and the size of its blocks.
pub(super) fn size(first: &[u8]) -> Option<(u64, u64)> {
    if let (Some(block), Some(blocks)) = (xfs_field(first, 4), xfs_field(first, 8)) {
        let block = u64::from(u32::from_be_bytes(block));
        return Some((block.checked_mul(u64::from_be_bytes(blocks))?, block));
    }
    let block = 1024_u64.checked_shl(u32::from_le_bytes(ext_field(first, 0x18)?))?;
    let mut blocks = u64::from(u32::from_le_bytes(ext_field(first, 4)?));
    if u32::from_le_bytes(ext_field(first, 0x60)?) & 0x80 != 0 {
        blocks |= u64::from(u32::from_le_bytes(ext_field(first, 0x150)?)) << 32;
    }
    Some((block.checked_mul(blocks)?, block))
}

/// What a device looks like that no probe knows a file system on.
pub(super) fn remains(first: &[u8]) -> Option<&'static str> {
    if first.starts_with(b"XFSB") {
        return Some("a damaged XFS superblock: see `xfs_repair -n`");
    }
    ext_field(first, 0).map(|_: [u8; 1]| {
        "a damaged ext superblock: see `e2fsck -n`, which also knows backups of it (-b 32768)"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let mut ext = vec![0; 4096];
        ext[EXT + 0x38..EXT + 0x3a].copy_from_slice(&[0x53, 0xef]);
        ext[EXT + 4..EXT + 8].copy_from_slice(&1000_u32.to_le_bytes());
        ext[EXT + 0x18] = 2;
        ext[EXT + 0x150] = 1;
        assert_eq!(size(&ext), Some((4_096_000, 4096)));
        ext[EXT + 0x60] = 0x80;
        assert_eq!(size(&ext), Some((((1 << 32) + 1000) * 4096, 4096)));
        let mut xfs = vec![0; 512];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        xfs[8..16].copy_from_slice(&1000_u64.to_be_bytes());
        assert_eq!(size(&xfs), Some((4_096_000, 4096)));
        assert_eq!(size(&[0; 4096]), None);
        assert_eq!(size(b"XFSB"), None, "cut short");
    }

    #[test]
    fn a_hostile_size_does_not_overflow() {
        let mut ext = vec![0xff; 4096];
        ext[EXT + 0x38..EXT + 0x3a].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(size(&ext), None);
        let mut xfs = vec![0xff; 512];
        xfs[..4].copy_from_slice(b"XFSB");
        assert_eq!(size(&xfs), None);
    }
}
