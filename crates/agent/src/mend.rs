//! Mounts of a kubelet that are mended for it: only while something of their pod runs, so that no mount
//! appears behind the back of a kubelet that takes the pod's volumes down.

use bitts_api::Uid;
use bitts_mount::census::Census;
use bitts_mount::holders::Holding;

use crate::mode::Mode;
use crate::task::{Mount, Report, Task};
use crate::tree::{Down, Tree, Trouble, Watcher, name};

impl Tree {
    /// Does a task, as the owner of the volumes or beside a kubelet. Blocks.
    #[must_use]
    pub fn perform_as(&self, mode: Mode, task: Task, watcher: Watcher<'_>) -> Report {
        match (mode, &task) {
            (Mode::BesideKubelet, Task::Mount(mount) | Task::Renew(mount)) => {
                let mount = mount.clone();
                self.mend(&mount, task, watcher)
            }
            _ => self.perform(task, watcher),
        }
    }

    /// Whether something of the pod is seen to run on this node. Where that cannot be told, nothing is
    /// done for it.
    pub(crate) fn runs(&self, pod: &Uid) -> bool {
        match Census::take() {
            Ok(census) => (census.in_cgroup_of(&pod.to_string()).iter())
                .any(|holder| matches!(holder.how, Holding::Cgroup(_))),
            Err(error) => {
                tracing::warn!(%pod, %error, "whether the pod runs cannot be told");
                false
            }
        }
    }

    fn mend(&self, mount: &Mount, task: Task, watcher: Watcher<'_>) -> Report {
        let left = || Report::Left(mount.key.clone());
        match self.has_directory(mount) {
            Ok(true) if self.runs(&mount.key.pod) => {}
            // The kubelet took it down.
            _ => return left(),
        }
        let report = self.perform(task, watcher);
        if !matches!(report, Report::Mounted { .. }) || self.runs(&mount.key.pod) {
            return report;
        }
        // The pod ended meanwhile, and the kubelet may have passed by before this mount was there.
        let stays = match self.unmount(&mount.key, watcher) {
            Ok(Down::Gone { .. }) => return left(),
            Ok(Down::Held(holders)) => holders,
            Err(error) => error.to_string(),
        };
        tracing::warn!(volume = %mount.key.volume, pod = %mount.key.pod, why = stays,
            "the pod ended while its volume was mended; it may stay mounted");
        left()
    }

    /// Whether the kubelet's directory for the volume is there.
    fn has_directory(&self, mount: &Mount) -> Result<bool, Trouble> {
        let pod = mount.key.pod.to_string();
        let above = ["pods", &pod, "volumes", mount.key.plugin.directory()];
        let Some(above) = self.directory(&above)? else {
            return Ok(false);
        };
        Ok(above
            .children()?
            .contains(&name(mount.key.volume.as_str())?))
    }
}
