//! Prints the folder of the Kubernetes programs, kubelet and kubectl included. They are built first
//! where there are none.

use anyhow::{Context as _, ensure};

fn main() -> anyhow::Result<()> {
    let programs = bitts_e2e::control_plane::programs()?;
    let folder = programs.apiserver().parent();
    let folder = folder.context("a program lies in a folder")?;
    for name in ["etcd", "kubelet", "kubectl"] {
        ensure!(
            folder.join(name).exists(),
            "{} has no {name}: name another folder in KUBEBUILDER_ASSETS, or none and have them built",
            folder.display()
        );
    }
    println!("{}", folder.display());
    Ok(())
}
