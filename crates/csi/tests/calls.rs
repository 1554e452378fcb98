//! Calls over a real socket.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bitts_csi::testing::{FakeDriver, Fate};
use bitts_csi::v1::node_service_capability::rpc::Type as Rpc;
use bitts_csi::{Class, Code, CsiError, Driver, NodeCapabilities, v1};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    folder: tempfile::TempDir,
    fake: FakeDriver,
    driver: Driver,
}

impl World {
    async fn new(capabilities: &[Rpc]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("csi.sock");
        let fake = FakeDriver::start(&socket, "disk.example.com", capabilities).unwrap();
        let driver = Driver::connect(&socket, PATIENCE).await.unwrap();
        Self {
            folder,
            fake,
            driver,
        }
    }
}

fn stage() -> v1::NodeStageVolumeRequest {
    v1::NodeStageVolumeRequest {
        volume_id: "v".to_owned(),
        staging_target_path: "/staging".to_owned(),
        ..Default::default()
    }
}

fn publish(target: &str) -> v1::NodePublishVolumeRequest {
    v1::NodePublishVolumeRequest {
        volume_id: "v".to_owned(),
        target_path: target.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_volume_is_staged_published_and_taken_back() {
    let World { fake, driver, .. } = World::new(&[Rpc::StageUnstageVolume]).await;
    let info = driver.info().await.unwrap();
    assert_eq!(info.name, "disk.example.com");
    assert_eq!(driver.node_info().await.unwrap().node_id, "node-1");
    let can = driver.node_capabilities().await.unwrap();
    let stages = NodeCapabilities {
        stages: true,
        ..Default::default()
    };
    assert_eq!(can, stages);
    driver.stage(stage()).await.unwrap();
    driver.publish(publish("/a")).await.unwrap();
    driver.publish(publish("/b")).await.unwrap();
    let at = |path: &str| ("v".to_owned(), path.to_owned());
    assert_eq!(fake.staged(), [at("/staging")]);
    assert_eq!(fake.published(), [at("/a"), at("/b")]);
    driver.unpublish("v", "/a").await.unwrap();
    driver.unpublish("v", "/b").await.unwrap();
    driver.unstage("v", "/staging").await.unwrap();
    assert!(fake.staged().is_empty() && fake.published().is_empty());
    assert_eq!(fake.calls().last().unwrap(), "NodeUnstageVolume v /staging");
}

/// M9: which answers leave it open whether the call took effect.
#[tokio::test]
async fn what_is_known_of_the_outcome() {
    let World { fake, driver, .. } = World::new(&[]).await;
    let uncertain = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Unavailable,
        Code::ResourceExhausted,
        Code::Aborted,
    ];
    let surely_not = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unknown,
        Code::Unauthenticated,
        Code::DataLoss,
    ];
    let expected = uncertain.map(|code| (code, Class::Uncertain));
    let expected = expected
        .into_iter()
        .chain(surely_not.map(|code| (code, Class::Final)));
    for (code, class) in expected {
        fake.next("NodeStageVolume", Fate::Refuses(code));
        let error = driver.stage(stage()).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains("told to refuse"), "{error}");
        assert!(fake.staged().is_empty());
    }
    // The answer says no, and yet it was done.
    fake.next("NodeStageVolume", Fate::DoesAndFails(Code::Unavailable));
    let error = driver.stage(stage()).await.unwrap_err();
    assert_eq!(error.class(), Class::Uncertain);
    assert_eq!(fake.staged().len(), 1);
}

#[tokio::test]
async fn a_driver_that_hangs_is_not_waited_for() {
    let World { folder, fake, .. } = World::new(&[]).await;
    let socket = folder.path().join("csi.sock");
    let driver = Driver::connect(&socket, Duration::from_millis(50))
        .await
        .unwrap();
    fake.next("NodePublishVolume", Fate::Hangs);
    let error = driver.publish(publish("/a")).await.unwrap_err();
    assert!(matches!(error, CsiError::Deadline { .. }), "{error}");
    assert_eq!(error.class(), Class::Uncertain);
    // Others are answered.
    driver.info().await.unwrap();
}

/// M19: a driver that is not there yet is tried again.
#[tokio::test]
async fn a_driver_that_is_gone_is_told() {
    let World {
        folder,
        fake,
        driver,
    } = World::new(&[]).await;
    driver.info().await.unwrap();
    assert!(!driver.has_ended());
    drop(fake);
    // Seen without a call, so that none is spent to find it out.
    let seen = async {
        while !driver.has_ended() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    let socket = folder.path().join("csi.sock");
    std::fs::remove_file(&socket).unwrap();
    let error = Driver::connect(&socket, PATIENCE).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    let text = error.to_string();
    assert!(
        text.contains("csi.sock") && text.contains("Is the driver running"),
        "{text}"
    );
    let error = driver.stage(stage()).await.unwrap_err();
    assert_eq!(error.class(), Class::Uncertain, "{error}");
    // It is connected to anew when it is back.
    let _back = FakeDriver::start(&socket, "disk.example.com", &[]).unwrap();
    let again = Driver::connect(&socket, PATIENCE).await.unwrap();
    again.stage(stage()).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_to_the_driver_that_it_was_made_to() {
    let World {
        folder,
        fake,
        driver,
    } = World::new(&[]).await;
    assert_eq!(driver.info().await.unwrap().name, "disk.example.com");
    drop(fake);
    let socket = folder.path().join("csi.sock");
    std::fs::remove_file(&socket).ok();
    let _other = FakeDriver::start(&socket, "other.example.com", &[]).unwrap();
    for _ in 0..3 {
        let error = driver.info().await.unwrap_err();
        assert!(matches!(error, CsiError::Broken { .. }), "{error}");
    }
    let anew = Driver::connect(&socket, PATIENCE).await.unwrap();
    assert_eq!(anew.info().await.unwrap().name, "other.example.com");
}
