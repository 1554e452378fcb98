//! Objects as the API and users write them.

use bitts_api::{
    AccessMode, AccessModes, Attachment, BindingMode, Claim, ClaimPhase, CsiDriver, CsiNode,
    CsiVolume, DriverWants, GroupPolicy, IscsiTarget, Kind, Labels, Node, Pod, PodPhase,
    PodVolumeSource, Quantity, ReclaimPolicy, SecretRef, Source, StorageClass, Unused, Volume,
    VolumeMode, VolumePhase,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The manifests of the seed (spec E), as a user writes them.
const SEED_VOLUME: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: cqh, labels: {cqh: chenqionghe}, creationTimestamp: null}
spec:
  capacity: {storage: 100Mi}
  volumeMode: Filesystem
  accessModes: ["ReadWriteMany"]
  persistentVolumeReclaimPolicy: Delete
  storageClassName: local-storage
  local: {path: /data/pv}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: cqh, operator: In, values: [chenqionghe]}]
"#;
const SEED_CLAIM: &str = r#"
kind: PersistentVolumeClaim
apiVersion: v1
metadata: {name: cqh, namespace: default}
spec:
  storageClassName: local-storage
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: 100Mi}}
  selector: {matchLabels: {cqh: chenqionghe}}
"#;

fn read<T: DeserializeOwned>(value: Value) -> T {
    let text = value.to_string();
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why} in {text}"))
}

fn volume(spec: Value) -> Volume {
    read(json!({"metadata": {"name": "v"}, "spec": spec}))
}

fn claim(spec: Value) -> Claim {
    read(json!({"metadata": {"name": "c", "namespace": "default", "uid": "1"}, "spec": spec}))
}

#[test]
fn the_seed_fits_itself() {
    let volume: Volume = serde_yaml_ng::from_str(SEED_VOLUME).unwrap();
    let claim: Claim = serde_yaml_ng::from_str(SEED_CLAIM).unwrap();
    let local = Source::Local {
        path: "/data/pv".into(),
        fs_type: None,
    };
    assert_eq!(volume.source, local);
    assert_eq!(volume.reclaim_policy, ReclaimPolicy::Delete);
    assert_eq!(volume.volume_mode, VolumeMode::Filesystem);
    assert_eq!(volume.phase, VolumePhase::Pending);
    assert_eq!(volume.capacity.unwrap().to_string(), "100Mi");
    assert_eq!(volume.capacity, claim.request);
    assert!(volume.access_modes.contains_all(claim.access_modes));
    assert_eq!(volume.class, claim.class);
    assert!(claim.class_is_set && !claim.bind_completed());
    assert!(claim.selector.unwrap().matches(&volume.meta.labels));

    let node = |label: &str| -> Node {
        read(json!({"metadata": {"name": "n", "labels": {"cqh": label}}}))
    };
    assert!(node("chenqionghe").fits(volume.node_affinity.as_ref()));
    assert!(!node("other").fits(volume.node_affinity.as_ref()));
    assert!(node("other").fits(None));
}

#[test]
fn null_is_the_same_as_absent() {
    let bare_meta = json!({"name": "x"});
    let null_meta = json!({"name": "x", "namespace": null, "uid": null, "resourceVersion": null,
        "creationTimestamp": null, "deletionTimestamp": null, "labels": null,
        "annotations": null, "finalizers": null});
    let pair = |bare: Value, nulls: Value| {
        (
            json!({"metadata": bare_meta, "spec": bare}),
            json!({"metadata": null_meta, "spec": nulls, "status": null}),
        )
    };
    let (bare, nulls) = pair(
        json!({"nfs": {"server": "s", "path": "/p"}}),
        json!({"nfs": {"server": "s", "path": "/p", "readOnly": null}, "capacity": null,
               "accessModes": null, "volumeMode": null, "storageClassName": null,
               "volumeAttributesClassName": null, "persistentVolumeReclaimPolicy": null,
               "claimRef": null, "nodeAffinity": null, "mountOptions": null, "local": null,
               "hostPath": null, "csi": null, "rbd": null}),
    );
    assert_eq!(read::<Volume>(bare), read::<Volume>(nulls));
    let (bare, nulls) = pair(
        json!({}),
        json!({"resources": null, "accessModes": null, "volumeMode": null, "selector": null,
               "storageClassName": null, "volumeName": null}),
    );
    assert_eq!(read::<Claim>(bare), read::<Claim>(nulls));
    let (bare, nulls) = pair(json!({}), json!({"volumes": null, "nodeName": null}));
    assert_eq!(read::<Pod>(bare), read::<Pod>(nulls));
    let class = read::<StorageClass>(json!(
        {"metadata": null_meta, "provisioner": "p", "volumeBindingMode": null}));
    assert_eq!(class.binding_mode, BindingMode::Immediate);
    assert_eq!(volume(json!(null)), volume(json!({})));
}

