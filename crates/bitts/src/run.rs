//! `bitts run`: the chosen roles on a cluster.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bitts_runtime::{Host, Timing};
use tokio::task::JoinSet;

use crate::cli::{Role, Run};

/// Runs the roles until one fails or a signal ends them all.
pub(crate) fn run(args: Run) -> Result<ExitCode> {
    // One thread is enough for what an API server can take, and costs least: no arenas of memory for
    // others, nothing handed from one to another. What blocks has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(roles(args))
}

async fn roles(mut args: Run) -> Result<ExitCode> {
    args.roles.sort_unstable();
    args.roles.dedup();
    #[cfg(feature = "agent")]
    if args.roles.contains(&Role::Agent) && args.node_name.is_none() {
        anyhow::bail!("the agent must know its node: set --node-name or BITTS_NODE_NAME");
    }
    #[cfg(feature = "agent")]
    if args.roles.contains(&Role::Agent) {
        let agent = &args.agent;
        bitts_agent::kubelet::check(agent.mode(), "/proc".as_ref(), &agent.kubelet_dir)?;
    }
    #[cfg(feature = "provisioner")]
    if args.roles.contains(&Role::Provisioner) {
        if args.node_name.is_none() {
            anyhow::bail!("the provisioner must know its node: set --node-name or BITTS_NODE_NAME");
        }
        if args.provisioner.disks.is_empty() {
            anyhow::bail!(
                "the provisioner must know where to make volumes: set --disks or BITTS_DISKS"
            );
        }
    }
    #[cfg(feature = "attacher")]
    if args.roles.contains(&Role::CsiAttacher) && args.csi_attacher.csi_socket.is_none() {
        anyhow::bail!(
            "the csi-attacher must know its driver: set --csi-socket or BITTS_CSI_SOCKET to the socket \
             of the driver's controller"
        );
    }
    let kubeconfig = args.kubeconfig.as_deref();
    let client = match args.roles.iter().all(|role| role.is_on_each_node()) {
        true => bitts_runtime::connect_shared(kubeconfig).await?,
        false => bitts_runtime::connect(kubeconfig).await?,
    };
    #[cfg(any(feature = "attacher", feature = "binder"))]
    if !crate::rbac::stands_in_for(&args.roles).is_empty() {
        let (roles, namespace) = (&args.roles, lease_namespace(&args));
        let allow = args.allow_stock_controllers;
        crate::preflight::at_start(&client, roles, &namespace, allow).await?;
    }
    #[cfg(feature = "provisioner")]
    if !args.provisioner.legacy_local.is_empty() || !args.nfs_provisioner.legacy_nfs.is_empty() {
        crate::adopt::nobody_else(&client).await?;
    }
    let timing = Timing {
        resync: args.resync_interval.0,
        ..Timing::default()
    };
    let host = Host::with_timing(client, timing);
    if let Some(listen) = args.listen {
        let address = bitts_runtime::serve_admin(&host, listen)
            .await
            .with_context(|| format!("serving metrics and health on {listen}"))?;
        tracing::info!(%address, "serving /metrics, /healthz and /readyz");
    }

    let mut roles = JoinSet::new();
    for role in &args.roles {
        let host = host.clone();
        match role {
            #[cfg(feature = "binder")]
            Role::Binder => {
                let lease = binder_lease(&args);
                let options = args.binder.options();
                roles.spawn(
                    async move { ("binder", bitts_binder::run(&host, options, lease).await) },
                );
            }
            #[cfg(feature = "agent")]
            Role::Agent => {
                let config = agent(&args);
                roles.spawn(async move { ("agent", bitts_agent::run(&host, config).await) });
            }
            #[cfg(feature = "attacher")]
            Role::Attacher => {
                let lease = lease(&args, crate::rbac::ATTACHER_LEASE);
                let options = args.attacher.options();
                roles.spawn(async move {
                    let ended = bitts_attacher::run(&host, options, lease).await;
                    ("attacher", ended)
                });
            }
            #[cfg(feature = "attacher")]
            Role::CsiAttacher => {
                let namespace = args.leader_elect.then(|| lease_namespace(&args));
                let config = args.csi_attacher.config(namespace);
                roles.spawn(async move {
                    ("csi-attacher", bitts_attacher::run_csi(&host, config).await)
                });
            }
            #[cfg(feature = "attacher")]
            Role::CloudAttacher => {
                let lease = lease(&args, crate::rbac::CLOUD_LEASE);
                let options = args.cloud_attacher.options(args.attacher.options());
                let config = bitts_attacher::CloudConfig { options, lease };
                let cloud = args.cloud_attacher.cloud()?;
                roles.spawn(async move {
                    let ended = bitts_attacher::run_cloud(&host, config, cloud).await;
                    ("cloud-attacher", ended)
                });
            }
            #[cfg(feature = "provisioner")]
            Role::Provisioner => {
                let config = provisioner(&args);
                roles.spawn(
                    async move { ("provisioner", bitts_provisioner::run(&host, config).await) },
                );
            }
            #[cfg(feature = "provisioner")]
            Role::NfsProvisioner => {
                let config = nfs_provisioner(&args);
                roles.spawn(async move {
                    let ended = bitts_provisioner::run_shares(&host, config).await;
                    ("nfs-provisioner", ended)
                });
            }
            #[cfg(feature = "provisioner")]
            Role::LostNodes => {
                let lease = lease(&args, LOST_NODES_LEASE);
                let options = lost_nodes(&args);
                roles.spawn(async move {
                    let ended = bitts_provisioner::run_lost(&host, options, lease).await;
                    ("lost-nodes", ended)
                });
            }
        }
    }
    tokio::spawn({
        let shutdown = host.shutdown().clone();
        async move {
            bitts_runtime::ended_by_signal().await;
            tracing::info!("ending: what is under way is finished first");
            shutdown.cancel();
        }
    });
    while let Some(ended) = roles.join_next().await {
        let (role, result) = ended?;
        host.shutdown().cancel();
        result.with_context(|| format!("the {role} stopped"))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "binder")]
