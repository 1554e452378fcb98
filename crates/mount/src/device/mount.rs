//! Mounting the file system of a device.

use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsopen,
};

use super::error::Kind;
use super::held::{Held, SELF};
use crate::detached::Detached;
use crate::work::{Failure, MOUNT_FLAGS, kernel_says};

/// How a file system is to be mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    words: Vec<String>,
    read_only: bool,
}

/// An option that cannot be obeyed.
#[derive(Debug, thiserror::Error)]
#[error(
    "mount option {0:?} is not for the user to set, or has a control character in it: leave it out"
)]
pub struct OptionError(String);

impl Options {
    /// Reads options as `mount -o` does; a comma separates several in one text. Whether the kernel
    /// knows those for the file system is only seen when it mounts.
    ///
    /// # Errors
    /// On an option that names what is mounted, or where.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for option in texts.into_iter().flat_map(|text| text.split(',')) {
            let option = option.trim();
            let key = option.split('=').next().unwrap_or_default();
            match key {
                _ if option.contains(char::is_control) => {
                    return Err(OptionError(option.to_owned()));
                }
                "source" | "loop" | "offset" | "sizelimit" => {
                    return Err(OptionError(option.to_owned()));
                }
                "" | "rw" | "defaults" | "_netdev" | "nofail" | "auto" | "noauto" => {}
                "ro" => options.read_only = true,
                _ => options.words.push(option.to_owned()),
            }
        }
        Ok(options)
    }

    /// The same, and nothing may be written.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        let read_only = self.read_only.then_some("ro");
        read_only
            .into_iter()
            .chain(self.words.iter().map(String::as_str))
    }
}

/// Mounts the device that is this process's standard input, nowhere yet.
pub(super) fn mount(fs: &str, options: &[&str]) -> Result<Detached, Failure> {
    let held = Held::to_read()?;
    let name = held.name();
    let config = fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        let doing = format!("the kernel has no file system {fs}: load its module");
        Failure::new(&doing, errno)
    })?;
    let told = |doing: &str, errno| Failure::new(&kernel_says(&config, doing), errno);
    // The name is what mount tables show; the kernel finds the device by it or by the descriptor.
    fsconfig_set_string(&config, "source", name.as_deref().unwrap_or(SELF))
        .map_err(|errno| told("naming the device", errno))?;
    let mut flags = MountAttrFlags::empty();
    for option in options {
        let set = if let Some((_, flag)) = MOUNT_FLAGS.iter().find(|(name, _)| name == option) {
            flags |= *flag;
            if *option != "ro" {
                continue;
            }
            // The file system itself too: it must not replay its log into a device, either.
            fsconfig_set_flag(&config, *option)
        } else if let Some((key, value)) = option.split_once('=') {
            fsconfig_set_string(&config, key, value)
        } else {
            fsconfig_set_flag(&config, *option)
        };
        set.map_err(|errno| told(&format!("mount option {option}"), errno))?;
    }
    fsconfig_create(&config).map_err(|errno| refused(fs, &kernel_says(&config, ""), errno))?;
    Detached::of(&config, flags).map_err(|errno| told("making the mount", errno))
}

/// What an error of the decisive step means to a user.
fn refused(fs: &str, kernel: &str, errno: Errno) -> Failure {
    let repair = if fs == "xfs" {
        "look with `xfs_repair -n`"
    } else {
        "look with `fsck -n`"
    };
    let (code, what) = match errno {
        Errno::UCLEAN | Errno::BADMSG | Errno::IO => (
            Kind::Damaged.code(),
            format!("the {fs} on it is damaged: {repair}"),
        ),
        Errno::INVAL => (
            errno.raw_os_error(),
            format!("no {fs} that this kernel can mount with these options, or damaged: {repair}"),
        ),
        Errno::ROFS | Errno::ACCESS => (
            Kind::ReadOnly.code(),
            "the device is read-only: mount it with the option ro".to_owned(),
        ),
        Errno::BUSY => (
            Kind::Busy.code(),
            "it is mounted elsewhere with other options, or part of another device".to_owned(),
        ),
        _ => (errno.raw_os_error(), "the kernel refused".to_owned()),
    };
    Failure::of(code, format!("{what}{kernel}: {errno}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_in_manifests() {
        let options = Options::parse(["noatime,ro", "data=ordered", "defaults"]).unwrap();
        let words: Vec<_> = options.words().collect();
        assert_eq!(words, ["ro", "noatime", "data=ordered"]);
        for bad in ["source=/dev/sda", "loop", "a\nb"] {
            assert!(Options::parse([bad]).is_err(), "{bad:?}");
        }
    }
}