#[test]
fn a_volumes_source_is_found_by_its_field() {
    let other = |name: &str| Source::Other(name.into());
    let cases = [
        (
            json!({"hostPath": {"path": "/h", "type": "Directory"}}),
            Source::HostPath {
                path: "/h".into(),
                kind: "Directory".into(),
            },
        ),
        (
            json!({"hostPath": {"path": "/h", "type": null}}),
            Source::HostPath {
                path: "/h".into(),
                kind: "".into(),
            },
        ),
        (
            json!({"nfs": {"server": "s", "path": "/p", "readOnly": true}}),
            Source::Nfs {
                server: "s".into(),
                path: "/p".into(),
                read_only: true,
            },
        ),
        (
            json!({"csi": {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"a": "b"}}}),
            Source::Csi(Box::new(CsiVolume {
                driver: "d".into(),
                handle: "h".into(),
                attributes: [("a".into(), "b".into())].into(),
                ..CsiVolume::default()
            })),
        ),
        (
            json!({"csi": {"driver": "d", "volumeHandle": "h", "fsType": "xfs", "readOnly": true,
                           "nodeStageSecretRef": {"namespace": "n", "name": "s"}}}),
            Source::Csi(Box::new(CsiVolume {
                driver: "d".into(),
                handle: "h".into(),
                fs_type: Some("xfs".into()),
                read_only: true,
                stage_secret: Some(SecretRef {
                    namespace: "n".into(),
                    name: "s".into(),
                }),
                ..CsiVolume::default()
            })),
        ),
        (
            json!({"local": {"path": "/dev/sdb", "fsType": "xfs"}}),
            Source::Local {
                path: "/dev/sdb".into(),
                fs_type: Some("xfs".into()),
            },
        ),
        (
            json!({"gcePersistentDisk": {"pdName": "d", "partition": -1, "fsType": ""}}),
            Source::GcePersistentDisk {
                disk: "d".into(),
                partition: 0,
                fs_type: None,
                read_only: false,
            },
        ),
        (
            json!({"iscsi": {"targetPortal": "p", "iqn": "q", "lun": 3, "fsType": "xfs", "readOnly": true}}),
            Source::Iscsi {
                target: Box::new(IscsiTarget {
                    portal: "p".into(),
                    iqn: "q".into(),
                }),
                lun: 3,
                fs_type: Some("xfs".into()),
                read_only: true,
            },
        ),
        (
            json!({"rbd": {"image": "i"}, "capacity": {"storage": "1Gi"}}),
            other("rbd"),
        ),
        (
            json!({"aFieldOfTheFuture": 1, "local": {"path": "/p"}}),
            Source::Local {
                path: "/p".into(),
                fs_type: None,
            },
        ),
        (
            json!({"local": {"path": "/p"}, "zFieldOfTheFuture": [1]}),
            Source::Local {
                path: "/p".into(),
                fs_type: None,
            },
        ),
        (json!({}), other("")),
    ];
    for (spec, source) in cases {
        assert_eq!(volume(spec.clone()).source, source, "{spec}");
    }
}

