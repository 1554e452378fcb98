//! bitts on a real cluster, with real kubelets: what a user sees with kubectl. `cargo xtask e2e` makes
//! the cluster, installs bitts and runs this; the tests know nothing of how that is done:
//!
//! | variable | is |
//! | --- | --- |
//! | `KUBECONFIG` | the cluster; the tests change it, so it is used only together with the others |
//! | `BITTS_E2E_NFS_SERVER` | the address of an NFS server that exports `/export` to all nodes |
//! | `BITTS_E2E_POD_IMAGE` | an image with a shell that the nodes have |
//! | `BITTS_E2E_ROLES` | the roles that are installed, separated by commas |

mod kubectl;
mod local;
mod nfs;
mod restart;
mod seed;

use std::io::Write as _;
use std::process::ExitCode;

use kubectl::Cluster;
use libtest_mimic::{Arguments, Trial};

type Test = fn(&Cluster) -> anyhow::Result<()>;

/// The tests, and the role without which each would show nothing.
const TESTS: &[(&str, Option<&str>, Test)] = &[
    ("seed", None, seed::word_for_word),
    ("nfs_by_hand", None, nfs::by_hand),
    ("local_delayed", Some("provisioner"), local::delayed),
    ("role_restarted", Some("provisioner"), restart::provisioner),
    ("binder_restarted", Some("binder"), restart::binder),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They look at one cluster, and at its nodes.
    arguments.test_threads = Some(1);
    let cluster = match Cluster::from_environment() {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: bitts on a real cluster: {why:#}"
            );
            None
        }
    };
    let trials = TESTS.iter().map(|(name, role, test)| {
        let runs = cluster.clone().filter(|cluster| cluster.has(*role));
        let ignored = runs.is_none();
        let trial = Trial::test(*name, move || {
            if let Some(cluster) = &runs {
                test(cluster).map_err(|error| format!("{error:#}"))?;
            }
            Ok(())
        });
        trial.with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
