//! The trash and what operators do with it, records of others, and what lies at a root.

use super::*;
use std::time::Duration;

fn trashed(trash_for: Option<u64>) -> (tempfile::TempDir, Disk, Record, PathBuf) {
    let (temp, disk) = disk();
    let asked = Record {
        on_delete: OnDelete::Trash,
        trash_for,
        confirmed: true,
        ..record("pvc-u", "ns/d-pvc-u")
    };
    let path = disk.make(&asked).unwrap().whole().unwrap();
    disk.confirm(&asked.volume, &asked.claim.uid).unwrap();
    fs::write(path.join("file"), "x").unwrap();
    disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
    (temp, disk, asked, path)
}

fn in_trash(disk: &Disk) -> Vec<Trashed> {
    disk.trashed().unwrap()
}

#[test]
fn what_is_in_the_trash_is_put_back() {
    let (_temp, disk, asked, path) = trashed(None);
    let all = in_trash(&disk);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].record.as_ref(), Some(&asked));
    assert_eq!((all[0].fate, all[0].until()), (Fate::Kept, None));
    // Another process does it, and again.
    let other = Disk::open(disk.root()).unwrap();
    for _again in 0..2 {
        assert_eq!(
            other.restore(&asked.volume).unwrap(),
            (asked.clone(), path.clone())
        );
    }
    assert_eq!(fs::read(path.join("file")).unwrap(), b"x");
    assert!(in_trash(&disk).is_empty());
    sweep(&disk);
    assert!(path.join("file").exists(), "what stays is not swept");
    // Nobody takes it for theirs: neither a restarted provisioner nor one that runs on.
    for disk in [&disk, &Disk::open(disk.root()).unwrap()] {
        let within = record("pvc-w", "ns/d-pvc-u/pvc-w");
        let error = disk.make(&within).unwrap_err();
        assert!(matches!(error, DiskError::Overlaps { .. }), "{error}");
        let same = record("pvc-w", "ns/d-pvc-u");
        assert!(disk.make(&same).is_err());
    }
    let none = disk.restore(&"pvc-other".into()).unwrap_err();
    assert!(matches!(none, DiskError::NotTrashed(_)), "{none}");
}

/// Cut off anywhere, it is put back by doing it again, and nothing of it is swept meanwhile.
#[test]
fn a_restore_that_was_cut_off_goes_on() {
    let cuts: [fn(&Disk, &Path); 3] = [
        |_, _| {},
        |disk, path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::rename(own(disk, "restoring/pvc-u/data"), path).unwrap();
        },
        |disk, path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::rename(own(disk, "restoring/pvc-u/data"), path).unwrap();
            let from = own(disk, "restoring/pvc-u/record.json");
            fs::rename(from, own(disk, "retained/pvc-u.json")).unwrap();
        },
    ];
    for cut in cuts {
        let (_temp, disk, asked, path) = trashed(Some(60));
        in_trash(&disk);
        fs::rename(own(&disk, "trash/pvc-u"), own(&disk, "restoring/pvc-u")).unwrap();
        cut(&disk, &path);
        let late = now() + Duration::from_secs(3600);
        assert!(disk.to_sweep(late).unwrap().is_empty());
        assert_eq!(in_trash(&disk)[0].fate, Fate::Restoring);
        disk.restore(&asked.volume).unwrap();
        assert!(path.join("file").exists() && in_trash(&disk).is_empty());
        assert!(own(&disk, "retained/pvc-u.json").exists());
    }
}

/// What took its place meanwhile is not touched, and the data stays in the trash.
#[test]
fn a_place_that_was_taken_keeps_the_data_in_the_trash() {
    type Plant = fn(&Path);
    let plants: [(&str, Plant); 4] = [
        ("a directory", |path| fs::create_dir_all(path).unwrap()),
        ("a file", |path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "theirs").unwrap();
        }),
        ("a link", |path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink("/", path).unwrap();
        }),
        ("a link above", |path| {
            symlink("/tmp", path.parent().unwrap()).unwrap()
        }),
    ];
    for (what, plant) in plants {
        let (_temp, disk, asked, path) = trashed(None);
        plant(&path);
        let error = disk.restore(&asked.volume);
        assert!(error.is_err(), "{what}");
        let all = in_trash(&disk);
        assert_eq!((all.len(), all[0].fate), (1, Fate::Kept), "{what}");
        assert!(own(&disk, "trash/pvc-u/data/file").exists(), "{what}");
    }
}

/// A class says how long data stays in the trash; what leaves is not put back in part.
#[test]
fn the_trash_is_emptied_when_its_time_is_over() {
    let (_temp, disk, asked, _) = trashed(Some(3600));
    let after = |seconds| now() + Duration::from_secs(seconds);
    assert!(disk.to_sweep(after(3500)).unwrap().is_empty());
    assert!(in_trash(&disk)[0].until().is_some());
    assert_eq!(
        disk.to_sweep(after(3700)).unwrap(),
        std::slice::from_ref(&asked.volume)
    );
    assert_eq!(in_trash(&disk)[0].fate, Fate::Leaving);
    let late = disk.restore(&asked.volume).unwrap_err();
    assert!(matches!(late, DiskError::NotTrashed(_)), "{late}");
    sweep(&disk);
    assert!(in_trash(&disk).is_empty());
    assert!(!own(&disk, "leaving/pvc-u").exists());
}

