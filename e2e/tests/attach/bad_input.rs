//! Drivers that lie, hang or are gone; a node that comes back as another; two copies of the roles.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bitts_csi::testing::{Disks, Fate, Turn};
use bitts_csi::v1::controller_service_capability::rpc::Type as Rpc;
use bitts_e2e::cluster::Kind;
use bitts_e2e::control_plane::Component;
use bitts_e2e::raw::text;
use bitts_e2e::suite::Suite;
use serde_json::json;

use crate::kubelets::{Lie, beside};
use crate::stage::{ATTACHMENTS, Stage};

const PATIENCE: Duration = Duration::from_secs(90);
/// For so long it is watched that something does not happen.
const WHILE: Duration = Duration::from_secs(4);
/// The gRPC code of a call that took too long.
const DEADLINE: i64 = 4;

pub(crate) fn add(suite: &mut Suite) {
    const BOTH: &[Kind] = &[Kind::Served, Kind::Real];
    macro_rules! add {
        ($($test:ident),+ $(,)?) => {
            $(suite.add_own(concat!("attach::", stringify!($test)), BOTH, $test);)+
        };
    }
    add!(
        a_call_that_hangs_holds_up_no_other_volume,
        a_driver_that_is_gone_holds_until_an_operator_says_otherwise,
        another_driver_at_the_socket_is_not_called,
        an_attach_that_was_only_said_is_done_again,
        a_detach_that_was_only_said_is_told,
        a_node_that_came_back_as_another_is_detached_as_what_it_was,
    );
    suite.add_own("attach::of_two_copies_one_works", &[Kind::Real], |_| {
        of_two_copies_one_works()
    });
}

/// Runs a story beside kubelets and bitts.
async fn told(
    stage: Stage,
    flags: &[&str],
    story: impl AsyncFnOnce(&Stage, &mut Component) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut bitts = stage.roles_with("binder,attacher,csi-attacher", flags)?;
    let ended = beside(&stage, Lie::None, story(&stage, &mut bitts)).await;
    ended.map_err(|why| bitts.explain(why))
}

/// Waits until a pod runs.
async fn runs(stage: &Stage, pod: &str) -> anyhow::Result<()> {
    let runs = async || stage.runs(pod).await;
    stage.until(&format!("{pod} runs"), PATIENCE, runs).await
}

/// Waits until a pod was told of something.
async fn was_told(stage: &Stage, pod: &str, part: &str) -> anyhow::Result<()> {
    let told = async || stage.was_told(pod, part).await;
    stage.until(&format!("{pod} is told"), PATIENCE, told).await
}

async fn a_call_that_hangs_holds_up_no_other_volume(kind: Kind) -> anyhow::Result<()> {
    let story = async |stage: &Stage, _: &mut Component| {
        let node = stage.node("n").await?;
        let first = stage.api.name("v0");
        stage.disks.decide(move |call| Turn {
            fate: (call.volume == first).then_some(Fate::Hangs),
            ..Turn::default()
        });
        for n in 0..5 {
            let base = format!("v{n}");
            stage.volume(&base).await?;
            stage.pod(&format!("p{n}"), &base, Some(&node)).await?;
        }
        let others = async || stage.all_run(4).await;
        stage.until("the others run", PATIENCE, others).await?;
        was_told(stage, "p0", "did not answer within 2 s").await?;
        let attachment = stage.attachment(&stage.api.name("v0"), &node).await?;
        let error = &attachment.context("it is asked for")?["status"]["attachError"];
        ensure!(error["errorCode"] == DEADLINE, "{error}");
        stage.disks.decide(|_| Turn::default());
        runs(stage, "p0").await?;
        stage.check()
    };
    told(Stage::new(kind).await?, &[], story).await
}

