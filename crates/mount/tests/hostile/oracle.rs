//! What holds for any input: the fuzz targets (fuzz/) and `tests/hostile` check the same.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bitts_mount::dir::{Component, Dir};
use bitts_mount::path::{PathKind, Root};
use bitts_mount::table::MountTable;

/// Any bytes as a mount table: read or refused. And any bytes as a mount's names, as the kernel
/// writes them: one mount, with these names, and its neighbours unharmed.
pub(crate) fn mountinfo(input: &[u8]) {
    if let Ok(table) = MountTable::parse(input) {
        let lines = String::from_utf8_lossy(input).lines().count();
        assert_eq!(table.iter().count(), lines, "a mount too many or too few");
    }
    // Neither a name nor a link can contain a zero.
    let name: Vec<u8> = input.iter().copied().filter(|byte| *byte != 0).collect();
    let (first, second) = name.split_at(name.len() / 2);
    let mut text = b"1 1 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 /".to_vec();
    text.extend(escape(first));
    text.extend(b" /");
    text.extend(escape(second));
    text.extend(b" rw,nosuid shared:7 - nfs4 source rw\n3 1 8:3 / /last ro - xfs /dev/sdb ro\n");
    let table = MountTable::parse(&text).expect("as Linux writes it");
    let found: Vec<_> = table.iter().collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].root, readable(first));
    assert_eq!(found[1].point, readable(second));
    assert_eq!(found[2].point, Path::new("/last"));
    assert!(!found[1].read_only && found[2].read_only);
}

/// As fs/proc_namespace.c does.
fn escape(name: &[u8]) -> Vec<u8> {
    let special = |byte: &u8| b" \t\n\\#".contains(byte);
    name.iter()
        .flat_map(|byte| match byte {
            byte if special(byte) => format!("\\{byte:03o}").into_bytes(),
            byte => vec![*byte],
        })
        .collect()
}

/// What is not UTF-8 is read with marks in its place, before what is escaped is.
fn readable(name: &[u8]) -> PathBuf {
    let special = |byte: &u8| b" \t\n\\#".contains(byte);
    let mut bytes = b"/".to_vec();
    for part in name.split_inclusive(special) {
        let (part, end) = match part.split_last() {
            Some((last, part)) if special(last) => (part, Some(*last)),
            _ => (part, None),
        };
        bytes.extend(String::from_utf8_lossy(part).bytes());
        bytes.extend(end);
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// A tree with everything that leads astray, and what it must not lead to beside it.
pub(crate) struct Tree {
    folder: tempfile::TempDir,
    root: Root,
}

/// Names that inputs are made of.
const NAMES: &[&str] = &[
    "a",
    "b",
    "file",
    "..",
    ".",
    "",
    "up",
    "out",
    "inside",
    "dangling",
    "round",
    "sp ace",
    "new\nline",
    "hostile",
    "a/..",
    "/",
    "etc",
    "proc",
    "self",
    "outside",
    "secret",
    "data",
];

impl Tree {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join("root").join(name);
        fs::create_dir_all(at("a/b")).expect("folders");
        fs::create_dir_all(folder.path().join("outside/data")).expect("folders");
        fs::write(folder.path().join("outside/secret"), "secret").expect("a file");
        fs::write(at("file"), "x").expect("a file");
        for name in ["sp ace", "new\nline", &"n".repeat(255)] {
            fs::create_dir(at(name)).expect("a folder");
        }
        for (target, link) in [
            ("../..", "up"),
            ("../outside", "out"),
            ("a/b", "inside"),
            ("nowhere", "dangling"),
            ("round", "round"),
            ("../../outside", "a/up"),
            ("/etc", "a/etc"),
        ] {
            symlink(target, at(link)).expect("a link");
        }
        let root = Root::open(&folder.path().join("root")).expect("a root");
        Self { folder, root }
    }

    fn top(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A path, and the target of the link `hostile` on the way: what is opened lies in the root.
    pub(crate) fn resolve(&self, path: &[u8], target: &[u8]) {
        let link = self.top().join("hostile");
        let _ = fs::remove_file(&link);
        // Nothing that cannot be a target is one.
        let _ = symlink(std::ffi::OsStr::from_bytes(target), &link);
        self.check(Path::new(std::ffi::OsStr::from_bytes(path)));
    }

    pub(crate) fn check(&self, path: &Path) {
        let Ok(resolved) = self.root.resolve(path) else {
            return;
        };
        assert_eq!(resolved.kind, PathKind::Directory);
        let opened = opened(&resolved.dir);
        assert!(
            opened.starts_with(self.top()),
            "{path:?} leads to {}",
            opened.display()
        );
        // Names that are not checked are refused before the kernel sees them.
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(Ok(name)) = name.map(Component::new)
            && let Ok(Some(child)) = resolved.dir.child(&name)
        {
            assert!(self::opened(&child).starts_with(self.top()));
        }
    }
}

/// Where an open directory lies, as the kernel says.
pub(crate) fn opened(dir: &Dir) -> PathBuf {
    let fd = dir.as_fd().as_raw_fd();
    fs::read_link(format!("/proc/self/fd/{fd}")).expect("an open directory")
}

/// Any bytes as a path and a link's target: each is a raw text, or names of the tree.
pub(crate) fn resolver(input: &[u8]) {
    static TREE: OnceLock<Tree> = OnceLock::new();
    let tree = TREE.get_or_init(Tree::new);
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let (path, target) = rest.split_at(rest.len() / 2);
    let text = |bytes: &[u8], raw: bool| {
        if raw {
            return bytes.to_vec();
        }
        let names = bytes
            .iter()
            .map(|byte| NAMES[usize::from(*byte) % NAMES.len()]);
        names.collect::<Vec<_>>().join("/").into_bytes()
    };
    let mut path = text(path, kind & 1 != 0);
    if kind & 4 == 0 {
        path.insert(0, b'/');
    }
    tree.resolve(&path, &text(target, kind & 2 != 0));
}
