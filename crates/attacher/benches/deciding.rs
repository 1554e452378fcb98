//! What one event costs the machine that decides, on a cluster of 5,000 nodes with 20,000 volumes
//! attached, and how much memory that takes.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::hint::black_box;

use bitts_api::machine::{Effect, Input, Machine as _, Moment};
use bitts_api::{Kind, Object, ObjectKey};
use bitts_attacher::{Attacher, Options, Pair, UniqueName};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};

const NODES: usize = 5_000;
const VOLUMES: usize = 20_000;
const DRIVER: &str = "disk.example.com";

fn read(kind: Kind, value: &Value) -> Object {
    kind.read(value.to_string().as_bytes()).unwrap()
}

fn unique(volume: usize) -> String {
    format!("kubernetes.io/csi/{DRIVER}^vol-{volume:017}")
}

fn node(n: usize, version: usize) -> Object {
    let here: Vec<String> = (n..VOLUMES).step_by(NODES).map(unique).collect();
    let listed: Vec<Value> = here
        .iter()
        .map(|name| json!({"name": name, "devicePath": ""}))
        .collect();
    read(
        Kind::Node,
        &json!({"metadata": {"name": format!("node-{n}"), "uid": format!("node-uid-{n}"),
            "resourceVersion": version.to_string(), "annotations":
            {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "volumesInUse": here, "volumesAttached": listed}}),
    )
}

fn pod(n: usize, node: usize, version: usize) -> Object {
    read(
        Kind::Pod,
        &json!({"metadata": {"name": format!("pod-{n}"), "namespace": "shop",
            "uid": format!("pod-uid-{n}-{version}"), "resourceVersion": version.to_string()},
            "spec": {"nodeName": format!("node-{node}"), "volumes":
                [{"name": "d", "persistentVolumeClaim": {"claimName": format!("claim-{n}")}}]},
            "status": {"phase": "Running"}}),
    )
}

fn claim(n: usize) -> Object {
    read(
        Kind::Claim,
        &json!({"metadata": {"name": format!("claim-{n}"), "namespace": "shop",
            "uid": format!("claim-uid-{n}"), "resourceVersion": "1"},
            "spec": {"volumeName": format!("pv-{n}"), "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound"}}),
    )
}

fn volume(n: usize) -> Object {
    read(
        Kind::Volume,
        &json!({"metadata": {"name": format!("pv-{n}"), "uid": format!("pv-uid-{n}"),
            "resourceVersion": "1"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "csi": {"driver": DRIVER, "volumeHandle": format!("vol-{n:017}")},
                "claimRef": {"namespace": "shop", "name": format!("claim-{n}"),
                    "uid": format!("claim-uid-{n}")}},
            "status": {"phase": "Bound"}}),
    )
}

fn attachment(n: usize) -> Object {
    let pair = Pair {
        volume: UniqueName::listed(&unique(n)).unwrap(),
        node: format!("node-{}", n % NODES).as_str().into(),
    };
    read(
        Kind::Attachment,
        &json!({"metadata": {"name": pair.attachment(), "uid": format!("va-uid-{n}"),
            "resourceVersion": "1", "finalizers": ["external-attacher/disk-example-com"]},
            "spec": {"attacher": DRIVER, "nodeName": pair.node,
                "source": {"persistentVolumeName": format!("pv-{n}")}},
            "status": {"attached": true}}),
    )
}

/// One volume more than are attached.
fn cluster() -> Attacher {
    let mut attacher = Attacher::new(Options::default());
    let all = |count: usize, make: &dyn Fn(usize) -> Object| (0..count).map(make).collect();
    for (kind, objects) in [
        (Kind::Pod, all(VOLUMES, &|n| pod(n, n % NODES, 1))),
        (Kind::Claim, all(VOLUMES + 1, &claim)),
        (Kind::Volume, all(VOLUMES + 1, &volume)),
        (Kind::Node, all(NODES, &|n| node(n, 1))),
        (Kind::Attachment, all(VOLUMES, &attachment)),
        (Kind::CsiDriver, Vec::new()),
        (Kind::StorageClass, Vec::new()),
    ] {
        let effects = attacher.handle(Moment::default(), Input::Listed(kind, objects));
        // All is as it should be.
        assert!(effects.is_empty(), "{effects:?}");
    }
    attacher
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or("VmRSS: unknown").to_owned()
}

fn deciding(c: &mut Criterion) {
    let before = memory();
    let mut attacher = cluster();
    println!(
        "{NODES} nodes with {VOLUMES} attachments: {before} before, {} with",
        memory()
    );
    let mut version = 1;
    let mut group = c.benchmark_group("5,000 nodes, 20,000 attachments");
    group.bench_function("a node's heartbeat", |b| {
        b.iter_batched(
            || {
                version += 1;
                node(version % NODES, version)
            },
            |node| black_box(attacher.handle(Moment::default(), Input::Seen(node))),
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("a pod with a volume comes, and goes", |b| {
        b.iter_batched(
            || {
                version += 1;
                pod(VOLUMES, version % NODES, version)
            },
            |pod| {
                let (key, uid): (ObjectKey, _) = (pod.key(), pod.uid().clone());
                let effects = attacher.handle(Moment::default(), Input::Seen(pod));
                let asked = effects.iter().find_map(|effect| match effect {
                    Effect::Create(create) => Some(create.key.clone()),
                    _ => None,
                });
                black_box(attacher.handle(Moment::default(), Input::Deleted(key, uid)));
                let outcome = bitts_api::machine::Outcome::Gone;
                let over = Input::Finished(asked.unwrap(), outcome);
                black_box(attacher.handle(Moment::default(), over))
            },
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, deciding);
criterion_main!(benches);
