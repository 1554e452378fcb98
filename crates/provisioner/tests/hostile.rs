//! Hostile input, case by case: patterns, labels, names, parameters, objects, and what is planted on the
//! disk. Whatever it is, who asked is told or gets a directory of his own; nothing outside the disk is
//! touched, and nothing of another claim can be reached.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use bitts_api::{Kind, ObjectKey};
use serde_json::{Value, json};
use support::{World, claim, class, exists};

/// What comes of a case.
enum Comes {
    /// The claim, its volume or its class is told so much, and nothing is made.
    Told(&'static str),
    /// A directory of its own at the root, as any other.
    Own,
}
use Comes::{Own, Told};

type Plant = fn(root: &Path, outside: &Path);

struct Case {
    what: &'static str,
    class: Value,
    claim: Value,
    plant: Plant,
    comes: Comes,
}

fn case(what: &'static str, class: Value, claim: Value, plant: Plant, comes: Comes) -> Case {
    Case {
        what,
        class,
        claim,
        plant,
        comes,
    }
}

/// A class with this pattern.
fn pattern(text: &'static str, comes: Comes) -> Case {
    let class = json!({"parameters": {"pathPattern": text}});
    case(text, class, json!({}), |_, _| {}, comes)
}

/// A class with this parameter.
fn parameter(name: &'static str, value: &'static str, comes: Comes) -> Case {
    let class = json!({"parameters": {name: value}});
    case(name, class, json!({}), |_, _| {}, comes)
}

/// A claim with this label, which is part of the path.
fn label(value: &'static str, comes: Comes) -> Case {
    let class = json!({"parameters": {"pathPattern": "${pvc.labels.team}/${pv.name}"}});
    let claim = json!({"metadata": {"labels": {"team": value}}});
    case(value, class, claim, |_, _| {}, comes)
}

/// A claim that says something else.
fn asks(what: &'static str, claim: Value, comes: Comes) -> Case {
    case(what, json!({}), claim, |_, _| {}, comes)
}

/// Something that lies on the disk already.
fn planted(what: &'static str, plant: Plant, comes: Comes) -> Case {
    let class = json!({"parameters": {"pathPattern": "ns/${pv.name}"}});
    case(what, class, json!({}), plant, comes)
}

fn long() -> &'static str {
    const LONG: [u8; 300] = [b'x'; 300];
    std::str::from_utf8(&LONG).unwrap()
}

const PLACE: &str = "ns/pvc-evil";
const RECORD: &str = ".bitts/volumes/pvc-evil.json";
const BEGUN: &str = ".bitts/begun/pvc-evil.json";

fn record(root: &Path, change: impl FnOnce(&mut Value)) {
    let mut text = json!({"volume": "pvc-evil", "path": PLACE,
        "claim": {"namespace": "default", "name": "evil", "uid": "evil"},
        "access": {"mode": 504, "uid": null, "gid": null}, "onDelete": "delete", "bytes": 1});
    change(&mut text);
    fs::write(root.join(RECORD), text.to_string()).unwrap();
}

