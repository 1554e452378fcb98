mod copies;
mod keeping;

use super::*;
use crate::class::Quota;
use crate::run::now;
use crate::task;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

fn record(volume: &str, path: &str) -> Record {
    let uid = volume.strip_prefix("pvc-").unwrap();
    Record {
        volume: volume.into(),
        claim: task::Owner {
            namespace: "default".into(),
            name: "c".into(),
            uid: uid.into(),
        },
        path: Subpath::try_from(Box::<str>::from(path)).unwrap(),
        access: Access {
            mode: 0o2770,
            uid: None,
            gid: None,
        },
        on_delete: OnDelete::Delete,
        trash_for: None,
        class: None,
        bytes: 1,
        quota: Quota::None,
        project: None,
        copy_of: None,
        confirmed: false,
    }
}

fn disk() -> (tempfile::TempDir, Disk) {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("root")).unwrap();
    let disk = Disk::open(&temp.path().join("root")).unwrap();
    (temp, disk)
}

fn own(disk: &Disk, rest: &str) -> PathBuf {
    disk.root().join(OWN_DIR).join(rest)
}

const OWN_DIR: &str = crate::pattern::OWN;

fn sweep(disk: &Disk) {
    for volume in disk.to_sweep(now()).unwrap() {
        disk.sweep(&volume, |dir, name| bitts_mount::sweep::remove(dir, name))
            .unwrap();
    }
}

#[test]
fn a_directory_is_made_with_its_mode_and_taken_away() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "ns/c-pvc-u");
    let path = disk.make(&asked).unwrap().whole().unwrap();
    assert_eq!(path, disk.root().join("ns/c-pvc-u"));
    let meta = path.metadata().unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o2770);
    assert_eq!(meta.uid(), rustix::process::getuid().as_raw());
    let own_mode = disk.root().join(OWN_DIR).metadata().unwrap();
    assert_eq!(
        own_mode.permissions().mode() & 0o007,
        0,
        "nobody else may look in"
    );
    disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
    assert!(disk.scan().unwrap()[0].confirmed);
    fs::write(path.join("file"), "x").unwrap();
    disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
    assert!(
        !disk.root().join("ns").exists(),
        "the empty parent goes too"
    );
    assert!(own(&disk, "trash/pvc-u/data/file").exists());
    // Again, as after a death.
    disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
    sweep(&disk);
    assert!(!own(&disk, "trash/pvc-u").exists());
}

/// The table of the module: what each death leaves comes to one directory or none.
#[test]
fn every_death_is_recovered_from() {
    let uid = Uid::from("u");
    let asked = record("pvc-u", "d-pvc-u");
    // After the record: made, or undone.
    let recorded = || {
        let (temp, disk) = disk();
        disk.make(&asked).unwrap();
        fs::remove_dir(disk.root().join("d-pvc-u")).unwrap();
        let again = Disk::open(disk.root()).unwrap();
        (temp, again)
    };
    let (_temp, disk) = recorded();
    assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&asked));
    assert!(disk.make(&asked).unwrap().whole().unwrap().is_dir());
    let (_temp, disk) = recorded();
    disk.discard(&asked.volume, &uid).unwrap();
    assert!(disk.scan().unwrap().is_empty());

    // After the directory, before its mode.
    let (_temp, disk) = recorded();
    let path = disk.root().join("d-pvc-u");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    disk.make(&asked).unwrap();
    assert_eq!(
        path.metadata().unwrap().permissions().mode() & 0o7777,
        0o2770
    );
    disk.discard(&asked.volume, &uid).unwrap();
    assert!(!path.exists() && disk.scan().unwrap().is_empty());

    // A record half written.
    let (_temp, disk) = recorded();
    fs::write(own(&disk, "volumes/pvc-x.json.new"), "{\"volu").unwrap();
    assert_eq!(disk.scan().unwrap().len(), 1);

    // After the data was moved, before its record.
    let (_temp, disk) = recorded();
    let path = disk.make(&asked).unwrap().whole().unwrap();
    fs::create_dir_all(own(&disk, "trash/pvc-u")).unwrap();
    fs::rename(&path, own(&disk, "trash/pvc-u/data")).unwrap();
    assert!(
        disk.to_sweep(now()).unwrap().is_empty(),
        "not before its record says so"
    );
    disk.remove(&asked.volume, &uid, &path).unwrap();
    assert!(disk.scan().unwrap().is_empty());
    sweep(&disk);
    assert!(!own(&disk, "trash/pvc-u").exists());

    // In the middle of the sweep.
    for gone in ["data", "record.json"] {
        let (_temp, disk) = recorded();
        let path = disk.make(&asked).unwrap().whole().unwrap();
        disk.remove(&asked.volume, &uid, &path).unwrap();
        fs::remove_dir(own(&disk, "trash/pvc-u/data")).unwrap();
        if gone == "record.json" {
            fs::remove_file(own(&disk, "trash/pvc-u/record.json")).unwrap();
        }
        sweep(&disk);
        assert!(!own(&disk, "trash/pvc-u").exists());
    }
}