fn binder_lease(args: &Run) -> Option<bitts_runtime::LeaseOptions> {
    lease(args, crate::rbac::BINDER_LEASE)
}

#[cfg(any(feature = "attacher", feature = "binder", feature = "provisioner"))]
fn lease(args: &Run, name: &str) -> Option<bitts_runtime::LeaseOptions> {
    args.leader_elect
        .then(|| bitts_runtime::LeaseOptions::new(&lease_namespace(args), name))
}

#[cfg(any(feature = "attacher", feature = "binder", feature = "provisioner"))]
fn lease_namespace(args: &Run) -> String {
    let namespace = args.lease_namespace.clone().or_else(own_namespace);
    namespace.unwrap_or_else(|| "kube-system".to_owned())
}

/// The namespace of the pod this runs in, where it does.
#[cfg(any(feature = "attacher", feature = "binder", feature = "provisioner"))]
fn own_namespace() -> Option<String> {
    let file = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    std::fs::read_to_string(file)
        .ok()
        .map(|text| text.trim().to_owned())
}

#[cfg(feature = "agent")]
fn agent(args: &Run) -> bitts_agent::AgentConfig {
    let node = args.node_name.as_deref().unwrap_or_default();
    let args = &args.agent;
    bitts_agent::AgentConfig {
        kubelet_dir: args.kubelet_dir.clone(),
        local_root: args.local_root.clone(),
        patience: args.patience,
        probe_interval: args.probe_interval.0,
        scan_interval: args.scan_interval.0,
        finish_pods: args.finish_pods,
        mode: args.mode(),
        ..bitts_agent::AgentConfig::new(node.into())
    }
}

#[cfg(feature = "provisioner")]
fn provisioner(args: &Run) -> bitts_provisioner::LocalConfig {
    let node = args.node_name.as_deref().unwrap_or_default();
    let namespace = lease_namespace(args);
    let args = &args.provisioner;
    bitts_provisioner::LocalConfig {
        options: bitts_provisioner::Options {
            ground: bitts_provisioner::Ground::Node(node.into()),
            names: [args.provisioner_name.as_str().into()].into(),
            legacy: (args
                .legacy_local
                .iter()
                .map(|name| (name.as_str().into(), None)))
            .collect(),
            capacity: Some(namespace.as_str().into()),
        },
        disks: args.disks.clone(),
    }
}

/// The name of the lease of the provisioner of NFS shares.
#[cfg(feature = "provisioner")]
pub(crate) const NFS_LEASE: &str = "bitts-nfs-provisioner";

/// The name of the lease of who looks after lost nodes.
#[cfg(feature = "provisioner")]
pub(crate) const LOST_NODES_LEASE: &str = "bitts-lost-nodes";

#[cfg(feature = "provisioner")]
fn lost_nodes(args: &Run) -> bitts_provisioner::LostOptions {
    bitts_provisioner::LostOptions {
        names: ([&args.provisioner.provisioner_name].into_iter())
            .chain(&args.provisioner.legacy_local)
            .map(|name| name.as_str().into())
            .collect(),
        grace: args.lost_nodes.node_gone_after,
    }
}

#[cfg(feature = "provisioner")]
fn nfs_provisioner(args: &Run) -> bitts_provisioner::ShareConfig {
    bitts_provisioner::ShareConfig {
        options: bitts_provisioner::Options {
            names: [args.nfs_provisioner.nfs_provisioner_name.as_str().into()].into(),
            legacy: (args.nfs_provisioner.legacy_nfs.iter().cloned())
                .map(|(name, share)| (name, Some(share)))
                .collect(),
            ..bitts_provisioner::Options::of_shares()
        },
        lease: lease(args, NFS_LEASE),
        patience: args.nfs_provisioner.nfs_patience,
    }
}
