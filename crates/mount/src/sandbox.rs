//! A private root: a directory tree of this process's own, gone when it ends.
//!
//! The process gets a mount namespace of its own (as root, or in a user namespace of its own
//! otherwise), in it an empty tmpfs as `/` with the few directories a node agent needs, and of the
//! host only `/proc` and `/dev`. The host's tree stays as it was, and the kernel cleans up after
//! the process however it ends.
//!
//! Files and directories that were opened before stay usable, which is the way to write something
//! that the host shall see.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// What the process now lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// By what right.
    pub right: Right,
}

/// By what right a process has a root of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// It is root.
    Root,
    /// It is root in a user namespace of its own only, and this user outside.
    UserNamespace(u32),
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("in a private root of this process, ")?;
        match self.right {
            Right::Root => f.write_str("in a mount namespace of its own"),
            Right::UserNamespace(uid) => {
                write!(
                    f,
                    "in a user and mount namespace of its own (uid {uid} outside)"
                )
            }
        }
    }
}

/// Why there is no private root: the step that failed and how to allow it.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}{}", .advice.as_ref().map(|a| format!(" ({a})")).unwrap_or_default())]
pub struct SandboxError {
    step: Step,
    advice: Option<String>,
    source: io::Error,
}

impl SandboxError {
    /// The step that failed.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether the kernel's settings forbid it, rather than something being amiss.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
            || (self.step == Step::Namespace && self.advice.is_some())
    }
}

/// The steps to a private root, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Namespaces can only be left by a process with one thread.
    Threads,
    /// A mount namespace, and a user namespace where that is needed.
    Namespace,
    /// Which user one is in it.
    UserMap,
    /// Mounts made here must not show on the host.
    Private,
    /// The new root's file system.
    Tmpfs,
    /// The directories in it, and the host's that are shown in it.
    Tree,
    /// Making it the root.
    Pivot,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "entering a namespace with more than one thread",
            Self::Namespace => "making a mount namespace",
            Self::UserMap => "mapping the user into its namespace",
            Self::Private => "making mounts private",
            Self::Tmpfs => "mounting a tmpfs",
            Self::Tree => "laying out the private root",
            Self::Pivot => "changing to the private root",
        })
    }
}

/// The directories of the private root, parents first, with their modes.
const TREE: &[(&str, u32)] = &[
    ("data", 0o755),
    ("data/pv", 0o755),
    ("dev", 0o755),
    ("proc", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/lib/kubelet", 0o750),
];

/// Directories of the host that are shown in the private root.
const SHOWN: &[&str] = &["dev", "proc"];

/// Where the tmpfs is put together; hidden there until it is the root.
const SITES: &[&str] = &["/tmp", "/mnt", "/run"];

/// Moves this process into a private root, with `/` as working directory. To be called while the
/// process has one thread.
///
/// # Errors
/// With the step that the kernel refused. The process then still sees the host's tree, though
/// perhaps from a namespace of its own.
pub fn enter() -> Result<Sandbox, SandboxError> {
    let right = separate()?;
    let site = SITES.iter().map(Path::new).find(|site| site.is_dir());
    let site = site.ok_or_else(|| failed(Step::Tmpfs, io::ErrorKind::NotFound))?;
    rustix::mount::mount("bitts", site, "tmpfs", MountFlags::NOSUID, c"mode=0755")
        .map_err(|e| failed(Step::Tmpfs, e))?;
    lay_out(site).and_then(|()| pivot(site)).inspect_err(|_| {
        // Whatever is left is in this namespace alone; the host's directory shall be seen again.
        let _ = rustix::mount::unmount(site, UnmountFlags::DETACH);
    })?;
    Ok(Sandbox { right })
}

/// Moves this process into a mount namespace of its own in which it still sees the host's tree:
/// what it mounts shows nowhere else. To be called while the process has one thread.
///
/// # Errors
/// With the step that the kernel refused.
pub fn separate() -> Result<Right, SandboxError> {
    let threads = fs::read_dir("/proc/self/task").map(Iterator::count);
    match threads {
        Ok(1) => {}
        Ok(n) => {
            let many = io::Error::other(format!("this process has {n}"));
            return Err(failed(Step::Threads, many));
        }
        Err(e) => return Err(failed(Step::Threads, e)),
    }
    let right = unshare()?;
    let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", propagation).map_err(|e| failed(Step::Private, e))?;
    Ok(right)
}

fn unshare() -> Result<Right, SandboxError> {
    let uid = nix::unistd::geteuid();
    let gid = nix::unistd::getegid();
    if uid.is_root() && nix::sched::unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        return Ok(Right::Root);
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|e| failed(Step::Namespace, e))?;
    // The kernel wants setgroups given up before an unprivileged process may map its group.
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {uid} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
        .map_err(|e| failed(Step::UserMap, e))?;
    Ok(Right::UserNamespace(uid.as_raw()))
}

