//! Whether a kubelet runs on this node: two that mount the same volumes would take them from each
//! other.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why the agent does not begin.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// One runs.
    #[error(
        "a kubelet runs on this node ({0}), which mounts the same volumes: stop it, or leave the \
         volumes to it and do not run the agent here"
    )]
    Runs(String),
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

/// Finds no kubelet among the processes that `proc` (`/proc`) shows, nor behind the socket that one
/// with this directory serves.
///
/// # Errors
/// Where there is one, or the node does not show whether there is.
pub fn none_runs(proc: &Path, kubelet_dir: &Path) -> Result<(), KubeletError> {
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
                return Err(KubeletError::Runs(format!("process {pid}")));
            }
            Ok(_) => {}
            Err(error) if ended(&error) => {}
            Err(error) => return Err(unsure(&file)(error)),
        }
    }
    // What a kubelet left behind refuses.
    let socket = kubelet_dir.join("pod-resources/kubelet.sock");
    match UnixStream::connect(&socket) {
        Ok(_) => Err(KubeletError::Runs(format!("{} answers", socket.display()))),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ConnectionRefused => Ok(()),
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

    fn look(node: &tempfile::TempDir) -> Result<(), KubeletError> {
        none_runs(&node.path().join("proc"), &node.path().join("kubelet"))
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
        let error = look(&node).unwrap_err();
        assert!(matches!(error, KubeletError::Unsure { .. }), "{error}");
        let error = none_runs(&node.path().join("none"), node.path()).unwrap_err();
        assert!(error.to_string().contains("hostPID"), "{error}");
    }
}
