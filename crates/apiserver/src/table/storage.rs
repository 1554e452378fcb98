//! Rows of volumes, claims, classes, attachments and CSI objects.

use serde_json::{Value, json};

use super::{Column, Printer, created, name, phase, text_or};

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const UNSET: &str = "<unset>";

pub(super) const VOLUMES: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Capacity"),
        Column::new("Access Modes"),
        Column::new("Reclaim Policy"),
        Column::new("Status"),
        Column::new("Claim"),
        Column::new("StorageClass"),
        Column::new("VolumeAttributesClass"),
        Column::new("Reason"),
        Column::new("Age"),
        Column::new("VolumeMode").wide(),
    ],
    cells: |volume, now| {
        let spec = &volume["spec"];
        let claim = match &spec["claimRef"] {
            Value::Null => String::new(),
            claim => format!(
                "{}/{}",
                text_or(&claim["namespace"], ""),
                text_or(&claim["name"], "")
            ),
        };
        vec![
            name(volume),
            text_or(&spec["capacity"]["storage"], "0").into(),
            modes(&spec["accessModes"]),
            text_or(&spec["persistentVolumeReclaimPolicy"], "").into(),
            phase(volume).into(),
            claim.into(),
            class(volume),
            attributes_class(spec),
            text_or(&volume["status"]["reason"], "").into(),
            created(volume, now),
            text_or(&spec["volumeMode"], UNSET).into(),
        ]
    },
};

pub(super) const CLAIMS: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Status"),
        Column::new("Volume"),
        Column::new("Capacity"),
        Column::new("Access Modes"),
        Column::new("StorageClass"),
        Column::new("VolumeAttributesClass"),
        Column::new("Age"),
        Column::new("VolumeMode").wide(),
    ],
    cells: |claim, now| {
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let volume = text_or(&spec["volumeName"], "");
        let (capacity, modes) = if volume.is_empty() {
            (json!(""), json!(""))
        } else {
            let capacity = text_or(&status["capacity"]["storage"], "0");
            (capacity.into(), modes(&status["accessModes"]))
        };
        vec![
            name(claim),
            phase(claim).into(),
            volume.into(),
            capacity,
            modes,
            class(claim),
            attributes_class(spec),
            created(claim, now),
            text_or(&spec["volumeMode"], UNSET).into(),
        ]
    },
};

pub(super) const CLASSES: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("Provisioner"),
        Column::new("ReclaimPolicy"),
        Column::new("VolumeBindingMode"),
        Column::new("AllowVolumeExpansion"),
        Column::new("Age"),
    ],
    cells: |class, now| {
        let annotations = &class["metadata"]["annotations"];
        let is_default = annotations["storageclass.kubernetes.io/is-default-class"] == "true"
            || annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true";
        let mark = if is_default { " (default)" } else { "" };
        vec![
            format!("{}{mark}", text_or(&class["metadata"]["name"], "")).into(),
            text_or(&class["provisioner"], "").into(),
            text_or(&class["reclaimPolicy"], "Delete").into(),
            text_or(&class["volumeBindingMode"], "Immediate").into(),
            (class["allowVolumeExpansion"] == true).into(),
            created(class, now),
        ]
    },
};

pub(super) const ATTRIBUTES_CLASSES: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::new("DriverName"),
        Column::new("Age"),
    ],
    cells: |class, now| {
        vec![
            name(class),
            text_or(&class["driverName"], "").into(),
            created(class, now),
        ]
    },
};

pub(super) const ATTACHMENTS: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::naming("Attacher"),
        Column::new("PV"),
        Column::new("Node"),
        Column::typed("Attached", "boolean"),
        Column::new("Age"),
    ],
    cells: |attachment, now| {
        let spec = &attachment["spec"];
        vec![
            name(attachment),
            text_or(&spec["attacher"], "").into(),
            text_or(&spec["source"]["persistentVolumeName"], "").into(),
            text_or(&spec["nodeName"], "").into(),
            (attachment["status"]["attached"] == true).into(),
            created(attachment, now),
        ]
    },
};

pub(super) const DRIVERS: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::typed("AttachRequired", "boolean"),
        Column::typed("PodInfoOnMount", "boolean"),
        Column::typed("StorageCapacity", "boolean"),
        Column::new("TokenRequests"),
        Column::typed("RequiresRepublish", "boolean"),
        Column::new("Modes"),
        Column::new("Age"),
    ],
    cells: |driver, now| {
        let spec = &driver["spec"];
        let audiences = list(&spec["tokenRequests"], |request| &request["audience"]);
        vec![
            name(driver),
            (spec["attachRequired"] != false).into(),
            (spec["podInfoOnMount"] == true).into(),
            (spec["storageCapacity"] == true).into(),
            text_or(&audiences.into(), UNSET).into(),
            (spec["requiresRepublish"] == true).into(),
            list(&spec["volumeLifecycleModes"], |mode| mode).into(),
            created(driver, now),
        ]
    },
};

pub(super) const CSI_NODES: Printer = Printer {
    columns: &[
        Column::naming("Name"),
        Column::typed("Drivers", "integer"),
        Column::new("Age"),
    ],
    cells: |node, now| {
        let drivers = node["spec"]["drivers"].as_array().map_or(0, Vec::len);
        vec![name(node), drivers.into(), created(node, now)]
    },
};

/// `RWO,RWX`: each mode once, in the API's order.
fn modes(modes: &Value) -> Value {
    let short: Vec<&str> = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(mode, _)| {
        modes
            .as_array()
            .into_iter()
            .flatten()
            .any(|given| given == mode)
    })
    .map(|(_, short)| short)
    .collect();
    short.join(",").into()
}

/// The class of a volume or claim: the old annotation goes first.
fn class(object: &Value) -> Value {
    let class = text_or(&object["spec"]["storageClassName"], "");
    object["metadata"]["annotations"][OLD_CLASS]
        .as_str()
        .unwrap_or(class)
        .into()
}

fn attributes_class(spec: &Value) -> Value {
    spec["volumeAttributesClassName"]
        .as_str()
        .unwrap_or(UNSET)
        .into()
}

fn list(items: &Value, text: fn(&Value) -> &Value) -> String {
    let texts: Vec<&str> = items
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| text_or(text(item), ""))
        .collect();
    texts.join(",")
}