fn lay_out(site: &Path) -> Result<(), SandboxError> {
    for (name, mode) in TREE {
        let path = site.join(name);
        // Once more after the umask took its share.
        DirBuilder::new()
            .mode(*mode)
            .create(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode)))
            .map_err(|e| failed(Step::Tree, e))?;
    }
    for name in SHOWN {
        // With all below: a user namespace may not uncover what the host covered.
        rustix::mount::mount_bind_recursive(Path::new("/").join(name), site.join(name))
            .map_err(|e| failed(Step::Tree, e))?;
    }
    Ok(())
}

fn pivot(site: &Path) -> Result<(), SandboxError> {
    let step = |e| failed(Step::Pivot, e);
    std::env::set_current_dir(site).map_err(|e| failed(Step::Pivot, e))?;
    // The old root ends up on top of the new one, from where it is taken off.
    rustix::process::pivot_root(".", ".").map_err(step)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(step)?;
    std::env::set_current_dir("/").map_err(|e| failed(Step::Pivot, e))
}

fn failed(step: Step, source: impl Into<io::Error>) -> SandboxError {
    let source = source.into();
    let setting = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        text.trim().parse().ok()
    };
    SandboxError {
        step,
        advice: advice(step, source.kind(), setting),
        source,
    }
}

/// How the operator allows a step, by what the kernel's settings say.
fn advice(
    step: Step,
    error: io::ErrorKind,
    setting: impl Fn(&str) -> Option<u64>,
) -> Option<String> {
    if step == Step::Threads {
        return Some("enter the private root before anything else starts".to_owned());
    }
    let limited = setting("user/max_user_namespaces") == Some(0);
    if !limited && error != io::ErrorKind::PermissionDenied {
        // As in a chroot: there is nothing to make private, and nothing to put another root before.
        let rootless = matches!(step, Step::Private | Step::Pivot);
        return (rootless && error == io::ErrorKind::InvalidInput)
            .then(|| "the root of this process is not a mount point: leave the chroot".to_owned());
    }
    let sysctl = if limited {
        "user.max_user_namespaces=1000"
    } else if setting("kernel/unprivileged_userns_clone") == Some(0) {
        "kernel.unprivileged_userns_clone=1"
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        "kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        return Some(
            "run it as root, or in a container with the capability SYS_ADMIN and without a \
             seccomp profile"
                .to_owned(),
        );
    };
    Some(format!(
        "allow it with `sysctl {sysctl}`, or run it as root"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_noticed_before_anything_happens() {
        // The test harness always has a second thread.
        let error = enter().unwrap_err();
        assert_eq!(error.step(), Step::Threads);
        assert!(
            error.to_string().contains("before anything else starts"),
            "{error}"
        );
    }

    #[test]
    fn advice_names_the_setting_that_forbids_it() {
        let denied = io::ErrorKind::PermissionDenied;
        let with = |name: &'static str, value| move |asked: &str| (asked == name).then_some(value);
        let text = |error, setting: &dyn Fn(&str) -> Option<u64>| {
            advice(Step::Namespace, error, setting).unwrap_or_default()
        };
        let clone = with("kernel/unprivileged_userns_clone", 0);
        assert!(text(denied, &clone).contains("sysctl kernel.unprivileged_userns_clone=1"));
        let armor = with("kernel/apparmor_restrict_unprivileged_userns", 1);
        assert!(text(denied, &armor).contains("apparmor_restrict_unprivileged_userns=0"));
        let limit = with("user/max_user_namespaces", 0);
        assert!(text(io::ErrorKind::StorageFull, &limit).contains("max_user_namespaces"));
        assert!(text(denied, &|_| None).contains("SYS_ADMIN"));
        assert_eq!(text(io::ErrorKind::NotFound, &|_| None), "");
        for step in [Step::Private, Step::Pivot] {
            let chroot = advice(step, io::ErrorKind::InvalidInput, |_| None);
            assert!(chroot.unwrap().contains("not a mount point"));
        }
    }
}
