//! The command line: what users type, and nothing else.

#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "demo",
    feature = "provisioner"
))]
use std::{net::SocketAddr, path::PathBuf};

#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "demo",
    feature = "provisioner"
))]
use clap::Args;
use clap::{Parser, Subcommand, ValueEnum};

/// Claims bound, volumes mounted: the Kubernetes persistent-volume control plane in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "bitts",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// How log lines are written to standard error.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "BITTS_LOG_FORMAT"
    )]
    pub(crate) log_format: LogFormat,

    /// What is logged, e.g. `info` or `bitts_binder=debug,warn` (as in RUST_LOG).
    #[arg(long, global = true, env = "BITTS_LOG")]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole life of a claim on an embedded API, with real mounts in a private root.
    #[cfg(feature = "demo")]
    Demo(Demo),
    /// Run roles on a cluster.
    #[cfg(any(
        feature = "agent",
        feature = "attacher",
        feature = "binder",
        feature = "provisioner"
    ))]
    Run(Box<Run>),
    /// Tell why a claim, a volume, a pod's volumes or an attachment are where they are, and what would
    /// unblock them, or what is wrong with a class. Reads only.
    #[cfg(feature = "binder")]
    #[command(
        after_help = "Exit codes: 0 fine, 1 the cluster cannot be read, 3 waits for something \
        or somebody, 4 does not exist."
    )]
    Explain(Explain),
    /// Check whether roles may run on a cluster, above all that no stock controller does their work.
    #[cfg(any(feature = "attacher", feature = "binder"))]
    Preflight(crate::preflight::Preflight),
    /// Print what a role on a cluster's nodes or control plane may do on the API, and why.
    #[cfg(any(feature = "attacher", feature = "binder"))]
    Rbac(crate::rbac::Rbac),
    /// What was moved aside when volumes were deleted: list it, put it back, or remove it for good.
    #[cfg(feature = "provisioner")]
    Trash(crate::trash::Trash),
    /// Find directories and records without a volume, and volumes without their directory.
    #[cfg(feature = "provisioner")]
    #[command(
        after_help = "Exit codes: 0 nothing is orphaned, 1 it could not be found out, 3 something is."
    )]
    Orphans(crate::orphans::Args),
    /// Take over volumes that nfs-subdir-external-provisioner or local-path-provisioner made.
    #[cfg(feature = "provisioner")]
    #[command(
        after_help = "Exit codes: 0 all that lie here are (or would be) taken over, 1 it failed, 3 some are \
        left."
    )]
    Adopt(crate::adopt::Args),
    /// Give up the data of a claim that lies on a node that is gone, and make the claim anew, empty.
    #[cfg(feature = "provisioner")]
    Recreate(crate::recreate::Args),
    /// Serve an in-memory Kubernetes API that kubectl works against.
    #[cfg(feature = "demo")]
    Apiserver(Apiserver),
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// `bitts demo`.
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Exit after the story; otherwise stay up and follow what you do with kubectl.
    #[arg(long)]
    pub(crate) once: bool,

    /// Text for people, or one JSON object a line on standard output.
    #[arg(long, short, value_enum, default_value_t, env = "BITTS_OUTPUT")]
    pub(crate) output: Output,

    /// Where the embedded API listens when it stays up (loopback only).
    #[arg(
        long,
        default_value = "127.0.0.1:0",
        value_name = "ADDR",
        conflicts_with = "once"
    )]
    pub(crate) listen: SocketAddr,

    /// Where the kubeconfig is written when it stays up; it must not exist, and is removed at the
    /// end [default: a new file among the temporary ones].
    #[arg(long, value_name = "FILE", conflicts_with = "once")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
}

/// How often something is looked at, if at all.
#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "provisioner"
))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Option<std::time::Duration>);

#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "provisioner"
))]
pub(crate) fn interval(text: &str) -> Result<Interval, String> {
    if text == "0" {
        return Ok(Interval(None));
    }
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    match std::time::Duration::try_from(span) {
        Ok(time) if time.is_zero() => Ok(Interval(None)),
        Ok(time) if time.as_secs() >= 1 => Ok(Interval(Some(time))),
        _ => Err("less than a second would be work all the time; 0 turns it off".to_owned()),
    }
}