#[test]
fn on_delete_is_what_the_record_says() {
    for (on_delete, stays, in_trash) in [
        (OnDelete::Delete, false, false),
        (OnDelete::Retain, true, false),
        (OnDelete::Trash, false, true),
    ] {
        let (_temp, disk) = disk();
        let asked = Record {
            on_delete,
            ..record("pvc-u", "d-pvc-u")
        };
        let path = disk.make(&asked).unwrap().whole().unwrap();
        fs::write(path.join("file"), "x").unwrap();
        for _again in 0..2 {
            disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
        }
        sweep(&disk);
        assert_eq!(path.join("file").exists(), stays, "{on_delete:?}");
        let kept = own(&disk, "trash/pvc-u/data/file").exists();
        assert_eq!(kept, in_trash, "{on_delete:?}");
        assert!(disk.scan().unwrap().is_empty());
    }
}

/// Amendment 9: what another claim's record says is not touched, and neither is what has none.
#[test]
fn only_what_the_record_names_is_touched() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "d-pvc-u");
    let path = disk.make(&asked).unwrap().whole().unwrap();
    let other = Uid::from("other");
    let foreign = Record {
        claim: task::Owner {
            uid: other.clone(),
            ..asked.claim.clone()
        },
        ..asked.clone()
    };
    for error in [
        disk.make(&foreign).map(drop),
        disk.confirm(&asked.volume, &other),
        disk.discard(&asked.volume, &other),
        disk.remove(&asked.volume, &other, &path),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("names claim u, not other"), "{error}");
    }
    let hand_made = disk.root().join("hand-made");
    fs::create_dir(&hand_made).unwrap();
    let error = disk
        .remove(&"pvc-h".into(), &other, &hand_made)
        .unwrap_err();
    assert!(error.to_string().contains("no record"), "{error}");
    let error = disk.remove(&asked.volume, &asked.claim.uid, &hand_made);
    assert!(
        matches!(error, Err(DiskError::Elsewhere { .. })),
        "{error:?}"
    );
    assert!(path.is_dir() && hand_made.is_dir());
}

/// A volume that may have been used is never undone, and one that somebody wrote to is kept.
#[test]
fn what_was_used_is_not_undone() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "d-pvc-u");
    let path = disk.make(&asked).unwrap().whole().unwrap();
    fs::write(path.join("file"), "x").unwrap();
    let kept = disk.discard(&asked.volume, &asked.claim.uid);
    assert!(matches!(kept, Err(DiskError::NotEmpty(_))), "{kept:?}");
    fs::remove_file(path.join("file")).unwrap();
    disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
    let kept = disk.discard(&asked.volume, &asked.claim.uid);
    assert!(matches!(kept, Err(DiskError::Used(_))), "{kept:?}");
    assert!(path.is_dir());
}

/// Hostile: what is planted at the root is neither entered nor taken for a volume, and nothing
/// outside is touched.
#[test]
fn planted_things_lead_nowhere() {
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant); 8] = [
        ("a link in the volume's place", |root, out| {
            symlink(out, root.join("ns")).unwrap()
        }),
        ("a link as parent", |root, _| {
            symlink("..", root.join("ns")).unwrap()
        }),
        ("a dangling link", |root, _| {
            symlink("nowhere", root.join("ns")).unwrap()
        }),
        ("a file as parent", |root, _| {
            fs::write(root.join("ns"), "x").unwrap()
        }),
        ("a directory in its place", |root, _| {
            fs::create_dir_all(root.join("ns/c-pvc-u")).unwrap()
        }),
        ("a link in its place", |root, out| {
            fs::create_dir(root.join("ns")).unwrap();
            symlink(out, root.join("ns/c-pvc-u")).unwrap();
        }),
        ("a file in its place", |root, _| {
            fs::create_dir(root.join("ns")).unwrap();
            fs::write(root.join("ns/c-pvc-u"), "x").unwrap();
        }),
        ("a record that is a link", |root, out| {
            symlink(
                out.join("kept"),
                root.join(OWN_DIR).join("volumes/pvc-u.json"),
            )
            .unwrap();
        }),
    ];
    for (what, plant) in plants {
        let (temp, disk) = disk();
        let outside = temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        plant(disk.root(), &outside);
        let asked = record("pvc-u", "ns/c-pvc-u");
        for _again in 0..2 {
            let error = disk.make(&asked);
            assert!(error.is_err(), "{what}: {error:?}");
        }
        let discarded = disk.discard(&asked.volume, &asked.claim.uid);
        let removed = disk.remove(
            &asked.volume,
            &asked.claim.uid,
            &disk.root().join("ns/c-pvc-u"),
        );
        sweep(&disk);
        let left: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert_eq!(left.len(), 1, "{what}: {discarded:?} {removed:?}");
        assert_eq!(fs::read(outside.join("kept")).unwrap(), b"x", "{what}");
    }
}

