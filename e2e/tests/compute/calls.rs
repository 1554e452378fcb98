//! What the client makes of the API's answers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bitts_attacher::{Cloud as _, CloudError, ComputeEngine, Disk, Instance, Location};
use bitts_e2e::cluster::Kind;
use bitts_e2e::compute::{Compute, PROJECT, Turn, ZONE};
use bitts_e2e::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    // They need no Kubernetes API.
    let here = &[Kind::Embedded];
    suite.add_own("compute::what_is_done_already_is_done", here, async |_| {
        what_is_done_already_is_done().await
    });
    suite.add_own("compute::who_has_a_disk_is_told", here, async |_| {
        who_has_a_disk_is_told().await
    });
    suite.add_own("compute::errors_are_told_apart", here, async |_| {
        errors_are_told_apart().await
    });
    suite.add_own(
        "compute::an_operation_outlives_its_caller",
        here,
        async |_| an_operation_outlives_its_caller().await,
    );
    suite.add_own("compute::a_token_is_got_anew", here, async |_| {
        a_token_is_got_anew().await
    });
}

fn instance(name: &str) -> Instance {
    Instance {
        project: PROJECT.into(),
        zone: ZONE.into(),
        name: name.into(),
    }
}

fn disk(name: &str) -> Disk {
    Disk {
        name: name.into(),
        project: PROJECT.into(),
        location: Location::Zone(ZONE.into()),
    }
}

async fn cloud(patience: Duration) -> anyhow::Result<(Compute, ComputeEngine)> {
    let compute = Compute::start().await?;
    for name in ["n-1", "n-2"] {
        compute.add_instance(name);
    }
    compute.add_disk("data");
    let host = compute.metadata_host();
    let client = ComputeEngine::new(&compute.endpoint(), &host, patience)?;
    Ok((compute, client))
}

const LONG: Duration = Duration::from_secs(60);

/// Attached where it is, detached where it is not, and from a machine that is gone: all is well.
async fn what_is_done_already_is_done() -> anyhow::Result<()> {
    let (compute, cloud) = cloud(LONG).await?;
    compute.take(Duration::from_millis(300));
    let (data, here) = (disk("data"), instance("n-1"));
    for _ in 0..2 {
        cloud.attach(&data, &here, false).await?;
        ensure!(cloud.users(&data).await? == BTreeSet::from([here.clone()]));
    }
    let machine = cloud.machine(&here).await?;
    let disks = machine.map(|machine| machine.disks).unwrap_or_default();
    ensure!(disks == [(data.clone(), true)].into(), "{disks:?}");
    for _ in 0..2 {
        cloud.detach(&data, &here).await?;
        ensure!(cloud.users(&data).await?.is_empty());
    }
    cloud.detach(&data, &instance("gone")).await?;
    // For many readers at a time.
    for name in ["n-1", "n-2"] {
        cloud.attach(&data, &instance(name), true).await?;
    }
    ensure!(compute.users("data") == ["n-1", "n-2"]);
    // Under another name its node does not find it, and it is found to be detached all the same.
    compute.stop_instance("n-1");
    let machine = cloud.machine(&here).await?;
    ensure!(machine.is_some_and(|machine| !machine.runs));
    ensure!(cloud.machine(&instance("gone")).await?.is_none());
    ensure!(cloud.users(&disk("gone")).await?.is_empty());
    Ok(())
}

async fn who_has_a_disk_is_told() -> anyhow::Result<()> {
    let (compute, cloud) = cloud(LONG).await?;
    let data = disk("data");
    compute.give("data", "n-2", true);
    let refused = cloud.attach(&data, &instance("n-1"), false).await;
    ensure!(
        matches!(&refused, Err(CloudError::InUse { by, .. }) if by.contains(&instance("n-2"))),
        "{refused:?}"
    );
    // The same where that shows only when the operation ends.
    compute.give("data", "n-2", false);
    compute.take(Duration::from_millis(300));
    let here = instance("n-1");
    let (late, ()) = tokio::join!(cloud.attach(&data, &here, false), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        compute.give("data", "n-2", true);
    });
    let text = late
        .as_ref()
        .err()
        .map(ToString::to_string)
        .unwrap_or_default();
    ensure!(matches!(late, Err(CloudError::InUse { .. })), "{late:?}");
    ensure!(
        text.contains("projects/shop/zones/us-east1-b/instances/n-2"),
        "{text}"
    );
    Ok(())
}

