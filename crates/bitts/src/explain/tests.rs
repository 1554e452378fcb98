//! What is said in each situation, to people and to scripts.

use bitts_api::{Kind, Name, Object, ObjectKey};
use bitts_binder::Cluster;
use serde_json::{Value, json};

use super::{json, text};

fn claim() -> Value {
    json!({
        "metadata": {"name": "data", "namespace": "shop", "uid": "c-1", "resourceVersion": "10",
                     "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                 "resources": {"requests": {"storage": "2Gi"}}},
        "status": {"phase": "Pending"},
    })
}

fn volume(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("v-{name}"), "resourceVersion": "20",
                     "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                 "capacity": {"storage": "2Gi"}, "local": {"path": "/data/pv"},
                 "persistentVolumeReclaimPolicy": "Retain"},
        "status": {"phase": "Available"},
    })
}

fn class(provisioner: &str, mode: &str) -> Value {
    json!({"metadata": {"name": "local", "uid": "s"}, "provisioner": provisioner,
           "volumeBindingMode": mode})
}

fn pod(name: &str, node: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("p-{name}")},
        "spec": {"nodeName": node, "volumes": [
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]},
        "status": {"phase": if node.is_some() { "Running" } else { "Pending" }},
    })
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "uid": "n", "labels": {"kubernetes.io/hostname": name}}})
}

fn on_node(name: &str) -> Value {
    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [name]}]}]}})
}

fn with(mut object: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        let mut at = &mut object;
        for step in parent.split('/').filter(|step| !step.is_empty()) {
            at = &mut at[step];
        }
        at[member] = value.clone();
    }
    object
}

const WAIT: &str = "WaitForFirstConsumer";

fn bound_claim() -> Value {
    with(
        claim(),
        &[
            ("/spec/volumeName", json!("one")),
            ("/status/phase", json!("Bound")),
            ("/status/capacity", json!({"storage": "2Gi"})),
            ("/status/accessModes", json!(["ReadWriteOnce"])),
            (
                "/metadata/annotations",
                json!({"pv.kubernetes.io/bind-completed": "yes"}),
            ),
        ],
    )
}

fn owned(name: &str, owner: &Value, phase: &str) -> Value {
    with(
        volume(name),
        &[
            ("/spec/claimRef", owner.clone()),
            ("/status/phase", json!(phase)),
        ],
    )
}

fn ours() -> Value {
    json!({"namespace": "shop", "name": "data", "uid": "c-1"})
}

fn theirs() -> Value {
    json!({"namespace": "shop", "name": "other", "uid": "c-9"})
}

/// The kind of an object by what it looks like.
fn read(object: &Value) -> Object {
    let spec = &object["spec"];
    let kind = if !object["provisioner"].is_null() {
        Kind::StorageClass
    } else if !spec["resources"].is_null() {
        Kind::Claim
    } else if !spec["volumes"].is_null() {
        Kind::Pod
    } else if spec.is_null() {
        Kind::Node
    } else {
        Kind::Volume
    };
    kind.read(object.to_string().as_bytes()).unwrap()
}

fn told(name: &str, key: &ObjectKey, objects: &[Value]) {
    let mut cluster = Cluster::new(objects.iter().map(read));
    let report = match &key.namespace {
        Some(namespace) => cluster.claim(namespace, &key.name),
        None => cluster.volume(&key.name),
    };
    let people = report
        .as_ref()
        .map_or_else(String::new, |r| text::of(r, &[], false));
    let scripts = json::of(key, report.as_ref(), &[]);
    insta::assert_snapshot!(name, format!("{people}\n----- json -----\n{scripts:#}"));
}

fn of_claim(name: &str, objects: &[Value]) {
    told(name, &ObjectKey::claim("shop", "data"), objects);
}

fn of_volume(name: &str, objects: &[Value]) {
    told(name, &ObjectKey::volume("one"), objects);
}

