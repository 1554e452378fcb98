//! Records of volumes that the API is not known to have.

use super::*;
use std::time::{Duration, UNIX_EPOCH};

const TORN: [&str; 3] = ["", "{\"volume\": \"pvc-u", "\0\0\0\0"];

/// On a share: what is not known there was made by nobody, as far as this process can tell.
fn share(disk: &Disk) -> Disk {
    Disk::within(Dir::open(disk.root()).unwrap()).unwrap()
}

fn begun(disk: &Disk) -> PathBuf {
    own(disk, "begun/pvc-u.json")
}

fn recorded(disk: &Disk) -> PathBuf {
    own(disk, "volumes/pvc-u.json")
}

/// Whether anything has the path, a link that leads nowhere included.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A claim whose record is longer than a link's text may be.
fn long(name: &str, path: &str) -> Record {
    let record = record(name, path);
    let owner = crate::task::Owner {
        name: "x".repeat(4_096).as_str().into(),
        ..record.claim
    };
    Record {
        claim: owner,
        ..record
    }
}

#[test]
fn a_record_is_a_link_or_a_file_until_its_volume_is_known() {
    for (asked, is_link) in [
        (record("pvc-u", "d-pvc-u"), true),
        (long("pvc-u", "d-pvc-u"), false),
    ] {
        let (_temp, disk) = disk();
        for disk in [&disk, &share(&disk)] {
            disk.make(&asked).unwrap();
            assert_eq!(begun(disk).is_symlink(), is_link);
            assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&asked));
            let census = disk.census().unwrap();
            assert!(census.unreadable.is_empty(), "{census:?}");
            disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
            assert!(!is_there(&begun(disk)));
            assert!(recorded(disk).symlink_metadata().unwrap().is_file());
            let path = disk.root().join("d-pvc-u");
            disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
            sweep(disk);
        }
    }
}

/// Whoever notes that the API has a volume may die when its record was moved.
#[test]
fn a_link_that_was_moved_is_the_record() {
    for is_share in [false, true] {
        let (_temp, disk) = disk();
        let disk = if is_share { &share(&disk) } else { &disk };
        let asked = record("pvc-u", "d-pvc-u");
        disk.make(&asked).unwrap();
        fs::rename(begun(disk), recorded(disk)).unwrap();
        let known = Record {
            confirmed: true,
            ..asked.clone()
        };
        assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&known));
        assert_eq!(disk.find(&asked.volume).unwrap().as_ref(), Some(&known));
        assert!(disk.census().unwrap().unreadable.is_empty());
        let error = disk.discard(&asked.volume, &asked.claim.uid).unwrap_err();
        assert!(matches!(error, DiskError::Used(_)), "{error}");
        disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
        let path = disk.root().join("d-pvc-u");
        disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
        sweep(disk);
        assert!(disk.scan().unwrap().is_empty() && !is_there(&recorded(disk)));
    }
}

/// A record of an earlier version, written anew when a copy was whole.
#[test]
fn nothing_stays_of_a_record_that_lies_in_two_places() {
    for is_share in [false, true] {
        for is_known in [false, true] {
            let (_temp, disk) = disk();
            let disk = if is_share { &share(&disk) } else { &disk };
            let asked = record("pvc-u", "d-pvc-u");
            disk.make(&asked).unwrap();
            fs::write(recorded(disk), serde_json::to_vec(&asked).unwrap()).unwrap();
            if is_known {
                let path = disk.root().join("d-pvc-u");
                disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
            } else {
                disk.discard(&asked.volume, &asked.claim.uid).unwrap();
            }
            assert!(!is_there(&begun(disk)) && !is_there(&recorded(disk)));
            sweep(disk);
            assert!(disk.scan().unwrap().is_empty());
        }
    }
}

/// A power failure can leave a link without its text.
#[test]
fn a_torn_link_counts_as_none() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "d-pvc-u");
    for disk in [&disk, &share(&disk)] {
        symlink("{\"volume\": \"pvc-u", begun(disk)).unwrap();
        assert!(disk.scan().unwrap().is_empty());
        disk.make(&asked).unwrap();
        assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&asked));
        disk.discard(&asked.volume, &asked.claim.uid).unwrap();
    }
}

