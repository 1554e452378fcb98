//! Runs each case in a process of its own with one thread, so that it can leave the host's mount
//! namespace: as root where the tests run as root, and as an unprivileged user, in a user
//! namespace. Where the kernel forbids that, the cases are reported as ignored and the reason is
//! printed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use bitts_mount::sandbox;
use libtest_mimic::{Arguments, Trial};
use rustix::mount::MountPropagationFlags;

/// A case: its name and what it does in its process.
pub(crate) type Case = (&'static str, fn());

pub(crate) fn main(cases: &'static [Case]) -> ExitCode {
    if let Ok(dir) = std::env::var("BITTS_TEST_HOLD") {
        return hold(Path::new(&dir));
    }
    if let Ok(case) = std::env::var("BITTS_TEST_CASE") {
        return run_case(cases, &case);
    }
    let arguments = Arguments::from_args();
    let root = nix::unistd::geteuid().is_root();
    let mut trials = Vec::new();
    for user in if root {
        &["root", "nobody"][..]
    } else {
        &["self"]
    } {
        let probe = child("probe", user).output().unwrap();
        let forbidden = probe.status.code() == Some(SKIPPED);
        if forbidden {
            eprintln!(
                "skipped as {user}: {}",
                String::from_utf8_lossy(&probe.stderr).trim()
            );
        }
        trials.extend(cases.iter().map(|(name, _)| {
            let trial = Trial::test(format!("{user}::{name}"), move || run_child(name, user));
            trial.with_ignored_flag(forbidden)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The exit code of a case that cannot be run here.
const SKIPPED: i32 = 77;

/// Ends a case that this machine has no way to run, with the reason.
pub(crate) fn skip(reason: &str) -> ! {
    eprintln!("{reason}");
    std::process::exit(SKIPPED)
}

fn child(case: &str, user: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .env("BITTS_TEST_CASE", case)
        .env("BITTS_TEST_USER", user);
    command
}

fn run_child(case: &str, user: &str) -> Result<(), libtest_mimic::Failed> {
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let output = child(case, user).output()?;
    if output.status.code() == Some(SKIPPED) {
        eprintln!(
            "skipped {user}::{case}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    } else if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    if fs::read_to_string("/proc/self/mountinfo")? != before {
        return Err("the case left something in the host's mount table".into());
    }
    Ok(())
}

/// In the child, before anything else runs.
fn run_case(cases: &[Case], case: &str) -> ExitCode {
    if std::env::var("BITTS_TEST_USER").as_deref() == Ok("nobody") {
        let (uid, gid) = (65534.into(), 65534.into());
        nix::unistd::setgroups(&[]).unwrap();
        nix::unistd::setresgid(gid, gid, gid).unwrap();
        nix::unistd::setresuid(uid, uid, uid).unwrap();
        // A process that gave up root does not own its own files in /proc otherwise.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
            .unwrap();
    }
    if case == "probe" {
        return match sandbox::enter() {
            Err(error) if error.is_forbidden() => skip(&error.to_string()),
            _ => ExitCode::SUCCESS,
        };
    }
    let (_, run) = cases.iter().find(|(name, _)| *name == case).unwrap();
    run();
    ExitCode::SUCCESS
}

/// Where a holder's mounts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// In the case's namespace.
    Shared,
    /// In a copy of it that goes its own way.
    Private,
    /// In a copy that follows what is mounted and unmounted here, as system services have.
    Following,
}

/// A process that works in this directory until it is ended.
pub(crate) fn start_holder(dir: &Path, namespace: Namespace) -> Child {
    let mut child = Command::new("/proc/self/exe")
        .env("BITTS_TEST_HOLD", dir)
        .env("BITTS_TEST_NAMESPACE", format!("{namespace:?}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn hold(dir: &Path) -> ExitCode {
    std::env::set_current_dir(dir).unwrap();
    match std::env::var("BITTS_TEST_NAMESPACE").as_deref() {
        Ok("Private") => drop(sandbox::separate().unwrap()),
        Ok("Following") => {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let follow = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", follow).unwrap();
        }
        _ => {}
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    ExitCode::SUCCESS
}

pub(crate) fn end(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
