//! `cargo xtask e2e`: a real cluster is brought up, bitts is installed on it, tested and taken away.

mod evidence;
mod install;
mod kind;
mod nfs;
mod progress;
mod stock;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use xshell::{Shell, cmd};

use crate::workspace::Workspace;
use install::Role;
use kind::Kind;
use progress::{Interrupted, Progress};

/// Everything of a run is here: the kubeconfig, images, what was collected of failures.
const FOLDER: &str = "target/e2e";

/// What is done, and with what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The steps [default: up, install, test, down].
    #[arg(value_enum, value_name = "STEP")]
    steps: Vec<Step>,
    /// What the cluster is made of.
    #[arg(long, value_enum, default_value_t)]
    provider: Provider,
    /// Leave the cluster up at the end.
    #[arg(long)]
    keep: bool,
    /// Run only the tests whose names contain this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The roles to install [default: provisioner, with --replace-stock binder and provisioner].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    roles: Vec<Role>,
    /// Switch off the controllers of kube-controller-manager that the roles stand in for; without it
    /// they are on, also where an earlier run switched them off.
    #[arg(long)]
    replace_stock: bool,
    /// A node image of your own, where kind's cannot be pulled.
    #[arg(long, value_name = "IMAGE")]
    node_image: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Make the cluster and the NFS server, or what is missing of them.
    Up,
    /// Build the image and install it, or what changed.
    Install,
    /// Run the tests.
    Test,
    /// Take all of it away.
    Down,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// Containers as nodes, by kind.
    #[default]
    Kind,
}

/// What tests are told of a cluster, whatever made it.
struct Cluster {
    kubeconfig: PathBuf,
    /// The address of an NFS server that exports /export to all nodes.
    nfs_server: String,
    /// An image with a shell that the nodes have.
    pod_image: String,
}

pub(crate) fn run(_: &Workspace, mut args: Args) -> Result<()> {
    let Provider::Kind = args.provider;
    if args.steps.is_empty() {
        args.steps = vec![Step::Up, Step::Install, Step::Test];
        if !args.keep {
            args.steps.push(Step::Down);
        }
    }
    let roles = install::chosen(&args.roles, args.replace_stock)?;
    let interrupted = Interrupted::watch()?;
    let mut progress = Progress::start();
    let sh = Shell::new()?;
    sh.create_dir(FOLDER)?;
    let kind = Kind::find(&sh, args.node_image.clone())?;
    let wants = |step| args.steps.contains(&step);

    let mut done = Ok(());
    if args.steps.iter().any(|step| *step != Step::Down) {
        done = forward(&args, &sh, &kind, &roles, &mut progress);
        if interrupted.clear() {
            done = Err(anyhow::anyhow!("interrupted"));
        } else if done.is_err() {
            let folder = evidence::collect(&sh, &kind);
            match folder {
                Ok(folder) => eprintln!("logs, events and objects are in {}", folder.display()),
                Err(error) => eprintln!("cannot collect what happened: {error:#}"),
            }
        }
    }
    // What this run made goes with it, unless it is to stay for another look.
    let half_made = done.is_err() && wants(Step::Up);
    let down = if wants(Step::Down) || (half_made && !args.keep) {
        progress.during("down", || kind.down(&sh))
    } else {
        Ok(())
    };
    progress.summary();
    done.and(down)
}

fn forward(
    args: &Args,
    sh: &Shell,
    kind: &Kind,
    roles: &[Role],
    progress: &mut Progress,
) -> Result<()> {
    let wants = |step| args.steps.contains(&step);
    if wants(Step::Up) {
        kind.up(sh, progress)?;
    }
    if wants(Step::Install) {
        install::install(sh, kind, roles, args.replace_stock, progress)?;
    }
    if wants(Step::Test) {
        let cluster = kind.cluster(sh)?;
        progress.during("test", || test(args, roles, &cluster))?;
    }
    Ok(())
}

/// The tests are a program of their own: they know the cluster by these variables only.
fn test(args: &Args, roles: &[Role], cluster: &Cluster) -> Result<()> {
    let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    let status = Command::new("cargo")
        .args(["test", "--package", "bitts-e2e", "--test", "cluster", "--"])
        .args(&args.filter)
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("BITTS_E2E_NFS_SERVER", &cluster.nfs_server)
        .env("BITTS_E2E_POD_IMAGE", &cluster.pod_image)
        .env("BITTS_E2E_ROLES", roles.join(","))
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "tests failed ({status})");
    Ok(())
}

/// A program that is there, or how to get it.
fn needed(sh: &Shell, program: &str, look: &[&str], get: &str) -> Result<()> {
    let found = cmd!(sh, "{program} {look...}")
        .quiet()
        .ignore_stderr()
        .read();
    if found.is_err() {
        bail!("{program} is missing or does not answer. {get}");
    }
    Ok(())
}

/// kubectl on the cluster.
fn kubectl(sh: &Shell, kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
    let program = kubectl_program();
    progress::output(cmd!(
        sh,
        "{program} --kubeconfig {kubeconfig} {arguments...}"
    ))
}

/// From the folder of Kubernetes programs, else from PATH.
fn kubectl_program() -> PathBuf {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let there = folder.map(|folder| folder.join("kubectl"));
    there
        .filter(|program| program.exists())
        .unwrap_or_else(|| "kubectl".into())
}