#[test]
fn a_claim_that_waits_for_a_volume() {
    of_claim("class-missing", &[claim()]);
    of_claim(
        "class",
        &[
            claim(),
            with(volume("one"), &[("/spec/storageClassName", json!("gold"))]),
        ],
    );
    of_claim(
        "size",
        &[
            claim(),
            with(volume("one"), &[("/spec/capacity/storage", json!("1Gi"))]),
            with(
                volume("two"),
                &[("/spec/capacity/storage", json!("1536Mi"))],
            ),
        ],
    );
    let selecting = with(
        claim(),
        &[(
            "/spec/selector",
            json!({"matchLabels": {"disk": "ssd"}, "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a", "b"]},
                {"key": "spare", "operator": "DoesNotExist"}]}),
        )],
    );
    let labels = json!({"disk": "ssd", "spare": "yes"});
    of_claim(
        "selector-term",
        &[
            selecting,
            with(volume("one"), &[("/metadata/labels", labels)]),
        ],
    );
    of_claim(
        "modes",
        &[
            with(claim(), &[("/spec/accessModes", json!(["ReadWriteMany"]))]),
            volume("one"),
        ],
    );
    of_claim(
        "volume-mode",
        &[
            claim(),
            with(volume("one"), &[("/spec/volumeMode", json!("Block"))]),
        ],
    );
    of_claim("taken", &[claim(), owned("one", &theirs(), "Bound")]);
    of_claim("released", &[claim(), owned("one", &theirs(), "Released")]);
    let earlier = json!({"namespace": "shop", "name": "data", "uid": "c-0"});
    of_claim(
        "released-by-its-predecessor",
        &[claim(), owned("one", &earlier, "Released")],
    );
    of_claim(
        "not-offered-yet",
        &[
            claim(),
            with(volume("one"), &[("/status/phase", json!("Pending"))]),
        ],
    );
    of_claim(
        "no-provisioner",
        &[claim(), class("kubernetes.io/no-provisioner", "Immediate")],
    );
    let classless = with(claim(), &[("/spec/storageClassName", Value::Null)]);
    of_claim(
        "no-class",
        &[classless.clone(), class("csi.example.com", "Immediate")],
    );
    let default = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let default = with(
        class("csi.example.com", "Immediate"),
        &[("/metadata/annotations", default)],
    );
    of_claim("default-class", &[classless, default]);
    let asked = json!({"volume.kubernetes.io/storage-provisioner": "csi.example.com"});
    of_claim(
        "provisioner",
        &[
            with(claim(), &[("/metadata/annotations", asked)]),
            class("csi.example.com", "Immediate"),
        ],
    );
}

#[test]
fn every_reason_at_once() {
    let claim = with(
        claim(),
        &[
            ("/spec/selector", json!({"matchLabels": {"disk": "ssd"}})),
            (
                "/spec/accessModes",
                json!(["ReadWriteOnce", "ReadWriteMany"]),
            ),
        ],
    );
    let like = |name: &str| {
        with(
            volume(name),
            &[
                (
                    "/spec/accessModes",
                    json!(["ReadWriteOnce", "ReadWriteMany"]),
                ),
                ("/metadata/labels", json!({"disk": "ssd"})),
            ],
        )
    };
    let gone = "2026-01-01T00:00:00Z";
    let mut all = vec![
        claim,
        class("kubernetes.io/no-provisioner", WAIT),
        pod("web", None),
        node("n1"),
        with(
            like("taken"),
            &[
                ("/spec/claimRef", theirs()),
                ("/status/phase", json!("Bound")),
            ],
        ),
        with(
            like("kept"),
            &[(
                "/spec/claimRef",
                json!({"namespace": "shop", "name": "later"}),
            )],
        ),
        with(
            like("released"),
            &[
                ("/spec/claimRef", theirs()),
                ("/status/phase", json!("Released")),
            ],
        ),
        with(
            like("failed"),
            &[
                ("/spec/claimRef", theirs()),
                ("/status/phase", json!("Failed")),
            ],
        ),
        with(
            like("going"),
            &[("/metadata/deletionTimestamp", json!(gone))],
        ),
        with(like("device"), &[("/spec/volumeMode", json!("Block"))]),
        with(
            like("single"),
            &[("/spec/accessModes", json!(["ReadWriteOnce"]))],
        ),
        with(
            like("fast"),
            &[("/spec/volumeAttributesClassName", json!("fast"))],
        ),
        with(
            like("unsized"),
            &[("/spec/capacity/storage", json!("9999999Ei"))],
        ),
        with(like("small"), &[("/spec/capacity/storage", json!("500Mi"))]),
        with(like("new"), &[("/status/phase", json!("Pending"))]),
        with(like("gold"), &[("/spec/storageClassName", json!("gold"))]),
        with(
            like("slow"),
            &[("/metadata/labels", json!({"disk": "tape"}))],
        ),
        with(like("elsewhere"), &[("/spec/nodeAffinity", on_node("n9"))]),
    ];
    of_claim("every-reason", &all);
    all.push(like("fits"));
    of_claim("every-reason-and-one-that-fits", &all);
}