fn cases() -> Vec<Case> {
    let elsewhere = "cannot be part of the path";
    let shared = "no two claims may share";
    let mut all = vec![
        // Patterns.
        pattern("../${pv.name}", Told(elsewhere)),
        pattern("a/../${pv.name}", Told(elsewhere)),
        pattern("./${pv.name}", Told(elsewhere)),
        pattern("/${pv.name}", Told(elsewhere)),
        pattern("//etc/${pv.name}", Told(elsewhere)),
        pattern("a//${pv.name}", Told(elsewhere)),
        pattern("${pv.name}/", Told(elsewhere)),
        pattern("${pv.name}/..", Told(elsewhere)),
        pattern(".bitts/${pv.name}", Told(elsewhere)),
        pattern(".bitts/volumes/${pv.name}", Told(elsewhere)),
        pattern("a\n${pv.name}", Told(elsewhere)),
        pattern("a\0${pv.name}", Told(elsewhere)),
        pattern(
            "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/${pv.name}",
            Told("more than 16"),
        ),
        pattern("", Told(elsewhere)),
        pattern("victim", Told(shared)),
        pattern("default-victim-pvc-victim", Told(shared)),
        pattern(
            "default-victim-pvc-victim/${pv.name}",
            Told("would overlap"),
        ),
        pattern("${pvc.name}", Told(shared)),
        pattern("${pvc.namespace}/${pvc.name}", Told(shared)),
        pattern("${pv.name}/data", Told(shared)),
        pattern("${pvc.labels.team}", Told(shared)),
        pattern("${pv.name", Told("without \"}\"")),
        pattern("${}", Told("is none of")),
        pattern("${pvc}", Told("is none of")),
        pattern("${pvc.spec.volumeName}-${pv.name}", Told("is none of")),
        pattern("${pvc.labels.}-${pv.name}", Told("is none of")),
        pattern("${env.HOME}-${pv.name}", Told("is none of")),
        pattern("$(reboot)-${pv.name}", Own),
        pattern("`reboot`;${pv.name}", Own),
        pattern("%2e%2e%2f${pv.name}", Own),
        pattern("{{ .PVName }}-${pv.name}", Own),
        // Labels, whatever the API made of them.
        label("..", Told(elsewhere)),
        label(".", Told(elsewhere)),
        label("", Told("cannot be part of a directory's name")),
        label("../..", Told("cannot be part of a directory's name")),
        label("/etc", Told("cannot be part of a directory's name")),
        label("a\nb", Told("cannot be part of a directory's name")),
        label(".bitts", Told(elsewhere)),
        label("default-victim-pvc-victim", Told("would overlap")),
        label(long(), Told("longer than 255")),
        label("${pv.name}", Own),
        label("-rf", Own),
        // Parameters.
        parameter("mode", "0999", Told("octal digits")),
        parameter("mode", "77777", Told("octal digits")),
        parameter("mode", "-1", Told("octal digits")),
        parameter("mode", "0o770", Told("octal digits")),
        parameter("mode", "0", Told("lets anybody in")),
        parameter("uid", "root", Told("no number")),
        parameter("uid", "4294967295", Told("no number")),
        parameter("gid", "-1", Told("no number")),
        parameter("gid", "0x0", Told("no number")),
        parameter("onDelete", "rm -rf /", Told("none of delete")),
        parameter("onDelete", "Delete", Told("none of delete")),
        parameter("trashFor", "-1h", Told("a minute or more")),
        parameter("trashFor", "1s", Told("a minute or more")),
        parameter("pathpattern", "x", Told("did you mean \"pathPattern\"")),
        parameter("server", "nas", Told("unknown parameter")),
        parameter("__proto__", "x", Told("unknown parameter")),
        parameter("nodePath", "/etc", Told("unknown parameter")),
        parameter("setupCommand", "reboot", Told("unknown parameter")),
        // Claims.
        asks(
            "no size",
            json!({"spec": {"resources": {"requests": {"storage": "0"}}}}),
            Told("no size"),
        ),
        asks(
            "more than there is",
            json!({"spec": {"resources": {"requests": {"storage": "7Ei"}}}}),
            Told("bytes free"),
        ),
        asks(
            "a block device",
            json!({"spec": {"volumeMode": "Block"}}),
            Told("Block"),
        ),
        asks(
            "no such mode",
            json!({"spec": {"accessModes": ["Always"]}}),
            Told("access mode"),
        ),
        asks(
            "a selector",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
            Told("selector"),
        ),
        asks(
            "a snapshot's data",
            json!({"spec": {"dataSource": {"kind": "VolumeSnapshot", "name": "victim"}}}),
            Told("dataSource"),
        ),
        asks(
            "a namespace that leads up",
            json!({"metadata": {"namespace": ".."}}),
            Own,
        ),
        asks("a long name", json!({"metadata": {"name": long()}}), Own),
        // On the disk.
        planted(
            "a link in the place",
            |root, out| {
                fs::create_dir(root.join("ns")).unwrap();
                symlink(out, root.join(PLACE)).unwrap();
            },
            Told("already"),
        ),
        planted(
            "a link to the victim in the place",
            |root, _| {
                fs::create_dir(root.join("ns")).unwrap();
                symlink("../default-victim-pvc-victim", root.join(PLACE)).unwrap();
            },
            Told("already"),
        ),
        planted(
            "a dangling link in the place",
            |root, _| {
                fs::create_dir(root.join("ns")).unwrap();
                symlink("nowhere", root.join(PLACE)).unwrap();
            },
            Told("already"),
        ),
        planted(
            "a link as the parent",
            |root, out| symlink(out, root.join("ns")).unwrap(),
            Told("symbolic link"),
        ),
        planted(
            "a link to the victim as the parent",
            |root, _| {
                symlink("default-victim-pvc-victim", root.join("ns")).unwrap();
            },
            Told("symbolic link"),
        ),
        planted(
            "a link up as the parent",
            |root, _| symlink("..", root.join("ns")).unwrap(),
            Told("symbolic link"),
        ),
        planted(
            "a file as the parent",
            |root, _| fs::write(root.join("ns"), "").unwrap(),
            Told(""),
        ),
        planted(
            "a file in the place",
            |root, _| {
                fs::create_dir(root.join("ns")).unwrap();
                fs::write(root.join(PLACE), "").unwrap();
            },
            Told("already"),
        ),
        planted(
            "a socket in the place",
            |root, _| {
                fs::create_dir(root.join("ns")).unwrap();
                std::os::unix::net::UnixListener::bind(root.join(PLACE)).unwrap();
            },
            Told("already"),
        ),
        planted(
            "a directory in the place",
            |root, _| fs::create_dir_all(root.join(PLACE)).unwrap(),
            Told("already"),
        ),
        planted(
            "a full directory in the place",
            |root, _| {
                fs::create_dir_all(root.join(PLACE)).unwrap();
                fs::write(root.join(PLACE).join("file"), "x").unwrap();
            },
            Told("already"),
        ),
        planted(
            "a record that is a link",
            |root, out| {
                symlink(out.join("kept"), root.join(RECORD)).unwrap();
            },
            Told("cannot be read"),
        ),
        planted(
            "a record that is a directory",
            |root, _| fs::create_dir(root.join(RECORD)).unwrap(),
            Told("cannot be read"),
        ),
        planted(
            "a record that is nothing",
            |root, _| fs::write(root.join(RECORD), "").unwrap(),
            Told("cannot be read"),
        ),
        planted(
            "a record without an end",
            |root, _| {
                fs::write(root.join(RECORD), "[".repeat(100_000)).unwrap();
            },
            Told("cannot be read"),
        ),
        planted(
            "a record that leads up",
            |root, _| {
                record(root, |record| record["path"] = "../outside/sub".into());
            },
            Told("cannot be read"),
        ),
        planted(
            "a record that leads to bitts' own",
            |root, _| {
                record(root, |record| record["path"] = ".bitts/volumes".into());
            },
            Told("cannot be read"),
        ),
        planted(
            "a record that leads to the victim",
            |root, _| {
                record(root, |record| {
                    record["path"] = "default-victim-pvc-victim".into()
                });
            },
            Told("would overlap"),
        ),
        planted(
            "a record that leads into the victim",
            |root, _| {
                record(root, |record| {
                    record["path"] = "default-victim-pvc-victim/sub".into()
                });
            },
            Told("would overlap"),
        ),
        planted(
            "a record for another claim",
            |root, _| {
                record(root, |record| record["claim"]["uid"] = "other".into());
            },
            Told("names claim other"),
        ),
        planted(
            "a record half written",
            |root, _| fs::write(root.join(BEGUN), "{").unwrap(),
            Own,
        ),
        planted(
            "a new record that is a link",
            |root, out| {
                symlink(out.join("kept"), root.join(BEGUN)).unwrap();
            },
            Told("cannot be read"),
        ),
        planted(
            "a new record that is a link to nothing",
            |root, out| {
                symlink(out.join("none"), root.join(BEGUN)).unwrap();
            },
            Told("cannot be read"),
        ),
        planted(
            "a new record that is a directory",
            |root, _| fs::create_dir(root.join(BEGUN)).unwrap(),
            Told("cannot be read"),
        ),
        planted(
            "what takes the place of a half record is a link",
            |root, out| {
                fs::write(root.join(BEGUN), "{").unwrap();
                symlink(out.join("kept"), root.join(format!("{BEGUN}.new"))).unwrap();
            },
            Told("writing"),
        ),
        planted(
            "the new records are a link",
            |root, out| {
                fs::rename(root.join(".bitts/begun"), root.join(".bitts/away")).unwrap();
                symlink(out, root.join(".bitts/begun")).unwrap();
            },
            Told(""),
        ),
        planted(
            "the records are a link",
            |root, out| {
                fs::rename(root.join(".bitts/volumes"), root.join(".bitts/away")).unwrap();
                symlink(out, root.join(".bitts/volumes")).unwrap();
            },
            Told(""),
        ),
        planted(
            "bitts' own is a link",
            |root, out| {
                fs::rename(root.join(".bitts"), root.join("away")).unwrap();
                symlink(out, root.join(".bitts")).unwrap();
            },
            Told(""),
        ),
        planted(
            "the disk is gone",
            |root, _| fs::rename(root, root.with_extension("gone")).unwrap(),
            Told(""),
        ),
        planted(
            "the disk is a file",
            |root, _| {
                fs::rename(root, root.with_extension("gone")).unwrap();
                fs::write(root, "").unwrap();
            },
            Told(""),
        ),
    ];
    all.retain(|case| !case.what.is_empty() || case.class != json!({}));
    all
}

