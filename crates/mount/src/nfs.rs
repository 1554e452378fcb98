//! NFS mounts: versions 3, 4.0, 4.1 and 4.2.
//!
//! The kernel mounts, told by a child process with a deadline ([`crate::child`]); so does the
//! unmounting, since both may wait for the server. What the kernel cannot do by itself, version 3
//! with locks (it needs a daemon on this machine) above all, is left to `mount.nfs`.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;

use crate::child::{self, ChildError};
use crate::dir::{Component, Dir, Names};
use crate::work;
use crate::{SystemError, crew};

/// What a server exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The server's name or address; an IPv6 address without brackets.
    pub server: String,
    /// The path of the export, or of a directory below one.
    pub path: String,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.server.contains(':') && !self.server.starts_with('[') {
            write!(f, "[{}]:{}", self.server, self.path)
        } else {
            write!(f, "{}:{}", self.server, self.path)
        }
    }
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Version 3.
    V3,
    /// Version 4.0.
    V4_0,
    /// Version 4.1.
    V4_1,
    /// Version 4.2.
    V4_2,
}

impl Version {
    /// Tried in this order where the user has no wish; then version 3 follows.
    const FOURS: [Self; 3] = [Self::V4_2, Self::V4_1, Self::V4_0];

    /// The number as in mount options.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "3",
            Self::V4_0 => "4.0",
            Self::V4_1 => "4.1",
            Self::V4_2 => "4.2",
        }
    }
}

/// How a share is to be mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    versions: Vec<Version>,
    /// Of the mount rather than of the file system, as flags of `mount -o`.
    flags: Vec<&'static str>,
    /// For the file system.
    others: Vec<String>,
    needs_program: bool,
}

/// An option that cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// There is no such version.
    #[error("NFS version {0:?} cannot be mounted: use vers=3, 4.0, 4.1 or 4.2")]
    Version(String),
    /// It names what is mounted, which the volume does.
    #[error("mount option {0:?} is not for the user to set: the volume names the server and path")]
    Reserved(String),
    /// A kernel or a mount table would read it as something else.
    #[error("mount option {0:?} contains a control character")]
    Control(String),
}

impl Options {
    /// Reads options as `mount -t nfs -o` does; a comma separates several in one text. Whether the
    /// kernel knows those for the file system is only seen when it mounts.
    ///
    /// # Errors
    /// On an option that can never be obeyed.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for option in texts.into_iter().flat_map(|text| text.split(',')) {
            options.add(option.trim())?;
        }
        Ok(options)
    }

    fn add(&mut self, option: &str) -> Result<(), OptionError> {
        if option.contains(char::is_control) {
            return Err(OptionError::Control(option.to_owned()));
        }
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if let Some(flag) = work::MOUNT_FLAGS.iter().find(|(name, _)| *name == option) {
            self.flags.push(flag.0);
            return Ok(());
        }
        match key {
            "" | "rw" | "defaults" | "_netdev" | "nofail" => {}
            // Whoever mounts tries again itself, and must know when a mount is there.
            "bg" | "fg" | "retry" => {}
            "vers" | "nfsvers" => self.versions = versions(value)?,
            "v3" | "v4" | "v4.0" | "v4.1" | "v4.2" => self.versions = versions(&key[1..])?,
            "minorversion" => self.versions = versions(&format!("4.{value}"))?,
            "source" | "addr" => return Err(OptionError::Reserved(option.to_owned())),
            _ => {
                self.needs_program |= matches!(key, "mounthost" | "sloppy");
                self.others.push(option.to_owned());
            }
        }
        Ok(())
    }

    /// The same, and nothing may be written.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.flags.push("ro");
        self
    }

    /// As the kernel gets them.
    fn words(&self) -> impl Iterator<Item = &str> {
        let others = self.others.iter().map(String::as_str);
        self.flags.iter().copied().chain(others)
    }

    fn has(&self, option: &str) -> bool {
        self.others.iter().any(|other| other == option)
    }

    /// The ways to mount, in the order in which they are tried.
    fn ways(&self) -> Vec<Way> {
        let kernel = |versions: &[Version]| versions.iter().copied().map(Way::Kernel).collect();
        // Locks of version 3 are kept by statd on both sides, which mount.nfs starts.
        let without_locks = self.has("nolock") || self.has("local_lock=all");
        match &*self.versions {
            _ if self.needs_program => vec![Way::Program],
            [] => [kernel(&Version::FOURS), vec![Way::Program]].concat(),
            [Version::V3] if !without_locks => vec![Way::Program],
            versions => kernel(versions),
        }
    }
}

