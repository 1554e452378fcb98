//! What preflight finds out before it judges.

use std::collections::BTreeMap;

use bitts_api::StockController;

/// What was asked, or why there is no answer.
pub(crate) type Asked<T> = Result<T, String>;

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The version of the API server: major, minor.
    pub(crate) version: Asked<(u32, u32)>,
    /// The kinds that roles read which the API server does not serve.
    pub(crate) unserved: Asked<Vec<&'static str>>,
    /// What bitts may not do, as `patch persistentvolumes`, with the reason it is needed.
    pub(crate) forbidden: Asked<Vec<(String, &'static str)>>,
    /// The StorageClasses that are marked as default.
    pub(crate) default_classes: Asked<Vec<String>>,
    /// Whether there is a FlowSchema for bitts; not asked at the start of a role.
    pub(crate) flow_schema: Option<Asked<bool>>,
    /// What shows of kube-controller-manager.
    pub(crate) stock: StockFacts,
}

/// What shows of kube-controller-manager.
#[derive(Clone, Debug)]
pub(crate) struct StockFacts {
    /// Its pods in kube-system, if it runs in pods.
    pub(crate) pods: Asked<Vec<StockPod>>,
    /// Its lease.
    pub(crate) lease: Asked<StockLease>,
    /// What a controller of it did well after it got that lease.
    pub(crate) wrote: BTreeMap<StockController, String>,
    /// Whether a claim that was made to see it was taken care of; only where that was asked for.
    pub(crate) canary: Option<Asked<bool>>,
}

/// A pod of kube-controller-manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StockPod {
    pub(crate) name: String,
    pub(crate) controllers: Controllers,
}

/// The lease kube-system/kube-controller-manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StockLease {
    Absent,
    /// Not renewed while it was looked at.
    Idle,
    Renewed,
}

/// The value of `--controllers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Controllers(pub(crate) Vec<String>);

impl Default for Controllers {
    fn default() -> Self {
        Self(vec!["*".to_owned()])
    }
}

impl Controllers {
    pub(crate) fn parse(text: &str) -> Self {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        Self(items.map(str::to_owned).collect())
    }

    /// From the arguments of a program; the last one counts, as with every flag.
    pub(crate) fn of_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = None;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.trim_start_matches('-').split_once('=') {
                Some(("controllers", value)) => found = Some(value),
                None if argument == "--controllers" => found = arguments.next(),
                _ => {}
            }
        }
        found.map(Self::parse).unwrap_or_default()
    }

    /// Whether a controller that is on by default runs: the first item that names it decides.
    pub(crate) fn run(&self, stock: StockController) -> bool {
        let mut all = false;
        for item in &self.0 {
            match item.strip_prefix('-') {
                Some(name) if stock.is_called(name) => return false,
                None if stock.is_called(item) => return true,
                _ => all |= item == "*",
            }
        }
        all
    }

    /// The same with these off, and everything else as it was.
    pub(crate) fn without(&self, off: &[StockController]) -> Self {
        let named = |item: &String| {
            let name = item.trim_start_matches('-');
            off.iter().any(|stock| stock.is_called(name))
        };
        let kept = self.0.iter().filter(|item| !named(item)).cloned();
        Self(
            kept.chain(off.iter().map(|stock| format!("-{}", stock.name())))
                .collect(),
        )
    }

    pub(crate) fn flag(&self) -> String {
        format!("--controllers={}", self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StockController::{AttachDetach, Binder, Ephemeral};

    #[test]
    fn the_first_item_that_names_a_controller_decides() {
        assert!(Controllers::default().run(Binder));
        assert!(!Controllers::parse("*,-persistentvolume-binder").run(Binder));
        assert!(Controllers::parse("persistentvolume-binder,-persistentvolume-binder").run(Binder));
        assert!(!Controllers::parse("ephemeral-volume").run(Binder));
        assert!(Controllers::parse("ephemeral-volume").run(Ephemeral));
    }

    #[test]
    fn flags_are_read_in_both_spellings() {
        let off = Controllers::parse("*,-attachdetach");
        let equals = [
            "kube-controller-manager",
            "--v=2",
            "--controllers=*,-attachdetach",
        ];
        assert_eq!(Controllers::of_arguments(equals), off);
        let apart = ["--controllers", "*,-attachdetach", "--v", "2"];
        assert_eq!(Controllers::of_arguments(apart), off);
        assert_eq!(Controllers::of_arguments(["--v=2"]), Controllers::default());
    }

    /// What kubeadm sets stays.
    #[test]
    fn what_else_was_said_is_kept() {
        let kubeadm = Controllers::parse("*,bootstrapsigner,tokencleaner,persistentvolume-binder");
        let off = kubeadm.without(&[Binder]);
        assert_eq!(
            off.flag(),
            "--controllers=*,bootstrapsigner,tokencleaner,-persistentvolume-binder-controller"
        );
        assert!(!off.run(Binder) && off.run(AttachDetach));
    }
}