/// A time that has passed since something, a day having 24 hours.
#[cfg(feature = "provisioner")]
pub(crate) fn age(text: &str) -> Result<std::time::Duration, String> {
    let span: jiff::Span = text.parse().map_err(|error| format!("{error}"))?;
    let time = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let time = time.map_err(|error| format!("{error}"))?;
    std::time::Duration::try_from(time).map_err(|_| "it must not be negative".to_owned())
}

#[cfg(any(feature = "agent", feature = "attacher", feature = "provisioner"))]
pub(crate) fn patience(text: &str) -> Result<std::time::Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    match std::time::Duration::try_from(span) {
        Ok(time) if time.as_secs() >= 1 => Ok(time),
        _ => Err("less than a second would end what only takes its time".to_owned()),
    }
}

/// `bitts run`.
#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "provisioner"
))]
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The roles, separated by commas.
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "LIST",
        value_parser = role,
        env = "BITTS_ROLES"
    )]
    pub(crate) roles: Vec<Role>,

    /// The cluster [default: KUBECONFIG, the usual file, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Where `/metrics`, `/healthz` and `/readyz` are served; not at all when absent.
    #[arg(long, value_name = "ADDR", env = "BITTS_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,

    /// How often what watches told is compared with lists of metadata, such as `30m` or `2h`; 0 turns
    /// it off.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30m",
        value_parser = interval,
        env = "BITTS_RESYNC_INTERVAL"
    )]
    pub(crate) resync_interval: Interval,

    /// The name of this node in the API, for the roles that run on each node.
    #[cfg(any(feature = "agent", feature = "provisioner"))]
    #[arg(
        long,
        value_name = "NAME",
        env = "BITTS_NODE_NAME",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub(crate) node_name: Option<String>,

    /// Whether the roles of which one process is enough wait to be the elected leader.
    #[cfg(any(feature = "attacher", feature = "binder", feature = "provisioner"))]
    #[arg(
        long,
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL",
        env = "BITTS_LEADER_ELECT"
    )]
    pub(crate) leader_elect: bool,

    /// The namespace of the leases, and of what the scheduler is told of nodes' room [default: the pod's
    /// own, else `kube-system`].
    #[cfg(any(feature = "attacher", feature = "binder", feature = "provisioner"))]
    #[arg(long, value_name = "NAMESPACE", env = "BITTS_LEASE_NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,

    /// Run although kube-controller-manager does the same work: safe, but everything is written
    /// twice. Not the attacher: two of that kind would undo each other's lists.
    #[cfg(any(feature = "attacher", feature = "binder"))]
    #[arg(long, env = "BITTS_ALLOW_STOCK_CONTROLLERS")]
    pub(crate) allow_stock_controllers: bool,

    #[cfg(feature = "binder")]
    #[command(flatten)]
    pub(crate) binder: crate::binder::Binder,

    #[cfg(feature = "agent")]
    #[command(flatten)]
    pub(crate) agent: Agent,

    #[cfg(feature = "attacher")]
    #[command(flatten)]
    pub(crate) attacher: crate::attacher::Attacher,

    #[cfg(feature = "attacher")]
    #[command(flatten)]
    pub(crate) csi_attacher: crate::attacher::CsiAttacher,

    #[cfg(feature = "attacher")]
    #[command(flatten)]
    pub(crate) cloud_attacher: crate::cloud::CloudAttacher,

    #[cfg(feature = "provisioner")]
    #[command(flatten)]
    pub(crate) provisioner: Provisioner,

    #[cfg(feature = "provisioner")]
    #[command(flatten)]
    pub(crate) nfs_provisioner: NfsProvisioner,

    #[cfg(feature = "provisioner")]
    #[command(flatten)]
    pub(crate) lost_nodes: LostNodes,
}