fn versions(text: &str) -> Result<Vec<Version>, OptionError> {
    Ok(match text {
        "3" => vec![Version::V3],
        "4" => Version::FOURS.to_vec(),
        "4.0" => vec![Version::V4_0],
        "4.1" => vec![Version::V4_1],
        "4.2" => vec![Version::V4_2],
        other => return Err(OptionError::Version(other.to_owned())),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Kernel(Version),
    Program,
}

/// Why a share is not mounted, or not unmounted.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {message}")]
pub struct NfsError {
    what: String,
    message: String,
    /// What is known of the outcome.
    pub class: Class,
}

/// What is known of the outcome of a call that failed (M9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It did not take effect, and will not before something is changed.
    Final,
    /// It did not take effect now; the server or the network may be back later.
    Transient,
    /// It may have taken effect: it was cut off.
    Uncertain,
}

/// Mounts a share on an open directory, within the deadline.
///
/// Mounts of one file system with the same options for it share what the kernel keeps of it; of
/// options that differ, those of the first mount may win (`nosharecache` keeps them apart).
///
/// # Errors
/// With what the kernel, the server or `mount.nfs` said.
pub fn mount(
    share: &Share,
    target: &Dir,
    options: &Options,
    deadline: Duration,
) -> Result<(), NfsError> {
    let mut last = None;
    for way in options.ways() {
        match try_way(way, share, target, options, deadline) {
            Err(ChildError::Failed { code, message }) if is_other_version(code) => {
                last = Some(ChildError::Failed { code, message });
            }
            other => return other.map_err(|e| explain(&format!("mounting {share}"), e)),
        }
    }
    last.map_or(Ok(()), |error| {
        Err(explain(&format!("mounting {share}"), error))
    })
}

/// Mounts a share nowhere in the tree and opens its directory, to be worked in by this process alone:
/// the mount goes with its last descriptor. Locks are not asked for, so that every version is mounted
/// by the kernel itself, and an option `ro` is left out.
///
/// It waits for the server in the calling thread: what must not hang has an
/// [attendant](crate::attendant) do it.
///
/// # Errors
/// With what the kernel or the server said.
pub fn open(share: &Share, options: &Options) -> Result<Dir, NfsError> {
    let source = share.to_string();
    let doing = format!("mounting {share}");
    if options.needs_program {
        let message = "an option of it needs mount.nfs, which cannot do that".to_owned();
        let code = work::NO_PROGRAM;
        return Err(explain(&doing, ChildError::Failed { code, message }));
    }
    let versions = match &*options.versions {
        [] => &[Version::V4_2, Version::V4_1, Version::V4_0, Version::V3],
        asked => asked,
    };
    let mut last = None;
    for version in versions {
        let mut words: Vec<&str> = options.words().filter(|word| *word != "ro").collect();
        if *version == Version::V3 && !options.has("nolock") {
            words.push("nolock");
        }
        match work::mount_nfs(&share.server, &source, version.as_str(), &words) {
            Ok(mounted) => {
                return Ok(Dir::from_parts(
                    mounted.into(),
                    source.into(),
                    Names::KeptByServer,
                ));
            }
            Err(failure) => {
                let code = failure.code();
                let message = failure.message;
                last = Some(ChildError::Failed { code, message });
                if !is_other_version(code) {
                    break;
                }
            }
        }
    }
    let none = || ChildError::Failed {
        code: work::NO_PROGRAM,
        message: "there is no version to try".to_owned(),
    };
    Err(explain(&doing, last.unwrap_or_else(none)))
}

fn is_other_version(code: i32) -> bool {
    [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| errno.raw_os_error() == code)
}

fn try_way(
    way: Way,
    share: &Share,
    target: &Dir,
    options: &Options,
    deadline: Duration,
) -> Result<(), ChildError> {
    let source = share.to_string();
    match way {
        Way::Kernel(version) => {
            let mut words = vec![work::MOUNT_NFS, &share.server, &source, version.as_str()];
            words.extend(options.words());
            crew::mount(&words, target, target, deadline)
        }
        Way::Program => child::run(program(&source, options)?, target, deadline),
    }
}

/// `mount.nfs`, which must not be found through the user's PATH.
fn program(source: &str, options: &Options) -> Result<Command, ChildError> {
    let places = ["/sbin/mount.nfs", "/usr/sbin/mount.nfs"];
    let Some(place) = places.iter().find(|place| Path::new(place).exists()) else {
        return Err(ChildError::Failed {
            code: work::NO_PROGRAM,
            message: "this needs mount.nfs (NFS 3 with locks does): install the package \
                      nfs-common (nfs-utils on other systems than Debian), or use vers=4.2 or nolock"
                .to_owned(),
        });
    };
    let version = options
        .versions
        .first()
        .map_or(Version::V3, |version| *version);
    let mut all = vec![format!("vers={}", version.as_str()), "retry=0".to_owned()];
    all.extend(options.flags.iter().map(|&flag| flag.to_owned()));
    all.extend(options.others.iter().cloned());
    let all = all.join(",");
    // Its standard input is the directory.
    let words = [work::PROGRAM, place, source, "/proc/self/fd/0"];
    let mut command = child::own(&[&words[..], &["-o", &all]].concat())?;
    command.env("LC_ALL", "C");
    Ok(command)
}

/// How a mount is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only when nothing uses it and the server has all that was written.
    Normal,
    /// Calls that wait for the server fail, with what they were to write; not for mounts in use.
    Forced,
    /// It vanishes from the tree at once; who has files open in it goes on with them. Only right
    /// for a network file system.
    Lazy,
}