async fn errors_are_told_apart() -> anyhow::Result<()> {
    let (compute, cloud) = cloud(LONG).await?;
    let (data, here) = (disk("data"), instance("n-1"));
    let gone = cloud.attach(&disk("gone"), &here, false).await;
    ensure!(matches!(gone, Err(CloudError::NotFound { .. })), "{gone:?}");
    let gone = cloud.attach(&data, &instance("gone"), false).await;
    ensure!(matches!(gone, Err(CloudError::NotFound { .. })), "{gone:?}");
    for (status, reason, code) in [
        (429, "rateLimitExceeded", "throttled"),
        (403, "quotaExceeded", "throttled"),
        (403, "forbidden", "refused"),
        (400, "resourceNotReady", "refused"),
        (503, "backendError", "unavailable"),
    ] {
        compute.decide(move |call| match call.contains("attachDisk") {
            true => Turn::Refused(status, reason),
            false => Turn::Fine,
        });
        let failed = cloud.attach(&data, &here, false).await;
        let known = match &failed {
            Err(CloudError::Throttled { .. }) => "throttled",
            Err(CloudError::Refused { .. }) => "refused",
            Err(CloudError::Unavailable { .. }) => "unavailable",
            other => anyhow::bail!("{other:?}"),
        };
        ensure!(known == code, "{status} {reason}: {failed:?}");
        ensure!(failed.is_err_and(|error| error.to_string().contains(reason)));
    }
    // What fails late says why; what goes wrong with the asking for it does not matter.
    let asked = AtomicUsize::new(0);
    compute.take(Duration::from_millis(300));
    compute.decide(move |call| match call {
        _ if call.contains("attachDisk") => Turn::FailsLate("INTERNAL_ERROR"),
        _ if call.ends_with("/wait") => match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Turn::Refused(503, "backendError"),
            1 => Turn::Lost,
            2 => Turn::Refused(429, "rateLimitExceeded"),
            _ => Turn::Fine,
        },
        _ => Turn::Fine,
    });
    let failed = cloud.attach(&data, &here, false).await;
    let is_late =
        matches!(&failed, Err(CloudError::Failed { code, .. }) if code == "INTERNAL_ERROR");
    ensure!(is_late, "{failed:?}");
    ensure!(compute.users("data").is_empty());
    Ok(())
}

/// One that takes too long is given up, goes on, and is waited for before anything is believed.
async fn an_operation_outlives_its_caller() -> anyhow::Result<()> {
    let (compute, cloud) = cloud(Duration::from_secs(1)).await?;
    compute.take(Duration::from_millis(2500));
    let (data, here) = (disk("data"), instance("n-1"));
    let start = Instant::now();
    let late = cloud.attach(&data, &here, false).await;
    ensure!(matches!(late, Err(CloudError::Late { .. })), "{late:?}");
    ensure!(
        start.elapsed() < Duration::from_millis(2300),
        "{:?}",
        start.elapsed()
    );
    ensure!(cloud.users(&data).await?.is_empty() && !compute.is_idle());
    let patient = ComputeEngine::new(&compute.endpoint(), &compute.metadata_host(), LONG)?;
    // Of another machine nothing is under way.
    patient
        .settle(&here.zone(), Some(&[instance("n-2")]))
        .await?;
    ensure!(!compute.is_idle(), "it waited for another machine");
    patient
        .settle(&here.zone(), Some(std::slice::from_ref(&here)))
        .await?;
    ensure!(compute.is_idle() && patient.users(&data).await?.contains(&here));
    // An answer that was lost, with what it was about.
    compute.decide(|call| match call.contains("detachDisk") {
        true => Turn::Lost,
        false => Turn::Fine,
    });
    let lost = patient.detach(&data, &here).await;
    ensure!(
        matches!(lost, Err(CloudError::Unavailable { .. })),
        "{lost:?}"
    );
    patient.settle(&here.zone(), None).await?;
    ensure!(patient.users(&data).await?.is_empty());
    Ok(())
}

async fn a_token_is_got_anew() -> anyhow::Result<()> {
    let (compute, cloud) = cloud(LONG).await?;
    ensure!(cloud.users(&disk("data")).await?.is_empty());
    compute.revoke();
    ensure!(cloud.users(&disk("data")).await?.is_empty());
    // Nobody gives one.
    let alone = ComputeEngine::new(&compute.endpoint(), "127.0.0.1:1", LONG)?;
    let failed = alone.users(&disk("data")).await;
    ensure!(
        matches!(failed, Err(CloudError::Token { .. })),
        "{failed:?}"
    );
    Ok(())
}