/// What `bitts run --roles provisioner` needs to know of its node.
#[cfg(feature = "provisioner")]
#[derive(Debug, Args)]
#[command(next_help_heading = "Provisioner")]
pub(crate) struct Provisioner {
    /// The directories in which volumes are made, each on a disk of its own, separated by commas; the
    /// one with most free space is taken. They must exist, under the same path wherever volumes are
    /// mounted from.
    #[arg(
        long,
        value_name = "DIR",
        value_delimiter = ',',
        value_parser = absolute,
        env = "BITTS_DISKS"
    )]
    pub(crate) disks: Vec<PathBuf>,

    /// The name that classes know the provisioner by.
    #[arg(
        long,
        value_name = "NAME",
        default_value = bitts_provisioner::LOCAL,
        env = "BITTS_PROVISIONER_NAME"
    )]
    pub(crate) provisioner_name: String,

    /// Other names that classes may have for it, as `rancher.io/local-path`: classes that were written for
    /// local-path-provisioner are served as they are. That one must be off, as must be whoever else has the
    /// name.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "BITTS_LEGACY_LOCAL"
    )]
    pub(crate) legacy_local: Vec<String>,
}

/// What can be set about `bitts run --roles nfs-provisioner`.
#[cfg(feature = "provisioner")]
#[derive(Debug, Args)]
#[command(next_help_heading = "NFS provisioner")]
pub(crate) struct NfsProvisioner {
    /// The name that classes know the provisioner of NFS shares by.
    #[arg(
        long,
        value_name = "NAME",
        default_value = bitts_provisioner::NFS,
        env = "BITTS_NFS_PROVISIONER_NAME"
    )]
    pub(crate) nfs_provisioner_name: String,

    /// Names of nfs-subdir-external-provisioners whose classes are served as they are, each with the share that
    /// it made its volumes on. They must be off.
    #[arg(
        long,
        value_name = "NAME=SERVER:/PATH",
        value_delimiter = ',',
        value_parser = legacy_nfs,
        env = "BITTS_LEGACY_NFS"
    )]
    pub(crate) legacy_nfs: Vec<(Box<str>, bitts_provisioner::Share)>,

    /// How long an NFS server may take for a mount or a directory before it is told that it does not
    /// answer, and tried again.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "20s",
        env = "BITTS_NFS_PATIENCE",
        value_parser = patience
    )]
    pub(crate) nfs_patience: std::time::Duration,
}

#[cfg(feature = "provisioner")]
fn legacy_nfs(text: &str) -> Result<(Box<str>, bitts_provisioner::Share), String> {
    let (name, share) = text.split_once('=').unwrap_or_default();
    match bitts_provisioner::Share::parse(share) {
        Some(share) if !name.is_empty() => Ok((name.into(), share)),
        _ => Err("no NAME=SERVER:/PATH, as cluster.local/nfs=nas:/export is".to_owned()),
    }
}

/// What can be set about `bitts run --roles lost-nodes`.
#[cfg(feature = "provisioner")]
#[derive(Debug, Args)]
#[command(next_help_heading = "Lost nodes")]
pub(crate) struct LostNodes {
    /// For how long a node must have been deleted from the cluster before it counts as gone, and its volumes
    /// are dealt with as their class says (`nodeGone`).
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10m",
        env = "BITTS_NODE_GONE_AFTER",
        value_parser = patience
    )]
    pub(crate) node_gone_after: std::time::Duration,
}

/// A path that leads to the same place wherever the process runs.
#[cfg(feature = "provisioner")]
pub(crate) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path: PathBuf = text.into();
    let plain = |part| !matches!(part, std::path::Component::ParentDir);
    if path.is_absolute() && path.components().all(plain) && path.parent().is_some() {
        // Without what would make two spellings of one path.
        return Ok(path.components().collect());
    }
    Err("it must be an absolute path without `..`, and not `/`".to_owned())
}

