//! Input that means harm: names, paths, links, and links that change while they are followed.
//!
//! The fuzz targets in fuzz/ look for more of it, guided by coverage: `cargo xtask fuzz`.

mod oracle;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bitts_mount::dir::{Component, Dir, Removal};
use bitts_mount::path::Root;
use oracle::Tree;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_text_is_a_mount_table_or_refused(input: Vec<u8>) {
        oracle::mountinfo(&input);
    }

    #[test]
    fn no_path_and_no_link_leads_out(input in prop::collection::vec(any::<u8>(), 1..24)) {
        oracle::resolver(&input);
    }
}

/// What coverage-guided runs began with, or found.
#[test]
fn the_seeds_of_the_fuzz_targets_hold() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (target, check) in [
        ("mountinfo", oracle::mountinfo as fn(&[u8])),
        ("resolver", oracle::resolver),
    ] {
        let files = fs::read_dir(seeds.join(target)).unwrap();
        let mut count = 0;
        for file in files {
            check(&fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "no seeds for {target}");
    }
}

#[test]
fn names_of_every_length_and_kind() {
    let tree = Tree::new();
    let deep = format!("/{}", "a/".repeat(3000));
    for path in [
        "/",
        "//a///b/",
        "/a/./b",
        "/a/../../outside",
        "/..",
        "/hostile",
        "/a\0b",
        deep.as_str(),
        &format!("/{}", "n".repeat(255)),
        &format!("/{}", "n".repeat(256)),
        &format!("/{}", "\u{1f4a3}".repeat(64)),
        "/new\nline",
        "/sp ace",
        "/ends in a slash\\",
    ] {
        tree.check(path.as_ref());
    }
}

/// Ends the other thread, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While a thread swaps a directory for a link that leads out and back, nothing outside is ever
/// opened, made or removed.
#[test]
fn a_link_race_leads_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    fs::create_dir_all(at("root/swapped/inner")).unwrap();
    fs::create_dir_all(at("outside/inner/empty")).unwrap();
    fs::write(at("outside/inner/secret"), "secret").unwrap();
    symlink("../outside", at("root/link")).unwrap();
    let root = Root::open(&at("root")).unwrap();
    let dir = Dir::open(&at("root")).unwrap();
    let name = |text: &str| Component::new(text).unwrap();
    let over = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // In one step, both ways.
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    at("root/swapped"),
                    rustix::fs::CWD,
                    at("root/link"),
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        });
        let _stop = Stop(&over);
        let mut tries = 0;
        while (inside < 200 || refused < 200) && tries < 2_000_000 {
            tries += 1;
            match root.resolve("/swapped/inner".as_ref()) {
                Ok(found) => {
                    let at = oracle::opened(&found.dir);
                    assert!(at.starts_with(temp.path().join("root")), "{}", at.display());
                    inside += 1;
                }
                Err(_) => refused += 1,
            }
            // As setting a volume up and cleaning it up do.
            let Ok(swapped) = dir.make_child(&name("swapped")) else {
                continue;
            };
            let Ok(inner) = swapped.make_child(&name("inner")) else {
                continue;
            };
            let made = inner.make_child(&name("v")).unwrap();
            let at = oracle::opened(&made);
            assert!(at.starts_with(temp.path().join("root")), "{}", at.display());
            assert_eq!(inner.remove(&name("v")).unwrap(), Removal::Removed);
            assert_eq!(inner.remove(&name("empty")).unwrap(), Removal::Absent);
        }
    });
    assert!(
        inside >= 200 && refused >= 200,
        "{inside} and {refused}: no race"
    );
    let left: Vec<_> = fs::read_dir(at("outside/inner"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