#[test]
fn one_odd_value_does_not_lose_the_object() {
    for odd in [
        json!("lots"),
        json!(["1Gi"]),
        json!({"a": 1}),
        json!(true),
        json!("9Ei"),
    ] {
        assert_eq!(volume(json!({"capacity": {"storage": odd}})).capacity, None);
    }
    let number = volume(json!({"capacity": {"storage": 1_073_741_824, "inodes": "x"}}));
    assert_eq!(number.capacity, "1Gi".parse().ok());
    let policy = volume(json!({"persistentVolumeReclaimPolicy": "Shred"})).reclaim_policy;
    assert_eq!(policy, ReclaimPolicy::Other("Shred".into()));

    // A claim for a mode of the future gets nothing rather than something else.
    let asked = claim(json!({"accessModes": ["ReadWriteOnce", "WriteFromSpace"]})).access_modes;
    let offered = volume(json!({"accessModes": ["WriteFromSpace", "ReadWriteOnce"]})).access_modes;
    assert!(!offered.contains_all(asked));
    assert!(offered.contains_all(AccessModes::from_iter([AccessMode::ReadWriteOnce])));
    assert_eq!((offered.to_string().as_str(), offered.len()), ("RWO", 1));
}

#[test]
fn access_modes_are_a_set_in_kubectls_order() {
    let modes = volume(json!({"accessModes":
        ["ReadWriteOncePod", "ReadWriteMany", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce"]}));
    assert_eq!(modes.access_modes.to_string(), "RWO,ROX,RWX,RWOP");
    assert!(volume(json!({"accessModes": []})).access_modes.is_empty());
}

#[test]
fn the_legacy_annotation_names_the_class() {
    let class_of = |annotations: Value, field: Value| -> (Option<String>, bool) {
        let claim: Claim = read(
            json!({"metadata": {"name": "c", "annotations": annotations},
                                       "spec": {"storageClassName": field}}),
        );
        (claim.class.map(|c| c.to_string()), claim.class_is_set)
    };
    let beta = "volume.beta.kubernetes.io/storage-class";
    assert_eq!(class_of(json!({}), json!(null)), (None, false));
    assert_eq!(class_of(json!({}), json!("")), (None, true));
    assert_eq!(class_of(json!({}), json!("a")), (Some("a".into()), true));
    assert_eq!(
        class_of(json!({beta: "b"}), json!("a")),
        (Some("b".into()), true)
    );
    assert_eq!(class_of(json!({beta: ""}), json!("a")), (None, true));
    assert_eq!(
        class_of(json!({beta: "b"}), json!(null)),
        (Some("b".into()), true)
    );
}

#[test]
fn only_annotations_that_roles_read_are_kept() {
    let claim: Claim = read(json!({"metadata": {"name": "c", "annotations": {
        "kubectl.kubernetes.io/last-applied-configuration": "{...}", "mine": "x",
        "pv.kubernetes.io/bind-completed": "", "bitts.dev/hold": null}}}));
    assert!(claim.bind_completed(), "the value means nothing (N4)");
    let kept = |name| claim.meta.annotations.get(name);
    assert_eq!(kept("mine"), None);
    assert_eq!(
        kept("kubectl.kubernetes.io/last-applied-configuration"),
        None
    );
    assert_eq!(kept("bitts.dev/hold"), Some(""));
}

#[test]
fn a_claim_ref_denotes_a_claim_by_place_and_uid() {
    let claim = claim(json!({}));
    let refers = |r: Value| volume(json!({"claimRef": r})).is_for(&claim);
    assert!(refers(json!({"namespace": "default", "name": "c"})));
    assert!(refers(
        json!({"namespace": "default", "name": "c", "uid": ""})
    ));
    assert!(refers(
        json!({"namespace": "default", "name": "c", "uid": "1", "kind": "X"})
    ));
    assert!(!refers(
        json!({"namespace": "default", "name": "c", "uid": "2"})
    ));
    assert!(!refers(json!({"namespace": "other", "name": "c"})));
    assert!(!refers(json!({"name": "c"})));
    assert!(!refers(json!(null)));
}

#[test]
fn status_and_phases() {
    let bound: Claim = read(
        json!({"metadata": {"name": "c"}, "spec": {"volumeName": ""},
        "status": {"phase": "Bound", "capacity": {"storage": "2Gi"},
                   "accessModes": ["ReadWriteOnce"], "currentVolumeAttributesClassName": "gold"}}),
    );
    assert_eq!(bound.phase, ClaimPhase::Bound);
    assert_eq!(bound.volume_name, None);
    assert_eq!(bound.status_capacity, "2Gi".parse().ok());
    assert_eq!(bound.status_attributes.unwrap().current.unwrap(), "gold");
    for phase in ["Pending", "Available", "Bound", "Released", "Failed"] {
        let volume: Volume = read(json!({"metadata": {"name": "v"}, "spec": {},
            "status": {"phase": phase, "message": "why"}}));
        assert_eq!((volume.phase.as_str(), &*volume.message), (phase, "why"));
    }
}

#[test]
fn a_pods_volumes_are_its_claims_and_others() {
    let pod: Pod = read(json!({
    "metadata": {"name": "p", "namespace": "default", "uid": "u"},
    "spec": {"nodeName": "", "volumes": [
        {"name": "a", "persistentVolumeClaim": {"claimName": "mine", "readOnly": true}},
        {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"configMap": {"name": "x"}, "name": "c", "secret": null},
        {"name": "d", "persistentVolumeClaim": null, "ephemeral": null, "emptyDir": {}},
    ]}}));
    assert_eq!(pod.node, None);
    assert_eq!(
        pod.claims().map(ToString::to_string).collect::<Vec<_>>(),
        ["mine", "p-b"]
    );
    let source = |name: &str, read_only, ephemeral| PodVolumeSource::Claim {
        name: name.into(),
        read_only,
        ephemeral,
    };
    assert_eq!(pod.volumes[0].source, source("mine", true, false));
    assert_eq!(pod.volumes[1].source, source("p-b", false, true));
    assert_eq!(
        pod.volumes[2].source,
        PodVolumeSource::Other("configMap".into())
    );
    assert_eq!(
        pod.volumes[3].source,
        PodVolumeSource::Other("emptyDir".into())
    );
    let [template] = &pod.claim_templates[..] else {
        panic!("{:?}", pod.claim_templates);
    };
    assert_eq!((&*template.volume, template.claim.as_str()), ("b", "p-b"));
    assert_eq!(template.template, json!({"spec": {}}));
}

#[test]
fn a_claim_knows_who_made_it_and_what_its_conditions_say() {
    let resizing = json!({"type": "Resizing", "status": "True", "unheard-of": 1});
    let claim: Claim = read(json!({
        "metadata": {"name": "p-b", "ownerReferences": [
            {"kind": "Pod", "name": "q", "uid": "other"},
            {"kind": "Pod", "name": "p", "uid": "mine", "controller": true},
        ]},
        "status": {"conditions": [{"type": "Unused", "status": "False"}, resizing]},
    }));
    assert_eq!(claim.meta.controller, Some("mine".into()));
    assert_eq!(claim.unused, Unused::False);
    assert_eq!(*claim.other_conditions, [resizing], "kept as it is");
    let none: Claim = read(json!({"metadata": {"name": "c"}, "status": {"conditions": null}}));
    assert_eq!((none.meta.controller, none.unused), (None, Unused::Unknown));
}

#[test]
fn a_pod_ends_with_its_containers() {
    let pod = |phase: &str, deleting: bool, status: Value| -> Pod {
        let mut status = status;
        status["phase"] = json!(phase);
        read(json!({"status": status, "metadata": {"name": "p",
            "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")}}))
    };
    let ended = json!({"containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}]});
    let running = json!({"initContainerStatuses": [{"state": {"running": {"startedAt": null}}}]});
    assert!(pod("Succeeded", false, json!({})).is_terminated());
    assert!(pod("Failed", false, json!({})).is_terminated());
    assert!(!pod("Running", false, running.clone()).is_terminated());
    assert!(
        !pod("Running", false, ended.clone()).is_terminated(),
        "it may be restarted"
    );
    assert!(!pod("Running", true, running).is_terminated());
    assert!(pod("Running", true, ended).is_terminated());
    assert_eq!(pod("Sleeping", false, json!({})).phase, PodPhase::Unknown);
}

#[test]
fn default_classes_are_annotated() {
    let is_default = |annotations: Value| {
        read::<StorageClass>(
            json!({"metadata": {"name": "s", "annotations": annotations},
            "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"}),
        )
        .is_default()
    };
    assert!(is_default(
        json!({"storageclass.kubernetes.io/is-default-class": "true"})
    ));
    assert!(is_default(
        json!({"storageclass.beta.kubernetes.io/is-default-class": "true"})
    ));
    assert!(!is_default(
        json!({"storageclass.kubernetes.io/is-default-class": "yes"})
    ));
    assert!(!is_default(json!({})));
}

#[test]
fn what_is_no_object_is_an_error_with_its_reason() {
    let error = |json: &str| Kind::Volume.read(json.as_bytes()).unwrap_err().to_string();
    assert!(error("{").contains("EOF"));
    assert!(error(r#"{"spec": {}}"#).contains("metadata"));
    assert!(error(r#"{"metadata": {}}"#).contains("name"));
    assert!(error(r#"{"metadata": {"name": "v", "resourceVersion": "x"}}"#).contains("\"x\""));
}

/// A million volumes are held: what an object costs is looked at before it grows.
#[test]
fn objects_stay_small() {
    assert_eq!(
        size_of::<Option<Quantity>>(),
        16,
        "amount, nanos and format, no padding"
    );
    assert_eq!(size_of::<Labels>(), 16, "one boxed slice");
    assert!(size_of::<Volume>() <= 416, "{}", size_of::<Volume>());
    assert!(size_of::<Claim>() <= 352, "{}", size_of::<Claim>());
}

#[test]
fn attachments_and_drivers_are_read() {
    let attachment: Attachment = read(json!({
        "metadata": {"name": "csi-1", "uid": "a", "resourceVersion": "1"},
        "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "pv"}},
        "status": {"attached": true, "attachmentMetadata": {"device": "sdb"},
                   "attachError": {"time": "2026-01-01T00:00:00Z", "message": "full", "errorCode": 8}},
    }));
    assert_eq!(attachment.volume, Some("pv".into()));
    assert!(attachment.is_attached && attachment.node == *"n");
    assert_eq!(attachment.context["device"], "sdb".into());
    let error = attachment.attach_error.unwrap();
    assert_eq!((&*error.message, error.code), ("full", Some(8)));

    let driver = |spec| -> DriverWants {
        let json =
            json!({"metadata": {"name": "d", "uid": "u", "resourceVersion": "1"}, "spec": spec});
        read::<CsiDriver>(json).wants
    };
    assert_eq!(driver(json!({})), DriverWants::default());
    let wants = driver(
        json!({"attachRequired": false, "podInfoOnMount": true, "fsGroupPolicy": "File",
                              "volumeLifecycleModes": ["Ephemeral"]}),
    );
    assert!(!wants.attach && wants.pod_info && !wants.persistent);
    assert_eq!(wants.group_policy, GroupPolicy::File);

    let node: CsiNode = read(json!({
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "1"},
        "spec": {"drivers": [{"name": "d", "nodeID": "i-1", "topologyKeys": null}]},
    }));
    assert_eq!(
        (&*node.drivers[0].name, &*node.drivers[0].node_id),
        ("d", "i-1")
    );

    let node: Node = read(json!({
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "1",
                     "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]},
        "status": {"volumesAttached": [{"name": "kubernetes.io/csi/d^h", "devicePath": ""}],
                   "volumesInUse": ["kubernetes.io/csi/d^i"],
                   "conditions": [{"type": "DiskPressure", "status": "False"},
                                  {"type": "Ready", "status": "True"}]},
    }));
    assert!(node.is_attached_to() && node.is_ready && node.is_out_of_service);
    assert!(node.device_paths.is_empty() && node.lists("kubernetes.io/csi/d^h"));
    assert!(!node.released("kubernetes.io/csi/d^h") && !node.released("kubernetes.io/csi/d^i"));
    assert!(node.released("kubernetes.io/csi/d^j"));
    assert_eq!(
        node.volumes_attached,
        ["kubernetes.io/csi/d^h".into()].into()
    );
}