/// Everything there is below a directory, with what is in it.
fn snapshot(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = match meta.is_file() {
                true => fs::read_to_string(&path).unwrap(),
                false => String::new(),
            };
            all.push(format!("{} {:o} {content}", path.display(), meta.mode()));
            if meta.is_dir() {
                next.push(path);
            }
        }
    }
    all.sort();
    all
}

/// A world in which another claim has a volume with a secret, beside a tree that is none of ours.
fn victim(temp: &Path) -> World {
    let mut world = World::new();
    world.put(Kind::Claim, claim("victim", "victim", "fast"));
    world.start();
    world.run();
    world.bind();
    world.run();
    fs::write(world.root().join("default-victim-pvc-victim/secret"), "s").unwrap();
    fs::create_dir_all(temp.join("sub")).unwrap();
    fs::write(temp.join("kept"), "x").unwrap();
    world.clear();
    world
}

#[test]
fn hostile_input_is_told_and_reaches_nothing() {
    let all = cases();
    assert!(all.len() >= 64, "{}", all.len());
    for case in all {
        let what = case.what;
        let outside = tempfile::tempdir().unwrap();
        let mut world = victim(outside.path());
        let root = world.root();
        (case.plant)(&root, outside.path());
        let before = snapshot(outside.path());
        world.put(Kind::StorageClass, class("evil", case.class));
        let mut asked = claim("evil", "evil", "evil");
        support::merge(&mut asked, &case.claim);
        let key = world.put(Kind::Claim, asked);
        // As a process that runs on, and as one that was started again.
        for restart in [false, true] {
            if restart {
                world.start();
            }
            world.settle();
            world.bind();
            world.settle();
        }
        let volume = world.objects.get(&ObjectKey::volume("pvc-evil"));
        let path = volume.map(|v| v["spec"]["local"]["path"].as_str().unwrap().to_owned());
        let told = [world.told(), world.told_of_classes()].concat().join("\n");
        match (case.comes, path) {
            (Told(words), None) => {
                assert!(
                    told.contains("Warning") || told.contains("Bitts"),
                    "{what}: {told}"
                );
                assert!(told.contains(words), "{what}: {told}");
            }
            (Own, Some(path)) => {
                let path = Path::new(&path);
                let real = path.canonicalize().unwrap();
                assert_eq!(real, path, "{what}: it is where it says");
                assert!(real.starts_with(&root) && real != root, "{what}: {path:?}");
                assert!(!real.starts_with(root.join("default-victim-pvc-victim")));
                assert!(!real.starts_with(root.join(".bitts")));
                assert_eq!(fs::read_dir(&real).unwrap().count(), 0, "{what}");
            }
            (_, path) => panic!("{what}: {path:?} was made; {told}"),
        }
        // It goes again, and takes nothing along.
        world.delete(&key);
        world.bind();
        world.settle();
        if root.join(".bitts").is_dir() && !root.join(".bitts").is_symlink() {
            let swept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.sweep()));
            drop(swept); // where its own directory was replaced it fails
        }
        assert_eq!(snapshot(outside.path()), before, "{what}");
        let gone = root.with_extension("gone");
        let root = if gone.exists() { gone } else { root };
        let secret = root.join("default-victim-pvc-victim/secret");
        assert_eq!(fs::read_to_string(secret).unwrap(), "s", "{what}");
    }
}

