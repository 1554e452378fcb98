//! Whether a kubelet runs on this node: two that mount the same volumes would take them from each
//! other, and where there is none nobody mounts for an agent that only looks.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::mode::Mode;

/// Why the agent does not begin.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// One runs.
    #[error(
        "a kubelet runs on this node ({0}), which mounts the same volumes: stop it, or leave the \
         volumes to it and run the agent with --beside-kubelet"
    )]
    Runs(String),
    /// None runs, and the agent was to leave the volumes to it.
    #[error(
        "--beside-kubelet leaves all volumes to a kubelet, and none runs on this node: start it \
         first, or leave the flag out and the agent mounts them"
    )]
    NoneRuns,
    /// Nobody knows.
    #[error(
        "whether a kubelet runs on this node cannot be told: {path} cannot be read: {source}. Run the \
         agent as root, and in a container with `hostPID: true`", path = path.display()
    )]
    Unsure {
        /// What was to be read.
        path: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
}

/// Says whether an agent in this mode may begin: alone as the volumes' owner, or beside a kubelet.
/// One is looked for among the processes that `proc` (`/proc`) shows, and behind the socket that one
/// with this directory serves.
///
/// # Errors
/// Where the mode is the wrong one, or the node does not show whether it is.
pub fn check(mode: Mode, proc: &Path, kubelet_dir: &Path) -> Result<(), KubeletError> {
    match (mode, find(proc, kubelet_dir)?) {
        (Mode::Owner, None) | (Mode::BesideKubelet, Some(_)) => Ok(()),
        (Mode::Owner, Some(kubelet)) => Err(KubeletError::Runs(kubelet)),
        (Mode::BesideKubelet, None) => Err(KubeletError::NoneRuns),
    }
}

/// How the kubelet shows itself, if one runs.
fn find(proc: &Path, kubelet_dir: &Path) -> Result<Option<String>, KubeletError> {
    let unsure = |path: &Path| {
        let path = path.to_owned();
        move |source| KubeletError::Unsure { path, source }
    };
    for entry in fs::read_dir(proc).map_err(unsure(proc))? {
        let entry = entry.map_err(unsure(proc))?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let file = entry.path().join("comm");
        match fs::read_to_string(&file) {
            Ok(comm) if comm.trim_end() == "kubelet" => {
                return Ok(Some(format!("process {pid}")));
            }
            Ok(_) => {}
            Err(error) if ended(&error) => {}
            Err(error) => return Err(unsure(&file)(error)),
        }
    }
    // What a kubelet left behind refuses.
    let socket = kubelet_dir.join("pod-resources/kubelet.sock");
    match UnixStream::connect(&socket) {
        Ok(_) => Ok(Some(format!("{} answers", socket.display()))),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(unsure(&socket)(error)),
        },
    }
}

/// Whether a process ended while it was looked at (ENOENT, ESRCH).
fn ended(error: &io::Error) -> bool {
    const ESRCH: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A node on which these processes run.
    fn node(processes: &[&str]) -> tempfile::TempDir {
        let node = tempfile::tempdir().unwrap();
        for (pid, comm) in (1..).zip(processes) {
            let process = node.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&process).unwrap();
            fs::write(process.join("comm"), format!("{comm}\n")).unwrap();
        }
        fs::create_dir_all(node.path().join("proc/sys")).unwrap();
        node
    }

    fn begin(mode: Mode, node: &tempfile::TempDir) -> Result<(), KubeletError> {
        check(
            mode,
            &node.path().join("proc"),
            &node.path().join("kubelet"),
        )
    }

    fn look(node: &tempfile::TempDir) -> Result<(), KubeletError> {
        begin(Mode::Owner, node)
    }

    #[test]
    fn of_the_two_modes_each_node_has_one() {
        let (with, without) = (node(&["init", "kubelet"]), node(&["init"]));
        begin(Mode::BesideKubelet, &with).unwrap();
        begin(Mode::Owner, &with).unwrap_err();
        begin(Mode::Owner, &without).unwrap();
        let error = begin(Mode::BesideKubelet, &without).unwrap_err();
        assert!(matches!(error, KubeletError::NoneRuns), "{error}");
    }

    #[test]
    fn a_socket_that_answers_is_a_kubelet_to_be_beside_of() {
        let node = node(&["init"]);
        let folder = node.path().join("kubelet/pod-resources");
        fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
        begin(Mode::BesideKubelet, &node).unwrap();
        drop(listener);
        begin(Mode::BesideKubelet, &node).unwrap_err();
    }

    #[test]
    fn a_process_named_kubelet_is_one() {
        look(&node(&["init", "kubelet-debug", "bitts"])).unwrap();
        let error = look(&node(&["init", "kubelet"])).unwrap_err();
        assert!(error.to_string().contains("(process 2)"), "{error}");
    }

    #[test]
    fn a_socket_that_answers_is_one_and_what_is_left_of_one_is_not() {
        let node = node(&["init"]);
        let folder = node.path().join("kubelet/pod-resources");
        fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
        let error = look(&node).unwrap_err();
        assert!(matches!(error, KubeletError::Runs(_)), "{error}");
        drop(listener);
        look(&node).unwrap();
    }

    #[test]
    fn where_the_node_does_not_show_itself_the_answer_is_no() {
        let node = node(&["init"]);
        let hidden = node.path().join("proc/7/comm");
        fs::create_dir_all(&hidden).unwrap();
        for mode in [Mode::Owner, Mode::BesideKubelet] {
            let error = begin(mode, &node).unwrap_err();
            assert!(matches!(error, KubeletError::Unsure { .. }), "{error}");
        }
        let error = check(Mode::Owner, &node.path().join("none"), node.path()).unwrap_err();
        assert!(error.to_string().contains("hostPID"), "{error}");
    }
}
