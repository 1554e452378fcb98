//! The API on a socket, with TLS, and with kubectl where there is one.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bitts_apiserver::{ApiServer, Serve, ServeError, Serving};
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn serve(api: &ApiServer, path: Option<&Path>) -> Serving {
    let options = Serve {
        listen: LOOPBACK,
        insecure: false,
        write_kubeconfig: path.map(Into::into),
    };
    api.serve(options).await.unwrap()
}

async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn kube_gets_in_with_the_kubeconfig_and_not_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let api = ApiServer::default();
    let serving = serve(&api, Some(&path)).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let kubeconfig = std::fs::read_to_string(&path).unwrap();
    assert_eq!(kubeconfig, serving.kubeconfig());
    let namespaces = Api::<Namespace>::all(client(&kubeconfig).await);
    assert!(namespaces.get("default").await.is_ok());

    let token = kubeconfig
        .lines()
        .find(|line| line.contains("token:"))
        .unwrap();
    let stranger = kubeconfig.replace(token, "    token: guess");
    let refused = Api::<Namespace>::all(client(&stranger).await)
        .get("default")
        .await
        .unwrap_err();
    let kube::Error::Api(status) = refused else {
        panic!("{refused}")
    };
    assert_eq!(status.code, 401);

    // Gone and back at the same address: clients need nothing new.
    let listen = serving.addr();
    serving.kill().await;
    assert!(namespaces.get("default").await.is_err());
    let options = Serve {
        listen,
        insecure: false,
        write_kubeconfig: None,
    };
    let serving = api.serve(options).await.unwrap();
    assert!(namespaces.get("default").await.is_ok());
    serving.stop().await;
}

#[tokio::test]
async fn a_stop_ends_watches_and_waits_for_nobody() {
    let api = ApiServer::default();
    let serving = serve(&api, None).await;
    let namespaces = Api::<Namespace>::all(client(serving.kubeconfig()).await);
    let mut watch = Box::pin(namespaces.watch(&Default::default(), "0").await.unwrap());
    let stop = tokio::time::timeout(Duration::from_secs(2), serving.stop());
    let drain = async { while futures::StreamExt::next(&mut watch).await.is_some() {} };
    let (stopped, ()) = tokio::join!(stop, drain);
    assert!(stopped.is_ok());
}

#[tokio::test]
async fn others_reach_it_only_when_that_is_meant() {
    let api = ApiServer::default();
    let everywhere = |insecure| Serve {
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        insecure,
        write_kubeconfig: None,
    };
    let refused = api.serve(everywhere(false)).await.unwrap_err();
    assert!(matches!(refused, ServeError::NotLoopback(_)), "{refused}");
    let serving = api.serve(everywhere(true)).await.unwrap();
    assert!(serving.kubeconfig().contains("https://127.0.0.1:"));
    assert!(
        client(serving.kubeconfig())
            .await
            .apiserver_version()
            .await
            .is_ok()
    );
    let taken = Serve {
        listen: serving.addr(),
        insecure: true,
        write_kubeconfig: None,
    };
    let error = api.serve(taken).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on"), "{error}");
}

struct Kubectl<'a>(&'a Path);

impl Kubectl<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.0)
            .env("HOME", self.0.parent().unwrap());
        command.args(line.split_whitespace());
        command
    }

    async fn output(&self, line: &str) -> Output {
        let mut command = self.command(line);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    async fn run(&self, line: &str) -> String {
        let output = self.output(line).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "kubectl {line}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

const MANIFESTS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local-storage}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: cqh}
spec:
  capacity: {storage: 100Mi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Delete
  storageClassName: local-storage
  local: {path: /data/pv}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: cqh, operator: In, values: [chenqionghe]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: cqh}
spec:
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: 100Mi}}
  storageClassName: local-storage
";

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_kubectl_works() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        skip("there is no kubectl on PATH");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let api = ApiServer::default();
    let serving = serve(&api, Some(&path)).await;
    let kubectl = Kubectl(&path);
    let manifests = folder.path().join("manifests.yaml");
    std::fs::write(&manifests, MANIFESTS).unwrap();
    let apply = format!("apply -f {}", manifests.display());

    let applied = kubectl.run(&apply).await;
    assert_eq!(applied.matches(" created").count(), 3, "{applied}");
    let again = kubectl.run(&apply).await;
    assert_eq!(again.matches(" unchanged").count(), 3, "{again}");

    let mut follow = kubectl.command("get pv -w -o name");
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let wait = kubectl.output("wait --for=jsonpath={.status.phase}=Bound pvc/cqh --timeout=20s");
    let bind = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        kubectl.run("patch pv cqh --type=merge -p {\"spec\":{\"claimRef\":{\"name\":\"cqh\",\"namespace\":\"default\"}}}").await;
        kubectl.run("patch pv cqh --subresource=status --type=merge -p {\"status\":{\"phase\":\"Bound\"}}").await;
        kubectl
            .run("patch pvc cqh -p {\"spec\":{\"volumeName\":\"cqh\"}}")
            .await;
        kubectl.run("patch pvc cqh --subresource=status -p {\"status\":{\"phase\":\"Bound\",\"accessModes\":[\"ReadWriteMany\"],\"capacity\":{\"storage\":\"100Mi\"}}}").await;
    };
    let (waited, ()) = tokio::join!(wait, bind);
    assert!(
        waited.status.success(),
        "{}",
        String::from_utf8_lossy(&waited.stderr)
    );
    follow.kill().unwrap();
    let followed = follow.wait_with_output().unwrap().stdout;
    assert!(
        String::from_utf8_lossy(&followed)
            .matches("persistentvolume/cqh")
            .count()
            >= 2
    );

    let tables = kubectl.run("get pv,pvc -o wide").await;
    let row = |first: &str| {
        let line = tables
            .lines()
            .find(|line| line.starts_with(first))
            .unwrap_or_else(|| panic!("{tables}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(
        row("persistentvolume/cqh")
            .starts_with("persistentvolume/cqh 100Mi RWX Delete Bound default/cqh local-storage"),
        "{tables}"
    );
    assert!(
        row("persistentvolumeclaim/cqh")
            .starts_with("persistentvolumeclaim/cqh Bound cqh 100Mi RWX local-storage"),
        "{tables}"
    );

    let described = kubectl.run("describe pvc cqh").await;
    assert!(described.contains("Status:        Bound"), "{described}");
    kubectl.run("get events").await;
    let resources = kubectl.run("api-resources").await;
    assert!(
        resources.contains("persistentvolumeclaims") && resources.contains("volumeattachments"),
        "{resources}"
    );

    std::fs::write(
        &manifests,
        MANIFESTS.replace("storageClassName", "storageClasName"),
    )
    .unwrap();
    let refused = kubectl.output(&apply).await;
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        error.contains("unknown field \"spec.storageClasName\""),
        "{error}"
    );

    kubectl
        .run("patch pvc cqh -p {\"metadata\":{\"finalizers\":null}}")
        .await;
    kubectl
        .run("patch pv cqh -p {\"metadata\":{\"finalizers\":null}}")
        .await;
    kubectl
        .run("delete pvc/cqh pv/cqh --wait --timeout=20s")
        .await;
    assert!(kubectl.run("get pv,pvc").await.is_empty());
    serving.stop().await;
}

/// Says it past the test harness, which keeps what is printed to itself.
fn skip(why: &str) {
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped: {why}").unwrap();
}
