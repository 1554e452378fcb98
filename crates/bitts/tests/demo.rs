//! `bitts demo` as a newcomer runs it. Needs mount namespaces: as root always there, otherwise
//! user namespaces; where the kernel forbids both the demo itself says so and the tests that need
//! real mounts are skipped with that reason.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_bitts"))
        .arg("demo")
        .args(arguments))
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// The steps in the order told, or `None` (with the reason printed) where no mount could be made.
fn steps(output: &Output) -> Option<Vec<Value>> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    if let Some(reason) = stderr.lines().find(|l| l.contains("only shown")) {
        skip(reason);
        return None;
    }
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    Some(
        stdout
            .lines()
            .map(|l| serde_json::from_str(l).expect(l))
            .collect(),
    )
}

fn at(steps: &[Value], step: &str) -> f64 {
    let line = steps.iter().find(|s| s["step"] == step);
    line.unwrap_or_else(|| panic!("no step {step} in {steps:#?}"))["t_ms"]
        .as_f64()
        .unwrap()
}

#[test]
fn tells_every_step_in_order() {
    let Some(steps) = steps(&demo(&["--once", "--output", "json"])) else {
        return;
    };
    let order = [
        "available",
        "claim-created",
        "bound",
        "pod-created",
        "mounted",
        "written",
        "read",
        "unmounted",
        "released",
        "failed",
        "done",
    ];
    let told: Vec<_> = steps.iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(told, order, "{steps:#?}");
    for line in &steps {
        let members: Vec<_> = line
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            members,
            ["detail", "kind", "name", "step", "t_ms"],
            "{line}"
        );
    }
    assert!(at(&steps, "claim-created") <= at(&steps, "bound"));
    let read = steps.iter().find(|s| s["step"] == "read").unwrap();
    assert_eq!(
        read["detail"],
        "/data/pv/hello: written through the pod's directory"
    );
    let failed = steps.iter().find(|s| s["step"] == "failed").unwrap();
    assert_eq!(
        failed["detail"],
        "error getting deleter volume plugin for volume \"cqh\": no volume plugin matched"
    );
}

#[test]
fn prints_the_row_of_the_seed() {
    let output = demo(&["--once"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let row = [
        "cqh",
        "100Mi",
        "RWX",
        "Delete",
        "Bound",
        "default/cqh",
        "local-storage",
    ];
    let found = text
        .lines()
        .any(|l| l.split_whitespace().take(row.len()).eq(row));
    assert!(found, "no such row in\n{text}");
    assert!(!text.contains('\x1b'), "colours without a terminal");
}

#[test]
fn leaves_the_host_as_it_was() {
    let before = host();
    demo(&["--once"]);
    assert_eq!(host(), before);
}

#[test]
fn works_for_a_user_who_is_not_root() {
    let id = Command::new("id").arg("-u").output().unwrap();
    if String::from_utf8_lossy(&id.stdout).trim() != "0" {
        skip("the other tests already run as a user who is not root");
        return;
    }
    // The binary may lie below a folder that only root can enter.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let copy = folder.path().join("bitts");
    std::fs::copy(env!("CARGO_BIN_EXE_bitts"), &copy).unwrap();
    run(Command::new("chmod")
        .arg("-R")
        .arg("a+rx")
        .arg(folder.path()));
    let output = run(Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["demo", "--once", "--output", "json"]));
    let Some(steps) = steps(&output) else { return };
    assert_eq!(steps.last().unwrap()["step"], "done", "{steps:#?}");
}

/// Ends the demo with the test, whatever becomes of it.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn stays_up_for_kubectl_and_cleans_up_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let mut demo = Running(
        Command::new(env!("CARGO_BIN_EXE_bitts"))
            .args(["demo", "--output", "json", "--write-kubeconfig"])
            .arg(&kubeconfig)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let mut next = |step: &str| loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["step"] == step {
            return line;
        }
    };
    next("done");
    // What a user does now is followed: here, somebody makes another volume.
    let config = std::fs::read_to_string(&kubeconfig).unwrap();
    let mode = std::fs::metadata(&kubeconfig).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = kube::config::Kubeconfig::from_yaml(&config).unwrap();
        let context = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &context).await;
        let client = kube::Client::try_from(config.unwrap()).unwrap();
        let volumes: kube::Api<k8s_openapi::api::core::v1::PersistentVolume> =
            kube::Api::all(client);
        let text =
            include_str!("../../../examples/seed/volume.yaml").replace("name: cqh", "name: mine");
        let volume = serde_yaml_ng::from_str(&text).unwrap();
        volumes.create(&Default::default(), &volume).await.unwrap();
    });
    assert_eq!(next("available")["name"], "mine");
    let id = demo.0.id().to_string();
    run(Command::new("kill").args(["-TERM", &id]));
    assert!(demo.0.wait().unwrap().success());
    assert!(
        !kubeconfig.exists(),
        "the kubeconfig outlived the API it is for"
    );
}

/// What the demo could have touched: its two directories and the mounts.
fn host() -> (bool, Vec<String>, Vec<String>) {
    let list = |path: &str| {
        let Ok(entries) = std::fs::read_dir(path) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Other tests mount in namespaces of their own: nothing of theirs shows here either.
    (
        Path::new("/data/pv").exists(),
        list("/var/lib/kubelet/pods"),
        mounts.lines().map(str::to_owned).collect(),
    )
}

/// Says it past the test harness, which keeps what is printed to itself.
fn skip(why: &str) {
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped: {why}").unwrap();
}