/// Objects that were changed after the volume was made: nothing but its own directory ever goes.
#[test]
fn a_changed_volume_takes_nothing_along() {
    let edits = [
        json!({"spec": {"local": {"path": "/"}}}),
        json!({"spec": {"local": {"path": "OUT"}}}),
        json!({"spec": {"local": {"path": "ROOT"}}}),
        json!({"spec": {"local": {"path": "ROOT/.bitts"}}}),
        json!({"spec": {"local": {"path": "ROOT/default-victim-pvc-victim"}}}),
        json!({"spec": {"local": {"path": "ROOT/default-evil-pvc-evil/../default-victim-pvc-victim"}}}),
        json!({"spec": {"local": {"path": "ROOT/default-evil-pvc-evil/"}}}),
        json!({"spec": {"local": {"path": ""}}}),
        json!({"spec": {"local": null, "hostPath": {"path": "OUT"}}}),
        json!({"spec": {"local": null, "nfs": {"server": "nas", "path": "/"}}}),
        json!({"spec": {"claimRef": {"name": "victim", "uid": "victim"}}}),
        json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["other"]}]}]}}}}),
    ];
    for edit in edits {
        let outside = tempfile::tempdir().unwrap();
        let mut world = victim(outside.path());
        world.put(Kind::StorageClass, class("evil", json!({})));
        let key = world.put(Kind::Claim, claim("evil", "evil", "evil"));
        world.settle();
        world.bind();
        world.settle();
        let before = snapshot(outside.path());
        let root = world.root();
        let text = edit
            .to_string()
            .replace("OUT", outside.path().to_str().unwrap());
        let text = text.replace("ROOT", root.to_str().unwrap());
        let volume = ObjectKey::volume("pvc-evil");
        world.clear();
        world.edit(&volume, &serde_json::from_str(&text).unwrap());
        world.delete(&key);
        world.bind();
        world.settle();
        assert_eq!(snapshot(outside.path()), before, "{edit}");
        let secret = root.join("default-victim-pvc-victim/secret");
        assert_eq!(fs::read_to_string(secret).unwrap(), "s", "{edit}");
        // Either its own directory went, or why not is told.
        if exists(&root.join("default-evil-pvc-evil")) && world.objects.contains_key(&volume) {
            let told = world.told().join("\n");
            let of_claim = edit["spec"]["claimRef"].is_object();
            assert!(
                of_claim || told.contains("VolumeFailedDelete"),
                "{edit}: {told}"
            );
        }
    }
}

