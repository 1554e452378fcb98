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

/// Whoever notes that the API has a volume may die when that is half done.
#[test]
fn of_two_records_the_one_that_is_known_counts() {
    type Then = fn(&Disk, &Record);
    let removed: Then = |disk, record| {
        let path = disk.root().join("d-pvc-u");
        disk.remove(&record.volume, &record.claim.uid, &path)
            .unwrap();
    };
    let retained: Then = |disk, record| {
        let kept = Record {
            on_delete: OnDelete::Retain,
            confirmed: true,
            ..record.clone()
        };
        fs::write(recorded(disk), serde_json::to_vec(&kept).unwrap()).unwrap();
        let path = disk.root().join("d-pvc-u");
        disk.remove(&record.volume, &record.claim.uid, &path)
            .unwrap();
        let kept = own(disk, "retained/pvc-u.json");
        assert!(kept.symlink_metadata().unwrap().is_file());
    };
    let confirmed: Then = |disk, record| {
        disk.confirm(&record.volume, &record.claim.uid).unwrap();
        assert!(is_there(&recorded(disk)) && !is_there(&begun(disk)));
    };
    let scanned: Then = |disk, record| {
        let known = disk.scan().unwrap();
        assert!(known.len() == 1 && known[0].confirmed && known[0].volume == record.volume);
    };
    let all = [
        (removed, false),
        (retained, false),
        (confirmed, true),
        (scanned, true),
    ];
    for (then, stays) in all {
        let asked = record("pvc-u", "d-pvc-u");
        for is_share in [false, true] {
            let (_temp, disk) = disk();
            let disk = if is_share { &share(&disk) } else { &disk };
            disk.make(&asked).unwrap();
            let text = fs::read_link(begun(disk)).unwrap();
            disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
            std::os::unix::fs::symlink(&text, begun(disk)).unwrap();
            let known = Record {
                confirmed: true,
                ..asked.clone()
            };
            assert_eq!(disk.find(&asked.volume).unwrap().as_ref(), Some(&known));
            let error = disk.discard(&asked.volume, &asked.claim.uid).unwrap_err();
            assert!(matches!(error, DiskError::Used(_)), "{error}");
            then(disk, &asked);
            assert!(!is_there(&begun(disk)));
            assert_eq!(is_there(&recorded(disk)), stays);
        }
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
        std::os::unix::fs::symlink(&out, begun(disk)).unwrap();
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
        disk.to_sweep(now()).unwrap();
        assert!(!begun(&disk).exists());
        assert_eq!(disk.scan().unwrap(), [whole], "a whole one stays");
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
