//! The node agent: mounts what the node's pods need and takes it down again.
//!
//! [`Agent`] is the decisions, a [`Machine`](bitts_api::machine::Machine) without I/O. It watches
//! the pods of its node, and follows the claims and volumes that they wait for. [`gates`] says which
//! of a pod's volumes may be mounted, [`Plugin`] which types there are. With the feature `run`,
//! `tree` does what is decided to the kubelet's directory and `run` puts it all on a cluster.
//!
//! What holds, whenever the agent is killed:
//! - A volume is mounted at `<kubelet dir>/pods/<uid>/volumes/<type>/<volume>` (`<type>` is
//!   [`Plugin::directory`], such as `kubernetes.io~nfs`) once its claim is bound and all gates are
//!   passed (M2, M16, M40), and stays there as long as the pod runs, whatever becomes of the claim
//!   (M3).
//! - A volume on a device is staged before: the device is formatted if it is proven blank, checked,
//!   mounted once at `<kubelet dir>/plugins/<type>/mounts/<name>` and grown; each pod gets that
//!   directory. After the last pod it is taken down, unless anything still uses it (M6, M23).
//! - A volume of a CSI driver is staged and published by the driver on this node, after its
//!   VolumeAttachment says that it is attached, where the driver wants that (M18 to M21); a file
//!   beside it says which driver has to be called for the way back.
//! - A raw block volume is a link at `<kubelet dir>/pods/<uid>/volumeDevices/<type>/<volume>`, which
//!   leads to the device (M26, M27).
//! - It is taken down when the API says that the pod is over, all pods having been listed, *and*
//!   the node shows nothing of it: no process in its cgroup, none that holds the mount. Otherwise
//!   it stays, the user is told, and it is looked at again. A process that was killed and waits in the
//!   kernel for its server runs no more: its volume is unmounted by force, after patience.
//! - There is no private state: what an earlier agent left is found by a scan.
//! - Only empty directories are removed, and other volume types' are not touched.
//!
//! The node shows itself through `/proc`, so in a container the agent needs the node's process
//! namespace (`hostPID: true`). It does not find out when it lacks that: from inside, a pod without
//! it looks like a small node, as a test's or a demo's container is. It would then see no process
//! of any pod, and only the API's word would keep a volume mounted.
//!
//! Of section 5 of the contract this leaves out: types that are no [`Plugin`] (a claim's volume of
//! another type is an event on its pod), attaching by itself, subPath (M44), raw block volumes,
//! secrets and tokens for CSI drivers and calling these again (M24, M26), SELinux labels (M46), the loop
//! device that keeps a raw device (M27), progress of a long fsGroup walk (M36), and the check that a
//! container really uses a volume (M2: all claims of a pod are mounted). Beside a kubelet it only mends
//! what that one mounted ([`Mode::BesideKubelet`]); in the wrong mode for its node it does not begin (`kubelet`).
//!
//! ```
//! use bitts_agent::{Agent, Task};
//! use bitts_api::machine::{Effect, Input, Machine as _, Moment};
//! use bitts_api::Kind;
//!
//! let mut agent = Agent::new("node-1".into(), false);
//! // Whatever comes first, the agent asks what an earlier one left on the node.
//! let effects = agent.handle(Moment::default(), Input::Listed(Kind::Pod, Vec::new()));
//! assert_eq!(effects, [Effect::Task(Task::Scan)]);
//! ```

mod finish;
mod following;
pub mod gates;
mod grants;
mod heal;
mod in_use;
#[cfg(feature = "run")]
pub mod kubelet;
#[cfg(feature = "run")]
mod lanes;
mod ledger;
mod machine;
#[cfg(feature = "run")]
mod mend;
mod mode;
mod plugins;
#[cfg(feature = "run")]
mod probe;
#[cfg(feature = "run")]
mod publish;
#[cfg(feature = "run")]
mod raw;
mod retry;
#[cfg(feature = "run")]
mod scan;
#[cfg(feature = "run")]
mod stage;
mod stages;
mod task;
#[cfg(feature = "run")]
pub mod tree;
#[cfg(feature = "run")]
mod vigil;
#[cfg(feature = "run")]
mod worker;

pub use grants::grants;
pub use heal::Ailment;
pub use machine::Agent;
pub use mode::Mode;
pub use plugins::Plugin;
pub use task::{
    Alarm, Attached, ForDriver, Give, Group, How, Leftover, Mount, MountKey, MountStep, OnNode,
    PodInfo, Report, StageKey, Staging, Task, Warning,
};
#[cfg(feature = "run")]
pub use worker::{AgentConfig, Mounter, NodeWorker, run};