#[test]
fn a_record_that_cannot_become_a_file_stays_a_link() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "d-pvc-u");
    for disk in [&disk, &share(&disk)] {
        disk.make(&asked).unwrap();
        let in_the_way = own(disk, "volumes/pvc-u.json.new");
        fs::create_dir(&in_the_way).unwrap();
        disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
        assert!(recorded(disk).is_symlink() && !is_there(&begun(disk)));
        assert!(disk.find(&asked.volume).unwrap().unwrap().confirmed);
        fs::remove_dir(&in_the_way).unwrap();
        let path = disk.root().join("d-pvc-u");
        disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
        sweep(disk);
    }
}

/// A link is read and never followed.
#[test]
fn a_planted_link_is_no_record() {
    let (temp, disk) = disk();
    let out = temp.path().join("out");
    let asked = record("pvc-u", "d-pvc-u");
    fs::write(&out, serde_json::to_vec(&asked).unwrap()).unwrap();
    for disk in [&disk, &share(&disk)] {
        symlink(&out, begun(disk)).unwrap();
        assert!(disk.scan().unwrap().is_empty());
        let error = disk.make(&asked).unwrap_err();
        assert!(matches!(error, DiskError::Unreadable(..)), "{error}");
        assert!(!disk.root().join("d-pvc-u").exists());
        fs::remove_file(begun(disk)).unwrap();
    }
}

#[test]
fn a_record_moves_on_once_its_volume_is_known() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "d-pvc-u");
    for disk in [&disk, &share(&disk)] {
        disk.make(&asked).unwrap();
        assert!(is_there(&begun(disk)) && !recorded(disk).exists());
        assert_eq!(disk.find(&asked.volume).unwrap().as_ref(), Some(&asked));
        let error = disk.confirm(&asked.volume, &"other".into()).unwrap_err();
        assert!(matches!(error, DiskError::Foreign { .. }), "{error}");
        for _again in 0..2 {
            disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
            assert!(!is_there(&begun(disk)) && recorded(disk).exists());
        }
        let known = Record {
            confirmed: true,
            ..asked.clone()
        };
        assert_eq!(disk.find(&asked.volume).unwrap().as_ref(), Some(&known));
        // The next process, and the same one once more.
        for disk in [disk, &share(disk)] {
            assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&known));
            let made = disk.make(&asked).unwrap().whole();
            assert_eq!(made, Some(disk.root().join("d-pvc-u")));
            // Whatever is asked for by then, as when its labels changed.
            let made = disk.make(&record("pvc-u", "e-pvc-u")).unwrap().whole();
            assert_eq!(made, Some(disk.root().join("d-pvc-u")));
            assert!(!is_there(&begun(disk)), "it is not begun anew");
            assert!(!disk.root().join("e-pvc-u").exists());
        }
        let path = disk.root().join("d-pvc-u");
        disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
        sweep(disk);
        assert!(disk.scan().unwrap().is_empty() && !recorded(disk).exists());
    }
}

/// Nothing was made of it: its record came first.
#[test]
fn a_torn_record_counts_as_none() {
    for text in TORN {
        let (_temp, disk) = disk();
        let asked = record("pvc-u", "d-pvc-u");
        for disk in [&disk, &share(&disk)] {
            fs::write(begun(disk), text).unwrap();
            assert!(disk.scan().unwrap().is_empty(), "{text:?}");
            assert_eq!(disk.census().unwrap(), Census::default(), "{text:?}");
            disk.discard(&asked.volume, &asked.claim.uid).unwrap();
            disk.make(&asked).unwrap();
            assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&asked));
            disk.discard(&asked.volume, &asked.claim.uid).unwrap();
            assert!(!is_there(&begun(disk)));
        }
        // One that nobody asks for goes when nobody can be writing it.
        fs::write(begun(&disk), text).unwrap();
        let whole = long("pvc-w", "d-pvc-w");
        disk.make(&whole).unwrap();
        disk.to_sweep(now()).unwrap();
        assert!(begun(&disk).exists(), "somebody may be writing it");
        let file = fs::File::options().write(true).open(begun(&disk)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
            .unwrap();
        let other = own(&disk, "begun/pvc-w.json");
        let file = fs::File::options().write(true).open(other).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
            .unwrap();
        let link = record("pvc-x", "d-pvc-x");
        disk.make(&link).unwrap();
        let long_ago = rustix::fs::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: long_ago,
            last_modification: long_ago,
        };
        let (at, no_follow) = (rustix::fs::CWD, AtFlags::SYMLINK_NOFOLLOW);
        rustix::fs::utimensat(at, own(&disk, "begun/pvc-x.json"), &times, no_follow).unwrap();
        disk.to_sweep(now()).unwrap();
        assert!(!begun(&disk).exists());
        assert_eq!(disk.scan().unwrap(), [whole, link], "whole ones stay");
    }
}

