//! Where the real Kubernetes programs come from: the folder in KUBEBUILDER_ASSETS, then PATH, then
//! the Go module in `e2e/kubernetes`, built once and kept in the target folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;

/// The minor version whose answers the transcripts hold.
const MINOR: &str = "v1.37.";
const NEEDED: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];
const BUILT: [&str; 6] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
];

/// The folders that hold the programs.
#[derive(Debug, Clone)]
pub struct Programs {
    etcd: PathBuf,
    apiserver: PathBuf,
    controller_manager: PathBuf,
    scheduler: PathBuf,
}

/// Why there are none, one reason for each place that was looked at.
#[derive(Debug, Clone)]
pub struct Missing(Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no Kubernetes 1.37 programs: {}", self.0.join("; "))
    }
}

/// Where the programs come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// They are there.
    Ready(Programs),
    /// A Go that can build them is there. A build takes about 12 minutes the first time.
    Build,
}

impl Source {
    /// Looks for the programs, in this order, without building anything.
    pub fn locate() -> Result<Self, Missing> {
        let mut missing = Vec::new();
        match std::env::var_os("KUBEBUILDER_ASSETS") {
            Some(folder) => match Programs::among(&[PathBuf::from(folder)]) {
                Ok(programs) => return Ok(Self::Ready(programs)),
                Err(why) => missing.push(format!("KUBEBUILDER_ASSETS: {why}")),
            },
            None => missing.push("KUBEBUILDER_ASSETS is not set".to_owned()),
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        match Programs::among(&std::env::split_paths(&path).collect::<Vec<_>>()) {
            Ok(programs) => return Ok(Self::Ready(programs)),
            Err(why) => missing.push(format!("PATH: {why}")),
        }
        match check_go() {
            Ok(()) => return Ok(Self::Build),
            Err(why) => missing.push(format!("to build them: {why:#}")),
        }
        Err(Missing(missing))
    }

    /// The programs, built now if need be.
    pub fn programs(self) -> anyhow::Result<Programs> {
        match self {
            Self::Ready(programs) => Ok(programs),
            Self::Build => build(),
        }
    }
}

impl Programs {
    /// The path of etcd.
    pub fn etcd(&self) -> &Path {
        &self.etcd
    }

    /// The path of kube-apiserver.
    pub fn apiserver(&self) -> &Path {
        &self.apiserver
    }

    /// The path of kube-controller-manager.
    pub fn controller_manager(&self) -> &Path {
        &self.controller_manager
    }

    /// The path of kube-scheduler.
    pub fn scheduler(&self) -> &Path {
        &self.scheduler
    }

    fn among(folders: &[PathBuf]) -> Result<Self, String> {
        let find = |name: &str| {
            let found = folders
                .iter()
                .map(|folder| folder.join(name))
                .find(|path| path.is_file());
            found.ok_or_else(|| format!("no {name}"))
        };
        let [etcd, apiserver, controller_manager, scheduler] = NEEDED.map(find);
        let (etcd, apiserver) = (etcd?, apiserver?);
        let version = first_line(Command::new(&apiserver).arg("--version"))
            .map_err(|why| format!("{}: {why:#}", apiserver.display()))?;
        if !version.contains(MINOR) {
            return Err(format!(
                "{} is {version}, not {MINOR}x",
                apiserver.display()
            ));
        }
        Ok(Self {
            etcd,
            apiserver,
            controller_manager: controller_manager?,
            scheduler: scheduler?,
        })
    }
}

/// Builds `e2e/kubernetes` unless what was built is newer than its sources.
fn build() -> anyhow::Result<Programs> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| module.join("../../target"), PathBuf::from);
    std::fs::create_dir_all(target.join("kubernetes"))?;
    let folder = target.join("kubernetes").canonicalize()?;
    let binary = folder.join("kubernetes");
    if !newer(
        &binary,
        &["main.go", "go.mod", "go.sum"].map(|name| module.join(name)),
    ) {
        let version = kubernetes_version(&module)?;
        eprintln!("building Kubernetes {version} (about 12 minutes the first time) ...");
        let start = Instant::now();
        let unfinished = folder.join(format!("kubernetes.{}", std::process::id()));
        let stamp = "k8s.io/component-base/version";
        let minor = version.split('.').nth(1).unwrap_or_default();
        let flags = format!(
            "-s -w -X {stamp}.gitVersion={version} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor={minor}"
        );
        let status = Command::new("go")
            .args([
                "build",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags",
                &flags,
                "-o",
            ])
            .arg(&unfinished)
            .arg(".")
            .current_dir(&module)
            .status()?;
        anyhow::ensure!(
            status.success(),
            "go build in {} failed ({status})",
            module.display()
        );
        std::fs::rename(&unfinished, &binary)?;
        eprintln!(
            "built in {} s: {}",
            start.elapsed().as_secs(),
            binary.display()
        );
    }
    for name in BUILT {
        let link = folder.join(name);
        if !link.exists() {
            // Another test program may make the same link at the same time.
            let _ = std::os::unix::fs::symlink("kubernetes", link);
        }
    }
    Programs::among(&[folder]).map_err(anyhow::Error::msg)
}

/// `v1.37.2`, as the require line of go.mod says.
fn kubernetes_version(module: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(module.join("go.mod"))?;
    let version = text.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        line.strip_prefix("k8s.io/kubernetes ")
    });
    Ok(version
        .context("go.mod requires no k8s.io/kubernetes")?
        .trim()
        .to_owned())
}

/// Whether there is a Go that builds them.
pub(crate) fn check_go() -> anyhow::Result<()> {
    let version = first_line(Command::new("go").args(["env", "GOVERSION"]))?;
    let minor = version
        .strip_prefix("go1.")
        .and_then(|rest| rest.split('.').next());
    let minor: u32 = minor.unwrap_or_default().parse().unwrap_or_default();
    anyhow::ensure!(minor >= 26, "it needs Go 1.26 or newer, this is {version}");
    Ok(())
}

fn newer(binary: &Path, sources: &[PathBuf]) -> bool {
    let time = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|data| data.modified())
            .ok()
    };
    let Some(built) = time(binary) else {
        return false;
    };
    sources
        .iter()
        .all(|source| time(source).is_some_and(|changed| changed <= built))
}

fn first_line(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