/// What `bitts run --roles agent` needs to know of its node.
#[cfg(feature = "agent")]
#[derive(Debug, Args)]
#[command(next_help_heading = "Agent")]
pub(crate) struct Agent {
    /// The kubelet's directory.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/kubelet",
        env = "BITTS_KUBELET_DIR"
    )]
    pub(crate) kubelet_dir: PathBuf,

    /// Where the paths of local volumes start; a link that leaves it is refused.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/",
        env = "BITTS_LOCAL_ROOT"
    )]
    pub(crate) local_root: PathBuf,

    /// How long a server may take before a mount is given up for now, and before the unmount of a pod
    /// that is over is forced. Force waits for the pod's processes to end.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "60s",
        env = "BITTS_PATIENCE",
        value_parser = patience
    )]
    pub(crate) patience: std::time::Duration,

    /// How often each server is asked whether its mounts are well: so long, and ten seconds, it may take
    /// until trouble is noticed. 0 turns it off.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30s",
        env = "BITTS_PROBE_INTERVAL",
        value_parser = interval
    )]
    pub(crate) probe_interval: Interval,

    /// How often the agent looks for what pods left that are no more, beside once at its start. 0 turns
    /// it off.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5m",
        env = "BITTS_SCAN_INTERVAL",
        value_parser = interval
    )]
    pub(crate) scan_interval: Interval,

    /// Delete a pod's object once its volumes are down. Only for nodes whose pods nothing else runs.
    #[arg(long, env = "BITTS_FINISH_PODS", conflicts_with = "beside_kubelet")]
    pub(crate) finish_pods: bool,

    /// Leave all volumes to the node's kubelet, and only mend the NFS mounts that it made. Without it the agent
    /// does not begin where a kubelet runs, with it only there.
    #[arg(long, env = "BITTS_BESIDE_KUBELET")]
    pub(crate) beside_kubelet: bool,
}

#[cfg(feature = "agent")]
impl Agent {
    /// Whose the volumes are.
    pub(crate) fn mode(&self) -> bitts_agent::Mode {
        match self.beside_kubelet {
            true => bitts_agent::Mode::BesideKubelet,
            false => bitts_agent::Mode::Owner,
        }
    }
}

/// `bitts explain`.
#[cfg(feature = "binder")]
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// What it is.
    #[arg(value_enum)]
    pub(crate) kind: ExplainKind,

    /// Its name.
    #[arg(value_parser = object_name)]
    pub(crate) name: String,

    /// The claim's or pod's namespace [default: that of the kubeconfig's context].
    #[arg(long, short, value_name = "NAMESPACE", value_parser = object_name)]
    pub(crate) namespace: Option<String>,

    /// Text for people, or one JSON object.
    #[arg(long, short, value_enum, default_value_t, env = "BITTS_OUTPUT")]
    pub(crate) output: Output,

    /// The cluster [default: KUBECONFIG, the usual file, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// What can be explained.
#[cfg(feature = "binder")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainKind {
    /// A PersistentVolumeClaim.
    #[value(aliases = ["pvc", "persistentvolumeclaim"])]
    Claim,
    /// A PersistentVolume.
    #[value(aliases = ["pv", "persistentvolume"])]
    Volume,
    /// A pod, and where its volumes are.
    #[cfg(feature = "attacher")]
    #[value(aliases = ["po"])]
    Pod,
    /// A VolumeAttachment.
    #[cfg(feature = "attacher")]
    #[value(aliases = ["va", "volumeattachment"])]
    Attachment,
    /// A StorageClass.
    #[cfg(feature = "provisioner")]
    #[value(aliases = ["sc", "storageclass"])]
    Class,
}

/// What the API admits as a name: nothing else can be part of a path.
#[cfg(any(feature = "binder", feature = "provisioner"))]
pub(crate) fn object_name(text: &str) -> Result<String, String> {
    let admitted = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if text.chars().all(admitted) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err(
            "a name has lower-case letters, digits, `-` and `.`, and begins with a letter or digit"
                .into(),
        )
    }
}

/// `bitts apiserver`.
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub(crate) struct Apiserver {
    /// Where to listen; port 0 takes a free one.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:0",
        env = "BITTS_LISTEN"
    )]
    pub(crate) listen: SocketAddr,

    /// Where the kubeconfig is written once the API listens (mode 0600).
    #[arg(long, value_name = "FILE")]
    pub(crate) write_kubeconfig: PathBuf,

    /// Listen on other addresses than loopback too.
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Faults to inject, as a YAML or JSON file.
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,

    /// The seed that the faults are drawn from.
    #[arg(long, default_value_t = 0, requires = "faults")]
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people, coloured on a terminal.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

