//! What is on a device, decided from what was read.

use super::mark::Mark;
use super::probe::Verdict;
use super::superblock;

/// So much at either end of a device is read before it counts as blank.
pub(super) const EDGE: u64 = 1 << 20;

/// What is on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// A file system.
    Filesystem(Filesystem),
    /// Something else: a part of a volume group or RAID, encrypted data, a partition table, or data
    /// that nothing is known of. The text says what.
    Foreign(String),
    /// The remains of a format by this library that was cut off.
    Interrupted,
    /// Nothing: no signature, and zeros in the first and last MiB.
    Blank,
}

/// A file system on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Its type, e.g. `ext4`.
    pub kind: String,
    /// Its UUID, if it has one.
    pub uuid: Option<String>,
}

impl Contents {
    /// As a child tells it.
    pub(super) fn to_words(&self) -> String {
        match self {
            Self::Filesystem(found) => {
                let uuid = found.uuid.as_deref().unwrap_or_default();
                format!("filesystem\t{}\t{uuid}", found.kind)
            }
            Self::Foreign(what) => format!("foreign\t{what}"),
            Self::Interrupted => "interrupted".to_owned(),
            Self::Blank => "blank".to_owned(),
        }
    }

    pub(super) fn from_words(words: &str) -> Option<Self> {
        let words: Vec<&str> = words.split('\t').collect();
        Some(match &*words {
            // The ends of an answer are trimmed.
            ["filesystem", kind, uuid @ ..] => Self::Filesystem(Filesystem {
                kind: (*kind).to_owned(),
                uuid: uuid
                    .first()
                    .filter(|uuid| !uuid.is_empty())
                    .map(|&uuid| uuid.to_owned()),
            }),
            ["foreign", what] => Self::Foreign((*what).to_owned()),
            ["interrupted"] => Self::Interrupted,
            ["blank"] => Self::Blank,
            _ => return None,
        })
    }
}

/// What was read of a device.
pub(super) struct Read {
    pub(super) size: u64,
    /// Its first MiB, or all of a smaller one,
    pub(super) first: Vec<u8>,
    /// and its last.
    pub(super) last: Vec<u8>,
}

/// What may be done with a device, by what is on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It may only be looked at.
    Taken(Contents),
    /// Never written, as far as can be seen.
    Blank,
    /// Our own format was cut off.
    Unfinished,
    /// Our own format was cut off when nothing but the mark was left to do.
    Marked(Mark),
}

impl Judgement {
    pub(super) fn contents(self) -> Contents {
        match self {
            Self::Taken(contents) => contents,
            Self::Blank => Contents::Blank,
            Self::Unfinished | Self::Marked(_) => Contents::Interrupted,
        }
    }
}

/// Decides what is on a device.
pub(super) fn judge(verdict: Verdict, read: &Read) -> Judgement {
    let mark = Mark::find(&read.first, read.size);
    match (verdict, mark) {
        (Verdict::Filesystem(found), Some(mark)) if mark.is_of(&found) => {
            if superblock::is_in_use(&read.first) {
                Judgement::Marked(mark)
            } else {
                Judgement::Unfinished
            }
        }
        (Verdict::Filesystem(found), _) => Judgement::Taken(Contents::Filesystem(found)),
        (Verdict::Foreign(what), _) => Judgement::Taken(Contents::Foreign(what)),
        (Verdict::Nothing, Some(mark)) if mark.fits_start(&read.first) => Judgement::Unfinished,
        (Verdict::Nothing, _) => match first_data(read) {
            None => Judgement::Blank,
            Some(at) => {
                let remains = superblock::remains(&read.first).unwrap_or("data of an unknown kind");
                let what = format!("{remains} (the first byte that is not zero is at {at})");
                Judgement::Taken(Contents::Foreign(what))
            }
        },
    }
}