/// Takes away the topmost mount at this name, within the deadline.
///
/// # Errors
/// When nothing is mounted there, it is in use, or the server does not answer in time.
pub fn unmount(
    parent: &Dir,
    name: &Component,
    how: Unmount,
    deadline: Duration,
) -> Result<(), NfsError> {
    let how = match how {
        Unmount::Normal => work::NORMAL,
        Unmount::Forced => work::FORCED,
        Unmount::Lazy => work::LAZY,
    };
    let doing = || format!("unmounting {}", parent.path().join(name.as_str()).display());
    let top = || {
        Ok::<_, SystemError>(match parent.child(name)? {
            Some(dir) => Some(dir.identity()?.mount),
            None => None,
        })
    };
    let before = top().map_err(|e| explain(&doing(), e.into()))?;
    match in_child(&[work::UNMOUNT, name.as_str(), how], parent, deadline) {
        // The kernel takes a mount out of the tree first, and then tells the server.
        Err(ChildError::Deadline(_)) if top().is_ok_and(|now| now != before) => Ok(()),
        done => done.map_err(|e| explain(&doing(), e)),
    }
}

/// Mounts a share in the place of the topmost mount at this name, within the deadline. What is there
/// is let go of when the new mount is sure to work: who has files open in it, or a copy of it in
/// another mount namespace, goes on with it.
///
/// # Errors
/// As [`mount`]; what is mounted there stays then, unless the class is [`Class::Uncertain`].
pub fn renew(
    share: &Share,
    parent: &Dir,
    name: &Component,
    options: &Options,
    deadline: Duration,
) -> Result<(), NfsError> {
    let doing = format!("mounting {share} anew");
    if options.needs_program {
        let message = "an option of it needs mount.nfs, which cannot do that".to_owned();
        let code = work::NO_PROGRAM;
        return Err(explain(&doing, ChildError::Failed { code, message }));
    }
    let source = share.to_string();
    let mut done = Ok(());
    for way in options.ways() {
        let version = match way {
            Way::Kernel(version) => version,
            // The first mount had mount.nfs start what locks need.
            Way::Program => Version::V3,
        };
        let mut words = vec![work::RENEW_NFS, name.as_str()];
        words.extend([&share.server, &*source, version.as_str()]);
        words.extend(options.words());
        done = crew::make(&words, parent, deadline).and_then(|mounted| {
            let bare = parent.child(name)?.ok_or_else(|| {
                let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
                SystemError::new("putting the mount in its place", gone)
            })?;
            Ok(mounted.put(bare)?)
        });
        if !matches!(&done, Err(ChildError::Failed { code, .. }) if is_other_version(*code)) {
            break;
        }
    }
    done.map_err(|e| explain(&doing, e))
}