/// 12,345 volumes make no longer text than 12.
#[test]
fn many_volumes() {
    let mut objects = vec![claim()];
    objects.extend((0..12_345).map(|n| {
        let name = format!("v{n:05}");
        match n % 5 {
            0 => owned(
                &name,
                &json!({"namespace": "shop", "name": name, "uid": "u"}),
                "Bound",
            ),
            1 => with(
                volume(&name),
                &[("/spec/storageClassName", json!(format!("c{n}")))],
            ),
            _ => with(volume(&name), &[("/spec/capacity/storage", json!("1Gi"))]),
        }
    }));
    let mut cluster = Cluster::new(objects.iter().map(read));
    let report = cluster.claim(&"shop".into(), &Name::from("data")).unwrap();
    let people = text::of(&report, &["nodes were not considered: no".into()], false);
    insta::assert_snapshot!("many-volumes", people);
    let scripts = json::of(&report.object, Some(&report), &[]);
    let counts = scripts["candidates"].as_array().unwrap().iter();
    assert_eq!(
        counts.map(|c| c["count"].as_u64().unwrap()).sum::<u64>(),
        12_345
    );
    assert_eq!(
        scripts["candidates"][0]["details"]
            .as_array()
            .unwrap()
            .len(),
        20
    );
}

/// B10.2, S10 to S12, S15.
#[test]
fn a_claim_that_waits_for_its_first_consumer() {
    let by_hand = class("kubernetes.io/no-provisioner", WAIT);
    let made = class("csi.example.com", WAIT);
    of_claim("consumer", &[claim(), by_hand.clone(), volume("one")]);
    of_claim("consumer-provisioned", &[claim(), made.clone()]);
    of_claim(
        "pod",
        &[claim(), by_hand.clone(), volume("one"), pod("web", None)],
    );
    let there = with(volume("one"), &[("/spec/nodeAffinity", on_node("n9"))]);
    of_claim(
        "pod-and-no-node",
        &[
            claim(),
            by_hand.clone(),
            there,
            pod("web", None),
            node("n1"),
        ],
    );
    let placed = pod("web", Some("n1"));
    of_claim(
        "pod-past-the-scheduler",
        &[claim(), by_hand.clone(), volume("one"), placed.clone()],
    );
    let local = |name: &str, node| with(volume(name), &[("/spec/nodeAffinity", on_node(node))]);
    of_claim(
        "pod-past-the-scheduler-takes-a-volume-of-its-node",
        &[
            claim(),
            by_hand.clone(),
            local("one", "n2"),
            local("two", "n1"),
            placed.clone(),
            node("n1"),
            node("n2"),
        ],
    );
    of_claim(
        "pod-past-the-scheduler-provisioned",
        &[claim(), made.clone(), placed],
    );
    let reserved = with(
        owned("one", &ours(), "Available"),
        &[(
            "/metadata/annotations",
            json!({"pv.kubernetes.io/bound-by-controller": "yes"}),
        )],
    );
    of_claim(
        "reserved-by-the-scheduler",
        &[claim(), by_hand, reserved, pod("web", None)],
    );
    let chosen = json!({"volume.kubernetes.io/selected-node": "n1"});
    of_claim(
        "node-selected",
        &[
            with(claim(), &[("/metadata/annotations", chosen)]),
            made,
            pod("web", None),
        ],
    );
}

/// B16.
#[test]
fn a_claim_that_names_its_volume() {
    let naming = with(claim(), &[("/spec/volumeName", json!("one"))]);
    of_claim("named-missing", std::slice::from_ref(&naming));
    of_claim(
        "named-taken",
        &[naming.clone(), owned("one", &theirs(), "Bound")],
    );
    let unfit = with(
        volume("one"),
        &[
            ("/spec/capacity/storage", json!("1Gi")),
            ("/spec/storageClassName", json!("gold")),
        ],
    );
    of_claim("named-unfit", &[naming, unfit]);
}

