//! From an earlier version to this one: what is there stays, and what the earlier one made is this one's to
//! delete.

use anyhow::{Result, ensure};

use crate::class::{Class, Ground, Place, claim, nothing_left, volume_of};
use crate::handover::{all, bind, same};
use crate::kubectl::{Cluster, Namespace};

pub(crate) fn from_earlier(cluster: &Cluster) -> Result<()> {
    let flags: &[&str] = match cluster.has("binder") {
        true => &["--replace-stock"],
        false => &[],
    };
    let install = |step: &str| cluster.change(&[&[step][..], flags].concat());
    install("install-earlier")?;
    let done = upgraded(cluster, || install("install"));
    if done.is_err() {
        // The other tests are for this version.
        install("install")?;
    }
    done
}

fn upgraded(cluster: &Cluster, upgrade: impl Fn() -> Result<()>) -> Result<()> {
    let namespace = Namespace::new(cluster, "upgrade")?;
    let namespace = namespace.name.as_str();
    let mut grounds = vec![("disk", Ground::Nodes)];
    if cluster.has("nfs-provisioner") {
        grounds.push(("shared", Ground::Share));
    }
    let mut classes = Vec::new();
    for (name, ground) in &grounds {
        let class = Class::new(cluster, &format!("upgrade-{name}"), *ground)?;
        classes.push((*name, class));
    }
    let names: Vec<&str> = classes.iter().map(|(name, _)| *name).collect();
    for (name, class) in &classes {
        cluster.apply(namespace, &claim(name, &class.name))?;
    }
    let write = names.iter().map(|name| format!("date >/{name}/log;"));
    let script = write.collect::<String>() + "sleep 36000";
    cluster.apply(namespace, &cluster.pod("user", &script, &names))?;
    cluster.until_phase(namespace, "pod", "user", "Running")?;
    let by_hand = ["e2e-upgrade-0", "e2e-upgrade-1", "e2e-upgrade-2"];
    for name in by_hand {
        bind(cluster, namespace, name)?;
    }
    let mut places = Vec::new();
    for name in &names {
        let volume = volume_of(cluster, namespace, name)?;
        places.push((*name, Place::of(cluster, &volume)?, volume));
    }

    let before = all(cluster)?;
    upgrade()?;
    same(&before, &all(cluster)?)?;

    for (name, place, _) in &places {
        cluster.sh(namespace, "user", &format!("test -s /{name}/log"))?;
        place.sh(cluster, "test -s $DATA/log")?;
    }
    let user = cluster.get(namespace, "pod", "user")?;
    let restarts = &user["status"]["containerStatuses"][0]["restartCount"];
    ensure!(*restarts == 0, "the pod was restarted: {restarts}");
    // Who reads what the earlier version wrote is this one.
    cluster.delete(namespace, "pod", "user")?;
    for (name, _, volume) in &places {
        cluster.delete(namespace, "pvc", name)?;
        cluster.until_gone("", "pv", volume)?;
    }
    for (_, ground) in grounds {
        nothing_left(cluster, ground, namespace)?;
    }
    for name in by_hand {
        cluster.delete(namespace, "pvc", name)?;
        cluster.until_phase("", "pv", name, "Released")?;
        cluster.delete("", "pv", name)?;
    }
    Ok(())
}