/// Where the first byte is that is not zero.
fn first_data(read: &Read) -> Option<u64> {
    let position = |bytes: &[u8]| bytes.iter().position(|byte| *byte != 0);
    if let Some(at) = position(&read.first) {
        return u64::try_from(at).ok();
    }
    let at = u64::try_from(position(&read.last)?).ok()?;
    let length = u64::try_from(read.last.len()).ok()?;
    Some(read.size.saturating_sub(length) + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::FsType;

    const SIZE: u64 = 8 << 20;
    const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

    fn zeros() -> Read {
        Read {
            size: SIZE,
            first: vec![0; 1 << 20],
            last: vec![0; 1 << 20],
        }
    }

    fn marked(fs: FsType) -> Read {
        let mut read = zeros();
        let mark = Mark::new(fs, SIZE, UUID.parse().unwrap());
        let at = usize::try_from(mark.place()).unwrap();
        let sector = mark.sector();
        read.first[at..at + sector.len()].copy_from_slice(&sector);
        read
    }

    fn filesystem(kind: &str, uuid: &str) -> Verdict {
        Verdict::Filesystem(Filesystem {
            kind: kind.to_owned(),
            uuid: Some(uuid.to_owned()),
        })
    }

    #[test]
    fn blank_is_only_what_is_zero_at_both_ends() {
        assert_eq!(judge(Verdict::Nothing, &zeros()), Judgement::Blank);
        for at in [0, 1, 511_111, (1 << 20) - 1] {
            let mut start = zeros();
            start.first[at] = 1;
            let found = judge(Verdict::Nothing, &start).contents();
            assert!(
                matches!(&found, Contents::Foreign(what) if what.contains(&at.to_string())),
                "{found:?}"
            );
            let mut end = zeros();
            end.last[at] = 1;
            let found = judge(Verdict::Nothing, &end).contents();
            let at = (7 << 20) + at;
            assert!(
                matches!(&found, Contents::Foreign(what) if what.contains(&at.to_string())),
                "{found:?}"
            );
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// Amendment 12: whatever bytes are on it, a device without a whole mark is only ever
        /// given to a format when all that was read is zero.
        #[test]
        fn no_bytes_make_a_device_blank(
            edits in proptest::collection::vec((0..2_usize << 20, 0..=255_u8), 0..4),
            at_mark in proptest::collection::vec((0..512_usize, 0..=255_u8), 0..2),
            with_mark: bool,
        ) {
            let whole = marked(FsType::Xfs);
            let mut read = if with_mark { marked(FsType::Xfs) } else { zeros() };
            let behind = (1 << 20) - 4096;
            for (at, byte) in at_mark.iter().map(|(at, byte)| (behind + at, byte)) {
                read.first[at] = *byte;
            }
            for (at, byte) in edits {
                match at.checked_sub(1 << 20) {
                    Some(at) => read.last[at] = byte,
                    None => read.first[at] = byte,
                }
            }
            let is_zero = read.first.iter().chain(&read.last).all(|byte| *byte == 0);
            let mark = behind..behind + 512;
            let has_mark = read.first[mark.clone()] == whole.first[mark];
            let starts_empty = read.first[..4096].iter().all(|byte| *byte == 0);
            match judge(Verdict::Nothing, &read) {
                Judgement::Blank => assert!(is_zero),
                Judgement::Unfinished => assert!(has_mark && starts_empty),
                Judgement::Taken(_) => assert!(!(is_zero || has_mark && starts_empty)),
                Judgement::Marked(_) => panic!("there is no file system"),
            }
        }
    }

    #[test]
    fn our_own_format_is_known_by_its_mark() {
        for fs in FsType::ALL {
            assert_eq!(judge(Verdict::Nothing, &marked(fs)), Judgement::Unfinished);
            let foreign = Verdict::Foreign("a RAID".to_owned());
            let taken = Judgement::Taken(Contents::Foreign("a RAID".to_owned()));
            assert_eq!(judge(foreign, &marked(fs)), taken);
            let others = filesystem(fs.as_str(), "ffffffff-4455-6677-8899-aabbccddeeff");
            assert!(matches!(
                judge(others, &marked(fs)),
                Judgement::Taken(Contents::Filesystem(_))
            ));
        }
        assert_eq!(
            judge(filesystem("ext4", UUID), &marked(FsType::Ext4)),
            Judgement::Unfinished
        );
    }

    #[test]
    fn a_mark_of_another_size_or_with_a_torn_byte_is_none() {
        let mut grown = marked(FsType::Ext4);
        grown.size += 4096;
        assert!(matches!(
            judge(Verdict::Nothing, &grown),
            Judgement::Taken(_)
        ));
        let mut torn = marked(FsType::Ext4);
        torn.first[100] ^= 1;
        assert!(matches!(
            judge(Verdict::Nothing, &torn),
            Judgement::Taken(_)
        ));
    }

    /// The mark of XFS lies behind what a user of the raw device writes first.
    #[test]
    fn data_before_a_mark_is_not_ours() {
        let mut raw = marked(FsType::Xfs);
        raw.first[0] = b'x';
        assert!(matches!(judge(Verdict::Nothing, &raw), Judgement::Taken(_)));
    }

    #[test]
    fn who_mounted_it_relies_on_it() {
        let mut used = marked(FsType::Ext4);
        used.first[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(
            judge(filesystem("ext4", UUID), &used),
            Judgement::Unfinished
        );
        used.first[1024 + 0x34] = 1;
        assert!(matches!(
            judge(filesystem("ext4", UUID), &used),
            Judgement::Marked(_)
        ));
    }

    #[test]
    fn what_a_child_says_is_understood() {
        let filesystem = |uuid: Option<&str>| {
            Contents::Filesystem(Filesystem {
                kind: "xfs".to_owned(),
                uuid: uuid.map(str::to_owned),
            })
        };
        for contents in [
            filesystem(None),
            filesystem(Some(UUID)),
            Contents::Foreign("a swap area".to_owned()),
            Contents::Interrupted,
            Contents::Blank,
        ] {
            let words = contents.to_words();
            assert_eq!(Contents::from_words(words.trim()), Some(contents));
        }
        assert_eq!(Contents::from_words("nonsense"), None);
    }
}
