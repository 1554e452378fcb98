//! bitts on a real cluster, with real kubelets: what a user sees with kubectl. `cargo xtask e2e` makes
//! the cluster, installs bitts and runs this; the tests know nothing of how that is done:
//!
//! | variable | is |
//! | --- | --- |
//! | `KUBECONFIG` | the cluster; the tests change it, so it is used only together with the others |
//! | `BITTS_E2E_NFS_SERVER` | the address of an NFS server that exports `/export` to all nodes |
//! | `BITTS_E2E_POD_IMAGE` | an image with a shell that the nodes have |
//! | `BITTS_E2E_ROLES` | the roles that are installed, separated by commas |
//! | `BITTS_E2E_KUBECTL` | the kubectl to use; the one in PATH where it is not set |
//! | `BITTS_E2E_ABILITIES` | what not every cluster can: `kernel-nfs`, `power`, `upgrade`, separated by commas |
//! | `BITTS_E2E_CHANGE` | a command that takes `install`, `install-earlier`, both with `--replace-stock`, and `power off NODE` |

mod attach;
mod class;
mod growing;
mod handover;
mod kept;
mod kubectl;
mod leader;
mod local;
mod many;
mod mended;
mod moved;
mod nfs;
mod power;
mod reclaim;
mod restart;
mod seed;
mod stateful;
mod upgrade;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use kubectl::Cluster;
use libtest_mimic::{Arguments, Trial};

/// Its name, what it needs, and what it does.
type Test = (
    &'static str,
    &'static [Need],
    fn(&Cluster) -> anyhow::Result<()>,
);

/// What must be there for a test to show something.
#[derive(Clone, Copy)]
enum Need {
    Role(&'static str),
    Ability(&'static str),
    Change,
}

use Need::{Ability, Change, Role};

impl Need {
    /// What keeps a test from running, if anything.
    fn lacks(self, cluster: &Cluster) -> Option<String> {
        let (is_there, what) = match self {
            Role(role) => (cluster.has(role), format!("the role {role}")),
            Ability(ability) => (cluster.can(ability), ability.to_owned()),
            Change => (cluster.can_change(), "a command to change it".to_owned()),
        };
        (!is_there).then_some(what)
    }
}

const NODES: &[Need] = &[Role("provisioner")];
const NFS: &[Need] = &[Role("nfs-provisioner"), Ability("kernel-nfs")];
const AGENT: &[Need] = &[
    Role("agent"),
    Role("nfs-provisioner"),
    Ability("kernel-nfs"),
];
const ATTACHER: &[Need] = &[Role("binder"), Role("attacher")];
const BINDER: &[Need] = &[Role("binder")];
const POWER: &[Need] = &[
    Role("provisioner"),
    Role("nfs-provisioner"),
    Ability("power"),
    Change,
];
const HANDOVER: &[Need] = &[Role("provisioner"), Change];

const UPGRADE: &[Need] = &[Role("provisioner"), Ability("upgrade"), Change];

/// What disturbs nobody: two at a time.
const QUIET: &[Test] = &[
    ("seed", &[], seed::word_for_word),
    ("nfs_by_hand", &[], nfs::by_hand),
    ("nfs_claims_at_once", NFS, many::at_once),
    ("local_delayed", NODES, local::delayed),
    ("local_without_room", NODES, kept::no_room),
    ("nfs_share_to_come", NFS, kept::share_to_come),
    ("ephemeral_volume", NODES, kept::ephemeral),
    ("attributes_class", &[], kept::attributes_class),
    ("claim_grows_on_nodes", NODES, growing::on_nodes),
    ("claim_grows_on_nfs", NFS, growing::on_nfs),
    ("stateful_set_on_nodes", NODES, stateful::on_nodes),
    ("stateful_set_on_nfs", NFS, stateful::on_nfs),
    ("reclaim_on_nodes", NODES, reclaim::on_nodes),
    ("reclaim_on_nfs", NFS, reclaim::on_nfs),
    ("attached_and_detached", ATTACHER, attach::and_detached),
];

/// What ends roles, closes nodes or looks at all of one: each alone, after those.
const ALONE: &[Test] = &[
    ("pod_moved", NFS, moved::with_its_data),
    ("restarted_provisioner", NODES, restart::provisioner),
    ("restarted_nfs_provisioner", NFS, restart::nfs_provisioner),
    ("restarted_binder", BINDER, restart::binder),
    ("leader_of_binder", BINDER, leader::of_the_binder),
    (
        "leader_of_nfs_provisioner",
        NFS,
        leader::of_the_nfs_provisioner,
    ),
    ("mount_mended", AGENT, mended::behind_the_kubelet),
    ("node_lost_and_back", POWER, power::lost_and_back),
    ("handed_over_and_back", HANDOVER, handover::and_back),
    ("upgraded", UPGRADE, upgrade::from_earlier),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let cluster = match Cluster::from_environment() {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            say(&format!("skipped: bitts on a real cluster: {why:#}"));
            None
        }
    };
    let mut has_failed = false;
    for (tests, at_a_time) in [(QUIET, 2), (ALONE, 1)] {
        arguments.test_threads = Some(at_a_time);
        let trials = tests.iter().map(|test| trial(cluster.as_ref(), test));
        let done = libtest_mimic::run(&arguments, trials.collect());
        has_failed |= done.has_failed();
    }
    if let Some(cluster) = &cluster {
        cluster.look_no_more();
    }
    ExitCode::from(u8::from(has_failed))
}

fn trial(cluster: Option<&Cluster>, &(name, needs, test): &Test) -> Trial {
    let lacks = cluster.and_then(|cluster| {
        let mut lacks = needs.iter().filter_map(|need| need.lacks(cluster));
        lacks.next()
    });
    if let Some(lacks) = &lacks {
        say(&format!("skipped: {name}: this cluster lacks {lacks}"));
    }
    let runs = cluster.cloned().filter(|_| lacks.is_none());
    let ignored = runs.is_none();
    let trial = Trial::test(name, move || {
        let Some(cluster) = &runs else {
            return Ok(());
        };
        let start = Instant::now();
        test(cluster).map_err(|error| format!("{error:#}"))?;
        say(&format!("{name} took {:.0?}", start.elapsed()));
        Ok(())
    });
    trial.with_ignored_flag(ignored)
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