#[cfg(any(
    feature = "attacher",
    feature = "binder",
    feature = "demo",
    feature = "provisioner"
))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// A role that this binary was built with.
#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "provisioner"
))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    #[cfg(feature = "binder")]
    Binder,
    #[cfg(feature = "agent")]
    Agent,
    #[cfg(feature = "attacher")]
    Attacher,
    #[cfg(feature = "attacher")]
    CsiAttacher,
    #[cfg(feature = "attacher")]
    CloudAttacher,
    #[cfg(feature = "provisioner")]
    Provisioner,
    #[cfg(feature = "provisioner")]
    NfsProvisioner,
    #[cfg(feature = "provisioner")]
    LostNodes,
}

#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "provisioner"
))]
impl Role {
    /// Whether each node has one, rather than the cluster.
    pub(crate) fn is_on_each_node(self) -> bool {
        match self {
            #[cfg(feature = "binder")]
            Self::Binder => false,
            #[cfg(feature = "agent")]
            Self::Agent => true,
            #[cfg(feature = "attacher")]
            Self::Attacher | Self::CsiAttacher | Self::CloudAttacher => false,
            #[cfg(feature = "provisioner")]
            Self::Provisioner => true,
            #[cfg(feature = "provisioner")]
            Self::NfsProvisioner | Self::LostNodes => false,
        }
    }
}

/// The roles that this binary was built with, by their names.
#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "provisioner"
))]
pub(crate) const BUILT_IN: &[(&str, Role)] = &[
    #[cfg(feature = "binder")]
    ("binder", Role::Binder),
    #[cfg(feature = "agent")]
    ("agent", Role::Agent),
    #[cfg(feature = "attacher")]
    ("attacher", Role::Attacher),
    #[cfg(feature = "attacher")]
    ("csi-attacher", Role::CsiAttacher),
    #[cfg(feature = "attacher")]
    ("cloud-attacher", Role::CloudAttacher),
    #[cfg(feature = "provisioner")]
    ("provisioner", Role::Provisioner),
    #[cfg(feature = "provisioner")]
    ("nfs-provisioner", Role::NfsProvisioner),
    #[cfg(feature = "provisioner")]
    ("lost-nodes", Role::LostNodes),
];

#[cfg(any(
    feature = "agent",
    feature = "attacher",
    feature = "binder",
    feature = "provisioner"
))]
pub(crate) fn role(text: &str) -> Result<Role, String> {
    BUILT_IN
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, role)| *role)
        .ok_or_else(|| {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            format!(
                "no such role in this binary, which has: {}",
                names.join(", ")
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[cfg(any(
        feature = "agent",
        feature = "attacher",
        feature = "binder",
        feature = "provisioner"
    ))]
    #[test]
    fn an_interval_is_off_or_a_second_or_more() {
        let seconds = |text| interval(text).map(|i| i.0.map(|t| t.as_secs()));
        for (text, expected) in [
            ("0", None),
            ("0s", None),
            ("1s", Some(1)),
            ("30m", Some(1_800)),
            ("1h 30m", Some(5_400)),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for refused in ["999ms", "-1m", "30", "soon", ""] {
            assert!(interval(refused).is_err(), "{refused}");
        }
    }

    #[test]
    #[cfg(any(feature = "agent", feature = "attacher", feature = "provisioner"))]
    fn patience_is_at_least_a_second() {
        assert_eq!(patience("90s"), Ok(std::time::Duration::from_secs(90)));
        for text in ["0s", "100ms", "-5s", "soon"] {
            assert!(patience(text).is_err(), "{text}");
        }
    }

    #[cfg(all(
        feature = "agent",
        feature = "attacher",
        feature = "binder",
        feature = "provisioner"
    ))]
    #[test]
    fn an_unknown_role_names_those_built_in() {
        let error = Cli::try_parse_from(["bitts", "run", "--roles", "binder,juggler"]).unwrap_err();
        assert!(
            error.to_string().contains(
                "which has: binder, agent, attacher, csi-attacher, cloud-attacher, provisioner"
            ),
            "{error}"
        );
    }
}