/// Hostile: a link planted in place of a volume that is to be removed, and links within it.
#[test]
fn links_are_not_followed_when_data_goes() {
    let (temp, disk) = disk();
    let outside = temp.path().join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    let asked = record("pvc-u", "d-pvc-u");
    let path = disk.make(&asked).unwrap().whole().unwrap();
    fs::remove_dir(&path).unwrap();
    symlink(&outside, &path).unwrap();
    assert!(disk.remove(&asked.volume, &asked.claim.uid, &path).is_err());
    assert!(path.is_symlink());
    fs::remove_file(&path).unwrap();
    disk.make(&asked).unwrap();
    symlink(&outside, path.join("link")).unwrap();
    symlink("../../..", path.join("up")).unwrap();
    disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
    sweep(&disk);
    assert!(!own(&disk, "trash/pvc-u").exists());
    assert!(outside.join("sub").is_dir() && outside.join("kept").is_file());
}

/// Hostile: a label that makes a volume lie within another claim's, or the other way round.
#[test]
fn no_volume_lies_within_another() {
    let (_temp, disk) = disk();
    disk.make(&record("pvc-a", "x/d-pvc-a")).unwrap();
    for path in ["x/d-pvc-a/pvc-b", "x/d-pvc-a/y/pvc-b", "x", "x/d-pvc-a"] {
        let error = disk.make(&record("pvc-b", path)).unwrap_err();
        assert!(
            matches!(error, DiskError::Overlaps { .. }),
            "{path}: {error}"
        );
    }
    disk.make(&record("pvc-b", "x/d-pvc-b")).unwrap();
    // Also after a restart.
    let again = Disk::open(disk.root()).unwrap();
    assert!(again.make(&record("pvc-c", "x/d-pvc-b/pvc-c")).is_err());
}

/// Hostile: records that nobody can read keep their volumes, and only theirs.
#[test]
fn a_broken_record_keeps_its_volume_only() {
    let (_temp, disk) = disk();
    let good = record("pvc-a", "d-pvc-a");
    disk.make(&good).unwrap();
    let texts = [
        "",
        "{",
        "[]",
        "null",
        "{\"volume\":\"pvc-b\"}",
        &"x".repeat(100_000),
    ];
    let mut evil = serde_json::to_value(record("pvc-b", "d-pvc-b")).unwrap();
    evil["path"] = "../../etc".into();
    let evil = evil.to_string();
    for text in texts.into_iter().chain([&*evil]) {
        fs::write(own(&disk, "volumes/pvc-b.json"), text).unwrap();
        let path = disk.root().join("d-pvc-b");
        fs::create_dir_all(&path).unwrap();
        assert_eq!(
            disk.scan().unwrap(),
            std::slice::from_ref(&good),
            "{text:.20}"
        );
        let broken = record("pvc-b", "d-pvc-b");
        assert!(disk.make(&broken).is_err());
        assert!(
            disk.remove(&broken.volume, &broken.claim.uid, &path)
                .is_err()
        );
        assert!(path.is_dir());
    }
}

#[test]
fn more_than_there_is_does_not_fit() {
    let (_temp, disk) = disk();
    let asked = Record {
        bytes: i64::MAX,
        ..record("pvc-u", "d-pvc-u")
    };
    let error = disk.make(&asked).unwrap_err();
    assert!(matches!(error, DiskError::Full { .. }), "{error}");
    assert!(disk.scan().unwrap().is_empty(), "nothing was begun");
}

/// Hostile: a marker keeps the data, whatever it is.
#[test]
fn a_marker_protects() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "d-pvc-u");
    let path = disk.make(&asked).unwrap().whole().unwrap();
    let marker = path.join(PROTECTED);
    let kinds: [fn(&Path); 3] = [
        |p| fs::write(p, "").unwrap(),
        |p| fs::create_dir(p).unwrap(),
        |p| symlink("nowhere", p).unwrap(),
    ];
    for plant in kinds {
        plant(&marker);
        let error = disk
            .remove(&asked.volume, &asked.claim.uid, &path)
            .unwrap_err();
        assert!(matches!(error, DiskError::Protected(_)), "{error}");
        let _ = fs::remove_file(&marker).or_else(|_| fs::remove_dir(&marker));
    }
    disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
}

