//! Whether what is mounted from servers is well.
//!
//! Servers are asked by a child with a deadline ([`crate::child`]), and so is who knows their
//! addresses: this process waits for neither.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use procfs::process::MountInfo;
use rustix::io::Errno;

use crate::child::ChildError;
use crate::table::MountId;
use crate::{SystemError, crew, work};

/// How a mount is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its server answers and knows the directory that is mounted.
    Well,
    /// Its server no longer knows it (`ESTALE`).
    Stale,
    /// Its server did not answer, and the mount's options let that be an error.
    Silent,
    /// Another error, in words.
    Failing(String),
}

/// Asks the servers of what is mounted at these paths below an open directory, one after the other.
/// What several paths show of one file system is asked for once.
///
/// # Errors
/// [`ChildError::Deadline`] when one of them does not answer: nothing is known of the others then.
pub fn ask(
    dir: impl AsFd,
    paths: &[String],
    deadline: Duration,
) -> Result<Vec<Answer>, ChildError> {
    let words: Vec<&str> = [work::PROBE]
        .into_iter()
        .chain(paths.iter().map(String::as_str))
        .collect();
    let said = crew::call(&words, dir, deadline)?;
    Ok(said.lines().map(answer).collect())
}

fn answer(line: &str) -> Answer {
    // A soft mount has EIO for a server that does not answer.
    const SILENT: [Errno; 9] = [
        Errno::TIMEDOUT,
        Errno::IO,
        Errno::CONNREFUSED,
        Errno::CONNRESET,
        Errno::CONNABORTED,
        Errno::HOSTUNREACH,
        Errno::HOSTDOWN,
        Errno::NETUNREACH,
        Errno::NETDOWN,
    ];
    match line
        .parse::<u16>()
        .map(|code| (code != 0).then(|| Errno::from_raw_os_error(code.into())))
    {
        Ok(None) => Answer::Well,
        Ok(Some(Errno::STALE)) => Answer::Stale,
        Ok(Some(errno)) if SILENT.contains(&errno) => Answer::Silent,
        Ok(Some(errno)) => Answer::Failing(format!("the server's answer: {errno}")),
        Err(_) => Answer::Failing(line.to_owned()),
    }
}

/// Where a server's name leads to, as of now.
///
/// # Errors
/// When it leads nowhere, or that is not known in time.
pub fn resolve(server: &str, deadline: Duration) -> Result<Vec<IpAddr>, ChildError> {
    let nowhere = std::fs::File::open("/dev/null");
    let nowhere = nowhere.map_err(|e| SystemError::new("opening /dev/null", e))?;
    let said = crew::call(&[work::RESOLVE, server], nowhere, deadline)?;
    Ok(said.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The addresses that mounts are served from, as the kernel has them; of those that have one.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn addresses() -> Result<BTreeMap<MountId, IpAddr>, SystemError> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|e| SystemError::new("reading the mount table", e))?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        // Most mounts have none, and need not be looked at closely.
        .filter(|line| line.contains("addr="))
        .filter_map(address)
        .collect())
}

fn address(line: &str) -> Option<(MountId, IpAddr)> {
    let mount = MountInfo::from_line(line).ok()?;
    let address = mount.super_options.get("addr")?.as_deref()?;
    let id = MountId(mount.mnt_id.try_into().ok()?);
    Some((id, address.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_answers_apart() {
        let errno = |errno: Errno| answer(&errno.raw_os_error().to_string());
        assert_eq!(answer("0"), Answer::Well);
        assert_eq!(errno(Errno::STALE), Answer::Stale);
        assert_eq!(errno(Errno::TIMEDOUT), Answer::Silent);
        let Answer::Failing(text) = errno(Errno::ACCESS) else {
            panic!("no failure");
        };
        assert!(text.contains("denied"), "{text}");
    }

    #[test]
    fn finds_the_address_of_a_mount() {
        let line =
            "31 22 0:45 / /mnt rw - nfs4 nas:/a rw,vers=4.2,clientaddr=10.0.0.9,addr=fd00::1";
        let found = address(line);
        assert_eq!(found, Some((MountId(31), "fd00::1".parse().unwrap())));
        assert_eq!(address("22 1 254:0 / / rw - ext4 /dev/vda rw"), None);
    }
}
