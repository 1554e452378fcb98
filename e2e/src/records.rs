//! The records that a provisioner keeps beside its volumes, as a test finds them on a disk or share.

use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use serde_json::Value;

const BEGUN: &str = ".bitts/begun";

/// What a record says: one that is yet to be confirmed may be a link whose text it is.
///
/// # Errors
/// When there is none.
pub fn text(path: &Path) -> io::Result<Vec<u8>> {
    match path.is_symlink() {
        true => Ok(path.read_link()?.into_os_string().into_vec()),
        false => std::fs::read(path),
    }
}

/// The names of the files that are records of volumes below a root, each as often as it is there. What was cut
/// off while it was begun is no record, and is removed some time later.
///
/// # Errors
/// When they cannot be listed.
pub fn of_volumes(root: &Path) -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for place in [BEGUN, ".bitts/volumes"] {
        let entries = match root.join(place).read_dir() {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            // It may move on, or go, meanwhile.
            let whole = place != BEGUN
                || text(&entry.path())
                    .is_ok_and(|text| serde_json::from_slice::<Value>(&text).is_ok());
            let name = entry.file_name().to_string_lossy().into_owned();
            if whole && name.ends_with(".json") {
                all.push(name);
            }
        }
    }
    Ok(all)
}
