//! Bad input gets an error that says what to do.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

fn bitts(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitts"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap()
}

fn failure(arguments: &[&str], code: i32) -> String {
    let output = bitts(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[test]
fn a_kubeconfig_that_is_not_there() {
    let text = failure(
        &[
            "run",
            "--roles",
            "binder",
            "--kubeconfig",
            "/nonexistent/config",
        ],
        1,
    );
    assert!(text.contains("/nonexistent/config"), "{text}");
}

#[test]
fn no_cluster_at_all() {
    let text = failure(&["run", "--roles", "binder"], 1);
    assert!(text.contains("KUBECONFIG"), "{text}");
}

#[test]
fn a_kubeconfig_that_points_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    // Port 1 on loopback: nothing listens there.
    let text = r#"
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"#;
    std::fs::write(&file, text).unwrap();
    let text = failure(
        &[
            "run",
            "--roles",
            "binder",
            "--kubeconfig",
            file.to_str().unwrap(),
        ],
        1,
    );
    assert!(text.contains("127.0.0.1:1"), "{text}");
}

#[test]
fn a_role_that_is_not_built_in() {
    let text = failure(&["run", "--roles", "juggler"], 2);
    assert!(text.contains("binder"), "{text}");
}

#[test]
fn an_agent_without_a_node() {
    let text = failure(
        &[
            "run",
            "--roles",
            "agent",
            "--kubeconfig",
            "/nonexistent/config",
        ],
        1,
    );
    assert!(text.contains("--node-name"), "{text}");
}

#[test]
fn faults_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let faults = folder.path().join("faults.yaml");
    std::fs::write(&faults, "conflicts: often").unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let (faults, kubeconfig) = (faults.to_str().unwrap(), kubeconfig.to_str().unwrap());
    let text = failure(
        &[
            "apiserver",
            "--write-kubeconfig",
            kubeconfig,
            "--faults",
            faults,
        ],
        1,
    );
    assert!(text.contains("faults.yaml"), "{text}");
}

#[test]
fn listening_beyond_loopback_is_asked_for_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = failure(
        &[
            "apiserver",
            "--listen",
            "0.0.0.0:0",
            "--write-kubeconfig",
            kubeconfig.to_str().unwrap(),
        ],
        1,
    );
    assert!(text.contains("--insecure"), "{text}");
}

#[test]
fn an_agent_whose_node_has_an_empty_name() {
    let text = failure(&["run", "--roles", "agent", "--node-name", ""], 2);
    assert!(text.contains("--node-name"), "{text}");
}

#[test]
fn a_kubeconfig_that_exists_is_not_overwritten_by_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(&file, "mine").unwrap();
    let text = failure(&["demo", "--write-kubeconfig", file.to_str().unwrap()], 1);
    assert!(text.contains("name another file"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn a_demo_that_fails_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bitts"))
        .args(["demo", "--listen", "192.0.2.1:1"])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