fn in_child(words: &[&str], directory: impl AsFd, deadline: Duration) -> Result<(), ChildError> {
    crew::call(words, directory, deadline).map(drop)
}

fn explain(what: &str, error: ChildError) -> NfsError {
    let class = match &error {
        ChildError::Deadline(_) | ChildError::Ended(_) => Class::Uncertain,
        ChildError::Failed { code, message } => classify(*code, message),
        ChildError::System(_) => Class::Transient,
    };
    NfsError {
        what: what.to_owned(),
        message: error.to_string(),
        class,
    }
}

fn classify(code: i32, message: &str) -> Class {
    let later = [
        Errno::TIMEDOUT,
        Errno::CONNREFUSED,
        Errno::CONNRESET,
        Errno::HOSTUNREACH,
        Errno::HOSTDOWN,
        Errno::NETUNREACH,
        Errno::NETDOWN,
        Errno::AGAIN,
        Errno::INTR,
        Errno::IO,
        Errno::BUSY,
        Errno::NOMEM,
        Errno::STALE,
    ];
    // What mount.nfs says, which has one exit code for all.
    let words = ["timed out", "refused", "No route", "unreachable", "resolve"];
    let is_later = code == work::UNKNOWN_SERVER
        || later.iter().any(|errno| errno.raw_os_error() == code)
        || (code == work::PROGRAM_FAILED && words.iter().any(|word| message.contains(word)));
    if is_later {
        Class::Transient
    } else {
        Class::Final
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(text: &str) -> Vec<Way> {
        Options::parse([text]).unwrap().ways()
    }

    #[test]
    fn versions_as_users_write_them() {
        use Version::*;
        assert_eq!(ways("vers=4.1"), [Way::Kernel(V4_1)]);
        assert_eq!(ways("nfsvers=4,minorversion=2"), [Way::Kernel(V4_2)]);
        assert_eq!(ways("v4.0,hard"), [Way::Kernel(V4_0)]);
        assert_eq!(ways("vers=4").len(), 3);
        assert_eq!(ways("vers=3,nolock"), [Way::Kernel(V3)]);
        assert_eq!(ways("nfsvers=3"), [Way::Program]);
        assert_eq!(ways("").last(), Some(&Way::Program));
        let error = Options::parse(["vers=2"]).unwrap_err().to_string();
        assert!(error.contains("4.2"), "{error}");
    }

    #[test]
    fn options_of_the_mount_are_apart_from_those_of_the_file_system() {
        let options = Options::parse(["ro,noexec,bg,retry=5", "timeo=100"]).unwrap();
        assert_eq!(options.flags, ["ro", "noexec"]);
        assert_eq!(options.others, ["timeo=100"]);
    }

    #[test]
    fn options_do_not_redirect_a_mount() {
        for bad in ["addr=10.0.0.1", "source=other:/", "ti\nmeo=1"] {
            assert!(Options::parse([bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_with_colons_are_bracketed() {
        let share = |server: &str| Share {
            server: server.to_owned(),
            path: "/export".to_owned(),
        };
        assert_eq!(share("fd00::1").to_string(), "[fd00::1]:/export");
        assert_eq!(share("[fd00::1]").to_string(), "[fd00::1]:/export");
        assert_eq!(share("nas").to_string(), "nas:/export");
    }

    #[test]
    fn what_may_pass_is_told_from_what_may_not() {
        let errno = |errno: Errno| classify(errno.raw_os_error(), "");
        assert_eq!(errno(Errno::ACCESS), Class::Final);
        assert_eq!(errno(Errno::NOENT), Class::Final);
        assert_eq!(errno(Errno::CONNREFUSED), Class::Transient);
        let told = |text| classify(work::PROGRAM_FAILED, text);
        assert_eq!(told("mount.nfs: Connection timed out"), Class::Transient);
        assert_eq!(told("mount.nfs: access denied by server"), Class::Final);
    }

    #[test]
    fn a_program_that_cannot_be_a_child_is_told_so() {
        let here = Dir::open("/".as_ref()).unwrap();
        let proc = Component::new("proc").unwrap();
        let error = unmount(&here, &proc, Unmount::Lazy, Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("child::serve()"), "{error}");
    }
}
