//! What the attacher, which asks CSI drivers, makes of disks that the cloud attaches itself.

use bitts_api::machine::{Effect, Input, Machine as _, Moment};
use bitts_api::{Kind, Object};
use bitts_attacher::{Attacher, Options};
use serde_json::{Value, json};

use crate::world::unique;

fn read(kind: Kind, value: &Value) -> Object {
    kind.read(value.to_string().as_bytes()).unwrap()
}

fn node(name: &str, version: u32, by_agent: bool, lists: &[&str]) -> Object {
    let mut annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
    if by_agent {
        annotations["bitts.dev/mounted-by"] = json!("bitts-agent");
    }
    let lists: Vec<Value> = lists
        .iter()
        .map(|disk| json!({"name": unique(disk), "devicePath": ""}))
        .collect();
    read(
        Kind::Node,
        &json!({"metadata": {"name": name, "uid": name, "resourceVersion": version.to_string(),
            "annotations": annotations},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "volumesAttached": lists}}),
    )
}

/// One disk, a pod that wants it on this node, and these nodes.
fn attacher(on: &str, nodes: Vec<Object>) -> (Attacher, Vec<String>) {
    let volume = json!({"metadata": {"name": "v", "uid": "v", "resourceVersion": "1"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "gcePersistentDisk": {"pdName": "d"},
        "claimRef": {"namespace": "shop", "name": "c", "uid": "c"}},
        "status": {"phase": "Bound"}});
    let claim = json!({"metadata": {"name": "c", "namespace": "shop", "uid": "c",
        "resourceVersion": "1"}, "spec": {"volumeName": "v", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound"}});
    let pod = json!({"metadata": {"name": "p", "namespace": "shop", "uid": "p",
        "resourceVersion": "1"}, "spec": {"nodeName": on, "volumes": [{"name": "d",
        "persistentVolumeClaim": {"claimName": "c"}}]}, "status": {"phase": "Pending"}});
    let mut attacher = Attacher::new(Options::default());
    let mut said = Vec::new();
    for watch in attacher.watches() {
        let all = match watch.kind {
            Kind::Volume => vec![read(Kind::Volume, &volume)],
            Kind::Claim => vec![read(Kind::Claim, &claim)],
            Kind::Pod => vec![read(Kind::Pod, &pod)],
            Kind::Node => nodes.clone(),
            _ => Vec::new(),
        };
        said.extend(tell(&mut attacher, Input::Listed(watch.kind, all)));
    }
    (attacher, said)
}

/// What it does: what is made, and what is told.
fn tell(
    attacher: &mut Attacher,
    input: Input<std::convert::Infallible, bitts_attacher::Alarm>,
) -> Vec<String> {
    let effects = attacher.handle(Moment::default(), input);
    let said = effects.into_iter().filter_map(|effect| match effect {
        Effect::Create(create) => Some(format!("make for {}", create.body["spec"]["nodeName"])),
        Effect::Event(event) => Some(event.message),
        _ => None,
    });
    said.collect()
}

#[test]
fn an_agents_node_is_left_to_its_cloud() {
    let (mut attacher, said) = attacher("n1", vec![node("n1", 1, true, &[])]);
    assert_eq!(said, Vec::<String>::new());
    // A kubelet has it by now.
    let said = tell(&mut attacher, Input::Seen(node("n1", 2, false, &[])));
    assert_eq!(said, ["make for \"n1\""]);
}

#[test]
fn a_driver_is_not_asked_while_a_node_lists_the_disk_as_its_clouds() {
    let nodes = vec![node("n1", 1, true, &["d"]), node("n2", 1, false, &[])];
    let (mut attacher, said) = attacher("n2", nodes);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("Its cloud has it on node n1"), "{said:?}");
    // Another disk is no matter.
    let said = tell(&mut attacher, Input::Seen(node("n1", 2, true, &["d", "e"])));
    assert_eq!(said, Vec::<String>::new());
    let said = tell(&mut attacher, Input::Seen(node("n1", 3, true, &["e"])));
    assert_eq!(said, ["make for \"n2\""]);
}

#[test]
fn a_node_that_is_gone_lists_nothing() {
    let nodes = vec![node("n1", 1, true, &["d"]), node("n2", 1, false, &[])];
    let (mut attacher, _) = attacher("n2", nodes);
    let gone = node("n1", 1, true, &["d"]).key();
    let said = tell(&mut attacher, Input::Deleted(gone, "n1".into()));
    assert_eq!(said, ["make for \"n2\""]);
}
