//! Who mounts on the node: this agent, or a kubelet beside it. There is no third answer, and the
//! agent is only ever in one of the two.

use bitts_api::machine::Effect;

use crate::machine::beside::is_watched_over;
use crate::task::{Alarm, Task};

/// Whose the volumes of the node's pods are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The agent's: it mounts them and takes them down. No kubelet may run.
    #[default]
    Owner,
    /// A kubelet's: the agent watches over those that a server answers for. It mounts anew what it saw
    /// mounted while the pod runs, and changes nothing else on the node, nor what the kubelet says
    /// of it in the API.
    BesideKubelet,
}

impl Mode {
    /// Whether what the machine decided may leave it. Everything passes here, whatever decided on it.
    pub(crate) fn admits(self, effect: &Effect<Task, Alarm>) -> bool {
        match (self, effect) {
            (Self::Owner, _) => true,
            (Self::BesideKubelet, Effect::Task(task)) => is_done_beside(task),
            // `status.volumesInUse` and the pods' objects are the kubelet's to write (A35).
            (Self::BesideKubelet, Effect::Write(_) | Effect::Create(_) | Effect::Destroy(_)) => {
                false
            }
            (
                Self::BesideKubelet,
                Effect::Event(_) | Effect::Wake(..) | Effect::Follow(_) | Effect::Unfollow(_),
            ) => true,
        }
    }
}

/// Whether a task leaves to the kubelet what is the kubelet's. New ones are decided on here.
fn is_done_beside(task: &Task) -> bool {
    match task {
        Task::Scan | Task::Watch | Task::Probe { .. } | Task::Await(_) | Task::Leave(_) => true,
        // The worker does it only to what it saw mounted, and only while the pod runs.
        Task::Mount(mount) | Task::Renew(mount) => is_watched_over(mount),
        Task::Stage(_) | Task::Unmount(_) | Task::Unstage(_) | Task::RemovePodDirectory(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use bitts_api::VolumeMode;

    use super::*;
    use crate::plugins::Plugin;
    use crate::task::{MountKey, StageKey};

    /// The last word, should the machine ever decide on what it must not.
    #[test]
    fn what_is_a_kubelets_does_not_pass() {
        let stage = StageKey {
            plugin: Plugin::Local,
            name: "cqh".into(),
        };
        let key = MountKey {
            pod: "u-1".into(),
            volume: "cqh".into(),
            plugin: Plugin::Local,
            mode: VolumeMode::Filesystem,
        };
        let changes = [
            Task::Unmount(key),
            Task::Unstage(stage),
            Task::RemovePodDirectory("u-1".into()),
        ];
        for task in changes.map(Effect::Task) {
            assert!(Mode::Owner.admits(&task));
            assert!(!Mode::BesideKubelet.admits(&task), "{task:?}");
        }
        assert!(Mode::BesideKubelet.admits(&Effect::Task(Task::Scan)));
    }
}
