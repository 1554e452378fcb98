//! What runs beside an API, as processes of their own that can be killed and started again: the real
//! kube-controller-manager and kube-scheduler, and the bitts binary.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::process::Process;
use crate::programs::{Programs, Source};

/// The stock controllers that the binder stands in for (N1).
pub const VOLUME_CONTROLLERS: [&str; 5] = [
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
    "ephemeral-volume-controller",
    "volumeattributesclass-protection-controller",
];

/// A program with a kubeconfig of its own. It is killed when this is dropped.
pub struct Component {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    process: Process,
    // Last: it is removed after the program has ended.
    folder: TempDir,
}

impl Component {
    fn start(
        name: &str,
        program: &Path,
        kubeconfig: &str,
        arguments: &[&str],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("bitts-e2e-{name}-"))
            .tempdir()?;
        let file = folder.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig)?;
        let file = format!("--kubeconfig={}", file.display());
        let all = arguments.iter().copied().chain([file.as_str()]);
        let arguments: Vec<String> = all.chain(flags.iter().copied()).map(Into::into).collect();
        let process = Process::start_as(name, program, &arguments, folder.path())?;
        Ok(Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            process,
            folder,
        })
    }

    /// Starts kube-controller-manager with exactly these controllers, without elections, and with
    /// rate limits that do not bind. It serves nothing: when it works is seen by what it does.
    pub fn controller_manager(
        kubeconfig: &str,
        controllers: &[&str],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let all = stock_arguments(controllers);
        let all = all.iter().map(String::as_str);
        let arguments: Vec<_> = all.chain(["--leader-elect=false"]).collect();
        let programs = programs()?;
        let program = programs.controller_manager();
        Self::start(
            "kube-controller-manager",
            program,
            kubeconfig,
            &arguments,
            flags,
        )
    }

    /// Starts kube-scheduler, without elections.
    pub fn scheduler(kubeconfig: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let arguments = ["--leader-elect=false", "--secure-port=0"];
        let programs = programs()?;
        let program = programs.scheduler();
        Self::start("kube-scheduler", program, kubeconfig, &arguments, flags)
    }

    /// Starts `bitts run --roles binder`, which elects a leader unless a flag says otherwise.
    pub fn binder(kubeconfig: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let arguments = ["run", "--roles=binder"];
        Self::start("bitts", bitts()?, kubeconfig, &arguments, flags)
    }

    /// Starts `bitts run` with these roles, which need not elect a leader.
    pub fn roles(kubeconfig: &str, roles: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let roles = format!("--roles={roles}");
        let arguments = ["run", &roles, "--leader-elect=false"];
        Self::start("bitts", bitts()?, kubeconfig, &arguments, flags)
    }

    /// The same where each role is done by the elected leader only.
    pub fn elected(kubeconfig: &str, roles: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let roles = format!("--roles={roles}");
        Self::start("bitts", bitts()?, kubeconfig, &["run", &roles], flags)
    }

    /// Starts the stock sidecar that has a CSI driver attach.
    pub fn external_attacher(kubeconfig: &str, socket: &Path) -> anyhow::Result<Self> {
        let socket = format!("--csi-address={}", socket.display());
        let flags = ["--kube-api-qps=5000", "--kube-api-burst=5000"];
        let program = crate::go::external_attacher()?;
        Self::start("csi-attacher", &program, kubeconfig, &[&socket], &flags)
    }

    /// Starts `bitts run --roles provisioner` for a node.
    pub fn provisioner(kubeconfig: &str, node: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let node = format!("--node-name={node}");
        let arguments = ["run", "--roles=provisioner", &node];
        Self::start("bitts", bitts()?, kubeconfig, &arguments, flags)
    }

    /// The id of its process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid()
    }

    /// Kills it as a crash would (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end (SIGTERM) without waiting.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.process.signal("TERM")
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Waits until it ended by itself or after [`Component::terminate`].
    pub async fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > patience {
                let words = self.process.last_words();
                anyhow::bail!("{} still runs after {patience:?}.\n{words}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it again, with the same flags. Its log goes on.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.process = Process::start_as(
            &self.name,
            &self.program,
            &self.arguments,
            self.folder.path(),
        )?;
        Ok(())
    }

    /// Everything that it printed in all of its runs.
    pub fn printed(&self) -> String {
        self.process.printed()
    }

    /// An error with the last lines of its log, which is kept.
    pub fn explain(&mut self, why: anyhow::Error) -> anyhow::Error {
        self.folder.disable_cleanup(true);
        let words = self.process.last_words();
        why.context(format!("{}: {words}", self.name))
    }
}

/// What makes kube-controller-manager run exactly these controllers, with rate limits that do not bind,
/// and serve nothing.
#[must_use]
pub fn stock_arguments(controllers: &[&str]) -> Vec<String> {
    let controllers = format!("--controllers={}", controllers.join(","));
    let others = [
        "--use-service-account-credentials=false",
        "--kube-api-qps=5000",
        "--kube-api-burst=5000",
        "--secure-port=0",
    ];
    [controllers]
        .into_iter()
        .chain(others.map(str::to_owned))
        .collect()
}

/// The programs of Kubernetes.
pub fn programs() -> anyhow::Result<Programs> {
    let source = Source::locate().map_err(|missing| anyhow::anyhow!("{missing}"))?;
    source.programs()
}

/// The bitts binary: the one in BITTS_E2E_BINARY, or the one that cargo puts beside the tests, built
/// first if a source is newer.
pub fn bitts() -> anyhow::Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find_bitts().map_err(|why| format!("{why:#}")));
    found
        .as_deref()
        .map_err(|why| anyhow::anyhow!("no bitts binary: {why}"))
}

fn find_bitts() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("BITTS_E2E_BINARY") {
        return Ok(path.into());
    }
    // target/debug/deps/binder-0123: two folders up.
    let tests = std::env::current_exe()?;
    let profile = tests.ancestors().nth(2).context("tests run in a target")?;
    let binary = profile.join("bitts");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let built = std::fs::metadata(&binary).and_then(|data| data.modified());
    if built.is_ok_and(|built| newest(&crates).is_ok_and(|newest| newest < built)) {
        return Ok(binary);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "-p", "bitts", "--bin", "bitts"]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let status = build.current_dir(&crates).status()?;
    anyhow::ensure!(status.success(), "cargo build -p bitts: {status}");
    Ok(binary)
}

/// When a file below `folder` changed last.
fn newest(folder: &Path) -> std::io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let changed = if entry.file_type()?.is_dir() {
            self::newest(&entry.path())?
        } else {
            entry.metadata()?.modified()?
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}
