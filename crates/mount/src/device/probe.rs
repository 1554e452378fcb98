//! What `blkid` knows of a device, probed anew each time.

use std::fs::File;

use super::contents::Filesystem;
use super::error::Kind;
use super::program::Program;
use crate::work::Failure;

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Filesystem(Filesystem),
    /// A signature of something else, as a text for the user.
    Foreign(String),
    Nothing,
}

/// Exit codes: no signature, or it could not be read (which is seen when the ends are read),
const NOTHING: i32 = 2;
/// several signatures that exclude each other.
const AMBIVALENT: i32 = 8;

/// Probes an open device.
pub(super) fn probe(device: &File) -> Result<Verdict, Failure> {
    // Neither /run/blkid nor its environment is asked: -p reads the device itself.
    let done = Program::BLKID.run(device, &["-p", "-o", "export", super::held::SELF])?;
    match done.status.code() {
        Some(0) => parse(&String::from_utf8_lossy(&done.stdout)),
        Some(NOTHING) if done.stdout.is_empty() && done.stderr.is_empty() => Ok(Verdict::Nothing),
        Some(AMBIVALENT) => Err(Failure::of(
            Kind::Unclear.code(),
            "it carries the signatures of several things at once, so it is left as it is: see \
             `wipefs DEVICE` for what they are"
                .to_owned(),
        )),
        _ => Err(Failure::of(
            Kind::Unclear.code(),
            format!("blkid could not probe it: {}", done.said()),
        )),
    }
}

fn parse(text: &str) -> Result<Verdict, Failure> {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.to_owned())
    };
    if let Some(table) = value("PTTYPE") {
        return Ok(Verdict::Foreign(format!("a partition table ({table})")));
    }
    let Some(kind) = value("TYPE") else {
        return Err(Failure::of(
            Kind::Unclear.code(),
            format!("blkid found something that it does not name: {text:?}"),
        ));
    };
    Ok(match value("USAGE").as_deref() {
        Some("filesystem") => Verdict::Filesystem(Filesystem {
            kind,
            uuid: value("UUID"),
        }),
        Some("raid") => Verdict::Foreign(format!("a part of a RAID or volume group ({kind})")),
        Some("crypto") => Verdict::Foreign(format!("encrypted data ({kind})")),
        _ => Verdict::Foreign(kind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blkid_exports() {
        let found = parse("DEVNAME=/dev/x\nUUID=a-b\nTYPE=ext4\nUSAGE=filesystem\n");
        let uuid = Some("a-b".to_owned());
        let kind = "ext4".to_owned();
        let filesystem = Verdict::Filesystem(Filesystem { kind, uuid });
        assert!(found.is_ok_and(|found| found == filesystem));
        for (text, part) in [
            ("PTTYPE=gpt", "partition table (gpt)"),
            ("TYPE=ext4\nUSAGE=filesystem\nPTTYPE=dos", "partition table"),
            ("TYPE=LVM2_member\nUSAGE=raid", "LVM2_member"),
            ("TYPE=crypto_LUKS\nUSAGE=crypto", "encrypted"),
            ("TYPE=swap\nUSAGE=other", "swap"),
        ] {
            let found = parse(text);
            assert!(
                matches!(&found, Ok(Verdict::Foreign(what)) if what.contains(part)),
                "{text}"
            );
        }
        assert!(parse("DEVNAME=/dev/x\n").is_err());
    }
}