/// A record that says something, but not what it must, is looked at by somebody.
#[test]
fn a_begun_record_that_is_wrong_keeps_its_volume_from_being_made() {
    let mut evil = serde_json::to_value(record("pvc-u", "d-pvc-u")).unwrap();
    evil["path"] = "../../etc".into();
    for text in ["[]", "null", "x", &evil.to_string()] {
        let (_temp, disk) = disk();
        for disk in [&disk, &share(&disk)] {
            fs::write(begun(disk), text).unwrap();
            let error = disk.make(&record("pvc-u", "d-pvc-u")).unwrap_err();
            assert!(
                matches!(error, DiskError::Unreadable(..)),
                "{text}: {error}"
            );
            assert!(!disk.root().join("d-pvc-u").exists());
            assert_eq!(disk.census().unwrap().unreadable.len(), 1);
            // It stays, and what others left is swept all the same.
            let other = record("pvc-w", "d-pvc-w");
            let path = disk.make(&other).unwrap().whole().unwrap();
            disk.remove(&other.volume, &other.claim.uid, &path).unwrap();
            let file = fs::File::options().write(true).open(begun(disk)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
                .unwrap();
            assert_eq!(disk.to_sweep(now()).unwrap(), [other.volume]);
            sweep(disk);
            assert!(begun(disk).exists());
        }
    }
}

/// A pipe takes what is written to it, and keeps nothing.
#[test]
fn a_begun_record_that_is_no_file_is_told() {
    let (_temp, disk) = disk();
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, begun(&disk), fifo, mode, 0).unwrap();
    for disk in [&disk, &share(&disk)] {
        let error = disk.make(&record("pvc-u", "d-pvc-u")).unwrap_err();
        assert!(matches!(error, DiskError::Unreadable(..)), "{error}");
        assert!(!disk.root().join("d-pvc-u").exists());
    }
}

/// Its labels may have changed since: the directory of the record is the volume's.
#[test]
fn what_another_process_began_meanwhile_is_gone_on_with() {
    for name in ["d-pvc-u", "e-pvc-u"] {
        let (_temp, disk) = disk();
        let share = share(&disk);
        let first = record("pvc-u", "d-pvc-u");
        disk.make(&first).unwrap();
        let made = share.make(&record("pvc-u", name)).unwrap().whole();
        assert_eq!(made, Some(disk.root().join("d-pvc-u")));
        assert!(!disk.root().join("e-pvc-u").exists());
        // The name that was asked for is free again.
        let next = record("pvc-w", "e-pvc-u");
        share.make(&next).unwrap();
        assert_eq!(share.scan().unwrap(), [first, next]);
    }
}

/// As records once were: all in one place, with a word in them.
#[test]
fn an_earlier_versions_record_is_confirmed_where_it_lies() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "d-pvc-u");
    for disk in [&disk, &share(&disk)] {
        let path = disk.root().join("d-pvc-u");
        let write = || fs::write(recorded(disk), serde_json::to_vec(&asked).unwrap()).unwrap();
        write();
        fs::create_dir(&path).unwrap();
        assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&asked));
        disk.discard(&asked.volume, &asked.claim.uid).unwrap();
        assert!(!path.exists() && !recorded(disk).exists());
        write();
        fs::create_dir(&path).unwrap();
        disk.scan().unwrap();
        disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
        let error = disk.discard(&asked.volume, &asked.claim.uid).unwrap_err();
        assert!(matches!(error, DiskError::Used(_)), "{error}");
        fs::remove_file(recorded(disk)).unwrap();
        fs::remove_dir(&path).unwrap();
        disk.scan().unwrap();
    }
}

/// What is open stays open: it is opened anew where it was removed, or put back from a backup.
#[test]
fn a_share_whose_records_were_removed_is_out_of_reach() {
    let (_temp, disk) = disk();
    let share = share(&disk);
    share.probe().unwrap();
    fs::remove_dir_all(own(&disk, "")).unwrap();
    assert!(share.probe().is_err());
    assert!(share.make(&record("pvc-u", "d-pvc-u")).is_err());
}