/// Two provisioners that go by one name on one disk make one directory for a claim, and take it once.
#[test]
fn two_provisioners_of_one_name_and_disk() {
    use bitts_provisioner::disk::Disk;

    let temp = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let uid = format!("u{round}");
        let record = json!({"volume": format!("pvc-{uid}"), "path": format!("d-pvc-{uid}"),
            "claim": {"namespace": "default", "name": "c", "uid": uid},
            "access": {"mode": 504, "uid": null, "gid": null}, "onDelete": "delete", "bytes": 1});
        let record: bitts_provisioner::Record = serde_json::from_value(record).unwrap();
        let both = |act: &(dyn Fn(&Disk) + Sync)| {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| act(&Disk::open(temp.path()).unwrap()));
                }
            });
        };
        // One may be told that the other is faster; it tries again.
        both(&|disk| {
            let made = (0..100).find_map(|_| disk.make(&record).ok()?.whole());
            assert!(made.is_some_and(|path| path.is_dir()));
        });
        let disk = Disk::open(temp.path()).unwrap();
        let path = temp.path().join(record.path.as_str());
        both(&|disk| {
            let removed = |_| disk.remove(&record.volume, &record.claim.uid, &path).ok();
            assert!((0..100).find_map(removed).is_some());
        });
        assert!(!path.exists() && disk.scan().unwrap().is_empty(), "{uid}");
    }
    let disk = Disk::open(temp.path()).unwrap();
    let census = disk.census().unwrap();
    assert!(
        census.strays.is_empty() && census.unreadable.is_empty(),
        "{census:?}"
    );
}

