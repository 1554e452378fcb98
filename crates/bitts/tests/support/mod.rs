//! `bitts apiserver` with a stock kubectl beside it, of 1.32 or newer, from KUBEBUILDER_ASSETS or PATH;
//! without one a test is skipped and says so, and fails where CI is set.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up shall panic"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// `bitts apiserver` and, beside it, the binder; both end with the test.
pub struct Cluster {
    pub kubectl: PathBuf,
    pub folder: tempfile::TempDir,
    processes: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Cluster {
    pub fn start() -> Option<Self> {
        let Some(kubectl) = kubectl() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "kubectl is missing: set KUBEBUILDER_ASSETS"
            );
            skip("no kubectl in KUBEBUILDER_ASSETS or PATH");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let mut api = Command::new(env!("CARGO_BIN_EXE_bitts"))
            .args(["apiserver", "--listen", "127.0.0.1:0", "--write-kubeconfig"])
            .arg(folder.path().join("kubeconfig"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(api.stdout.as_mut().unwrap())
            .read_line(&mut ready)
            .unwrap();
        assert!(ready.starts_with("ready "), "{ready}");
        Some(Self {
            kubectl,
            folder,
            processes: vec![api],
        })
    }

    pub fn with_binder() -> Option<Self> {
        Self::with(&["--roles=binder"])
    }

    /// With these flags of `bitts run`.
    pub fn with(flags: &[&str]) -> Option<Self> {
        let mut cluster = Self::start()?;
        let roles = Command::new(env!("CARGO_BIN_EXE_bitts"))
            .args(["run", "--leader-elect=false"])
            .args(flags)
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig())
            .spawn()
            .unwrap();
        cluster.processes.push(roles);
        Some(cluster)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.folder.path().join("cache"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        command
    }

    /// Runs kubectl, which must succeed without a warning; gives what it prints.
    pub fn kubectl(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments}: {stderr}");
        assert!(
            !stderr.to_lowercase().contains("warning"),
            "kubectl {arguments}: {stderr}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn refused(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(!output.status.success(), "kubectl {arguments} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn kubectl() -> Option<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = assets.into_iter().chain(std::env::split_paths(&path));
    folders
        .map(|folder| folder.join("kubectl"))
        .find(|file| file.is_file())
}

/// Says it past the test harness, which keeps what is printed to itself.
fn skip(why: &str) {
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped: {why}").unwrap();
}
