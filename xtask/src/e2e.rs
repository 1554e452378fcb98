//! `cargo xtask e2e`: a real cluster is brought up, bitts is installed on it, tested and taken away.

mod evidence;
mod install;
mod kind;
mod local;
mod needs;
mod nfs;
mod pods;
mod progress;
mod provider;
mod rights;
mod stock;
mod version;

use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::ValueEnum;
use xshell::Shell;

use crate::workspace::Workspace;
use install::Role;
use kind::Kind;
use local::Local;
use progress::Progress;
use provider::{Power, Provider};
use version::Version;

/// Everything of a run is here: the kubeconfig, images, what was collected of failures.
const FOLDER: &str = "target/e2e";

/// What is done, and with what.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(crate) struct Args {
    #[command(subcommand)]
    change: Option<Change>,
    /// The steps [default: up, install, test, down].
    #[arg(value_enum, value_name = "STEP")]
    steps: Vec<Step>,
    /// What the cluster is made of.
    #[arg(long, value_enum, default_value_t, global = true)]
    provider: Make,
    /// Leave the cluster up at the end.
    #[arg(long)]
    keep: bool,
    /// Run only the tests whose names contain one of these.
    #[arg(long, value_delimiter = ',', value_name = "TEXTS")]
    filter: Vec<String>,
    /// The roles to install [default: all that run beside the stock controllers, with --replace-stock
    /// all; nfs-provisioner only where the nodes' kernel mounts NFS].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    roles: Vec<Role>,
    /// Switch off the controllers of kube-controller-manager that the roles stand in for; without it
    /// they are on, also where an earlier run switched them off.
    #[arg(long)]
    replace_stock: bool,
    /// A node image of your own, where kind's cannot be pulled.
    #[arg(long, value_name = "IMAGE")]
    node_image: Option<String>,
    /// A version to upgrade from, a tag or a commit: with it the test `upgraded` runs, too.
    #[arg(long, env = "BITTS_E2E_EARLIER", value_name = "NAME")]
    earlier: Option<String>,
    /// Install what is missing of Debian packages, as root.
    #[arg(long)]
    install_packages: bool,
}

/// What is done to a cluster that is there.
#[derive(clap::Subcommand)]
enum Change {
    /// Cut a node's power, or give it back, and wait until the cluster knows.
    Power {
        #[arg(value_enum)]
        power: Power,
        /// The node's name in the cluster.
        node: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Make the cluster and the NFS server, or what is missing of them.
    Up,
    /// Build the version that --earlier names and install it.
    InstallEarlier,
    /// Build the images and install them, or what changed.
    Install,
    /// Run the tests.
    Test,
    /// Take all of it away.
    Down,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Make {
    /// Containers as nodes, by kind.
    #[default]
    Kind,
    /// Processes, and machines in user-mode Linux as nodes: no images, no network; as root on Debian.
    Local,
}

impl Make {
    fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Local => "local",
        }
    }
}

pub(crate) fn run(_: &Workspace, mut args: Args) -> Result<()> {
    let sh = Shell::new()?;
    sh.create_dir(FOLDER)?;
    let provider: Box<dyn Provider> = match args.provider {
        Make::Kind => Box::new(Kind::find(&sh, args.node_image.clone())?),
        Make::Local => Box::new(Local::find(&sh, args.install_packages)?),
    };
    let provider = &*provider;
    if let Some(Change::Power { power, node }) = &args.change {
        return provider.power(&sh, node, *power);
    }
    if args.steps.is_empty() {
        args.steps = vec![Step::Up, Step::Install, Step::Test];
        if !args.keep {
            args.steps.push(Step::Down);
        }
    }
    let roles = install::chosen(&args.roles, args.replace_stock, provider.mounts_nfs())?;
    progress::survive_interrupts()?;
    let mut progress = Progress::start();
    let wants = |step| args.steps.contains(&step);

    let mut done = Ok(());
    if args.steps.iter().any(|step| *step != Step::Down) {
        done = forward(&args, &sh, provider, &roles, &mut progress);
        if progress::clear_interrupt() {
            done = Err(anyhow!("interrupted"));
        } else if done.is_err() {
            match evidence::collect(&sh, provider) {
                Ok(folder) => eprintln!("logs, events and objects are in {}", folder.display()),
                Err(error) => eprintln!("cannot collect what happened: {error:#}"),
            }
        }
    }
    // What this run made goes with it, unless it is to stay for another look.
    let half_made = done.is_err() && wants(Step::Up);
    let down = if wants(Step::Down) || (half_made && !args.keep) {
        progress.during("down", || provider.down(&sh))
    } else {
        Ok(())
    };
    progress.summary();
    done.and(down)
}

fn forward(
    args: &Args,
    sh: &Shell,
    provider: &dyn Provider,
    roles: &[Role],
    progress: &mut Progress,
) -> Result<()> {
    let wants = |step| args.steps.contains(&step);
    // It takes longest where it was not built before, and needs no cluster.
    let this = wants(Step::Install)
        .then(|| Version::this(sh))
        .transpose()?;
    if wants(Step::Up) {
        provider.up(sh, progress)?;
    }
    if wants(Step::InstallEarlier) {
        let name = args.earlier.as_deref();
        let earlier = Version::earlier(sh, name.context("--earlier says which version")?)?;
        install::install(sh, provider, earlier, roles, args.replace_stock, progress)?;
    }
    if let Some(this) = this {
        install::install(sh, provider, this, roles, args.replace_stock, progress)?;
    }
    if wants(Step::Test) {
        if args.filter.is_empty() {
            progress.during("test", || test(args, sh, roles, provider, None))?;
        }
        for filter in &args.filter {
            let what = format!("test: {filter}");
            progress.during(&what, || test(args, sh, roles, provider, Some(filter)))?;
        }
        // Some of the tests use some of the rights.
        if let (true, Some(log)) = (args.filter.is_empty(), provider.audit_log()) {
            progress.during("test: no right is unused", || {
                rights::check(sh, provider, roles, &log)
            })?;
        }
    }
    Ok(())
}

/// The tests are a program of their own: they know the cluster by these variables only.
fn test(
    args: &Args,
    sh: &Shell,
    roles: &[Role],
    provider: &dyn Provider,
    filter: Option<&str>,
) -> Result<()> {
    let mut cluster = provider.cluster(sh)?;
    if args.earlier.is_some() {
        cluster.abilities.push("upgrade");
    }
    let kubectl = provider.kubectl();
    let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    let program = std::env::current_exe()?;
    let change = format!(
        "{} e2e --provider {}",
        program.display(),
        args.provider.name()
    );
    let status = Command::new("cargo")
        .args(["test", "--package", "bitts-e2e-cluster", "--"])
        .args(filter)
        .env("KUBECONFIG", std::path::absolute(&kubectl.kubeconfig)?)
        .env("BITTS_E2E_KUBECTL", &kubectl.program)
        .env("BITTS_E2E_NFS_SERVER", &cluster.nfs_server)
        .env("BITTS_E2E_POD_IMAGE", &cluster.pod_image)
        .env("BITTS_E2E_ROLES", roles.join(","))
        .env("BITTS_E2E_ABILITIES", cluster.abilities.join(","))
        .env("BITTS_E2E_CHANGE", change)
        .envs(args.earlier.iter().map(|name| ("BITTS_E2E_EARLIER", name)))
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "tests failed ({status})");
    Ok(())
}