/// Two of one name on disks of their own: the volume is where its object says, and what the other made
/// goes.
#[test]
fn two_provisioners_of_one_name_on_two_disks() {
    let mut world = World::new();
    world.put(Kind::Claim, claim("c", "u1", "fast"));
    world.start();
    world.execute(0, support::Fate::Done);
    world.execute(0, support::Fate::Done);
    let mut theirs = match world.queue.front() {
        Some(bitts_api::machine::Effect::Create(create)) => create.body.clone(),
        other => panic!("{other:?}"),
    };
    theirs["metadata"]["name"] = json!("pvc-u1");
    theirs["metadata"]["uid"] = json!("theirs");
    theirs["spec"]["local"]["path"] = json!("/another/disk/default-c-pvc-u1");
    world.put(Kind::Volume, theirs);
    world.settle();
    assert!(world.directories().is_empty(), "{:?}", world.steps);
    assert!(world.records().is_empty());
    assert!(world.objects.contains_key(&ObjectKey::volume("pvc-u1")));
}

/// A disk that is full, then read-only: each is an error that says so, leaves nothing half made or half
/// removed, and is over when the disk is well again.
#[test]
fn a_disk_that_is_full_or_read_only() {
    // The mounts are this thread's own.
    let seen = std::thread::spawn(on_a_small_disk).join().unwrap();
    if let Err(why) = seen {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "skipped: no mounts here: {why}").unwrap();
    }
}

fn on_a_small_disk() -> nix::Result<()> {
    use bitts_provisioner::disk::Disk;
    use nix::mount::{MsFlags, mount};

    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(
        Some("tmpfs"),
        root,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=256k"),
    )?;
    let read_only = |is: bool| {
        let flags = if is {
            MsFlags::MS_RDONLY
        } else {
            MsFlags::empty()
        };
        mount(none, root, none, MsFlags::MS_REMOUNT | flags, none)
    };
    let disk = Disk::open(root).unwrap();
    let record = |uid: &str, bytes: i64| -> bitts_provisioner::Record {
        let text = json!({"volume": format!("pvc-{uid}"), "path": format!("d-pvc-{uid}"),
            "claim": {"namespace": "default", "name": "c", "uid": uid},
            "access": {"mode": 504, "uid": null, "gid": null}, "onDelete": "delete",
            "bytes": bytes});
        serde_json::from_value(text).unwrap()
    };
    let old = record("old", 1);
    let path = disk.make(&old).unwrap().whole().unwrap();
    fs::write(path.join("file"), "x").unwrap();
    disk.confirm(&old.volume, &old.claim.uid).unwrap();
    let new = record("new", 0);

    // Full: whatever a size of nothing is compared with.
    let filler = root.join("filler");
    let written = fs::write(&filler, vec![0; 1 << 20]);
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let full = disk.make(&new).unwrap_err().to_string();
    assert!(full.contains("No space left"), "{full}");
    let asked = disk.make(&record("more", 1)).unwrap_err().to_string();
    assert!(asked.contains("bytes free"), "{asked}");
    assert!(path.join("file").exists());
    fs::remove_file(&filler).unwrap();
    disk.make(&new).unwrap();
    assert_eq!(disk.scan().unwrap().len(), 2);

    // Read-only: nothing is made, noted, undone, taken or put back.
    read_only(true)?;
    let late = record("late", 0);
    for refused in [
        disk.make(&late).map(drop),
        disk.confirm(&new.volume, &new.claim.uid),
        disk.discard(&new.volume, &new.claim.uid),
        disk.remove(&old.volume, &old.claim.uid, &path),
        disk.set_aside(&old.volume, &old.claim.uid),
    ] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("Read-only"), "{refused}");
    }
    assert!(path.join("file").exists());
    assert_eq!(disk.scan().unwrap().len(), 2);
    read_only(false)?;
    disk.make(&late).unwrap();
    disk.discard(&new.volume, &new.claim.uid).unwrap();
    disk.remove(&old.volume, &old.claim.uid, &path).unwrap();
    let left: Vec<_> = disk.scan().unwrap().into_iter().map(|r| r.volume).collect();
    assert_eq!(left, [late.volume]);
    Ok(())
}