fn sized(volume: &str, quota: Quota, bytes: u64) -> Record {
    Record {
        quota,
        bytes: i64::try_from(bytes).unwrap(),
        ..record(volume, &format!("d-{volume}"))
    }
}

/// Promises a disk away in pieces of half of what is free; returns how many.
fn promise_all(disk: &Disk, piece: u64) -> usize {
    let made = |n: &usize| {
        let asked = sized(&format!("pvc-{n}"), Quota::Soft, piece);
        match disk.make(&asked) {
            Ok(_) => true,
            Err(DiskError::Full { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    };
    (0..10_000).take_while(made).count()
}

/// A size that was promised is not promised again, across a restart too.
#[test]
fn what_is_promised_is_kept_free() {
    let (_temp, disk) = disk();
    let piece = disk.room(Quota::Soft).unwrap() / 2;
    let stat = rustix::fs::statvfs(disk.root()).unwrap();
    let most = stat.f_blocks * stat.f_frsize / piece;
    let made = promise_all(&disk, piece);
    assert!(made > 0 && made as u64 <= most, "{made} of {most}");
    for disk in [&disk, &Disk::open(disk.root()).unwrap()] {
        // What was promised is not for those who were promised nothing, either.
        for quota in [Quota::Soft, Quota::None] {
            let error = disk.make(&sized("pvc-b", quota, piece)).unwrap_err();
            assert!(matches!(error, DiskError::Full { .. }), "{error}");
        }
    }
    // What goes gives it back, also where its data stays.
    for (n, on_delete) in [OnDelete::Delete, OnDelete::Retain].into_iter().enumerate() {
        let gone = sized(&format!("pvc-{n}"), Quota::Soft, piece);
        let kept = Record { on_delete, ..gone };
        let disk = Disk::open(disk.root()).unwrap();
        Records::open(&disk.top().unwrap())
            .unwrap()
            .write(&kept)
            .unwrap();
        let path = disk.root().join(kept.path.as_str());
        disk.remove(&kept.volume, &kept.claim.uid, &path).unwrap();
        let next = sized(&format!("pvc-next-{n}"), Quota::Soft, piece);
        disk.make(&next).unwrap();
        let error = disk.make(&sized("pvc-b", Quota::Soft, piece)).unwrap_err();
        assert!(matches!(error, DiskError::Full { .. }), "{error}");
    }
}

/// Without `quota` a size is compared with what is free, and with nothing else.
#[test]
fn what_is_not_promised_is_not_counted() {
    let (_temp, disk) = disk();
    let piece = disk.room(Quota::None).unwrap() / 2;
    for n in 0..64 {
        disk.make(&sized(&format!("pvc-{n}"), Quota::None, piece))
            .unwrap();
    }
}

/// Growing is counted like making.
#[test]
fn more_than_is_left_is_not_grown_to() {
    let (_temp, disk) = disk();
    let soft = sized("pvc-a", Quota::Soft, 1 << 20);
    disk.make(&soft).unwrap();
    let uid = &soft.claim.uid;
    disk.grow(&soft.volume, uid, 2 << 20).unwrap();
    disk.grow(&soft.volume, uid, 1).unwrap();
    assert_eq!(disk.scan().unwrap()[0].bytes, 2 << 20, "never less");
    let error = disk.grow(&soft.volume, uid, i64::MAX).unwrap_err();
    assert!(matches!(error, DiskError::Full { .. }), "{error}");
    let error = disk.grow(&soft.volume, &Uid::from("other"), i64::MAX);
    assert!(matches!(error, Err(DiskError::Foreign { .. })), "{error:?}");
    // What it grew to is promised.
    let piece = disk.room(Quota::Soft).unwrap() / 2;
    promise_all(&disk, piece);
    let more = i64::try_from(piece).unwrap() + (2 << 20);
    let error = disk.grow(&soft.volume, uid, more).unwrap_err();
    assert!(matches!(error, DiskError::Full { .. }), "{error}");
}

/// A file system without project quota makes nothing that needs it, and says what would help.
#[test]
fn where_nothing_can_hold_it_nothing_is_made() {
    let (_temp, disk) = disk();
    let Err(error) = disk.room(Quota::Required) else {
        return; // This machine's has it: the tests in user-mode Linux show the rest.
    };
    assert!(error.to_string().contains("prjquota"), "{error}");
    assert!(error.is_of_this_node());
    let held = Record {
        quota: Quota::Required,
        ..record("pvc-a", "d-pvc-a")
    };
    let error = disk.make(&held).unwrap_err();
    assert!(matches!(error, DiskError::Quota(_)), "{error}");
    assert!(disk.scan().unwrap().is_empty() && !own(&disk, "volumes/pvc-a.json").exists());
    disk.make(&record("pvc-a", "d-pvc-a")).unwrap();
}

mod begun;