/// A process that died while it wrote a record leaves a file that no volume needs.
#[test]
fn what_was_half_written_goes() {
    let (_temp, disk) = disk();
    disk.make(&record("pvc-u", "d-pvc-u")).unwrap();
    let half = own(&disk, "volumes/pvc-x.json.new");
    fs::write(&half, "{").unwrap();
    sweep(&disk);
    assert!(half.exists(), "somebody may be writing it");
    disk.to_sweep(now() + Duration::from_secs(2 * 3600))
        .unwrap();
    assert!(!half.exists());
    assert_eq!(disk.scan().unwrap().len(), 1);
}

#[test]
fn the_trash_is_purged_by_name() {
    let (_temp, disk, asked, _) = trashed(None);
    let none = disk.purge(&"pvc-other".into()).unwrap_err();
    assert!(matches!(none, DiskError::NotTrashed(_)), "{none}");
    for _again in 0..2 {
        disk.purge(&asked.volume).unwrap();
    }
    sweep(&disk);
    assert!(in_trash(&disk).is_empty());
    for bad in ["..", "a/b", ""] {
        assert!(disk.purge(&bad.into()).is_err());
        assert!(disk.restore(&bad.into()).is_err());
    }
    // One whose removal is not over yet.
    let (_temp, disk, asked, path) = trashed(None);
    let record = own(&disk, "trash/pvc-u/record.json");
    fs::rename(record, own(&disk, "volumes/pvc-u.json")).unwrap();
    for error in [
        disk.purge(&asked.volume).unwrap_err(),
        disk.restore(&asked.volume).unwrap_err(),
    ] {
        assert!(matches!(error, DiskError::Unfinished(_)), "{error}");
    }
    disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
    disk.restore(&asked.volume).unwrap();
}

/// What is nobody's is moved to the trash whatever its class says, and only for its own claim.
#[test]
fn what_is_nobodys_is_set_aside() {
    let (_temp, disk) = disk();
    let asked = record("pvc-u", "d-pvc-u");
    let path = disk.make(&asked).unwrap().whole().unwrap();
    fs::write(path.join("file"), "x").unwrap();
    let foreign = disk.set_aside(&asked.volume, &"other".into()).unwrap_err();
    assert!(matches!(foreign, DiskError::Foreign { .. }), "{foreign}");
    assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&asked));
    fs::write(path.join(PROTECTED), "").unwrap();
    assert!(disk.set_aside(&asked.volume, &asked.claim.uid).is_err());
    fs::remove_file(path.join(PROTECTED)).unwrap();
    for _again in 0..2 {
        disk.set_aside(&asked.volume, &asked.claim.uid).unwrap();
    }
    sweep(&disk);
    assert!(!path.exists() && disk.scan().unwrap().is_empty());
    assert!(
        own(&disk, "trash/pvc-u/data/file").exists(),
        "its class said delete: kept all the same"
    );
}

#[test]
fn a_directory_of_another_provisioner_is_taken_over() {
    let (temp, disk) = disk();
    let asked = Record {
        copy_of: None,
        confirmed: true,
        ..record("pvc-u", "default-c-pvc-u")
    };
    let none = disk.adopt(&asked).unwrap_err();
    assert!(matches!(none, DiskError::NoDirectory(_)), "{none}");
    let path = disk.root().join("default-c-pvc-u");
    symlink(temp.path(), &path).unwrap();
    assert!(disk.adopt(&asked).is_err(), "a link is no directory");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for _again in 0..2 {
        disk.adopt(&asked).unwrap();
    }
    assert_eq!(disk.scan().unwrap(), std::slice::from_ref(&asked));
    let second = Record {
        copy_of: None,
        confirmed: true,
        ..record("pvc-w", "default-c-pvc-u")
    };
    assert!(disk.adopt(&second).is_err(), "two volumes of one directory");
    disk.remove(&asked.volume, &asked.claim.uid, &path).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_census_tells_what_is_there() {
    let (temp, disk) = disk();
    disk.make(&record("pvc-a", "x/d-pvc-a")).unwrap();
    let half = record("pvc-b", "x/y/d-pvc-b");
    disk.make(&half).unwrap();
    fs::remove_dir(disk.root().join("x/y/d-pvc-b")).unwrap();
    let kept = Record {
        on_delete: OnDelete::Retain,
        ..record("pvc-k", "k-pvc-k")
    };
    let path = disk.make(&kept).unwrap().whole().unwrap();
    disk.remove(&kept.volume, &kept.claim.uid, &path).unwrap();
    fs::write(own(&disk, "volumes/pvc-z.json"), "{").unwrap();
    for stray in ["lost+found", "stray", "x/d-pvc-a/inside", "x/other/deep"] {
        fs::create_dir_all(disk.root().join(stray)).unwrap();
    }
    symlink(temp.path(), disk.root().join("link")).unwrap();
    fs::write(disk.root().join("file"), "x").unwrap();
    let census = disk.census().unwrap();
    let found: Vec<_> = census
        .volumes
        .iter()
        .map(|f| (f.record.volume.as_str(), f.is_there))
        .collect();
    assert_eq!(found, [("pvc-a", true), ("pvc-b", false)]);
    assert_eq!(census.retained.len(), 1);
    assert!(census.retained[0].is_there);
    assert_eq!(census.unreadable[0].0, *"pvc-z");
    let strays: Vec<_> = census
        .strays
        .iter()
        .map(|s| (&*s.path, s.is_empty))
        .collect();
    assert_eq!(strays, [("stray", true), ("x/other", false)]);
}