/// B18, B19.
#[test]
fn a_claim_that_was_bound() {
    of_claim(
        "bound",
        &[
            bound_claim(),
            owned("one", &ours(), "Bound"),
            pod("web", Some("n1")),
        ],
    );
    let far = with(
        owned("one", &ours(), "Bound"),
        &[("/spec/nodeAffinity", on_node("n9"))],
    );
    of_claim("bound-and-no-node", &[bound_claim(), far, node("n1")]);
    of_claim("lost", &[bound_claim()]);
    of_claim(
        "lost-to-another",
        &[bound_claim(), owned("one", &theirs(), "Bound")],
    );
    let unnamed = with(bound_claim(), &[("/spec/volumeName", Value::Null)]);
    of_claim("lost-its-name", &[unnamed, owned("one", &ours(), "Bound")]);
}

/// X3.
#[test]
fn a_claim_that_is_being_deleted() {
    let going = ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    let pair = [
        with(bound_claim(), std::slice::from_ref(&going)),
        owned("one", &ours(), "Bound"),
    ];
    let mut used = pair.to_vec();
    used.extend(["a", "b", "c", "d"].map(|name| pod(name, Some("n1"))));
    of_claim("deleting-with-pods", &used);
    of_claim("deleting-without-pods", &pair);
    let foreign = [
        going,
        ("/metadata/finalizers", json!(["example.com/backup"])),
    ];
    of_claim(
        "deleting-with-a-foreign-finalizer",
        &[with(bound_claim(), &foreign)],
    );
}

/// B24 to B26, D1 to D7.
#[test]
fn volumes() {
    of_volume("volume-available", &[volume("one")]);
    let made = class("csi.example.com", WAIT);
    let large = with(
        claim(),
        &[
            ("/metadata/name", json!("large")),
            ("/spec/resources/requests/storage", json!("9Gi")),
        ],
    );
    of_volume("volume-in-demand", &[volume("one"), claim(), large, made]);
    of_volume("volume-wanted-now", &[volume("one"), claim()]);
    of_volume(
        "volume-bound",
        &[bound_claim(), owned("one", &ours(), "Bound")],
    );
    let later = json!({"namespace": "shop", "name": "data"});
    of_volume("volume-reserved", &[owned("one", &later, "Available")]);
    let small = with(
        owned("one", &later, "Available"),
        &[("/spec/capacity/storage", json!("1Gi"))],
    );
    of_volume("volume-reserved-and-too-small", &[small, claim()]);
    of_volume("volume-released", &[owned("one", &theirs(), "Released")]);
    let made = with(
        owned("one", &theirs(), "Released"),
        &[
            ("/spec/persistentVolumeReclaimPolicy", json!("Delete")),
            (
                "/metadata/annotations",
                json!({"pv.kubernetes.io/provisioned-by": "csi.example.com"}),
            ),
        ],
    );
    of_volume("volume-released-to-its-maker", &[made]);
    let failed = with(
        owned("one", &theirs(), "Failed"),
        &[
            ("/spec/persistentVolumeReclaimPolicy", json!("Delete")),
            ("/status/message", json!("no volume plugin matched")),
        ],
    );
    of_volume("volume-failed", &[failed]);
    let nobody = json!({"namespace": "", "name": "data", "uid": "c-1"});
    of_volume(
        "volume-of-a-claim-without-a-name",
        &[owned("one", &nobody, "Pending")],
    );
    of_volume("volume-held", &[owned("one", &ours(), "Pending")]);
    let anew = with(claim(), &[("/metadata/uid", json!("c-2"))]);
    of_volume(
        "volume-held-and-its-claim-is-back",
        &[owned("one", &ours(), "Pending"), anew],
    );
    let going = with(
        owned("one", &ours(), "Bound"),
        &[
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("/spec/persistentVolumeReclaimPolicy", json!("Delete")),
        ],
    );
    of_volume("volume-deleting", &[going, bound_claim()]);
}

#[test]
fn nothing_of_that_name() {
    of_claim("no-claim", &[]);
    of_volume("no-volume", &[]);
}

#[test]
fn colours_are_asked_for() {
    let mut cluster = Cluster::new([read(&claim())]);
    let report = cluster.claim(&"shop".into(), &"data".into()).unwrap();
    assert!(text::of(&report, &[], true).contains("\x1b[33mwaiting\x1b[0m"));
    assert!(!text::of(&report, &[], false).contains('\x1b'));
}