/// Nobody knows any more what is attached; who does says so.
async fn a_driver_that_is_gone_holds_until_an_operator_says_otherwise(
    kind: Kind,
) -> anyhow::Result<()> {
    let story = async |stage: &Stage, _: &mut Component| {
        let nodes = [stage.node("n0").await?, stage.node("n1").await?];
        let volume = stage.volume("v").await?;
        stage.pod("p", "v", Some(&nodes[0])).await?;
        runs(stage, "p").await?;
        stage.end_driver();
        stage.delete_pod("p").await?;
        stage.pod("q", "v", Some(&nodes[1])).await?;
        let why = format!("Its driver is to detach it from node {}", nodes[0]);
        was_told(stage, "q", &why).await?;
        tokio::time::sleep(WHILE).await;
        let held = stage.attachment(&volume, &nodes[0]).await?;
        let held = held.context("nobody said that it is detached")?;
        ensure!(
            stage.attachment(&volume, &nodes[1]).await?.is_none(),
            "it is asked for on a second node"
        );
        stage.disks.set(&volume, &format!("id-{}", nodes[0]), false);
        let path = format!("{ATTACHMENTS}/{}", text(&held, "/metadata/name"));
        let bare = json!({"metadata": {"finalizers": null}});
        stage.api.merge(&path, bare).await?.expect(200)?;
        let asked = async || {
            let found = stage.attachment(&volume, &nodes[1]).await?;
            Ok(found.is_none().then(|| "no attachment".to_owned()))
        };
        stage.until("it is asked for", PATIENCE, asked).await?;
        stage.start_driver(&stage.disks)?;
        runs(stage, "q").await?;
        stage.check()
    };
    told(Stage::new(kind).await?, &[], story).await
}

/// A driver that says another name.
async fn another_driver_at_the_socket_is_not_called(kind: Kind) -> anyhow::Result<()> {
    let story = async |stage: &Stage, bitts: &mut Component| {
        let node = stage.node("n").await?;
        for base in ["v0", "v1"] {
            stage.volume(base).await?;
        }
        stage.pod("p0", "v0", Some(&node)).await?;
        runs(stage, "p0").await?;
        let other = Disks::new("other.example.com", &[Rpc::PublishUnpublishVolume]);
        stage.start_driver(&other)?;
        stage.pod("p1", "v1", Some(&node)).await?;
        stage.delete_pod("p0").await?;
        let complains = async || {
            let said = bitts.printed().contains("is other.example.com and was");
            Ok((!said).then(|| "nothing is said".to_owned()))
        };
        stage.until("it is noticed", PATIENCE, complains).await?;
        tokio::time::sleep(WHILE).await;
        let calls = other.calls();
        ensure!(calls.is_empty(), "the other driver was called: {calls:?}");
        stage.start_driver(&stage.disks)?;
        runs(stage, "p1").await?;
        stage.check()
    };
    told(Stage::new(kind).await?, &[], story).await
}

/// A driver that lists where its volumes are is found out, if it forgot to attach one.
async fn an_attach_that_was_only_said_is_done_again(kind: Kind) -> anyhow::Result<()> {
    let story = async |stage: &Stage, _: &mut Component| {
        let node = stage.node("n").await?;
        let volume = stage.volume("v").await?;
        let mut lies = 1;
        stage.disks.decide(move |_| Turn {
            fate: (std::mem::take(&mut lies) > 0).then_some(Fate::OnlySays),
            ..Turn::default()
        });
        stage.pod("p", "v", Some(&node)).await?;
        let place = (volume, format!("id-{node}"));
        let attached = async || {
            let attached = stage.disks.attached().contains(&place);
            Ok((!attached).then(|| format!("{:?}", stage.disks.calls())))
        };
        stage.until("it is attached", PATIENCE, attached).await?;
        ensure!(stage.disks.calls().len() == 2, "{:?}", stage.disks.calls());
        Ok(())
    };
    let often = ["--csi-compare-interval=1s"];
    told(Stage::new(kind).await?, &often, story).await
}

/// It cannot be helped: the driver's word is all there is. But it is not kept quiet.
async fn a_detach_that_was_only_said_is_told(kind: Kind) -> anyhow::Result<()> {
    let story = async |stage: &Stage, _: &mut Component| {
        let node = stage.node("n").await?;
        let volume = stage.volume("v").await?;
        stage.pod("p", "v", Some(&node)).await?;
        runs(stage, "p").await?;
        stage.disks.decide(|call| Turn {
            fate: (!call.attaches).then_some(Fate::OnlySays),
            ..Turn::default()
        });
        stage.delete_pod("p").await?;
        // Events of what has no namespace are in this one.
        let path = "/api/v1/namespaces/default/events";
        let where_it_is = format!("lists it on its node id-{node}");
        let is_told = async || {
            let all = stage.list(path).await?;
            let told = all.iter().any(|event| {
                text(event, "/involvedObject/name") == volume
                    && text(event, "/message").contains(&where_it_is)
            });
            Ok((!told).then(|| format!("{} events", all.len())))
        };
        stage.until("it is told", PATIENCE, is_told).await
    };
    let often = ["--csi-compare-interval=1s"];
    told(Stage::new(kind).await?, &often, story).await
}

