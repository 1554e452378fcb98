use super::*;
use crate::task::CopyOf;

fn copy_of(source: &str, volume: &str, path: &str) -> Record {
    Record {
        copy_of: Some(CopyOf {
            volume: source.into(),
            whole: false,
        }),
        ..record(volume, path)
    }
}

/// A disk with a volume that has a file.
fn with_source() -> (tempfile::TempDir, Disk, Record, PathBuf) {
    let (temp, disk) = disk();
    let source = record("pvc-s", "s-pvc-s");
    let path = disk.make(&source).unwrap().whole().unwrap();
    disk.confirm(&source.volume, &source.claim.uid).unwrap();
    fs::write(path.join("file"), "data").unwrap();
    (temp, disk, source, path)
}

fn is_being_copied(disk: &Disk, record: &Record) -> bool {
    matches!(disk.make(record).unwrap(), Made::Copying { .. })
}

#[test]
fn a_copy_is_there_once_it_is_whole() {
    let (_temp, disk, _, source) = with_source();
    let copy = copy_of("pvc-s", "pvc-c", "ns/c-pvc-c");
    assert!(is_being_copied(&disk, &copy));
    assert!(!disk.root().join("ns").exists());
    disk.copy_all();
    assert!(
        !disk.root().join("ns").exists(),
        "only what is asked for is put there"
    );
    let path = disk.make(&copy).unwrap().whole().unwrap();
    assert_eq!(path, disk.root().join("ns/c-pvc-c"));
    assert_eq!(fs::read(path.join("file")).unwrap(), b"data");
    assert_eq!(fs::read_dir(own(&disk, "copying")).unwrap().count(), 0);
    fs::write(path.join("file"), "other").unwrap();
    assert_eq!(fs::read(source.join("file")).unwrap(), b"data");
    // Again is right, and changes nothing.
    assert_eq!(disk.make(&copy).unwrap(), Made::Whole(path.clone()));
    assert_eq!(fs::read(path.join("file")).unwrap(), b"other");
    disk.confirm(&copy.volume, &copy.claim.uid).unwrap();
    disk.remove(&copy.volume, &copy.claim.uid, &path).unwrap();
    sweep(&disk);
    assert!(!path.exists() && source.join("file").exists());
}

/// Whatever is there when the process dies, the next one makes it whole.
#[test]
fn a_death_anywhere_leaves_no_part_of_a_copy() {
    let copy = copy_of("pvc-s", "pvc-c", "c-pvc-c");
    type Death = fn(&Disk, &Record);
    let deaths: [(&str, Death); 4] = [
        ("the record", |_, _| {}),
        ("part of the data", |disk, _| {
            let part = own(disk, "copying/pvc-c/data/part");
            fs::create_dir_all(part.parent().unwrap()).unwrap();
            fs::write(part, "half").unwrap();
        }),
        ("all of it", |disk, _| disk.copy_all()),
        ("it in its place", |disk, copy| {
            disk.copy_all();
            let from = own(disk, "copying/pvc-c/data");
            fs::rename(from, disk.root().join(copy.path.as_str())).unwrap();
        }),
    ];
    for (what, death) in deaths {
        let (_temp, disk, _, _) = with_source();
        assert!(is_being_copied(&disk, &copy), "{what}");
        death(&disk, &copy);
        let again = Disk::open(disk.root()).unwrap();
        let path = match again.make(&copy).unwrap() {
            Made::Whole(path) => path,
            Made::Copying { .. } => {
                again.copy_all();
                again.make(&copy).unwrap().whole().unwrap()
            }
        };
        let names = fs::read_dir(&path).unwrap();
        let names: Vec<_> = names.map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{what}");
        assert_eq!(
            fs::read_dir(own(&disk, "copying")).unwrap().count(),
            0,
            "{what}"
        );
    }
}

#[test]
fn what_is_copied_stays_until_that_is_done() {
    let (_temp, disk, source, path) = with_source();
    let copy = copy_of("pvc-s", "pvc-c", "c-pvc-c");
    assert!(is_being_copied(&disk, &copy));
    let remove = || disk.remove(&source.volume, &source.claim.uid, &path);
    assert!(matches!(remove(), Err(DiskError::BeingCopied(_))));
    disk.copy_all();
    remove().unwrap();
    assert!(
        disk.make(&copy)
            .unwrap()
            .whole()
            .unwrap()
            .join("file")
            .exists()
    );
}

#[test]
fn a_copy_of_what_is_gone_is_refused_and_tried_again() {
    let (_temp, disk, source, path) = with_source();
    disk.remove(&source.volume, &source.claim.uid, &path)
        .unwrap();
    let copy = copy_of("pvc-s", "pvc-c", "c-pvc-c");
    for _ in 0..2 {
        assert!(is_being_copied(&disk, &copy));
        disk.copy_all();
        let error = disk.make(&copy).unwrap_err().to_string();
        assert!(
            error.contains("pvc-s, which it is to be a copy of"),
            "{error}"
        );
    }
    disk.discard(&copy.volume, &copy.claim.uid).unwrap();
    assert_eq!(fs::read_dir(own(&disk, "volumes")).unwrap().count(), 0);
}

#[test]
fn a_copy_that_nobody_wants_goes_whatever_there_is_of_it() {
    let copy = copy_of("pvc-s", "pvc-c", "c-pvc-c");
    let discard = |disk: &Disk| disk.discard(&copy.volume, &copy.claim.uid).unwrap();
    let (_temp, disk, _, _) = with_source();
    assert!(is_being_copied(&disk, &copy));
    discard(&disk); // not begun
    assert!(is_being_copied(&disk, &copy));
    disk.copy_all();
    discard(&disk); // whole, and not in its place
    sweep(&disk);
    assert_eq!(fs::read_dir(own(&disk, "leaving")).unwrap().count(), 0);
    assert!(is_being_copied(&disk, &copy));
    disk.copy_all();
    let path = disk.make(&copy).unwrap().whole().unwrap();
    discard(&disk); // a volume that the API never had, as far as is known
    assert!(!path.exists());
    sweep(&disk);
    let trashed = disk.trashed().unwrap();
    let since = trashed[0].since;
    assert_eq!(trashed[0].until(), Some(since + 24 * 60 * 60));
    assert!(own(&disk, "trash/pvc-c/data/file").exists());
    assert_eq!(disk.scan().unwrap().len(), 1, "the source");
}

#[test]
fn what_somebody_else_put_there_is_not_touched() {
    let (_temp, disk, _, _) = with_source();
    let copy = copy_of("pvc-s", "pvc-c", "c-pvc-c");
    let theirs = disk.root().join("c-pvc-c/theirs");
    for whole in [false, true] {
        assert!(is_being_copied(&disk, &copy));
        if whole {
            disk.copy_all();
        }
        fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        fs::write(&theirs, "x").unwrap();
        assert!(
            matches!(disk.make(&copy), Err(DiskError::Taken(_))),
            "{whole}"
        );
        disk.discard(&copy.volume, &copy.claim.uid).unwrap();
        assert!(theirs.exists(), "{whole}");
        fs::remove_dir_all(theirs.parent().unwrap()).unwrap();
    }
}
