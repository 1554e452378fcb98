//! The binder's flags: what it does, and where it differs from kube-controller-manager
//! (docs/differences.md).

use bitts_binder::{Difference, Differences, Options, Recycle};
use clap::Args;

/// What `bitts run --roles binder` can be told.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Binder")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "flags, turned into options at once"
)]
pub(crate) struct Binder {
    /// Ask external provisioners for volumes.
    #[arg(
        long = "enable-dynamic-provisioning",
        env = "BITTS_ENABLE_DYNAMIC_PROVISIONING",
        default_value = "true",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    provisioning: bool,

    /// Keep the condition Unused of claims, which tells since when no pod refers to them.
    #[arg(
        long,
        env = "BITTS_UNUSED_CONDITION",
        default_value = "true",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    unused_condition: bool,

    /// Have volumes of the policy Recycle wiped by the agents of their nodes.
    #[arg(long, env = "BITTS_ENABLE_RECYCLE")]
    enable_recycle: bool,

    /// Things end as under kube-controller-manager: turns off what follows, each of which can be
    /// turned on again by itself, but nothing that keeps data safe: that has `--unsafe-` flags.
    #[arg(long, env = "BITTS_STRICT_COMPAT")]
    strict_compat: bool,

    /// A volume reserved for a claim goes before any other, whatever its access modes.
    #[arg(long, env = "BITTS_RESERVED_FIRST", value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    reserved_first: Option<bool>,

    /// Keep a Failed volume's message true, and release it again under Retain.
    #[arg(long, env = "BITTS_REFRESH_FAILURES", value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    refresh_failures: Option<bool>,

    /// Keep hostPath volumes of the policy Delete as Failed, also below /tmp.
    #[arg(long, env = "BITTS_KEEP_HOST_PATH", value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    keep_host_path: Option<bool>,

    /// Release, and so perhaps delete, volumes restored from a backup whose claim never was here.
    #[arg(long, env = "BITTS_UNSAFE_RELEASE_RESTORED")]
    unsafe_release_restored: bool,

    /// Reclaim, and so perhaps delete, hand-made volumes whose claim went before it was bound.
    #[arg(long, env = "BITTS_UNSAFE_RECLAIM_NEVER_BOUND")]
    unsafe_reclaim_never_bound: bool,

    /// Have a volume wiped even where another volume's data lies.
    #[arg(long, env = "BITTS_UNSAFE_RECYCLE_OVERLAPPING")]
    unsafe_recycle_overlapping: bool,
}

impl Binder {
    /// What the flags come to.
    pub(crate) fn options(&self) -> Options {
        let as_asked = |asked: Option<bool>| asked.unwrap_or(!self.strict_compat);
        let differs = |difference| match difference {
            // What keeps data safe is no matter of compatibility.
            Difference::HoldRestored => !self.unsafe_release_restored,
            Difference::GiveBack => !self.unsafe_reclaim_never_bound,
            Difference::ReservedFirst => as_asked(self.reserved_first),
            Difference::FreshFailure => as_asked(self.refresh_failures),
            Difference::KeepHostPath => as_asked(self.keep_host_path),
        };
        let differences = Difference::ALL
            .into_iter()
            .fold(Differences::NONE, |all, one| all.set(one, differs(one)));
        Options {
            provisioning: self.provisioning,
            unused_condition: self.unused_condition,
            recycle: match (self.enable_recycle, self.unsafe_recycle_overlapping) {
                (false, _) => Recycle::Off,
                (true, false) => Recycle::Guarded,
                (true, true) => Recycle::Unguarded,
            },
            differences,
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        binder: Binder,
    }

    fn options(flags: &[&str]) -> Options {
        let line = ["bitts"].iter().chain(flags);
        Line::try_parse_from(line).unwrap().binder.options()
    }

    #[test]
    fn strict_compatibility_never_costs_data() {
        let all = Difference::ALL.into_iter().all(|d| options(&[]).differs(d));
        assert!(all);
        let safe = [Difference::HoldRestored, Difference::GiveBack];
        let strict = options(&["--strict-compat"]);
        for difference in Difference::ALL {
            assert_eq!(strict.differs(difference), safe.contains(&difference));
        }
        let unsafe_too = options(&[
            "--strict-compat",
            "--unsafe-release-restored",
            "--unsafe-reclaim-never-bound",
        ]);
        assert_eq!(unsafe_too.differences, Differences::NONE);
    }

    #[test]
    fn each_difference_has_a_flag_of_its_own() {
        let off = [
            "--unsafe-release-restored",
            "--unsafe-reclaim-never-bound",
            "--reserved-first=false",
            "--refresh-failures=false",
            "--keep-host-path=false",
        ];
        for (difference, flag) in Difference::ALL.into_iter().zip(off) {
            let some = options(&[flag]);
            let differs: Vec<_> = Difference::ALL
                .into_iter()
                .filter(|d| some.differs(*d))
                .collect();
            assert!(!differs.contains(&difference), "{flag}");
            assert_eq!(differs.len(), Difference::ALL.len() - 1, "{flag}");
        }
        let some = options(&["--strict-compat", "--reserved-first"]);
        assert!(some.differs(Difference::ReservedFirst) && !some.differs(Difference::FreshFailure));
    }

    #[test]
    fn the_page_of_differences_names_every_flag() {
        use clap::CommandFactory as _;
        let page = include_str!("../../../docs/differences.md");
        for flag in Line::command().get_arguments().filter_map(|a| a.get_long()) {
            assert!(page.contains(&format!("`--{flag}")), "--{flag}");
        }
    }

    #[test]
    fn features_are_turned_on_and_off() {
        assert_eq!(options(&[]).recycle, Recycle::Off);
        assert_eq!(options(&["--enable-recycle"]).recycle, Recycle::Guarded);
        assert!(!options(&["--enable-dynamic-provisioning=false"]).provisioning);
        assert!(!options(&["--unused-condition=false"]).unused_condition);
    }
}
