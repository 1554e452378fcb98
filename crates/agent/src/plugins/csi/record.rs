//! `vol_data.json`: which driver and which of its volumes a directory is for (M19, M20, M25).

use bitts_mount::dir::{Component, Dir, Removal};
use serde_json::{Map, Value};

use crate::tree::{Trouble, name};

/// The file's name.
const FILE: &str = "vol_data.json";
/// It holds a few names.
const LONGEST: u32 = 64 * 1024;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The driver's name.
    pub(super) driver: String,
    /// Its name for the volume.
    pub(super) handle: String,
}

impl Record {
    /// Reads it; `None` where there is none.
    pub(super) fn read(dir: &Dir) -> Result<Option<Self>, Trouble> {
        let Some(bytes) = dir.read_file(&name(FILE)?, LONGEST)? else {
            return Ok(None);
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = |field: &str| {
            let text = value.get(field)?.as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        match (text("driverName"), text("volumeHandle")) {
            (Some(driver), Some(handle)) => Ok(Some(Self { driver, handle })),
            _ => Err(Trouble::Other(format!(
                "{}/{FILE} does not say of which driver the volume is: unmount it with the driver's \
                 own means and remove the file",
                dir.path().display()
            ))),
        }
    }

    /// Writes it with what else the kubelet wants to find there, unless the same is there.
    pub(super) fn write(&self, dir: &Dir, more: &[(&str, &str)]) -> Result<(), Trouble> {
        if Self::read(dir).is_ok_and(|there| there.as_ref() == Some(self)) {
            return Ok(());
        }
        let own = [
            ("driverName", &*self.driver),
            ("volumeHandle", &*self.handle),
        ];
        let fields: Map<_, _> = own
            .iter()
            .chain(more)
            .map(|(field, text)| ((*field).to_owned(), Value::from(*text)))
            .collect();
        dir.write_file(&name(FILE)?, Value::from(fields).to_string().as_bytes())?;
        Ok(())
    }

    /// Removes the file, and then the directory it is in.
    pub(super) fn remove(parent: &Dir, directory: &Component) -> Result<(), Trouble> {
        if let Some(dir) = parent.child(directory)? {
            dir.delete_file(&name(FILE)?)?;
        }
        match parent.remove(directory)? {
            Removal::Removed | Removal::Absent => Ok(()),
            Removal::NotEmpty | Removal::MountPoint => Err(Trouble::Other(format!(
                "{} is not empty: move away what is in it",
                parent.path().join(directory.as_str()).display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_wrote_is_read_and_what_is_torn_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        assert_eq!(Record::read(&dir).unwrap(), None);
        let file = temp.path().join(FILE);
        let of_kubelet = r#"{"attachmentID":"csi-1","driverName":"d","nodeName":"n",
            "specVolID":"pv","volumeHandle":"h","volumeLifecycleMode":"Persistent"}"#;
        std::fs::write(&file, of_kubelet).unwrap();
        let record = Record::read(&dir).unwrap().unwrap();
        assert_eq!((&*record.driver, &*record.handle), ("d", "h"));
        // It stays as it is.
        record.write(&dir, &[]).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), of_kubelet);
        for torn in [
            "",
            "{",
            r#"{"driverName":"d"}"#,
            r#"{"driverName":"","volumeHandle":"h"}"#,
        ] {
            std::fs::write(&file, torn).unwrap();
            assert!(Record::read(&dir).is_err(), "{torn}");
        }
        record.write(&dir, &[("specVolID", "pv")]).unwrap();
        assert_eq!(Record::read(&dir).unwrap(), Some(record));
    }
}