/// A machine is taken away with its Node object, and another one is given its name.
async fn a_node_that_came_back_as_another_is_detached_as_what_it_was(
    kind: Kind,
) -> anyhow::Result<()> {
    let story = async |stage: &Stage, _: &mut Component| {
        let nodes = [stage.node("n0").await?, stage.node("n1").await?];
        let volume = stage.volume("v").await?;
        stage.pod("p", "v", Some(&nodes[0])).await?;
        runs(stage, "p").await?;
        let csi_node = format!("/apis/storage.k8s.io/v1/csinodes/{}", nodes[0]);
        for path in [format!("/api/v1/nodes/{}", nodes[0]), csi_node] {
            let answer = stage.api.delete(&path, json!(null)).await?;
            answer.expect(200)?;
        }
        let now = json!({"gracePeriodSeconds": 0});
        stage.api.delete(&stage.pods("/p"), now).await?;
        stage.pod("q", "v", Some(&nodes[1])).await?;
        let why = format!("Node {} was deleted while it used it", nodes[0]);
        was_told(stage, "q", &why).await?;
        tokio::time::sleep(WHILE).await;
        let calls = stage.disks.calls();
        ensure!(
            calls.len() == 1,
            "that its object is gone proves nothing: {calls:?}"
        );
        // Its disk is not mounted in the new machine.
        stage.seen(|seen| seen.mounted.clear());
        stage.node_called("n0", "another").await?;
        runs(stage, "q").await?;
        let calls = stage.disks.calls();
        let detach = calls.iter().find(|call| !call.attaches);
        let from = &detach.context("it was detached")?.node;
        ensure!(*from == format!("id-{}", nodes[0]), "{calls:?}");
        ensure!(stage.attachment(&volume, &nodes[0]).await?.is_none());
        stage.check()
    };
    told(Stage::new(kind).await?, &[], story).await
}

/// Both want to; the one that has the leases does, and when it dies, the other.
async fn of_two_copies_one_works() -> anyhow::Result<()> {
    const LEASES: [&str; 2] = ["bitts-attacher", "external-attacher-leader-"];
    let stage = Stage::new(Kind::Real).await?;
    let mut copies = [stage.elected()?, stage.elected()?];
    let story = async {
        let node = stage.node("n").await?;
        for n in 0..6 {
            let base = format!("v{n}");
            stage.volume(&base).await?;
            stage.pod(&format!("p{n}"), &base, Some(&node)).await?;
        }
        let all_run = async || stage.all_run(6).await;
        stage.until("all pods run", PATIENCE, all_run).await?;
        let calls = stage.disks.calls();
        ensure!(calls.len() == 6, "both called the driver: {calls:?}");
        let leases = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
            stage.api.namespace()
        );
        let leases = stage.list(&leases).await?;
        for name in LEASES {
            let lease = leases
                .iter()
                .find(|lease| text(lease, "/metadata/name").starts_with(name));
            let lease = lease.with_context(|| format!("there is no lease {name}"))?;
            ensure!(!text(lease, "/spec/holderIdentity").is_empty(), "{lease}");
        }
        // Whichever led: one of the two deaths is the leader's.
        for (at, copy) in copies.iter_mut().enumerate() {
            copy.kill();
            let base = format!("w{at}");
            stage.volume(&base).await?;
            stage.pod(&base, &base, Some(&node)).await?;
            if at == 0 {
                runs(&stage, &base).await?;
            }
        }
        copies[0].restart()?;
        runs(&stage, "w1").await?;
        let calls = stage.disks.calls();
        ensure!(calls.len() == 8, "a volume was attached twice: {calls:?}");
        stage.check()
    };
    let ended = beside(&stage, Lie::None, story).await;
    let [first, second] = &mut copies;
    ended.map_err(|why| second.explain(first.explain(why)))
}
