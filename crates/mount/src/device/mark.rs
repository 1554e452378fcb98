//! The mark of a format that is not finished.

use std::str::FromStr;

use super::contents::Filesystem;
use super::{FsType, superblock};

/// What a mark begins with,
const MAGIC: &[u8; 32] = b"bitts is formatting this device\n";
/// and how long it is: a sector, which is written as a whole or not at all.
pub(super) const SECTOR: usize = 512;

/// `mkfs.ext4` keeps the first KiB when it has a BSD disk label, which this number at this place
/// makes it take the mark for.
const LABEL: (usize, [u8; 4]) = (64, 0x8256_4557_u32.to_le_bytes());

/// Where the fields are.
const SIZE: usize = 32;
const UUID: usize = 40;
const KIND: usize = 56;
const SUM: usize = SECTOR - 8;

/// Ext leaves the start of a device to boot loaders;
const START: u64 = 0;
/// XFS does not, but its first structures end long before this.
const BEHIND: u64 = (1 << 20) - 4096;

/// A UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uuid([u8; 16]);

impl FromStr for Uuid {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.is_ascii() {
            return Err(());
        }
        u128::from_str_radix(&digits, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(drop)
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:032x}", u128::from_be_bytes(self.0));
        let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
        write!(f, "{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
    }
}

/// The mark of one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    fs: FsType,
    size: u64,
    /// What the file system will be known by.
    pub(super) uuid: Uuid,
}

impl Mark {
    pub(super) fn new(fs: FsType, size: u64, uuid: Uuid) -> Self {
        Self { fs, size, uuid }
    }

    /// Where on the device it is: within the first MiB.
    pub(super) fn place(&self) -> u64 {
        if self.fs == FsType::Xfs {
            BEHIND
        } else {
            START
        }
    }

    pub(super) fn sector(&self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        let mut put = |at: usize, bytes: &[u8]| {
            sector[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, MAGIC);
        put(SIZE, &self.size.to_le_bytes());
        put(UUID, &self.uuid.0);
        put(KIND, self.fs.as_str().as_bytes());
        put(LABEL.0, &LABEL.1);
        let sum = checksum(&sector[..SUM]);
        sector[SUM..].copy_from_slice(&sum.to_le_bytes());
        sector
    }

    /// The mark in a device's first MiB.
    pub(super) fn find(first: &[u8], size: u64) -> Option<Self> {
        [START, BEHIND].into_iter().find_map(|place| {
            let start = usize::try_from(place).ok()?;
            let sector = first.get(start..start + SECTOR)?;
            let mark = Self::read(sector)?;
            (mark.size == size && mark.place() == place).then_some(mark)
        })
    }

    fn read(sector: &[u8]) -> Option<Self> {
        let field = |at: usize| sector.get(at..);
        let size = field(SIZE)?.first_chunk()?;
        let uuid = field(UUID)?.first_chunk()?;
        let fs =
            |fs: &FsType| field(KIND).is_some_and(|kind| kind.starts_with(fs.as_str().as_bytes()));
        let mark = Self {
            fs: FsType::ALL.into_iter().find(fs)?,
            size: u64::from_le_bytes(*size),
            uuid: Uuid(*uuid),
        };
        (mark.sector() == sector).then_some(mark)
    }

    /// Whether this file system is the one that was being made.
    pub(super) fn is_of(&self, found: &Filesystem) -> bool {
        let uuid = found.uuid.as_deref().and_then(|uuid| uuid.parse().ok());
        uuid == Some(self.uuid)
    }

    /// Whether the start of the device is as this format can have left it: who writes to the raw
    /// device later begins there.
    pub(super) fn fits_start(&self, first: &[u8]) -> bool {
        match self.fs {
            FsType::Xfs => {
                superblock::remains(first).is_some_and(|what| what.contains("XFS"))
                    || first.iter().take(4096).all(|byte| *byte == 0)
            }
            _ => true,
        }
    }
}

/// FNV-1a: tells a torn mark from a whole one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_it_is_read() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        assert!("00112233".parse::<Uuid>().is_err());
    }
}
